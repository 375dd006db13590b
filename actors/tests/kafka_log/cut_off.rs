//! A process that is cut off from the brokers, for longer than its session or not, and another one that is started under its name or not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use finflow_actors::log::kafka::{KafkaLog, Settings as Cluster};
use finflow_actors::{Node, Settings};

use crate::proxy::{Armed, Cut};
use crate::takeover::{PARTITIONS, at_rest, created, each_topped_up, events, running, settings, top_ups, until};

/// What happens to a process that runs everything.
#[derive(Debug)]
pub(crate) struct Case {
    how: Cut,
    /// It is cut off for longer than its session.
    is_long: bool,
    /// Another one is started meanwhile under the same name.
    is_replaced: bool,
    /// It has something to commit when it is cut off.
    is_busy: bool,
    /// More than partitions: one of them has nothing to lose but its name.
    lanes: u32,
}

const LONG: Case = Case { how: Cut::Silent, is_long: true, is_replaced: false, is_busy: false, lanes: 1 };

pub(crate) const CASES: [Case; 5] = [
    Case { is_replaced: true, lanes: PARTITIONS + 1, ..LONG },
    Case { is_replaced: true, how: Cut::Broken, is_busy: true, ..LONG },
    Case { how: Cut::Broken, ..LONG },
    Case { is_busy: true, lanes: PARTITIONS + 1, ..LONG },
    Case { is_long: false, ..LONG },
];

/// How long it may take to settle again, with the group's decision and the restores.
const BACK_MAX: Duration = Duration::from_secs(10);

/// Which life of which lane has committed last, of each partition.
fn lives(log: &KafkaLog) -> BTreeMap<u32, (String, u64)> {
    let found = log.committed_positions().expect("positions").into_iter();
    found
        .filter_map(|(id, position)| position.map(|found| (id, (found.stamp.lane.to_string(), found.stamp.incarnation))))
        .collect()
}

/// Every command was carried out once, and told once.
pub(crate) async fn each_once(node: &Node, log: &KafkaLog, rounds: usize) {
    each_topped_up(node, rounds).await;
    let told = events(log);
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len(), "an event is told twice");
}

pub(crate) async fn who_is_cut_off_comes_back_or_ends(direct: &Cluster, proxied: &Cluster, wire: &Armed, case: &Case) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = created(direct);
    let of = |cluster: &Cluster, home: &str| Settings {
        node_id: "one".to_owned(),
        lanes: case.lanes,
        ..settings(cluster, dir.path(), home)
    };
    let one = Node::start(of(proxied, "one")).await.expect("a node");
    let mut rounds = 0;
    for round in 0..2 {
        one.publish(top_ups(round)).await.expect("published");
        at_rest(&[&one]).await;
        rounds = round;
    }
    let before = lives(&log);
    if case.is_busy {
        rounds += 1;
        one.publish(top_ups(rounds)).await.expect("published");
    }
    wire.cut(Some(case.how));
    let ended = goes_on(case, &one, &of(direct, "another"), &log, wire, rounds).await;
    let is_named = ended.as_ref().is_some_and(|cause| cause.contains("node.id"));
    assert_eq!(is_named, case.is_replaced, "{ended:?}");
    if ended.is_none() && !case.is_busy && case.lanes == 1 {
        assert_eq!(lives(&log), before, "its lane has lived all along");
    }
    assert!(one.stop().await || case.is_replaced);
}

/// What comes after the cut; why the one that was cut off has ended, if it has to.
async fn goes_on(case: &Case, one: &Node, other: &Settings, log: &KafkaLog, wire: &Armed, rounds: usize) -> Option<String> {
    let successor = if case.is_replaced { Some(Node::start(other.clone()).await.expect("a successor")) } else { None };
    let mut rounds = rounds;
    if let Some(successor) = &successor {
        rounds += 1;
        successor.publish(top_ups(rounds)).await.expect("published");
        at_rest(&[successor]).await;
    }
    if case.is_long {
        until("what it had is lost", async || running(one).is_empty()).await;
    } else {
        until("the brokers are missed", async || one.faults().iter().any(|(_, cause)| cause.contains("not answered"))).await;
        assert_eq!(running(one).len(), PARTITIONS as usize, "it has lost nothing yet");
    }
    let before = lives(log);
    let mended = Instant::now();
    wire.cut(None);
    let Some(successor) = successor else {
        rounds += 1;
        let nodes = [one];
        let comes_back = async {
            one.publish(top_ups(rounds)).await.expect("published");
            at_rest(&nodes).await;
        };
        tokio::select! {
            cause = one.ended() => return Some(cause),
            () = comes_back => {}
        }
        println!("        at rest again {:.1} s after", mended.elapsed().as_secs_f64());
        assert!(mended.elapsed() < BACK_MAX);
        each_once(one, log, rounds).await;
        return None;
    };
    let ended = tokio::select! {
        cause = one.ended() => cause,
        cause = successor.ended() => panic!("the successor ends: {cause}"),
        () = tokio::time::sleep(BACK_MAX) => panic!("nobody ends"),
    };
    println!("        ended {:.1} s after", mended.elapsed().as_secs_f64());
    for _ in 0..2 {
        rounds += 1;
        successor.publish(top_ups(rounds)).await.expect("published");
        let rested = [&successor];
        tokio::select! {
            () = at_rest(&rested) => {}
            cause = successor.ended() => panic!("the successor ends: {cause}"),
        }
    }
    each_once(&successor, log, rounds).await;
    assert_eq!(lives(log), before, "the lanes of the successor have lived all along");
    assert!(successor.stop().await);
    Some(ended)
}

/// The lane is busy while it loses everything and is given it anew, and hears of both at once.
pub(crate) async fn a_loss_that_is_over_is_learned_of(cluster: &Cluster, wire: &Armed) {
    const BUSY: u32 = 1;
    let dir = tempfile::tempdir().expect("a directory");
    let log = created(cluster);
    let node = Node::start(settings(cluster, dir.path(), "only")).await.expect("a node");
    for round in 0..2 {
        node.publish(top_ups(round)).await.expect("published");
        at_rest(&[&node]).await;
    }
    let before = lives(&log);
    let answers = || (0..PARTITIONS).all(|id| node.wallets(id, None, 1).is_ok());
    until("it answers", async || answers()).await;
    let (hang, joins) = (node.hang_partition(BUSY).await, wire.joins());
    node.publish(top_ups(2)).await.expect("published");
    wire.expel_next();
    until("it has lost its place", async || !answers()).await;
    until("it has its place again", async || joins < wire.joins() && answers()).await;
    drop(hang);
    at_rest(&[&node]).await;
    node.publish(top_ups(3)).await.expect("published");
    at_rest(&[&node]).await;
    each_once(&node, &log, 3).await;
    assert_eq!(lives(&log), before, "the lane has lived all along");
    assert!(node.stop().await);
}
