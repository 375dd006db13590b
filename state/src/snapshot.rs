//! Snapshots: whole copies of a partition's store, kept apart from it, from which it is restored without replaying its journal.
//!
//! `files/{sha256}` holds each file once, named by what it contains: SST files never change, so only new ones move. The manifest
//! `{generation}/{partition}/{block}-{incarnation}.json` comes last and only if it is not there yet; without it there is no
//! snapshot. Nothing is believed when it is read back: every file is hashed on its way out, and the opened store must stand at the
//! block that the manifest names. A file that is not what its name says is moved to `damaged/{sha256}`.
//!
//! **Several processes take and sweep at once, and no file vanishes that a manifest on its way will name.** Whoever takes a
//! snapshot relies on a file in one of two ways. Either he puts it himself, whether it is there or not, at most [`TAKE_MAX`] before
//! his manifest; whoever sweeps lists the files first and the manifests afterwards, and removes only what nobody has put for
//! [`UNNAMED_AGE_MIN`], which is longer than [`TAKE_MAX`] by more than clocks differ: so the manifest is there when he looks for it.
//! Or an earlier manifest of the partition names it, which goes only after newer ones have come: where one goes while he reads them,
//! he lists them again. What he removes is what he has seen twice, with the same time, on both sides of the manifests. Two things
//! are left to chance: that somebody puts a file which nobody has named for an hour, between the second look and the removal, and
//! that two who take turns with one partition prune what the other one builds on. A snapshot lacks a file then: whoever reads it
//! back sees that and takes the older one, and the next one, which looks at what is there, puts the file again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use self::directory::Directory;
pub use self::manifest::{Entry, Manifest, Name};
pub use self::objects::{CLOCK_SKEW_MAX, Found, Objects};
use crate::journal::{Generation, Head};
use crate::sealed;

pub(crate) mod directory;
mod manifest;
mod objects;

/// Snapshots kept of each partition: should the newest be damaged, there is the one before.
pub const KEPT: usize = 2;
/// A file that no manifest names stays so long, because the manifest that will name it may be on its way.
pub const UNNAMED_AGE_MIN: Duration = Duration::from_secs(3_600);
/// How long taking a snapshot may last, so that nobody takes its first files for forgotten.
pub const TAKE_MAX: Duration = Duration::from_secs(40 * 60);
const _: () = assert!(TAKE_MAX.as_secs() + CLOCK_SKEW_MAX.as_secs() < UNNAMED_AGE_MIN.as_secs());

/// A file that was moved aside stays so long: it may be whole after all, and somebody may want to put it back.
pub const ASIDE_AGE_MIN: Duration = Duration::from_secs(30 * 86_400);

const FILES: &str = "files";
const DAMAGED: &str = "damaged";
/// A file that is not what its name says is read so often before that is believed.
const READS: u32 = 2;
/// So often the manifests are listed while some of them go.
const LISTINGS_MAX: u32 = 5;
const COPY_BYTES: usize = 1 << 20;
/// Files that are removed after one look.
const SWEPT_AT_ONCE: usize = 50;

/// Why a snapshot could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not what it was when it was written; another one may be.
    #[error("the snapshot is damaged: {0}")]
    Damaged(String),
    /// Something of it is not there, or not any more.
    #[error("the snapshot is damaged: {0} is missing")]
    Missing(String),
    /// Written by a newer version.
    #[error("snapshot format {0} is not known")]
    Format(u32),
    /// Where it rests cannot be read or written now.
    #[error("{0}: {1}")]
    Io(String, String),
    /// Whoever asked for it wants it no longer; nothing of it counts.
    #[error("the snapshot was given up before its end")]
    GivenUp,
    /// It took longer than [`TAKE_MAX`], so that its first files may be gone; nothing of it counts.
    #[error("the snapshot was not written within {} minutes", TAKE_MAX.as_secs() / 60)]
    Slow,
}

/// The digests of SST files that were hashed before, by name and length. Valid while one store stays open: only then is a name
/// given once.
#[derive(Debug, Default)]
pub struct Hashed(HashMap<(String, u64), [u8; 32]>);

/// A snapshot that was taken, and what that cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its name.
    pub name: Name,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub taken_ms: i64,
    /// Files that were put.
    pub files_put: u64,
    /// Their bytes.
    pub bytes_put: u64,
    /// Files that were there, of an earlier snapshot.
    pub files_reused: u64,
}

/// The objects in the directory `root`, which is made when the first one is written.
pub fn in_directory(root: &Path) -> Arc<dyn Objects> {
    Arc::new(Directory::new(root, true))
}

/// The objects in the directory `root` of somebody else's, which is an error where it is not there: a mount that is missing would
/// otherwise be taken for an empty place.
pub fn in_shared_directory(root: &Path) -> Arc<dyn Objects> {
    Arc::new(Directory::new(root, false))
}

/// The snapshots of an application.
#[derive(Debug, Clone)]
pub struct Snapshots {
    objects: Arc<dyn Objects>,
    take_max: Duration,
}

impl Snapshots {
    /// The snapshots that rest in these objects.
    pub fn new(objects: Arc<dyn Objects>) -> Snapshots {
        Snapshots { objects, take_max: TAKE_MAX }
    }

    /// The same, of which none may take longer than this, [`TAKE_MAX`] at most.
    pub fn taken_within(self, take_max: Duration) -> Snapshots {
        Snapshots { take_max: take_max.min(TAKE_MAX), ..self }
    }

    /// Where they are.
    pub fn place(&self) -> String {
        self.objects.place()
    }

    /// Keeps the store that was copied into `checkpoint` at `taken_ms` and stands at `head`, whose block lies at `journal_offset`.
    ///
    /// The same block of the same life of a lane is kept once. It is given up, between two files, where `goes_on` says no.
    pub fn take(
        &self,
        checkpoint: &Path,
        (head, journal_offset): (Head, u64),
        taken_ms: i64,
        hashed: &mut Hashed,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Taken, Error> {
        let begun = Instant::now();
        let there = self.there(&head)?;
        let mut taken = Taken { name: Name::of(&head), taken_ms, files_put: 0, bytes_put: 0, files_reused: 0 };
        let (mut files, mut known) = (Vec::new(), HashMap::new());
        for name in file_names(checkpoint)? {
            if !goes_on() {
                return Err(Error::GivenUp);
            }
            let path = checkpoint.join(&name);
            let bytes = std::fs::metadata(&path).map_err(io_error(&path))?.len();
            let place = (name, bytes);
            let sha256 = match hashed.0.get(&place) {
                Some(sha256) => *sha256,
                None => digest(&path)?,
            };
            let entry = Entry { name: place.0.clone(), bytes, sha256 };
            if self.put_unless_there(&entry, &path, &there)? {
                taken.files_put += 1;
                taken.bytes_put += bytes;
            } else {
                taken.files_reused += 1;
            }
            files.push(entry);
            if is_immutable(&place.0) {
                known.insert(place, sha256);
            }
        }
        hashed.0 = known;
        let name = taken.name.to_string();
        let is_late = || self.take_max <= begun.elapsed();
        if is_late() {
            return Err(Error::Slow);
        }
        let manifest = Manifest { head, journal_offset, taken_ms, files };
        // A process may stand still at any time, and here what it has put may go meanwhile.
        match self.objects.create(&name, &manifest.encode())? {
            true if is_late() => {
                self.objects.delete(&name)?;
                return Err(Error::Slow);
            }
            true => {}
            // It was kept before, or by an attempt whose answer was lost; a place that says so without having it is not believed.
            false => drop(self.manifest(&taken.name)?),
        }
        Ok(taken)
    }

    /// What is there of the files, and whether an earlier snapshot of the same partition names it.
    fn there(&self, head: &Head) -> Result<BTreeMap<String, There>, Error> {
        let mut named = BTreeMap::new();
        for name in self.list(head.generation, head.partition)? {
            match self.manifest(&name) {
                Ok(manifest) => named.extend(manifest.files.iter().map(|entry| (object(&entry.sha256), entry.bytes))),
                // What cannot be read keeps nothing, and what is newer speaks for itself.
                Err(Error::Damaged(_) | Error::Missing(_) | Error::Format(_)) => {}
                Err(other) => return Err(other),
            }
        }
        let found = self.objects.list(FILES)?.into_iter();
        Ok(found
            .map(|Found { name, bytes, .. }| {
                let is_named = named.contains_key(&name);
                (name, There { bytes, is_named })
            })
            .collect())
    }

    /// Puts a file, unless an earlier snapshot keeps it where it is; says whether it did.
    fn put_unless_there(&self, entry: &Entry, path: &Path, there: &BTreeMap<String, There>) -> Result<bool, Error> {
        let object = object(&entry.sha256);
        match there.get(&object) {
            Some(There { bytes, .. }) if *bytes != entry.bytes => drop(self.set_aside(&entry.sha256)?),
            Some(There { is_named: true, .. }) => return Ok(false),
            _ => {}
        }
        self.objects.put(&object, path)?;
        Ok(true)
    }

    /// The snapshots of a partition by name, the newest first. Other files beside them are passed over.
    pub fn list(&self, generation: Generation, partition: u32) -> Result<Vec<Name>, Error> {
        let found = self.objects.list(&format!("{generation}/{partition}"))?;
        let mut names: Vec<Name> = found.iter().filter_map(|found| Name::parse(&found.name)).collect();
        names.sort_unstable_by(|one, other| other.cmp(one));
        Ok(names)
    }

    /// What a snapshot consists of, checked against its own checksum and its name.
    pub fn manifest(&self, name: &Name) -> Result<Manifest, Error> {
        let mut bytes = Vec::new();
        let text = name.to_string();
        self.objects.get(&text)?.read_to_end(&mut bytes).map_err(io_error(Path::new(&text)))?;
        let manifest = Manifest::decode(&bytes)?;
        if Name::of(&manifest.head) != *name {
            return Err(Error::Damaged(format!("{name} names {}", Name::of(&manifest.head))));
        }
        Ok(manifest)
    }

    /// Copies the snapshot of this manifest into the new directory `into`, hashing every file on the way; durable when it returns.
    /// It is given up, between two files, where `goes_on` says no.
    pub fn copy_out(&self, manifest: &Manifest, into: &Path, goes_on: &dyn Fn() -> bool) -> Result<(), Error> {
        std::fs::create_dir_all(into).map_err(io_error(into))?;
        for entry in &manifest.files {
            if !goes_on() {
                return Err(Error::GivenUp);
            }
            let path = into.join(&entry.name);
            let mut file = File::create_new(&path).map_err(io_error(&path))?;
            self.copy(entry, &mut file)?;
            file.sync_all().map_err(io_error(&path))?;
        }
        directory::sync(into)
    }

    /// Copies one file. One that is not what its name says, however often it is read, would be taken for good by the next snapshot
    /// that holds the same file: it is moved aside, not removed, because the disk may have read it wrongly.
    fn copy(&self, entry: &Entry, out: &mut File) -> Result<(), Error> {
        let object = object(&entry.sha256);
        for _ in 0..READS {
            let mut source = self.objects.get(&object)?;
            let copied = out.set_len(0).and_then(|()| out.rewind()).and_then(|()| hash_through(&mut source, out));
            if copied.map_err(io_error(Path::new(&object)))? == (entry.bytes, entry.sha256) {
                return Ok(());
            }
        }
        let whereabouts = match self.set_aside(&entry.sha256) {
            Ok(aside) => format!("it lies in {aside} now"),
            Err(cause) => format!("it could not be moved aside: {cause}"),
        };
        Err(Error::Damaged(format!("{} is not what its manifest says; {whereabouts}", entry.name)))
    }

    /// Moves a file that is not what its name says to where nobody takes it for good, and says where that is.
    fn set_aside(&self, sha256: &[u8; 32]) -> Result<String, Error> {
        let aside = format!("{DAMAGED}/{}", sealed::hex(sha256));
        self.objects.rename(&object(sha256), &aside)?;
        Ok(aside)
    }

    /// Removes all but the newest [`KEPT`] manifests of a partition, and the newest one that the journal, which begins with block
    /// `begins`, goes on from: what was trimmed below it can be had from nothing else, and it was read back for that, as the newer ones
    /// were not yet. Where that one has gone while the journal was trimmed, the oldest one takes its place: it was read with it.
    /// Those that are being read are spared.
    pub fn prune(&self, generation: Generation, partition: u32, begins: u64, read: &[Name]) -> Result<(), Error> {
        let names = self.list(generation, partition)?;
        let base = names.iter().find(|name| name.block <= begins).or(names.last().filter(|_| 0 < begins));
        let base = base.map(|name| name.block);
        for old in names.iter().skip(KEPT).filter(|name| Some(name.block) != base && !read.contains(name)) {
            self.objects.delete(&old.to_string())?;
        }
        Ok(())
    }

    /// Removes one manifest: what it names is a snapshot no more.
    pub fn forget(&self, name: &Name) -> Result<(), Error> {
        self.objects.delete(&name.to_string())
    }

    /// Removes the files that no manifest of any generation names and that are older than [`UNNAMED_AGE_MIN`], and those that were
    /// moved aside [`ASIDE_AGE_MIN`] ago, and says how many.
    ///
    /// A manifest that is of a newer format, or damaged, may name any of them: then all stay.
    pub fn sweep(&self, now: SystemTime) -> Result<u64, Error> {
        let is_older = |put_at: SystemTime, age_min| now.duration_since(put_at).is_ok_and(|age| age_min <= age);
        let listed = |folder, age_min| {
            let mut found = self.objects.list(folder)?;
            found.retain(|found| is_older(found.put_at, age_min));
            Ok::<Vec<Found>, Error>(found)
        };
        let (mut unnamed, aside) = (listed(FILES, UNNAMED_AGE_MIN)?, listed(DAMAGED, ASIDE_AGE_MIN)?);
        let named = self.named_files()?;
        unnamed.retain(|found| !named.contains(&found.name));
        let mut removed = 0;
        for some in unnamed.chunks(SWEPT_AT_ONCE) {
            // One that was put meanwhile is about to be named.
            let again = listed(FILES, UNNAMED_AGE_MIN)?;
            for found in some.iter().filter(|found| again.contains(found)) {
                self.objects.delete(&found.name)?;
                removed += 1;
            }
        }
        for found in &aside {
            self.objects.delete(&found.name)?;
            removed += 1;
        }
        Ok(removed)
    }

    fn named_files(&self) -> Result<BTreeSet<String>, Error> {
        let (mut named, mut seen) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..LISTINGS_MAX {
            let mut has_gone = false;
            for name in self.objects.list("")?.iter().filter_map(|found| Name::parse(&found.name)) {
                if !seen.insert(name) {
                    continue;
                }
                // One that is damaged may have been read wrongly, and its files may be whole: then all stay.
                let found = match self.manifest(&name) {
                    Err(Error::Damaged(_)) => self.manifest(&name),
                    found => found,
                };
                match found {
                    Ok(manifest) => named.extend(manifest.files.iter().map(|entry| object(&entry.sha256))),
                    // It was pruned since it was listed: one that has come since may name the same files.
                    Err(Error::Missing(_)) => has_gone = true,
                    Err(other) => return Err(other),
                }
            }
            if !has_gone {
                return Ok(named);
            }
        }
        Err(Error::Io(self.place(), "snapshots go faster than they can be listed".to_owned()))
    }

    /// Whether snapshots could be taken, read and pruned here, tried with a file that nothing names.
    ///
    /// # Errors
    /// The first of these that is not possible.
    pub fn probe(&self, id: &str) -> Result<(), Error> {
        let name = format!("{FILES}/probe-{id}");
        self.objects.list(&name)?;
        self.objects.create(&name, b"may be removed")?;
        io::copy(&mut self.objects.get(&name)?, &mut io::sink()).map_err(io_error(Path::new(&name)))?;
        self.objects.delete(&name)
    }
}

/// A file that is there.
struct There {
    bytes: u64,
    /// Whether an earlier snapshot of the partition keeps it.
    is_named: bool,
}

/// RocksDB writes an SST file once; the others of a checkpoint are small and are hashed each time.
fn is_immutable(name: &str) -> bool {
    name.ends_with(".sst")
}

fn object(sha256: &[u8; 32]) -> String {
    format!("{FILES}/{}", sealed::hex(sha256))
}

fn file_names(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io_error(dir))? {
        names.push(entry.map_err(io_error(dir))?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

fn digest(path: &Path) -> Result<[u8; 32], Error> {
    let mut file = File::open(path).map_err(io_error(path))?;
    let (_, sha256) = hash_through(&mut file, &mut io::sink()).map_err(io_error(path))?;
    Ok(sha256)
}

/// Copies everything and gives its length and SHA-256.
fn hash_through(source: &mut impl Read, out: &mut impl Write) -> io::Result<(u64, [u8; 32])> {
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut bytes = 0;
    loop {
        let count = source.read(&mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        sha256.update(read);
        out.write_all(read)?;
        bytes += count as u64;
    }
    Ok((bytes, sha256.finalize().into()))
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path: PathBuf = path.to_owned();
    move |error| Error::Io(path.display().to_string(), error.to_string())
}
