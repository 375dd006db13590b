//! The contract of the log, on the embedded one, and what is its own: writers side by side, one process at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use finflow_actors::log::embedded::EmbeddedLog;
use finflow_state::Stamp;
use finflow_topologies::Topic;
use finflow_topologies::log::conformance::{Faulty, Harness, PARTITIONS, check, check_faults};
use finflow_topologies::log::{
    Batch, Claimed, Commit, Error, Headers, Log, Outgoing, Position, Resolution, Transaction, simulated,
};

use self::failing::{FailingDisk, Fault};

#[path = "disk/failing.rs"]
mod failing;

fn record(value: &str) -> Outgoing {
    let headers = Headers::from_pairs([("a", &b"1"[..]), ("a", &b"2"[..])]);
    Outgoing {
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers,
        ..Outgoing::default()
    }
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
    assert!(matches!(EmbeddedLog::open(dir.path(), 4), Err(Error::Busy(_))));
}

/// A tail that a crash has cut short was never acknowledged; damage before it would take acknowledged records with it.
#[test]
fn damage_in_the_middle_of_the_write_ahead_log_is_told_and_a_torn_tail_is_forgotten() {
    for (is_torn, kept) in [(true, Some(19)), (false, None)] {
        let dir = tempfile::tempdir().expect("a directory");
        let log = EmbeddedLog::open(dir.path(), 1).expect("a log");
        for number in 0..20 {
            log.append(Topic::Commands, 0, vec![record(&format!("record {number}"))]).expect("a log");
        }
        drop(log);
        let files = std::fs::read_dir(dir.path()).expect("a directory").map(|entry| entry.expect("an entry").path());
        let mut written: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
        written.sort();
        let newest = written.pop().expect("a write-ahead log");
        let mut bytes = std::fs::read(&newest).expect("a file");
        if is_torn {
            bytes.truncate(bytes.len() - 3);
        } else {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        std::fs::write(&newest, bytes).expect("a file");
        let opened = EmbeddedLog::open(dir.path(), 1);
        let end = opened.as_ref().ok().map(|log| log.range(Topic::Commands, 0).expect("a range").end);
        assert_eq!(end, kept, "{:?}", opened.err());
    }
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
fn settling_doubts_beside_writers_loses_no_acknowledged_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(FailingDisk::default());
    let log = EmbeddedLog::open_on(disk.clone(), dir.path(), 1).expect("a log");
    let mut session = log.session("lane").expect("a session");
    let claim = session.claim(0).expect("a claim").epoch;
    let mut random = fastrand::Rng::with_seed(1);
    let (acknowledged, committed) = std::thread::scope(|scope| {
        let appenders: Vec<_> = (0..2_u64)
            .map(|writer| {
                let (log, numbers) = (log.clone(), writer * 200..writer * 200 + 200);
                let append = move |n: u64| Some((n, log.append(Topic::Commands, 0, vec![record(&n.to_string())]).ok()?));
                scope.spawn(move || numbers.filter_map(append).collect::<Vec<(u64, u64)>>())
            })
            .collect();
        let mut committed = Vec::new();
        for counter in 1.. {
            if appenders.iter().all(|appender| appender.is_finished()) {
                break;
            }
            disk.script([None, None, random.choice([Fault::Before, Fault::After, Fault::Torn, Fault::Panic])]);
            let commit = match session.commit(transaction(counter, &[0], claim)) {
                Commit::InDoubt(_) => session.resolve(&stamp(counter)).expect("a disk that opens"),
                other => Option::<Resolution>::from(&other).expect("an answer"),
            };
            committed.extend((commit == Resolution::Committed).then_some(counter));
        }
        let acknowledged = appenders.into_iter().flat_map(|appender| appender.join().expect("a writer")).collect::<Vec<_>>();
        (acknowledged, committed)
    });
    let (writes, failed) = disk.counts();
    assert!(0 < failed && !acknowledged.is_empty() && !committed.is_empty(), "{failed} of {writes} writes failed");
    let records = log.fetch(Topic::Commands, 0, 0, usize::MAX).expect("records").records;
    for (n, offset) in acknowledged {
        let found = records.iter().find(|record| record.offset == offset).and_then(|record| record.value.clone());
        assert_eq!(found.as_deref(), Some(n.to_string().as_bytes()), "offset {offset}");
    }
    assert_eq!(log.range(Topic::Journal, 0), Ok(0..2 * committed.len() as u64), "{committed:?}");
}

struct Failing {
    dir: tempfile::TempDir,
    disk: Arc<FailingDisk>,
    log: Option<EmbeddedLog>,
}

impl Harness for Failing {
    fn open(&mut self) -> Arc<dyn Log> {
        self.log = None;
        let begun = Instant::now();
        // The thread that opens a closed log again may still be letting go of it.
        let log = loop {
            match EmbeddedLog::open_on(self.disk.clone(), self.dir.path(), PARTITIONS) {
                Ok(log) => break log,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(10), "{error}"),
            }
        };
        self.log = Some(log.clone());
        Arc::new(log)
    }
}

impl Faulty for Failing {
    fn fail_next(&mut self, fault: simulated::Fault) {
        match fault {
            simulated::Fault::DoubtCommitted => self.disk.script([Some(Fault::After)]),
            simulated::Fault::DoubtAborted => self.disk.script([Some(Fault::Torn)]),
            // A commit is refused by a log that is closed and cannot be opened.
            simulated::Fault::Abort => {
                self.disk.refuse_this_thread_once();
                self.disk.script([Some(Fault::Before)]);
                let log = self.log.as_ref().expect("an open log");
                assert!(log.append(Topic::Dlq, 3, vec![record("x")]).is_err());
            }
        }
    }
}

#[test]
fn the_embedded_log_keeps_the_contract_when_its_disk_fails() {
    check_faults(|| Failing { dir: tempfile::tempdir().expect("a directory"), disk: Arc::default(), log: None });
}
