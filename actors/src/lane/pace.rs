//! The pace of a lane's commits.
//!
//! A commit costs about the same whatever it holds, the lane and the broker alike: on Kafka every partition that takes part costs requests
//! and marks of its own. So the time from one to the next adapts to what one takes, within limits, with a rest between them: a broker with
//! time to spare is asked at every interval, one that is busy less often, and by that it is less busy.

use std::time::Duration;

/// Commits take half of the time: from one close to the next it is so often what one takes.
const BETWEEN: u32 = 2;
/// But never longer than this: after a commit that has taken as long nobody rests.
const BETWEEN_MAX: Duration = Duration::from_millis(100);
/// An epoch of a lane with a backlog gathers for so many intervals.
const BACKLOG_INTERVALS: u32 = 4;
/// What the last commit took counts as one of so many, and as [`BETWEEN_MAX`] at most: one that hung does not slow down those that follow.
const SMOOTHING: u32 = 8;

#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// What commits have taken of late, by the thread that made them.
    takes: Duration,
}

impl Pace {
    /// The pace of a lane that commits once in `interval` at most.
    pub(super) fn new(interval: Duration) -> Pace {
        Pace { interval, takes: Duration::ZERO }
    }

    /// Notes what a commit has taken that came to its end. What was aborted or doubtful says nothing of the next one.
    pub(super) fn note(&mut self, took: Duration) {
        self.takes = (self.takes * (SMOOTHING - 1) + took.min(BETWEEN_MAX)) / SMOOTHING;
    }

    /// From the close of an epoch to that of the next, where the lane keeps up with what comes.
    pub(super) fn between(&self) -> Duration {
        self.interval.max((self.takes * BETWEEN).min(BETWEEN_MAX))
    }

    /// How long an epoch stays open while there is more to decide.
    pub(super) fn backlog(&self) -> Duration {
        (self.interval * BACKLOG_INTERVALS).max(self.between())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_rests_for_a_share_of_what_its_commits_take() {
        // The interval, what each of many commits takes, how long it is from one to the next, and how long a backlog gathers, in ms.
        let rows = [
            (5, 0, 5, 20),
            (5, 2, 5, 20),
            (5, 10, 20, 20),
            (5, 20, 40, 40),
            (5, 45, 90, 90),
            (5, 70, 100, 100),
            (5, 5_000, 100, 100),
            (250, 5_000, 250, 1_000),
        ];
        for (interval, took, between, backlog) in rows {
            let mut pace = Pace::new(Duration::from_millis(interval));
            assert_eq!(pace.between(), Duration::from_millis(interval), "before the first commit");
            (0..200).for_each(|_| pace.note(Duration::from_millis(took)));
            // Whole milliseconds: what is smoothed comes near.
            let found = [pace.between(), pace.backlog()].map(|time| (time.as_secs_f64() * 1_000.0).round() as u64);
            assert_eq!(found, [between, backlog], "{interval} ms, commits of {took} ms");
        }
    }

    #[test]
    fn one_commit_that_was_held_up_counts_for_little() {
        for held_up_ms in [40, 5_000, 600_000] {
            let mut pace = Pace::new(Duration::from_millis(5));
            (0..200).for_each(|_| pace.note(Duration::from_millis(8)));
            pace.note(Duration::from_millis(held_up_ms));
            assert!(pace.between() < Duration::from_millis(41), "{held_up_ms} ms: {pace:?}");
            (0..10).for_each(|_| pace.note(Duration::from_millis(8)));
            assert!(pace.between() < Duration::from_millis(24), "{held_up_ms} ms: {pace:?}");
        }
    }
}
