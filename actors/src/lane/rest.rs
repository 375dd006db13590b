//! Partitions that rest because their stores could not be read: each is tried again after a while, and the others go on meanwhile.
//!
//! Such an error says nothing about the rows: a disk that fails, too many open files. It may pass, so nobody is halted over it; the
//! readiness names it until a decision has read its store again, or none has had to for a while.

use std::time::{Duration, Instant};

use finflow_topologies::lane::{Decided, Failure};
use ractor::ActorRef;
use tracing::{error, info};

use super::{Message, State, pause_after};

/// How long after its rest a store counts as failing that nobody has had to read since: what asked for it may not come again.
const FORGET_AFTER: Duration = Duration::from_secs(10);

/// Since its store could not be read, until it was.
pub(super) struct Rest {
    /// When it is tried again.
    until: Instant,
    /// How often in a row it could not be read.
    times: u32,
}

impl State {
    /// Takes note of the partitions that could not read their stores, and of those that could again.
    pub(super) fn note_reads(&mut self, myself: &ActorRef<Message>, answers: &[Decided]) {
        for (id, answer) in answers {
            match answer {
                Ok(_) => self.forget_rest(*id),
                Err(Failure::Unread(cause)) => self.rest(myself, *id, cause),
                Err(Failure::Halted(_) | Failure::Lost) => {}
            }
        }
    }

    /// Has a partition tried again after a pause, twice as long each time and some seconds at most.
    fn rest(&mut self, myself: &ActorRef<Message>, id: u32, cause: &str) {
        let times = self.resting.get(&id).map_or(0, |rest| rest.times);
        if times == 0 {
            error!(partition = id, cause, "the store cannot be read, trying again");
        }
        self.set_fault(id, Some(cause.to_owned()));
        let pause = pause_after(times);
        self.resting.insert(id, Rest { until: Instant::now() + pause, times: times.saturating_add(1) });
        myself.send_after(pause, || Message::Turn);
        myself.send_after(pause + FORGET_AFTER, || Message::Turn);
    }

    fn forget_rest(&mut self, id: u32) {
        if self.resting.remove(&id).is_some() {
            info!(partition = id, "the store does not fail any more");
            self.set_fault(id, None);
        }
    }

    /// Lets those go on that have rested for long enough.
    pub(super) fn end_rests(&mut self) {
        let now = Instant::now();
        let rested = |after: Duration| {
            let rested = self.resting.iter().filter(move |(_, rest)| rest.until + after <= now);
            rested.map(|(id, _)| *id).collect::<Vec<u32>>()
        };
        let (rested, forgotten) = (rested(Duration::ZERO), rested(FORGET_AFTER));
        rested.into_iter().for_each(|id| self.lane.read_again(id));
        forgotten.into_iter().for_each(|id| self.forget_rest(id));
    }
}
