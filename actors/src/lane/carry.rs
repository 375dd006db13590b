//! Carrying positions on past what holds nothing to decide: marks of transactions, and what producers have aborted.
//!
//! Such offsets are read past and move nothing that is committed. The topic keeps them no longer than its records; a partition without
//! commands for so long would begin, at its next start, where the log does not reach any more, and take its inputs for lost.

use std::time::{Duration, Instant};

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

    /// Has a partition read on at `start`, where the log begins, because an operator accepts that what it has not read before is lost; and
    /// has its position carried there at once.
    pub(super) fn accept_loss(&mut self, id: u32, start: u64) {
        warn!(partition = id, start, "an operator lets it go on past commands that have expired");
        self.lane.accept_loss(id, start);
        self.carried_at = None;
    }

    /// How long until positions are carried on; `None` where none is behind.
    pub(super) fn until_carry(&self) -> Option<Duration> {
        let pause = self.carried_at.map_or(Duration::ZERO, |at| CARRY_EVERY.saturating_sub(at.elapsed()));
        self.lane.has_gap().then_some(pause)
    }
}
