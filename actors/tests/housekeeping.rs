//! What a node does beside its epochs: snapshots, retention, the sweep of old records, and standing still while its clock is wrong.
//! Time is the test's: what is due is due when the test says so.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use finflow_actors::log::embedded::EmbeddedLog;
use finflow_actors::{Housekeeping, Node, Publish, Settings, SnapshotPlace};
use finflow_ledger::{IdempotencyKey, Payment, Tenant, WalletId};
use finflow_topologies::Topic;
use finflow_topologies::log::{Error, Log, Outgoing};
use finflow_topologies::topics::{partition_of_wallet, payment_id};

use self::commands::{command, open, top_up};
use self::engine::{DEADLINE, until};
use self::time::Time;

#[path = "support/commands.rs"]
mod commands;
#[path = "support/engine.rs"]
mod engine;
#[path = "support/time.rs"]
mod time;

const PARTITIONS: u32 = 3;
/// The partition that some tests halt.
const HALTED: u32 = 2;
const DAY_MS: i64 = 86_400_000;
const INTERVAL_MS: i64 = 600_000;

fn settings(dir: &Path, time: &Time) -> Settings {
    Settings {
        partitions: PARTITIONS,
        lanes: 1,
        dedup_retention: Duration::from_millis(10 * DAY_MS as u64),
        housekeeping: Housekeeping {
            snapshots: SnapshotPlace::BesideData,
            snapshot_interval: Duration::from_millis(INTERVAL_MS as u64),
            sweep_interval: Duration::from_millis(DAY_MS as u64),
            retention: Some(Duration::from_millis(7 * DAY_MS as u64)),
            dlq_retention: Some(Duration::from_millis(7 * DAY_MS as u64)),
            ..Housekeeping::default()
        },
        clock: time.clock(),
        ..engine::settings(dir)
    }
}

/// The first wallets that live in a partition.
fn wallets(partition: u32, count: usize) -> Vec<String> {
    let all = (0..).map(|n| format!("w{n}"));
    all.filter(|name| partition_of_wallet(&WalletId::parse(name).expect("an id"), PARTITIONS) == partition).take(count).collect()
}

fn opening(wallets: &[String]) -> Vec<Publish> {
    wallets.iter().flat_map(|wallet| [open(wallet), top_up(wallet, "top", "10")]).collect()
}

fn transfer(from: &str, key: &str, to: &str) -> Publish {
    commands::transfer(from, key, to, "1")
}

async fn publish(node: &Node, records: Vec<Publish>) {
    node.publish(records).await.expect("a log");
    assert!(node.idle(DEADLINE).await && node.stored(DEADLINE).await, "{:?}", node.status());
}

fn payment(node: &Node, wallet: &str, key: &str) -> Option<Payment> {
    let tenant = Tenant::parse("acme").expect("a tenant");
    let (wallet, key) = (WalletId::parse(wallet).expect("an id"), IdempotencyKey::parse(key).expect("a key"));
    node.payment(payment_id(&tenant, &wallet, &key)).expect("readable")
}

fn events(node: &Node) -> Vec<String> {
    engine::events(node).iter().map(|event| String::from_utf8_lossy(event).into_owned()).collect()
}

/// Lets a partition halt as soon as it runs: a posting that cannot be read.
fn poison(dir: &Path) {
    let log = EmbeddedLog::open(&dir.join("log"), PARTITIONS).expect("a log");
    let garbage = Outgoing { key: None, value: Some(Bytes::from_static(b"garbage")), ..Outgoing::default() };
    log.append(Topic::Postings, HALTED, vec![garbage]).expect("a log");
}

fn blocks(node: &Node) -> Vec<u64> {
    node.status().iter().map(|status| status.block).collect()
}

fn newest(node: &Node) -> Vec<u64> {
    node.newest_snapshots().expect("a directory").into_values().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_taken_when_they_are_due_and_at_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let time = Time::default();
    let node = Node::start(settings(dir.path(), &time)).await.expect("a node");
    let here = wallets(0, 4);
    publish(&node, opening(&here)).await;
    assert!(newest(&node).is_empty(), "none is due yet");
    time.pass(INTERVAL_MS);
    until(&node, "the first snapshot", || newest(&node) == [blocks(&node)[0]]).await;
    for round in 0..3 {
        publish(&node, vec![transfer(&here[0], &format!("t-{round}"), &here[1])]).await;
        time.pass(INTERVAL_MS);
        until(&node, "the next snapshot", || newest(&node) == [blocks(&node)[0]]).await;
    }
    for checked in node.check(true).await {
        assert_eq!(checked.differences, Vec::<String>::new());
        assert_eq!(checked.snapshots.map(|kept| kept.len()), Some(if checked.partition == 0 { 2 } else { 0 }));
    }
    publish(&node, vec![transfer(&here[0], "last", &here[1])]).await;
    let before = newest(&node);
    node.stop().await;
    assert_eq!(newest(&node), before, "the last one is young");
    drop(node);

    let node = Node::start(settings(dir.path(), &time)).await.expect("a node");
    // By the wall clock alone, so that it is not the schedule that takes it.
    time.jump(2 * INTERVAL_MS);
    node.stop().await;
    assert_eq!(newest(&node), [blocks(&node)[0]], "the last one was old");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_fails_stops_nothing_and_is_taken_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let (time, blocked) = (Time::default(), dir.path().join("blocked"));
    std::fs::write(&blocked, "no directory").expect("a file");
    let mut settings = settings(&dir.path().join("data"), &time);
    settings.housekeeping.snapshots = SnapshotPlace::Directory(blocked.clone());
    let node = Node::start(settings).await.expect("a node");
    let here = wallets(0, 2);
    publish(&node, opening(&here)).await;
    assert!(node.snapshot().await.is_err());
    time.pass(INTERVAL_MS);
    publish(&node, vec![transfer(&here[0], "t", &here[1])]).await;
    std::fs::remove_file(&blocked).expect("a file");
    time.pass(INTERVAL_MS);
    until(&node, "the next snapshot", || newest(&node) == [blocks(&node)[0]]).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_forgotten_when_their_retention_has_passed_and_never_before_they_have_ended() {
    let dir = tempfile::tempdir().expect("a directory");
    let time = Time::default();
    // All events are to be counted, so none is trimmed.
    let mut settings = settings(dir.path(), &time);
    settings.housekeeping.retention = None;
    let (here, there) = (wallets(0, 4), wallets(HALTED, 1));
    let node = Node::start(settings.clone()).await.expect("a node");
    publish(&node, opening(&[here.clone(), there.clone()].concat())).await;
    node.stop().await;
    drop(node);
    poison(dir.path());
    let node = Node::start(settings.clone()).await.expect("a node");
    until(&node, "the halt", || node.status()[HALTED as usize].cause.is_some()).await;
    let done = transfer(&here[0], "done", &here[1]);
    let rejected = transfer(&here[0], "rejected", "nobody-at-all");
    publish(&node, vec![done.clone(), rejected, transfer(&here[0], "waits", &there[0])]).await;
    assert_eq!(payment(&node, &here[0], "waits").map(|payment| payment.state.is_terminal()), Some(false));
    let all = |node: &Node| {
        let opened = here.iter().flat_map(|wallet| [(wallet.as_str(), "open"), (wallet.as_str(), "top")]);
        opened.chain([(here[0].as_str(), "done")]).filter(|(wallet, key)| payment(node, wallet, key).is_some()).count()
    };
    // In between the timers may remind of what waits.
    let answers = |node: &Node| events(node).iter().filter(|event| !event.contains("payment.requires_attention")).count();
    let (told, records) = (answers(&node), all(&node));
    assert_eq!(records, 9);

    time.pass(9 * DAY_MS);
    publish(&node, opening(&here)).await;
    publish(&node, vec![done.clone()]).await;
    assert_eq!((answers(&node), all(&node)), (told, records), "a younger duplicate is answered from its record");
    assert_eq!(payment(&node, &here[0], "done").map(|payment| payment.state.is_terminal()), Some(true));

    time.pass(2 * DAY_MS);
    until(&node, "the sweep", || all(&node) == 0).await;
    assert_eq!(payment(&node, &here[0], "waits").map(|payment| payment.state.is_terminal()), Some(false), "it has not ended");
    let before = node.wallet(&WalletId::parse(&here[0]).expect("an id")).expect("readable").map(|wallet| wallet.available());

    // Their time in the log is eleven days ago by the engine's clock.
    publish(&node, opening(&here)).await;
    publish(&node, vec![done, transfer(&here[0], "waits", &there[0])]).await;
    assert_eq!(all(&node), 0, "a refusal leaves no record");
    let after = node.wallet(&WalletId::parse(&here[0]).expect("an id")).expect("readable").map(|wallet| wallet.available());
    assert_eq!(before, after, "nothing is executed twice");
    let expired = events(&node)
        .iter()
        .filter(|event| event.contains("command.rejected") && event.contains(r#""reason":"expired""#))
        .count();
    assert_eq!(expired, records);
    node.stop().await;
    drop(node);

    // The journal tells the same: the removals are in its blocks.
    let node = Node::open(settings.clone()).expect("a node");
    let digest = node.digest(0).expect("readable");
    drop(node);
    std::fs::remove_dir_all(dir.path().join("state/0")).expect("a directory");
    let node = Node::open(settings.clone()).expect("a node");
    assert_eq!(node.digest(0).expect("readable"), digest);
    assert_eq!(node.check(false).await[0].differences, Vec::<String>::new());
}

/// What waits in the partition of a halt, or of another process, comes home with the time at which it was sent.
#[tokio::test(flavor = "multi_thread")]
async fn no_record_is_forgotten_while_a_command_waits_anywhere() {
    for (has_waited, is_kept) in [(true, true), (false, false)] {
        let dir = tempfile::tempdir().expect("a directory");
        let time = Time::default();
        let mut settings = settings(dir.path(), &time);
        settings.housekeeping.retention = None;
        let here = wallets(0, 2);
        let node = Node::start(settings.clone()).await.expect("a node");
        publish(&node, opening(&here)).await;
        let done = transfer(&here[0], "done", &here[1]);
        publish(&node, vec![done.clone()]).await;
        node.stop().await;
        drop(node);
        poison(dir.path());
        let node = Node::start(settings).await.expect("a node");
        until(&node, "the halt", || node.status()[HALTED as usize].cause.is_some()).await;
        if has_waited {
            // Sent once more, to a partition that is not its home's.
            node.publish(vec![Publish { partition: Some(HALTED), ..done }]).await.expect("a log");
        }
        time.pass(11 * DAY_MS);
        // A step that takes a snapshot sweeps as well: after so many, every partition has had its turn.
        for round in 0..2 * PARTITIONS {
            publish(&node, vec![transfer(&here[0], &format!("t-{round}"), &here[1])]).await;
            // What is swept meanwhile moves the partition once more.
            let is_taken = || {
                time.pass(INTERVAL_MS);
                newest(&node).first() == Some(&blocks(&node)[0])
            };
            until(&node, "the next snapshot", is_taken).await;
        }
        if !is_kept {
            until(&node, "the sweep", || payment(&node, &here[0], "done").is_none()).await;
        }
        assert_eq!(payment(&node, &here[0], "done").is_some(), is_kept, "a command waits: {has_waited}");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_trimmed_by_age_and_never_above_what_is_applied() {
    for retention in [Some(Duration::from_millis(7 * DAY_MS as u64)), None] {
        let dir = tempfile::tempdir().expect("a directory");
        let time = Time::default();
        let mut settings = settings(dir.path(), &time);
        settings.housekeeping.retention = retention;
        settings.lanes = 3;
        let (here, there) = (wallets(0, 4), wallets(HALTED, 4));
        let node = Node::start(settings.clone()).await.expect("a node");
        publish(&node, opening(&[here.clone(), there.clone()].concat())).await;
        publish(&node, vec![transfer(&here[0], "t", &there[0]), command("x", "poison", "")]).await;
        node.stop().await;
        drop(node);
        poison(dir.path());
        let node = Node::start(settings).await.expect("a node");
        until(&node, "the halt", || node.status()[HALTED as usize].cause.is_some()).await;
        let consumed = node.range(Topic::Commands, HALTED).expect("a log").end;
        publish(&node, vec![transfer(&there[0], "later", &here[0])]).await;
        let range = |topic, partition| node.range(topic, partition).expect("a log");
        let postings = range(Topic::Postings, 0).end;
        assert!(0 < postings, "two lanes talk through the log");

        let start = |topic, partition| {
            time.pass(60_000);
            range(topic, partition).start
        };
        until(&node, "postings are trimmed", || start(Topic::Postings, 0) == postings).await;
        assert_eq!(range(Topic::Commands, 0).start, 0, "they are young");
        time.pass(8 * DAY_MS);
        let Some(_) = retention else {
            // The next look at the log has come and gone when postings are trimmed once more.
            publish(&node, vec![transfer(&here[0], "again", &wallets(1, 1)[0])]).await;
            let end = range(Topic::Postings, 0).end;
            until(&node, "postings are trimmed", || start(Topic::Postings, 0) == end).await;
            assert_eq!((range(Topic::Commands, 0).start, range(Topic::Events, 0).start), (0, 0), "everything is kept");
            continue;
        };
        for (topic, partition, expected) in [
            (Topic::Commands, 0, range(Topic::Commands, 0).end),
            (Topic::Events, 0, range(Topic::Events, 0).end),
            (Topic::Events, HALTED, range(Topic::Events, HALTED).end),
            (Topic::Commands, HALTED, consumed),
        ] {
            until(&node, "age", || start(topic, partition) == expected).await;
            assert!(matches!(node.fetch(topic, partition, 0, 1), Err(Error::OutOfRange { .. })), "{topic} {partition}");
        }
        let is_empty = |partition| start(Topic::Dlq, partition) == range(Topic::Dlq, partition).end;
        until(&node, "dead letters", || (0..PARTITIONS).all(is_empty)).await;
        assert_eq!((range(Topic::Commands, HALTED).end, range(Topic::Journal, 0).start), (consumed + 1, 0), "not consumed; kept");
        // What is left is enough: everything goes on, now and after a restart.
        publish(&node, vec![transfer(&here[0], "on", &here[1])]).await;
        node.stop().await;
        drop(node);
        let node = Node::start(self::settings(dir.path(), &time)).await.expect("a node");
        assert!(payment(&node, &here[0], "on").is_some());
        publish(&node, vec![transfer(&here[0], "on-and-on", &here[1])]).await;
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leg_in_transit_is_seen_while_its_own_partition_is_halted_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let time = Time::default();
    let (here, there) = (wallets(0, 1), wallets(HALTED, 1));
    let node = Node::start(settings(dir.path(), &time)).await.expect("a node");
    publish(&node, opening(&[here.clone(), there.clone()].concat())).await;
    node.stop().await;
    drop(node);
    poison(dir.path());
    let node = Node::start(settings(dir.path(), &time)).await.expect("a node");
    until(&node, "the halt", || node.status()[HALTED as usize].cause.is_some()).await;
    publish(&node, vec![transfer(&here[0], "leg", &there[0])]).await;
    assert_eq!(payment(&node, &here[0], "leg").map(|payment| payment.state.is_terminal()), Some(false));
    until(&node, "the other halt", || {
        node.kill_partition(0);
        node.status()[0].cause.is_some()
    })
    .await;
    // What was seen before is younger.
    time.pass(120_000);
    let oldest_ms = || node.status()[0].watched.leg_oldest_ms;
    until(&node, "the leg", || oldest_ms().is_some_and(|oldest_ms| 120_000 <= oldest_ms)).await;
    assert!(node.warnings().contains_key("leg 0"), "{:?}", node.warnings());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_dying_beside_the_lanes_is_given_up_and_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let time = Time::default();
    let node = Node::start(settings(dir.path(), &time)).await.expect("a node");
    let here = wallets(0, 4);
    publish(&node, opening(&here)).await;
    assert_eq!(node.faults(), vec![]);
    node.kill_beside();
    time.pass(INTERVAL_MS);
    // Intervals begin anew with the one that takes its place.
    until(&node, "a snapshot all the same", || {
        time.pass(INTERVAL_MS);
        newest(&node) == [blocks(&node)[0]]
    })
    .await;
    until(&node, "all are given up", || {
        node.kill_beside();
        node.faults().len() == 3
    })
    .await;
    let told = node.faults().into_iter().map(|(what, cause)| format!("{what} {cause}")).collect::<Vec<_>>().join("; ");
    for (kind, left) in
        [("housekeeper", "no retention, no sweep, no lookout"), ("snapshots", "no snapshots"), ("timers", "nothing")]
    {
        assert!(told.contains(&format!("{kind} keeps dying and is given up: {left}")), "{told}");
    }
    publish(&node, vec![transfer(&here[0], "t", &here[1])]).await;
    assert!(node.stop().await, "payments go on, and it stops as ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_epoch_begins_while_the_wall_clock_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let time = Time::default();
    let node = Node::start(settings(dir.path(), &time)).await.expect("a node");
    let here = wallets(0, 2);
    publish(&node, opening(&here)).await;
    let before = blocks(&node);
    for jump in [6_000, -6_000] {
        time.jump(jump);
        assert!(node.clock_cause().is_some_and(|cause| cause.contains("jumped")), "{jump}");
        node.publish(vec![transfer(&here[0], &format!("jump{jump}"), &here[1])]).await.expect("a log");
        assert!(!node.idle(Duration::from_millis(300)).await, "it is not consumed");
        time.jump(-jump);
        assert!(node.idle(DEADLINE).await, "{:?}", node.status());
        assert_eq!(node.clock_cause(), None);
        assert!(payment(&node, &here[0], &format!("jump{jump}")).is_some());
    }
    assert!(before[0] < blocks(&node)[0]);
    // A drain ends although nothing more may be decided.
    time.jump(6_000);
    node.publish(vec![transfer(&here[0], "late", &here[1])]).await.expect("a log");
    node.stop().await;
    drop(node);
    time.jump(-6_000);
    let node = Node::start(settings(dir.path(), &time)).await.expect("a node");
    assert!(node.idle(DEADLINE).await && payment(&node, &here[0], "late").is_some());
    node.stop().await;
}
