//! The engine on a log whose disk fails: aborted commits, doubts both ways, a log that stays closed - and money that is all there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use finflow_actors::log::embedded::EmbeddedLog;
use finflow_actors::{Node, Publish, Settings};
use finflow_ledger::WalletId;
use finflow_topologies::Topic;
use finflow_topologies::log::{Log, Outgoing};
use finflow_topologies::topics::partition_of_key;

use self::commands::{opened, transfers};
use self::engine::{DEADLINE, audited, settings};
use self::failing::{FailingDisk, Fault};

#[path = "support/commands.rs"]
mod commands;
#[path = "support/engine.rs"]
mod engine;
#[path = "disk/failing.rs"]
mod failing;

const WALLETS: usize = 20;

/// Publishes until it is acknowledged, as every producer must.
async fn insist(node: &Node, records: Vec<Publish>) {
    let begun = Instant::now();
    while let Err(cause) = node.publish(records.clone()).await {
        assert!(begun.elapsed() < DEADLINE, "{cause}");
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Every transfer has ended once and every cent is there.
fn check(node: &Node, transfers: usize) {
    let audit = audited(node, WALLETS);
    assert_eq!(audit.outcomes.get("payment.settled"), Some(&((transfers + WALLETS) as u64)));
    assert_eq!(audit.sums.get("AED"), Some(&(WALLETS as i128 * 10_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_go_on_after_every_kind_of_failed_write() {
    let all = [Some(Fault::Before), Some(Fault::After), Some(Fault::Torn), Some(Fault::Panic), None];
    for (fault, seed) in all.into_iter().zip(1..) {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Arc::new(FailingDisk::default());
        let node = Node::start_on(disk.clone(), settings(dir.path())).await.expect("a node");
        insist(&node, opened(WALLETS, "100")).await;
        assert!(node.idle(DEADLINE).await);
        let mut random = fastrand::Rng::with_seed(seed);
        let kinds = [Fault::Before, Fault::After, Fault::Torn, Fault::Panic];
        let (count, batch) = (600, 20);
        for begin in (0..count).step_by(batch) {
            disk.script([None, None, fault.or_else(|| random.choice(kinds))].into_iter().skip(random.usize(0..2)));
            insist(&node, transfers(WALLETS, begin..begin + batch)).await;
        }
        disk.script([]);
        assert!(node.idle(DEADLINE).await, "{fault:?}: {:?}", node.status());
        let (writes, failed) = disk.counts();
        assert!(10 < failed && failed < writes, "{fault:?}: {failed} of {writes} writes failed");
        check(&node, count);
        node.stop().await;
        drop(node);
        let node = Node::open(settings(dir.path())).expect("a node");
        check(&node, count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_a_disk_says_so_and_goes_on_by_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(FailingDisk::default());
    let node = Node::start_on(disk.clone(), settings(dir.path())).await.expect("a node");
    insist(&node, opened(WALLETS, "100")).await;
    insist(&node, transfers(WALLETS, 0..100)).await;
    assert!(node.idle(DEADLINE).await);
    assert_eq!(node.faults(), Vec::new());
    for round in 1..4 {
        let (begin, end) = (round * 100, round * 100 + 100);
        insist(&node, transfers(WALLETS, begin..end)).await;
        // Some of these are being decided or committed now.
        disk.set_gone(true);
        assert!(node.publish(transfers(WALLETS, end..end + 1)).await.is_err(), "nothing is acknowledged without a disk");
        assert!(node.faults().iter().any(|(part, _)| part == "log"));
        let wallet = node.wallet(&WalletId::parse("w0").expect("valid"));
        assert!(wallet.expect("readable").is_some(), "what is committed can be read");
        disk.set_gone(false);
        until("the log opens again by itself", || node.faults().is_empty()).await;
        assert!(node.idle(DEADLINE).await, "{:?}", node.status());
        check(&node, end);
    }
}

/// A posting that cannot be read makes a partition suspect at once, while commands for the others are decided: their epoch stays
/// open until the confirmation is settled, whichever way, and goes on without any other input.
#[tokio::test(flavor = "multi_thread")]
async fn the_epoch_that_is_open_beside_a_confirmation_goes_on_however_that_ends() {
    const HALTED: u32 = 0;
    for fault in [None, Some(Fault::Before), Some(Fault::After), Some(Fault::Torn), Some(Fault::Panic)] {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = Settings { lanes: 1, ..settings(dir.path()) };
        Node::start(settings.clone()).await.expect("a node").stop().await;
        let log = EmbeddedLog::open(&dir.path().join("log"), settings.partitions).expect("a log");
        let garbage = Outgoing { value: Some(Bytes::from_static(b"no posting")), ..Outgoing::default() };
        log.append(Topic::Postings, HALTED, vec![garbage]).expect("a log");
        let mut expected = 0;
        for record in opened(WALLETS, "100") {
            let key = record.key.expect("a key");
            let partition = partition_of_key(&key, settings.partitions);
            expected += usize::from(partition != HALTED);
            let command = Outgoing { key: Some(key), value: record.value, ..Outgoing::default() };
            log.append(Topic::Commands, partition, vec![command]).expect("a log");
        }
        drop(log);

        let disk = Arc::new(FailingDisk::default());
        // The first thing that is written is the confirmation, and so are the next two where it is refused.
        disk.script([fault, fault, fault]);
        let node = Node::start_on(disk.clone(), settings).await.expect("a node");
        let told = || (0..4).map(|id| node.range(Topic::Events, id).expect("a range").end as usize).sum::<usize>();
        until("the others go on", || told() == expected).await;
        until("the halt is confirmed", || node.status()[HALTED as usize].cause.is_some()).await;
        assert!(node.idle(DEADLINE).await, "{fault:?}: {:?}", node.status());
        assert_eq!((told(), node.range(Topic::Events, HALTED).expect("a range").end), (expected, 0), "{fault:?}");
        let (_, failed) = disk.counts();
        assert_eq!(failed, if fault.is_some() { 3 } else { 0 }, "{fault:?}");
        node.stop().await;
    }
}
