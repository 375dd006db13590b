//! Snapshots: whole copies of a partition's store, kept apart from it, from which it is restored without replaying its journal.
//!
//! `files/{sha256}` holds each file once, named by what it contains: SST files never change, so only new ones move. The manifest
//! `{generation}/{partition}/{block}-{incarnation}.json` comes last and only if it is not there yet; without it there is no
//! snapshot. Nothing is believed when it is read back: every file is hashed on its way out, and the opened store must stand at the
//! block that the manifest names. A file that is not what its name says is moved to `damaged/{sha256}`.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use self::directory::Directory;
pub use self::manifest::{Entry, Manifest, Name};
use crate::journal::{Generation, Head};
use crate::sealed;

pub(crate) mod directory;
mod manifest;

/// Snapshots kept of each partition: should the newest be damaged, there is the one before.
pub const KEPT: usize = 2;
/// A file that no manifest names stays so long, because the manifest that will name it may be on its way.
pub const UNNAMED_AGE_MIN: Duration = Duration::from_secs(3_600);

/// A file that was moved aside stays so long: it may be whole after all, and somebody may want to put it back.
pub const ASIDE_AGE_MIN: Duration = Duration::from_secs(30 * 86_400);

const FILES: &str = "files";
const DAMAGED: &str = "damaged";
/// A file that is not what its name says is read so often before that is believed.
const READS: u32 = 2;
const COPY_BYTES: usize = 1 << 20;

/// Why a snapshot could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not what it was when it was written; another one may be.
    #[error("the snapshot is damaged: {0}")]
    Damaged(String),
    /// Written by a newer version.
    #[error("snapshot format {0} is not known")]
    Format(u32),
    /// Where it rests cannot be read or written now.
    #[error("{0}: {1}")]
    Io(String, String),
    /// Whoever asked for it wants it no longer; nothing of it counts.
    #[error("the snapshot was given up before its end")]
    GivenUp,
}

/// The digests of SST files that were hashed before, by name and length. Valid while one store stays open: only then is a name
/// given once.
#[derive(Debug, Default)]
pub struct Hashed(HashMap<(String, u64), [u8; 32]>);

/// The snapshots of an application in a directory.
#[derive(Debug, Clone)]
pub struct Snapshots {
    directory: Directory,
}

impl Snapshots {
    /// The snapshots below `root`, which is made when the first one is taken.
    pub fn new(root: &Path) -> Snapshots {
        Snapshots { directory: Directory::new(root) }
    }

    /// Where they are.
    pub fn root(&self) -> &Path {
        self.directory.root()
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
    ) -> Result<Name, Error> {
        let mut files = Vec::new();
        let mut known = HashMap::new();
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
            self.directory.put(&object(&sha256), &path)?;
            files.push(Entry { name: place.0.clone(), bytes, sha256 });
            if is_immutable(&place.0) {
                known.insert(place, sha256);
            }
        }
        hashed.0 = known;
        let name = Name::of(&head);
        let manifest = Manifest { head, journal_offset, taken_ms, files };
        self.directory.create(&name.to_string(), &manifest.encode())?;
        Ok(name)
    }

    /// The snapshots of a partition by name, the newest first. Other files beside them are passed over.
    pub fn list(&self, generation: Generation, partition: u32) -> Result<Vec<Name>, Error> {
        let found = self.directory.list(&format!("{generation}/{partition}"))?;
        let mut names: Vec<Name> = found.iter().filter_map(|(name, _)| Name::parse(name)).collect();
        names.sort_unstable_by(|one, other| other.cmp(one));
        Ok(names)
    }

    /// What a snapshot consists of, checked against its own checksum and its name.
    pub fn manifest(&self, name: &Name) -> Result<Manifest, Error> {
        let mut bytes = Vec::new();
        let text = name.to_string();
        self.directory.get(&text)?.read_to_end(&mut bytes).map_err(io_error(Path::new(&text)))?;
        let manifest = Manifest::decode(&bytes)?;
        if Name::of(&manifest.head) != *name {
            return Err(Error::Damaged(format!("{name} names {}", Name::of(&manifest.head))));
        }
        Ok(manifest)
    }

    /// Copies a snapshot into the new directory `into`, hashing every file on the way; durable when it returns. It is given up, between
    /// two files, where `goes_on` says no.
    pub fn copy_out(&self, name: &Name, into: &Path, goes_on: &dyn Fn() -> bool) -> Result<Manifest, Error> {
        let manifest = self.manifest(name)?;
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
        directory::sync(into)?;
        Ok(manifest)
    }

    /// Copies one file. One that is not what its name says, however often it is read, would be taken for good by the next snapshot
    /// that holds the same file: it is moved aside, not removed, because the disk may have read it wrongly.
    fn copy(&self, entry: &Entry, out: &mut File) -> Result<(), Error> {
        let object = object(&entry.sha256);
        for _ in 0..READS {
            let mut source = self.directory.get(&object)?;
            let copied = out.set_len(0).and_then(|()| out.rewind()).and_then(|()| hash_through(&mut source, out));
            if copied.map_err(io_error(Path::new(&object)))? == (entry.bytes, entry.sha256) {
                return Ok(());
            }
        }
        let aside = format!("{DAMAGED}/{}", sealed::hex(&entry.sha256));
        self.directory.rename(&object, &aside)?;
        Err(Error::Damaged(format!("{} is not what its manifest says; it lies in {aside} now", entry.name)))
    }

    /// Removes all but the newest [`KEPT`] manifests of a partition, and the newest one that the journal, which begins with block
    /// `begins`, goes on from: what was trimmed below it can be had from nothing else, and it was read back for that, as the newer ones
    /// were not yet. Where that one has gone while the journal was trimmed, the oldest one takes its place: it was read with it.
    pub fn prune(&self, generation: Generation, partition: u32, begins: u64) -> Result<(), Error> {
        let names = self.list(generation, partition)?;
        let base = names.iter().find(|name| name.block <= begins).or(names.last().filter(|_| 0 < begins));
        let base = base.map(|name| name.block);
        for old in names.iter().skip(KEPT).filter(|name| Some(name.block) != base) {
            self.directory.delete(&old.to_string())?;
        }
        Ok(())
    }

    /// Removes one manifest: what it names is a snapshot no more.
    pub fn forget(&self, name: &Name) -> Result<(), Error> {
        self.directory.delete(&name.to_string())
    }

    /// Removes the files that no manifest of any generation names and that are older than [`UNNAMED_AGE_MIN`], and those that were
    /// moved aside [`ASIDE_AGE_MIN`] ago, and says how many.
    ///
    /// A manifest of a newer format may name any of them: then all stay.
    pub fn sweep(&self, now: SystemTime) -> Result<u64, Error> {
        let (unnamed, aside) = (self.directory.list(FILES)?, self.directory.list(DAMAGED)?);
        let named = self.named_files()?;
        let is_older = |touched: SystemTime, age_min| now.duration_since(touched).is_ok_and(|age| age_min <= age);
        let unnamed = unnamed.iter().filter(|(file, touched)| is_older(*touched, UNNAMED_AGE_MIN) && !named.contains(file));
        let aside = aside.iter().filter(|(_, touched)| is_older(*touched, ASIDE_AGE_MIN));
        let mut removed = 0;
        for (file, touched) in unnamed.chain(aside) {
            // Another process may have put it once more meanwhile, and is about to name it.
            if self.directory.touched(file)? == Some(*touched) {
                self.directory.delete(file)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn named_files(&self) -> Result<BTreeSet<String>, Error> {
        let mut named = BTreeSet::new();
        for name in self.directory.list("")?.iter().filter_map(|(name, _)| Name::parse(name)) {
            match self.manifest(&name) {
                Ok(manifest) => named.extend(manifest.files.iter().map(|entry| object(&entry.sha256))),
                // It restores nothing, so it keeps nothing; or it was pruned since it was listed.
                Err(Error::Damaged(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(named)
    }
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

#[cfg(test)]
mod tests;
