//! The engine on a log whose disk fails: aborted commits, doubts both ways, a log that stays closed - and money that is all there.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use finflow_actors::log::embedded::EmbeddedLog;
use finflow_actors::{Clock, Housekeeping, Node, Publish, Settings};
use finflow_ledger::WalletId;
use finflow_topologies::Topic;
use finflow_topologies::log::{Log, Outgoing};
use finflow_topologies::simulation::audit;
use finflow_topologies::topics::partition_of_key;

use self::failing::{FailingDisk, Fault};

#[path = "disk/failing.rs"]
mod failing;

const DEADLINE: Duration = Duration::from_secs(60);
const WALLETS: usize = 20;

fn settings(dir: &Path) -> Settings {
    Settings {
        data_dir: dir.to_owned(),
        prefix: "finflow".to_owned(),
        kafka: None,
        partitions: 4,
        lanes: 2,
        node_id: "test".to_owned(),
        epoch_interval: Duration::from_millis(1),
        treasury_enabled: true,
        dedup_retention: Duration::from_secs(35 * 86_400),
        dedup_margin: Duration::from_secs(3_600),
        store_memory_bytes: 16 << 20,
        hot_wallets: 100,
        housekeeping: Housekeeping::default(),
        clock: Clock::system(),
    }
}

fn command(wallet: usize, key: &str, rest: &str) -> Publish {
    let wallet = format!("w{wallet}");
    let value = format!(r#"{{"tenant":"acme","wallet":"{wallet}","idempotency_key":"{key}",{rest}}}"#);
    Publish { partition: None, key: Some(wallet.into()), value: Some(Bytes::from(value)), ..Publish::default() }
}

fn opened() -> Vec<Publish> {
    let open = r#""type":"open_wallet","currency":"AED","country":"AE","kind":"personal","holder":"H""#;
    let top_up = r#""type":"top_up","amount":"100","currency":"AED","source":{"account":"x"}"#;
    (0..WALLETS).flat_map(|n| [command(n, "open", open), command(n, "top", top_up)]).collect()
}

fn transfers(numbers: std::ops::Range<usize>) -> Vec<Publish> {
    let one = |n: usize| {
        let to = (n * 7 + 1) % WALLETS;
        command(n % WALLETS, &format!("t{n}"), &format!(r#""type":"transfer","to":"w{to}","amount":"0.05","currency":"AED""#))
    };
    numbers.map(one).collect()
}

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
    let mut events = Vec::new();
    for partition in 0..node.partitions_count() {
        let end = node.range(Topic::Events, partition).expect("a range").end;
        let mut from = 0;
        while from < end {
            let fetched = node.fetch(Topic::Events, partition, from, 1 << 20).expect("records");
            events.extend(fetched.records.into_iter().filter_map(|record| record.value));
            from = fetched.next;
        }
    }
    let audit = audit(events.iter().map(|event| &**event));
    assert_eq!(audit.faults, vec![]);
    assert_eq!(audit.outcomes.get("payment.settled"), Some(&((transfers + WALLETS) as u64)));
    assert_eq!(audit.sums.get("AED"), Some(&(WALLETS as i128 * 10_000)));
    for n in 0..WALLETS {
        let id = format!("w{n}");
        let wallet = node.wallet(&WalletId::parse(&id).expect("valid")).expect("readable").expect("opened");
        assert_eq!(Some(wallet.ledger().minor()), audit.balances.get(&id).map(|(_, minor)| *minor), "{id}");
        assert!(wallet.held().is_zero());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_go_on_after_every_kind_of_failed_write() {
    let all = [Some(Fault::Before), Some(Fault::After), Some(Fault::Torn), Some(Fault::Panic), None];
    for (fault, seed) in all.into_iter().zip(1..) {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Arc::new(FailingDisk::default());
        let node = Node::start_on(disk.clone(), settings(dir.path())).await.expect("a node");
        insist(&node, opened()).await;
        assert!(node.idle(DEADLINE).await);
        let mut random = fastrand::Rng::with_seed(seed);
        let kinds = [Fault::Before, Fault::After, Fault::Torn, Fault::Panic];
        let (count, batch) = (600, 20);
        for begin in (0..count).step_by(batch) {
            disk.script([None, None, fault.or_else(|| random.choice(kinds))].into_iter().skip(random.usize(0..2)));
            insist(&node, transfers(begin..begin + batch)).await;
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
    insist(&node, opened()).await;
    insist(&node, transfers(0..100)).await;
    assert!(node.idle(DEADLINE).await);
    assert_eq!(node.faults(), Vec::new());
    for round in 1..4 {
        let (begin, end) = (round * 100, round * 100 + 100);
        insist(&node, transfers(begin..end)).await;
        // Some of these are being decided or committed now.
        disk.set_gone(true);
        assert!(node.publish(transfers(end..end + 1)).await.is_err(), "nothing is acknowledged without a disk");
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
        for record in opened() {
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
