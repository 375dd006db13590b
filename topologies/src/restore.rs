//! Restoring a partition: its store, then the journal's blocks up to the one that the committed position names.
//!
//! A store that is ahead of the log, of another generation or of another chain is a [`Halt`]: it is never served and never wiped
//! silently. Journal offsets are never below block numbers, so reading begins at the offset that equals the store's block.

use finflow_state::{EncodedBlock, Generation, Head, Store, store};

use crate::halt::Halt;
use crate::log::{self, Headers, Log, Outgoing, Position, Record};
use crate::topics::Topic;

/// Journal bytes fetched at a time.
const FETCH_BYTES: usize = 4 * 1024 * 1024;

/// Why a partition cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The log cannot be read now.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The store failed; if it is corrupt, it can be rebuilt from the journal.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// State and log contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::State(error.to_string())
    }
}

/// Writes block 0 into the journal of every partition that has none. The generation is that of the first one found, else `fresh`.
pub fn create(log: &dyn Log, fresh: Generation, now_ms: i64) -> Result<Generation, log::Error> {
    let mut generation = None;
    let mut missing = Vec::new();
    for partition in 0..log.partitions() {
        let fetched = log.fetch(Topic::Journal, partition, log.range(Topic::Journal, partition)?.start, 1)?;
        match fetched.records.first() {
            None => missing.push(partition),
            Some(record) => generation = Some(block(record).map_err(log::Error::Corrupt)?.header().generation),
        }
    }
    let generation = generation.unwrap_or(fresh);
    for partition in missing {
        let block = EncodedBlock::genesis(generation, partition, log.partitions(), now_ms);
        let record = Outgoing { key: None, value: Some(block.bytes().clone()), headers: Headers::default() };
        log.append(Topic::Journal, partition, vec![record])?;
    }
    Ok(generation)
}

/// Brings `store` to the block that `position` names (block 0 without one) and gives the head there.
pub fn restore(log: &dyn Log, store: &dyn Store, partition: u32, position: Option<&Position>) -> Result<Head, Error> {
    let target = position.map_or(0, |position| position.block);
    let held = store.head();
    if let Some(held) = held.as_ref().filter(|held| held.partition != partition || target < held.number) {
        return Err(Error::Contradiction(format!(
            "the store holds block {} of partition {}, the log has committed block {target} of partition {partition}",
            held.number, held.partition
        )));
    }
    let range = log.range(Topic::Journal, partition)?;
    let mut from = held.as_ref().map_or(range.start, |held| held.number.max(range.start));
    loop {
        let at = store.head().map(|head| head.number);
        if at == Some(target) && from != held.as_ref().map_or(u64::MAX, |held| held.number.max(range.start)) {
            break;
        }
        let fetched = log.fetch(Topic::Journal, partition, from, FETCH_BYTES)?;
        if fetched.records.is_empty() && fetched.next <= from {
            return Err(Error::Contradiction(format!("the journal ends before block {target}, which was committed")));
        }
        apply(store, held.as_ref(), &fetched.records, target)?;
        from = fetched.next;
    }
    let head = store.head().ok_or_else(|| Error::Contradiction("the journal has no block 0".to_owned()))?;
    match position {
        Some(position) if position.stamp != head.stamp => Err(Error::Contradiction(format!(
            "block {} carries stamp {}, the committed position {}",
            head.number, head.stamp, position.stamp
        ))),
        _ => Ok(head),
    }
}

/// Applies the blocks behind what the store holds, after checking that the chains meet.
fn apply(store: &dyn Store, held: Option<&Head>, records: &[Record], target: u64) -> Result<(), Error> {
    let mut blocks = Vec::new();
    for record in records {
        let block = block(record).map_err(Error::Contradiction)?;
        let number = block.header().number;
        let meets = held.is_none_or(|held| held.number != number || is_same(held, &block));
        if !meets {
            let found = &block.header().stamp;
            return Err(Error::Contradiction(format!("block {number} of the store is not the journal's, which is of {found}")));
        }
        if held.is_none_or(|held| held.number < number) && number <= target {
            blocks.push(block);
        }
    }
    match store.apply(&blocks) {
        Err(store::Error::Discontinuous(broken)) => Err(Error::Contradiction(broken.to_string())),
        other => Ok(other?),
    }
}

fn is_same(held: &Head, block: &EncodedBlock) -> bool {
    let header = block.header();
    header.stamp == held.stamp && header.generation == held.generation && header.partition == held.partition
}

fn block(record: &Record) -> Result<EncodedBlock, String> {
    let offset = record.offset;
    let value = record.value.clone().ok_or_else(|| format!("journal record {offset} has no value"))?;
    EncodedBlock::parse(value).map_err(|error| format!("journal record {offset}: {error}"))
}
