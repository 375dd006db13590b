//! The manifest of a snapshot: the head it stands at and its files. JSON, versioned, with a checksum of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::journal::{Generation, Head};
use crate::sealed::{self, Broken, HeadV1, hex, unhex};

const FORMAT: u32 = 1;

/// What a snapshot consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Where the partition stood.
    pub head: Head,
    /// Where the head's block lies in the journal.
    pub journal_offset: u64,
    /// When it was taken, in milliseconds since 1970-01-01 UTC.
    pub taken_ms: i64,
    /// The files of the store.
    pub files: Vec<Entry>,
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the store.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

/// The name of a snapshot. Those of one partition sort by block; the incarnation tells two lanes apart that wrote the same block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The application's generation.
    pub generation: Generation,
    /// The partition.
    pub partition: u32,
    /// The last block it contains.
    pub block: u64,
    /// The life of the lane that wrote that block.
    pub incarnation: u64,
}

#[derive(Serialize, Deserialize)]
struct ManifestV1 {
    format: u32,
    generation: String,
    #[serde(flatten)]
    head: HeadV1,
    journal_offset: u64,
    /// Not in the first manifests of this format.
    #[serde(default)]
    taken_ms: Option<i64>,
    files: Vec<EntryV1>,
}

#[derive(Serialize, Deserialize)]
struct EntryV1 {
    name: String,
    bytes: u64,
    sha256: String,
}

impl Manifest {
    /// The bytes that are stored.
    pub(super) fn encode(&self) -> Vec<u8> {
        let head = &self.head;
        let files = self.files.iter();
        let row = ManifestV1 {
            format: FORMAT,
            generation: head.generation.to_string(),
            head: HeadV1::from(head),
            journal_offset: self.journal_offset,
            taken_ms: Some(self.taken_ms),
            files: files.map(|file| EntryV1 { name: file.name.clone(), bytes: file.bytes, sha256: hex(&file.sha256) }).collect(),
        };
        sealed::seal(&row)
    }

    /// Reads what [`Manifest::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, Error> {
        let row: ManifestV1 = sealed::unseal(bytes, FORMAT).map_err(|broken| match broken {
            Broken::Damaged(what) => Error::Damaged(format!("its manifest {what}")),
            Broken::Format(format) => Error::Format(format),
        })?;
        row.try_into().map_err(|what| Error::Damaged(format!("its manifest does not name {what}")))
    }
}

impl TryFrom<ManifestV1> for Manifest {
    type Error = &'static str;

    fn try_from(row: ManifestV1) -> Result<Manifest, &'static str> {
        let head = row.head.prove(Generation(unhex(&row.generation).ok_or("a generation")?))?;
        let files = row.files.into_iter().map(|file| {
            let sha256 = unhex(&file.sha256).ok_or("a digest")?;
            let is_plain = !file.name.is_empty() && !file.name.starts_with('.') && !file.name.contains(['/', '\\']);
            is_plain.then_some(Entry { name: file.name, bytes: file.bytes, sha256 }).ok_or("a file")
        });
        let files = files.collect::<Result<_, _>>()?;
        // A snapshot is not older than its block.
        let taken_ms = row.taken_ms.unwrap_or(head.at_ms);
        Ok(Manifest { head, journal_offset: row.journal_offset, taken_ms, files })
    }
}

impl Name {
    /// The name of the snapshot that stands at `head`.
    pub fn of(head: &Head) -> Name {
        let Head { generation, partition, number: block, .. } = *head;
        Name { generation, partition, block, incarnation: head.stamp.incarnation }
    }

    /// The name written as [`Name`] is displayed; `None` for any other text.
    pub fn parse(text: &str) -> Option<Name> {
        let (generation, rest) = text.split_once('/')?;
        let (partition, rest) = rest.split_once('/')?;
        let (block, incarnation) = rest.strip_suffix(".json")?.split_once('-')?;
        let name = Name {
            generation: Generation(unhex(generation)?),
            partition: partition.parse().ok()?,
            block: block.parse().ok()?,
            incarnation: u64::from_str_radix(incarnation, 16).ok()?,
        };
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Name { generation, partition, block, incarnation } = self;
        write!(f, "{generation}/{partition}/{block:020}-{incarnation:016x}.json")
    }
}
