//! The log is trimmed below snapshots: only below the older of two that are whole, only where they outlive the machine, and never so
//! that a lost directory could not be built again to the same rows. Time is the test's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use finflow_actors::{Housekeeping, Node, Settings, SnapshotPlace, adopt};
use finflow_topologies::Topic;

use self::commands::{opened, transfers};
use self::engine::{DEADLINE, until};
use self::time::Time;

#[path = "support/commands.rs"]
mod commands;
#[path = "support/engine.rs"]
mod engine;
#[path = "support/time.rs"]
mod time;

const PARTITIONS: u32 = 3;
/// The partition that things happen to: its turn comes first.
const HIT: u32 = 0;
const WALLETS: usize = 40;
const INTERVAL_MS: i64 = 3_600_000;

/// An application whose snapshots lie elsewhere.
struct World {
    dir: tempfile::TempDir,
    time: Time,
    is_shared: bool,
}

impl World {
    fn new(is_shared: bool) -> World {
        World { dir: tempfile::tempdir().expect("a directory"), time: Time::default(), is_shared }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn snapshots(&self) -> PathBuf {
        self.dir.path().join("shared")
    }

    fn settings(&self) -> Settings {
        Settings {
            partitions: PARTITIONS,
            // Partitions on lanes of their own talk through the log.
            lanes: PARTITIONS,
            housekeeping: Housekeeping {
                snapshots: match self.is_shared {
                    true => SnapshotPlace::Shared(self.snapshots()),
                    false => SnapshotPlace::Directory(self.snapshots()),
                },
                trim_interval: Duration::from_millis(INTERVAL_MS as u64),
                // Taken when the test says so.
                snapshot_interval: Duration::from_secs(86_400 * 365),
                ..Housekeeping::default()
            },
            clock: self.time.clock(),
            ..engine::settings(&self.data())
        }
    }

    async fn start(&self) -> Node {
        fs::create_dir_all(self.snapshots()).expect("a directory");
        Node::start(self.settings()).await.expect("a node")
    }

    /// Waits until the journals begin at these blocks, while time passes. On the embedded log a block's offset is its number.
    async fn until_begun(&self, node: &Node, what: &str, blocks: &BTreeMap<u32, u64>) {
        let begin = |node: &Node| {
            self.time.pass(INTERVAL_MS);
            blocks.iter().all(|(id, block)| start(node, Topic::Journal, *id) == *block)
        };
        until(node, what, || begin(node)).await;
    }

    /// The manifests of a partition, the oldest first.
    fn manifests(&self, id: u32) -> Vec<PathBuf> {
        let generation =
            listing(&self.snapshots()).into_iter().find(|path| !path.ends_with("files") && !path.ends_with("damaged"));
        listing(&generation.expect("a generation").join(id.to_string()))
    }
}

fn start(node: &Node, topic: Topic, id: u32) -> u64 {
    node.range(topic, id).expect("a log").start
}

fn listing(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    found.sort();
    found
}

/// Moves money between the wallets, and gives the blocks of the snapshots that are taken then.
async fn go_on(node: &Node, round: usize) -> BTreeMap<u32, u64> {
    let commands = if round == 0 { opened(WALLETS, "100") } else { transfers(WALLETS, 40 * round..40 * (round + 1)) };
    node.publish(commands).await.expect("a log");
    assert!(node.idle(DEADLINE).await && node.stored(DEADLINE).await, "{:?}", node.status());
    node.snapshot().await.expect("snapshots")
}

fn digests(node: &Node) -> Vec<[u8; 32]> {
    (0..PARTITIONS).map(|id| node.digest(id).expect("readable")).collect()
}

fn sources(node: &Node) -> Vec<String> {
    node.status().into_iter().map(|of| of.restored_from).collect()
}

/// The older of the two newest snapshots, with which the journal of a partition begins, somewhere else: as where a directory is not
/// mounted.
struct Elsewhere {
    place: PathBuf,
    aside: PathBuf,
}

impl Elsewhere {
    fn of(world: &World, id: u32) -> Elsewhere {
        let (place, aside) = (world.manifests(id).into_iter().rev().nth(1), world.dir.path().join("aside.json"));
        let place = place.expect("two snapshots");
        fs::rename(&place, &aside).expect("a file");
        Elsewhere { place, aside }
    }

    fn comes_back(self) {
        fs::rename(&self.aside, &self.place).expect("a file");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_trimmed_is_in_snapshots_from_which_everything_can_be_had() {
    let world = World::new(true);
    let node = world.start().await;
    let first = go_on(&node, 0).await;
    let second = go_on(&node, 1).await;
    world.until_begun(&node, "the journals begin at the first snapshots", &first).await;
    let third = go_on(&node, 2).await;
    world.until_begun(&node, "the journals begin at the second ones", &second).await;
    let trimmed = (0..PARTITIONS).filter(|id| 0 < start(&node, Topic::Postings, *id)).count();
    assert_eq!(trimmed, PARTITIONS as usize, "postings as well");
    // Whatever else is there, nobody may rest on it while what the journal begins with is not.
    let base = Elsewhere::of(&world, HIT);
    let fourth = go_on(&node, 3).await;
    let others: BTreeMap<u32, u64> = third.iter().map(|(id, block)| (*id, *block)).filter(|(id, _)| *id != HIT).collect();
    world.until_begun(&node, "the others are trimmed", &others).await;
    assert_eq!(start(&node, Topic::Journal, HIT), second[&HIT]);
    base.comes_back();
    for checked in node.check(true).await {
        let of = |blocks: &BTreeMap<u32, u64>| blocks[&checked.partition];
        assert_eq!(checked.differences, Vec::<String>::new());
        let mut kept = vec![of(&fourth), of(&third), of(&second)];
        // Nothing was removed where that was missing.
        kept.extend((checked.partition == HIT).then(|| of(&first)));
        assert_eq!(checked.snapshots, Some(kept), "what the journal begins with is kept");
    }
    world.until_begun(&node, "it is there again", &third).await;
    assert!(node.stop().await);
    let expected = digests(&node);
    drop(node);

    let kept: Vec<PathBuf> = (0..PARTITIONS).flat_map(|id| world.manifests(id)).collect();
    assert_eq!(kept.len(), 3 * PARTITIONS as usize + 1);
    fs::remove_dir_all(world.data().join("state")).expect("a directory");
    let node = Node::open(world.settings()).expect("a node");
    assert_eq!((sources(&node), digests(&node)), (vec!["snapshot".to_owned(); PARTITIONS as usize], expected.clone()));
    drop(node);
    let unchanged = adopt(&world.settings(), &[0, 1, 2], false).expect("the log tells what the directories tell");
    assert!(unchanged.iter().all(|adopted| adopted.rows == 0), "{unchanged:?}");

    // The newest ones are lost too: what the journal begins with is enough.
    fs::remove_dir_all(world.data().join("state")).expect("a directory");
    for id in 0..PARTITIONS {
        let all = world.manifests(id);
        let others = all.iter().rev().enumerate().filter(|(place, _)| *place != 1);
        others.for_each(|(_, path)| fs::remove_file(path).expect("a file"));
    }
    let node = world.start().await;
    assert_eq!((sources(&node), digests(&node)), (vec!["snapshot".to_owned(); PARTITIONS as usize], expected));
    let fifth = go_on(&node, 4).await;
    go_on(&node, 5).await;
    world.until_begun(&node, "and it goes on", &fifth).await;
    assert_eq!(node.faults(), vec![]);
    assert!(node.stop().await);
}

/// Damages the largest file of rows that a manifest names.
fn cut_file(world: &World, manifest: &Path) {
    let text = fs::read_to_string(manifest).expect("a manifest");
    let sealed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let files = sealed["manifest"]["files"].as_array().expect("files").iter();
    let rows = files.filter(|file| file["name"].as_str().is_some_and(|name| name.ends_with(".sst")));
    let largest = rows.max_by_key(|file| file["bytes"].as_u64()).expect("a file of rows");
    let largest = world.snapshots().join("files").join(largest["sha256"].as_str().expect("a digest"));
    let mut bytes = fs::read(&largest).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    // A new file: the store holds a hard link to the old one.
    fs::remove_file(&largest).expect("a file");
    fs::write(&largest, bytes).expect("a file");
}

fn cut_manifest(_: &World, manifest: &Path) {
    let bytes = fs::read(manifest).expect("a manifest");
    fs::write(manifest, &bytes[..bytes.len() / 2]).expect("a file");
}

fn remove_manifest(_: &World, manifest: &Path) {
    fs::remove_file(manifest).expect("a manifest");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_trimmed_while_one_of_the_two_is_not_whole() {
    // What happens to which of the two.
    type Damage = fn(&World, &Path);
    let rows: [(&str, Damage, usize); 5] = [
        ("the manifest of the older one is cut", cut_manifest, 0),
        ("the manifest of the newer one is cut", cut_manifest, 1),
        ("the older one is gone", remove_manifest, 0),
        ("a file of the older one changed", cut_file, 0),
        ("a file of the newer one changed", cut_file, 1),
    ];
    for (what, damage, place) in rows {
        let world = World::new(true);
        let node = world.start().await;
        let first = go_on(&node, 0).await;
        go_on(&node, 1).await;
        let manifests = world.manifests(HIT);
        assert_eq!(manifests.len(), 2);
        damage(&world, &manifests[place]);
        let others: BTreeMap<u32, u64> = first.into_iter().filter(|(id, _)| *id != HIT).collect();
        world.until_begun(&node, &format!("{what}, the others are trimmed"), &others).await;
        // Its turn has come before theirs.
        assert_eq!(start(&node, Topic::Journal, HIT), 0, "{what}");
        let third = go_on(&node, 2).await;
        go_on(&node, 3).await;
        world.until_begun(&node, what, &third).await;
        assert!(node.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_trimmed_below_snapshots_that_may_be_lost_with_the_machine() {
    let world = World::new(false);
    let node = world.start().await;
    go_on(&node, 0).await;
    go_on(&node, 1).await;
    for round in 2..5 {
        // Postings go once they are applied: what looks after that has had its turn, and the trimmer would have had.
        let ends: Vec<u64> = (0..PARTITIONS).map(|id| node.range(Topic::Postings, id).expect("a log").end).collect();
        until(&node, "postings are trimmed", || {
            world.time.pass(INTERVAL_MS);
            (0..PARTITIONS).zip(&ends).all(|(id, end)| start(&node, Topic::Postings, id) == *end)
        })
        .await;
        assert!((0..PARTITIONS).all(|id| start(&node, Topic::Journal, id) == 0), "round {round}");
        go_on(&node, round).await;
    }
    assert!(node.stop().await);
}
