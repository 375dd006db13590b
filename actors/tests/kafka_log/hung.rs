//! A commit that never comes back from the client library: the node says so, then that it has to end, and the next one under its name goes
//! on.

use std::time::Duration;

use finflow_actors::log::kafka::{KafkaLog, Settings as Cluster};
use finflow_actors::{Node, Settings};

use crate::cut_off::each_once;
use crate::takeover::{DEADLINE, at_rest, created, settings, top_ups, until};

/// How long a commit is waited for: longer than the transaction lasts, and than anybody may be kept from knowing that it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

fn is_half_done(log: &KafkaLog) -> bool {
    !log.open_transactions().expect("an answer").is_empty()
}

pub(crate) async fn a_commit_that_hangs_ends_the_process(cluster: &Cluster) {
    let cluster = Cluster { commit_patience: PATIENCE, ..cluster.clone() };
    let dir = tempfile::tempdir().expect("a directory");
    let log = created(&cluster);
    let of = |home: &str| Settings { node_id: "one".to_owned(), ..settings(&cluster, dir.path(), home) };
    let one = Node::start(of("one")).await.expect("a node");
    for round in 0..2 {
        one.publish(top_ups(round)).await.expect("published");
        at_rest(&[&one]).await;
    }
    let hang = one.hang_commit(0);
    one.publish(top_ups(2)).await.expect("published");
    until("what it commits is written, and open", async || is_half_done(&log)).await;
    until("a commit that hangs is told", async || {
        one.faults().iter().any(|(part, cause)| part == "lane 0" && cause.contains("the log has not answered yet"))
    })
    .await;
    let ended = tokio::time::timeout(DEADLINE, one.ended()).await.expect("it ends");
    assert_eq!(ended, "the Kafka client has not answered for 20 s");

    // As a supervisor starts it again. Here the former one is still there, and holds its directory.
    let next = Node::start(of("next")).await.expect("the next one");
    at_rest(&[&next]).await;
    until("nothing is left open", async || !is_half_done(&log)).await;
    each_once(&next, &log, 2).await;

    // Should the call come back after all, nothing comes of it.
    drop(hang);
    until("it finds its name taken", async || one.ended().await.contains("node.id")).await;
    next.publish(top_ups(3)).await.expect("published");
    let nodes = [&next];
    tokio::select! {
        () = at_rest(&nodes) => {}
        cause = next.ended() => panic!("the next one ends: {cause}"),
    }
    each_once(&next, &log, 3).await;
    assert!(next.stop().await);
    // It has no lane any more that could finish anything.
    one.stop().await;
}
