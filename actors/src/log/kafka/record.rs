//! Records as the client library has them, and positions as the metadata string of a committed offset.

use bytes::Bytes;
use finflow_state::Stamp;
use finflow_topologies::log::{Outgoing, Position, Record};
use rdkafka::message::{Header, OwnedHeaders};

/// As many headers as an event has; where there are more, the library makes room.
const HEADERS_USUAL: usize = 9;
/// The format of the metadata string.
const FORMAT: &str = "1";

/// The headers of a record on its way out.
pub(super) fn owned_headers(record: &Outgoing) -> Option<OwnedHeaders> {
    if record.headers.is_empty() {
        return None;
    }
    let room = OwnedHeaders::new_with_capacity(HEADERS_USUAL);
    Some(record.headers.iter().fold(room, |headers, (key, value)| headers.insert(Header { key, value: Some(value) })))
}

/// How many bytes a record counts for in a fetch.
pub(super) fn weight(record: &Record) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    length(&record.key).saturating_add(length(&record.value)).saturating_add(record.headers.as_bytes().len())
}

/// Block number and stamp: `format block counter incarnation lane`.
pub(super) fn metadata(position: &Position) -> String {
    let Stamp { lane, incarnation, counter } = &position.stamp;
    format!("{FORMAT} {} {counter} {incarnation:016x} {lane}", position.block)
}

/// The position that a committed offset and its metadata tell; `None` where they were not written by this engine.
pub(super) fn position(partition: u32, offset: i64, metadata: &str) -> Option<Position> {
    let mut words = metadata.splitn(5, ' ');
    let is_known = words.next() == Some(FORMAT);
    let block = words.next()?.parse().ok()?;
    let counter = words.next()?.parse().ok()?;
    let incarnation = u64::from_str_radix(words.next()?, 16).ok()?;
    let lane = words.next()?.into();
    let stamp = Stamp { lane, incarnation, counter };
    is_known.then_some(Position { partition, commands: u64::try_from(offset).ok()?, block, stamp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_metadata() {
        let stamp = Stamp { lane: "finflow a-lane 0".into(), incarnation: u64::MAX - 1, counter: 42 };
        let due = Position { partition: 3, commands: 17, block: 9, stamp };
        assert_eq!(position(3, 17, &metadata(&due)), Some(due));
    }

    #[test]
    fn what_others_wrote_is_no_position() {
        for (offset, text) in [(1, ""), (1, "reset by hand"), (1, "2 9 1 00 lane"), (1, "1 9 1 zz lane"), (-1, "1 9 1 00 lane")] {
            assert_eq!(position(0, offset, text), None, "{text:?} at {offset}");
        }
    }
}
