//! Trimming the embedded log: what is trimmed is gone, from the disk too, and what is not trimmed is untouched.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use finflow_actors::log::embedded::EmbeddedLog;
use finflow_topologies::Topic;
use finflow_topologies::log::{Error, Log, Outgoing};

/// Records of a chunk and their length: some chunks fill a file of rows.
const RECORDS: usize = 16;
const RECORD_BYTES: usize = 256 * 1024;
const CHUNKS: u64 = 44;
const DEADLINE: Duration = Duration::from_secs(60);

fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory");
    // A file that RocksDB has just removed takes no space.
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

/// Records that cannot be compressed, told apart by their first byte.
fn chunk(random: &mut fastrand::Rng, number: u64) -> Vec<Outgoing> {
    let one = |_| {
        let mut value = vec![0; RECORD_BYTES];
        random.fill(&mut value);
        value[0] = number as u8;
        Outgoing { key: None, value: Some(Bytes::from(value)), ..Outgoing::default() }
    };
    (0..RECORDS).map(one).collect()
}

#[test]
fn what_is_trimmed_is_gone_and_gives_its_space_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = EmbeddedLog::open(dir.path(), 2).expect("a log");
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0..CHUNKS {
        log.append(Topic::Commands, 0, chunk(&mut random, number)).expect("a log");
    }
    log.append(Topic::Commands, 1, chunk(&mut random, 1)).expect("a log");
    log.append(Topic::Events, 0, chunk(&mut random, 2)).expect("a log");
    let (records, full) = (RECORDS as u64, disk_bytes(dir.path()));

    // One chunk at a time, on its border and within: the neighbours stay whole.
    let begun = Instant::now();
    let mut before = 0;
    while before + 3 < CHUNKS * records {
        before += if before % 3 == 0 { records } else { records - 1 };
        before = before.min(CHUNKS * records - 3);
        log.trim(Topic::Commands, 0, before).expect("a log");
        assert_eq!(log.range(Topic::Commands, 0), Ok(before..CHUNKS * records));
        assert!(matches!(log.fetch(Topic::Commands, 0, before - 1, 1), Err(Error::OutOfRange { .. })));
        let found = log.fetch(Topic::Commands, 0, before, 1).expect("a log").records;
        assert_eq!((found[0].offset, found[0].value.as_ref().map(|value| value[0])), (before, Some((before / records) as u8)));
    }
    // The write-ahead log and a few young files are left.
    while full / 3 * 2 < disk_bytes(dir.path()) {
        assert!(begun.elapsed() < DEADLINE, "{} of {full} bytes are left", disk_bytes(dir.path()));
        // What was compacted meanwhile goes with the next trim.
        log.trim(Topic::Commands, 0, before).expect("a log");
    }
    drop(log);
    let log = EmbeddedLog::open(dir.path(), 2).expect("the log again");
    assert_eq!(log.range(Topic::Commands, 0), Ok(before..CHUNKS * records));
    for (topic, partition, from, first) in
        [(Topic::Commands, 0, before, CHUNKS - 1), (Topic::Commands, 1, 0, 1), (Topic::Events, 0, 0, 2)]
    {
        let found = log.fetch(topic, partition, from, usize::MAX).expect("a log").records;
        assert!(
            found.iter().all(|record| record.value.as_ref().map(|value| u64::from(value[0])) == Some(first)),
            "{topic} {partition}"
        );
        assert_eq!(found.len() as u64, log.range(topic, partition).expect("a log").end - from, "{topic} {partition}");
    }
    // Everything may go; the end is still known.
    log.trim(Topic::Commands, 0, u64::MAX).expect("a log");
    drop(log);
    let log = EmbeddedLog::open(dir.path(), 2).expect("the log again");
    assert_eq!(log.range(Topic::Commands, 0), Ok(CHUNKS * records..CHUNKS * records));
    assert_eq!(log.append(Topic::Commands, 0, chunk(&mut random, 3)), Ok(CHUNKS * records));
}
