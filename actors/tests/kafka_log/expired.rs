//! Commands that their topic has let go of while the partition was without a process: it halts, and goes on behind them when an operator
//! accepts that they are lost. What is behind them is carried out, and their senders may send them again.

use finflow_actors::log::kafka::Settings as Cluster;
use finflow_actors::{Expired, Node, Publish};
use finflow_ledger::WalletId;
use finflow_topologies::Topic;
use finflow_topologies::log::{Log, Outgoing};
use finflow_topologies::topics::partition_of_key;

use super::takeover::{PARTITIONS, at_rest, created, each_topped_up, settings, top_ups, until};

/// The partition that waits too long.
const LATE: u32 = 2;
/// What the cause of its halt names.
const REMEDY: &str = "`finflow partitions resume 2 --skip-expired`";

pub(crate) async fn an_operator_lets_it_go_on_past_commands_that_have_expired(cluster: &Cluster) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = created(cluster);
    let start = || Node::start(settings(cluster, dir.path(), "only"));
    let committed = || log.committed_positions().expect("positions")[&LATE].as_ref().map_or(0, |position| position.commands);
    let node = start().await.expect("a node");
    node.publish([top_ups(0), top_ups(1)].concat()).await.expect("published");
    at_rest(&[&node]).await;
    assert!(refusal(&node, 0).contains("partition 0 is not halted"));
    assert!(node.stop().await);
    drop(node);

    // While it is stopped; and a week later.
    let missed: Vec<Publish> = top_ups(2).into_iter().filter(|sent| partition(sent) == LATE).collect();
    let kept: Vec<Publish> = top_ups(3).into_iter().filter(|sent| partition(sent) == LATE).collect();
    let from = committed();
    assert!(1 < missed.len());
    append(&log, &[missed.clone(), kept.clone()].concat());
    let to = from + missed.len() as u64;
    log.trim(Topic::Commands, LATE, to).expect("trimmed");

    let node = start().await.expect("a node");
    halted(&node).await;
    assert_eq!(node.expired(LATE).expect("some have expired"), Expired { partition: LATE, from, to });
    assert_eq!(committed(), from, "asking changes nothing");
    assert!(node.resume_past_expired(LATE, to + 1).is_err(), "the log still holds that one");
    node.resume_past_expired(LATE, to).expect("it is here");
    at_rest(&[&node]).await;
    let mut told = Vec::new();
    until("it answers for all of them", async || {
        told = seqs(&node, &kept).unwrap_or_default();
        !told.is_empty()
    })
    .await;
    assert_eq!(told, vec![3; kept.len()], "what was left is carried out: opened, and topped up twice");
    assert!(refusal(&node, LATE).contains("partition 2 is not halted"));
    assert!(node.stop().await);
    drop(node);

    // For good; and what was lost is carried out when it is sent again.
    let node = start().await.expect("a node");
    at_rest(&[&node]).await;
    node.publish([top_ups(2), top_ups(3)].concat()).await.expect("published");
    at_rest(&[&node]).await;
    each_topped_up(&node, 3).await;
    assert!(node.stop().await);
}

fn partition(sent: &Publish) -> u32 {
    partition_of_key(sent.key.as_deref().expect("a key"), PARTITIONS)
}

fn append(log: &impl Log, sent: &[Publish]) {
    let outgoing = |sent: &Publish| Outgoing { key: sent.key.clone(), value: sent.value.clone(), ..Outgoing::default() };
    log.append(Topic::Commands, LATE, sent.iter().map(outgoing).collect()).expect("appended");
}

async fn halted(node: &Node) {
    until("it is halted, and told what helps", async || {
        node.status().iter().any(|of| of.partition == LATE && of.cause.as_ref().is_some_and(|cause| cause.contains(REMEDY)))
    })
    .await;
}

fn refusal(node: &Node, partition: u32) -> String {
    node.expired(partition).expect_err("it is refused").to_string()
}

/// How many events the wallets have had that these commands are for; nothing while the node does not answer.
fn seqs(node: &Node, sent: &[Publish]) -> Option<Vec<u64>> {
    let ids = sent.iter().map(|sent| String::from_utf8_lossy(sent.key.as_deref().expect("a key")).into_owned());
    ids.map(|id| Some(node.wallet(&WalletId::parse(&id).expect("an id")).ok()?.expect("opened").seq())).collect()
}
