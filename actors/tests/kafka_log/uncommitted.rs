//! A lane whose commits hang, and then fail, while everything else of the cluster answers: the node says so, until one succeeds.

use std::time::Duration;

use finflow_actors::Node;
use finflow_actors::log::kafka::Settings as Cluster;

use crate::proxy::Armed;
use crate::takeover::{at_rest, created, settings, top_ups, until};

/// How long a commit waits for its answer: longer than anybody may be kept from knowing that it does.
const COMMIT_DEADLINE: Duration = Duration::from_secs(8);

pub(crate) async fn a_lane_that_cannot_commit_says_so(cluster: &Cluster, armed: &Armed) {
    let cluster = Cluster { commit_deadline: COMMIT_DEADLINE, ..cluster.clone() };
    let dir = tempfile::tempdir().expect("a directory");
    drop(created(&cluster));
    let node = Node::start(settings(&cluster, dir.path(), "only")).await.expect("a node");
    node.publish(top_ups(0)).await.expect("published");
    at_rest(&[&node]).await;
    assert_eq!(node.faults(), vec![]);
    let tells = |what: &str| {
        let faults = node.faults();
        let told = faults.iter().find(|(part, cause)| part == "lane 0" && cause.contains(what));
        assert!(told.is_some() || faults.iter().all(|(part, _)| part == "lane 0"), "the rest is well: {faults:?}");
        told.map(|(_, cause)| cause.clone())
    };

    armed.refuse_commits(true);
    node.publish(top_ups(1)).await.expect("published");
    until("a commit that hangs is told", async || tells("the log has not answered yet").is_some()).await;
    until("then that it has failed, and why", async || tells("aborted: ").is_some()).await;
    println!("    {:?}", tells("aborted: "));
    armed.refuse_commits(false);
    until("it is ready again", async || node.faults().is_empty()).await;
    at_rest(&[&node]).await;
    assert!(node.stop().await);
}
