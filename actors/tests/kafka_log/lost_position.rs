//! The offsets of the group are gone, as Kafka forgets them where an application stands still for longer than it keeps them: partitions
//! halt, and go on from their journals when an operator says so, and only where those tell for certain where they stood.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use finflow_actors::Node;
use finflow_actors::log::kafka::{KafkaLog, Settings as Cluster};
use finflow_ledger::Wallet;
use finflow_state::{EncodedBlock, Generation, Header, Overlay, Stamp};
use finflow_topologies::log::{Error, Log, Outgoing};
use finflow_topologies::{Topic, restore};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::stray::Stray;
use super::takeover::{DEADLINE, PARTITIONS, WALLETS, at_rest, created, digests, events, running, settings, top_ups, until};
use super::trimming::transfers;

/// What the cause of a halt names.
const REMEDY: &str = "`finflow partitions resume --from-journal`";
/// What is refused names while commands are sealed.
const UNSEAL: &str = "`finflow topics unseal --yes`";
/// The partitions of the last part: what their journals end with, and the one whose directory is gone.
const FOREIGN: u32 = 0;
const HOLED: u32 = 1;
const EMPTY: u32 = 2;

pub(crate) async fn a_lost_position_is_taken_from_the_journal(cluster: &Cluster) {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let log = created(cluster);
    let node = start(cluster, dir).await;
    node.publish([top_ups(0), top_ups(1), transfers(0)].concat()).await.expect("published");
    at_rest(&[&node]).await;
    assert!(node.stored(DEADLINE).await);
    let (digests_before, wallets_before, events_before) = (digests(&node), wallets(&node), events(&log));
    assert_refused(&node, 0, "partition 0 is not halted");
    left(node).await;

    // Halted for another reason: what has a position keeps it.
    swap(dir);
    let node = start(cluster, dir).await;
    until("two are halted", async || node.status().iter().filter(|of| of.cause.is_some()).count() == 2).await;
    assert_refused(&node, 0, "partition 0 has a position, at block");
    left(node).await;
    swap(dir);

    whatever_has_a_position_is_not_forgotten(cluster).await;
    forgotten(cluster).await;
    let node = start(cluster, dir).await;
    all_halt(&node).await;
    // Sealed, as an application is that was left for another: whether it was, nobody knows any more.
    seal(cluster, true).await;
    assert_refused(&node, 0, UNSEAL);
    taken_in_vain(&node, 0, UNSEAL).await;
    seal(cluster, false).await;
    let open = Stray::open(cluster, "lost-open", Topic::Journal, 0);
    assert_refused(&node, 0, "a transaction is open on the journal of partition 0");
    taken_in_vain(&node, 0, "a transaction is open on the journal of partition 0").await;
    open.abort();
    node.resume(1).expect("it is here");
    until("it is halted again", async || halted(&node, 1).is_some_and(|cause| cause.contains(REMEDY))).await;
    for id in 0..PARTITIONS {
        // The end of the transaction shows in the journal a moment after it was answered.
        until("its journal tells where it stood", async || node.journal_end(id).is_ok()).await;
        let end = node.journal_end(id).expect("its journal tells");
        let last = restore::block_at(&log, id, end.block).expect("a journal").expect("a block").1;
        let told = (end.stamp, end.at_ms, end.commands, end.postings);
        assert_eq!(told, (last.stamp.to_string(), last.at_ms, last.positions.commands, last.positions.postings));
        node.resume_from_journal(id).expect("it is here");
    }
    at_rest(&[&node]).await;
    assert!(node.stored(DEADLINE).await);
    assert_eq!((digests(&node), wallets(&node)), (digests_before, wallets_before.clone()));
    assert!(running(&node).iter().all(|of| of.restored_from == "directory"), "{:?}", node.status());
    for id in 0..PARTITIONS {
        assert_refused(&node, id, "is not halted");
    }
    // Everything that was sent before is a duplicate, and what is new is carried out once.
    node.publish([top_ups(0), top_ups(1), transfers(0)].concat()).await.expect("published");
    at_rest(&[&node]).await;
    assert_eq!((wallets(&node), events(&log)), (wallets_before.clone(), events_before), "nothing is settled twice");
    node.publish(transfers(1)).await.expect("published");
    at_rest(&[&node]).await;
    // Each has paid one and been paid by one once more.
    let after = wallets(&node);
    let has_gone_on = |(id, (ledger, seq)): (&String, &(i128, u64))| after[id].0 == *ledger && *seq < after[id].1;
    assert!(wallets_before.iter().all(has_gone_on), "{after:?}");
    left(node).await;

    // The position was committed: the next start finds it.
    let node = start(cluster, dir).await;
    at_rest(&[&node]).await;
    left(node).await;
    only_a_whole_journal_is_believed(cluster, dir, &log).await;
}

/// That an application may have been left for another is asked where no partition has a position; one that a stranger has put there counts.
async fn whatever_has_a_position_is_not_forgotten(cluster: &Cluster) {
    let is_forgotten = || KafkaLog::is_forgotten(cluster).expect("an answer");
    assert!(!is_forgotten(), "the engine's own");
    forgotten(cluster).await;
    assert!(is_forgotten());
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &cluster.brokers).set("group.id", &cluster.prefix);
    let stranger: BaseConsumer = config.create().expect("a client");
    let mut without_stamp = TopicPartitionList::new();
    let place = without_stamp.add_partition_offset(&Topic::Commands.name(&cluster.prefix), 1, Offset::Offset(1));
    place.expect("an offset");
    stranger.commit(&without_stamp, CommitMode::Sync).expect("a group without members");
    assert!(!is_forgotten(), "a stranger's");
    let nowhere = Cluster::new(&cluster.brokers, "nowhere");
    let refused = KafkaLog::is_forgotten(&nowhere).expect_err("there is nothing");
    assert!(matches!(&refused, Error::Lasting(cause) if cause.contains("there is no topic nowhere.commands.v1")), "{refused:?}");
}

/// One journal ends with a block of another generation, one lacks a block, and the directory of a third partition is gone.
async fn only_a_whole_journal_is_believed(cluster: &Cluster, dir: &Path, log: &KafkaLog) {
    forgotten(cluster).await;
    append(log, FOREIGN, Generation([9; 16]), 1);
    append(log, HOLED, Generation([7; 16]), 2);
    fs::remove_dir_all(dir.join("only/state").join(EMPTY.to_string())).expect("a directory");
    let node = start(cluster, dir).await;
    all_halt(&node).await;
    assert_refused(&node, FOREIGN, "the application's is partition 0 of 0707");
    taken_in_vain(&node, FOREIGN, "the application's is partition 0 of 0707").await;
    taken_in_vain(&node, HOLED, "is due").await;
    for id in (0..PARTITIONS).filter(|id| ![FOREIGN, HOLED].contains(id)) {
        node.resume_from_journal(id).expect("it is here");
    }
    until("the others run", async || running(&node).len() == PARTITIONS as usize - 2).await;
    assert!(halted(&node, FOREIGN).is_some() && halted(&node, HOLED).is_some());
    left(node).await;
    let node = start(cluster, dir).await;
    let is_halted = |id| halted(&node, id).is_some();
    until("what is refused has no position", async || {
        running(&node).len() == PARTITIONS as usize - 2 && is_halted(FOREIGN) && is_halted(HOLED)
    })
    .await;
    left(node).await;
}

async fn start(cluster: &Cluster, dir: &Path) -> Node {
    Node::start(settings(cluster, dir, "only")).await.expect("a node")
}

async fn left(node: Node) {
    assert_eq!(node.leave().await, Ok(true), "the group sees it leave");
}

/// Has the broker forget the group and its offsets, which it lets nobody do while the group has a member.
async fn forgotten(cluster: &Cluster) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &cluster.brokers).create().expect("a client");
    let deleted = admin.delete_groups(&[cluster.prefix.as_str()], &AdminOptions::new()).await.expect("an answer");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
}

async fn seal(cluster: &Cluster, is_sealed: bool) {
    KafkaLog::seal(cluster, is_sealed).expect("an administrator");
    until("the broker tells of it", async || KafkaLog::is_sealed(cluster).expect("an answer") == is_sealed).await;
}

fn halted(node: &Node, id: u32) -> Option<String> {
    node.status().into_iter().find(|of| of.partition == id).and_then(|of| of.cause)
}

async fn all_halt(node: &Node) {
    let names_it = |cause: Option<String>| cause.is_some_and(|cause| cause.contains(REMEDY));
    until("all are halted, and told what helps", async || (0..PARTITIONS).all(|id| names_it(halted(node, id)))).await;
}

fn assert_refused(node: &Node, id: u32, expected: &str) {
    let refused = node.journal_end(id).expect_err("it is refused").to_string();
    assert!(refused.contains(expected), "{refused}, not {expected}");
}

/// Asked to go on all the same, it is halted again, and has no position.
async fn taken_in_vain(node: &Node, id: u32, expected: &str) {
    node.resume_from_journal(id).expect("it is here");
    until("it is halted with this cause", async || halted(node, id).is_some_and(|cause| cause.contains(expected))).await;
}

/// Writes a block behind so many that nobody has written, or behind the last one.
fn append(log: &KafkaLog, partition: u32, generation: Generation, behind: u64) {
    let last = restore::last_block(log, partition, Generation([7; 16])).expect("a block");
    let header = Header {
        generation,
        partition,
        number: last.number + behind,
        stamp: Stamp { lane: "nobody".into(), incarnation: 1, counter: 1 },
        previous: last.stamp.clone(),
        at_ms: last.at_ms,
        positions: last.positions,
        sent: vec![],
        received: vec![],
    };
    let value = Some(EncodedBlock::encode(&header, &Overlay::default()).bytes().clone());
    log.append(Topic::Journal, partition, vec![Outgoing { value, ..Outgoing::default() }]).expect("appended");
}

/// The directories of two partitions in each other's place.
fn swap(dir: &Path) {
    let state = dir.join("only/state");
    for (from, to) in [("0", "x"), ("1", "0"), ("x", "1")] {
        fs::rename(state.join(from), state.join(to)).expect("a directory");
    }
}

/// What every wallet has, and its sequence.
fn wallets(node: &Node) -> BTreeMap<String, (i128, u64)> {
    let all = (0..PARTITIONS).flat_map(|id| node.wallets(id, None, WALLETS).expect("it answers"));
    all.map(|wallet: Wallet| (wallet.id().to_string(), (wallet.ledger().minor(), wallet.seq()))).collect()
}
