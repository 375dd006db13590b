//! When nothing is decided: in a partition that is halted, and anywhere while the wall clock is wrong.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use finflow_topologies::Halt;
use finflow_topologies::lane::Status;
use ractor::{ActorProcessingErr, ActorRef};
use tracing::{error, warn};

use super::{Message, RETRY_DELAY, State};
use crate::clock::Strayed;
use crate::metrics;

/// A process that shares its log ends when its clock has been wrong for so long.
const STAND_STILL_MAX: Duration = Duration::from_secs(10);

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
            metrics::halts(id).increment(1);
            if let (Halt::Corrupt(cause), Some(committed)) = (cause, self.args.partitions.get(&id)) {
                committed.mark_damaged(cause);
            }
            self.show(id);
        }
    }

    /// Nothing is decided while nobody knows what time it is; what is in flight settles all the same.
    pub(super) fn stand_still(&mut self, myself: &ActorRef<Message>, strayed: Strayed) -> Result<(), ActorProcessingErr> {
        let since = *self.stands_still_since.get_or_insert_with(|| {
            warn!(cause = %strayed, "the epochs stand still");
            Instant::now()
        });
        // Where others could go on, what this process holds is theirs to have; alone, it waits until the clock is right.
        if self.args.log.is_shared() && STAND_STILL_MAX < since.elapsed() {
            self.args.log.ends().send_replace(Some(format!("the epochs have stood still for too long: {strayed}")));
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
