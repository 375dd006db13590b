//! Writing committed epochs to the stores, beside the lane: it goes on deciding and committing meanwhile.

use std::sync::atomic::Ordering;

use finflow_state::{EncodedBlock, store};
use finflow_topologies::Halt;
use finflow_topologies::lane::Status;
use ractor::{ActorProcessingErr, ActorRef};
use tracing::{debug, debug_span, error};

use super::beside::{beside, died_writing};
use super::{APPLY_AFTER, Message, RETRY_DELAY, State};
use crate::partition;

/// Committed epochs that may gather before they are written to the store together. Every lookup passes through them.
const APPLY_EPOCHS: usize = 8;
/// So may changed rows: many together are cheaper to write.
const APPLY_ROWS: usize = 1_500;

impl State {
    /// Begins to write the epochs of every partition that has gathered enough of them; the lane goes on meanwhile.
    pub(super) fn apply(&mut self, myself: &ActorRef<Message>) {
        for id in self.lane.partitions().collect::<Vec<_>>() {
            if !self.may_apply(id) || !self.is_worth_applying(id) {
                continue;
            }
            let Some(committed) = self.args.partitions.get(&id).cloned() else { continue };
            let name = self.args.name.clone();
            self.applying.insert(id);
            let blocks = self.lane.unapplied(id);
            let count = blocks.len();
            let newest = blocks.last().map(EncodedBlock::header);
            let (block, offset) = (newest.map(|header| header.number), newest.map(|header| header.positions.commands));
            let span = debug_span!("store", partition = id, block, offset);
            let apply = move || {
                let _entered = span.entered();
                let applied = committed.apply(&name, &blocks);
                debug!(blocks = count, is_written = applied.is_ok(), "stored");
                applied
            };
            beside(myself, apply, Err(died_writing()), move |result| Message::Applied(id, count, result));
        }
    }

    /// What a halted partition has not stored, it replays from the journal, and so does another lane of this process that has it by now.
    pub(super) fn may_apply(&self, id: u32) -> bool {
        let is_running = self.lane.status(id) == Some(&Status::Running) && self.owns(id);
        is_running && 0 < self.lane.unapplied_epochs(id) && !self.applying.contains(&id)
    }

    fn is_worth_applying(&self, id: u32) -> bool {
        let epochs = self.lane.unapplied_epochs(id);
        let is_idle = self.draining.is_some() || APPLY_AFTER <= self.closed_at.elapsed();
        is_idle || APPLY_EPOCHS <= epochs || APPLY_ROWS <= self.lane.unapplied_rows(id)
    }

    pub(super) fn applied(
        &mut self,
        myself: &ActorRef<Message>,
        id: u32,
        epochs: usize,
        result: Result<(), store::Error>,
    ) -> Result<(), ActorProcessingErr> {
        self.applying.remove(&id);
        match result.map_err(|error| (Halt::of(&error), error)) {
            // Its store is none of this lane's business any more.
            _ if !self.owns(id) => {}
            Err((None, error)) => {
                self.apply_later(myself, id, error.to_string());
                if !self.lane.is_committing() && !self.lane.has_open() {
                    self.finish_drain();
                }
                // What it was to be given back for does not wait for the disk.
                return self.recall_assignment(myself);
            }
            Err((Some(halt), _)) => self.halt(id, halt),
            Ok(()) => {
                if !self.resting.contains_key(&id) {
                    self.set_fault(id, None);
                }
                let retired = self.lane.applied(id, epochs);
                if let Some((actor, _)) = self.actors.get(&id) {
                    // A dead actor has no hot rows to correct.
                    let _ = actor.cast(partition::Message::Retire(retired));
                }
                self.show(id);
            }
        }
        self.apply(myself);
        self.recall_assignment(myself)?;
        // The next epochs may have gathered meanwhile, or inputs must be fetched again that a halt has dropped.
        if !self.is_scheduled.swap(true, Ordering::AcqRel) {
            myself.cast(Message::Turn)?;
        }
        Ok(())
    }

    /// A disk that refuses may take it later: the epochs wait in memory and in the log, and past so many of them the partition takes
    /// no more input.
    fn apply_later(&mut self, myself: &ActorRef<Message>, id: u32, cause: String) {
        if !self.has_fault(id) {
            error!(partition = id, cause, "the store cannot be written, trying again");
        }
        self.set_fault(id, Some(cause));
        myself.send_after(RETRY_DELAY, || Message::Turn);
    }

    /// Whether the store of a partition could not be written or read the last time.
    pub(super) fn has_fault(&self, id: u32) -> bool {
        self.args.partitions.get(&id).is_some_and(|committed| committed.fault().is_some())
    }

    /// Shows what is wrong with the store of a partition, or that nothing is.
    pub(super) fn set_fault(&self, id: u32, fault: Option<String>) {
        if let Some(committed) = self.args.partitions.get(&id) {
            committed.set_fault(&self.args.name, fault);
        }
    }
}
