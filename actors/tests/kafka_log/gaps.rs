//! What a producer has aborted occupies offsets of `commands` that nobody decides: a partition at rest commits that it has read past them,
//! and so misses nothing when the topic has let go of them.

use finflow_actors::Node;
use finflow_actors::log::kafka::Settings as Cluster;
use finflow_topologies::Topic;
use finflow_topologies::log::Log;

use super::stray::Stray;
use super::takeover::{at_rest, created, settings, top_ups, until};

/// The partition that the transaction is in.
const GAPPED: u32 = 1;

pub(crate) async fn what_producers_have_aborted_is_passed_for_good(cluster: &Cluster) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = created(cluster);
    let end = |topic| log.range(topic, GAPPED).expect("a range").end;
    let committed = || log.committed_positions().expect("positions")[&GAPPED].as_ref().map_or(0, |position| position.commands);
    let start = || Node::start(settings(cluster, dir.path(), "only"));
    let node = start().await.expect("a node");
    node.publish(top_ups(0)).await.expect("published");
    at_rest(&[&node]).await;
    let before = end(Topic::Commands);
    Stray::open(cluster, "given-up", Topic::Commands, GAPPED).abort();
    // The record, and the mark of its end.
    until("the transaction has ended", async || end(Topic::Commands) == before + 2).await;
    until("the position is carried on", async || committed() == before + 2).await;
    assert!(node.stop().await);
    drop(node);

    // As a week later.
    log.trim(Topic::Commands, GAPPED, before + 2).expect("trimmed");
    let written = end(Topic::Journal);
    let node = start().await.expect("a node");
    at_rest(&[&node]).await;
    assert!(node.status().iter().all(|of| of.cause.is_none()), "{:?}", node.status());
    assert_eq!(end(Topic::Journal), written, "nothing is written for nothing");
    node.publish(top_ups(1)).await.expect("published");
    at_rest(&[&node]).await;
    assert!(node.stop().await);
}
