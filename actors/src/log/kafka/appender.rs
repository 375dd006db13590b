//! A producer's way in: records of commands, outside every transaction, durable on all replicas when the call returns.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use finflow_topologies::Topic;
use finflow_topologies::log::{Error, Outgoing};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message};

use super::context::log;
use super::errors::explained;
use super::record::owned_headers;
use super::settings::Settings;

/// How long an append may take: longer than the library itself tries.
const APPEND_TIMEOUT: Duration = Duration::from_secs(40);

/// The records of one partition in one call.
#[derive(Default)]
pub(super) struct Append {
    state: Mutex<Appended>,
    is_done: Condvar,
}

#[derive(Default)]
struct Appended {
    waiting: usize,
    offsets: Vec<u64>,
    /// A record is there, and the broker does not say where.
    is_unplaced: bool,
    failed: Option<KafkaError>,
}

impl Append {
    fn acknowledge(&self, result: Result<Option<u64>, KafkaError>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting = state.waiting.saturating_sub(1);
        match result {
            Ok(Some(offset)) => state.offsets.push(offset),
            Ok(None) => state.is_unplaced = true,
            Err(error) => state.failed = Some(error),
        }
        if state.waiting == 0 {
            self.is_done.notify_all();
        }
    }

    /// The offset of each record, in the order in which they were sent: the idempotent producer keeps it, whoever writes between them.
    fn wait(&self, topic: &str, deadline: Instant) -> Result<Vec<u64>, Error> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.is_done.wait_timeout_while(state, left, |state| 0 < state.waiting);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match &state.failed {
            Some(error) => Err(not_taken(topic, error.clone())),
            None if 0 < state.waiting => Err(Error::Unavailable("the append is not acknowledged in time".to_owned())),
            None if state.is_unplaced => Err(Error::Unavailable("the log has a record and does not say where".to_owned())),
            None => {
                let mut offsets = std::mem::take(&mut state.offsets);
                offsets.sort_unstable();
                Ok(offsets)
            }
        }
    }
}

/// Why a topic does not take a record.
fn not_taken(topic: &str, error: KafkaError) -> Error {
    explained(error, || format!("Write on topic {topic}"))
}

struct Appends;

impl ClientContext for Appends {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }
}

impl ProducerContext for Appends {
    type DeliveryOpaque = Arc<Append>;

    fn delivery(&self, result: &DeliveryResult<'_>, append: Arc<Append>) {
        append.acknowledge(match result {
            // A broker that was sent a batch twice may not say any more where it has the first one.
            Ok(message) => Ok(u64::try_from(message.offset()).ok()),
            Err((error, _)) => Err(error.clone()),
        });
    }
}

pub(super) struct Appender {
    producer: ThreadedProducer<Appends>,
    prefix: String,
}

impl Appender {
    pub(super) fn new(settings: &Settings) -> Result<Appender, KafkaError> {
        let producer = settings.appender().create_with_context(Appends)?;
        Ok(Appender { producer, prefix: settings.prefix.clone() })
    }

    /// Appends to several partitions, and gives the offset of every record in each: those of others may lie between them.
    pub(super) fn append(&self, batches: &[(Topic, u32, Vec<Outgoing>)]) -> Result<Vec<Vec<u64>>, Error> {
        let deadline = Instant::now() + APPEND_TIMEOUT;
        let mut appends = Vec::with_capacity(batches.len());
        for (topic, partition, records) in batches {
            let append = Arc::new(Append::default());
            append.state.lock().unwrap_or_else(PoisonError::into_inner).waiting = records.len();
            appends.push(append.clone());
            let name = topic.name(&self.prefix);
            for record in records {
                self.send(&name, *partition, record, &append, deadline)?;
            }
        }
        appends.iter().zip(batches).map(|(append, (topic, ..))| append.wait(&topic.name(&self.prefix), deadline)).collect()
    }

    fn send(&self, topic: &str, partition: u32, record: &Outgoing, to: &Arc<Append>, deadline: Instant) -> Result<(), Error> {
        let mut outgoing = BaseRecord::<[u8], [u8], Arc<Append>>::with_opaque_to(topic, to.clone()).partition(partition as i32);
        outgoing.key = record.key.as_deref();
        outgoing.payload = record.value.as_deref();
        outgoing.headers = owned_headers(record);
        outgoing.timestamp = record.timestamp_ms;
        loop {
            match self.producer.send(outgoing) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) if Instant::now() < deadline => {
                    outgoing = refused;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(not_taken(topic, error)),
            }
        }
    }
}
