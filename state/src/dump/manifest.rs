//! The manifest of a dump: which state it is, and its files. Sealed JSON.

use serde::{Deserialize, Serialize};

use super::{Error, Tally};
use crate::journal::{Generation, Head};
use crate::sealed::{self, Broken, HeadV1, hex, unhex};

const FORMAT: u32 = 1;

/// What a dump consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The application's generation.
    pub generation: Generation,
    /// The prefix of its topics.
    pub prefix: String,
    /// The files, by partition.
    pub parts: Vec<Part>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where it stood.
    pub head: Head,
    /// The length of its file.
    pub bytes: u64,
    /// The file's SHA-256.
    pub sha256: [u8; 32],
    /// What its rows add up to.
    pub rows: Tally,
}

#[derive(Serialize, Deserialize)]
struct ManifestV1 {
    format: u32,
    generation: String,
    prefix: String,
    parts: Vec<PartV1>,
}

#[derive(Serialize, Deserialize)]
struct PartV1 {
    #[serde(flatten)]
    head: HeadV1,
    bytes: u64,
    sha256: String,
    wallets: u64,
    payments: u64,
    holds: u64,
    timers: u64,
    content: String,
}

impl Manifest {
    /// What all rows add up to.
    pub fn rows(&self) -> Tally {
        let mut all = Tally::default();
        self.parts.iter().for_each(|part| all.merge(&part.rows));
        all
    }

    /// The time of the newest block, in milliseconds since 1970-01-01 UTC.
    pub fn at_ms(&self) -> i64 {
        self.parts.iter().map(|part| part.head.at_ms).max().unwrap_or_default()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        sealed::seal(&ManifestV1 {
            format: FORMAT,
            generation: self.generation.to_string(),
            prefix: self.prefix.clone(),
            parts: self.parts.iter().map(PartV1::from).collect(),
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, Error> {
        let row: ManifestV1 = sealed::unseal(bytes, FORMAT).map_err(|broken| match broken {
            Broken::Damaged(what) => Error::Damaged(format!("its manifest {what}")),
            Broken::Format(format) => Error::Format(format),
        })?;
        let unknown = |what: &str| Error::Damaged(format!("its manifest does not name {what}"));
        let generation = Generation(unhex(&row.generation).ok_or_else(|| unknown("a generation"))?);
        let part = |(due, row): (u32, PartV1)| row.prove(due, generation).map_err(unknown);
        let parts = (0..).zip(row.parts).map(part).collect::<Result<Vec<Part>, Error>>()?;
        Ok(Manifest { generation, prefix: row.prefix, parts })
    }
}

impl From<&Part> for PartV1 {
    fn from(part: &Part) -> PartV1 {
        let (head, rows) = (&part.head, &part.rows);
        PartV1 {
            head: HeadV1::from(head),
            bytes: part.bytes,
            sha256: hex(&part.sha256),
            wallets: rows.wallets,
            payments: rows.payments,
            holds: rows.holds,
            timers: rows.timers,
            content: hex(&rows.content.to_be_bytes()),
        }
    }
}

impl PartV1 {
    /// The part of partition `due`, or what is not named.
    fn prove(self, due: u32, generation: Generation) -> Result<Part, &'static str> {
        if self.head.partition != due {
            return Err("every partition");
        }
        let head = self.head.prove(generation)?;
        let content = u128::from_be_bytes(unhex(&self.content).ok_or("its rows")?);
        let rows = Tally { wallets: self.wallets, payments: self.payments, holds: self.holds, timers: self.timers, content };
        Ok(Part { head, bytes: self.bytes, sha256: unhex(&self.sha256).ok_or("a digest")?, rows })
    }
}
