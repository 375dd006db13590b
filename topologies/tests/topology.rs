//! The whole topology in memory: commands in, events and balances out. One row per attempt, through one `check`.

use finflow_state::store;
use finflow_topologies::driver::START_MS;
use finflow_topologies::log::Log;
use finflow_topologies::log::simulated::Fault;
use finflow_topologies::simulation::audit;
use finflow_topologies::topics::partition_of_key;
use finflow_topologies::{Topic, TopologyDriver};

const PARTITIONS: u32 = 4;

fn ledger(driver: &TopologyDriver, wallet: &str) -> String {
    let Some(wallet) = driver.wallet(wallet) else { return "none".to_owned() };
    assert!(wallet.held().is_zero());
    wallet.ledger().to_string()
}

fn payment(driver: &TopologyDriver, wallet: &str, key: &str) -> String {
    let Some(payment) = driver.payment("acme", wallet, key) else { return "none".to_owned() };
    match payment.reason {
        Some(reason) => format!("{} {reason}", payment.state.as_str()),
        None => payment.state.as_str().to_owned(),
    }
}

fn run(driver: &mut TopologyDriver) {
    driver.run().expect("no halt");
}

/// Every store agrees with itself, and the events with each other.
fn verify(driver: &TopologyDriver) {
    for partition in 0..PARTITIONS {
        assert_eq!(store::verify(&*driver.store(partition)).expect("readable").differences, Vec::<String>::new());
    }
    let events: Vec<_> = driver.records(Topic::Events).into_iter().filter_map(|record| record.value).collect();
    assert_eq!(audit(events.iter().map(|event| &event[..])).faults, vec![]);
}

/// Runs rows of `verb key arguments -> state of the command | wallet balance ...`, each on the state of the rows before.
fn check(rows: &str) {
    for lanes in [1, 2, 4] {
        let mut driver = TopologyDriver::new(PARTITIONS, lanes);
        for row in rows.lines().map(str::trim).filter(|row| !row.is_empty()) {
            let (command, expected) = row.split_once("->").expect("a row has an arrow");
            let words: Vec<&str> = command.split_whitespace().collect();
            let (verb, key, wallet) = (words[0], words[1], words[2]);
            driver.send(&json(verb, key, &words[2..]));
            run(&mut driver);
            let (state, balances) = expected.split_once('|').unwrap_or((expected, ""));
            assert_eq!(payment(&driver, wallet, key), state.trim(), "{lanes} lanes: {row}");
            let balances: Vec<&str> = balances.split_whitespace().collect();
            for pair in balances.chunks(2) {
                assert_eq!(ledger(&driver, pair[0]), pair[1], "{lanes} lanes: {row}: {}", pair[0]);
            }
        }
        verify(&driver);
    }
}

fn json(verb: &str, key: &str, words: &[&str]) -> String {
    let start = format!(r#""tenant":"acme","idempotency_key":"{key}","wallet":"{}""#, words[0]);
    let rest = match (verb, words) {
        ("open_wallet", [_, currency]) => format!(r#""currency":"{currency}","country":"AE","kind":"personal","holder":"H""#),
        ("top_up", [_, amount, currency]) => format!(r#""amount":"{amount}","currency":"{currency}","source":{{"account":"x"}}"#),
        ("transfer", [_, to, amount, currency]) => format!(r#""to":"{to}","amount":"{amount}","currency":"{currency}""#),
        _ => r#""reason":"because""#.to_owned(),
    };
    format!(r#"{{"type":"{verb}",{start},{rest}}}"#)
}

/// A lane that has slept finds the command that opens a wallet and the credit to it at once.
#[test]
fn a_wallet_that_was_opened_before_a_transfer_to_it_is_open_when_the_credit_comes() {
    let mut driver = TopologyDriver::new(PARTITIONS, 2);
    let named = |lane: u32| {
        let mut names = (0..).map(|n| format!("w{n}"));
        names.find(|name| partition_of_key(name.as_bytes(), PARTITIONS) % 2 == lane).expect("one of many")
    };
    // The lane of the payer has its turn first.
    let (payer, receiver) = (named(0), named(1));
    driver.send(&json("open_wallet", "o", &[&receiver, "AED"]));
    driver.send(&json("open_wallet", "o", &[&payer, "AED"]));
    driver.send(&json("top_up", "t", &[&payer, "5", "AED"]));
    driver.send(&json("transfer", "p", &[&payer, &receiver, "2", "AED"]));
    run(&mut driver);
    assert_eq!(payment(&driver, &payer, "p"), "settled");
    assert_eq!((ledger(&driver, &payer), ledger(&driver, &receiver)), ("3.00".to_owned(), "2.00".to_owned()));
    verify(&driver);
}

#[test]
fn transfers_settle_once_or_are_rejected_in_order() {
    check(
        "
        open_wallet o1 alice AED            -> applied | alice 0.00
        open_wallet o2 bob AED              -> applied
        open_wallet o3 carol KWD            -> applied
        open_wallet o4 dave AED             -> applied
        open_wallet o5 alice AED            -> rejected wallet_exists
        open_wallet o6 eve XXX              -> rejected currency_unknown
        top_up p1 alice 100 AED             -> settled | alice 100.00
        top_up p1 alice 100 AED             -> settled | alice 100.00
        top_up p2 carol 1.2345 KWD          -> rejected amount_invalid
        top_up p3 carol 1.234 KWD           -> settled | carol 1.234
        transfer t1 alice bob 60.00 AED     -> settled | alice 40.00 bob 60.00
        transfer t1 alice bob 60 AED        -> settled | alice 40.00 bob 60.00
        transfer t1 alice dave 60.00 AED    -> settled | alice 40.00 dave 0.00
        transfer t2 alice bob 60.00 AED     -> rejected insufficient_funds | alice 40.00 bob 60.00
        transfer t3 alice dave 0.01 AED     -> settled | alice 39.99 dave 0.01
        transfer t4 alice alice 1 AED       -> rejected same_wallet
        transfer t5 alice nobody 1 AED      -> rejected counterparty_unknown | alice 39.99
        transfer t6 alice carol 1 AED       -> rejected counterparty_currency_mismatch | alice 39.99
        transfer t7 alice bob 1 KWD         -> rejected currency_mismatch
        transfer t8 alice bob 0 AED         -> rejected amount_invalid
        transfer t9 ghost bob 1 AED         -> rejected wallet_unknown
        transfer ta ghost bob 0 XXX         -> rejected amount_invalid
        freeze_wallet f1 bob                -> applied
        transfer tb alice bob 1 AED         -> rejected counterparty_frozen | alice 39.99
        transfer tc bob alice 1 AED         -> rejected wallet_frozen
        freeze_wallet f2 bob                -> rejected wallet_frozen
        unfreeze_wallet u1 bob              -> applied
        unfreeze_wallet u2 bob              -> rejected wallet_not_frozen
        close_wallet c1 bob                 -> rejected balance_not_zero
        transfer td bob alice 60 AED        -> settled | alice 99.99 bob 0.00
        close_wallet c2 bob                 -> applied
        transfer te alice bob 1 AED         -> rejected counterparty_closed | alice 99.99
        freeze_wallet f3 bob                -> rejected wallet_closed
        ",
    );
}

#[test]
fn misrouted_commands_are_executed_once_at_home_and_poison_is_dead_lettered() {
    for lanes in [1, 2] {
        let mut driver = TopologyDriver::new(PARTITIONS, lanes);
        driver.send(&json("open_wallet", "o1", &["alice", "AED"]));
        run(&mut driver);
        let top_up = json("top_up", "p1", &["alice", "5", "AED"]);
        for partition in 0..PARTITIONS {
            driver.send_to(partition, Some("alice"), &top_up);
            driver.send_to(partition, Some("somebody"), &top_up);
            driver.send_to(partition, None, &top_up);
            driver.send_to(partition, Some("alice"), "poison");
        }
        run(&mut driver);
        assert_eq!(ledger(&driver, "alice"), "5.00");
        let dead: Vec<_> = driver.dead_letters().into_iter().map(|record| record.value).collect();
        assert_eq!(dead, vec![Some("poison".into()); PARTITIONS as usize]);
        verify(&driver);
    }
}

#[test]
fn another_tenants_wallet_is_unknown_and_old_commands_are_refused() {
    let mut driver = TopologyDriver::new(PARTITIONS, 1);
    driver.send(&json("open_wallet", "o1", &["alice", "AED"]));
    driver.send(&json("top_up", "p1", &["alice", "5", "AED"]).replace("acme", "rival"));
    run(&mut driver);
    driver.send(&json("top_up", "p2", &["alice", "5", "AED"]));
    driver.advance(36 * 86_400_000);
    run(&mut driver);
    assert_eq!((ledger(&driver, "alice"), payment(&driver, "alice", "p2")), ("0.00".to_owned(), "none".to_owned()));
    let events = driver.events();
    let has = |reason: &str| events.iter().any(|event| event["reason"] == reason);
    assert!(has("expired") && has("wallet_unknown"));
    verify(&driver);
}

#[test]
fn a_crash_a_doubt_or_an_abort_changes_nothing() {
    for fault in [None, Some(Fault::Abort), Some(Fault::DoubtAborted), Some(Fault::DoubtCommitted)] {
        for crash_after in 0..4 {
            let mut driver = TopologyDriver::new(PARTITIONS, 1);
            driver.send(&json("open_wallet", "o1", &["alice", "AED"]));
            driver.send(&json("open_wallet", "o2", &["bob", "AED"]));
            driver.send(&json("top_up", "p1", &["alice", "5", "AED"]));
            run(&mut driver);
            driver.send(&json("transfer", "t1", &["alice", "bob", "2", "AED"]));
            driver.log().fail_next(fault);
            let lane = driver.lane(0);
            (0..PARTITIONS).for_each(|partition| lane.fetch(partition));
            while 0 < crash_after && lane.round(START_MS, None).is_some() {}
            if 1 < crash_after {
                lane.close(START_MS);
            }
            if 2 < crash_after {
                lane.commit().expect("nothing waits");
            }
            driver.restart(0);
            driver.log().fail_next(None);
            run(&mut driver);
            assert_eq!((ledger(&driver, "alice"), ledger(&driver, "bob")), ("3.00".to_owned(), "2.00".to_owned()));
            verify(&driver);
        }
    }
}

#[test]
fn at_rest_every_position_is_the_end_of_its_log_also_behind_a_gap() {
    for (has_gaps, lanes) in [(false, 1), (false, 4), (true, 1), (true, 4)] {
        let mut driver = TopologyDriver::new(PARTITIONS, lanes);
        if has_gaps {
            let _ = driver.log().clone().with_gaps();
        }
        for (key, wallet) in ["alice", "bob", "carol", "dave", "eve"].into_iter().enumerate() {
            driver.send(&json("open_wallet", &format!("o{key}"), &[wallet, "AED"]));
            driver.send(&json("top_up", &format!("p{key}"), &[wallet, "5", "AED"]));
            driver.send(&json("transfer", &format!("t{key}"), &[wallet, "alice", "1", "AED"]));
        }
        run(&mut driver);
        for partition in 0..PARTITIONS {
            let positions = driver.store(partition).head().expect("a head").positions;
            let ends =
                [Topic::Commands, Topic::Postings].map(|topic| driver.log().range(topic, partition).expect("a partition").end);
            assert_eq!([positions.commands, positions.postings], ends, "partition {partition}, {lanes} lanes, gaps: {has_gaps}");
        }
        verify(&driver);
    }
}
