//! A store of RocksDB whose files cannot be opened for a while, as with too many open files: nobody is halted, the others of the lane go
//! on, and it goes on by itself when they can be opened again.

use std::fs::{read_dir, remove_dir_all, remove_file, rename};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use finflow_actors::{Node, Publish, Settings};
use finflow_ledger::WalletId;
use finflow_state::Tag;
use finflow_topologies::topics::partition_of_wallet;
use rocksdb::{DB, IteratorMode, Options, SstFileWriter};

use self::commands::{opened, transfer};
use self::engine::{DEADLINE, audited, until};

#[path = "support/commands.rs"]
mod commands;
#[path = "support/engine.rs"]
mod engine;

const PARTITIONS: u32 = 2;
/// The partition whose store fails, on the same lane as the other one.
const ILL: u32 = 0;
const WALLETS: usize = 200;

fn wallets(partition: u32) -> Vec<String> {
    let of = |name: &String| partition_of_wallet(&WalletId::parse(name).expect("an id"), PARTITIONS) == partition;
    (0..WALLETS).map(|n| format!("w{n}")).filter(of).collect()
}

/// Each wallet of a partition pays the next one of it.
fn round(partition: u32, key: &str) -> Vec<Publish> {
    let names = wallets(partition);
    names.iter().zip(names.iter().cycle().skip(1)).map(|(from, to)| transfer(from, key, to, "0.05")).collect()
}

/// Writes the rows of a store into as many files as it has wallets, the lowest there are: RocksDB opens a few of them with the database
/// and each of the others when a row of it is read first.
fn scatter(dir: &Path, scratch: &Path) {
    let (mut options, mut files) = (Options::default(), Vec::new());
    options.create_if_missing(true);
    let db = DB::open(&options, dir).expect("a store");
    let rows: Vec<_> = db.iterator(IteratorMode::Start).map(|row| row.expect("a row")).collect();
    let is_alone = |key: &[u8]| key.first() == Some(&(Tag::Wallets as u8));
    for rows in rows.chunk_by(|(one, _), (next, _)| one.first() == next.first() && !is_alone(one)) {
        let path = scratch.join(format!("{}.sst", files.len()));
        let mut file = SstFileWriter::create(&options);
        file.open(&path).expect("a file");
        rows.iter().for_each(|(key, value)| file.put(key, value).expect("a row"));
        file.finish().expect("a file");
        files.push(path);
    }
    drop(db);
    remove_dir_all(dir).expect("a directory");
    DB::open(&options, dir).expect("a store").ingest_external_file(files).expect("files of a store");
}

/// Files that are put aside; in the place of each is a link to itself, which cannot be opened.
struct Aside(Vec<(PathBuf, PathBuf)>);

impl Aside {
    fn put(dir: &Path, aside: &Path) -> Aside {
        let files = read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
        let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
        let moved = files.map(|path| {
            let kept = aside.join(path.file_name().expect("a file"));
            rename(&path, &kept).expect("a file");
            symlink(&path, &path).expect("a link");
            (path, kept)
        });
        Aside(moved.collect())
    }

    fn put_back(self) {
        for (path, kept) in self.0 {
            remove_file(&path).expect("a link");
            rename(kept, path).expect("a file");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_read_for_a_while_halts_nobody() {
    let (dir, aside) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let settings = Settings { partitions: PARTITIONS, lanes: 1, ..engine::settings(dir.path()) };
    let node = Node::start(settings.clone()).await.expect("a node");
    node.publish(opened(WALLETS, "100")).await.expect("a log");
    assert!(node.idle(DEADLINE).await, "{:?}", node.status());
    node.stop().await;
    drop(node);
    let state = dir.path().join("state").join(ILL.to_string());
    scatter(&state, aside.path());

    let node = Node::start(settings).await.expect("a node");
    let (before, mut paid) = (Aside::put(&state, aside.path()), 0);
    let lag = |partition: u32| node.status()[partition as usize].commands_lag;
    for key in ["first", "second", "third"] {
        for partition in [ILL, 1] {
            let round = round(partition, key);
            paid += round.len();
            node.publish(round).await.expect("a log");
        }
        until(&node, "the readiness names it", || node.faults().iter().any(|(what, _)| *what == format!("store {ILL}"))).await;
        until(&node, "the other one goes on", || lag(1) == 0).await;
        assert_ne!(lag(ILL), 0, "nothing that was not read is decided");
    }
    assert!(node.status().iter().all(|status| status.cause.is_none()), "{:?}", node.status());

    before.put_back();
    until(&node, "it goes on by itself", || node.faults().is_empty() && lag(ILL) == 0).await;
    assert!(node.idle(DEADLINE).await, "{:?}", node.status());
    assert_eq!(audited(&node, WALLETS).outcomes.get("payment.settled"), Some(&((WALLETS + paid) as u64)));
    node.stop().await;
}
