//! Snapshots of a real store: what was taken comes back, and no damage is taken for it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use finflow_ledger::{Currency, SystemAccount};

use super::{ASIDE_AGE_MIN, Error, Hashed, KEPT, Name, Snapshots, UNNAMED_AGE_MIN};
use crate::journal::{EncodedBlock, Generation, Head, Header, Positions, Stamp};
use crate::overlay::Overlay;
use crate::store::{RocksStore, Shared, Store, digest};

const GENERATION: Generation = Generation([0xab; 16]);
const PARTITION: u32 = 3;

struct World {
    dir: tempfile::TempDir,
    store: RocksStore,
    snapshots: Snapshots,
    hashed: Hashed,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(&dir.path().join("state"));
        store.apply(&[EncodedBlock::genesis(GENERATION, PARTITION, 8, 0)]).expect("a chain");
        let snapshots = Snapshots::new(&dir.path().join("snapshots"));
        World { dir, store, snapshots, hashed: Hashed::default() }
    }

    /// Applies the next block.
    fn advance(&self) {
        let head = self.store.head().expect("block 0");
        let number = head.number + 1;
        let header = Header {
            generation: GENERATION,
            partition: PARTITION,
            number,
            stamp: Stamp { lane: "lane/0".into(), incarnation: 7, counter: number },
            previous: head.stamp,
            at_ms: number as i64,
            positions: Positions { commands: number, postings: 2 },
            sent: vec![(1, number)],
            received: vec![(2, number)],
        };
        let mut overlay = Overlay::default();
        let currency = Currency::parse("AED").expect("a currency");
        overlay.accounts.put((SystemAccount::InTransit(number as u32), currency), i128::from(number));
        self.store.apply(&[EncodedBlock::encode(&header, &overlay)]).expect("the next block");
    }

    fn take(&mut self) -> Name {
        let checkpoint = self.dir.path().join("checkpoint");
        let head = self.store.checkpoint(&checkpoint).expect("a disk").expect("a head");
        let goes_on = || true;
        let taken = self.snapshots.take(&checkpoint, (head.clone(), head.number + 40), 7, &mut self.hashed, &goes_on);
        std::fs::remove_dir_all(&checkpoint).expect("a directory");
        taken.expect("a disk")
    }

    fn copy_out(&self, name: &Name) -> Result<(Head, u64, [u8; 32]), Error> {
        let into = self.dir.path().join("copy");
        let manifest = self.snapshots.copy_out(name, &into, &|| true);
        let found = manifest.map(|manifest| {
            let store = open(&into);
            assert_eq!((store.head(), manifest.taken_ms), (Some(manifest.head.clone()), 7));
            (manifest.head, manifest.journal_offset, digest(&store).expect("readable"))
        });
        // A refused copy may not have come so far.
        let _ = std::fs::remove_dir_all(into);
        found
    }

    fn objects(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = std::fs::read_dir(self.snapshots.root().join("files"))
            .expect("a directory")
            .map(|entry| entry.expect("a file").path())
            .collect();
        found.sort();
        found
    }

    /// The files that were moved aside.
    fn aside(&self) -> usize {
        std::fs::read_dir(self.snapshots.root().join("damaged")).map_or(0, |entries| entries.count())
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.snapshots.root().join(name.to_string())
    }

    /// Replaces a manifest by what `change` makes of it, with a checksum that matches.
    fn rewrite(&self, name: &Name, change: impl FnOnce(&str) -> String) {
        let text = std::fs::read_to_string(self.path(name)).expect("a manifest");
        let inner = text.split_once(r#""manifest":"#).and_then(|(_, rest)| rest.strip_suffix('}')).expect("an envelope");
        let changed = change(inner);
        assert_ne!(inner, changed, "nothing was changed");
        let sha256 = crate::sealed::hex(&<sha2::Sha256 as sha2::Digest>::digest(&changed));
        std::fs::write(self.path(name), format!(r#"{{"sha256":"{sha256}","manifest":{changed}}}"#)).expect("a file");
    }

    fn list(&self) -> Vec<Name> {
        self.snapshots.list(GENERATION, PARTITION).expect("a directory")
    }
}

fn open(dir: &Path) -> RocksStore {
    RocksStore::open(dir, &Shared::new(8 << 20)).expect("a store")
}

#[test]
fn what_was_taken_comes_back() {
    let mut world = World::new();
    let mut taken = Vec::new();
    for _ in 0..2 {
        world.advance();
        let rows = digest(&world.store).expect("readable");
        taken.push((world.take(), world.store.head().expect("a head"), rows));
    }
    assert_eq!(world.list(), taken.iter().rev().map(|(name, ..)| *name).collect::<Vec<_>>(), "the newest first");
    for (name, head, rows) in &taken {
        assert_eq!(world.copy_out(name), Ok((head.clone(), head.number + 40, *rows)));
        assert_eq!(Name::parse(&name.to_string()), Some(*name));
    }
    assert_eq!(world.take(), taken[1].0, "the same block is kept once");
    assert_eq!(world.list().len(), 2);
    assert_eq!(world.snapshots.list(GENERATION, 9), Ok(vec![]));
    assert_eq!(world.snapshots.list(Generation([1; 16]), PARTITION), Ok(vec![]));
}

#[test]
fn old_snapshots_go_and_files_that_nothing_names_go_later() {
    let mut world = World::new();
    for _ in 0..5 {
        world.advance();
        world.take();
    }
    let (all, names) = (world.objects().len(), world.list());
    let blocks = |names: &[Name]| names.iter().map(|name| name.block).collect::<Vec<_>>();
    assert_eq!(blocks(&names), [5, 4, 3, 2, 1]);
    // Where the journal begins, and what stays.
    for (begins, kept) in [(3, vec![5, 4, 3]), (2, vec![5, 4, 3]), (0, vec![5, 4]), (1, vec![5, 4])] {
        world.snapshots.prune(GENERATION, PARTITION, begins).expect("a directory");
        assert_eq!(blocks(&world.list()), kept, "the journal begins at block {begins}");
    }
    assert_eq!(world.list(), names[..KEPT]);
    let now = SystemTime::now();
    let sweep = |after: Duration| world.snapshots.sweep(now + after).expect("a directory");
    assert_eq!(sweep(UNNAMED_AGE_MIN - Duration::from_secs(60)), 0, "another writer may be about to name them");
    let removed = sweep(UNNAMED_AGE_MIN + Duration::from_secs(60));
    assert!(0 < removed && world.objects().len() as u64 + removed == all as u64, "{removed} of {all}");
    for name in world.list() {
        world.copy_out(&name).expect("what is kept is whole");
    }
}

#[test]
fn no_damage_is_taken_for_a_snapshot() {
    let flip = |path: &Path, place: usize| {
        let mut bytes = std::fs::read(path).expect("a file");
        match bytes.get_mut(place) {
            Some(byte) => *byte ^= 1,
            // The log that a store does not use is empty.
            None => bytes.push(1),
        }
        // A new file: the store holds hard links to the old one.
        std::fs::remove_file(path).expect("a file");
        std::fs::write(path, bytes).expect("a file");
    };
    let manifest_bytes = {
        let mut world = World::new();
        world.advance();
        let name = world.take();
        std::fs::read(world.path(&name)).expect("a manifest").len()
    };
    type Damage<'a> = Box<dyn Fn(&World, &Name) + 'a>;
    let mut rows: Vec<(String, Damage<'_>)> = vec![
        ("a missing manifest".to_owned(), Box::new(|world, name| std::fs::remove_file(world.path(name)).expect("a file"))),
        ("an empty manifest".to_owned(), Box::new(|world, name| std::fs::write(world.path(name), b"").expect("a file"))),
        (
            "another block's manifest".to_owned(),
            Box::new(|world, name| {
                let other = Name { block: name.block + 1, ..*name };
                std::fs::rename(world.path(name), world.path(&other)).expect("a file");
                assert!(matches!(world.copy_out(&other), Err(Error::Damaged(_))));
                std::fs::remove_file(world.path(&other)).expect("a file");
            }),
        ),
    ];
    for place in (0..manifest_bytes).step_by(83) {
        rows.push((format!("byte {place} of the manifest"), Box::new(move |world, name| flip(&world.path(name), place))));
    }
    let files = 5;
    for file in 0..files {
        let object = move |world: &World| world.objects().get(file).cloned();
        rows.push((
            format!("file {file} changed"),
            Box::new(move |world, _| object(world).iter().for_each(|path| flip(path, 3))),
        ));
        let remove = move |world: &World, _: &Name| std::fs::remove_file(object(world).expect("a file")).expect("a file");
        rows.push((format!("file {file} missing"), Box::new(remove)));
    }
    for (what, damage) in rows {
        let mut world = World::new();
        world.advance();
        let name = world.take();
        assert_eq!(world.objects().len(), files);
        world.copy_out(&name).expect("it is whole");
        damage(&world, &name);
        assert!(matches!(world.copy_out(&name), Err(Error::Damaged(_))), "{what}");
        assert_eq!(world.aside(), usize::from(what.ends_with("changed")), "{what}: the file is kept as evidence");
        // The next snapshot is whole again, although it shares files with the damaged one.
        world.advance();
        let name = world.take();
        assert!(world.copy_out(&name).is_ok(), "after {what}");
    }
}

#[test]
fn a_newer_format_is_left_alone() {
    let mut world = World::new();
    world.advance();
    let name = world.take();
    world.rewrite(&name, |inner| inner.replace(r#""format":1"#, r#""format":2"#));
    assert_eq!(world.copy_out(&name), Err(Error::Format(2)));
    let later = SystemTime::now() + UNNAMED_AGE_MIN * 2;
    assert_eq!(world.snapshots.sweep(later), Err(Error::Format(2)), "it may name any file");
}

#[test]
fn a_manifest_of_the_first_version_is_read() {
    let mut world = World::new();
    world.advance();
    let name = world.take();
    world.rewrite(&name, |inner| inner.replace(r#""taken_ms":7,"#, ""));
    let manifest = world.snapshots.manifest(&name).expect("it is readable");
    assert_eq!((manifest.taken_ms, manifest.head), (1, world.store.head().expect("a head")), "it is as old as its block");
}

#[test]
fn a_file_that_is_not_what_its_name_says_is_moved_aside_and_goes_much_later() {
    let mut world = World::new();
    world.advance();
    let name = world.take();
    let object = world.objects().pop().expect("a file");
    let whole = std::fs::read(&object).expect("a file");
    std::fs::remove_file(&object).expect("a file");
    std::fs::write(&object, b"something else").expect("a file");
    assert!(matches!(world.copy_out(&name), Err(Error::Damaged(_))));
    assert!(!object.exists(), "the next snapshot must not take it for good");
    let aside = world.snapshots.root().join("damaged").join(object.file_name().expect("a name"));
    assert_eq!(std::fs::read(&aside).expect("a file"), b"something else");
    let sweep = |after: Duration| world.snapshots.sweep(SystemTime::now() + after).expect("a directory");
    assert_eq!(sweep(UNNAMED_AGE_MIN * 2), 0, "somebody may want to put it back");
    std::fs::write(&object, whole).expect("a file");
    world.copy_out(&name).expect("what is put back is as good as before");
    assert_eq!(sweep(ASIDE_AGE_MIN), 1);
    assert!(!aside.exists() && world.copy_out(&name).is_ok());
}

#[test]
fn a_snapshot_that_is_given_up_does_not_count() {
    let mut world = World::new();
    world.advance();
    let checkpoint = world.dir.path().join("checkpoint");
    let head = world.store.checkpoint(&checkpoint).expect("a disk").expect("a head");
    for files in 0..4 {
        let looks = Cell::new(0);
        let goes_on = || looks.replace(looks.get() + 1) < files;
        let taken = world.snapshots.take(&checkpoint, (head.clone(), 41), 7, &mut world.hashed, &goes_on);
        assert_eq!((taken, world.list()), (Err(Error::GivenUp), vec![]), "after {files} files");
    }
    std::fs::remove_dir_all(&checkpoint).expect("a directory");
    let name = world.take();
    world.copy_out(&name).expect("what came before does no harm");
}
