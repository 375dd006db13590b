//! The clock: the one place where the engine learns what time it is. Tests bring their own.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What a clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Milliseconds since 1970-01-01 UTC; can be set, and so can jump.
    pub wall_ms: i64,
    /// Milliseconds since some moment; never jumps.
    pub monotonic_ms: i64,
}

/// A wall clock and a monotonic one, read together; clones are the same clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Reading + Send + Sync>);

impl Clock {
    /// The clock that `read` reads.
    pub fn new(read: impl Fn() -> Reading + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(read))
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
        (self.0)()
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

/// Compares the wall clock with the monotonic one, as they stood to each other when the node started.
///
/// A wall clock that jumps would date payments wrongly, forget records early and refuse commands as expired. Only a restart takes the
/// time after a jump for the right one: on Linux a suspended machine's monotonic clock stands still, so waking up is a jump too.
#[derive(Debug)]
pub(crate) struct Guard {
    clock: Clock,
    begun: Reading,
}

/// The wall clock has left the monotonic one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the wall clock has jumped by {0} ms; no epoch begins until it is back, or until a restart accepts it")]
pub(crate) struct Strayed(pub(crate) i64);

impl Guard {
    pub(crate) fn new(clock: Clock) -> Guard {
        let begun = clock.read();
        Guard { clock, begun }
    }

    /// The clock itself.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// By how much the wall clock is ahead of where the monotonic one says it should be.
    pub(crate) fn drift_ms(&self) -> i64 {
        let now = self.clock.read();
        let passed = |to: i64, from: i64| to.saturating_sub(from);
        passed(now.wall_ms, self.begun.wall_ms).saturating_sub(passed(now.monotonic_ms, self.begun.monotonic_ms))
    }

    /// Why no epoch may begin now, if so.
    pub(crate) fn strayed(&self) -> Option<Strayed> {
        let drift_ms = self.drift_ms();
        (STRAY_MS_MAX < drift_ms.saturating_abs()).then_some(Strayed(drift_ms))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_wall_clock_that_jumps_strays_until_it_is_back() {
        let shown = Arc::new(Mutex::new(Reading { wall_ms: 1_700_000_000_000, monotonic_ms: 7 }));
        let read = shown.clone();
        let guard = Guard::new(Clock::new(move || *read.lock().expect("a reading")));
        // Both pass by so much, and the wall clock jumps by so much besides: does it stray?
        for (passes, jumps, strays) in [
            (0, 0, None),
            (86_400_000, 0, None),
            (1_000, 5_000, None),
            (1_000, 1, Some(5_001)),
            (60_000, 0, Some(5_001)),
            (1_000, -1, None),
            (1_000, -10_000, None),
            (1_000, -1, Some(-5_001)),
            (1_000, 5_001, None),
            (0, i64::MAX / 2, Some(i64::MAX / 2)),
        ] {
            let mut shown = shown.lock().expect("a reading");
            shown.wall_ms += passes + jumps;
            shown.monotonic_ms += passes;
            drop(shown);
            assert_eq!(guard.strayed(), strays.map(Strayed), "{passes} ms passed, {jumps} jumped");
        }
    }
}
