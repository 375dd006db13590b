//! From suspicion to halt: a broken invariant is reported only when it is certain that it was found on what is ours.
//!
//! A lane that has lost a partition without knowing it decides on rows that its successor has changed since, and hands the
//! outcome to its neighbours: either of them can meet what looks like a broken invariant. So a halt out of an uncommitted epoch
//! is at first a suspicion. When nothing is in flight, the lane sends the current position of every partition that it hosts once
//! more. If the log takes that, all its claims are still the latest ones, so that nobody else has changed anything; else the
//! commit is fenced, the lane is over, and nothing was reported.

use super::hosted::Status;
use super::{Lane, close};
use crate::halt::Halt;
use crate::log::{self, Transaction};
use crate::topics::Topic;

impl Lane {
    /// Suspects a partition: the open epoch is dropped whole and decided again without it, until the log has told.
    pub fn suspect(&mut self, partition: u32, cause: Halt) {
        self.drop_open();
        if let Some(hosted) = self.hosted.get_mut(&partition) {
            hosted.suspect(cause);
        }
    }

    /// Halts a partition for a reason that no uncommitted epoch has a part in: its store refuses what is committed, say.
    pub fn halt(&mut self, partition: u32, cause: Halt) {
        self.drop_open();
        if let Some(hosted) = self.hosted.get_mut(&partition) {
            hosted.status = Status::Halted(cause);
        }
    }

    /// Takes note that inputs of a partition cannot be fetched. What the log does not hold any more is lost, and the partition
    /// suspect; anything else may pass. Of commands an operator may accept it, of postings nobody: those hold money.
    pub fn unreadable(&mut self, partition: u32, error: &log::Error) {
        let remedy = match error {
            log::Error::OutOfRange { topic: Topic::Commands, asked, start, .. } if asked < start => {
                format!(
                    "; `finflow partitions resume {partition} --skip-expired` accepts that commands are lost, and goes on behind them"
                )
            }
            log::Error::OutOfRange { .. } | log::Error::Corrupt(_) => String::new(),
            _ => return,
        };
        self.suspect(partition, Halt::Input(format!("{error}{remedy}")));
    }

    /// Whether a partition is suspect: a confirmation should be closed and committed soon.
    pub fn has_suspect(&self) -> bool {
        self.hosted.values().any(|hosted| hosted.is_suspect())
    }

    /// Drops the open epoch and, with the ground they stood on, all suspicions: an epoch that was in flight when they arose was
    /// aborted, or the lane hosts other partitions than those that a confirmation could speak for.
    pub(super) fn drop_open_and_suspicions(&mut self) {
        self.hosted.values_mut().for_each(|hosted| hosted.acquit());
        self.drop_open();
    }

    /// The transaction that asks: no record, and every position as it is. It is about every suspicion there is by now.
    pub(super) fn confirmation(&mut self) -> Transaction {
        for hosted in self.hosted.values_mut() {
            if let Status::Suspect(suspicion) = &mut hosted.status {
                suspicion.is_asked = true;
            }
        }
        self.is_confirming = true;
        Transaction { stamp: self.stamp.clone(), batches: Vec::new(), positions: close::current(&self.hosted) }
    }

    /// Takes the answer, and gives the partitions that are halted by it. Refused, the lane asks again; the epoch that is open
    /// does not rest on it either way.
    ///
    /// A doubt about a confirmation settles as aborted, because no position carries its stamp: it is asked again too.
    pub(super) fn confirmed(&mut self, is_committed: bool) -> Vec<u32> {
        self.is_confirming = false;
        let mut halted = Vec::new();
        for (partition, hosted) in &mut self.hosted {
            let Status::Suspect(suspicion) = &mut hosted.status else { continue };
            if is_committed && suspicion.is_asked {
                hosted.status = Status::Halted(suspicion.cause.clone());
                halted.push(*partition);
            } else {
                suspicion.is_asked = false;
            }
        }
        halted
    }
}
