//! When each partition's snapshot is due: every interval, spread over it, so that they do not come all at once.

use std::collections::BTreeMap;

use finflow_state::{snapshot, store};
use tracing::warn;

use super::Args;
use crate::metrics;
use crate::snapshots::SnapshotError;

/// The due times, on the monotonic clock.
pub(super) struct Schedule {
    interval_ms: i64,
    due_ms: BTreeMap<u32, i64>,
}

impl Schedule {
    pub(super) fn new(args: &Args, now_ms: i64) -> Schedule {
        let interval_ms = i64::try_from(args.settings.snapshot_interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let count = args.partitions.len().max(1) as i64;
        let share = |place: i64| now_ms.saturating_add((interval_ms / count).saturating_mul(place));
        let due_ms = args.partitions.keys().zip(1..).map(|(id, place)| (*id, share(place))).collect();
        args.partitions.keys().for_each(|id| args.carrier.show_newest(*id));
        Schedule { interval_ms, due_ms }
    }

    /// Takes the snapshot that has been due for longest, if one is due and the partition has moved. Gives what is wrong with the
    /// store, if that was what prevented it.
    pub(super) fn step(&mut self, args: &Args, now_ms: i64) -> Option<(u32, store::Error)> {
        if !args.carrier.goes_on() {
            return None;
        }
        let (id, due_ms) = self.due_ms.iter_mut().min_by_key(|(_, due_ms)| **due_ms).filter(|(_, due_ms)| **due_ms <= now_ms)?;
        *due_ms = now_ms.saturating_add(self.interval_ms);
        let store = args.partitions.get(id)?.running()?;
        let cause = args.carrier.take(*id, &store, &args.log).err()?;
        if matches!(cause, SnapshotError::Snapshot(snapshot::Error::GivenUp)) {
            return None;
        }
        ::metrics::counter!(metrics::SNAPSHOT_FAILURES).increment(1);
        warn!(partition = *id, %cause, "no snapshot was taken");
        match cause {
            SnapshotError::Store(error) => Some((*id, error)),
            _ => None,
        }
    }
}
