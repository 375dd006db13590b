//! A command over which the decision panics is dead-lettered; everything else goes on.

use std::sync::Arc;

use finflow_ledger::WalletId;
use finflow_state::store::Error;
use finflow_topologies::driver::START_MS;
use finflow_topologies::topics::partition_of_wallet;
use finflow_topologies::{Topic, TopologyDriver};

use self::hooked::Hooked;

#[path = "support/hooked.rs"]
mod hooked;

/// Panics when the wallet `boom` is read.
fn mine(key: Option<&[u8]>) -> Result<(), Error> {
    assert!(key.is_none_or(|key| !key.ends_with(b"boom")), "a mine");
    Ok(())
}

/// Sends commands for `boom` among those for others, each `astray` partitions from its home, and expects all but them to be done.
fn check(partitions: u32, lanes: u32, astray: u32) {
    let row = format!("{partitions} partitions, {lanes} lanes, {astray} astray");
    let mut driver = TopologyDriver::with_stores(partitions, lanes, |_| Arc::new(Hooked::new(mine, None)));
    let home = |wallet: &str| partition_of_wallet(&WalletId::parse(wallet).expect("an id"), partitions);
    let sent_to = (home("boom") + astray) % partitions;
    // The last one of the same pair shows that the posting which panicked still counts.
    let after = (0..).map(|n| format!("after-{n}")).find(|wallet| home(wallet) == home("boom")).expect("a neighbour");
    for (wallet, key) in [("alice", "1"), ("boom", "2"), ("bob", "3"), ("boom", "4"), (&after, "5")] {
        let rest = r#""currency":"AED","country":"AE","kind":"personal","holder":"H""#;
        let open = format!(r#"{{"type":"open_wallet","tenant":"acme","idempotency_key":"{key}","wallet":"{wallet}",{rest}}}"#);
        driver.send_to((home(wallet) + astray) % partitions, Some(wallet), &open);
    }
    let sent: Vec<u64> = {
        let all = driver.records(Topic::Commands).into_iter().filter(|record| record.key.as_deref() == Some(b"boom"));
        all.map(|record| record.offset).collect()
    };
    driver.advance(700);
    assert_eq!(driver.run(), Ok(()), "{row}");

    let dead = driver.log_of(Topic::Dlq, home("boom"));
    assert_eq!((dead.len(), driver.dead_letters().len()), (2, 2), "{row}: where they are at home");
    for (letter, offset) in dead.iter().zip(sent) {
        let header = |name: &str| letter.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(header("x-error-code").as_deref(), Some("panicked"), "{row}");
        assert_eq!(header("__streams.errors.partition"), Some(sent_to.to_string()), "{row}");
        assert_eq!(header("__streams.errors.offset"), Some(offset.to_string()), "{row}");
        assert_eq!((letter.key.as_deref(), letter.timestamp_ms), (Some(&b"boom"[..]), START_MS), "{row}");
    }
    assert_eq!(driver.events().len(), 3, "{row}");
    assert!(["alice", "bob", &after].iter().all(|wallet| driver.wallet(wallet).is_some()), "{row}");
}

#[test]
fn a_panic_costs_one_command_and_nothing_else() {
    // At home; forwarded and handed over; forwarded through the log.
    for (partitions, lanes, astray) in [(1, 1, 0), (4, 1, 0), (4, 1, 1), (4, 2, 1), (4, 4, 2)] {
        check(partitions, lanes, astray);
    }
}
