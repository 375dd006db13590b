//! Writing rows behind what journals hold, in transactions like an epoch's: blocks that follow each other, and positions that name them.
//!
//! All blocks but the last of each partition carry the stamp [`IMPORT`], and are not served. The last ones share one transaction.

use std::collections::BTreeMap;

use finflow_state::{EncodedBlock, Head, Header, Positions, Stamp};

use super::Error;
use crate::log::{self, Batch, Claim, Claimed, Commit, Outgoing, Position, Session, Transaction};
use crate::sizes::BLOCK_BYTES_SOFT;
use crate::topics::Topic;

/// The lane in the stamp of a block that is not the last one.
pub const IMPORT: &str = "import";
/// The lane in the stamp of the last blocks, which all partitions have in common.
pub const IMPORTED: &str = "imported";

/// Rows of all partitions that wait for their blocks take so many bytes, or, with very many partitions, 16 KiB each.
const WAITING_BYTES: usize = 64 << 20;
const BLOCK_BYTES_MIN: usize = 16 << 10;
const TRANSACTION_BYTES: usize = 4 << 20;
/// What a row takes besides its bytes.
const ROW_BYTES: usize = 64;

/// How much is written at a time. All attempts at one import have to agree: what the one has written is no part of another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// A block ends with the row that takes it past so many bytes.
    pub block_bytes: usize,
    /// A transaction ends with the block that takes it past so many bytes.
    pub transaction_bytes: usize,
}

impl Sizes {
    /// What is right for so many partitions.
    pub fn of(partitions: u32) -> Sizes {
        let block_bytes = (WAITING_BYTES / partitions.max(1) as usize).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_SOFT);
        Sizes { block_bytes, transaction_bytes: TRANSACTION_BYTES }
    }
}

/// A row on its way: key, and value or `None` where it is removed.
pub(super) type Row = (Vec<u8>, Option<Vec<u8>>);

/// The journals of some partitions, being written.
pub(super) struct Writing {
    session: Box<dyn Session>,
    journals: BTreeMap<u32, Journal>,
    sizes: Sizes,
    /// Blocks of the next transaction, by partition.
    waiting: BTreeMap<u32, Vec<EncodedBlock>>,
    waiting_bytes: usize,
    /// Blocks of rows that were made, and those among them that were there already.
    pub(super) blocks: u64,
    pub(super) found: u64,
}

/// The journal of one partition.
struct Journal {
    claim: u64,
    /// The head behind the last block that was made.
    head: Head,
    /// The last block that the position names.
    named: u64,
    /// The life that the stamps tell.
    incarnation: u64,
    /// The time of the blocks, in milliseconds since 1970-01-01 UTC.
    at_ms: i64,
    rows: Vec<Row>,
    bytes: usize,
}

/// What the last block of a partition says besides its rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending {
    pub(super) rows: Vec<Row>,
    pub(super) positions: Positions,
    pub(super) sent: Vec<(u32, u64)>,
    pub(super) received: Vec<(u32, u64)>,
}

impl Writing {
    pub(super) fn new(session: Box<dyn Session>, sizes: Sizes) -> Writing {
        Writing { session, journals: BTreeMap::new(), sizes, waiting: BTreeMap::new(), waiting_bytes: 0, blocks: 0, found: 0 }
    }

    /// Claims a partition: whoever wrote before is fenced, and what the position names is what there is.
    pub(super) fn claim(&mut self, partition: u32) -> Result<Claim, Error> {
        Ok(self.session.claim(partition)?)
    }

    /// Goes on behind `head`. Blocks up to the one that the claim's position names are there and not written again.
    pub(super) fn begin(&mut self, claim: &Claim, head: Head, (incarnation, at_ms): (u64, i64)) {
        let named = claim.position.as_ref().map_or(0, |position| position.block);
        let journal = Journal { claim: claim.epoch, named, incarnation, at_ms, rows: Vec::new(), bytes: 0, head };
        self.journals.insert(journal.head.partition, journal);
    }

    /// The heads behind the last blocks that were made.
    pub(super) fn heads(&self) -> impl Iterator<Item = &Head> {
        self.journals.values().map(|journal| &journal.head)
    }

    pub(super) fn row(&mut self, partition: u32, row: Row) -> Result<(), Error> {
        let Some(journal) = self.journals.get_mut(&partition) else { return Ok(()) };
        let value = row.1.as_ref().map_or(0, Vec::len);
        journal.bytes = journal.bytes.saturating_add(row.0.len()).saturating_add(value).saturating_add(ROW_BYTES);
        journal.rows.push(row);
        if journal.bytes < self.sizes.block_bytes { Ok(()) } else { self.block(partition) }
    }

    /// Makes blocks of the rows that are left, and commits what waits.
    pub(super) fn fill(&mut self) -> Result<(), Error> {
        let left: Vec<u32> = self.journals.iter().filter(|(_, journal)| !journal.rows.is_empty()).map(|(id, _)| *id).collect();
        left.into_iter().try_for_each(|partition| self.block(partition))?;
        self.commit()
    }

    fn block(&mut self, partition: u32) -> Result<(), Error> {
        let Some(journal) = self.journals.get_mut(&partition) else { return Ok(()) };
        let positions = journal.head.positions;
        let block = journal.next(IMPORT, Ending { positions, ..Ending::default() });
        self.blocks = self.blocks.saturating_add(1);
        if block.header().number <= journal.named {
            self.found = self.found.saturating_add(1);
            return Ok(());
        }
        self.waiting_bytes = self.waiting_bytes.saturating_add(block.bytes().len());
        self.waiting.entry(partition).or_default().push(block);
        if self.waiting_bytes < self.sizes.transaction_bytes { Ok(()) } else { self.commit() }
    }

    /// Has the next transaction begin the journals with these blocks.
    pub(super) fn begin_with(&mut self, blocks: BTreeMap<u32, EncodedBlock>) -> Result<(), Error> {
        self.waiting = blocks.into_iter().map(|(partition, block)| (partition, vec![block])).collect();
        self.commit()
    }

    /// Writes the last block of every partition: from then on all of it counts.
    pub(super) fn end(&mut self, mut endings: BTreeMap<u32, Ending>) -> Result<(), Error> {
        for (partition, journal) in &mut self.journals {
            let ending = endings.remove(partition).unwrap_or_default();
            self.waiting.insert(*partition, vec![journal.next(IMPORTED, ending)]);
        }
        self.commit()
    }

    /// Commits every position once more. Kafka marks the end of a transaction after it has answered, but does not begin the next one
    /// before: once this is committed, everything before it can be read.
    pub(super) fn confirm(&mut self) -> Result<(), Error> {
        let position = |journal: &Journal| Claimed { claim: journal.claim, position: Position::of(&journal.head.to_header()) };
        self.send(Vec::new(), self.journals.values().map(position).collect())
    }

    /// Commits the blocks that wait.
    fn commit(&mut self) -> Result<(), Error> {
        let blocks = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let (mut batches, mut positions) = (Vec::new(), Vec::new());
        for (partition, blocks) in blocks {
            let (Some(last), Some(journal)) = (blocks.last(), self.journals.get(&partition)) else { continue };
            positions.push(Claimed { claim: journal.claim, position: Position::of(last.header()) });
            let record = |block: EncodedBlock| Outgoing { value: Some(block.bytes().clone()), ..Outgoing::default() };
            batches.push(Batch { topic: Topic::Journal, partition, records: blocks.into_iter().map(record).collect() });
        }
        self.send(batches, positions)
    }

    fn send(&mut self, batches: Vec<Batch>, positions: Vec<Claimed>) -> Result<(), Error> {
        let Some(stamp) = positions.last().map(|claimed| claimed.position.stamp.clone()) else { return Ok(()) };
        match self.session.commit(Transaction { stamp, batches, positions }) {
            Commit::Committed => Ok(()),
            // Who has the partitions now is not to be disturbed again.
            Commit::Fenced => Err(log::Error::Fenced.into()),
            Commit::Aborted(cause) | Commit::InDoubt(cause) => Err(cause.into()),
        }
    }
}

impl Journal {
    /// The next block, of the rows that wait for it and of those of its ending.
    fn next(&mut self, lane: &str, ending: Ending) -> EncodedBlock {
        let number = self.head.number.saturating_add(1);
        let header = Header {
            generation: self.head.generation,
            partition: self.head.partition,
            number,
            stamp: Stamp { lane: lane.into(), incarnation: self.incarnation, counter: number },
            previous: self.head.stamp.clone(),
            at_ms: self.at_ms,
            positions: ending.positions,
            sent: ending.sent,
            received: ending.received,
        };
        let rows = self.rows.iter().chain(&ending.rows);
        let block = EncodedBlock::of_rows(&header, rows.map(|(key, value)| (&**key, value.as_deref())));
        self.head = self.head.with(&header);
        self.rows.clear();
        self.bytes = 0;
        block
    }
}
