//! Journals and postings that are trimmed below snapshots in a bucket, while several processes share them: whatever begins later,
//! whoever stands by and whoever has lost everything goes on all the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use finflow_actors::log::kafka::{KafkaLog, Settings as Cluster};
use finflow_actors::{BucketSettings, Node, Publish, Settings, SnapshotPlace, Source, adopt};
use finflow_state::Generation;
use finflow_topologies::log::Log;
use finflow_topologies::{Topic, restore};

use super::s3::Server;
use super::takeover::{DEADLINE, PARTITIONS, WALLETS, at_rest, created, digests, running, settings, top_ups, until};

/// Settings of a process whose snapshots are everybody's in a bucket, or its own.
fn trimming(cluster: &Cluster, dir: &Path, name: &str, bucket: Option<&BucketSettings>) -> Settings {
    let mut settings = Settings { standby_replicas: 1, ..settings(cluster, dir, name) };
    if let Some(bucket) = bucket {
        settings.housekeeping.snapshots = SnapshotPlace::Bucket(bucket.clone());
    }
    settings.housekeeping.trim_interval = Duration::from_millis(400);
    settings
}

/// From each wallet to another one, most of which live elsewhere.
pub(crate) fn transfers(round: usize) -> Vec<Publish> {
    let transfer = |n: usize| {
        let (from, to) = (format!("w{n}"), format!("w{}", (n + 1) % WALLETS));
        let value = format!(
            r#"{{"type":"transfer","tenant":"t","idempotency_key":"t{round}","wallet":"{from}","to":"{to}","amount":"0.10","currency":"AED"}}"#
        );
        Publish { key: Some(from.into()), value: Some(Bytes::from(value)), ..Publish::default() }
    };
    (0..WALLETS).map(transfer).collect()
}

/// Moves every partition and takes a snapshot of it; gives their blocks.
async fn go_on(nodes: &[&Node], round: usize) -> BTreeMap<u32, u64> {
    nodes[0].publish(transfers(round)).await.expect("published");
    at_rest(nodes).await;
    let mut blocks = BTreeMap::new();
    for node in nodes {
        let own: Vec<u32> = running(node).iter().map(|of| of.partition).collect();
        let taken = node.snapshot().await.expect("snapshots");
        blocks.extend(taken.into_iter().filter(|(id, _)| own.contains(id)));
    }
    assert_eq!(blocks.len(), PARTITIONS as usize);
    blocks
}

fn begins(log: &KafkaLog) -> BTreeMap<u32, u64> {
    (0..PARTITIONS).map(|id| (id, restore::begins_at(log, id).expect("a journal"))).collect()
}

pub(crate) async fn what_is_trimmed_is_had_from_snapshots(cluster: &Cluster) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = created(cluster);
    let server = Server::start();
    let (bucket, objects) = server.bucket("finflow");
    let start = |name: &'static str, bucket| Node::start(trimming(cluster, dir.path(), name, bucket));
    let first = start("first", None).await.expect("a node");
    first.publish([top_ups(0), top_ups(1)].concat()).await.expect("published");
    at_rest(&[&first]).await;
    let second = start("second", Some(&bucket)).await.expect("a node");
    until("the second node has its share", async || running(&second).len() == PARTITIONS as usize / 2).await;
    let older = go_on(&[&first, &second], 0).await;
    go_on(&[&first, &second], 1).await;
    let seconds: Vec<u32> = running(&second).iter().map(|of| of.partition).collect();
    let is_trimmed = |id: &u32| begins(&log)[id] == older[id];
    until("the second node trims", async || seconds.iter().all(is_trimmed)).await;
    let firsts = begins(&log).into_iter().filter(|(id, _)| !seconds.contains(id)).map(|(_, begins)| begins);
    assert_eq!(firsts.collect::<Vec<_>>(), [0, 0], "whose snapshots are its own alone does not");

    // The other one does from now on, and takes up what it has missed.
    assert!(first.stop().await);
    drop(first);
    let first = start("first", Some(&bucket)).await.expect("a node");
    until("the first node has its share", async || running(&first).len() == PARTITIONS as usize / 2).await;
    let newer = go_on(&[&first, &second], 2).await;
    go_on(&[&first, &second], 3).await;
    until("all journals begin at a snapshot", async || begins(&log) == newer).await;
    let postings = (0..PARTITIONS).filter(|id| 0 < log.range(Topic::Postings, *id).expect("a range").start);
    assert_ne!(postings.count(), 0, "postings are trimmed as well");

    // Who comes now never sees block 0.
    assert_eq!(restore::create(&log, Generation([9; 16]), 1), Ok(Generation([7; 16])));
    let third = start("third", Some(&bucket)).await.expect("a node");
    until("the third node has its share", async || !running(&third).is_empty()).await;
    let nodes = [&first, &second, &third];
    first.publish(transfers(4)).await.expect("published");
    at_rest(&nodes).await;
    let followed = |node: &Node| node.status().into_iter().filter(|of| of.state == "standby").count();
    until("every partition is followed", async || nodes.iter().map(|node| followed(node)).sum::<usize>() == PARTITIONS as usize)
        .await;
    for node in nodes {
        assert!(node.stored(DEADLINE).await, "what is compared is written");
    }
    let expected: BTreeMap<u32, [u8; 32]> = nodes.iter().flat_map(|node| digests(node)).collect();
    for node in nodes {
        assert_eq!(node.leave().await, Ok(true), "the group sees it leave");
    }
    drop((first, second, third));
    std::fs::remove_dir_all(dir.path().join("snapshots")).expect("what the first one had kept for itself");
    assert!(std::fs::read_dir(objects).is_ok_and(|mut found| found.next().is_some()), "the bucket has the others");
    everything_is_lost_and_had_again(cluster, dir.path(), &bucket, &expected).await;
}

/// No process has a directory any more: the bucket and what is left of the journals are enough.
async fn everything_is_lost_and_had_again(
    cluster: &Cluster,
    dir: &Path,
    bucket: &BucketSettings,
    expected: &BTreeMap<u32, [u8; 32]>,
) {
    for name in ["first", "second", "third"] {
        std::fs::remove_dir_all(dir.join(name)).expect("a directory");
    }
    let node = Node::start(trimming(cluster, dir, "first", Some(bucket))).await.expect("a node");
    at_rest(&[&node]).await;
    assert_eq!(&digests(&node), expected);
    node.publish(transfers(5)).await.expect("published");
    at_rest(&[&node]).await;
    assert!(node.stored(DEADLINE).await);
    assert_eq!(node.leave().await, Ok(true), "the group sees it leave");
    drop(node);

    let settings = trimming(cluster, dir, "fourth", Some(bucket));
    let source = Source::open(settings.clone()).expect("it is readable");
    source.dump(&dir.join("dump")).expect("nothing stands against it");
    drop(source);
    let all: Vec<u32> = (0..PARTITIONS).collect();
    let unchanged = adopt(&settings, &all, false).expect("the log tells what the directories tell");
    assert!(unchanged.iter().all(|adopted| adopted.rows == 0), "{unchanged:?}");
}
