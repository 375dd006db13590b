//! When nothing is decided: in a partition that is halted, and anywhere while the wall clock is wrong.

use std::sync::atomic::Ordering;

use finflow_topologies::Halt;
use finflow_topologies::lane::Status;
use ractor::{ActorProcessingErr, ActorRef};
use tracing::{error, warn};

use super::{Message, RETRY_DELAY, State};
use crate::clock::Strayed;
use crate::metrics;

impl State {
    /// Halts a partition for a reason that needs no confirmation, once.
    pub(super) fn halt(&mut self, id: u32, cause: Halt) {
        if !matches!(self.lane.status(id), Some(Status::Halted(_))) {
            self.lane.halt(id, cause);
            self.report_halt(id);
        }
    }

    /// Reports a halt that is certain.
    pub(super) fn report_halt(&self, id: u32) {
        if let Some(Status::Halted(cause)) = self.lane.status(id) {
            error!(partition = id, %cause, "halted");
            ::metrics::counter!(metrics::HALTS).increment(1);
            if let (Halt::Corrupt(cause), Some(committed)) = (cause, self.args.partitions.get(&id)) {
                committed.mark_damaged(cause);
            }
            self.show(id);
        }
    }

    /// Nothing is decided while nobody knows what time it is; what is in flight settles all the same.
    pub(super) fn stand_still(&mut self, myself: &ActorRef<Message>, strayed: Strayed) -> Result<(), ActorProcessingErr> {
        if !std::mem::replace(&mut self.stands_still, true) {
            warn!(cause = %strayed, "the epochs stand still");
        }
        if !self.lane.is_committing() {
            self.apply(myself);
        }
        if self.draining.is_some() && !self.lane.is_committing() {
            self.lane.drop_open();
            self.finish_drain();
        }
        if !self.is_scheduled.swap(true, Ordering::AcqRel) {
            myself.send_after(RETRY_DELAY, || Message::Turn);
        }
        Ok(())
    }
}
