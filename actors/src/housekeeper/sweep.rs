//! The sweep: finds records whose retention has passed and proposes that their partition forget them, inside an epoch.
//!
//! It reads the payments in key order, a page at a time, and begins again when the interval has passed. There is no index by age,
//! because every payment would have to write and remove a row of it: reading 164 million records once a day takes some minutes of
//! one core. A proposal that is lost with its epoch is made again in the next round.

use std::sync::Arc;

use finflow_ledger::PaymentId;
use finflow_state::{Payments, Store, Table, Tag, store};
use finflow_topologies::Topic;
use finflow_topologies::log::Log;
use tracing::warn;

use super::Args;
use crate::clock::Reading;
use crate::committed::Committed;

/// Records read in one step.
const ROWS_MAX: usize = 4_096;
/// Records proposed in one step, and so in one epoch: their removals take a fraction of a block.
const PROPOSED_MAX: usize = 512;

/// Where the sweep stands.
pub(super) struct Sweep {
    /// When the round began, or is to begin, on the monotonic clock.
    begins_ms: i64,
    /// The partition and the key behind which to read on.
    place: (u32, Option<Vec<u8>>),
}

impl Sweep {
    pub(super) fn new(now_ms: i64) -> Sweep {
        Sweep { begins_ms: now_ms, place: (0, None) }
    }

    /// Reads one page and gives the records of it that may be forgotten, and of which partition.
    pub(super) fn step(&mut self, args: &Args, now: Reading) -> Option<(u32, Result<Vec<PaymentId>, store::Error>)> {
        if now.monotonic_ms < self.begins_ms {
            return None;
        }
        let Some((id, committed)) = args.partitions.range(self.place.0..).next() else {
            let interval_ms = i64::try_from(args.settings.sweep_interval.as_millis()).unwrap_or(i64::MAX);
            // A round that took longer than the interval is followed by the next one at once.
            *self = Sweep::new(self.begins_ms.saturating_add(interval_ms).max(now.monotonic_ms));
            return None;
        };
        let after = self.place.1.take().filter(|_| self.place.0 == *id);
        let next = (id.saturating_add(1), None);
        if is_behind(args, now.wall_ms) {
            self.place = (*id, after);
            return None;
        }
        match page(args, committed, after, now.wall_ms) {
            Ok((payments, last)) => {
                self.place = if last.is_some() { (*id, last) } else { next };
                Some((*id, Ok(payments)))
            }
            Err(error) => {
                warn!(partition = *id, %error, "the records cannot be swept");
                self.place = next;
                Some((*id, Err(error)))
            }
        }
    }
}

/// Whether a command has waited longer than half the margin: it may repeat one whose record is due to be forgotten.
fn is_behind(args: &Args, now_ms: i64) -> bool {
    let oldest_ms = now_ms.saturating_sub(args.rules.dedup_margin_ms / 2);
    args.partitions.iter().filter(|(_, committed)| committed.running().is_some()).any(|(id, committed)| {
        let next = committed.condition().commands_next;
        let is_there = args.log.range(Topic::Commands, *id).is_ok_and(|range| next < range.end);
        let waiting = is_there.then(|| args.log.fetch(Topic::Commands, *id, next, 1));
        match waiting {
            None => false,
            Some(Ok(fetched)) => fetched.records.first().is_some_and(|record| record.timestamp_ms < oldest_ms),
            Some(Err(_)) => true,
        }
    })
}

type Page = (Vec<PaymentId>, Option<Vec<u8>>);

/// The records behind `after` that may be forgotten, and the last key read; `None` after the last one of all.
fn page(args: &Args, committed: &Arc<Committed>, after: Option<Vec<u8>>, now_ms: i64) -> Result<Page, store::Error> {
    let Some(store) = committed.running() else { return Ok((Vec::new(), None)) };
    let rows = store.scan(Tag::Payments, after.as_deref(), ROWS_MAX)?;
    let is_last = rows.len() < ROWS_MAX;
    let (mut payments, mut last) = (Vec::new(), None);
    for (key, value) in rows {
        let id = Payments::decode_key(&key)?;
        if args.rules.may_forget(&Payments::decode(&id, &value)?, now_ms) {
            payments.push(id);
        }
        last = Some(key);
        if PROPOSED_MAX <= payments.len() {
            return Ok((payments, last));
        }
    }
    Ok((payments, last.filter(|_| !is_last)))
}
