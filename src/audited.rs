//! The audit of what an engine has told: every event of its log, read a page at a time.

use std::ops::Range;

use bytes::Bytes;
use finflow_topologies::log::{Error, Fetched};
use finflow_topologies::simulation::{Audit, audit};

use crate::failure::Failure;

/// Recomputes every balance from the events of all partitions: `range` says where a partition begins and ends, `fetch` gives a page of it.
/// Of an event nothing is kept but its id, its payment and its wallet.
pub(crate) fn audited(
    partitions: u32,
    range: impl Fn(u32) -> Result<Range<u64>, Error>,
    fetch: impl Fn(u32, u64) -> Result<Fetched, Error>,
) -> Result<Audit, Failure> {
    let (mut failed, range, fetch) = (None, &range, &fetch);
    let values = (0..partitions).flat_map(|partition| {
        let (held, cause) = range(partition).map_or_else(|error| (0..0, Some(error)), |held| (held, None));
        cause.into_iter().map(Err).chain(values(partition, held, move |from| fetch(partition, from)))
    });
    let audit = audit(values.map_while(|value| value.map_err(|error| failed = Some(error)).ok()));
    failed.map_or(Ok(audit), |error| Err(error.into()))
}

/// The values of a partition.
fn values(
    partition: u32,
    mut left: Range<u64>,
    fetch: impl Fn(u64) -> Result<Fetched, Error>,
) -> impl Iterator<Item = Result<Bytes, Error>> {
    let mut page = Vec::new().into_iter();
    std::iter::from_fn(move || {
        loop {
            if let Some(value) = page.next() {
                return Some(Ok(value));
            }
            if left.is_empty() {
                return None;
            }
            let Fetched { records, next } = match fetch(left.start) {
                Ok(fetched) => fetched,
                Err(error) => return Some(Err(error)),
            };
            // What is no record moves the place as well.
            if next <= left.start {
                return Some(Err(Error::Unavailable(format!("partition {partition} gives nothing at {}", left.start))));
            }
            left.start = next;
            page = records.into_iter().filter_map(|record| record.value).collect::<Vec<_>>().into_iter();
        }
    })
}
