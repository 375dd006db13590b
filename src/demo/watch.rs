//! The demo's reader: follows the events and dead letters as any consumer does, counts them, and measures from the moment at which
//! a transfer was due to the moment at which its end could be read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use finflow_actors::Node;
use finflow_topologies::Topic;
use hdrhistogram::Histogram;
use tokio::task::JoinHandle;

use crate::failure::Failure;

const FETCH_BYTES: usize = 4 << 20;
const PAUSE: Duration = Duration::from_millis(50);
/// The longest time that is told apart, in microseconds.
const MICROS_MAX: u64 = 600_000_000;

/// What was read so far.
pub(super) struct Seen {
    /// When each measured transfer was due, by idempotency key.
    pub(super) due: HashMap<String, Instant>,
    pub(super) settled: u64,
    pub(super) rejected: u64,
    /// Microseconds from due to readable.
    pub(super) latencies: Histogram<u64>,
}

/// The reader at work.
pub(super) struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Reads what comes from here on.
    pub(super) fn start(node: &Node) -> Result<Watch, Failure> {
        let latencies = Histogram::new_with_bounds(1, MICROS_MAX, 3).map_err(|error| Failure::Failed(error.to_string()))?;
        let seen = Arc::new(Mutex::new(Seen { due: HashMap::new(), settled: 0, rejected: 0, latencies }));
        let task = tokio::spawn(follow(node.clone(), seen.clone()));
        Ok(Watch { seen, task })
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops reading and gives the latencies.
    pub(super) async fn stop(self) -> Histogram<u64> {
        self.task.abort();
        // It ends at its next pause, or has ended.
        let _ = self.task.await;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).latencies.clone()
    }
}

async fn follow(node: Node, seen: Arc<Mutex<Seen>>) {
    let count = node.partitions_count();
    let mut next: Vec<u64> = (0..count).map(|id| node.range(Topic::Events, id).map_or(0, |range| range.end)).collect();
    loop {
        for (partition, from) in (0_u32..).zip(next.iter_mut()) {
            let Ok(fetched) = node.fetch(Topic::Events, partition, *from, FETCH_BYTES) else { continue };
            let now = Instant::now();
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            fetched.records.iter().filter_map(|record| record.value.as_deref()).for_each(|event| seen.event(event, now));
            *from = fetched.next;
        }
        node.changed(PAUSE).await;
    }
}

impl Seen {
    /// Reads the few words that it needs by text: the reader must not cost more than the engine.
    fn event(&mut self, event: &[u8], now: Instant) {
        let Ok(event) = std::str::from_utf8(event) else { return };
        match event.strip_prefix("{\"event\":\"payment.") {
            Some(rest) if rest.starts_with("settled\"") => self.settled += 1,
            Some(rest) if rest.starts_with("rejected\"") => self.rejected += 1,
            _ => return,
        }
        let Some(due) = word(event, "\"idempotency_key\":\"").and_then(|key| self.due.remove(key)) else { return };
        let micros = u64::try_from(now.saturating_duration_since(due).as_micros()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(micros);
    }
}

/// The text between `start` and the next quote.
fn word<'e>(event: &'e str, start: &str) -> Option<&'e str> {
    event.get(event.find(start)? + start.len()..)?.split('"').next()
}
