//! What readers see: where each partition begins and ends, and its newest records.
//!
//! Records that were just written are read at once - by lanes, by watchers, by consumers - so the newest of each partition stay in
//! memory as they were written, without a read of the disk or another checksum. Only what is durable ever comes here.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use finflow_topologies::log::{Error, Fetched, Record};
use finflow_topologies::topics::Topic;

/// Memory for the newest records of all partitions, in bytes.
pub(super) const TAIL_BYTES_MAX: usize = 32 << 20;

/// A partition of a topic.
pub(super) type Place = (Topic, u32);

/// What one write appended to one place.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) base: u64,
    /// Offsets count from `base` on.
    pub(super) records: Vec<Record>,
    /// What it takes in memory.
    pub(super) bytes: usize,
}

impl Appended {
    fn end(&self) -> u64 {
        self.base.saturating_add(self.records.len() as u64)
    }
}

#[derive(Default)]
struct Held {
    range: Range<u64>,
    /// The newest records without a gap up to the end, oldest first.
    tail: VecDeque<Arc<Appended>>,
}

/// Everything that can be read without the disk.
pub(super) struct View {
    places: BTreeMap<Place, Held>,
    /// The places of all tails' records, oldest first.
    order: VecDeque<Place>,
    bytes: usize,
    bytes_max: usize,
}

impl View {
    /// A view of what the disk holds, with no records yet.
    pub(super) fn new(ranges: BTreeMap<Place, Range<u64>>, bytes_max: usize) -> View {
        let places = ranges.into_iter().map(|(place, range)| (place, Held { range, tail: VecDeque::new() })).collect();
        View { places, order: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(super) fn range(&self, place: Place) -> Result<Range<u64>, Error> {
        let (topic, partition) = place;
        self.places.get(&place).map(|held| held.range.clone()).ok_or(Error::UnknownPartition { topic, partition })
    }

    /// Where every place that lanes follow ends at this moment.
    pub(super) fn ends(&self) -> BTreeMap<Place, u64> {
        let followed = self.places.iter().filter(|((topic, _), _)| matches!(topic, Topic::Commands | Topic::Postings));
        followed.map(|(place, held)| (*place, held.range.end)).collect()
    }

    /// Shows what is durable now: the records up to the offset `end` of a place, which are kept if there are some given.
    pub(super) fn extend(&mut self, place: Place, end: u64, appended: Option<Arc<Appended>>) {
        let Some(held) = self.places.get_mut(&place) else { return };
        held.range.end = end;
        let Some(appended) = appended else { return };
        self.bytes = self.bytes.saturating_add(appended.bytes);
        held.tail.push_back(appended);
        self.order.push_back(place);
        while self.bytes_max < self.bytes
            && let Some(oldest) = self.order.pop_front()
        {
            let dropped = self.places.get_mut(&oldest).and_then(|held| held.tail.pop_front());
            self.bytes = self.bytes.saturating_sub(dropped.map_or(0, |dropped| dropped.bytes));
        }
    }

    /// Nothing below `start` is held any more.
    pub(super) fn trim(&mut self, place: Place, start: u64) {
        if let Some(held) = self.places.get_mut(&place) {
            held.range.start = start;
        }
    }

    /// What the tail holds of a place from `from` on, about `bytes_max` bytes; `None` where that is older than the tail.
    pub(super) fn newest(&self, place: Place, from: u64, bytes_max: usize) -> Option<Vec<Arc<Appended>>> {
        let Held { range, tail } = self.places.get(&place)?;
        if from < tail.front()?.base || tail.back()?.end() != range.end {
            return None;
        }
        let first = tail.partition_point(|appended| appended.end() <= from);
        let mut bytes = 0_usize;
        let within = tail.range(first..).take_while(|appended| {
            let begins = bytes == 0 || bytes < bytes_max;
            bytes = bytes.saturating_add(appended.bytes);
            begins
        });
        Some(within.cloned().collect())
    }
}

/// The records from `from` on of what was appended; not empty.
pub(super) fn records_from(from: u64, all: &[Arc<Appended>]) -> Fetched {
    let mut fetched = Fetched { records: Vec::new(), next: from };
    for appended in all {
        let skipped = usize::try_from(from.saturating_sub(appended.base)).unwrap_or(usize::MAX);
        let numbered = (appended.base..).zip(&appended.records).skip(skipped);
        fetched.records.extend(numbered.map(|(offset, record)| Record { offset, ..record.clone() }));
        fetched.next = fetched.next.max(appended.end());
    }
    fetched
}

#[cfg(test)]
mod tests {
    use finflow_topologies::log::Headers;

    use super::*;

    const PLACE: Place = (Topic::Commands, 0);
    const OTHER: Place = (Topic::Events, 1);

    fn appended(base: u64, count: u64, bytes: usize) -> Option<Arc<Appended>> {
        let record = Record { offset: 0, timestamp_ms: base as i64, key: None, value: None, headers: Headers::default() };
        Some(Arc::new(Appended { base, records: vec![record; count as usize], bytes }))
    }

    fn offsets(view: &View, from: u64, bytes_max: usize) -> Option<Vec<u64>> {
        let found = view.newest(PLACE, from, bytes_max)?;
        Some(records_from(from, &found).records.iter().map(|record| record.offset).collect())
    }

    #[test]
    fn the_newest_records_are_kept_within_the_bytes_of_all() {
        let mut view = View::new(BTreeMap::from([(PLACE, 0..10), (OTHER, 0..0)]), 100);
        assert_eq!((offsets(&view, 10, 1), view.range(PLACE)), (None, Ok(0..10)));
        view.extend(PLACE, 12, appended(10, 2, 40));
        view.extend(PLACE, 15, appended(12, 3, 40));
        for (from, bytes_max, expected) in [
            (9, 1, None),
            (10, 1, Some(vec![10, 11])),
            (10, 40, Some(vec![10, 11])),
            (10, 41, Some(vec![10, 11, 12, 13, 14])),
            (11, 1, Some(vec![11])),
            (12, 1, Some(vec![12, 13, 14])),
            (14, 99, Some(vec![14])),
            (15, 99, Some(vec![])),
        ] {
            assert_eq!(offsets(&view, from, bytes_max), expected, "from {from}, {bytes_max} bytes");
        }
        // The oldest of all goes first, wherever the newest is.
        view.extend(OTHER, 1, appended(0, 1, 40));
        assert_eq!((offsets(&view, 10, 1), offsets(&view, 12, 1)), (None, Some(vec![12, 13, 14])));
        view.extend(OTHER, 2, appended(1, 1, 200));
        assert_eq!((offsets(&view, 12, 1), view.bytes), (None, 0));
        // What is not kept is there all the same.
        view.extend(PLACE, 16, None);
        view.trim(PLACE, 4);
        assert_eq!(view.range(PLACE), Ok(4..16));
        assert!(matches!(view.range((Topic::Dlq, 0)), Err(Error::UnknownPartition { .. })));
    }
}
