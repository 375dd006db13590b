//! Timers: reads the stores for what is due and proposes it to the partition, which decides inside an epoch.
//!
//! The row is the timer: it stands in the partition's state, so a crash or a takeover loses none, and one that fires twice finds its row
//! gone. What is proposed here was read from the store alone, which is behind what is committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use finflow_ledger::PaymentId;
use finflow_state::{RocksStore, store};
use tracing::warn;

use crate::clock::{Guard, Reading};
use crate::committed::Committed;
use crate::lane;
use crate::stepper::{Job, Tell};

/// How often the stores are looked at: how late a timer may be.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// Timers proposed to a partition at a time, and so in one epoch: what they change takes a fraction of a block.
const DUE_MAX: usize = 64;
/// A look begins so long ago, because rows that are gone are still in the way of whoever reads past them.
const SINCE_MS: i64 = 60_000;
/// Every so often a look begins at the beginning: a store may have been so far behind, and a partition may have been elsewhere.
const WHOLE_EVERY_MS: i64 = 600_000;

#[derive(Clone)]
pub(crate) struct Args {
    pub(crate) partitions: BTreeMap<u32, Arc<Committed>>,
    pub(crate) clock: Arc<Guard>,
}

pub(crate) struct Timers {
    args: Args,
    tell: Tell,
    looked: BTreeMap<u32, Looked>,
}

/// How a partition was looked at last.
struct Looked {
    /// What was due before is gone.
    since_ms: i64,
    /// When everything was looked at, on the monotonic clock.
    whole_at_ms: i64,
}

impl Timers {
    pub(crate) fn new(args: Args, tell: Tell) -> Timers {
        Timers { args, tell, looked: BTreeMap::new() }
    }
}

impl Job for Timers {
    fn step(&mut self) {
        // A wall clock that has jumped would fire what is not due.
        if self.args.clock.strayed().is_some() {
            return;
        }
        let now = self.args.clock.clock().read();
        for (id, committed) in &self.args.partitions {
            let Some(held) = committed.running() else {
                self.looked.remove(id);
                continue;
            };
            let looked = self.looked.entry(*id).or_insert_with(|| Looked::whole(now));
            match looked.due(&held, now) {
                Ok(due) if due.is_empty() => {}
                Ok(due) => (self.tell)(*id, lane::Message::Timers(*id, due)),
                Err(error) => {
                    warn!(partition = id, %error, "the timers cannot be read");
                    if let store::Error::Corrupt(cause) = error {
                        (self.tell)(*id, lane::Message::Corrupt(*id, cause));
                    }
                }
            }
        }
    }
}

impl Looked {
    /// A look at everything.
    fn whole(now: Reading) -> Looked {
        Looked { since_ms: i64::MIN, whole_at_ms: now.monotonic_ms }
    }

    /// What is due in a store.
    fn due(&mut self, held: &RocksStore, now: Reading) -> Result<Vec<(i64, PaymentId)>, store::Error> {
        if WHOLE_EVERY_MS <= now.monotonic_ms.saturating_sub(self.whole_at_ms) {
            *self = Looked::whole(now);
        }
        let due = store::due(held, self.since_ms, now.wall_ms, DUE_MAX)?;
        if due.is_empty() {
            self.since_ms = self.since_ms.max(now.wall_ms.saturating_sub(SINCE_MS));
        }
        Ok(due)
    }
}
