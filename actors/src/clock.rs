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
