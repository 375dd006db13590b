//! What an epoch came to is told when it is committed, once, however often it was decided.

use finflow_topologies::driver::START_MS;
use finflow_topologies::log::simulated::Fault;
use finflow_topologies::wire::v1::Code;
use finflow_topologies::{TopologyDriver, Verdict, Verdicts};

const PARTITIONS: u32 = 4;

fn open(wallet: &str) -> String {
    format!(
        r#"{{"type":"open_wallet","tenant":"acme","idempotency_key":"k","wallet":"{wallet}","currency":"AED","country":"AE","kind":"personal","holder":"H"}}"#
    )
}

/// Decides what waits, commits it with this fault, and gives what is told of it.
fn epoch(driver: &mut TopologyDriver, fault: Option<Fault>) -> Verdicts {
    (0..PARTITIONS).for_each(|partition| driver.lane(0).fetch(partition));
    while driver.lane(0).round(START_MS, None).is_some() {}
    assert!(driver.lane(0).close(START_MS), "something is to be committed");
    driver.log().fail_next(fault);
    let settled = driver.lane(0).commit().expect("a log in memory");
    driver.log().fail_next(None);
    // A doubt is settled with the next word.
    let settled = settled.or_else(|| driver.lane(0).commit().expect("a log in memory"));
    settled.expect("an outcome").verdicts
}

#[test]
fn what_an_epoch_came_to_is_told_once() {
    let all = [(Verdict::Applied, 2), (Verdict::Duplicate, 1), (Verdict::DeadLettered(Code::NotJson), 1)];
    let all = || Verdicts::from(all);
    let rows: [(&[Option<Fault>], &str); 4] = [
        (&[None], "committed"),
        (&[Some(Fault::Abort), Some(Fault::Abort), None], "aborted twice, then committed"),
        (&[Some(Fault::DoubtAborted), None], "in doubt, but aborted"),
        (&[Some(Fault::DoubtCommitted)], "in doubt, but committed"),
    ];
    for (faults, what) in rows {
        let mut driver = TopologyDriver::new(PARTITIONS, 1);
        for command in [open("alice"), open("bob"), open("alice"), "no JSON".to_owned()] {
            driver.send(&command);
        }
        let told: Vec<Verdicts> = faults.iter().map(|fault| epoch(&mut driver, *fault)).collect();
        let (last, earlier) = told.split_last().expect("an epoch");
        assert_eq!(*last, all(), "{what}");
        assert!(earlier.iter().all(Verdicts::is_empty), "{what}: {earlier:?}");
    }
}
