//! Takes the snapshot of each partition once an interval. A job of its own: what holds it up, a disk or a network, holds up nothing else.

use finflow_state::{snapshot, store};
use tracing::{debug, warn};

use super::{Args, tell_corrupt};
use crate::metrics;
use crate::rota::Rota;
use crate::snapshots::SnapshotError;
use crate::stepper::{Job, Tell};

/// Which snapshot is due.
pub(crate) struct Schedule {
    args: Args,
    tell: Tell,
    rota: Rota,
    /// Partitions of which the metrics do not tell the newest snapshot yet: that is asked in a step, while no actor waits.
    unshown: Vec<u32>,
}

impl Schedule {
    pub(crate) fn new(args: Args, tell: Tell) -> Schedule {
        let now_ms = args.clock.clock().read().monotonic_ms;
        let rota = Rota::new(args.partitions.keys().copied(), args.settings.snapshot_interval, now_ms);
        let unshown = args.partitions.keys().copied().collect();
        Schedule { args, tell, rota, unshown }
    }

    /// Tells the metrics of one more partition. Where that cannot be asked, its next snapshot tells them.
    fn show_one(&mut self) {
        let Some(id) = self.unshown.pop() else { return };
        if let Err(cause) = self.args.carrier.show_newest(id) {
            debug!(partition = id, %cause, "its newest snapshot is not known");
            self.unshown.clear();
        }
    }

    /// Takes the snapshot that has been due for longest, if one is due and the partition has moved. Gives what is wrong with the
    /// store, if that was what prevented it.
    fn take_due(&mut self, now_ms: i64) -> Option<(u32, store::Error)> {
        let (id, args) = (self.rota.next(now_ms)?, &self.args);
        let store = args.partitions.get(&id)?.running()?;
        let cause = args.carrier.take(id, &store, &args.log).err()?;
        if matches!(cause, SnapshotError::Snapshot(snapshot::Error::GivenUp)) {
            return None;
        }
        ::metrics::counter!(metrics::SNAPSHOT_FAILURES).increment(1);
        warn!(partition = id, %cause, "no snapshot was taken");
        match cause {
            SnapshotError::Store(error) => Some((id, error)),
            _ => None,
        }
    }
}

impl Job for Schedule {
    fn step(&mut self) {
        if !self.args.carrier.goes_on() {
            return;
        }
        self.show_one();
        if let Some((id, error)) = self.take_due(self.args.clock.clock().read().monotonic_ms) {
            tell_corrupt(&self.tell, id, &error);
        }
    }
}
