//! Closing an epoch: one transaction with its events, postings and dead letters, one block per touched partition, and positions.

use std::collections::BTreeMap;
use std::sync::Arc;

use finflow_state::{EncodedBlock, Head, Header, Stamp};

use super::hosted::{Flight, Hosted};
use crate::log::{Batch, Claimed, Outgoing, Position, Transaction};
use crate::partition::OpenEpoch;
use crate::topics::Topic;

/// Turns every open epoch that consumed input, or carries its positions on, into its part of one transaction, and puts it in flight.
pub(super) fn transaction(hosted: &mut BTreeMap<u32, Hosted>, stamp: &Stamp, now_ms: i64) -> Transaction {
    let mut batches: BTreeMap<(Topic, u32), Vec<Outgoing>> = BTreeMap::new();
    let mut positions = Vec::new();
    for (partition, hosted) in hosted.iter_mut() {
        let Some(mut open) = hosted.open.take().filter(OpenEpoch::is_worth_committing) else { continue };
        open.positions = hosted.consumed(open.positions);
        let events = std::mem::take(&mut open.events);
        let dead_letters = std::mem::take(&mut open.dead_letters);
        if !events.is_empty() {
            batches.insert((Topic::Events, *partition), events);
        }
        if !dead_letters.is_empty() {
            batches.insert((Topic::Dlq, *partition), dead_letters);
        }
        for posting in open.for_log.drain(..) {
            batches.entry((Topic::Postings, posting.destination)).or_default().push(posting.encode());
        }
        let flight = fly(open, stamp, now_ms);
        let block = Outgoing { key: None, value: Some(flight.block.bytes().clone()), ..Outgoing::default() };
        batches.insert((Topic::Journal, *partition), vec![block]);
        positions.push(Claimed { claim: hosted.claim, position: position(&flight.head) });
        hosted.flight = Some(flight);
    }
    let batches = batches.into_iter().map(|((topic, partition), records)| Batch { topic, partition, records }).collect();
    Transaction { stamp: stamp.clone(), batches, positions }
}

/// The position of every partition as it is committed, for a transaction that changes none.
pub(super) fn current(hosted: &BTreeMap<u32, Hosted>) -> Vec<Claimed> {
    hosted.values().map(|hosted| Claimed { claim: hosted.claim, position: position(&hosted.base) }).collect()
}

/// How the log keeps a head beside the partition's offset.
fn position(head: &Head) -> Position {
    let Head { partition, number, stamp, positions, .. } = head;
    Position { partition: *partition, commands: positions.commands, block: *number, stamp: stamp.clone() }
}

fn fly(open: OpenEpoch, stamp: &Stamp, now_ms: i64) -> Flight {
    let base = &open.base;
    let header = Header {
        generation: base.generation,
        partition: base.partition,
        number: base.number.saturating_add(1),
        stamp: stamp.clone(),
        previous: base.stamp.clone(),
        at_ms: now_ms.max(base.at_ms),
        positions: open.positions,
        sent: open.sent.into_iter().collect(),
        received: open.received.into_iter().collect(),
    };
    let block = EncodedBlock::encode(&header, &open.overlay);
    let head = base.with(&header);
    let OpenEpoch { overlay, outcomes, verdicts, inputs, .. } = open;
    Flight { head: Arc::new(head), block, overlay: Arc::new(overlay), outcomes, verdicts, inputs }
}
