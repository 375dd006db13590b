//! The sweep: finds records whose retention has passed and proposes that their partition forget them, inside an epoch.
//!
//! It reads the payments in key order, a page at a time, and begins again when the interval has passed. There is no index by age,
//! because every payment would have to write and remove a row of it: reading 164 million records once a day takes some minutes of
//! one core. A proposal that is lost with its epoch is made again in the next round.
//!
//! A record goes only when no command can still come that it would have to answer. One that was sent within the retention, less a
//! margin, may have waited since then, here or in the partition of another process: see `look`.

use std::collections::BTreeMap;
use std::sync::Arc;

use finflow_ledger::PaymentId;
use finflow_state::{Payments, Store, Table, Tag, store};
use finflow_topologies::Topic;
use finflow_topologies::log::{Error, Log, Position};
use tracing::warn;

use super::Args;
use crate::clock::Reading;
use crate::committed::Committed;

/// Records read in one step.
const ROWS_MAX: usize = 4_096;
/// Records proposed in one step, and so in one epoch: their removals take a fraction of a block.
const PROPOSED_MAX: usize = 512;

/// How often a cluster is asked which commands wait; consumed stays consumed, so an answer serves for a while.
const LOOK_EVERY_MS: i64 = 60_000;

/// Where the sweep stands.
pub(super) struct Sweep {
    /// When the round began, or is to begin, on the monotonic clock.
    begins_ms: i64,
    /// The partition and the key behind which to read on.
    place: (u32, Option<Vec<u8>>),
    seen: Option<Seen>,
}

/// What a look at all partitions has shown.
struct Seen {
    /// On the monotonic clock.
    at_ms: i64,
    /// Where `postings` ended when every old command was consumed; `None` while one waits.
    ends: Option<BTreeMap<u32, u64>>,
}

impl Sweep {
    pub(super) fn new(now_ms: i64) -> Sweep {
        Sweep { begins_ms: now_ms, place: (0, None), seen: None }
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
        if committed.running().is_none() {
            self.place = next;
            return None;
        }
        if !self.is_safe(args, *id, committed, now) {
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

impl Sweep {
    /// Whether no command that a record of this partition would have to answer can still come: all of them are consumed, and what was
    /// forwarded of them has arrived.
    fn is_safe(&mut self, args: &Args, id: u32, committed: &Committed, now: Reading) -> bool {
        // A cluster is asked about every partition, those of other processes included.
        let every_ms = if args.log.is_shared() { LOOK_EVERY_MS.min(args.rules.dedup_margin_ms / 4) } else { 0 };
        if self.seen.as_ref().is_none_or(|seen| seen.at_ms.saturating_add(every_ms) <= now.monotonic_ms) {
            let ends = look(args, now).unwrap_or_else(|cause| {
                warn!(%cause, "no record is forgotten, because nobody knows which commands wait");
                None
            });
            self.seen = Some(Seen { at_ms: now.monotonic_ms, ends });
        }
        let ends = self.seen.as_ref().and_then(|seen| seen.ends.as_ref());
        let arrived = committed.condition().postings_next;
        ends.and_then(|ends| ends.get(&id)).is_some_and(|end| *end <= arrived)
    }
}

/// Looks whether all commands have been consumed, anywhere, that are older than half the margin. What is consumed stays consumed, and
/// what comes later is younger than this look.
///
/// A command that lies in another partition than its home's is forwarded when it is consumed, whoever consumes it and whenever that
/// is: after a halt, or an outage of another process. Its forward is in `postings` by then, so the ends are read last.
fn look(args: &Args, now: Reading) -> Result<Option<BTreeMap<u32, u64>>, Error> {
    let oldest_ms = now.wall_ms.saturating_sub(args.rules.dedup_margin_ms / 2);
    let mut committed = None;
    for id in 0..args.log.partitions() {
        let running = args.partitions.get(&id).filter(|partition| partition.running().is_some());
        let next = match (running, &committed) {
            (Some(running), _) => running.condition().commands_next,
            (None, Some(positions)) => commands_next(positions, id),
            (None, None) => commands_next(committed.insert(args.log.positions()?), id),
        };
        let range = args.log.range(Topic::Commands, id)?;
        let is_there = next.max(range.start) < range.end;
        let waiting = if is_there { args.log.fetch(Topic::Commands, id, next.max(range.start), 1)?.records } else { Vec::new() };
        if waiting.first().is_some_and(|record| record.timestamp_ms < oldest_ms) {
            return Ok(None);
        }
    }
    let ends = args.partitions.keys().map(|id| Ok((*id, args.log.range(Topic::Postings, *id)?.end)));
    ends.collect::<Result<_, _>>().map(Some)
}

/// The first command of a partition that is not consumed, as the positions of the log say.
fn commands_next(positions: &BTreeMap<u32, Option<Position>>, id: u32) -> u64 {
    positions.get(&id).and_then(Option::as_ref).map_or(0, |position| position.commands)
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
