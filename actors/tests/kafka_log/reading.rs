//! What a process reads and appends beside its lanes: what the client library holds ahead for it, and where its commands stand.

use finflow_actors::log::kafka::KafkaLog;
use finflow_topologies::Topic;
use finflow_topologies::log::conformance::PARTITIONS;
use finflow_topologies::log::Log;

use super::{Cluster, LOOKS, PAUSE, text};

/// Commands that wait in each partition while one of them is looked up, and how many lookers there are at a time.
const WAITING: u64 = 20_000;
const LOOKERS: usize = 4;
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
