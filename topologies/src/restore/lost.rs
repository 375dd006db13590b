//! A position that is lost: Kafka forgets the offsets of a group that has been empty for `offsets.retention.minutes`, and anybody with
//! the right can delete them. The journal tells the same, because whatever moved a position has left a block with it, in the same
//! transaction: its last block names the inputs that are consumed and the stamp that the position had.
//!
//! Nothing here guesses. Where the journal may still grow, or is not the one that it should be, an operator's act is refused.

use finflow_state::{Generation, Head, Header};

use super::{Error, belongs, block_from};
use crate::log::Log;
use crate::rescale::IMPORT;
use crate::topics::Topic;

/// The last block of a partition's journal, which takes the place of a position that is lost.
///
/// The caller has claimed the partition and found no position: whoever had it before can commit nothing any more.
///
/// # Errors
/// [`Error::Refused`] while a transaction is open on the journal, whose end nobody knows yet, and where the journal has nothing to tell,
/// or is of another generation; [`Error::Unfinished`] where its state is still being brought here.
pub fn last_block(log: &dyn Log, partition: u32, generation: Generation) -> Result<Header, Error> {
    let readable = log.range(Topic::Journal, partition)?.end;
    if readable < log.written(Topic::Journal, partition)? {
        return Err(Error::Refused(format!(
            "a transaction is open on the journal of partition {partition}: its last block is not known before that has ended"
        )));
    }
    let last = match end(log, partition)? {
        Some(last) if 0 < last.number => last,
        _ => {
            let cause = format!("the journal of partition {partition} has nothing but block 0, which needs no position");
            return Err(Error::Refused(cause));
        }
    };
    if last.generation != generation || last.partition != partition {
        return Err(Error::Refused(format!(
            "the journal ends with block {} of partition {} and generation {}, the application's is partition {partition} of {generation}",
            last.number, last.partition, last.generation
        )));
    }
    if &*last.stamp.lane == IMPORT {
        return Err(Error::Unfinished);
    }
    Ok(last)
}

/// The last block that can be read of a partition's journal, found by halves.
pub(super) fn end(log: &dyn Log, partition: u32) -> Result<Option<Header>, Error> {
    let range = log.range(Topic::Journal, partition)?;
    let (mut low, mut high, mut last) = (range.start, range.end, None);
    while low < high {
        let middle = low + (high - low) / 2;
        match block_from(log, partition, middle)? {
            Some((offset, block)) => {
                low = offset.saturating_add(1);
                last = Some(block.header().clone());
            }
            None => high = middle,
        }
    }
    Ok(last)
}

/// Fails as [`Error::Outrun`] where a store holds blocks, no position names any, and the journal has them: it is the position that is
/// gone, and neither the log nor the store is wrong.
pub(super) fn forgotten(log: &dyn Log, held: &Head, first: Option<&Header>, partition: u32) -> Result<(), Error> {
    match end(log, partition)? {
        Some(last) if belongs(held, first, partition, last.number).is_ok() => {
            Err(Error::Outrun { committed: 0, found: last.number })
        }
        _ => Ok(()),
    }
}
