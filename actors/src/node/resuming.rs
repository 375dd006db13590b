//! Letting halted partitions go on, because an operator says so: from their position, where that is lost from their journal, and where
//! the log does not hold any more what is to come next, past it.

use finflow_topologies::log;
use finflow_topologies::{Topic, restore};
use serde::{Deserialize, Serialize};

use super::{Node, ReadError, root};
use crate::committed::Committed;
use crate::lane::Basis;

/// Where a partition goes on whose position is lost, as the last block of its journal says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEnd {
    /// The partition.
    pub partition: u32,
    /// The number of its last committed block.
    pub block: u64,
    /// The stamp of the epoch that wrote it.
    pub stamp: String,
    /// When that was, in milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// The offset of the first command that was not consumed.
    pub commands: u64,
    /// The offset of the first posting that was not consumed.
    pub postings: u64,
}

/// Commands of a partition that the log has let go of before they were consumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// The partition.
    pub partition: u32,
    /// The offset of the first command that was not consumed.
    pub from: u64,
    /// The offset of the first one that the log still holds.
    pub to: u64,
}

/// Why a partition does not go on from its journal, or past what has expired.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// It runs on another node, or on none.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not halted.
    #[error("partition {0} is not halted")]
    Runs(u32),
    /// It has a position, so that nothing is lost which the journal could tell.
    #[error(
        "partition {partition} has a position, at block {block}: its journal is not to take the place of that; where its directory is \
         right and the log is not, `finflow state adopt` helps"
    )]
    Positioned {
        /// The partition.
        partition: u32,
        /// The block that the position names.
        block: u64,
    },
    /// Its position is lost, so that nobody knows what was not consumed.
    #[error("the position of partition {0} is lost: `finflow partitions resume {0} --from-journal` comes first")]
    Unpositioned(u32),
    /// It could not be restored.
    #[error("partition {0} could not be restored: `finflow partitions resume {0}` comes first")]
    Unrestored(u32),
    /// The log holds everything that it has not consumed.
    #[error("no command of partition {partition} has expired: it goes on at offset {at}, and the log begins at {start}")]
    Unexpired {
        /// The partition.
        partition: u32,
        /// The offset of the first command that was not consumed.
        at: u64,
        /// The first offset that the log holds.
        start: u64,
    },
    /// The log does not tell its position.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// Its journal does not tell where it stood.
    #[error(transparent)]
    Journal(#[from] restore::Error),
}

impl Node {
    /// Lets a halted partition go on; one that could not be restored is restored again, and is halted anew where that fails.
    ///
    /// # Errors
    /// It runs on another node, or on none.
    pub fn resume(&self, partition: u32) -> Result<(), ReadError> {
        self.resume_from(partition, Basis::Position)
    }

    /// What [`Node::resume_from_journal`] would go on from, or why it would not. This asks the log, and changes nothing.
    pub fn journal_end(&self, partition: u32) -> Result<JournalEnd, ResumeError> {
        let committed = self.halted(partition)?;
        if let Some(position) = self.0.log.position(partition)? {
            return Err(ResumeError::Positioned { partition, block: position.block });
        }
        self.0.log.unsealed()?;
        let last = restore::last_block(&self.0.log, partition, committed.generation())?;
        Ok(JournalEnd {
            partition,
            block: last.number,
            stamp: last.stamp.to_string(),
            at_ms: last.at_ms,
            commands: last.positions.commands,
            postings: last.positions.postings,
        })
    }

    /// What of the commands of a halted partition has expired, or why nothing has. This asks the log, and changes nothing.
    pub fn expired(&self, partition: u32) -> Result<Expired, ResumeError> {
        if self.halted(partition)?.condition().lane.is_none() {
            return Err(ResumeError::Unrestored(partition));
        }
        let position = self.0.log.position(partition)?.ok_or(ResumeError::Unpositioned(partition))?;
        let (from, start) = (position.commands, self.range(Topic::Commands, partition)?.start);
        if start <= from {
            return Err(ResumeError::Unexpired { partition, at: from, start });
        }
        Ok(Expired { partition, from, to: start })
    }

    /// Lets a halted partition go on at the offset that [`Node::expired`] has told, if the log still begins there or later: nobody is told
    /// what has become of the commands before it, and who sends one again has it carried out. Asked twice, it does so once.
    pub fn resume_past_expired(&self, partition: u32, to: u64) -> Result<(), ResumeError> {
        let start = self.range(Topic::Commands, partition)?.start;
        if start < to {
            return Err(ResumeError::Unexpired { partition, at: to, start });
        }
        Ok(self.resume_from(partition, Basis::PastExpired(to))?)
    }

    /// A partition that is halted here.
    fn halted(&self, partition: u32) -> Result<&Committed, ResumeError> {
        let Some(committed) = self.0.partitions.get(&partition) else { return Err(ResumeError::Runs(partition)) };
        let condition = committed.condition();
        if self.is_elsewhere(&condition) {
            return Err(ReadError::Elsewhere(partition).into());
        }
        if condition.halted.is_none() {
            return Err(ResumeError::Runs(partition));
        }
        Ok(committed)
    }

    /// Restores a halted partition that has no position to the last block of its journal, commits that as its position, and lets it go
    /// on. Its lane looks at all of it again once it has claimed the partition; where it finds a position then, that is what counts.
    ///
    /// # Errors
    /// It runs on another node, or on none. Why its journal does not tell its position, its status says as it says why it is halted.
    pub fn resume_from_journal(&self, partition: u32) -> Result<(), ReadError> {
        self.resume_from(partition, Basis::Journal)
    }

    fn resume_from(&self, partition: u32, basis: Basis) -> Result<(), ReadError> {
        let committed = self.0.partitions.get(&partition);
        if committed.is_some_and(|committed| self.is_elsewhere(&committed.condition())) {
            return Err(ReadError::Elsewhere(partition));
        }
        if let Some(root) = &self.0.root {
            // One that could not be restored runs on no lane, but one of them has it.
            let _ = root.cast(root::Message::Resume(partition, basis));
        }
        Ok(())
    }
}
