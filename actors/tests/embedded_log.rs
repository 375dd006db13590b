//! The contract of the log, on the embedded one.

use std::sync::Arc;

use bytes::Bytes;
use finflow_actors::log::embedded::EmbeddedLog;
use finflow_state::Stamp;
use finflow_topologies::Topic;
use finflow_topologies::log::{Batch, Commit, Error, Headers, Log, Outgoing, Position, Resolution, Transaction};

fn record(value: &str) -> Outgoing {
    let headers = Headers::from_pairs([("a", &b"1"[..]), ("a", &b"2"[..])]);
    Outgoing { key: Some(Bytes::from_static(b"k")), value: Some(Bytes::copy_from_slice(value.as_bytes())), headers }
}

fn stamp(counter: u64) -> Stamp {
    Stamp { lane: "lane/0".into(), incarnation: 7, counter }
}

fn transaction(counter: u64, partitions: &[u32]) -> Transaction {
    let batches = partitions.iter().flat_map(|partition| {
        [Topic::Events, Topic::Journal].map(|topic| Batch {
            topic,
            partition: *partition,
            records: vec![record("a"), record("b")],
        })
    });
    let position = |partition: &u32| Position { partition: *partition, commands: counter, block: counter, stamp: stamp(counter) };
    Transaction { stamp: stamp(counter), batches: batches.collect(), positions: partitions.iter().map(position).collect() }
}

#[test]
fn the_contract_holds_and_survives_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = EmbeddedLog::open(dir.path(), 4).expect("a log");
    let empty = Outgoing { key: None, value: None, headers: Headers::default() };
    let large = Outgoing { value: Some(Bytes::from(vec![7; 256 * 1024])), ..empty.clone() };
    assert_eq!(log.append(Topic::Commands, 1, vec![record("x"), empty.clone()]), Ok(0));
    assert_eq!(log.append(Topic::Commands, 1, vec![large.clone()]), Ok(2));
    assert_eq!(log.range(Topic::Commands, 1), Ok(0..3));
    assert!(matches!(log.append(Topic::Commands, 9, vec![]), Err(Error::UnknownPartition { .. })));

    let mut old = log.session("lane/0").expect("a session");
    assert_eq!(old.claim(0), Ok(None));
    assert_eq!(old.commit(transaction(1, &[0])), Commit::Committed);
    assert_eq!(old.commit(transaction(2, &[0, 1])), Commit::Fenced, "a partition that was not claimed");
    assert!(matches!(old.commit(transaction(2, &[])), Commit::Aborted(_)), "no positions");
    let mut other = log.session("lane/1").expect("a session");
    assert_eq!(other.claim(1), Ok(None));
    let mut new = log.session("lane/0").expect("a session");
    assert_eq!(old.commit(transaction(2, &[0])), Commit::Fenced, "an older session of the same name");
    assert_eq!(new.claim(0).map(|position| position.map(|position| position.block)), Ok(Some(1)));
    assert_eq!(new.commit(transaction(2, &[0])), Commit::Committed);
    assert_eq!(new.claim(1), Ok(None));
    assert_eq!(other.commit(transaction(3, &[1])), Commit::Fenced, "a partition that was taken over");
    assert_eq!(new.resolve(&stamp(2)), Ok(Resolution::Committed));
    assert_eq!(new.resolve(&stamp(3)), Ok(Resolution::Aborted));
    drop((old, new, other, log));

    let log = EmbeddedLog::open(dir.path(), 4).expect("the log again");
    let fetched = log.fetch(Topic::Commands, 1, 0, usize::MAX).expect("records");
    let found: Vec<Outgoing> = fetched
        .records
        .into_iter()
        .map(|found| Outgoing { key: found.key, value: found.value, headers: found.headers })
        .collect();
    assert_eq!((found, fetched.next), (vec![record("x"), empty, large], 3));
    assert_eq!(log.fetch(Topic::Commands, 1, 0, 1).expect("records").records.len(), 2, "at least what one commit wrote");
    assert_eq!(log.fetch(Topic::Commands, 1, 1, 1).expect("records").records.first().map(|found| found.offset), Some(1));
    assert_eq!(log.fetch(Topic::Commands, 1, 3, 1).expect("nothing").records.len(), 0);
    assert!(matches!(log.fetch(Topic::Commands, 1, 4, 1), Err(Error::OutOfRange { .. })));
    assert_eq!(log.range(Topic::Events, 0), Ok(0..4));
    assert_eq!(log.session("x").expect("a session").claim(0).map(|at| at.map(|at| at.stamp)), Ok(Some(stamp(2))));

    log.trim(Topic::Events, 0, 2).expect("a trim");
    assert!(matches!(log.fetch(Topic::Events, 0, 0, 1), Err(Error::OutOfRange { .. })));
    assert_eq!(log.fetch(Topic::Events, 0, 2, 1).expect("records").next, 4);
    log.trim(Topic::Events, 0, 4).expect("a trim");
    drop(log);
    let log = EmbeddedLog::open(dir.path(), 4).expect("the log again");
    assert_eq!(log.range(Topic::Events, 0), Ok(4..4), "the end outlives the records");
    assert!(matches!(EmbeddedLog::open(dir.path(), 4), Err(Error::Unavailable(_))), "one process at a time");
}

#[test]
fn concurrent_writers_leave_no_gap_and_readers_see_whole_commits() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = Arc::new(EmbeddedLog::open(dir.path(), 2).expect("a log"));
    let mut session = log.session("lane").expect("a session");
    session.claim(0).expect("a claim");
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
                assert_eq!(session.commit(transaction(counter, &[0])), Commit::Committed);
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
