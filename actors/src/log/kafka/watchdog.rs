//! Calls that may never come back from the client library, whatever deadline they were given (librdkafka #5456, of transactions whose group
//! coordinator is away): nobody waits for them for ever.
//!
//! A lane's calls are watched by its session, which ends the process. Whoever makes transactional calls without one makes them here. A
//! thread that hangs is left to itself: the command that has begun it is about to end.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use finflow_topologies::log::Error;

/// How long a call may take before it is given up as hung: longer than all it may wait for by its own deadlines.
pub(super) const HUNG_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes a call on a thread of its own. [`Error::Unavailable`] where it has not come back by then.
pub(super) fn within<T: Send + 'static>(patience: Duration, call: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let (answer, answered) = channel();
    let work = move || {
        // Nobody may wait for it any more.
        let _ = answer.send(call());
    };
    let thread = std::thread::Builder::new().name("finflow-watched".to_owned()).spawn(work);
    thread.map_err(|error| Error::Unavailable(error.to_string()))?;
    answered.recv_timeout(patience).map_err(|cause| {
        Error::Unavailable(match cause {
            RecvTimeoutError::Timeout => silent(patience),
            RecvTimeoutError::Disconnected => "a call of the Kafka client has died".to_owned(),
        })
    })
}

/// That a call has taken so long.
pub(super) fn silent(patience: Duration) -> String {
    format!("the Kafka client has not answered for {} s", patience.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_never_comes_back_is_given_up() {
        // What hangs is let go when the test ends.
        let (_until, hangs) = channel::<()>();
        let long = Duration::from_secs(60);
        for (called, expected) in [
            (within(long, || true), Ok(true)),
            (within(Duration::from_millis(1), move || hangs.recv().is_ok()), Err("the Kafka client has not answered for 0 s")),
            (within(long, || panic!("the call dies")), Err("a call of the Kafka client has died")),
        ] {
            assert_eq!(called, expected.map_err(|cause| Error::Unavailable(cause.to_owned())));
        }
    }
}
