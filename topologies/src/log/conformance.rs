//! The contract of a log as one suite of cases, for every log there is.
//!
//! It asks for what [`Log`](super::Log) promises and for no more: offsets grow but may have gaps, `next` moves on, what was written
//! may take a moment to be seen. A log under test brings a [`Harness`]; one that can be made to fail brings a [`Faulty`] one.

use std::sync::Arc;

use bytes::Bytes;
use finflow_state::Stamp;

use super::simulated::Fault;
use super::{Batch, Claim, Claimed, Error, Log, Outgoing, Position, Record, Session, Transaction};
use crate::topics::Topic;

mod claims;
mod doubts;
mod records;

/// The partitions that the suite works with: a log under test has at least so many.
pub const PARTITIONS: u32 = 4;

/// A log under test: the same one from the first call to the last, empty at the first.
pub trait Harness {
    /// Opens the log, as a process does that starts. Whatever an earlier call gave has been dropped.
    fn open(&mut self) -> Arc<dyn Log>;

    /// Waits a moment for what was written to be seen; `tries` counts the moments that were not enough.
    /// `false`: it should have been seen by now. A log that shows its writes at once never waits.
    fn wait(&mut self, _tries: u32) -> bool {
        false
    }

    /// Lets the lane called `lane`, which is about to claim the partition, have it. For a log where somebody else decides who may
    /// claim what; where the claim itself decides there is nothing to do.
    fn give(&mut self, _partition: u32, _lane: &str) {}
}

/// A log under test whose commits can be made to fail.
pub trait Faulty: Harness {
    /// Lets the next commit fail in this way.
    fn fail_next(&mut self, fault: Fault);
}

type Case = (&'static str, fn(&mut dyn Harness));
type FaultCase = (&'static str, fn(&mut dyn Faulty));

/// What every log is held to.
const CASES: &[Case] = &[
    ("records come back as they are", records::come_back_as_they_are),
    ("dead letters keep their time", records::keep_their_time),
    ("a fetch gives at least one record and moves on", records::fetches_move_on),
    ("what is outside is out of range", records::outside_is_out_of_range),
    ("trimmed records are gone, the others stay", records::trimmed_are_gone),
    ("a commit is seen whole", records::a_commit_is_seen_whole),
    ("a commit that names no such partition is refused whole", records::a_commit_is_refused_whole),
    ("a restart keeps everything", records::a_restart_keeps_everything),
    ("a claim gives the committed position", claims::give_the_position),
    ("a commit without positions is refused", claims::no_positions_are_refused),
    ("a session fences the earlier one of its name", claims::sessions_fence),
    ("a claim fences the former owner", claims::fence_the_owner),
    ("a claim voids the session's own earlier one", claims::void_earlier_ones),
    ("what is not claimed or given back is fenced", claims::are_needed),
    ("a position may be sent once more", claims::may_be_confirmed),
    ("a commit beside a claim is in its position or fenced", claims::race_commits),
];

/// What every log is held to that can be made to fail.
const FAULT_CASES: &[FaultCase] = &[
    ("an aborted commit leaves nothing", doubts::an_abort_leaves_nothing),
    ("a doubt about what was committed", doubts::about_what_was_committed),
    ("a doubt about what was not committed", doubts::about_what_was_not),
    ("a doubt comes before the next commit", doubts::come_first),
    ("a doubt outlived by its claims is not guessed", doubts::are_not_guessed),
];

/// Holds a log to the contract. Every case gets a log of its own from `make`, and is named before it runs.
pub fn check<H: Harness>(mut make: impl FnMut() -> H) {
    for (name, case) in CASES {
        println!("{name}");
        case(&mut make());
    }
}

/// Holds a log whose commits fail on demand to what the contract says about them. Every case gets a log of its own.
pub fn check_faults<H: Faulty>(mut make: impl FnMut() -> H) {
    for (name, case) in FAULT_CASES {
        println!("{name}");
        case(&mut make());
    }
}

fn outgoing(key: Option<&str>, value: Option<&[u8]>) -> Outgoing {
    let key = key.map(|key| Bytes::copy_from_slice(key.as_bytes()));
    Outgoing { key, value: value.map(Bytes::copy_from_slice), ..Outgoing::default() }
}

fn text(value: &str) -> Outgoing {
    outgoing(Some("k"), Some(value.as_bytes()))
}

fn stamp(counter: u64) -> Stamp {
    Stamp { lane: "lane/0".into(), incarnation: 7, counter }
}

/// The position of block `block`, which is also the counter of its stamp.
fn position(partition: u32, block: u64) -> Position {
    Position { partition, commands: block.saturating_mul(3), block, stamp: stamp(block) }
}

/// Claims a partition, once whoever decides has given it to the session.
fn claimed<H: Harness + ?Sized>(harness: &mut H, session: &mut dyn Session, partition: u32) -> Claim {
    let mut tries = 0;
    loop {
        match session.claim(partition) {
            Err(Error::Unavailable(_)) if harness.wait(tries) => tries += 1,
            claimed => return claimed.expect("a session that is not fenced"),
        }
    }
}

/// The epoch of such a claim.
fn claim<H: Harness + ?Sized>(harness: &mut H, session: &mut dyn Session, partition: u32) -> u64 {
    claimed(harness, session, partition).epoch
}

/// An epoch that brings each partition to block `block`: its number as an event, and another one in the journal.
fn epoch(block: u64, claims: &[(u32, u64)]) -> Transaction {
    let written = |partition: u32| {
        [Topic::Events, Topic::Journal].map(|topic| Batch { topic, partition, records: vec![text(&format!("{topic} {block}"))] })
    };
    Transaction {
        stamp: stamp(block),
        batches: claims.iter().flat_map(|(partition, _)| written(*partition)).collect(),
        positions: claims
            .iter()
            .map(|(partition, claim)| Claimed { claim: *claim, position: position(*partition, block) })
            .collect(),
    }
}

/// Every committed record from `from` on, fetched in the smallest steps.
fn read_now(log: &dyn Log, topic: Topic, partition: u32, from: u64) -> Result<Vec<Record>, Error> {
    let mut records: Vec<Record> = Vec::new();
    let mut at = from;
    loop {
        let fetched = log.fetch(topic, partition, at, 1)?;
        for record in fetched.records {
            let last = records.last().map(|record| record.offset);
            assert!(at <= record.offset && last < Some(record.offset), "{topic}-{partition}: offsets grow");
            assert!(record.offset < fetched.next, "{topic}-{partition}: the next offset is behind every record");
            records.push(record);
        }
        if fetched.next == at {
            return Ok(records);
        }
        assert!(at < fetched.next, "{topic}-{partition}: a fetch at {at} goes back to {}", fetched.next);
        at = fetched.next;
    }
}

/// Exactly `count` records from `from` on, as soon as they are seen.
fn read<H: Harness + ?Sized>(harness: &mut H, log: &dyn Log, place: (Topic, u32), from: u64, count: usize) -> Vec<Record> {
    let (topic, partition) = place;
    let mut tries = 0;
    loop {
        let records = read_now(log, topic, partition, from);
        match records {
            Ok(records) if records.len() == count => return records,
            found if !harness.wait(tries) => panic!("{topic}-{partition} from {from}: {count} records are due, not {found:?}"),
            _ => tries += 1,
        }
    }
}

/// The texts of exactly `count` records of a topic's partition.
fn texts<H: Harness + ?Sized>(harness: &mut H, log: &dyn Log, topic: Topic, partition: u32, count: usize) -> Vec<String> {
    let from = log.range(topic, partition).expect("a partition").start;
    let records = read(harness, log, (topic, partition), from, count);
    records.iter().map(|record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()).collect()
}
