//! A transfer whose receiver's partition stands still says so when its time has come, whatever happens to its own partition meanwhile.

use std::path::Path;

use finflow_actors::{Node, Settings, discard};
use finflow_ledger::{IdempotencyKey, PaymentState, Tenant, WalletId};
use finflow_topologies::topics::{partition_of_wallet, payment_id};

use self::commands::{open, top_up, transfer};
use self::engine::{DEADLINE, until};
use self::time::Time;

#[path = "support/commands.rs"]
mod commands;
#[path = "support/engine.rs"]
mod engine;
#[path = "support/time.rs"]
mod time;

const PARTITIONS: u32 = 2;
const AFTER_MS: i64 = 60_000;

fn settings(dir: &Path, time: &Time) -> Settings {
    Settings { partitions: PARTITIONS, clock: time.clock(), ..engine::settings(dir) }
}

fn wallet(partition: u32) -> String {
    let of = |name: &String| partition_of_wallet(&WalletId::parse(name).expect("an id"), PARTITIONS) == partition;
    (0..).map(|n| format!("w{n}")).find(of).expect("a wallet of the partition")
}

fn state(node: &Node, key: &str) -> Option<PaymentState> {
    let tenant = Tenant::parse("acme").expect("a tenant");
    let (wallet, key) = (WalletId::parse(&wallet(0)).expect("an id"), IdempotencyKey::parse(key).expect("a key"));
    node.payment(payment_id(&tenant, &wallet, &key)).expect("readable").map(|payment| payment.state)
}

/// Events that say a payment requires attention.
fn reminders(node: &Node) -> usize {
    let is_one = |event: &bytes::Bytes| event.starts_with(br#"{"event":"payment.requires_attention""#);
    engine::events(node).iter().filter(|event| is_one(event)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_partition_that_stands_still_says_so_and_ends_when_it_is_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let time = Time::default();
    let settings = settings(dir.path(), &time);
    let (from, to) = (wallet(0), wallet(1));
    let node = Node::start(settings.clone()).await.expect("a node");
    node.publish(vec![open(&from), open(&to), top_up(&from, "top", "10")]).await.expect("a log");
    assert!(node.idle(DEADLINE).await, "{:?}", node.status());
    node.stop().await;
    drop(node);

    // The receiver's partition finds the rows of another one in its place.
    let state_of = |partition: u32| dir.path().join("state").join(partition.to_string());
    std::fs::rename(state_of(1), dir.path().join("kept")).expect("a directory");
    engine::copy(&state_of(0), &state_of(1));
    let node = Node::start(settings.clone()).await.expect("a node");
    until(&node, "the halt", || node.status()[1].cause.is_some()).await;
    node.publish(vec![transfer(&from, "first", &to, "1")]).await.expect("a log");
    until(&node, "the hold", || state(&node, "first") == Some(PaymentState::Reserved)).await;
    time.pass(AFTER_MS - 5_000);
    node.publish(vec![transfer(&from, "second", &to, "1")]).await.expect("a log");
    until(&node, "the hold", || state(&node, "second") == Some(PaymentState::Reserved)).await;
    assert_eq!(reminders(&node), 0, "nothing is due yet");
    time.pass(6_000);
    until(&node, "the first", || state(&node, "first") == Some(PaymentState::RequiresAttention)).await;
    assert_eq!((state(&node, "second"), reminders(&node)), (Some(PaymentState::Reserved), 1));
    node.stop().await;
    drop(node);

    // What becomes due while nothing runs is told after the next start.
    time.pass(AFTER_MS);
    let node = Node::start(settings.clone()).await.expect("a node");
    until(&node, "the second", || state(&node, "second") == Some(PaymentState::RequiresAttention)).await;
    node.stop().await;
    drop(node);

    discard(&settings, 1).expect("a directory");
    let node = Node::start(settings).await.expect("a node");
    for key in ["first", "second"] {
        until(&node, key, || state(&node, key) == Some(PaymentState::Settled)).await;
    }
    assert!(node.idle(DEADLINE).await && node.stored(DEADLINE).await, "{:?}", node.status());
    assert_eq!(reminders(&node), 2, "each has said so once");
    let events = engine::events(&node);
    assert_eq!(finflow_topologies::simulation::audit(events.iter().map(|event| &**event)).faults, vec![]);
    for checked in node.check(false).await {
        assert_eq!(checked.differences, Vec::<String>::new());
    }
    node.stop().await;
}
