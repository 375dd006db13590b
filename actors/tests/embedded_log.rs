//! The contract of the log, on the embedded one, and what is its own: writers side by side, one process at a time.

use std::sync::Arc;

use bytes::Bytes;
use finflow_actors::log::embedded::EmbeddedLog;
use finflow_state::Stamp;
use finflow_topologies::Topic;
use finflow_topologies::log::conformance::{Harness, PARTITIONS, check};
use finflow_topologies::log::{Batch, Claimed, Commit, Error, Headers, Log, Outgoing, Position, Resolution, Transaction};

fn record(value: &str) -> Outgoing {
    let headers = Headers::from_pairs([("a", &b"1"[..]), ("a", &b"2"[..])]);
    Outgoing { key: Some(Bytes::from_static(b"k")), value: Some(Bytes::copy_from_slice(value.as_bytes())), headers }
}

fn stamp(counter: u64) -> Stamp {
    Stamp { lane: "lane/0".into(), incarnation: 7, counter }
}

fn transaction(counter: u64, partitions: &[u32], claim: u64) -> Transaction {
    let batches = partitions.iter().flat_map(|partition| {
        [Topic::Events, Topic::Journal].map(|topic| Batch {
            topic,
            partition: *partition,
            records: vec![record("a"), record("b")],
        })
    });
    let position = |partition: &u32| Position { partition: *partition, commands: counter, block: counter, stamp: stamp(counter) };
    let claimed = |partition: &u32| Claimed { claim, position: position(partition) };
    Transaction { stamp: stamp(counter), batches: batches.collect(), positions: partitions.iter().map(claimed).collect() }
}

struct Embedded(tempfile::TempDir);

impl Harness for Embedded {
    fn open(&mut self) -> Arc<dyn Log> {
        Arc::new(EmbeddedLog::open(self.0.path(), PARTITIONS).expect("a log"))
    }
}

#[test]
fn the_embedded_log_keeps_the_contract() {
    check(|| Embedded(tempfile::tempdir().expect("a directory")));
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let _log = EmbeddedLog::open(dir.path(), 4).expect("a log");
    assert!(matches!(EmbeddedLog::open(dir.path(), 4), Err(Error::Unavailable(_))));
}

#[test]
fn concurrent_writers_leave_no_gap_and_readers_see_whole_commits() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = Arc::new(EmbeddedLog::open(dir.path(), 2).expect("a log"));
    let mut session = log.session("lane").expect("a session");
    let claim = session.claim(0).expect("a claim").epoch;
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let log = log.clone();
            scope.spawn(move || {
                for n in 0..20 {
                    log.append(Topic::Commands, 0, vec![record(&format!("{writer}:{n}")); 2]).expect("a log");
                }
            });
        }
        let reader = log.clone();
        scope.spawn(move || {
            for counter in 1..=20 {
                assert_eq!(session.commit(transaction(counter, &[0], claim)), Commit::Committed);
                assert_eq!(reader.range(Topic::Events, 0).expect("a log").end % 2, 0);
            }
        });
    });
    let records = log.fetch(Topic::Commands, 0, 0, usize::MAX).expect("records").records;
    assert!(records.iter().map(|record| record.offset).eq(0..120));
    for writer in 0..3 {
        let start = format!("{writer}:");
        let texts = records.iter().filter_map(|record| String::from_utf8(record.value.clone()?.to_vec()).ok());
        let own: Vec<usize> = texts.filter_map(|text| text.strip_prefix(&start).and_then(|n| n.parse().ok())).collect();
        assert!(own.is_sorted() && own.len() == 40);
    }
}

#[test]
fn settling_a_doubt_beside_a_writer_loses_no_acknowledged_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = EmbeddedLog::open(dir.path(), 1).expect("a log");
    let mut session = log.session("lane").expect("a session");
    let acknowledged = std::thread::scope(|scope| {
        let writer = log.clone();
        let appender = scope.spawn(move || {
            let append = |n: u64| writer.append(Topic::Commands, 0, vec![record(&n.to_string())]).map(|offset| (n, offset));
            (0..400).filter_map(|n| append(n).ok()).collect::<Vec<(u64, u64)>>()
        });
        while !appender.is_finished() {
            assert_eq!(session.resolve(&stamp(1)), Ok(Resolution::Aborted));
        }
        appender.join().expect("a writer")
    });
    assert!(!acknowledged.is_empty());
    let records = log.fetch(Topic::Commands, 0, 0, usize::MAX).expect("records").records;
    for (n, offset) in acknowledged {
        let found = records.iter().find(|record| record.offset == offset).and_then(|record| record.value.clone());
        assert_eq!(found.as_deref(), Some(n.to_string().as_bytes()), "offset {offset}");
    }
}
