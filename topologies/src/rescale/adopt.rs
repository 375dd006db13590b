//! Adopting a directory: what a store holds takes the place of what the log says, by an operator's explicit act.
//!
//! For a directory that is ahead of its log, because the log has lost its end, and for those of topics that are gone. The rows in which
//! it differs are written behind the last block, with its posting sequences. That is refused, naming the pairs, unless everything that
//! was received was sent and everything missing is there to be read: money that one side has and the other never sees would be lost
//! or made. Commands are read again from where the log says; the records of those that were carried out answer them.

use std::collections::{BTreeMap, BTreeSet};

use finflow_state::{Head, Positions, Store, store};

use super::Error;
use super::writing::{Ending, Sizes, Writing};
use crate::log::{self, Log};
use crate::topics::Topic;
use crate::wire::v1::Posting;

/// Postings read at a time, in bytes.
const FETCH_BYTES: usize = 4 << 20;

/// A partition whose state is replaced.
pub struct Replaced<'a> {
    /// The state as the log has it, at its committed position.
    pub held: &'a dyn Store,
    /// The state that takes its place.
    pub wanted: &'a dyn Store,
}

/// An adoption.
pub struct Adoption<'a> {
    /// The log.
    pub log: &'a dyn Log,
    /// The name of the session.
    pub lane: &'a str,
    /// A number that no other life has.
    pub incarnation: u64,
    /// The heads of all partitions, as the log has them.
    pub heads: &'a BTreeMap<u32, Head>,
    /// Those that are replaced, all of them at once.
    pub replaced: &'a BTreeMap<u32, Replaced<'a>>,
    /// How much is written at a time.
    pub sizes: Sizes,
    /// Called when nothing more will be written, while the session is still open.
    pub done: &'a dyn Fn(),
}

impl Adoption<'_> {
    /// How many rows of each partition differ, or everything that stands against it.
    pub fn plan(&self) -> Result<BTreeMap<u32, u64>, Error> {
        self.endings()?;
        let mut rows = BTreeMap::new();
        for (partition, Replaced { held, wanted }) in self.replaced {
            let count: &mut u64 = rows.entry(*partition).or_default();
            store::visit_differences::<Error>(*held, *wanted, |_, _| {
                *count = count.saturating_add(1);
                Ok(())
            })?;
        }
        Ok(rows)
    }

    /// Writes what differs, and gives the heads that the partitions then have.
    pub fn run(&self) -> Result<BTreeMap<u32, Head>, Error> {
        let endings = self.endings()?;
        let mut writing = Writing::new(self.log.session(self.lane)?, self.sizes);
        for (partition, Replaced { held, wanted }) in self.replaced {
            let (held_head, wanted_head) = (head(*held)?, head(*wanted)?);
            let claim = writing.claim(*partition)?;
            let named = claim.position.as_ref().map(|position| (position.block, &position.stamp));
            if named != Some((held_head.number, &held_head.stamp)).filter(|(number, _)| 0 < *number) {
                return Err(Error::Refused(format!("partition {partition} has moved meanwhile")));
            }
            let at_ms = held_head.at_ms.max(wanted_head.at_ms);
            writing.begin(&claim, held_head, (self.incarnation, at_ms));
            store::visit_differences::<Error>(*held, *wanted, |key, value| {
                writing.row(*partition, (key.to_vec(), value.map(<[u8]>::to_vec)))
            })?;
        }
        writing.fill()?;
        writing.end(endings)?;
        writing.confirm()?;
        (self.done)();
        Ok(writing.heads().map(|head| (head.partition, head.clone())).collect())
    }

    /// The last blocks of all that are replaced, or the pairs that do not fit.
    fn endings(&self) -> Result<BTreeMap<u32, Ending>, Error> {
        let mut heads = self.heads.clone();
        for (partition, Replaced { wanted, .. }) in self.replaced {
            let wanted = head(*wanted)?;
            if wanted.partition != *partition {
                return Err(Error::Refused(format!(
                    "the directory of partition {partition} is of partition {}",
                    wanted.partition
                )));
            }
            if let Some(head) = heads.get_mut(partition) {
                (head.sent, head.received) = (wanted.sent, wanted.received);
            }
        }
        let (mut faults, mut endings) = (Vec::new(), BTreeMap::new());
        for (destination, head) in &heads {
            let waiting = waiting(self.log, *destination, head.positions.postings)?;
            let postings = match fits(*destination, head, &heads, &waiting) {
                Ok(first) => first.unwrap_or(waiting.end),
                Err(cause) => {
                    faults.extend(cause);
                    continue;
                }
            };
            if let (Some(_), Some(before)) = (self.replaced.get(destination), self.heads.get(destination)) {
                endings.insert(*destination, ending(before, head, postings));
            }
        }
        if faults.is_empty() { Ok(endings) } else { Err(Error::Unsound(faults)) }
    }
}

fn head(store: &dyn Store) -> Result<Head, Error> {
    store.head().ok_or_else(|| Error::Refused("a store holds nothing".to_owned()))
}

/// The last block that turns the sequences of one head into those of another.
fn ending(before: &Head, after: &Head, postings: u64) -> Ending {
    let changed = |before: &BTreeMap<u32, u64>, after: &BTreeMap<u32, u64>| {
        let pairs: BTreeSet<u32> = before.keys().chain(after.keys()).copied().collect();
        pairs.into_iter().map(|other| (other, after.get(&other).copied().unwrap_or_default())).collect()
    };
    Ending {
        rows: Vec::new(),
        positions: Positions { commands: before.positions.commands, postings },
        sent: changed(&before.sent, &after.sent),
        received: changed(&before.received, &after.received),
    }
}

/// What waits in `postings` of a partition.
struct Waiting {
    /// Offset, source and sequence, in order.
    postings: Vec<(u64, u32, u64)>,
    end: u64,
}

fn waiting(log: &dyn Log, partition: u32, from: u64) -> Result<Waiting, Error> {
    // What is trimmed was received, or it is missed by its sequence.
    let from = from.max(log.range(Topic::Postings, partition)?.start);
    let mut waiting = Waiting { postings: Vec::new(), end: from };
    loop {
        let fetched = log.fetch(Topic::Postings, partition, waiting.end, FETCH_BYTES)?;
        for record in &fetched.records {
            let posting = Posting::decode(record).map_err(|error| log::Error::Corrupt(error.to_string()))?;
            waiting.postings.push((record.offset, posting.source, posting.sequence));
        }
        if fetched.next <= waiting.end {
            return Ok(waiting);
        }
        waiting.end = fetched.next;
    }
}

/// Whether a partition can go on with its sequences: everything it has received was sent, and everything it has not is there, in one
/// piece. Gives the offset of the first posting that it has not received, or the pairs that do not fit.
fn fits(here: u32, head: &Head, heads: &BTreeMap<u32, Head>, waiting: &Waiting) -> Result<Option<u64>, Vec<String>> {
    let sources: BTreeSet<u32> = heads.keys().chain(head.received.keys()).copied().collect();
    let sources = sources.into_iter().chain(waiting.postings.iter().map(|(_, source, _)| *source));
    let (mut faults, mut first) = (Vec::new(), None);
    for source in sources.collect::<BTreeSet<u32>>() {
        let received = head.received.get(&source).copied().unwrap_or_default();
        let sent = heads.get(&source).and_then(|head| head.sent.get(&here)).copied().unwrap_or_default();
        if sent < received {
            faults
                .push(format!("partition {here} has received {received} postings of partition {source}, which has sent {sent}"));
            continue;
        }
        let of_source = waiting.postings.iter().filter(|(_, of, _)| *of == source);
        let missing: Vec<(u64, u64)> =
            of_source.filter(|(_, _, sequence)| received < *sequence).map(|(offset, _, sequence)| (*offset, *sequence)).collect();
        let is_whole = missing.len() as u64 == sent.saturating_sub(received);
        if !is_whole || !missing.iter().zip(received.saturating_add(1)..).all(|((_, found), due)| *found == due) {
            faults.push(format!(
                "partition {here} has received {received} of the {sent} postings that partition {source} has sent, and the others are \
                 not what waits for it"
            ));
            continue;
        }
        first = missing.first().map(|(offset, _)| *offset).into_iter().chain(first).min();
    }
    let is_again = |(offset, source, sequence): &&(u64, u32, u64)| {
        first.is_some_and(|first| first < *offset) && *sequence <= head.received.get(source).copied().unwrap_or_default()
    };
    if let Some((_, source, sequence)) = waiting.postings.iter().find(is_again) {
        faults.push(format!(
            "partition {here} has received posting {sequence} of partition {source} before others that waited first"
        ));
    }
    if faults.is_empty() { Ok(first) } else { Err(faults) }
}
