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

#[cfg(test)]
mod tests {
    use finflow_topologies::log::{Headers, Record};

    use super::*;

    /// What a log of one partition answers to a question for its records from a place on.
    type Answer = (u64, Result<(&'static [u64], u64), &'static str>);

    /// A partition's range, what its log answers, and the wallets that an audit then knows, or why there is none.
    type Case = (Range<u64>, &'static [Answer], Result<&'static [u64], &'static str>);

    const CASES: [Case; 7] = [
        (0..0, &[], Ok(&[])),
        (0..3, &[(0, Ok((&[0, 1, 2], 3)))], Ok(&[0, 1, 2])),
        // Page by page, and from where the partition begins.
        (4..7, &[(4, Ok((&[4, 5], 6))), (6, Ok((&[6], 7)))], Ok(&[4, 5, 6])),
        // Marks and aborted records: a place with nothing to read, at the beginning, in the middle and at the end.
        (0..9, &[(0, Ok((&[], 4))), (4, Ok((&[4], 6))), (6, Ok((&[], 9)))], Ok(&[4])),
        // Whoever went on asking would never end.
        (0..3, &[(0, Ok((&[0], 1))), (1, Ok((&[], 1)))], Err("gives nothing at 1")),
        (0..3, &[(0, Ok((&[0], 1))), (1, Err("gone"))], Err("gone")),
        (0..3, &[(0, Err("gone"))], Err("gone")),
    ];

    fn event(offset: u64) -> Record {
        let value =
            format!(r#"{{"id":"{offset}","event":"wallet.opened","wallet":"w{offset}","currency":"AED","wallet_seq":1}}"#);
        Record { offset, timestamp_ms: 0, key: None, value: Some(value.into()), headers: Headers::default() }
    }

    #[test]
    fn every_event_is_audited_or_none() {
        for (range, answers, expected) in CASES {
            let fetch = |_, from| {
                let answer = answers.iter().find(|(at, _)| *at == from).expect("it is asked for what is next");
                let (offsets, next) = answer.1.map_err(|cause| Error::Unavailable(cause.to_owned()))?;
                Ok(Fetched { records: offsets.iter().map(|offset| event(*offset)).collect(), next })
            };
            let found = audited(1, |_| Ok(range.clone()), fetch);
            match (found, expected) {
                (Ok(found), Ok(wallets)) => {
                    let wallets: Vec<String> = wallets.iter().map(|number| format!("w{number}")).collect();
                    assert_eq!(found.balances.into_keys().collect::<Vec<_>>(), wallets, "{range:?}");
                }
                (Err(Failure::Temporary(told)), Err(cause)) => assert!(told.contains(cause), "{told}"),
                (found, expected) => panic!("{found:?} is not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_partition_that_cannot_be_read_leaves_no_audit() {
        let range = |partition| if partition == 1 { Err(Error::Unavailable("gone".to_owned())) } else { Ok(0..1) };
        let found = audited(3, range, |_, from| Ok(Fetched { records: vec![event(from)], next: from + 1 }));
        assert!(matches!(found, Err(Failure::Temporary(told)) if told.contains("gone")));
    }
}
