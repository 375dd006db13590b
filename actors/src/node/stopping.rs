//! How a node stops: within a time that is the sum of its parts, whatever disk or cluster do.

use std::time::{Duration, Instant};

use super::{Node, root};

/// A node that was told to stop has stopped by then.
pub const STOP_MAX: Duration = Duration::from_secs(13);

/// How long the root waits for its lanes to finish.
pub(super) const DRAIN_MAX: Duration = Duration::from_millis(8_500);
/// How long the root waits for the housekeeper, which gives up what it does.
pub(super) const REST_MAX: Duration = Duration::from_secs(2);
/// How long the node waits for the root, which waits for lanes and housekeeper at the same time.
const FINISH_MAX: Duration = Duration::from_secs(9);
/// How long actors may take to end once they have finished: the root's children, then the root.
const ACTORS_MAX: Duration = Duration::from_millis(500);
/// How long the last snapshots may take.
const SNAPSHOTS_MAX: Duration = Duration::from_secs(2);

const _: () = {
    assert!(DRAIN_MAX.as_millis() < FINISH_MAX.as_millis() && REST_MAX.as_millis() < DRAIN_MAX.as_millis());
    let parts = FINISH_MAX.as_millis() + 2 * ACTORS_MAX.as_millis() + SNAPSHOTS_MAX.as_millis();
    assert!(parts < STOP_MAX.as_millis());
};

impl Node {
    /// Finishes what is in flight, writes the stores and stops the actors; `false` where that was not possible in time. What was
    /// accepted is in the log all the same, and the next start goes on with it. A snapshot in progress is given up.
    pub async fn stop(&self) -> bool {
        self.finish(false).await.0
    }

    /// Stops like [`Node::stop`], and gives all partitions to the other nodes at once, instead of keeping them for the next start;
    /// `false` where nobody is known to have them.
    ///
    /// # Errors
    /// There are no other nodes: the log is this one's own.
    pub async fn leave(&self) -> Result<bool, &'static str> {
        if !self.is_shared() {
            return Err("the embedded log has one process, and nobody to hand over to; stop it with SIGTERM");
        }
        let (is_stopped, is_gone) = self.finish(true).await;
        Ok(is_stopped && is_gone)
    }

    /// Whether all was finished in time, and whether the group has seen it leave.
    async fn finish(&self, leaves: bool) -> (bool, bool) {
        let Some(root) = &self.0.root else { return (true, true) };
        self.0.carrier.end_by(Instant::now());
        let finish_ms = FINISH_MAX.as_millis() as u64;
        let is_drained = ractor::call_t!(root, root::Message::Drain, finish_ms).unwrap_or(false);
        let log = self.0.log.clone();
        let is_gone = leaves && tokio::task::spawn_blocking(move || log.leave()).await.unwrap_or(false);
        root.stop_children_and_wait(None, Some(ACTORS_MAX)).await;
        let is_stopped = root.stop_and_wait(None, Some(ACTORS_MAX)).await.is_ok();
        if is_drained && is_stopped {
            self.0.carrier.end_by(Instant::now() + SNAPSHOTS_MAX);
            let node = self.clone();
            // What is not taken in time is taken by the next process.
            let taking = tokio::task::spawn_blocking(move || node.last_snapshots());
            let _ = tokio::time::timeout(SNAPSHOTS_MAX, taking).await;
        }
        (is_drained && is_stopped, is_gone)
    }
}
