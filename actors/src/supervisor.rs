//! The restart policy of every actor, in one table.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The supervised actors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Drives epochs; restarted with its partitions restored from log and stores.
    Lane,
    /// Decides; restarted empty, because everything uncommitted is the lane's.
    Partition,
    /// A partition that does not answer; its actor is replaced, but not over and over: each keeps a thread.
    Hung,
    /// Looks after retention and old records; restarted with its intervals begun anew.
    Housekeeper,
    /// Takes snapshots; restarted with its intervals begun anew.
    Snapshots,
    /// Fires what is due; restarted with a look at all of it.
    Timers,
    /// Follows the journals of what other processes run; restarted with a look at where its stores are.
    Standby,
    /// Trims the log below snapshots; restarted with its intervals begun anew.
    Trimmer,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Kind; 8] =
        [Kind::Lane, Kind::Partition, Kind::Hung, Kind::Housekeeper, Kind::Snapshots, Kind::Timers, Kind::Standby, Kind::Trimmer];

    /// What it is called in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Lane => "lane",
            Kind::Partition => "partition",
            Kind::Hung => "hung",
            Kind::Housekeeper => "housekeeper",
            Kind::Snapshots => "snapshots",
            Kind::Timers => "timers",
            Kind::Standby => "standby",
            Kind::Trimmer => "trimmer",
        }
    }
}

/// How often an actor may be restarted before its supervisor gives up: so many times within so long.
pub(crate) const fn policy(kind: Kind) -> (usize, Duration) {
    match kind {
        Kind::Lane => (5, Duration::from_secs(60)),
        Kind::Partition => (30, Duration::from_secs(60)),
        Kind::Hung => (1, Duration::from_secs(600)),
        Kind::Housekeeper | Kind::Snapshots | Kind::Timers | Kind::Standby | Kind::Trimmer => (5, Duration::from_secs(600)),
    }
}

/// The restarts of one actor.
#[derive(Debug, Default)]
pub(crate) struct Restarts(VecDeque<Instant>);

impl Restarts {
    /// Notes one more restart; `false` when that is too many.
    pub(crate) fn may_restart(&mut self, kind: Kind, now: Instant) -> bool {
        let (count_max, within) = policy(kind);
        self.0.push_back(now);
        while self.0.front().is_some_and(|first| within < now.duration_since(*first)) {
            self.0.pop_front();
        }
        self.0.len() <= count_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_that_keeps_dying_is_given_up_and_one_that_recovers_is_not() {
        let begin = Instant::now();
        let (count_max, within) = policy(Kind::Lane);
        let mut fast = Restarts::default();
        let granted = (0..10).filter(|_| fast.may_restart(Kind::Lane, begin)).count();
        assert_eq!(granted, count_max);
        let mut slow = Restarts::default();
        assert!((0..100).all(|turn| slow.may_restart(Kind::Lane, begin + within * turn)));
    }
}
