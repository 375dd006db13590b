//! A transaction that somebody has left open hides what others have committed behind it: who restores a partition then waits for its end.

use finflow_actors::Node;
use finflow_actors::log::kafka::Settings as Cluster;
use finflow_topologies::Topic;

use super::stray::Stray;
use super::takeover::{DEADLINE, PARTITIONS, at_rest, created, digests, follower, running, settings, top_ups, until};

/// Waits until this node runs all the others, and sees that the partition which is held back is on its way.
async fn all_but(held: u32, node: &Node) {
    until("the others run", async || running(node).iter().filter(|of| of.partition != held).count() + 1 == PARTITIONS as usize)
        .await;
    // It is told while an attempt lasts, and attempts come more and more seldom: none is missed.
    let progress = || node.conditions().into_iter().find(|of| of.partition == held).and_then(|of| of.restoring);
    let has_told = async {
        while progress().is_none_or(|told| told.target <= told.block) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, has_told).await.expect("it tells how far it has come");
    let state = || node.status().into_iter().find(|of| of.partition == held).map(|of| of.state);
    let waits = || node.faults().iter().any(|(_, cause)| cause.contains("holds back the journal"));
    until("it is tried", async || waits() || state().as_deref() == Some("halted")).await;
    assert_ne!(state().as_deref(), Some("halted"), "what is hidden is not lost");
    assert_ne!(state().as_deref(), Some("running"), "what is hidden is not there either");
}

pub(crate) async fn what_an_open_transaction_hides_is_waited_for(cluster: &Cluster) {
    let dir = tempfile::tempdir().expect("a directory");
    drop(created(cluster));
    let start = || Node::start(settings(cluster, dir.path(), "only"));
    let node = start().await.expect("a node");
    node.publish(top_ups(0)).await.expect("published");
    at_rest(&[&node]).await;

    let held = 0;
    let killed = Stray::open(cluster, "left-open", Topic::Journal, held);
    for round in 1..4 {
        node.publish(top_ups(round)).await.expect("published");
        at_rest(&[&node]).await;
    }
    assert!(node.stored(DEADLINE).await);
    let expected = digests(&node);
    assert!(node.stop().await);
    drop(node);
    std::fs::remove_dir_all(dir.path().join("only/state")).expect("a directory");
    std::fs::remove_dir_all(dir.path().join("snapshots")).or_else(missing).expect("a directory");

    let node = start().await.expect("a node");
    all_but(held, &node).await;
    killed.abort();
    at_rest(&[&node]).await;
    assert!(node.stored(DEADLINE).await);
    assert_eq!(digests(&node), expected);
    assert!(node.stop().await);
}

/// Who takes over from a store that has followed the journal finds it as short as who begins anew.
pub(crate) async fn what_an_open_transaction_hides_from_who_stands_by_is_waited_for(cluster: &Cluster) {
    let dir = tempfile::tempdir().expect("a directory");
    drop(created(cluster));
    let first = follower(cluster, dir.path(), "first").await;
    first.publish(top_ups(0)).await.expect("published");
    at_rest(&[&first]).await;
    let second = follower(cluster, dir.path(), "second").await;
    until("each has its share", async || running(&second).len() == PARTITIONS as usize / 2).await;
    let held = running(&first).first().map(|of| of.partition).expect("a share");
    let followed = || second.status().into_iter().any(|of| of.partition == held && of.state == "standby");
    until("it is followed", async || followed()).await;

    let killed = Stray::open(cluster, "left-open", Topic::Journal, held);
    for round in 1..4 {
        first.publish(top_ups(round)).await.expect("published");
        at_rest(&[&first, &second]).await;
    }
    assert!(first.stored(DEADLINE).await);
    let expected = digests(&first);
    assert!(followed(), "its store is open");
    assert_eq!(first.leave().await, Ok(true), "the group sees it leave");
    drop(first);
    all_but(held, &second).await;
    killed.abort();
    at_rest(&[&second]).await;
    let from = second.status().into_iter().find(|of| of.partition == held).map(|of| of.restored_from);
    assert_eq!(from.as_deref(), Some("standby"));
    let found = digests(&second);
    assert!(expected.iter().all(|(id, digest)| found.get(id) == Some(digest)), "{expected:?} {found:?}");
    assert!(second.stop().await);
}

fn missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
