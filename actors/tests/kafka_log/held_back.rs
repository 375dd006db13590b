//! A transaction that somebody has left open hides what others have committed behind it: who restores a partition then waits for its end.

use std::time::Duration;

use finflow_actors::Node;
use finflow_actors::log::kafka::Settings as Cluster;
use finflow_topologies::Topic;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::takeover::{DEADLINE, at_rest, created, digests, settings, top_ups, until};

const BUDGET: Duration = Duration::from_secs(10);
/// The partition whose journal is held back.
const HELD: u32 = 0;

pub(crate) async fn what_an_open_transaction_hides_is_waited_for(cluster: &Cluster) {
    let dir = tempfile::tempdir().expect("a directory");
    drop(created(cluster));
    let start = || Node::start(settings(cluster, dir.path(), "only"));
    let node = start().await.expect("a node");
    node.publish(top_ups(0)).await.expect("published");
    at_rest(&[&node]).await;

    // As a lane that has been killed leaves it.
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &cluster.brokers).set("transactional.id", "left-open").set("transaction.timeout.ms", "60000");
    let killed: BaseProducer = config.create().expect("a producer");
    killed.init_transactions(BUDGET).expect("an id");
    killed.begin_transaction().expect("a transaction");
    let journal = Topic::Journal.name(&cluster.prefix);
    let record = BaseRecord::<str, str>::to(&journal).partition(HELD as i32).key("").payload("nobody sees it");
    killed.send(record).map_err(|(error, _)| error).expect("queued");
    killed.flush(BUDGET).expect("written");

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
    let state = || node.status().into_iter().find(|of| of.partition == HELD).map(|of| of.state);
    until("the others run", async || node.status().iter().filter(|of| of.state == "running").count() + 1 == node.status().len())
        .await;
    assert_ne!(state().as_deref(), Some("halted"), "what is hidden is not lost");
    assert_ne!(state().as_deref(), Some("running"), "what is hidden is not there either");
    killed.abort_transaction(BUDGET).expect("aborted");
    at_rest(&[&node]).await;
    assert!(node.stored(DEADLINE).await);
    assert_eq!(digests(&node), expected);
    assert!(node.stop().await);
}

fn missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
