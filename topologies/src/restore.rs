//! Restoring a partition: its store, then the journal's blocks up to the one that the committed position names.
//!
//! A store that is ahead of the log, of another generation or of another chain is a [`Halt`]: it is never served and never wiped
//! silently. One that ends before the journal begins needs a snapshot first.

use finflow_state::{EncodedBlock, Generation, Head, Header, Store, store};

use crate::halt::Halt;
use crate::log::{self, Log, Outgoing, Position, Record};
use crate::rescale::IMPORT;
use crate::topics::Topic;

mod lost;

pub use self::lost::last_block;

/// Journal bytes fetched at a time.
const FETCH_BYTES: usize = 4 * 1024 * 1024;
/// How often a journal is looked at whose beginning is trimmed away while that is done.
const LOOKS_MAX: u32 = 3;

/// Why a partition cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The log cannot be read now.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The store failed; if it is corrupt, it can be rebuilt from the journal.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The journal no longer reaches back to what the store holds: a newer copy is needed.
    #[error("the journal begins at block {start}, the store needs block {due}")]
    Behind {
        /// The block that the store needs next.
        due: u64,
        /// The first block that the journal holds.
        start: u64,
    },
    /// The journal goes on behind the committed position. Either somebody else has claimed and committed since the position was
    /// read, or positions were lost, and going on from there would execute again what is in the journal. Whoever finds the position as
    /// it was has to halt.
    #[error("{}", outrun(*.committed, *.found))]
    Outrun {
        /// The block that the position names; 0 where there is none.
        committed: u64,
        /// A block behind it.
        found: u64,
    },
    /// The journal ends before the committed position. What is missing may be there, behind a transaction that is still open; otherwise
    /// it is lost.
    #[error("the journal ends at block {found}, block {committed} was committed")]
    Short {
        /// The last block that can be read.
        found: u64,
        /// The block that the position names.
        committed: u64,
    },
    /// The position has moved since it was read: what contradicts it says nothing.
    #[error("the committed position has moved from block {before} to block {now} meanwhile")]
    Overtaken {
        /// The block that it named when it was read; 0 where there was none.
        before: u64,
        /// The block that it names now.
        now: u64,
    },
    /// The state is still being brought here from a dump, by somebody who has to come to the end first.
    #[error(
        "the state is still being brought here: `finflow rescale`, `state restore` or `state adopt` has to be run to its end"
    )]
    Unfinished,
    /// An operator's act that would not be right here, or not now.
    #[error("{0}")]
    Refused(String),
    /// State and log contradict each other: nothing of it may be served.
    #[error("{0}")]
    Contradiction(String),
}

impl Error {
    /// Whether it says nothing about the state, so that trying again is what helps; anything else is a broken invariant.
    pub fn may_pass(&self) -> bool {
        match self {
            Error::Log(log::Error::Corrupt(_)) => false,
            // A range that was trimmed meanwhile is looked up again.
            Error::Log(_) | Error::Store(store::Error::Io(_) | store::Error::Busy(_)) => true,
            Error::Store(store::Error::Corrupt(_) | store::Error::Discontinuous(_)) => false,
            Error::Unfinished | Error::Overtaken { .. } => true,
            Error::Behind { .. } | Error::Outrun { .. } | Error::Short { .. } => false,
            Error::Refused(_) | Error::Contradiction(_) => false,
        }
    }
}

/// Positions go back to nothing only where whoever keeps them has forgotten them: that has a remedy of its own.
fn outrun(committed: u64, found: u64) -> String {
    if committed == 0 {
        return format!(
            "no position is committed, and the journal goes on to block {found}: the offsets of the group have expired or were deleted; \
             `finflow partitions resume --from-journal` goes on from the last block of the journal"
        );
    }
    format!("block {committed} is the last one that a position names, the journal goes on to block {found}")
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::State(error.to_string())
    }
}

/// Writes block 0 into the journal of every partition that has none. The generation is that of the first one found, else `fresh`.
///
/// A journal that is trimmed begins with a later block, which has the generation and no partition count. Whatever was trimmed has run,
/// and nothing runs before all partitions have begun: one that has no journal then was added since.
///
/// # Errors
/// The application was begun with another number of partitions: its wallets would be looked for where they are not.
pub fn create(log: &dyn Log, fresh: Generation, now_ms: i64) -> Result<Generation, log::Error> {
    let mut generation = None;
    let mut missing = Vec::new();
    let mut is_trimmed = false;
    for partition in 0..log.partitions() {
        let first = first_block(log, partition).map_err(|error| match error {
            Error::Log(error) => error,
            other => log::Error::Corrupt(other.to_string()),
        })?;
        match first {
            // What an import has begun and aborted is no journal; what was trimmed to its end was one.
            None if log.range(Topic::Journal, partition)?.start == 0 => missing.push(partition),
            None => is_trimmed = true,
            Some((_, found)) => {
                if let Some(begun) = found.partition_count() {
                    begun_with(begun, log)?;
                }
                is_trimmed |= 0 < found.header().number;
                generation = Some(found.header().generation);
            }
        }
    }
    if is_trimmed {
        begun_with(log.partitions().saturating_sub(missing.len() as u32), log)?;
        generation = Some(generation.ok_or_else(|| log::Error::Corrupt("no journal has a block: all were trimmed".to_owned()))?);
    }
    let generation = generation.unwrap_or(fresh);
    for partition in missing {
        let block = EncodedBlock::genesis(generation, partition, log.partitions(), now_ms);
        let record = Outgoing { key: None, value: Some(block.bytes().clone()), ..Outgoing::default() };
        log.append(Topic::Journal, partition, vec![record])?;
    }
    Ok(generation)
}

fn begun_with(begun: u32, log: &dyn Log) -> Result<(), log::Error> {
    let configured = log.partitions();
    if begun == configured {
        return Ok(());
    }
    let cause = format!("the application was begun with {begun} partitions, {configured} are configured");
    Err(log::Error::Refused(format!("{cause}; `finflow rescale` changes their number")))
}

/// Brings `store` to the block that `position` names (block 0 without one) and gives the head there, which ends the journal.
///
/// The store's own block must be the journal's; where that is trimmed away, the block behind it must follow it.
pub fn restore(log: &dyn Log, store: &dyn Store, partition: u32, position: Option<&Position>) -> Result<Head, Error> {
    restore_observed(log, store, partition, position, &|_, _| {})
}

/// Is told the block that a store has reached, and the one that it has to.
pub type Progress<'a> = &'a dyn Fn(u64, u64);

/// The same as [`restore`], telling on its way how far it has come.
pub fn restore_observed(
    log: &dyn Log,
    store: &dyn Store,
    partition: u32,
    position: Option<&Position>,
    progress: Progress<'_>,
) -> Result<Head, Error> {
    match first_block(log, partition)? {
        Some((_, first)) if is_unfinished(log, &first, position)? => Err(Error::Unfinished),
        _ => replay(log, store, partition, position, progress),
    }
}

/// The same, also of a state that is still being brought here: not to be served.
pub fn replay(
    log: &dyn Log,
    store: &dyn Store,
    partition: u32,
    position: Option<&Position>,
    progress: Progress<'_>,
) -> Result<Head, Error> {
    let target = position.map_or(0, |position| position.block);
    let range = log.range(Topic::Journal, partition)?;
    let first = first_block(log, partition)?.map(|(_, block)| block.header().clone());
    let held = store.head();
    if let Some(held) = &held {
        if position.is_none() && target < held.number {
            lost::forgotten(log, held, first.as_ref(), partition)?;
        }
        belongs(held, first.as_ref(), partition, target)?;
    }
    let due = held.as_ref().map_or(0, |held| held.number.saturating_add(1));
    if let Some(first) = first.as_ref().filter(|first| due < first.number) {
        return Err(Error::Behind { due, start: first.number });
    }
    let mut from = offset_of(log, partition, due.saturating_sub(1))?;
    progress(due.saturating_sub(1), target);
    while from < range.end {
        let fetched = log.fetch(Topic::Journal, partition, from, FETCH_BYTES)?;
        let is_stuck = fetched.records.is_empty() && fetched.next <= from;
        apply(store, held.as_ref(), &fetched.records, target)?;
        progress(store.head().map_or(0, |head| head.number), target);
        from = fetched.next;
        if is_stuck || store.head().is_some_and(|head| target <= head.number) {
            break;
        }
    }
    let head = store.head().ok_or_else(|| Error::Contradiction("the journal has no block 0".to_owned()))?;
    if head.number != target {
        return Err(Error::Short { found: head.number, committed: target });
    }
    if let Some(position) = position.filter(|position| position.stamp != head.stamp) {
        return Err(Error::Contradiction(format!(
            "block {} carries stamp {}, the committed position {}",
            head.number, head.stamp, position.stamp
        )));
    }
    let behind = offset_of(log, partition, target.saturating_add(1))?;
    match block_from(log, partition, behind)? {
        Some((_, further)) => Err(Error::Outrun { committed: target, found: further.header().number }),
        None => Ok(head),
    }
}

/// Brings a store that was restored on to where its journal ends now, a bounded way at a time. `from` is the offset behind the last block
/// that it holds; gives the next such.
///
/// What can be read of a journal is committed, with the position that names it: who is given the partition meanwhile finds a position
/// that is as far, or further.
pub fn follow(log: &dyn Log, store: &dyn Store, partition: u32, from: u64) -> Result<u64, Error> {
    let fetched = log.fetch(Topic::Journal, partition, from, FETCH_BYTES)?;
    apply(store, store.head().as_ref(), &fetched.records, u64::MAX)?;
    Ok(fetched.next.max(from))
}

/// Whether the state of a whole application is still being brought here, as its first partition tells; the position is asked for
/// where it matters.
pub fn is_being_brought(log: &dyn Log, position: impl FnOnce() -> Result<Option<Position>, log::Error>) -> Result<bool, Error> {
    match first_block(log, 0)? {
        Some((_, first)) if first.dump().is_some() => is_unfinished(log, &first, position()?.as_ref()),
        _ => Ok(false),
    }
}

/// Whether a partition whose journal begins so is still being brought here: all of them end that in one transaction. One that is trimmed
/// has run, and so was brought. Where the position is lost, the last block tells what it told.
fn is_unfinished(log: &dyn Log, first: &EncodedBlock, position: Option<&Position>) -> Result<bool, Error> {
    match position {
        Some(position) if 0 < position.block => Ok(&*position.stamp.lane == IMPORT),
        _ if first.dump().is_none() => Ok(false),
        Some(_) => Ok(true),
        None => {
            let last = lost::end(log, first.header().partition)?;
            Ok(last.is_none_or(|last| last.number == 0 || &*last.stamp.lane == IMPORT))
        }
    }
}

/// Whether a store may be of this partition and log at all: never ahead, never another's.
fn belongs(held: &Head, first: Option<&Header>, partition: u32, target: u64) -> Result<(), Error> {
    if held.partition != partition || target < held.number {
        return Err(Error::Contradiction(format!(
            "the store holds block {} of partition {}, the log has committed block {target} of partition {partition}",
            held.number, held.partition
        )));
    }
    match first.filter(|first| first.generation != held.generation) {
        Some(first) => Err(Error::Contradiction(format!(
            "the store is of generation {}, the journal of generation {}",
            held.generation, first.generation
        ))),
        None => Ok(()),
    }
}

/// Where block `number` of a partition's journal lies, or the first one behind it; the journal's end where there is none.
///
/// Offsets are never below block numbers but may have gaps, as transactions leave them in Kafka, so it is looked for by halves.
pub fn offset_of(log: &dyn Log, partition: u32, number: u64) -> Result<u64, Error> {
    let range = log.range(Topic::Journal, partition)?;
    let (mut low, mut high) = (number.clamp(range.start, range.end.max(range.start)), range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        match block_from(log, partition, middle)? {
            Some((offset, block)) if block.header().number < number => low = offset.saturating_add(1),
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The offset and the header of block `number` of a partition's journal, or of the first one behind it.
pub fn block_at(log: &dyn Log, partition: u32, number: u64) -> Result<Option<(u64, Header)>, Error> {
    let found = block_from(log, partition, offset_of(log, partition, number)?)?;
    Ok(found.map(|(offset, block)| (offset, block.header().clone())))
}

/// The number of the block with which a partition's journal begins: 0 until it is trimmed.
pub fn begins_at(log: &dyn Log, partition: u32) -> Result<u64, Error> {
    match log.range(Topic::Journal, partition)?.start {
        0 => Ok(0),
        start => match first_block(log, partition)? {
            Some((_, block)) => Ok(block.header().number),
            None => Err(Error::Log(log::Error::Corrupt(format!(
                "the journal of partition {partition} is trimmed up to {start} and empty"
            )))),
        },
    }
}

/// The offset and the block with which a partition's journal begins; it is looked for again where it is trimmed away meanwhile.
fn first_block(log: &dyn Log, partition: u32) -> Result<Option<(u64, EncodedBlock)>, Error> {
    let mut looks = 1;
    loop {
        match block_from(log, partition, log.range(Topic::Journal, partition)?.start) {
            Err(Error::Log(log::Error::OutOfRange { .. })) if looks < LOOKS_MAX => looks += 1,
            other => return other,
        }
    }
}

/// The offset and the first block at or behind `from`.
fn block_from(log: &dyn Log, partition: u32, from: u64) -> Result<Option<(u64, EncodedBlock)>, Error> {
    let mut from = from;
    loop {
        let fetched = log.fetch(Topic::Journal, partition, from, 1)?;
        if let Some(record) = fetched.records.first() {
            let block = block(record).map_err(Error::Contradiction)?;
            return Ok(Some((record.offset, block)));
        }
        if fetched.next <= from {
            return Ok(None);
        }
        from = fetched.next;
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
