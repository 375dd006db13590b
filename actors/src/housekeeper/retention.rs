//! Retention of the log: what nobody needs any more is trimmed.
//!
//! `postings` go once they are applied; `commands`, `events` and `dlq` by age, commands never before they are applied, and dead
//! letters from when they were written, which may be long after their original. The journal is the state of record: it goes only below
//! snapshots, as the [`trimmer`](crate::trimmer) finds them.

use std::time::Duration;

use finflow_state::{Positions, Store};
use finflow_topologies::Topic;
use finflow_topologies::log::{Error, Log, Record};
use finflow_topologies::wire::v1::dead_lettered_ms;
use tracing::{info, warn};

use super::Args;
use crate::clock::Reading;

/// How often each partition is looked at.
const EVERY_MS: i64 = 60_000;

/// When the log is looked at next, on the monotonic clock.
pub(super) struct Retention {
    due_ms: i64,
}

impl Retention {
    pub(super) fn new(now_ms: i64) -> Retention {
        Retention { due_ms: now_ms.saturating_add(EVERY_MS) }
    }

    /// Trims every partition, if that is due. A trim writes one row, whatever it removes.
    pub(super) fn step(&mut self, args: &Args, now: Reading) {
        if now.monotonic_ms < self.due_ms {
            return;
        }
        self.due_ms = now.monotonic_ms.saturating_add(EVERY_MS);
        // Older than this by the log's own time; a wall clock that has jumped says nothing about age.
        // On a cluster the topics have their own retention, and the engine no right to the records of others.
        let is_by_age = args.clock.strayed().is_none() && !args.log.is_shared();
        let before_ms = |retention: Option<Duration>| {
            let retention_ms = retention.filter(|_| is_by_age).map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
            retention_ms.map(|retention_ms| now.wall_ms.saturating_sub(retention_ms))
        };
        let ages = Ages { before_ms: before_ms(args.settings.retention), dlq_before_ms: before_ms(args.settings.dlq_retention) };
        for (id, committed) in &args.partitions {
            let Some(head) = committed.store().and_then(|store| store.head()) else { continue };
            if let Err(cause) = trim(&args.log, *id, head.positions, ages) {
                warn!(partition = *id, %cause, "the log cannot be trimmed");
            }
        }
    }
}

/// What is older than these times is trimmed; `None` = nothing.
#[derive(Clone, Copy)]
struct Ages {
    before_ms: Option<i64>,
    dlq_before_ms: Option<i64>,
}

/// Trims what is applied, and what is too old, of one partition.
fn trim(log: &dyn Log, id: u32, applied: Positions, ages: Ages) -> Result<(), Error> {
    trim_topic(log, Topic::Postings, id, applied.postings)?;
    if let Some(before_ms) = ages.before_ms {
        trim_topic(log, Topic::Commands, id, offset_at(log, Topic::Commands, id, before_ms)?.min(applied.commands))?;
        trim_topic(log, Topic::Events, id, offset_at(log, Topic::Events, id, before_ms)?)?;
    }
    match ages.dlq_before_ms {
        Some(before_ms) => trim_topic(log, Topic::Dlq, id, offset_at(log, Topic::Dlq, id, before_ms)?),
        None => Ok(()),
    }
}

fn trim_topic(log: &dyn Log, topic: Topic, id: u32, before: u64) -> Result<(), Error> {
    let start = log.range(topic, id)?.start;
    if before <= start {
        return Ok(());
    }
    log.trim(topic, id, before)?;
    info!(%topic, partition = id, from = start, to = before, "trimmed");
    Ok(())
}

/// The offset of the first record that is not older than `before_ms`, looked for by halves: times hardly ever go back.
fn offset_at(log: &dyn Log, topic: Topic, id: u32, before_ms: i64) -> Result<u64, Error> {
    let range = log.range(topic, id)?;
    let (mut low, mut high) = (range.start, range.end);
    let written_ms = |record: &Record| if topic == Topic::Dlq { dead_lettered_ms(record) } else { record.timestamp_ms };
    while low < high {
        let middle = low + (high - low) / 2;
        match log.fetch(topic, id, middle, 1)?.records.first() {
            Some(record) if written_ms(record) < before_ms => low = record.offset.saturating_add(1),
            _ => high = middle,
        }
    }
    Ok(low)
}
