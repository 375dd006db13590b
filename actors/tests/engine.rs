//! The engine on the embedded log, with real RocksDB and real actors: money moves, actors die, the process restarts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use finflow_actors::log::embedded::EmbeddedLog;
use finflow_actors::{Node, ReadError, Settings};
use finflow_ledger::WalletId;
use finflow_state::store::{Error, RocksStore, Shared};
use finflow_topologies::Topic;
use finflow_topologies::log::{Log, Outgoing};
use finflow_topologies::topics::partition_of_wallet;

use self::commands::{open, opened, top_up, transfer, transfers};
use self::engine::{DEADLINE, audited, events};

#[path = "support/commands.rs"]
mod commands;
#[path = "support/engine.rs"]
mod engine;

fn settings(dir: &Path, lanes: u32) -> Settings {
    Settings { lanes, ..engine::settings(dir) }
}

/// A node that has opened its wallets.
async fn with_wallets(dir: &Path) -> Node {
    let node = Node::start(settings(dir, 1)).await.expect("a node");
    node.publish(opened(20, "10")).await.expect("a log");
    assert!(node.idle(DEADLINE).await);
    node
}

fn check(node: &Node, wallets: usize, transfers: u64) {
    let audit = audited(node, wallets);
    let ended = ["payment.settled", "payment.rejected"].map(|name| audit.outcomes.get(name).copied().unwrap_or_default());
    assert_eq!(ended.iter().sum::<u64>(), transfers + wallets as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn money_moves_while_partition_actors_die_and_survives_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let (wallets, count) = (50, 2_000);
    for lanes in [1, 2] {
        let dir = dir.path().join(lanes.to_string());
        let node = Node::start(settings(&dir, lanes)).await.expect("a node");
        node.publish(opened(wallets, "10")).await.expect("a log");
        for batch in 0..20 {
            node.publish(transfers(wallets, batch * count / 20..(batch + 1) * count / 20)).await.expect("a log");
            node.kill_partition(batch as u32 % 4);
        }
        assert!(node.idle(DEADLINE).await, "{:?}", node.status());
        check(&node, wallets, count as u64);
        node.publish(transfers(wallets, 0..count)).await.expect("a log");
        assert!(node.idle(DEADLINE).await);
        check(&node, wallets, count as u64);
        node.stop().await;
        let digests: BTreeMap<u32, [u8; 32]> = (0..4).map(|id| (id, node.digest(id).expect("readable"))).collect();
        drop(node);

        // One partition's state is lost, another's is damaged: both come back from the journal, to the same rows.
        std::fs::remove_dir_all(dir.join("state/1")).expect("a directory");
        std::fs::write(dir.join("state/2/CURRENT"), b"").expect("a file");
        let node = Node::open(settings(&dir, lanes)).expect("a node");
        for (id, before) in digests {
            assert_eq!(node.digest(id).expect("readable"), before, "partition {id}");
        }
        for found in node.check(false).await {
            assert_eq!(found.differences, Vec::<String>::new());
        }
    }
}

/// A node that has stopped may still be writing a store out: the next one in this process waits for that, and halts nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_still_open_is_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = with_wallets(dir.path()).await;
    node.stop().await;
    drop(node);
    let store = |id: u32| RocksStore::open(&dir.path().join(format!("state/{id}")), &Shared::new(1 << 20, 1));
    let begun = Instant::now();
    let held = loop {
        match store(1) {
            Ok(held) => break held,
            Err(cause) => assert!(begun.elapsed() < DEADLINE, "{cause}"),
        }
    };
    let settings = settings(dir.path(), 1);
    let node = std::thread::scope(|scope| {
        let node = scope.spawn(|| Node::open(settings));
        // Once it has opened one, it is at the others as well, if the machine has two cores.
        while !node.is_finished() && !matches!(store(0), Err(Error::Busy(_))) {}
        drop(held);
        node.join().expect("no panic").expect("a node")
    });
    assert!(node.status().iter().all(|of| of.cause.is_none()), "{:?}", node.status());
}

/// Lets the directories of partitions 0 and 1 change places.
fn swap(state: &Path) {
    for (from, to) in [("0", "x"), ("1", "0"), ("x", "1")] {
        std::fs::rename(state.join(from), state.join(to)).expect("a directory");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_directories_halt_until_they_are_back_and_another_partition_count_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = with_wallets(dir.path()).await;
    node.stop().await;
    drop(node);
    let state = dir.path().join("state");
    swap(&state);
    let node = Node::start(settings(dir.path(), 1)).await.expect("a node");
    let halted = |node: &Node| -> Vec<u32> {
        node.status().iter().filter(|status| status.cause.is_some()).map(|status| status.partition).collect()
    };
    assert_eq!(halted(&node), vec![0, 1]);
    let settled = || async {
        // A partition that is being restored again shows no cause, and no lane yet.
        while node.status().iter().any(|status| status.cause.is_none() && status.lane.is_empty()) {
            node.changed(Duration::from_millis(5)).await;
        }
        halted(&node)
    };
    // Resumed without a reason to go on, it is restored again, with the same result; nothing of the evidence is lost.
    node.resume(0).expect("a partition of this node");
    assert_eq!(tokio::time::timeout(DEADLINE, settled()).await.expect("restored again"), vec![0, 1]);
    swap(&state);
    for (partition, left) in [(0, vec![1]), (1, vec![])] {
        node.resume(partition).expect("a partition of this node");
        let begun = tokio::time::timeout(DEADLINE, async {
            while settled().await != left {
                node.changed(Duration::from_millis(5)).await;
            }
        });
        begun.await.expect("restored again");
    }
    node.publish(transfers(20, 0..40)).await.expect("a log");
    assert!(node.idle(DEADLINE).await, "{:?}", node.status());
    check(&node, 20, 40);
    node.stop().await;
    drop(node);
    let error = Node::open(Settings { partitions: 8, ..settings(dir.path(), 1) }).err().expect("another count");
    assert!(error.to_string().contains("4 partitions, 8"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_posting_that_cannot_be_read_halts_one_partition_and_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    Node::start(settings(dir.path(), 1)).await.expect("a node").stop().await;
    let log = EmbeddedLog::open(&dir.path().join("log"), 4).expect("a log");
    let posting = Outgoing { value: Some(Bytes::from_static(b"no posting")), ..Outgoing::default() };
    log.append(Topic::Postings, 0, vec![posting]).expect("a log");
    drop(log);

    let node = Node::start(settings(dir.path(), 1)).await.expect("a node");
    let until = Instant::now() + DEADLINE;
    while node.status()[0].cause.is_none() {
        assert!(Instant::now() < until, "the partition is not halted: {:?}", node.status());
        node.changed(Duration::from_millis(20)).await;
    }
    assert!(node.status()[0].cause.as_ref().is_some_and(|cause| cause.contains("posting at offset 0 cannot be read")));
    node.publish(opened(20, "10")).await.expect("a log");
    assert!(node.idle(DEADLINE).await, "{:?}", node.status());
    for n in 0..20 {
        let id = WalletId::parse(&format!("w{n}")).expect("valid");
        match partition_of_wallet(&id, 4) {
            0 => assert!(matches!(node.wallet(&id), Err(ReadError::Halted(0, _))), "{id}"),
            _ => assert!(node.wallet(&id).expect("readable").is_some(), "{id}"),
        }
    }
    node.stop().await;
}

/// The cause is nothing that the next lane could find again: a partition actor that keeps dying.
#[tokio::test(flavor = "multi_thread")]
async fn a_halt_outlives_its_lane_until_it_is_resumed() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = with_wallets(dir.path()).await;
    let until = Instant::now() + DEADLINE;
    while node.status()[0].cause.is_none() {
        assert!(Instant::now() < until, "it is never halted: {:?}", node.status());
        node.kill_partition(0);
        node.changed(Duration::from_millis(5)).await;
    }
    let told = || node.range(Topic::Events, 0).expect("a log").end;
    let (before, cause) = (told(), node.status()[0].cause.clone());
    for round in 1..4 {
        node.kill_lane(0).await;
        node.publish(opened(20 + 10 * round, "10")).await.expect("a log");
        assert!(node.idle(DEADLINE).await, "{:?}", node.status());
        let status = &node.status()[0];
        assert_eq!((status.state.as_str(), &status.cause), ("halted", &cause), "round {round}");
        assert_eq!(told(), before, "round {round}: nothing is decided there");
        assert!(node.status()[1..].iter().all(|status| status.commands_lag == 0 && status.cause.is_none()), "round {round}");
    }
    node.resume(0).expect("it runs here");
    while node.status()[0].cause.is_some() {
        assert!(Instant::now() < until, "it is not resumed: {:?}", node.status());
        node.changed(Duration::from_millis(5)).await;
    }
    assert!(node.idle(DEADLINE).await, "{:?}", node.status());
    check(&node, 50, 0);
    node.stop().await;
}

/// A thread stays with each actor that stands still, so there are more of them than of those.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_partition_that_does_not_answer_is_replaced_once_and_then_halted() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = with_wallets(dir.path()).await;
    let first = node.hang_partition(0).await;
    node.publish(opened(30, "10")).await.expect("a log");
    assert!(node.idle(DEADLINE).await, "{:?}", node.status());
    check(&node, 30, 0);
    let second = node.hang_partition(0).await;
    node.publish(opened(40, "10")).await.expect("a log");
    assert!(node.idle(DEADLINE).await, "{:?}", node.status());
    let status = node.status();
    assert_eq!(status[0].cause.as_deref(), Some("it does not answer"));
    assert!(status[1..].iter().all(|status| status.commands_lag == 0 && status.cause.is_none()), "the others go on: {status:?}");
    drop((first, second));
    node.resume(0).expect("it runs here");
    let until = Instant::now() + DEADLINE;
    while node.status()[0].cause.is_some() {
        assert!(Instant::now() < until, "it is not resumed: {:?}", node.status());
        node.changed(Duration::from_millis(5)).await;
    }
    assert!(node.idle(DEADLINE).await, "{:?}", node.status());
    check(&node, 40, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_keeps_dying_is_given_up_and_its_partitions_say_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = Node::start(settings(dir.path(), 2)).await.expect("a node");
    node.publish(opened(20, "10")).await.expect("a log");
    assert!(node.idle(DEADLINE).await);
    let lanes: Vec<String> = node.status().into_iter().map(|status| status.lane).collect();
    let until = Instant::now() + DEADLINE;
    while node.status()[0].cause.is_none() {
        assert!(Instant::now() < until, "it is never given up: {:?}", node.status());
        node.kill_lane(0).await;
        node.changed(Duration::from_millis(20)).await;
    }
    node.publish(opened(40, "10")).await.expect("what is published is in the log");
    assert!(node.idle(DEADLINE).await, "{:?}", node.status());
    for (status, lane) in node.status().iter().zip(&lanes) {
        let id = status.partition;
        let is_given_up = *lane == lanes[0];
        let says_so = status.cause.as_ref().is_some_and(|cause| cause.contains("its lane keeps dying"));
        assert_eq!((says_so, status.state == "halted"), (is_given_up, is_given_up), "{status:?}");
        assert_eq!(status.commands_lag == 0, !is_given_up, "{status:?}");
        let wallet = (0..20).map(|n| WalletId::parse(&format!("w{n}")).expect("valid"));
        for wallet in wallet.filter(|wallet| partition_of_wallet(wallet, 4) == id) {
            assert_eq!(node.wallet(&wallet).is_err(), is_given_up, "{wallet}");
        }
    }
    assert_eq!(lanes.iter().filter(|lane| **lane == lanes[0]).count(), 2, "the other lane has the others");
    node.stop().await;
    drop(node);
    // A restart of the service begins anew, and nothing is lost.
    let node = Node::start(settings(dir.path(), 2)).await.expect("a node");
    assert!(node.idle(DEADLINE).await);
    check(&node, 40, 0);
    node.stop().await;
}

/// Partitions are read one after the other, and what comes meanwhile must not be seen in a part of them only.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_was_opened_before_is_there_for_a_transfer_that_comes_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = Node::start(settings(dir.path(), 1)).await.expect("a node");
    // Several at a time, so that the lane is in the middle of a turn when they come.
    let publishing: Vec<_> = (0..8)
        .map(|task| {
            let node = node.clone();
            tokio::spawn(async move {
                for n in 0..200 {
                    let (payer, receiver) = (format!("a{task}-{n}"), format!("b{task}-{n}"));
                    let top_up = top_up(&payer, "top", "1");
                    let commands = vec![open(&receiver), open(&payer), top_up, transfer(&payer, "pay", &receiver, "1")];
                    node.publish(commands).await.expect("a log");
                }
            })
        })
        .collect();
    for task in publishing {
        task.await.expect("a publisher");
    }
    assert!(node.idle(DEADLINE).await, "{:?}", node.status());
    let events = events(&node);
    let audit = finflow_topologies::simulation::audit(events.iter().map(|event| &**event));
    assert_eq!((audit.reasons.clone(), audit.outcomes.get("payment.settled")), (BTreeMap::new(), Some(&3_200)));
}
