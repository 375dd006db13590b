//! What becomes of a partition whose state directory is lost, damaged, old or not its own: continued, built again to the same rows,
//! or halted with its evidence. Never served wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use finflow_actors::log::embedded::EmbeddedLog;
use finflow_actors::{Node, PartitionStatus, Publish, Settings, adopt};
use finflow_topologies::Topic;
use finflow_topologies::log::Log;
use sha2::{Digest, Sha256};

use self::engine::{DEADLINE, copy};
use self::orders::{open, top_up};

#[path = "snapshots/bucket.rs"]
mod bucket;
#[path = "support/engine.rs"]
mod engine;
#[path = "support/commands.rs"]
mod orders;
#[path = "../../state/tests/support/snapshots.rs"]
mod places;
#[path = "support/s3.rs"]
mod s3;

const PARTITIONS: u32 = 3;
/// The partition that things happen to.
const HIT: u32 = 1;
const WALLETS: usize = 150;

fn settings(dir: &Path) -> Settings {
    Settings { partitions: PARTITIONS, lanes: 1, ..engine::settings(dir) }
}

/// Opens the wallets and brings them money, `round` times over.
fn commands(round: usize) -> Vec<Publish> {
    let names = (0..WALLETS).map(|n| format!("w{n}"));
    names.flat_map(|name| [open(&name), top_up(&name, &format!("top-{round}"), "10")]).collect()
}

async fn run(dir: &Path, rounds: std::ops::Range<usize>) -> Node {
    let node = Node::start(settings(dir)).await.expect("a node");
    for round in rounds {
        node.publish(commands(round)).await.expect("a log");
        assert!(node.idle(DEADLINE).await, "{:?}", node.status());
    }
    node
}

/// A directory with two snapshots and blocks behind them, an early copy of it, and a copy of another application's.
struct Base {
    dir: tempfile::TempDir,
    digests: BTreeMap<u32, [u8; 32]>,
    /// The blocks of the hit partition: at the early copy, in the older snapshot, in the newer one, at the end.
    early: u64,
    older: u64,
    newer: u64,
    last: u64,
}

impl Base {
    async fn new() -> Base {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let node = run(&data, 0..2).await;
        node.stop().await;
        let early = status(&node).block;
        drop(node);
        copy(&data, &dir.path().join("early"));
        let node = run(&data, 2..4).await;
        let older = node.snapshot().await.expect("a snapshot")[&HIT];
        node.publish(commands(4)).await.expect("a log");
        assert!(node.idle(DEADLINE).await);
        let newer = node.snapshot().await.expect("a snapshot")[&HIT];
        node.publish(commands(5)).await.expect("a log");
        assert!(node.idle(DEADLINE).await);
        node.stop().await;
        let digests = (0..PARTITIONS).map(|id| (id, node.digest(id).expect("readable"))).collect();
        let last = status(&node).block;
        assert!(early < older && older < newer && newer < last, "{early} {older} {newer} {last}");
        drop(node);
        let node = run(&dir.path().join("other"), 0..1).await;
        node.stop().await;
        Base { dir, digests, early, older, newer, last }
    }

    /// Does something to a copy of the data, opens it, and compares what the hit partition came from, the blocks replayed on it,
    /// its rows, and what was moved aside. `expected` is `source from block | what was moved aside`, or `halted: cause`.
    async fn check(&self, what: &str, hit: impl FnOnce(&Path, &Path), expected: &str) {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        copy(&self.dir.path().join("data"), &data);
        hit(&data, &data.join("state").join(HIT.to_string()));
        let before = listing(&data.join("state"));
        let node = Node::open(settings(&data)).expect("a node");
        let told = status(&node);
        if let Some(cause) = &told.cause {
            let halted = format!("halted: {cause}");
            assert!(halted.starts_with(expected), "{what}: {halted}, not {expected}");
            assert!(node.digest(HIT).is_err(), "{what}: nothing of it is served");
            let checked = node.check(false).await;
            assert!(checked.iter().any(|found| found.partition == HIT && !found.differences.is_empty()), "{what}");
            drop(node);
            assert_eq!(listing(&data.join("state")), before, "{what}: the evidence stays");
            return;
        }
        let from = match told.restored_from.as_str() {
            _ if told.block != self.last => "another block",
            "directory" if told.replayed == 0 => "the end",
            "directory" if told.replayed == self.last - self.early => "early",
            "snapshot" if told.replayed == self.last - self.newer => "newer",
            "snapshot" if told.replayed == self.last - self.older => "older",
            "journal" if told.replayed == self.last => "0",
            _ => "somewhere",
        };
        let aside: Vec<String> = listing(&data.join("state"))
            .into_iter()
            .filter_map(|name| Some(name.strip_prefix(&format!("{HIT}."))?.split('-').next()?.to_owned()))
            .collect();
        let found = format!("{} from {from} | {}", told.restored_from, aside.join(" "));
        assert_eq!(found.trim_end_matches(" | "), expected, "{what}: {told:?}");
        for (id, digest) in &self.digests {
            assert_eq!(node.digest(*id).expect("readable"), *digest, "{what}: partition {id}");
        }
        for checked in node.check(false).await {
            assert_eq!(checked.differences, Vec::<String>::new(), "{what}");
        }
        drop(node);
        assert_eq!(listing(&data.join("tmp")), Vec::<String>::new(), "{what}: no copy is left");
        // What was built is a directory like any other.
        let node = Node::open(settings(&data)).expect("a node");
        assert_eq!(status(&node).cause, None, "{what}");
        assert_eq!(node.digest(HIT).expect("readable"), self.digests[&HIT], "{what}");
    }
}

fn status(node: &Node) -> PartitionStatus {
    node.status().into_iter().find(|status| status.partition == HIT).expect("a partition")
}

async fn until_halted(node: &Node) {
    let begun = Instant::now();
    while status(node).cause.is_none() {
        assert!(begun.elapsed() < DEADLINE, "the partition is not halted");
        node.changed(Duration::from_millis(10)).await;
    }
}

/// Flips a bit of a payment in the store: the middle of its largest file, as the head and the wallets stand before.
fn rot_store(data: &Path) {
    let rows = files(&data.join("state").join(HIT.to_string()), ".sst");
    let largest = rows.iter().max_by_key(|path| fs::metadata(path).expect("a file").len()).expect("rows");
    flip(largest, fs::metadata(largest).expect("a file").len() as usize / 2);
}

/// The names in a directory, sorted; none where there is no directory.
fn listing(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn files(dir: &Path, part: &str) -> Vec<PathBuf> {
    let found: Vec<PathBuf> = listing(dir).iter().filter(|name| name.contains(part)).map(|name| dir.join(name)).collect();
    assert!(!found.is_empty(), "no {part} in {}", dir.display());
    found
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).expect("a file");
    fs::write(path, &bytes[..bytes.len() / 2]).expect("a file");
}

fn flip(path: &Path, place: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[place] ^= 4;
    // A new file: snapshots hold hard links to the old one.
    fs::remove_file(path).expect("a file");
    fs::write(path, bytes).expect("a file");
}

/// The manifests of the hit partition, the newest last.
fn manifests(data: &Path) -> Vec<PathBuf> {
    let snapshots = data.join("snapshots");
    let generation = listing(&snapshots).into_iter().find(|name| name != "files").expect("a generation");
    files(&snapshots.join(generation).join(HIT.to_string()), ".json")
}

/// The files that the newest manifest names and the one before does not.
fn newest_files(data: &Path) -> Vec<PathBuf> {
    let read = |path: &PathBuf| fs::read_to_string(path).expect("a manifest");
    let (older, newer) = (read(&manifests(data)[0]), read(&manifests(data)[1]));
    files(&data.join("snapshots/files"), "")
        .into_iter()
        .filter(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            newer.contains(&name) && !older.contains(&name)
        })
        .collect()
}

/// Lets the rows of the newest snapshot rot as if they had been rotten when they were hashed: every name is right.
fn rot(data: &Path) {
    let rows = newest_files(data).into_iter().max_by_key(|path| fs::metadata(path).expect("a file").len()).expect("rows");
    flip(&rows, fs::metadata(&rows).expect("a file").len() as usize / 3);
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let (before, after) = (name(&rows), sha256(&fs::read(&rows).expect("a file")));
    fs::rename(&rows, rows.with_file_name(&after)).expect("a file");
    let newest = &manifests(data)[1];
    let text = fs::read_to_string(newest).expect("a manifest");
    let inner = text.split_once(r#""manifest":"#).and_then(|(_, rest)| rest.strip_suffix('}')).expect("an envelope");
    let inner = inner.replace(&before, &after);
    let sealed = format!(r#"{{"sha256":"{}","manifest":{inner}}}"#, sha256(inner.as_bytes()));
    fs::write(newest, sealed).expect("a file");
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn remove(dir: &Path) {
    fs::remove_dir_all(dir).expect("a directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_damaged_directory_is_built_again_to_the_same_rows() {
    let base = Base::new().await;
    base.check("nothing happened", |_, _| {}, "directory from the end").await;
    base.check("the directory is gone", |_, own| remove(own), "snapshot from newer").await;
    base.check("it is empty", |_, own| (remove(own), fs::create_dir(own).expect("a directory")).1, "snapshot from newer").await;
    let no_snapshots = |data: &Path, own: &Path| {
        remove(own);
        remove(&data.join("snapshots"));
    };
    base.check("so are the snapshots", no_snapshots, "journal from 0").await;
    let no_newest = |data: &Path, own: &Path| (remove(own), fs::remove_file(&manifests(data)[1]).expect("a file")).1;
    base.check("and the newest snapshot", no_newest, "snapshot from older").await;
    base.check("its manifest is cut", |data, own| (remove(own), truncate(&manifests(data)[1])).1, "snapshot from older").await;
    base.check("its manifest changed", |data, own| (remove(own), flip(&manifests(data)[1], 40)).1, "snapshot from older").await;
    let file_cut = |data: &Path, own: &Path| (remove(own), newest_files(data).iter().for_each(|path| truncate(path))).1;
    base.check("its files are cut", file_cut, "snapshot from older").await;
    let file_gone = |data: &Path, own: &Path| (remove(own), fs::remove_file(&newest_files(data)[0]).expect("a file")).1;
    base.check("a file of it is gone", file_gone, "snapshot from older").await;
    base.check("its rows had rotted when it was taken", |data, own| (remove(own), rot(data)).1, "snapshot from older").await;
    let both_rotten = |data: &Path, own: &Path| {
        rot(data);
        fs::write(own.join("DAMAGED"), "a bit").expect("a file");
    };
    base.check("and the directory is damaged", both_rotten, "snapshot from older | damaged").await;
    let all_cut = |data: &Path, own: &Path| (remove(own), manifests(data).iter().for_each(|path| truncate(path))).1;
    base.check("no snapshot is whole", all_cut, "journal from 0").await;

    let damaged = "snapshot from newer | damaged";
    base.check("CURRENT is missing", |_, own| fs::remove_file(own.join("CURRENT")).expect("a file"), damaged).await;
    base.check("CURRENT is empty", |_, own| fs::write(own.join("CURRENT"), "").expect("a file"), damaged).await;
    base.check("a file of rows is cut", |_, own| files(own, ".sst").iter().for_each(|path| truncate(path)), damaged).await;
    base.check("a file of rows is gone", |_, own| fs::remove_file(&files(own, ".sst")[0]).expect("a file"), damaged).await;
    base.check("the MANIFEST changed", |_, own| files(own, "MANIFEST").iter().for_each(|path| flip(path, 40)), damaged).await;
    base.check(
        "the MANIFEST is gone",
        |_, own| files(own, "MANIFEST").iter().for_each(|path| fs::remove_file(path).expect("a file")),
        damaged,
    )
    .await;
    base.check("it was found corrupt", |_, own| fs::write(own.join("DAMAGED"), "a bit").expect("a file"), damaged).await;

    let early = |base: &Base| base.dir.path().join(format!("early/state/{HIT}"));
    base.check("it is an old copy", |_, own| (remove(own), copy(&early(&base), own)).1, "directory from early").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trimmed_journal_needs_a_snapshot_and_what_contradicts_the_log_halts() {
    let base = Base::new().await;
    let trim = |data: &Path| {
        let log = EmbeddedLog::open(&data.join("log"), PARTITIONS).expect("a log");
        log.trim(Topic::Journal, HIT, base.newer).expect("a log");
    };
    let early = |what: &str| base.dir.path().join(format!("early/{what}"));
    base.check("the journal is trimmed", |data, _| trim(data), "directory from the end").await;
    base.check("and the directory is gone", |data, own| (trim(data), remove(own)).1, "snapshot from newer").await;
    let outdated = |data: &Path, own: &Path| {
        trim(data);
        remove(own);
        copy(&early(&format!("state/{HIT}")), own);
    };
    base.check("and the directory is too old", outdated, "snapshot from newer | outdated").await;
    let lost = |data: &Path, own: &Path| {
        trim(data);
        remove(own);
        remove(&data.join("snapshots"));
    };
    let dir = tempfile::tempdir().expect("a directory");
    copy(&base.dir.path().join("data"), dir.path());
    lost(dir.path(), &dir.path().join(format!("state/{HIT}")));
    let node = Node::open(settings(dir.path())).expect("a node");
    let cause = status(&node).cause.expect("it is halted");
    let expected = format!("the journal begins at block {}, the store needs block 0, and no snapshot", base.newer);
    assert!(cause.starts_with(&expected), "{cause}");

    let swap = |data: &Path, own: &Path| {
        let (state, aside) = (data.join("state/0"), data.join("aside"));
        fs::rename(own, &aside).expect("a directory");
        fs::rename(&state, own).expect("a directory");
        fs::rename(&aside, &state).expect("a directory");
    };
    base.check("two directories are swapped", swap, "halted: the store holds block").await;
    let foreign = |_: &Path, own: &Path| {
        remove(own);
        copy(&base.dir.path().join(format!("other/state/{HIT}")), own);
    };
    base.check("it is another application's", foreign, "halted: the store is of generation").await;
    let ahead = |data: &Path, _: &Path| {
        remove(&data.join("log"));
        copy(&early("log"), &data.join("log"));
    };
    base.check("the log went back", ahead, "halted: the store holds block").await;
    let log_behind_snapshot = |data: &Path, own: &Path| {
        ahead(data, own);
        remove(own);
        copy(&early(&format!("state/{HIT}")), own);
        fs::remove_file(own.join("CURRENT")).expect("a file");
    };
    let dir = tempfile::tempdir().expect("a directory");
    copy(&base.dir.path().join("data"), dir.path());
    log_behind_snapshot(dir.path(), &dir.path().join(format!("state/{HIT}")));
    let node = Node::open(settings(dir.path())).expect("a node");
    let cause = status(&node).cause.expect("it is halted");
    assert!(cause.starts_with("the store holds block"), "a snapshot that is ahead of the log: {cause}");
}

/// A copy of the data whose directories are those of an earlier day.
fn dir_with_early_state(base: &Base, data: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    copy(data, dir.path());
    remove(&dir.path().join("state"));
    copy(&base.dir.path().join("early/state"), &dir.path().join("state"));
    dir
}

/// The snapshots are ahead of a log that has lost its end, as the directories are: they do not say what the log says.
#[tokio::test(flavor = "multi_thread")]
async fn directories_are_adopted_whatever_the_snapshots_say() {
    let base = Base::new().await;
    let data = base.dir.path().join("data");
    remove(&data.join("log"));
    copy(&base.dir.path().join("early/log"), &data.join("log"));
    let early = dir_with_early_state(&base, &data);
    let refused = adopt(&settings(early.path()), &[0, 1, 2], true).expect_err("snapshots hold more").to_string();
    assert!(refused.contains("is ahead of the log and of the directory"), "{refused}");
    assert_eq!(manifests(early.path()).len(), 2, "they stay");
    let adopted = adopt(&settings(&data), &[0, 1, 2], true).expect("they fit each other");
    assert!(adopted.iter().all(|adopted| 0 < adopted.rows && adopted.done.is_some()), "{adopted:?}");
    let node = Node::open(settings(&data)).expect("a node");
    assert_eq!((status(&node).restored_from.as_str(), status(&node).cause), ("journal", None));
    let found: BTreeMap<u32, [u8; 32]> = (0..PARTITIONS).map(|id| (id, node.digest(id).expect("readable"))).collect();
    assert_eq!(found, base.digests);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_flips_under_a_running_node_halts_the_partition_until_it_is_built_again() {
    let base = Base::new().await;
    let data = base.dir.path().join("data");
    rot_store(&data);
    let node = Node::start(settings(&data)).await.expect("a node");
    assert_eq!(status(&node).restored_from, "directory", "nobody has read it whole");
    assert!(node.digest(HIT).is_err(), "the damage is seen by whoever reads it");
    until_halted(&node).await;
    assert!(status(&node).cause.is_some_and(|cause| cause.contains("the store is corrupt")), "{:?}", status(&node));
    node.stop().await;
    drop(node);
    let node = run(&data, 5..6).await;
    let told = status(&node);
    assert_eq!((told.restored_from.as_str(), told.replayed, told.cause), ("snapshot", base.last - base.newer, None));
    node.stop().await;
    // The commands that were sent once more are duplicates and change no row.
    assert_eq!(node.digest(HIT).expect("readable"), base.digests[&HIT]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_has_rotted_never_replaces_a_good_snapshot() {
    let base = Base::new().await;
    let data = base.dir.path().join("data");
    rot_store(&data);
    let node = Node::start(settings(&data)).await.expect("a node");
    let before = manifests(&data);
    assert_eq!(status(&node).restored_from, "directory", "nobody has read it whole");
    let refused = node.snapshot().await.expect_err("it is read before it counts");
    assert!(refused.to_string().contains("corrupt"), "{refused}");
    assert_eq!(manifests(&data), before, "both good ones are still there");
    until_halted(&node).await;
    node.stop().await;
    drop(node);
    let node = Node::start(settings(&data)).await.expect("a node");
    let told = status(&node);
    assert_eq!((told.restored_from.as_str(), told.replayed, told.cause), ("snapshot", base.last - base.newer, None));
    assert_eq!(node.digest(HIT).expect("readable"), base.digests[&HIT]);
    assert_eq!(node.snapshot().await.expect("a snapshot")[&HIT], base.last, "what was built again can be kept");
    assert_eq!(listing(&data.join("tmp")), Vec::<String>::new(), "no copy is left");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_checked_like_the_state_itself() {
    let base = Base::new().await;
    let data = base.dir.path().join("data");
    let node = Node::open(settings(&data)).expect("a node");
    let (one, other) = tokio::join!(node.check(true), node.check(true));
    for checked in one.into_iter().chain(other) {
        assert_eq!(checked.differences, Vec::<String>::new());
        let snapshots = checked.snapshots.expect("they were asked for");
        assert!(snapshots.len() == 2 && (checked.partition != HIT || snapshots == [base.newer, base.older]), "{snapshots:?}");
    }
    drop(node);
    truncate(&manifests(&data)[0]);
    let node = Node::open(settings(&data)).expect("a node");
    for checked in node.check(true).await {
        let found: Vec<bool> = checked.differences.iter().map(|what| what.contains("the snapshot is damaged")).collect();
        assert_eq!(found, if checked.partition == HIT { vec![true] } else { vec![] });
    }
}
