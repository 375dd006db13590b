//! The witness: remembers every event that it was shown and every command that was acknowledged, and looks again after each restart.
//!
//! It reads as any consumer does. It remembers 64-bit digests of the records by partition and offset, so that a changed, moved or
//! missing record is noticed whenever it happens.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use finflow_actors::socket::Client;
use finflow_ledger::Coordinates;
use finflow_topologies::Topic;
use finflow_topologies::log::Record;

const FETCH_BYTES: usize = 2 << 20;
/// Records that a check has found in order and that the next one looks at again.
pub(crate) const OVERLAP: usize = 500;

#[derive(Default)]
pub(crate) struct Witness {
    /// Digests of the events seen, by partition, in order.
    events: BTreeMap<u32, Vec<(u64, u64)>>,
    /// Where each partition's events were checked again last.
    checked: BTreeMap<u32, usize>,
}

impl Witness {
    /// Reads what is new among the events of every partition; gives whether a payment has been settled at or after `since_ms`.
    pub(crate) async fn follow(&mut self, client: &Client, partitions: u32, since_ms: i64) -> Result<bool, String> {
        let mut is_settled = false;
        for partition in 0..partitions {
            let seen = self.events.entry(partition).or_default();
            let from = seen.last().map_or(0, |(offset, _)| offset + 1);
            let fetched = client.fetch(Topic::Events, partition, from, FETCH_BYTES).await?;
            for record in &fetched.records {
                is_settled |= since_ms <= record.timestamp_ms && text(record).contains(r#""event":"payment.settled""#);
                seen.push((record.offset, digest(record)));
            }
        }
        Ok(is_settled)
    }

    /// Reads again the events seen since the last check and a little more, or all of them, and tells every difference.
    pub(crate) async fn check_events(&mut self, client: &Client, all: bool) -> Result<Vec<String>, String> {
        let mut differences = Vec::new();
        for (partition, seen) in &self.events {
            let begin = if all { 0 } else { self.checked.get(partition).copied().unwrap_or_default() };
            let expected = seen.get(begin..).unwrap_or_default();
            let offsets = expected.first().map(|(first, _)| *first).zip(expected.last().map(|(last, _)| *last));
            let found = read(client, Topic::Events, *partition, offsets).await?;
            let digests: BTreeMap<u64, u64> = found.iter().map(|record| (record.offset, digest(record))).collect();
            for (offset, digest) in expected.iter().filter(|(offset, digest)| digests.get(offset) != Some(digest)) {
                let what = if digests.contains_key(offset) { "changed" } else { "gone" };
                differences.push(format!("event {partition}:{offset} ({digest:x}) is {what}"));
            }
            self.checked.insert(*partition, seen.len().saturating_sub(OVERLAP));
        }
        Ok(differences)
    }

    /// Tells which accepted commands are not where they were accepted.
    pub(crate) async fn check_accepted(client: &Client, accepted: &[(Coordinates, Bytes)]) -> Result<Vec<String>, String> {
        let mut by_partition = BTreeMap::<u32, BTreeMap<u64, &Bytes>>::new();
        for (at, value) in accepted {
            by_partition.entry(at.partition).or_default().insert(at.offset, value);
        }
        let mut missing = Vec::new();
        for (partition, expected) in by_partition {
            let offsets = expected.keys().next().copied().zip(expected.keys().last().copied());
            let found = read(client, Topic::Commands, partition, offsets).await?;
            let found: BTreeMap<u64, Option<Bytes>> = found.into_iter().map(|record| (record.offset, record.value)).collect();
            let lost = expected.into_iter().filter(|(offset, value)| found.get(offset).and_then(Option::as_ref) != Some(*value));
            missing.extend(lost.map(|(offset, _)| format!("command {partition}:{offset} was accepted and is not there")));
        }
        Ok(missing)
    }

    pub(crate) fn events_count(&self) -> usize {
        self.events.values().map(Vec::len).sum()
    }
}

/// The records from the first offset to the last one, or to the end.
async fn read(client: &Client, topic: Topic, partition: u32, offsets: Option<(u64, u64)>) -> Result<Vec<Record>, String> {
    let mut found = Vec::new();
    let Some((mut from, last)) = offsets else { return Ok(found) };
    while from <= last {
        let fetched = client.fetch(topic, partition, from, FETCH_BYTES).await?;
        if fetched.records.is_empty() {
            break;
        }
        from = fetched.next;
        found.extend(fetched.records);
    }
    Ok(found)
}

fn digest(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&record.key, &record.value, record.headers.as_bytes(), record.timestamp_ms).hash(&mut hasher);
    hasher.finish()
}

fn text(record: &Record) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}
