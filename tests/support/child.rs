//! A process that a test has started, and patience with it.

use std::process::Child;
use std::time::{Duration, Instant};

/// Between two looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// A service that is killed when the test ends, however it ends.
pub(crate) struct Service(pub(crate) Child);

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks again until it is so, and says what was not at the deadline.
pub(crate) fn eventually<T>(deadline: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(found) => return found,
            Err(cause) => assert!(begun.elapsed() < deadline, "{cause}"),
        }
        std::thread::park_timeout(PAUSE);
    }
}
