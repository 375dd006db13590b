//! What a process reads and appends beside its lanes: what the client library holds ahead for it, and where its commands stand.

use finflow_actors::log::kafka::KafkaLog;
use finflow_topologies::Topic;
use finflow_topologies::log::conformance::PARTITIONS;
use finflow_topologies::log::{Log, Outgoing};

use super::{Cluster, LOOKS, PAUSE, text};

/// Commands that wait in each partition while one of them is looked up, and how many lookers there are at a time.
const WAITING: u64 = 20_000;
const LOOKERS: usize = 4;
/// Producers that write to one partition at a time, how often each of them does, and how many commands at a time.
const PRODUCERS: usize = 4;
const CALLS: usize = 10;
const COMMANDS: usize = 500;
/// Looks for what is held ahead: for less time than a reader throws away what still comes of a partition that it has let go of.
const HELD_LOOKS: u32 = LOOKS / 4;

fn fill(log: &KafkaLog) {
    for partition in 0..PARTITIONS {
        let records = (0..WAITING).map(|number| text("k", &format!("{number:0300}"))).collect();
        log.append(Topic::Commands, partition, records).expect("appended");
    }
}

/// Waits until so much is held ahead as `is_so` says: an answer that was under way still comes, and goes a moment later.
fn held(log: &KafkaLog, what: &str, is_so: impl Fn(usize) -> bool) {
    let mut tries = 0..HELD_LOOKS;
    while !is_so(log.held_ahead()) {
        assert!(tries.next().is_some(), "{what}: {} records", log.held_ahead());
        std::thread::park_timeout(PAUSE);
    }
}

/// Looking for how long the oldest command has waited must not keep those behind it: there may be a day of them, in every partition.
pub(crate) fn one_record_leaves_no_others_behind(cluster: &mut Cluster) {
    let log = cluster.log();
    fill(&log);
    let look = |bytes_max| {
        for partition in 0..PARTITIONS {
            let fetched = log.fetch(Topic::Commands, partition, WAITING / 2, bytes_max).expect("records");
            assert_eq!(fetched.records.first().map(|record| record.offset), Some(WAITING / 2), "{bytes_max} bytes");
        }
    };
    // How many bytes are asked for, and whether what came along is kept for who goes on.
    for (bytes_max, is_kept) in [(1, false), (127, false), (1 << 20, true)] {
        std::thread::scope(|lookers| {
            (0..LOOKERS).for_each(|_| {
                lookers.spawn(|| look(bytes_max));
            });
        });
        held(&log, &format!("what came along with {bytes_max} bytes"), |ahead| (0 < ahead) == is_kept);
    }
}

/// A lane that follows a partition holds some hundred records of it ahead, and each may hold the whole answer that it came in: they go
/// where the partition halts, rests or is given back, and nothing is passed over by who follows it again.
pub(crate) fn what_is_forgotten_is_not_kept_and_is_read_again(cluster: &mut Cluster) {
    let log = cluster.log();
    fill(&log);
    let mut tries = 0..LOOKS;
    let mut follow = |partition, from| loop {
        let fetched = log.poll(Topic::Commands, partition, from, 1).expect("records");
        if from < fetched.next {
            return fetched;
        }
        assert!(tries.next().is_some(), "{partition} gives nothing at {from}");
        std::thread::park_timeout(PAUSE);
    };
    let reached: Vec<u64> = (0..PARTITIONS).map(|partition| follow(partition, 0).next).collect();
    held(&log, "followed", |ahead| PARTITIONS as usize <= ahead);
    (0..PARTITIONS).for_each(|partition| log.forget(Topic::Commands, partition));
    held(&log, "forgotten", |ahead| ahead == 0);
    for (partition, from) in (0..PARTITIONS).zip(reached) {
        let fetched = follow(partition, from);
        let offsets: Vec<u64> = fetched.records.iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (from..fetched.next).collect::<Vec<_>>(), "{partition}");
    }
}

/// `publish --wait` takes a command for decided once its partition is past its place: a place that is told too low makes it read the answer
/// before there is one.
pub(crate) fn each_command_is_told_its_own_place(cluster: &mut Cluster) {
    let log = cluster.log();
    let produce = |producer: usize| {
        let mut told = Vec::new();
        for call in 0..CALLS {
            let values: Vec<String> = (0..COMMANDS).map(|number| format!("{producer} {call} {number:0100}")).collect();
            let records: Vec<Outgoing> = values.iter().map(|value| text("k", value)).collect();
            let offsets = log.append_all(vec![(1, records)]).expect("appended").concat();
            assert_eq!(offsets.len(), values.len());
            told.extend(offsets.into_iter().zip(values));
        }
        told
    };
    let told: Vec<Vec<(u64, String)>> = std::thread::scope(|producers| {
        let produce = &produce;
        let running: Vec<_> = (0..PRODUCERS).map(|producer| producers.spawn(move || produce(producer))).collect();
        running.into_iter().map(|producer| producer.join().expect("a producer")).collect()
    });
    let is_beside = |told: &[(u64, String)]| told.windows(2).any(|pair| pair[0].0 + 1 != pair[1].0);
    assert!(told.iter().any(|told| is_beside(told)), "they wrote one after the other");
    let mut told = told.concat();
    told.sort();
    let mut stored = Vec::new();
    while stored.len() < told.len() {
        let fetched = log.fetch(Topic::Commands, 1, stored.len() as u64, usize::MAX).expect("records");
        assert!(!fetched.records.is_empty(), "{} are there", stored.len());
        let value = |value: Option<bytes::Bytes>| String::from_utf8(value.expect("a value").to_vec()).expect("text");
        stored.extend(fetched.records.into_iter().map(|record| (record.offset, value(record.value))));
    }
    assert_eq!(stored, told);
}
