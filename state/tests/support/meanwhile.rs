//! A sweep, and another process that takes a snapshot in the middle of it.

use std::fmt::{self, Debug};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use finflow_state::snapshot::{Error, Found, Hashed, Name, Objects, UNNAMED_AGE_MIN};
use finflow_state::{Snapshots, Store};

use super::{Make, World, age};

/// Objects with which something happens while somebody else uses them: before his call of this kind, the `nth` one.
struct Meanwhile {
    objects: Arc<dyn Objects>,
    before: &'static str,
    nth: usize,
    seen: AtomicUsize,
    happens: Box<dyn Fn() + Send + Sync>,
}

impl Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(f)
    }
}

impl Meanwhile {
    fn before(&self, call: &str) -> &dyn Objects {
        if call.trim_end() == self.before && self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.nth {
            (self.happens)();
        }
        self.objects.as_ref()
    }
}

impl Objects for Meanwhile {
    fn place(&self) -> String {
        self.objects.place()
    }

    fn list(&self, folder: &str) -> Result<Vec<Found>, Error> {
        self.before(&format!("list {folder}")).list(folder)
    }

    fn get(&self, name: &str) -> Result<Box<dyn Read + '_>, Error> {
        self.before("get").get(name)
    }

    fn put(&self, name: &str, from: &Path) -> Result<(), Error> {
        self.before("put").put(name, from)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, Error> {
        self.before("create").create(name, bytes)
    }

    fn rename(&self, name: &str, to: &str) -> Result<(), Error> {
        self.before("rename").rename(name, to)
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        self.before("delete").delete(name)
    }
}

/// Whoever stood still before he named his files cannot know whether they are there still.
pub(super) fn a_snapshot_that_takes_too_long_does_not_count(make: Make<'_>) {
    const TAKE_MAX: Duration = Duration::from_millis(200);
    let mut world = World::new(make);
    world.advance();
    let checkpoint = world.dir.path().join("checkpoint");
    let head = world.store.checkpoint(&checkpoint).expect("a disk").expect("a head");
    for before in ["put", "create", "never"] {
        let happens = Box::new(move || {
            let (_tell, told) = mpsc::channel::<()>();
            let _ = told.recv_timeout(TAKE_MAX);
        });
        let seen = AtomicUsize::new(0);
        let slow = Snapshots::new(Arc::new(Meanwhile { objects: world.objects.clone(), before, nth: 1, seen, happens }));
        let slow = if before == "never" { slow } else { slow.taken_within(TAKE_MAX) };
        let taken = slow.take(&checkpoint, (head.clone(), 41), 7, &mut world.hashed, &|| true);
        let expected = if before == "never" { Ok(Name::of(&head)) } else { Err(Error::Slow) };
        assert_eq!(taken.map(|taken| taken.name), expected, "before {before}");
        assert_eq!(world.list().len(), usize::from(before == "never"), "before {before}");
    }
}

/// Another process takes a snapshot at each place where a sweep may be, of files that are all old. They are left over from one that did
/// not come to its end, or the snapshot that names them is pruned as soon as the new one has come: it is whole in any case.
pub(super) fn what_is_on_its_way_is_not_swept(make: Make<'_>) {
    let rows = [("list files", 1), ("list damaged", 1), ("list", 1), ("get", 1), ("list files", 2), ("delete", 1)];
    for (before, nth) in rows {
        for is_pruned in [true, false] {
            // Between his last look and the removal nothing can be put that somebody removes: see the module's words.
            if before != "delete" || is_pruned {
                check_meanwhile(make, (before, nth), is_pruned);
            }
        }
    }
}

fn check_meanwhile(make: Make<'_>, (before, nth): (&'static str, usize), is_pruned: bool) {
    let mut world = World::new(make);
    world.advance();
    let first = world.take();
    // Another one whose manifest is read, and a file that may go.
    world.advance();
    let other = world.take();
    fs::write(world.root.join("files/left-over"), "x").expect("a file");
    if !is_pruned {
        [first, other].iter().for_each(|name| fs::remove_file(world.path(name)).expect("a file"));
    }
    world.objects().iter().for_each(|object| age(object, UNNAMED_AGE_MIN * 2));
    world.advance();
    let checkpoint = world.dir.path().join("meanwhile");
    let head = world.store.checkpoint(&checkpoint).expect("a disk").expect("a head");
    let (snapshots, taken, old) = (world.snapshots.clone(), Name::of(&head), [first, other].map(|name| name.to_string()));
    let objects = world.objects.clone();
    let happens = Box::new(move || {
        snapshots.take(&checkpoint, (head.clone(), 1), 7, &mut Hashed::default(), &|| true).expect("a place");
        old.iter().for_each(|name| objects.delete(name).expect("a place"));
    });
    let seen = AtomicUsize::new(0);
    let sweeping = Snapshots::new(Arc::new(Meanwhile { objects: world.objects.clone(), before, nth, seen, happens }));
    let removed = sweeping.sweep(SystemTime::now()).expect("a place");
    let what = format!("before {before} {nth}, pruned {is_pruned}");
    // Where it did not come to that, nothing has happened: a row that shows nothing would not be one.
    let is_there = world.list().contains(&taken);
    assert!(is_there || (before == "get" && !is_pruned), "{what}");
    if is_there {
        world.copy_out(&taken).unwrap_or_else(|error| panic!("{what}: {error}, {removed} removed"));
    }
    assert!(!world.root.join("files/left-over").exists(), "{what}: what nobody needs goes");
}
