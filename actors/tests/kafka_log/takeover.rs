//! A node that is assigned partitions while it runs restores them as a start does, wherever it has to begin.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use finflow_actors::log::kafka::{KafkaLog, Settings as Cluster};
use finflow_actors::{Clock, Housekeeping, Node, PartitionStatus, Publish, Settings, SnapshotPlace};
use finflow_ledger::Wallet;
use finflow_state::Generation;
use finflow_topologies::log::Log;
use finflow_topologies::{Topic, restore};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

pub(super) const PARTITIONS: u32 = 4;
pub(super) const WALLETS: usize = 32;
pub(super) const DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

pub(super) fn settings(cluster: &Cluster, dir: &Path, name: &str) -> Settings {
    Settings {
        kafka: Some(cluster.clone()),
        data_dir: dir.join(name),
        prefix: cluster.prefix.clone(),
        partitions: PARTITIONS,
        lanes: 1,
        standby_replicas: 0,
        node_id: name.to_owned(),
        epoch_interval: Duration::from_millis(5),
        treasury_enabled: true,
        dedup_retention: Duration::from_secs(86_400),
        dedup_margin: Duration::from_secs(3_600),
        attention_after: Duration::from_secs(60),
        store_memory_bytes: 32 << 20,
        hot_wallets: 1_000,
        housekeeping: Housekeeping { snapshots: SnapshotPlace::Directory(dir.join("snapshots")), ..Housekeeping::default() },
        clock: Clock::system(),
    }
}

pub(super) fn top_ups(round: usize) -> Vec<Publish> {
    let command = |n: usize| {
        let wallet = format!("w{n}");
        let value = if round == 0 {
            format!(
                r#"{{"type":"open_wallet","tenant":"t","idempotency_key":"o","wallet":"{wallet}","currency":"AED","country":"AE","kind":"personal","holder":"H"}}"#
            )
        } else {
            format!(
                r#"{{"type":"top_up","tenant":"t","idempotency_key":"k{round}","wallet":"{wallet}","amount":"1","currency":"AED","source":{{"account":"till"}}}}"#
            )
        };
        Publish { key: Some(wallet.into()), value: Some(Bytes::from(value)), ..Publish::default() }
    };
    (0..WALLETS).map(command).collect()
}

/// Waits until it is so.
pub(super) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(PAUSE).await;
    }
}

pub(super) fn running(node: &Node) -> Vec<PartitionStatus> {
    node.status().into_iter().filter(|status| status.state == "running").collect()
}

/// Waits until these nodes together run everything, and everything that was published is consumed.
pub(super) async fn at_rest(nodes: &[&Node]) {
    until("everything runs and is consumed", async || {
        let all: Vec<PartitionStatus> = nodes.iter().flat_map(|node| running(node)).collect();
        all.len() == PARTITIONS as usize && all.iter().all(|of| of.commands_lag + of.postings_lag == 0)
    })
    .await;
}

pub(super) fn digests(node: &Node) -> BTreeMap<u32, [u8; 32]> {
    running(node).iter().map(|of| (of.partition, node.digest(of.partition).expect("readable"))).collect()
}

/// A node that follows the journals of the partitions which others run.
pub(super) async fn follower(cluster: &Cluster, dir: &Path, name: &str) -> Node {
    let following = Settings { standby_replicas: 1, ..settings(cluster, dir, name) };
    Node::start(following).await.expect("a node")
}

/// Waits until a node that runs everything answers, and expects every wallet to have been topped up so often.
pub(super) async fn each_topped_up(node: &Node, rounds: usize) {
    let mut wallets: Vec<Wallet> = Vec::new();
    until("it answers for all of them", async || {
        let told: Result<Vec<_>, _> = (0..PARTITIONS).map(|id| node.wallets(id, None, WALLETS)).collect();
        wallets = told.unwrap_or_default().concat();
        !wallets.is_empty()
    })
    .await;
    let due = i128::try_from(100 * rounds).expect("minor units");
    assert_eq!(wallets.len(), WALLETS);
    assert!(wallets.iter().all(|wallet| wallet.ledger().minor() == due), "each command once: {wallets:?}");
}

/// All committed events.
pub(super) fn events(log: &KafkaLog) -> Vec<Bytes> {
    let mut events = Vec::new();
    for partition in 0..PARTITIONS {
        let mut from = 0;
        loop {
            let fetched = log.fetch(Topic::Events, partition, from, usize::MAX).expect("events");
            if fetched.next <= from {
                break;
            }
            from = fetched.next;
            events.extend(fetched.records.into_iter().map(|record| record.value.expect("an event")));
        }
    }
    events
}

/// Topics with their first blocks.
pub(super) fn created(cluster: &Cluster) -> KafkaLog {
    KafkaLog::create_topics(cluster, PARTITIONS, 1).expect("topics");
    let log = KafkaLog::open(cluster.clone()).expect("a log");
    restore::create(&log, Generation([7; 16]), Clock::system().now_ms()).expect("block 0");
    log
}

pub(crate) async fn partitions_that_are_assigned_are_restored_as_at_a_start(cluster: &Cluster) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = created(cluster);
    let first = Node::start(settings(cluster, dir.path(), "first")).await.expect("a node");
    first.publish(top_ups(0)).await.expect("published");
    at_rest(&[&first]).await;
    // The second one is new: it fetches everything before it joins, and what it is not given stays behind from here on.
    let second = Node::start(settings(cluster, dir.path(), "second")).await.expect("a node");
    until("the second node has its share", async || running(&second).len() == PARTITIONS as usize / 2).await;
    // A block each, so that the second node's directories end before the newest one but one.
    for round in 1..4 {
        first.publish(top_ups(round)).await.expect("published");
        at_rest(&[&first, &second]).await;
    }
    assert!(first.stored(DEADLINE).await);
    let expected = digests(&first);
    let gone: Vec<u32> = expected.keys().copied().collect();
    let [empty, outdated] = gone[..] else { panic!("half of the partitions run at the first node: {gone:?}") };
    let blocks = first.snapshot().await.expect("snapshots");
    // One directory is lost; the other one ends before the journal begins.
    let state = dir.path().join("second/state");
    std::fs::remove_dir_all(state.join(empty.to_string())).expect("a directory");
    let offset = restore::offset_of(&log, outdated, blocks[&outdated]).expect("an offset");
    log.trim(Topic::Journal, outdated, offset).expect("trimmed");
    let asked = first.wallets(outdated, None, 1);
    assert!(asked.is_ok_and(|found| !found.is_empty()), "its owner answers");
    assert!(second.wallets(outdated, None, 1).is_err(), "who does not run it does not");

    let begun = Instant::now();
    assert_eq!(first.leave().await, Ok(true), "the group sees it leave");
    at_rest(&[&second]).await;
    println!("    taken over {:.1} s after the first node began to leave", begun.elapsed().as_secs_f64());
    let from = |id: u32| second.status().into_iter().find(|of| of.partition == id).map(|of| of.restored_from);
    assert_eq!((from(empty).as_deref(), from(outdated).as_deref()), (Some("snapshot"), Some("snapshot")));
    let found = digests(&second);
    assert!(expected.iter().all(|(id, digest)| found.get(id) == Some(digest)), "{expected:?} {found:?}");
    let aside = std::fs::read_dir(&state).expect("a directory").flatten().map(|entry| entry.file_name());
    let aside: Vec<String> = aside.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.contains('.')).collect();
    assert!(aside.iter().all(|name| name.starts_with(&format!("{outdated}.outdated-"))) && aside.len() == 1, "{aside:?}");

    // What comes back is taken from where it was left, while this process has been running all along.
    let again = Node::start(settings(cluster, dir.path(), "first")).await.expect("a node");
    until("the first node has its share again", async || running(&again).len() == PARTITIONS as usize / 2).await;
    at_rest(&[&again, &second]).await;
    assert!(running(&again).iter().all(|of| of.restored_from == "directory"), "{:?}", again.status());
    let kept: Vec<u32> = running(&second).iter().map(|of| of.partition).collect();
    for id in (0..PARTITIONS).filter(|id| !kept.contains(id)) {
        let lock = std::fs::File::open(state.join(id.to_string()).join("LOCK")).expect("a closed store");
        lock.try_lock().expect("nobody holds the store of a partition that was given back");
    }
    assert!(again.stop().await && second.stop().await);
}

/// Who follows the others goes on from a store that is open and at their last block.
pub(crate) async fn what_is_followed_is_taken_over_as_it_stands(cluster: &Cluster) {
    let dir = tempfile::tempdir().expect("a directory");
    drop(created(cluster));
    let first = follower(cluster, dir.path(), "first").await;
    first.publish(top_ups(0)).await.expect("published");
    at_rest(&[&first]).await;
    let second = follower(cluster, dir.path(), "second").await;
    for (round, others) in [(1, [&first, &second]), (2, [&second, &first])] {
        until("each has its share", async || running(others[1]).len() == PARTITIONS as usize / 2).await;
        first.publish(top_ups(round)).await.expect("published");
        at_rest(&others).await;
        let [owner, other] = others;
        until("what the owner has committed is there", async || {
            let told = other.status();
            let is_there = |of: PartitionStatus| {
                let found = &told[of.partition as usize];
                found.state == "standby" && found.block == of.block
            };
            running(owner).into_iter().all(is_there)
        })
        .await;
        let owned = running(owner)[0].partition;
        assert!(other.wallets(owned, None, 1).is_err(), "it answers nothing");
    }

    assert!(first.stored(DEADLINE).await);
    let expected = digests(&first);
    assert_eq!(first.leave().await, Ok(true), "the group sees it leave");
    drop(first);
    at_rest(&[&second]).await;
    let taken = running(&second).into_iter().filter(|of| expected.contains_key(&of.partition));
    let taken: Vec<String> = taken.map(|of| of.restored_from).collect();
    assert_eq!(taken, vec!["standby"; expected.len()]);
    let found = digests(&second);
    assert!(expected.iter().all(|(id, digest)| found.get(id) == Some(digest)), "{expected:?} {found:?}");
    second.publish(top_ups(3)).await.expect("published");
    at_rest(&[&second]).await;

    // What is given back is followed again.
    let again = follower(cluster, dir.path(), "first").await;
    until("the first node has its share again", async || running(&again).len() == PARTITIONS as usize / 2).await;
    let standby = || second.status().into_iter().filter(|of| of.state == "standby").count();
    until("it is followed", async || standby() == PARTITIONS as usize / 2).await;
    assert!(again.stop().await && second.stop().await);
}

/// The lane dies while the group gives a part of its partitions to somebody else: what it showed of them is told no more.
pub(crate) async fn a_lane_that_comes_back_with_less_answers_for_no_more_than_that(cluster: &Cluster) {
    let dir = tempfile::tempdir().expect("a directory");
    drop(created(cluster));
    let first = Node::start(settings(cluster, dir.path(), "first")).await.expect("a node");
    first.publish(top_ups(0)).await.expect("published");
    at_rest(&[&first]).await;
    let started = tokio::spawn(Node::start(settings(cluster, dir.path(), "second")));
    until("a partition is wanted back", async || running(&first).len() < PARTITIONS as usize).await;
    if let Some(of) = running(&first).first() {
        first.kill_lane(of.partition).await;
        let answers = |id| first.wallets(id, None, 1).is_ok();
        until("nobody knows what it has until it has come back", async || !(0..PARTITIONS).any(answers)).await;
    }
    let second = started.await.expect("a task").expect("a node");
    for round in 1..3 {
        second.publish(top_ups(round)).await.expect("published");
        at_rest(&[&first, &second]).await;
    }
    for id in 0..PARTITIONS {
        let answers: Vec<bool> = [&first, &second].map(|node| node.wallets(id, None, 1).is_ok()).into();
        let runs: Vec<bool> = [&first, &second].map(|node| running(node).iter().any(|of| of.partition == id)).into();
        assert_eq!(answers, runs, "partition {id}");
    }
    assert!(first.stop().await && second.stop().await);
}

/// Somebody sets a committed offset with a tool of Kafka's own: its partition is halted until the position is put back, the others go on.
pub(crate) async fn an_offset_without_a_stamp_halts_its_partition_alone(cluster: &Cluster) {
    const HIT: u32 = 1;
    let dir = tempfile::tempdir().expect("a directory");
    drop(created(cluster));
    let node = Node::start(settings(cluster, dir.path(), "first")).await.expect("a node");
    node.publish(top_ups(0)).await.expect("published");
    at_rest(&[&node]).await;
    assert_eq!(node.leave().await, Ok(true), "the group lets others set its offsets once it is empty");
    drop(node);

    let topic = Topic::Commands.name(&cluster.prefix);
    let tool: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &cluster.brokers)
        .set("group.id", &cluster.prefix)
        .create()
        .expect("a client");
    let mut place = TopicPartitionList::new();
    place.add_partition(&topic, HIT as i32);
    let before = tool.committed_offsets(place, DEADLINE).expect("a position");
    let mut set = TopicPartitionList::new();
    set.add_partition_offset(&topic, HIT as i32, Offset::Offset(1)).expect("a place");
    tool.commit(&set, CommitMode::Sync).expect("an offset");

    let node = Node::start(settings(cluster, dir.path(), "first")).await.expect("a node");
    let halted = || node.status()[HIT as usize].cause.clone();
    until("it is halted", async || halted().is_some_and(|cause| cause.contains("no stamp"))).await;
    node.publish(top_ups(1)).await.expect("published");
    until("the others go on", async || {
        let status = node.status();
        running(&node).len() == PARTITIONS as usize - 1 && status.iter().all(|of| of.partition == HIT || of.commands_lag == 0)
    })
    .await;
    // Its own member does not let anybody else commit: it leaves once more.
    assert_eq!(node.leave().await, Ok(true));
    drop(node);
    tool.commit(&before, CommitMode::Sync).expect("an offset");
    let node = Node::start(settings(cluster, dir.path(), "first")).await.expect("a node");
    at_rest(&[&node]).await;
    assert!(node.stop().await);
}
