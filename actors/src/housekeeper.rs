//! The housekeeper: what a node does beside its epochs - retention of the log, the sweep of old records, a watch over the topics, and a
//! lookout for what operators have to see. A step does a little of each that is due. Where it begins anew, so do the intervals.
//! Snapshots are taken beside it (`snapshots.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use finflow_state::store;
use finflow_topologies::Rules;

use self::lookout::Lookout;
use self::retention::Retention;
pub(crate) use self::snapshots::Schedule;
use self::sweep::Sweep;
pub(crate) use self::watch::Seen;
use self::watch::Watch;
use crate::clock::Guard;
use crate::committed::Committed;
use crate::lane;
use crate::log::NodeLog;
use crate::metrics;
use crate::settings::Housekeeping;
use crate::snapshots::Carrier;
use crate::stepper::{Job, Tell};

pub(crate) mod legs;
mod lookout;
mod retention;
mod snapshots;
mod sweep;
mod watch;

/// How often the housekeeper looks what is due. Also the least time between two steps of the sweep.
pub(crate) const TICK: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(crate) struct Args {
    pub(crate) settings: Housekeeping,
    pub(crate) rules: Arc<Rules>,
    pub(crate) log: NodeLog,
    pub(crate) partitions: BTreeMap<u32, Arc<Committed>>,
    pub(crate) carrier: Arc<Carrier>,
    pub(crate) clock: Arc<Guard>,
    /// What is wrong with the application's own topics: it is not ready.
    pub(crate) misfit: Seen,
    /// What is wrong with topics while the work goes on: records that come to those that were left, and settings that keep too little.
    pub(crate) doubtful: Seen,
}

/// The jobs, each of which does a bounded step at a time.
pub(crate) struct Housekeeper {
    args: Args,
    tell: Tell,
    retention: Retention,
    sweep: Sweep,
    watch: Watch,
    lookout: Lookout,
}

impl Housekeeper {
    pub(crate) fn new(args: Args, tell: Tell) -> Housekeeper {
        let now_ms = args.clock.clock().read().monotonic_ms;
        let (retention, sweep, watch) = (Retention::new(now_ms), Sweep::new(now_ms), Watch::new(now_ms));
        let lookout = Lookout::new(&args, now_ms);
        Housekeeper { retention, sweep, watch, lookout, args, tell }
    }
}

/// Halts a partition whose store turned out to be corrupt.
fn tell_corrupt(tell: &Tell, id: u32, error: &store::Error) {
    if let store::Error::Corrupt(cause) = error {
        tell(id, lane::Message::Corrupt(id, cause.clone()));
    }
}

impl Job for Housekeeper {
    fn step(&mut self) {
        ::metrics::gauge!(metrics::CLOCK_DRIFT_SECONDS).set(self.args.clock.drift_ms() as f64 / 1_000.0);
        let now = self.args.clock.clock().read();
        self.watch.step(&self.args, now);
        if let Some((id, error)) = self.lookout.step(&self.args, now) {
            tell_corrupt(&self.tell, id, &error);
        }
        // On a cluster, retention is the topics' own.
        if !self.args.log.is_shared() {
            self.retention.step(&self.args, now);
        }
        // A wall clock that has jumped would forget records too early, and so would commands with a time of their producers'.
        if self.args.clock.strayed().is_some() || self.watch.has_producers_time() {
            return;
        }
        match self.sweep.step(&self.args, now) {
            Some((id, Ok(payments))) if !payments.is_empty() => (self.tell)(id, lane::Message::Sweep(id, payments)),
            Some((id, Err(error))) => tell_corrupt(&self.tell, id, &error),
            _ => {}
        }
    }
}
