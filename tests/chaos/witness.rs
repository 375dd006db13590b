//! The witness: a consumer of committed events, as anybody else's, that remembers all it was shown and when.
//!
//! It says how every command has ended, for how long a partition settled nothing, and at the end whether what it was shown is still
//! there, unchanged, with nothing in between.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;

use crate::load::End;

/// A shorter time without a settlement is the load's, not a fault's.
pub(crate) const GAP_MIN: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_millis(100);
/// How long a reader of everything waits for the next record that is there.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A time in which a partition settled nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap {
    pub(crate) partition: u32,
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

#[derive(Default)]
pub(crate) struct Seen {
    /// How each command has ended, by its number.
    pub(crate) ended: Vec<Option<End>>,
    /// Offset and digest of every event, by partition.
    records: Vec<Vec<(u64, u64)>>,
    /// When each partition settled last.
    pub(crate) settled_at: Vec<Option<Instant>>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) faults: Vec<String>,
}

impl Seen {
    fn take(&mut self, message: &BorrowedMessage<'_>, now: Instant) {
        let partition = message.partition() as usize;
        self.records[partition].push((message.offset() as u64, digest(message)));
        let event: Value = match serde_json::from_slice(message.payload().unwrap_or_default()) {
            Ok(event) => event,
            Err(cause) => return self.faults.push(format!("event {partition}:{} is not JSON: {cause}", message.offset())),
        };
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let end = match text("event") {
            "wallet.opened" => End::Opened,
            "wallet.credited" => return,
            "payment.settled" => End::Settled,
            "payment.rejected" => End::Rejected,
            _ => return self.faults.push(format!("nobody has asked for {event}")),
        };
        let Some(n) = text("idempotency_key").strip_prefix('k').and_then(|n| n.parse::<usize>().ok()) else {
            return self.faults.push(format!("nobody has sent {event}"));
        };
        if self.ended.len() <= n {
            self.ended.resize(n + 1, None);
        }
        if let Some(before) = self.ended[n].replace(end) {
            self.faults.push(format!("command {n} ended twice: {before:?}, {end:?}"));
        }
        if let Some(from) = self.settled_at[partition].replace(now)
            && GAP_MIN <= now - from
        {
            self.gaps.push(Gap { partition: partition as u32, from, to: now });
        }
    }

    pub(crate) fn ended_count(&self) -> usize {
        self.ended.iter().flatten().count()
    }
}

pub(crate) struct Witness {
    seen: Arc<Mutex<Seen>>,
    is_over: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    topic: String,
}

impl Witness {
    pub(crate) fn start(brokers: &str, prefix: &str, partitions: u32) -> Witness {
        let count = partitions as usize;
        let seen = Seen { records: vec![Vec::new(); count], settled_at: vec![None; count], ..Seen::default() };
        let (seen, is_over) = (Arc::new(Mutex::new(seen)), Arc::<AtomicBool>::default());
        let topic = format!("{prefix}.events.v1");
        let consumer = consumer(brokers, &topic, partitions, "read_committed");
        let (shown, over) = (seen.clone(), is_over.clone());
        let reader = std::thread::spawn(move || {
            while !over.load(Ordering::Acquire) {
                match consumer.poll(PATIENCE) {
                    Some(Ok(message)) => lock(&shown).take(&message, Instant::now()),
                    Some(Err(cause)) if cause.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) => {
                        lock(&shown).faults.push(format!("events are gone: {cause}"));
                    }
                    // A broker that is down comes back.
                    Some(Err(_)) | None => {}
                }
            }
        });
        Witness { seen, is_over, reader: Some(reader), topic }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// Reads all committed events again, from the beginning, and hands them out in the order of each partition. Tells what differs
    /// from what was shown before.
    pub(crate) fn read_again(&self, brokers: &str, mut visit: impl FnMut(Vec<u8>)) -> Vec<String> {
        let records = self.seen().records.clone();
        let mut differences = Vec::new();
        let mut found = vec![0; records.len()];
        each(brokers, &self.topic, records.len() as u32, "read_committed", |message| {
            let (partition, offset) = (message.partition() as usize, message.offset() as u64);
            let due = records[partition].get(found[partition]);
            found[partition] += 1;
            if due != Some(&(offset, digest(message))) {
                differences.push(format!("event {partition}:{offset} is not what was shown before: {due:?}"));
            }
            visit(message.payload().unwrap_or_default().to_vec());
        });
        for (partition, (found, shown)) in found.iter().zip(&records).enumerate() {
            if *found != shown.len() {
                differences.push(format!("partition {partition} has {found} events, {} were shown", shown.len()));
            }
        }
        differences
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // One that has panicked has been told of already.
        let _ = self.reader.take().map(JoinHandle::join);
    }
}

/// Visits every record of a topic that there is now, at this isolation level, and gives their number.
pub(crate) fn each(
    brokers: &str,
    topic: &str,
    partitions: u32,
    isolation: &str,
    mut visit: impl FnMut(&BorrowedMessage<'_>),
) -> usize {
    let consumer = consumer(brokers, topic, partitions, isolation);
    let (mut at_end, mut count, mut heard) = (vec![false; partitions as usize], 0, Instant::now());
    while at_end.contains(&false) {
        assert!(heard.elapsed() < READ_TIMEOUT, "{topic} cannot be read to its end: {at_end:?}");
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => {
                (count, heard) = (count + 1, Instant::now());
                visit(&message);
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => at_end[partition as usize] = true,
            Some(Err(_)) | None => {}
        }
    }
    count
}

fn consumer(brokers: &str, topic: &str, partitions: u32, isolation: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "witness").set("enable.auto.commit", "false");
    config.set("isolation.level", isolation).set("auto.offset.reset", "error").set("check.crcs", "true");
    config.set("fetch.wait.max.ms", "20").set("fetch.error.backoff.ms", "50").set("reconnect.backoff.max.ms", "200");
    config.set("topic.metadata.refresh.interval.ms", "1000").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition as i32, Offset::Offset(0)).expect("an offset");
    }
    consumer.assign(&all).expect("an assignment");
    consumer
}

fn digest(message: &BorrowedMessage<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (message.key(), message.payload(), message.timestamp().to_millis()).hash(&mut hasher);
    hasher.finish()
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
