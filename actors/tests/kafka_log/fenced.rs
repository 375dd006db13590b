//! A lane is told that its name was taken although nobody has taken it, as may happen after an outage: it goes on.

use std::time::Duration;

use finflow_actors::Node;
use finflow_actors::log::kafka::{SESSION_TIMEOUT, Settings as Cluster};
use finflow_topologies::log::simulated::Fault;

use crate::proxy::Armed;
use crate::takeover::{at_rest, created, each_topped_up, settings, top_ups, until};

/// How long a commit waits for its answer: longer than the member's session, and than the heartbeat after it.
const COMMIT_DEADLINE: Duration = SESSION_TIMEOUT.saturating_add(Duration::from_secs(3));
/// Top-ups of each wallet before, during and after.
const ROUNDS: usize = 3;

/// The client library takes the session for timed out while a commit hangs, and goes on sending heartbeats without its id. The coordinator
/// has heard it all along.
pub(crate) async fn a_lane_whose_name_nobody_has_taken_goes_on(cluster: &Cluster, armed: &Armed) {
    let cluster = Cluster { commit_deadline: COMMIT_DEADLINE, ..cluster.clone() };
    let dir = tempfile::tempdir().expect("a directory");
    drop(created(&cluster));
    let node = Node::start(settings(&cluster, dir.path(), "only")).await.expect("a node");
    for round in 0..ROUNDS - 1 {
        node.publish(top_ups(round)).await.expect("published");
        at_rest(&[&node]).await;
    }
    armed.fail_next(Fault::DoubtCommitted);
    armed.deafen(true);
    node.publish(top_ups(ROUNDS - 1)).await.expect("published");
    until("it is told that its name was taken", async || 0 < armed.fenced()).await;
    armed.deafen(false);
    node.publish(top_ups(ROUNDS)).await.expect("published");
    let nodes = [&node];
    let ended = tokio::select! {
        () = at_rest(&nodes) => None,
        cause = node.ended() => Some(cause),
    };
    assert_eq!(ended, None, "nobody has taken its name");
    each_topped_up(&node, ROUNDS).await;
    assert!(node.stop().await);
}
