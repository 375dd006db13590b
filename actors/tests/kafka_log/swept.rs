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
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ConfigSource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

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

/// Has commands tell another time, with all their other settings.
async fn set_time(cluster: &Cluster, kind: &str) {
    let name = Topic::Commands.name(&cluster.prefix);
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &cluster.brokers).create().expect("a client");
    let asked = [ResourceSpecifier::Topic(&name)];
    let found = client.describe_configs(&asked, &AdminOptions::new()).await.expect("a broker").remove(0).expect("the topic");
    let own = found.entries.iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
    let altered = own
        .filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)))
        .filter(|(key, _)| *key != "message.timestamp.type")
        .fold(AlterConfig::new(asked[0]), |altered, (key, value)| altered.set(key, value));
    let altered = altered.set("message.timestamp.type", kind);
    let done = client.alter_configs(&[altered], &AdminOptions::new()).await.expect("a broker");
    assert!(done.iter().all(Result::is_ok), "{done:?}");
}

/// While commands tell their producers' time, records stay that would go by it.
async fn nothing_is_forgotten_by_the_producers_time(cluster: &Cluster, node: &Node) {
    let is_told = || node.warnings().get("topics").is_some_and(|cause| cause.contains("message.timestamp.type"));
    set_time(cluster, "CreateTime").await;
    until("it is told", async || is_told()).await;
    node.publish(top_ups(2)).await.expect("published");
    at_rest(&[node]).await;
    until("each has its record", async || records(node, 2) == Some(WALLETS)).await;
    let settled = Instant::now();
    until("they are due", async || RETENTION + MARGIN < settled.elapsed()).await;
    let mut left = None;
    until("all of it answers", async || {
        left = records(node, 2);
        left.is_some()
    })
    .await;
    assert_eq!(left, Some(WALLETS), "none has gone");
    set_time(cluster, "LogAppendTime").await;
    until("that is over", async || !is_told()).await;
    until("the records are forgotten", async || records(node, 2) == Some(0)).await;
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
    let told_once = events(&log).len();
    until("each has its record", async || records(&node, 1) == Some(WALLETS)).await;
    // A repetition that comes at once is answered from them.
    node.publish(top_ups(1)).await.expect("published");
    at_rest(&[&node]).await;
    assert_eq!(events(&log).len(), told_once);
    until("the records are forgotten", async || records(&node, 1) == Some(0)).await;
    assert!(RETENTION <= begun.elapsed(), "too early: {:?}", begun.elapsed());
    nothing_is_forgotten_by_the_producers_time(cluster, &node).await;
    let told = events(&log).len();
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
    each_topped_up(&node, 2).await;
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
    each_topped_up(&node, 3).await;
    assert!(node.stop().await);
}
