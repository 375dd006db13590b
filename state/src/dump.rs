//! A dump: the whole state of an application that stands still, in a directory, to be brought into other topics or another cluster.
//!
//! `{partition}.rows` holds the head and every row of one partition (see `file`), the manifest names all of them with their digests
//! and comes last: without it there is no dump. Neither offsets nor stamps mean anything elsewhere; heads are kept to tell which
//! state it is and whether it stood still. It depends on the state alone, so that the same state always gives the same [`Dump::id`].

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use self::file::{Reader, Writer};
pub use self::manifest::{Manifest, Part};
pub use self::tally::Tally;
use crate::journal::Generation;
use crate::snapshot::Objects;
use crate::snapshot::directory::Directory;
use crate::store::{self, Store};
use crate::{codec, snapshot};

mod file;
mod manifest;
mod tally;

const MANIFEST: &str = "manifest.json";

/// Why a dump cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is none, or its writer did not come to the end.
    #[error("{0} holds no dump that was finished")]
    Missing(String),
    /// There is something in its place.
    #[error("{0} is not empty")]
    Occupied(String),
    /// It is not what it was when it was written.
    #[error("the dump is damaged: {0}")]
    Damaged(String),
    /// Written by a newer version.
    #[error("dump format {0} is not known")]
    Format(u32),
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The directory cannot be read or written.
    #[error("{0}: {1}")]
    Io(String, String),
}

impl From<codec::Error> for Error {
    fn from(error: codec::Error) -> Error {
        Error::Damaged(error.to_string())
    }
}

impl From<snapshot::Error> for Error {
    fn from(error: snapshot::Error) -> Error {
        match error {
            snapshot::Error::Io(path, error) => Error::Io(path, error),
            other => Error::Damaged(other.to_string()),
        }
    }
}

/// Takes a row: its partition, key and value.
pub type Visit<'a, E> = &'a mut dyn FnMut(u32, &[u8], &[u8]) -> Result<(), E>;

/// A dump that was finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    dir: PathBuf,
    manifest: Manifest,
}

impl Dump {
    /// Writes the stores of all partitions, in order, into `dir`, which must be empty or not there. The prefix is told, no more.
    pub fn write(dir: &Path, prefix: &str, stores: &[&dyn Store]) -> Result<Dump, Error> {
        std::fs::create_dir_all(dir).map_err(io_error(dir))?;
        if std::fs::read_dir(dir).map_err(io_error(dir))?.next().is_some() {
            return Err(Error::Occupied(dir.display().to_string()));
        }
        let mut parts = Vec::with_capacity(stores.len());
        for (partition, store) in (0..).zip(stores) {
            parts.push(write_part(dir, partition, *store)?);
        }
        let generation = parts.first().map_or(Generation::default(), |part: &Part| part.head.generation);
        let is_foreign = |(part, id): &(&Part, u32)| part.head.partition != *id || part.head.generation != generation;
        if let Some((part, id)) = parts.iter().zip(0..).find(is_foreign) {
            let (partition, generation) = (part.head.partition, part.head.generation);
            let cause = format!("the store of partition {id} is of partition {partition}, generation {generation}");
            return Err(store::Error::Corrupt(cause).into());
        }
        let manifest = Manifest { generation, prefix: prefix.to_owned(), parts };
        if !Directory::new(dir, true).create(MANIFEST, &manifest.encode())? {
            return Err(Error::Occupied(dir.display().to_string()));
        }
        Ok(Dump { dir: dir.to_owned(), manifest })
    }

    /// Opens a dump. Its files are believed once they have been [checked](Dump::check).
    pub fn open(dir: &Path) -> Result<Dump, Error> {
        let path = dir.join(MANIFEST);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Error::Missing(dir.display().to_string())),
            other => other.map_err(io_error(&path))?,
        };
        Ok(Dump { dir: dir.to_owned(), manifest: Manifest::decode(&bytes)? })
    }

    /// What it consists of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Names the state that it holds: the same state gives the same id, wherever and whenever it is dumped.
    pub fn id(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(b"finflow dump 1");
        digest.update(self.manifest.generation.0);
        self.manifest.parts.iter().for_each(|part| digest.update(part.sha256));
        digest.finalize().into()
    }

    /// Reads every file once and compares it with the manifest.
    pub fn check(&self) -> Result<(), Error> {
        for part in &self.manifest.parts {
            let (mut reader, mut tally) = (self.reader(part)?, Tally::default());
            while let Some(frame) = reader.next_frame()? {
                frame.rows().for_each(|(key, value)| tally.add(key, value));
            }
            let (bytes, sha256) = reader.finish()?;
            if (bytes, sha256) != (part.bytes, part.sha256) || tally != part.rows {
                return Err(Error::Damaged(format!("{} is not what the manifest says", file_name(part.head.partition))));
            }
        }
        Ok(())
    }

    /// Calls `visit` with every row, partition by partition, tables by tag and rows by key: always in the same order. About
    /// [`file::FRAME_BYTES`] are held at a time.
    pub fn visit<E: From<Error>>(&self, visit: Visit<'_, E>) -> Result<(), E> {
        for part in &self.manifest.parts {
            let mut reader = self.reader(part)?;
            while let Some(frame) = reader.next_frame()? {
                for (key, value) in frame.rows() {
                    visit(part.head.partition, key, value)?;
                }
            }
        }
        Ok(())
    }

    fn reader(&self, part: &Part) -> Result<Reader, Error> {
        let reader = Reader::open(&self.dir.join(file_name(part.head.partition)))?;
        if *reader.head() == part.head { Ok(reader) } else { Err(Error::Damaged("a file is of another state".to_owned())) }
    }
}

fn write_part(dir: &Path, partition: u32, store: &dyn Store) -> Result<Part, Error> {
    let head = store.head().ok_or_else(|| store::Error::Corrupt("it has no head".to_owned()))?;
    let mut writer = Writer::create(&dir.join(file_name(partition)), &head)?;
    let mut rows = Tally::default();
    store::visit_raw(store, |key, value| {
        rows.add(key, value);
        writer.row(key, value)
    })?;
    let (bytes, sha256) = writer.finish()?;
    Ok(Part { head, bytes, sha256, rows })
}

fn file_name(partition: u32) -> String {
    format!("{partition}.rows")
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |error| Error::Io(path, error.to_string())
}

#[cfg(test)]
mod tests;
