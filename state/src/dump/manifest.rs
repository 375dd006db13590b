//! The manifest of a dump: which state it is, and its files. Sealed JSON.

use serde::{Deserialize, Serialize};

use super::{Error, Tally};
use crate::journal::{Generation, Head, Positions, Stamp};
use crate::sealed::{self, Broken, hex, unhex};

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
    partition: u32,
    block: u64,
    stamp: String,
    at_ms: i64,
    commands: u64,
    postings: u64,
    sent: Vec<(u32, u64)>,
    received: Vec<(u32, u64)>,
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
            partition: head.partition,
            block: head.number,
            stamp: head.stamp.to_string(),
            at_ms: head.at_ms,
            commands: head.positions.commands,
            postings: head.positions.postings,
            sent: head.sent.iter().map(|(to, sequence)| (*to, *sequence)).collect(),
            received: head.received.iter().map(|(from, sequence)| (*from, *sequence)).collect(),
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
        let head = Head {
            generation,
            partition: Some(self.partition).filter(|partition| *partition == due).ok_or("every partition")?,
            number: self.block,
            stamp: Stamp::parse(&self.stamp).ok_or("a stamp")?,
            at_ms: self.at_ms,
            positions: Positions { commands: self.commands, postings: self.postings },
            sent: self.sent.into_iter().collect(),
            received: self.received.into_iter().collect(),
        };
        let content = u128::from_be_bytes(unhex(&self.content).ok_or("its rows")?);
        let rows = Tally { wallets: self.wallets, payments: self.payments, holds: self.holds, timers: self.timers, content };
        Ok(Part { head, bytes: self.bytes, sha256: unhex(&self.sha256).ok_or("a digest")?, rows })
    }
}
