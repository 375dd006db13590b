//! Carrying positions on past what holds nothing to decide: marks of transactions, and what producers have aborted.
//!
//! Such offsets are read past and move nothing that is committed. The topic keeps them no longer than its records; a partition without
//! commands for so long would begin, at its next start, where the log does not reach any more, and take its inputs for lost.

use std::time::{Duration, Instant};

use finflow_topologies::Topic;
use finflow_topologies::log::Fetched;
use tracing::warn;

use super::State;

/// How seldom an epoch is committed for that alone: a producer may leave a gap behind each of its transactions.
const CARRY_EVERY: Duration = Duration::from_secs(60);

impl State {
    /// Opens an epoch for the positions that are to be carried on, if there are any and it is time.
    pub(super) fn carry(&mut self) {
        let is_time = self.draining.is_none() && self.until_carry().is_some_and(|pause| pause.is_zero());
        if is_time && self.lane.carry() {
            self.carried_at = Some(Instant::now());
            self.note_opened();
        }
    }

    /// Reads on at the first command that the log still holds, because an operator accepts that those before it are lost, and has the
    /// position carried there at once. A partition that has read past it by now stays where it is.
    pub(super) fn pass_expired(&mut self, id: u32, start: u64) {
        let Some(from) = self.lane.wants(id).commands.filter(|from| *from < start) else { return };
        warn!(partition = id, from, start, "an operator lets it go on past commands that have expired");
        self.lane.offer(Topic::Commands, id, from, Fetched { records: Vec::new(), next: start });
        self.carried_at = None;
    }

    /// How long until positions are carried on; `None` where none is behind.
    pub(super) fn until_carry(&self) -> Option<Duration> {
        let pause = self.carried_at.map_or(Duration::ZERO, |at| CARRY_EVERY.saturating_sub(at.elapsed()));
        self.lane.has_gap().then_some(pause)
    }
}
