//! Whether an application stands still: nothing waits to be read, and every posting that was sent has arrived.

use std::collections::BTreeMap;

use finflow_state::Head;

use crate::log::{Error, Log};
use crate::topics::Topic;

/// Everything that is still under way in an application whose partitions stand at these heads, in words; nothing if it stands still.
pub fn obstacles(log: &dyn Log, heads: &BTreeMap<u32, Head>) -> Result<Vec<String>, Error> {
    let mut found = unequal_pairs(heads);
    for (partition, head) in heads {
        let inputs = [(Topic::Commands, head.positions.commands), (Topic::Postings, head.positions.postings)];
        for (topic, next) in inputs {
            if let Some(offset) = waiting(log, topic, *partition, next)? {
                found.push(format!("{topic} of partition {partition} has a record at {offset} that is not consumed"));
            }
        }
    }
    Ok(found)
}

/// The offset of the first record at or behind `next`; what only marks the ends of transactions is none.
fn waiting(log: &dyn Log, topic: Topic, partition: u32, next: u64) -> Result<Option<u64>, Error> {
    let mut from = next;
    loop {
        let fetched = log.fetch(topic, partition, from, 1)?;
        if let Some(record) = fetched.records.first() {
            return Ok(Some(record.offset));
        }
        if fetched.next <= from {
            return Ok(None);
        }
        from = fetched.next;
    }
}

/// The pairs of partitions of which the one has sent what the other has not received, or received what was not sent, in words.
pub fn unequal_pairs(heads: &BTreeMap<u32, Head>) -> Vec<String> {
    let mut found = Vec::new();
    let pairs = heads.iter().flat_map(|(source, head)| head.sent.keys().map(|destination| (*source, *destination)));
    let others = heads.iter().flat_map(|(destination, head)| head.received.keys().map(|source| (*source, *destination)));
    let pairs: std::collections::BTreeSet<(u32, u32)> = pairs.chain(others).collect();
    for (source, destination) in pairs {
        let sent = heads.get(&source).and_then(|head| head.sent.get(&destination)).copied().unwrap_or_default();
        let received = heads.get(&destination).and_then(|head| head.received.get(&source)).copied().unwrap_or_default();
        if sent != received {
            found.push(format!(
                "partition {source} has sent {sent} postings to partition {destination}, which has received {received}"
            ));
        }
    }
    found
}
