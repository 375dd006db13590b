//! Time as a test wants it.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use finflow_actors::{Clock, Reading};

/// A clock that runs like the machine's, ahead of it by what the test says.
#[derive(Clone, Default)]
pub(crate) struct Time {
    ahead_ms: Arc<AtomicI64>,
    jumped_ms: Arc<AtomicI64>,
}

impl Time {
    pub(crate) fn clock(&self) -> Clock {
        let (time, begun) = (self.clone(), Instant::now());
        let wall_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_millis() as i64;
        Clock::new(move || {
            let monotonic_ms = begun.elapsed().as_millis() as i64 + time.ahead_ms.load(Ordering::SeqCst);
            Reading { wall_ms: wall_ms + monotonic_ms + time.jumped_ms.load(Ordering::SeqCst), monotonic_ms }
        })
    }

    /// Time passes.
    pub(crate) fn pass(&self, ms: i64) {
        self.ahead_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Somebody sets the wall clock.
    pub(crate) fn jump(&self, ms: i64) {
        self.jumped_ms.fetch_add(ms, Ordering::SeqCst);
    }
}
