//! An engine in a directory, as its tests use it: its settings, and whether every cent of its events is in its wallets.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::path::Path;
use std::time::{Duration, Instant};

use finflow_actors::{Clock, Housekeeping, Node, Settings};
use finflow_ledger::WalletId;
use finflow_topologies::Topic;
use finflow_topologies::simulation::{Audit, audit};

/// How long a test waits for what should take a moment.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Four partitions on two lanes, with money from the treasury, on the embedded log.
pub(crate) fn settings(dir: &Path) -> Settings {
    Settings {
        data_dir: dir.to_owned(),
        prefix: "finflow".to_owned(),
        kafka: None,
        partitions: 4,
        lanes: 2,
        standby_replicas: 0,
        node_id: "test".to_owned(),
        epoch_interval: Duration::from_millis(1),
        treasury_enabled: true,
        dedup_retention: Duration::from_secs(35 * 86_400),
        dedup_margin: Duration::from_secs(3_600),
        attention_after: Duration::from_secs(60),
        store_memory_bytes: 16 << 20,
        hot_wallets: 100,
        housekeeping: Housekeeping::default(),
        clock: Clock::system(),
    }
}

/// Every event that the log holds.
pub(crate) fn events(node: &Node) -> Vec<bytes::Bytes> {
    let mut events = Vec::new();
    for partition in 0..node.partitions_count() {
        let range = node.range(Topic::Events, partition).expect("a range");
        let mut from = range.start;
        while from < range.end {
            let fetched = node.fetch(Topic::Events, partition, from, 1 << 20).expect("records");
            events.extend(fetched.records.into_iter().filter_map(|record| record.value));
            from = fetched.next;
        }
    }
    events
}

/// What the events say, which is what the wallets `w0`, `w1`, ... have: nothing is held, no cent is missing, no event is wrong.
pub(crate) fn audited(node: &Node, wallets: usize) -> Audit {
    let events = events(node);
    let audit = audit(events.iter().map(|event| &**event));
    assert_eq!(audit.faults, vec![]);
    for n in 0..wallets {
        let id = format!("w{n}");
        let wallet = node.wallet(&WalletId::parse(&id).expect("valid")).expect("readable").expect("opened");
        assert_eq!(Some(wallet.ledger().minor()), audit.balances.get(&id).map(|(_, minor)| *minor), "{id}");
        assert!(wallet.held().is_zero());
    }
    audit
}

/// Copies a directory with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry")) {
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("a file");
        }
    }
}

/// Waits until it is so.
pub(crate) async fn until(node: &Node, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "{what}: {:?}", node.status());
        node.changed(Duration::from_millis(20)).await;
    }
}
