//! Snapshots in a bucket, of a server that speaks S3: what every place has to do, what the network adds to it, and a node that comes
//! back from there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use finflow_actors::log::embedded::EmbeddedLog;
use finflow_actors::{Bucket, BucketSettings, Credentials, Housekeeping, Node, Settings, SnapshotPlace, readiness};
use finflow_state::snapshot::{Error, Objects};
use finflow_topologies::Topic;
use finflow_topologies::log::Log;

use super::engine::{DEADLINE, until};
use super::places::{CASES, Place};
use super::s3::{SECRET, Server};
use super::{HIT, PARTITIONS, commands, settings, status};

#[test]
fn a_bucket_is_a_place_for_snapshots() {
    let (server, count) = (Server::start(), AtomicUsize::new(0));
    let make = |_: &Path| {
        let (settings, root) = server.bucket(&format!("bucket-{}", count.fetch_add(1, Ordering::Relaxed)));
        Place { objects: Arc::new(Bucket::new(&settings).expect("a client")), root }
    };
    for (what, case) in CASES {
        eprintln!("{what}");
        case(&make);
    }
}

#[test]
fn what_is_refused_for_a_moment_is_tried_again_and_what_stays_away_is_told() {
    let mut server = Server::start();
    let (settings, _) = server.bucket("bucket");
    let bucket = Bucket::new(&settings).expect("a client");
    server.refuse(3);
    assert_eq!(bucket.create("g/1/a.json", b"x"), Ok(true));
    assert_eq!(server.asked(), 4);
    server.refuse(usize::MAX);
    let before = server.asked();
    assert!(matches!(bucket.list("g"), Err(Error::Io(..))));
    assert_eq!(server.asked() - before, 5, "once, and four times again");
    server.refuse(0);
    for (settings, expected) in [
        (server.settings("bucket", "another secret"), "SignatureDoesNotMatch"),
        (server.settings("no-such-bucket", SECRET), "NoSuchBucket"),
    ] {
        let bucket = Bucket::new(&settings).expect("a client");
        let told = format!("{:?} {bucket:?} {settings:?}", bucket.list(""));
        assert!(told.contains(expected) && !told.contains("Ok("), "{told}");
        assert!(!told.contains(SECRET) && !told.contains("another secret"), "{told}");
    }
    server.stop();
    let told = bucket.list("g").expect_err("nobody is there").to_string();
    assert!(told.contains("s3://bucket/pre/fix") && !told.contains(SECRET), "{told}");
}

#[test]
fn who_asks_is_given_whole_or_not_at_all() {
    let of = |set: &[(&str, &str)]| {
        let set: BTreeMap<String, String> = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Credentials::of_environment(|name| set.get(name).cloned())
    };
    let (id, secret) = (("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret"));
    assert_eq!(of(&[id, secret]), Some(Credentials::key("id", "secret")));
    for none in [&[][..], &[id], &[secret], &[id, ("AWS_SECRET_ACCESS_KEY", "")], &[("AWS_SESSION_TOKEN", "t")]] {
        assert_eq!(of(none), None, "{none:?}");
    }
    let token = ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token");
    assert_eq!(of(&[token]), None);
    for some in [&[token, ("AWS_ROLE_ARN", "arn")][..], &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x")]] {
        let credentials = of(some).expect("an identity");
        let bucket = BucketSettings {
            name: "bucket".to_owned(),
            prefix: String::new(),
            region: "eu-west-1".to_owned(),
            endpoint: None,
            credentials,
        };
        assert!(Bucket::new(&bucket).is_ok(), "{some:?}");
    }
}

fn in_bucket(dir: &Path, bucket: &BucketSettings) -> Settings {
    let housekeeping = Housekeeping { snapshots: SnapshotPlace::Bucket(bucket.clone()), ..settings(dir).housekeeping };
    Settings { housekeeping, ..settings(dir) }
}

async fn publish(node: &Node, round: usize) {
    node.publish(commands(round)).await.expect("a log");
    assert!(node.idle(DEADLINE).await, "{:?}", node.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_lost_its_state_comes_back_from_a_bucket() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("a directory"));
    let (bucket, root) = server.bucket("bucket");
    let settings = in_bucket(&dir.path().join("data"), &bucket);
    let node = Node::start(settings.clone()).await.expect("a node");
    let mut blocks = Vec::new();
    for round in 0..2 {
        publish(&node, round).await;
        blocks.push(node.snapshot().await.expect("a snapshot")[&HIT]);
    }
    publish(&node, 2).await;
    for checked in node.check(true).await {
        assert_eq!((checked.differences, checked.snapshots.map(|read| read.len())), (vec![], Some(2)));
    }
    node.stop().await;
    let digests: Vec<_> = (0..PARTITIONS).map(|id| node.digest(id).expect("readable")).collect();
    drop(node);
    assert!(!dir.path().join("data/snapshots").exists());
    let [older, newer] = blocks[..] else { panic!("two snapshots") };
    for (what, expected) in [("nothing", newer), ("a file of the newest", older), ("the server", 0)] {
        match what {
            "a file of the newest" => truncate_newest(&root),
            "the server" => server.refuse(usize::MAX),
            _ => {}
        }
        std::fs::remove_dir_all(dir.path().join("data/state")).expect("a directory");
        let node = Node::open(settings.clone()).expect("a node");
        let told = status(&node);
        assert_eq!((told.cause.clone(), told.block - told.replayed), (None, expected), "{what}: {told:?}");
        for (id, digest) in (0..).zip(&digests) {
            assert_eq!(node.digest(id).expect("readable"), *digest, "{what}: partition {id}");
        }
    }

    // Where the journal is not all there, the snapshots are waited for.
    let log = EmbeddedLog::open(&dir.path().join("data/log"), PARTITIONS).expect("a log");
    log.trim(Topic::Journal, HIT, older).expect("a log");
    drop(log);
    std::fs::remove_dir_all(dir.path().join("data/state")).expect("a directory");
    let node = Node::start(settings).await.expect("a node");
    let cause = status(&node).cause.expect("it is halted");
    assert!(cause.contains("and the snapshots cannot be read now: s3://bucket/pre/fix"), "{cause}");
    server.refuse(0);
    node.resume(HIT).expect("it is here");
    until(&node, "the restore", || status(&node).cause.is_none() && status(&node).restored_from == "snapshot").await;
    assert!(node.idle(DEADLINE).await);
    assert_eq!(node.digest(HIT).expect("readable"), digests[HIT as usize]);
    node.stop().await;
}

/// Damages the files that only the newest snapshot of the partition names.
fn truncate_newest(root: &Path) {
    let mut manifests: Vec<_> = Vec::new();
    for generation in std::fs::read_dir(root).expect("a directory").flatten() {
        let partition = generation.path().join(HIT.to_string());
        manifests.extend(std::fs::read_dir(partition).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    manifests.sort();
    let texts: Vec<String> = manifests.iter().map(|path| std::fs::read_to_string(path).expect("a manifest")).collect();
    let [older, newer] = &texts[..] else { panic!("two snapshots: {manifests:?}") };
    let mut damaged = 0;
    for file in std::fs::read_dir(root.join("files")).expect("a directory").flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if newer.contains(&name) && !older.contains(&name) {
            std::fs::write(file.path(), b"x").expect("a file");
            damaged += 1;
        }
    }
    assert!(0 < damaged);
}

#[test]
fn a_check_tells_whether_the_bucket_can_be_used() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("a directory"));
    let (bucket, root) = server.bucket("bucket");
    for (settings, expected) in [
        (bucket, "Well(\"s3://bucket/pre/fix can be listed and written\")"),
        (server.settings("bucket", "another secret"), "SignatureDoesNotMatch"),
        (server.settings("no-such-bucket", SECRET), "NoSuchBucket"),
    ] {
        let found = readiness::machine(&in_bucket(dir.path(), &settings));
        let told = format!("{:?}", found.iter().find(|finding| finding.what == "snapshot bucket"));
        assert!(told.contains(expected) && !told.contains(SECRET), "{told}");
    }
    let left = std::fs::read_dir(root.join("files")).map_or(0, |entries| entries.count());
    assert_eq!(left, 0, "nothing is left behind");
    assert!(server.root().join("bucket").exists());
}
