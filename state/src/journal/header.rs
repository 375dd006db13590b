//! The header of a block: which block it is, whose, and how far it consumed the partition's inputs.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One life of the application's topics: a random 128-bit id, given when they are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub [u8; 16]);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The stamp of an epoch: which lane, which life of it, which of its epochs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The lane's name, which is its transactional id.
    pub lane: Arc<str>,
    /// A random number for each life of the lane.
    pub incarnation: u64,
    /// The epoch's number in that life.
    pub counter: u64,
}

impl Stamp {
    /// The stamp of block 0, before any lane.
    pub fn genesis() -> Stamp {
        Stamp { lane: Arc::from("genesis"), incarnation: 0, counter: 0 }
    }

    /// The stamp written as `lane/incarnation/counter`.
    pub fn parse(text: &str) -> Option<Stamp> {
        let mut parts = text.rsplitn(3, '/');
        let counter = parts.next()?.parse().ok()?;
        let incarnation = u64::from_str_radix(parts.next()?, 16).ok()?;
        Some(Stamp { lane: Arc::from(parts.next()?), incarnation, counter })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}/{}", self.lane, self.incarnation, self.counter)
    }
}

/// The next offsets to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Positions {
    /// In `commands`.
    pub commands: u64,
    /// In `postings`.
    pub postings: u64,
}

/// A block's header. `sent` and `received` hold the last sequence of each pair that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The application's generation.
    pub generation: Generation,
    /// The partition.
    pub partition: u32,
    /// The block's number; 0 is written when the topics are created.
    pub number: u64,
    /// The epoch that wrote it.
    pub stamp: Stamp,
    /// The stamp of the block before.
    pub previous: Stamp,
    /// When it was decided, in milliseconds since 1970-01-01 UTC; never before the block before.
    pub at_ms: i64,
    /// How far the inputs are consumed.
    pub positions: Positions,
    /// Destination partition and last sequence sent to it.
    pub sent: Vec<(u32, u64)>,
    /// Source partition and last sequence received from it.
    pub received: Vec<(u32, u64)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct HeaderV1<'a> {
    generation: [u8; 16],
    partition: u32,
    number: u64,
    #[serde(borrow)]
    stamp: (&'a str, u64, u64),
    #[serde(borrow)]
    previous: (&'a str, u64, u64),
    at_ms: i64,
    commands: u64,
    postings: u64,
    sent: Vec<(u32, u64)>,
    received: Vec<(u32, u64)>,
}

impl Header {
    pub(super) fn to_v1(&self) -> HeaderV1<'_> {
        let stamp = |stamp: &'_ Stamp| (stamp.incarnation, stamp.counter);
        let (incarnation, counter) = stamp(&self.stamp);
        let (previous_incarnation, previous_counter) = stamp(&self.previous);
        HeaderV1 {
            generation: self.generation.0,
            partition: self.partition,
            number: self.number,
            stamp: (&self.stamp.lane, incarnation, counter),
            previous: (&self.previous.lane, previous_incarnation, previous_counter),
            at_ms: self.at_ms,
            commands: self.positions.commands,
            postings: self.positions.postings,
            sent: self.sent.clone(),
            received: self.received.clone(),
        }
    }
}

impl From<HeaderV1<'_>> for Header {
    fn from(row: HeaderV1<'_>) -> Header {
        let stamp = |(lane, incarnation, counter): (&str, u64, u64)| Stamp { lane: lane.into(), incarnation, counter };
        Header {
            generation: Generation(row.generation),
            partition: row.partition,
            number: row.number,
            stamp: stamp(row.stamp),
            previous: stamp(row.previous),
            at_ms: row.at_ms,
            positions: Positions { commands: row.commands, postings: row.postings },
            sent: row.sent,
            received: row.received,
        }
    }
}
