//! Bugs on purpose: what the engine would do if one of its guards were missing, brought about from outside of it.
//!
//! The production code has no switch for any of this; a store or a transaction is wrapped or altered on its way.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use finflow_state::store::{Error, RawRow};
use finflow_state::{EncodedBlock, Head, MemoryStore, Store, Tag};

use crate::log::{Outgoing, Record, Transaction};
use crate::topics::Topic;
use crate::wire::v1::{Posting, PostingBody};

/// A bug that the simulator must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// After a crash the dedup entries are not looked at.
    DedupSkippedOnReplay,
    /// A block reaches the store before the log has committed it.
    StoreBeforeCommit,
    /// A posting is delivered twice, and nobody looks at its sequence.
    SequenceUnchecked,
    /// A block lacks one of the rows that its epoch changed.
    EntityMissing,
}

/// The bug of a seed and what it has done so far.
pub(super) struct Plant {
    pub(super) planted: Option<Planted>,
    is_done: bool,
    /// By how much the sequences of a pair are off.
    shifts: BTreeMap<(u32, u32), u64>,
}

impl Plant {
    pub(super) fn new(planted: Option<Planted>) -> Plant {
        Plant { planted, is_done: false, shifts: BTreeMap::new() }
    }

    /// The store as a node gets it.
    pub(super) fn store(&self, inner: Arc<MemoryStore>, after_crash: bool) -> Arc<dyn Store> {
        match self.planted {
            Some(Planted::DedupSkippedOnReplay) if after_crash => Arc::new(Wrapped { inner, forgets: true }),
            Some(Planted::StoreBeforeCommit) => Arc::new(Wrapped { inner, forgets: false }),
            _ => inner,
        }
    }

    /// Alters a transaction that is about to be committed; `takes` says that the log is going to take it.
    pub(super) fn tamper(&mut self, transaction: &mut Transaction, takes: bool, rng: &mut Rng) {
        match self.planted {
            Some(Planted::SequenceUnchecked) => self.repeat(transaction, takes),
            Some(Planted::EntityMissing) if takes && !self.is_done => self.is_done = drop_row(transaction, rng).is_some(),
            _ => {}
        }
    }

    fn repeat(&mut self, transaction: &mut Transaction, takes: bool) {
        for batch in transaction.batches.iter_mut().filter(|batch| batch.topic == Topic::Postings) {
            let mut postings: Vec<Posting> = batch.records.iter().filter_map(decode).collect();
            for posting in &mut postings {
                posting.sequence += self.shifts.get(&(posting.source, posting.destination)).copied().unwrap_or_default();
            }
            let credit = postings.iter().find(|posting| matches!(posting.body, PostingBody::Credit(_))).cloned();
            if let Some(mut credit) = credit.filter(|_| takes && !self.is_done) {
                let pair = postings.iter().filter(|posting| posting.source == credit.source);
                credit.sequence = pair.map(|posting| posting.sequence).max().unwrap_or_default() + 1;
                self.shifts.insert((credit.source, credit.destination), 1);
                self.is_done = true;
                postings.push(credit);
            }
            batch.records = postings.iter().map(Posting::encode).collect();
        }
    }
}

/// The journal blocks of a transaction.
pub(super) fn blocks(transaction: &Transaction) -> Vec<EncodedBlock> {
    let journal = transaction.batches.iter().filter(|batch| batch.topic == Topic::Journal);
    let values = journal.flat_map(|batch| batch.records.iter().filter_map(|record| record.value.clone()));
    values.filter_map(|value| EncodedBlock::parse(value).ok()).collect()
}

fn decode(record: &Outgoing) -> Option<Posting> {
    let Outgoing { key, value, headers } = record.clone();
    Posting::decode(&Record { offset: 0, timestamp_ms: 0, key, value, headers }).ok()
}

/// Writes a block of the transaction again without one of its rows.
fn drop_row(transaction: &mut Transaction, rng: &mut Rng) -> Option<()> {
    let record = transaction.batches.iter_mut().filter(|batch| batch.topic == Topic::Journal).find_map(|batch| {
        let record = batch.records.first_mut()?;
        let block = EncodedBlock::parse(record.value.clone()?).ok()?;
        (0 < block.rows().count()).then_some((record, block))
    });
    let (record, block) = record?;
    let missing = rng.usize(..block.rows().count());
    let header_bytes = u32::from_le_bytes(block.bytes().get(1..5)?.try_into().ok()?) as usize;
    let mut bytes = block.bytes().get(..5 + header_bytes)?.to_vec();
    for (_, (key, value)) in block.rows().enumerate().filter(|(index, _)| *index != missing) {
        bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&value.map_or(0, |value| value.len() as u32 + 1).to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value.unwrap_or_default());
    }
    let checksum = crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    let bytes = EncodedBlock::parse(Bytes::from(bytes)).ok()?.bytes().clone();
    record.value = Some(bytes);
    Some(())
}

fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

/// A store that forgets payments, or else one that takes a block it already holds for granted.
struct Wrapped {
    inner: Arc<MemoryStore>,
    forgets: bool,
}

impl Store for Wrapped {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if self.forgets && key.first() == Some(&(Tag::Payments as u8)) {
            return Ok(None);
        }
        self.inner.get(key)
    }

    fn head(&self) -> Option<Head> {
        self.inner.head()
    }

    fn apply(&self, blocks: &[EncodedBlock]) -> Result<(), Error> {
        if self.forgets {
            return self.inner.apply(blocks);
        }
        let held = self.inner.head().map(|head| head.number);
        let new: Vec<EncodedBlock> = blocks.iter().filter(|block| held < Some(block.header().number)).cloned().collect();
        self.inner.apply(&new)
    }

    fn scan(&self, tag: Tag, after: Option<&[u8]>, limit: usize) -> Result<Vec<RawRow>, Error> {
        self.inner.scan(tag, after, limit)
    }

    fn flush(&self) -> Result<(), Error> {
        self.inner.flush()
    }

    fn checkpoint(&self, into: &Path) -> Result<Option<Head>, Error> {
        self.inner.checkpoint(into)
    }
}
