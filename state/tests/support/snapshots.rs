//! What every place for snapshots has to do, with a real store: what was taken comes back, only what is new moves, nothing vanishes
//! that is needed, and no damage is taken for a snapshot. Each case gets a place of its own.

use std::cell::Cell;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use finflow_ledger::{Currency, SystemAccount};
use finflow_state::snapshot::{ASIDE_AGE_MIN, Error, Hashed, KEPT, Name, Objects, Taken, UNNAMED_AGE_MIN};
use finflow_state::store::digest;
use finflow_state::{EncodedBlock, Generation, Head, Header, Overlay, Positions, RocksStore, Shared, Snapshots, Stamp, Store};
use sha2::{Digest, Sha256};

use self::meanwhile::{a_snapshot_that_takes_too_long_does_not_count, what_is_on_its_way_is_not_swept};

#[path = "meanwhile.rs"]
mod meanwhile;

/// Objects, and the directory in which they lie, for damage behind their back.
pub(crate) struct Place {
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) root: PathBuf,
}

/// Makes an empty place, with room for it in this directory.
pub(crate) type Make<'a> = &'a dyn Fn(&Path) -> Place;

/// What is shown, and how.
pub(crate) type Case = (&'static str, fn(Make<'_>));

/// Every case.
pub(crate) const CASES: [Case; 13] = [
    ("objects are put, read, renamed, listed and removed", objects_are_kept),
    ("an object is created once", an_object_is_created_once),
    ("large objects and long listings are whole", large_objects_and_long_listings),
    ("what was taken comes back", what_was_taken_comes_back),
    ("only new files move", only_new_files_move),
    ("old snapshots go", old_snapshots_go_and_files_that_nothing_names_go_later),
    ("what is on its way is not swept", what_is_on_its_way_is_not_swept),
    ("a snapshot that takes too long does not count", a_snapshot_that_takes_too_long_does_not_count),
    ("no damage is taken for a snapshot", no_damage_is_taken_for_a_snapshot),
    ("a newer format is left alone", a_newer_format_is_left_alone),
    ("a manifest of the first version is read", a_manifest_of_the_first_version_is_read),
    ("a damaged file is moved aside", a_file_that_is_not_what_its_name_says_is_moved_aside_and_goes_much_later),
    ("a snapshot that is given up does not count", a_snapshot_that_is_given_up_does_not_count),
];

const GENERATION: Generation = Generation([0xab; 16]);
const PARTITION: u32 = 3;

struct World {
    dir: tempfile::TempDir,
    store: RocksStore,
    root: PathBuf,
    objects: Arc<dyn Objects>,
    snapshots: Snapshots,
    hashed: Hashed,
}

impl World {
    fn new(make: Make<'_>) -> World {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(&dir.path().join("state"));
        store.apply(&[EncodedBlock::genesis(GENERATION, PARTITION, 8, 0)]).expect("a chain");
        let Place { objects, root } = make(&dir.path().join("snapshots"));
        let snapshots = Snapshots::new(objects.clone());
        World { dir, store, root, objects, snapshots, hashed: Hashed::default() }
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
        self.taken().name
    }

    fn taken(&mut self) -> Taken {
        let checkpoint = self.dir.path().join("checkpoint");
        let head = self.store.checkpoint(&checkpoint).expect("a disk").expect("a head");
        let goes_on = || true;
        let taken = self.snapshots.take(&checkpoint, (head.clone(), head.number + 40), 7, &mut self.hashed, &goes_on);
        fs::remove_dir_all(&checkpoint).expect("a directory");
        taken.expect("a disk")
    }

    fn copy_out(&self, name: &Name) -> Result<(Head, u64, [u8; 32]), Error> {
        let into = self.dir.path().join("copy");
        let copied =
            self.snapshots.manifest(name).and_then(|found| self.snapshots.copy_out(&found, &into, &|| true).map(|()| found));
        let found = copied.map(|manifest| {
            let store = open(&into);
            assert_eq!((store.head(), manifest.taken_ms), (Some(manifest.head.clone()), 7));
            (manifest.head, manifest.journal_offset, digest(&store).expect("readable"))
        });
        // A refused copy may not have come so far.
        let _ = fs::remove_dir_all(into);
        found
    }

    fn objects(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> =
            fs::read_dir(self.root.join("files")).expect("a directory").map(|entry| entry.expect("a file").path()).collect();
        found.sort();
        found
    }

    /// The files that were moved aside.
    fn aside(&self) -> usize {
        fs::read_dir(self.root.join("damaged")).map_or(0, |entries| entries.count())
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.root.join(name.to_string())
    }

    /// Replaces a manifest by what `change` makes of it, with a checksum that matches.
    fn rewrite(&self, name: &Name, change: impl FnOnce(&str) -> String) {
        let text = fs::read_to_string(self.path(name)).expect("a manifest");
        let inner = text.split_once(r#""manifest":"#).and_then(|(_, rest)| rest.strip_suffix('}')).expect("an envelope");
        let changed = change(inner);
        assert_ne!(inner, changed, "nothing was changed");
        let sha256 = hex(&Sha256::digest(&changed));
        fs::write(self.path(name), format!(r#"{{"sha256":"{sha256}","manifest":{changed}}}"#)).expect("a file");
    }

    fn list(&self) -> Vec<Name> {
        self.snapshots.list(GENERATION, PARTITION).expect("a directory")
    }
}

fn is_damaged<T>(found: &Result<T, Error>) -> bool {
    matches!(found, Err(Error::Damaged(_) | Error::Missing(_)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(objects: &dyn Objects, name: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    objects.get(name)?.read_to_end(&mut bytes).expect("readable");
    Ok(bytes)
}

fn names(objects: &dyn Objects, folder: &str) -> Vec<String> {
    let mut names: Vec<String> = objects.list(folder).expect("a place").into_iter().map(|found| found.name).collect();
    names.sort();
    names
}

/// Has an object be as old as this.
fn age(path: &Path, age: Duration) {
    let file = fs::File::options().append(true).open(path).expect("a file");
    file.set_modified(SystemTime::now() - age).expect("a time");
}

fn open(dir: &Path) -> RocksStore {
    RocksStore::open(dir, &Shared::new(8 << 20, 1)).expect("a store")
}

fn objects_are_kept(make: Make<'_>) {
    let dir = tempfile::tempdir().expect("a directory");
    let Place { objects, root } = make(&dir.path().join("place"));
    let objects = objects.as_ref();
    assert_eq!((objects.list(""), objects.list("a")), (Ok(vec![]), Ok(vec![])));
    assert_eq!(read(objects, "a/x"), Err(Error::Missing("a/x".to_owned())));
    assert_eq!(objects.delete("a/x"), Ok(()), "what is not there is removed");
    let file = dir.path().join("file");
    for (name, content) in [("a/x", "1"), ("a/b/y", "22"), ("ab/z", ""), ("a/x", "1")] {
        fs::write(&file, content).expect("a file");
        objects.put(name, &file).expect("a place");
        assert_eq!(read(objects, name), Ok(content.as_bytes().to_vec()), "{name}");
        fs::remove_file(&file).expect("a file");
    }
    assert_eq!(names(objects, ""), ["a/b/y", "a/x", "ab/z"]);
    assert_eq!(names(objects, "a"), ["a/b/y", "a/x"], "a folder, not what begins alike");
    assert_eq!(names(objects, "a/b"), ["a/b/y"]);
    let put_at =
        |name: &str| objects.list("a").expect("a place").into_iter().find(|found| found.name == name).expect("it").put_at;
    let is_new = |name: &str| SystemTime::now().duration_since(put_at(name)).is_ok_and(|age| age < Duration::from_secs(60));
    assert!(is_new("a/x"));
    age(&root.join("a/x"), UNNAMED_AGE_MIN);
    assert!(!is_new("a/x"), "the time is the object's");
    fs::write(&file, "1").expect("a file");
    objects.put("a/x", &file).expect("a place");
    assert!(is_new("a/x"), "it was put now");
    age(&root.join("a/x"), UNNAMED_AGE_MIN);
    objects.rename("a/x", "a/b/y").expect("a place");
    assert!(is_new("a/b/y"));
    assert_eq!(read(objects, "a/b/y"), Ok(b"1".to_vec()), "what was there is replaced");
    assert_eq!(read(objects, "a/x"), Err(Error::Missing("a/x".to_owned())));
    assert_eq!((objects.delete("a/b/y"), objects.delete("ab/z")), (Ok(()), Ok(())));
    assert_eq!(names(objects, ""), Vec::<String>::new());
    Snapshots::new(make(&dir.path().join("other")).objects).probe("1").expect("a place that can be written");
}

fn an_object_is_created_once(make: Make<'_>) {
    let dir = tempfile::tempdir().expect("a directory");
    let Place { objects, .. } = make(&dir.path().join("place"));
    assert_eq!(objects.create("g/1/a.json", b"first"), Ok(true));
    assert_eq!(objects.create("g/1/a.json", b"second"), Ok(false));
    assert_eq!(read(objects.as_ref(), "g/1/a.json"), Ok(b"first".to_vec()));
    objects.delete("g/1/a.json").expect("a place");
    assert_eq!(objects.create("g/1/a.json", b"third"), Ok(true));
    assert_eq!(names(objects.as_ref(), ""), ["g/1/a.json"], "nothing else is left");
}

fn large_objects_and_long_listings(make: Make<'_>) {
    const MANY: usize = 2_100;
    let dir = tempfile::tempdir().expect("a directory");
    let Place { objects, root } = make(&dir.path().join("place"));
    let file = dir.path().join("file");
    for bytes in [0, 1, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 20 << 20] {
        let content: Vec<u8> = (0..bytes as u32).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
        fs::write(&file, &content).expect("a file");
        objects.put("files/large", &file).expect("a place");
        assert!(read(objects.as_ref(), "files/large") == Ok(content), "{bytes} bytes");
        assert_eq!(objects.list("files").expect("a place")[0].bytes, bytes as u64);
        fs::remove_file(&file).expect("a file");
        objects.delete("files/large").expect("a place");
    }
    fs::create_dir_all(root.join("many")).expect("a directory");
    for number in 0..MANY {
        fs::write(root.join(format!("many/{number:06}")), "x").expect("a file");
    }
    let found = names(objects.as_ref(), "many");
    assert_eq!((found.len(), found.first().map(String::as_str)), (MANY, Some("many/000000")));
}

fn only_new_files_move(make: Make<'_>) {
    let mut world = World::new(make);
    world.advance();
    let first = world.taken();
    let all = first.files_put;
    assert!(2 < all && first.files_reused == 0 && 0 < first.bytes_put, "{first:?}");
    world.advance();
    let second = world.taken();
    assert!(0 < second.files_reused && second.files_put < all + 1, "{second:?}");
    assert_eq!(world.objects().len() as u64, all + second.files_put, "what is there already has not come again");
    // What nothing names may be about to go, so it is put again.
    fs::remove_file(world.path(&first.name)).expect("a file");
    fs::remove_file(world.path(&second.name)).expect("a file");
    let third = world.taken();
    assert_eq!((third.files_reused, third.files_put), (0, second.files_reused + second.files_put));
    world.copy_out(&third.name).expect("it is whole");
}

fn what_was_taken_comes_back(make: Make<'_>) {
    let mut world = World::new(make);
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

fn old_snapshots_go_and_files_that_nothing_names_go_later(make: Make<'_>) {
    let mut world = World::new(make);
    for _ in 0..5 {
        world.advance();
        world.take();
    }
    let (all, names) = (world.objects().len(), world.list());
    let blocks = |names: &[Name]| names.iter().map(|name| name.block).collect::<Vec<_>>();
    assert_eq!(blocks(&names), [5, 4, 3, 2, 1]);
    // Where the journal begins, what is being read, and what stays.
    let third = names.get(2..3).expect("five");
    let rows: [(u64, &[Name], Vec<u64>); 5] =
        [(3, &[], vec![5, 4, 3]), (2, &[], vec![5, 4, 3]), (0, third, vec![5, 4, 3]), (0, &[], vec![5, 4]), (1, &[], vec![5, 4])];
    for (begins, read, kept) in rows {
        world.snapshots.prune(GENERATION, PARTITION, begins, read).expect("a directory");
        assert_eq!(blocks(&world.list()), kept, "the journal begins at block {begins}, {read:?} are read");
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

fn no_damage_is_taken_for_a_snapshot(make: Make<'_>) {
    let flip = |path: &Path, place: usize| {
        let mut bytes = fs::read(path).expect("a file");
        match bytes.get_mut(place) {
            Some(byte) => *byte ^= 1,
            // The log that a store does not use is empty.
            None => bytes.push(1),
        }
        // A new file: the store holds hard links to the old one.
        fs::remove_file(path).expect("a file");
        fs::write(path, bytes).expect("a file");
    };
    let manifest_bytes = {
        let mut world = World::new(make);
        world.advance();
        let name = world.take();
        fs::read(world.path(&name)).expect("a manifest").len()
    };
    type Damage<'a> = Box<dyn Fn(&World, &Name) + 'a>;
    let mut rows: Vec<(String, Damage<'_>)> = vec![
        ("a missing manifest".to_owned(), Box::new(|world, name| fs::remove_file(world.path(name)).expect("a file"))),
        ("an empty manifest".to_owned(), Box::new(|world, name| fs::write(world.path(name), b"").expect("a file"))),
        (
            "another block's manifest".to_owned(),
            Box::new(|world, name| {
                let other = Name { block: name.block + 1, ..*name };
                fs::rename(world.path(name), world.path(&other)).expect("a file");
                assert!(is_damaged(&world.copy_out(&other)));
                fs::remove_file(world.path(&other)).expect("a file");
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
        let remove = move |world: &World, _: &Name| fs::remove_file(object(world).expect("a file")).expect("a file");
        rows.push((format!("file {file} missing"), Box::new(remove)));
    }
    for (what, damage) in rows {
        let mut world = World::new(make);
        world.advance();
        let name = world.take();
        assert_eq!(world.objects().len(), files);
        world.copy_out(&name).expect("it is whole");
        damage(&world, &name);
        assert!(is_damaged(&world.copy_out(&name)), "{what}");
        assert_eq!(world.aside(), usize::from(what.ends_with("changed")), "{what}: the file is kept as evidence");
        // The next snapshot is whole again, although it shares files with the damaged one.
        world.advance();
        let name = world.take();
        assert!(world.copy_out(&name).is_ok(), "after {what}");
    }
}

fn a_newer_format_is_left_alone(make: Make<'_>) {
    let mut world = World::new(make);
    world.advance();
    let name = world.take();
    world.rewrite(&name, |inner| inner.replace(r#""format":1"#, r#""format":2"#));
    assert_eq!(world.copy_out(&name), Err(Error::Format(2)));
    let later = SystemTime::now() + UNNAMED_AGE_MIN * 2;
    assert_eq!(world.snapshots.sweep(later), Err(Error::Format(2)), "it may name any file");
}

fn a_manifest_of_the_first_version_is_read(make: Make<'_>) {
    let mut world = World::new(make);
    world.advance();
    let name = world.take();
    world.rewrite(&name, |inner| inner.replace(r#""taken_ms":7,"#, ""));
    let manifest = world.snapshots.manifest(&name).expect("it is readable");
    assert_eq!((manifest.taken_ms, manifest.head), (1, world.store.head().expect("a head")), "it is as old as its block");
}

fn a_file_that_is_not_what_its_name_says_is_moved_aside_and_goes_much_later(make: Make<'_>) {
    let mut world = World::new(make);
    world.advance();
    let name = world.take();
    let object = world.objects().pop().expect("a file");
    let whole = fs::read(&object).expect("a file");
    fs::remove_file(&object).expect("a file");
    fs::write(&object, b"something else").expect("a file");
    assert!(matches!(world.copy_out(&name), Err(Error::Damaged(_))));
    assert!(!object.exists(), "the next snapshot must not take it for good");
    let aside = world.root.join("damaged").join(object.file_name().expect("a name"));
    assert_eq!(fs::read(&aside).expect("a file"), b"something else");
    let sweep = |after: Duration| world.snapshots.sweep(SystemTime::now() + after).expect("a directory");
    assert_eq!(sweep(UNNAMED_AGE_MIN * 2), 0, "somebody may want to put it back");
    fs::write(&object, whole).expect("a file");
    world.copy_out(&name).expect("what is put back is as good as before");
    assert_eq!(sweep(ASIDE_AGE_MIN), 1);
    assert!(!aside.exists() && world.copy_out(&name).is_ok());
}

fn a_snapshot_that_is_given_up_does_not_count(make: Make<'_>) {
    let mut world = World::new(make);
    world.advance();
    let checkpoint = world.dir.path().join("checkpoint");
    let head = world.store.checkpoint(&checkpoint).expect("a disk").expect("a head");
    for files in 0..4 {
        let looks = Cell::new(0);
        let goes_on = || looks.replace(looks.get() + 1) < files;
        let taken = world.snapshots.take(&checkpoint, (head.clone(), 41), 7, &mut world.hashed, &goes_on);
        assert_eq!((taken, world.list()), (Err(Error::GivenUp), vec![]), "after {files} files");
    }
    fs::remove_dir_all(&checkpoint).expect("a directory");
    let name = world.take();
    world.copy_out(&name).expect("what came before does no harm");
}
