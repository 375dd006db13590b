//! The clock: the one place where the engine learns what time it is. Tests bring their own.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Milliseconds since 1970-01-01 UTC; can be set, and so can jump.
    pub wall_ms: i64,
    /// Milliseconds since some moment; never jumps.
    pub monotonic_ms: i64,
}

/// How far the wall clock may be behind the newest committed block when a node starts.
const BEHIND_MAX: Duration = Duration::from_secs(5);

/// A wall clock and a monotonic one, read together; clones are the same clock.
#[derive(Clone)]
pub struct Clock {
    read: Arc<dyn Fn() -> Reading + Send + Sync>,
    behind_ms_max: i64,
}

impl Clock {
    /// The clock that `read` reads.
    pub fn new(read: impl Fn() -> Reading + Send + Sync + 'static) -> Clock {
        Clock { read: Arc::new(read), behind_ms_max: whole_ms(BEHIND_MAX.as_millis()) }
    }

    /// The same clock, believed at the start of a node when it is so far behind the newest committed block; 5 s otherwise.
    #[must_use]
    pub fn behind(self, max: Duration) -> Clock {
        Clock { behind_ms_max: whole_ms(max.as_millis()), ..self }
    }

    /// The clock of this machine.
    pub fn system() -> Clock {
        let begun = Instant::now();
        Clock::new(move || Reading {
            wall_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| whole_ms(since.as_millis())),
            monotonic_ms: whole_ms(begun.elapsed().as_millis()),
        })
    }

    /// What it shows.
    pub(crate) fn read(&self) -> Reading {
        (self.read)()
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn now_ms(&self) -> i64 {
        self.read().wall_ms
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.read()).finish()
    }
}

fn whole_ms(millis: u128) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// How far the wall clock may leave the monotonic one before the epochs stop, in milliseconds.
const STRAY_MS_MAX: i64 = 5_000;
/// 2024-01-01: a clock that shows less than that was never set.
const BORN_MS: i64 = 1_704_067_200_000;

/// Tells the time of decisions, or why nothing may be decided: compares the wall clock with the monotonic one, as they stood to each
/// other since the wall clock was first believed, and before that with what the log holds.
///
/// A wall clock that jumps would date payments wrongly, forget records early and refuse commands as expired. Only a restart takes the
/// time after a jump for the right one: on Linux a suspended machine's monotonic clock stands still, so waking up is a jump too.
#[derive(Debug)]
pub(crate) struct Guard {
    clock: Clock,
    /// The time of the newest committed block that is known.
    newest_ms: AtomicI64,
    /// Since when the two clocks are compared; `None` until the wall clock is believed.
    begun: Mutex<Option<Reading>>,
}

/// The wall clock is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Strayed {
    /// It has left the monotonic one by so many milliseconds.
    #[error("the wall clock has jumped by {0} ms; no epoch begins until it is back, or until a restart accepts it")]
    Jumped(i64),
    /// It shows a time so many milliseconds before that of the newest block.
    #[error(
        "the wall clock is {0} ms behind the newest committed block; no epoch begins until it has caught up, \
         or until a restart with a longer clock.behind_max accepts it"
    )]
    Behind(i64),
    /// It shows a time before this program was written.
    #[error("the wall clock was never set: it shows a time before 2024; no epoch begins until it is set")]
    Unset,
}

impl Guard {
    /// A guard for a log whose newest block is of this time.
    pub(crate) fn new(clock: Clock, newest_ms: i64) -> Guard {
        Guard { clock, newest_ms: AtomicI64::new(newest_ms), begun: Mutex::default() }
    }

    /// Takes note of the time of a block that another node may have committed: a wall clock that it shows to be wrong is not believed
    /// any more.
    pub(crate) fn meet(&self, at_ms: i64) {
        self.newest_ms.fetch_max(at_ms, Ordering::AcqRel);
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.is_some() && self.believes(self.clock.read()).is_err() {
            *begun = None;
        }
    }

    /// The clock itself, for what decides nothing.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The time of a decision, in milliseconds since 1970-01-01 UTC, or why nothing may be decided now.
    pub(crate) fn now(&self) -> Result<i64, Strayed> {
        let now = self.clock.read();
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        match *begun {
            None => {
                self.believes(now)?;
                *begun = Some(now);
            }
            Some(begun) => {
                let drift_ms = drift_ms(begun, now);
                if STRAY_MS_MAX < drift_ms.saturating_abs() {
                    return Err(Strayed::Jumped(drift_ms));
                }
            }
        }
        Ok(now.wall_ms)
    }

    fn believes(&self, now: Reading) -> Result<(), Strayed> {
        let behind_ms = self.newest_ms.load(Ordering::Acquire).saturating_sub(now.wall_ms);
        if now.wall_ms < BORN_MS {
            return Err(Strayed::Unset);
        }
        if self.clock.behind_ms_max < behind_ms {
            return Err(Strayed::Behind(behind_ms));
        }
        Ok(())
    }

    /// By how much the wall clock is ahead of where the monotonic one says it should be.
    pub(crate) fn drift_ms(&self) -> i64 {
        let begun = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.map_or(0, |begun| drift_ms(begun, self.clock.read()))
    }

    /// Why no epoch may begin now, if so.
    pub(crate) fn strayed(&self) -> Option<Strayed> {
        self.now().err()
    }
}

fn drift_ms(begun: Reading, now: Reading) -> i64 {
    let passed = |to: i64, from: i64| to.saturating_sub(from);
    passed(now.wall_ms, begun.wall_ms).saturating_sub(passed(now.monotonic_ms, begun.monotonic_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: i64 = 1_800_000_000_000;

    /// Takes steps from a start that is `ahead_ms` of the newest block: both clocks pass by so much and the wall clock jumps by so
    /// much besides; what the guard says then.
    fn check(ahead_ms: i64, behind_max: Duration, steps: &[(i64, i64, Result<(), Strayed>)]) {
        let shown = Arc::new(Mutex::new(Reading { wall_ms: START_MS, monotonic_ms: 7 }));
        let read = shown.clone();
        let clock = Clock::new(move || *read.lock().expect("a reading")).behind(behind_max);
        let guard = Guard::new(clock, START_MS - ahead_ms);
        for (passes, jumps, expected) in steps {
            let mut shown = shown.lock().expect("a reading");
            shown.wall_ms += passes + jumps;
            shown.monotonic_ms += passes;
            let due = expected.map(|()| shown.wall_ms);
            drop(shown);
            assert_eq!(guard.now(), due, "{ahead_ms} ms ahead, {passes} ms passed, {jumps} jumped: {steps:?}");
            assert_eq!(guard.strayed(), expected.err());
        }
    }

    #[test]
    fn a_wall_clock_that_jumps_strays_until_it_is_back() {
        let steps = [
            (0, 0, Ok(())),
            (86_400_000, 0, Ok(())),
            (1_000, 5_000, Ok(())),
            (1_000, 1, Err(Strayed::Jumped(5_001))),
            (60_000, 0, Err(Strayed::Jumped(5_001))),
            (1_000, -1, Ok(())),
            (1_000, -10_000, Ok(())),
            (1_000, -1, Err(Strayed::Jumped(-5_001))),
            (1_000, 5_001, Ok(())),
            (0, i64::MAX / 2, Err(Strayed::Jumped(i64::MAX / 2))),
        ];
        check(0, BEHIND_MAX, &steps);
    }

    #[test]
    fn a_wall_clock_that_is_wrong_from_the_start_is_not_believed() {
        let hour = Duration::from_secs(3_600);
        check(-5_000, BEHIND_MAX, &[(0, 0, Ok(()))]);
        // It catches up, or is set right: that is no jump.
        check(
            -5_001,
            BEHIND_MAX,
            &[(0, 0, Err(Strayed::Behind(5_001))), (1, 0, Ok(())), (0, 6_000, Err(Strayed::Jumped(6_000)))],
        );
        check(-86_400_000, BEHIND_MAX, &[(9, 0, Err(Strayed::Behind(86_399_991))), (0, 86_400_000, Ok(())), (9, 0, Ok(()))]);
        // An operator may say that the log is wrong.
        check(-3_600_000, hour, &[(0, 0, Ok(()))]);
        check(-3_600_001, hour, &[(0, 0, Err(Strayed::Behind(3_600_001)))]);
        // No battery, no network.
        check(i64::MAX / 2, hour, &[(0, -START_MS, Err(Strayed::Unset)), (60_000, START_MS, Ok(()))]);
    }
}
