//! Records of commands are forgotten by the brokers' time. A command that has waited in the log for as long is refused then, because nobody
//! knows any more whether it was carried out; and its time is the one that the broker has given it.

use std::path::Path;
use std::time::{Duration, Instant};

use finflow_actors::log::kafka::Settings as Cluster;
use finflow_actors::{Node, Settings};
use finflow_ledger::{IdempotencyKey, Tenant, WalletId};
use finflow_topologies::Topic;
use finflow_topologies::log::{Log, Outgoing};
use finflow_topologies::topics::{partition_of_key, payment_id};

use super::takeover::{PARTITIONS, WALLETS, at_rest, created, each_topped_up, events, settings, top_ups, until};

const RETENTION: Duration = Duration::from_secs(12);
const MARGIN: Duration = Duration::from_secs(4);

fn forgetting(cluster: &Cluster, dir: &Path) -> Settings {
    let mut settings = Settings { dedup_retention: RETENTION, dedup_margin: MARGIN, ..settings(cluster, dir, "only") };
    settings.housekeeping.sweep_interval = Duration::from_millis(200);
    settings
}

/// How many of the top-ups of a round still have their record; `None` while not every partition answers.
fn records(node: &Node, round: usize) -> Option<usize> {
    let has_one = |n: usize| {
        let parsed = (Tenant::parse("t"), WalletId::parse(&format!("w{n}")), IdempotencyKey::parse(&format!("k{round}")));
        let (Some(tenant), Some(wallet), Some(key)) = parsed else { panic!("names") };
        Some(usize::from(node.payment(payment_id(&tenant, &wallet, &key)).ok()?.is_some()))
    };
    (0..WALLETS).map(has_one).sum()
}

pub(crate) async fn records_are_forgotten_by_the_brokers_time(cluster: &Cluster) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = created(cluster);
    let node = Node::start(forgetting(cluster, dir.path())).await.expect("a node");
    node.publish(top_ups(0)).await.expect("published");
    at_rest(&[&node]).await;
    let begun = Instant::now();
    node.publish(top_ups(1)).await.expect("published");
    at_rest(&[&node]).await;
    let told = events(&log).len();
    until("each has its record", async || records(&node, 1) == Some(WALLETS)).await;
    // A repetition that comes at once is answered from them.
    node.publish(top_ups(1)).await.expect("published");
    at_rest(&[&node]).await;
    assert_eq!(events(&log).len(), told);
    until("the records are forgotten", async || records(&node, 1) == Some(0)).await;
    assert!(RETENTION <= begun.elapsed(), "too early: {:?}", begun.elapsed());
    assert!(node.stop().await);
    drop(node);

    // The same commands once more, which nobody takes for too long.
    for again in top_ups(1) {
        let key = again.key.expect("a key");
        let partition = partition_of_key(&key, PARTITIONS);
        let record = Outgoing { key: Some(key), value: again.value, ..Outgoing::default() };
        log.append(Topic::Commands, partition, vec![record]).expect("appended");
    }
    let sent = Instant::now();
    until("they are too old", async || RETENTION < sent.elapsed()).await;
    let node = Node::start(forgetting(cluster, dir.path())).await.expect("a node");
    at_rest(&[&node]).await;
    each_topped_up(&node, 1).await;
    let all = events(&log);
    let is_refused = |event: &[u8]| {
        let event = String::from_utf8_lossy(event);
        event.contains("command.rejected") && event.contains(r#""reason":"expired""#)
    };
    assert_eq!(all.iter().filter(|event| is_refused(event)).count(), WALLETS, "{:?}", all.last());
    assert_eq!(all.len(), told + WALLETS, "and nothing else");
    until("a refusal leaves no record", async || records(&node, 1).is_some()).await;
    assert_eq!(records(&node, 1).unwrap_or_default(), 0, "a refusal leaves no record");
    // What is sent anew has a time of now: it is another command by then.
    node.publish(top_ups(1)).await.expect("published");
    at_rest(&[&node]).await;
    each_topped_up(&node, 2).await;
    assert!(node.stop().await);
}
