//! The transactional producer of a lane. Used by the lane's own thread only; every call has a deadline.
//!
//! After a timeout, an ambiguous commit or an abort the producer is dropped and made anew under the same transactional id: with
//! version 1 of Kafka's transactions nothing else keeps what the old one is still sending out of the next transaction.

use std::time::{Duration, Instant};

use ::metrics::Histogram;
use finflow_topologies::Topic;
use finflow_topologies::log::{Batch, Error};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tracing::{debug, warn};

use super::context::Deliveries;
use super::errors::{explained, unavailable};
use super::native;
use super::record::owned_headers;
use super::settings::{Settings, TRANSACTION_TIMEOUT};
use crate::metrics;

/// How long to wait when the library's queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(1);
/// How long a new producer waits for its first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a new producer may take to end what an old one has left open, and how often whoever waits for it is asked whether it still
/// may: what it asks for while nobody answers would fence who has taken its place by then.
const INIT_TIMEOUT: Duration = Duration::from_secs(20);
const INIT_LOOK: Duration = Duration::from_millis(200);

/// How a transaction ended that was not committed for certain.
pub(super) enum Failed {
    /// Before anything could commit it: nothing of it is or will be visible.
    Before {
        /// Why.
        cause: Error,
        /// A newer producer has this one's id, or the broker has given the transaction up.
        is_fenced: bool,
    },
    /// While it was being committed: either is possible.
    During(String),
    /// By the group: another process seems to have this member's name.
    Replaced(String),
    /// By nobody: this lane is no member of the group's present generation.
    Outside(String),
}

pub(super) struct Transactor {
    settings: Settings,
    id: String,
    /// `None` until the first use, and after every failure.
    producer: Option<ThreadedProducer<Deliveries>>,
    /// One that is connected already, for the next use.
    connected: Option<ThreadedProducer<Deliveries>>,
    steps: Steps,
}

/// How long each step of a transaction takes.
struct Steps {
    records: Histogram,
    offsets: Histogram,
    end: Histogram,
}

impl Steps {
    fn new() -> Steps {
        let of = |step: &'static str| ::metrics::histogram!(metrics::KAFKA_STEP_SECONDS, "step" => step);
        Steps { records: of("records"), offsets: of("offsets"), end: of("end") }
    }
}

/// A step of a transaction, which ends where the next one begins.
struct Step(Instant);

impl Step {
    fn begin() -> Step {
        Step(Instant::now())
    }

    fn end(&mut self, taken: &Histogram) {
        taken.record(std::mem::replace(&mut self.0, Instant::now()).elapsed());
    }
}

impl Transactor {
    pub(super) fn new(settings: &Settings, id: &str) -> Transactor {
        Transactor { settings: settings.clone(), id: id.to_owned(), producer: None, connected: None, steps: Steps::new() }
    }

    /// Makes a producer that is connected, and does nothing yet that others could see.
    ///
    /// One that is initialised before it has a connection looks for its coordinator half a second later (librdkafka 2.12:
    /// `rd_kafka_txn_coord_query`).
    pub(super) fn connect(&mut self) -> Result<(), Error> {
        if self.producer.is_none() && self.connected.is_none() {
            self.connected = Some(self.make()?);
        }
        Ok(())
    }

    fn make(&self) -> Result<ThreadedProducer<Deliveries>, Error> {
        let config = self.settings.transactor(&self.id);
        let producer: ThreadedProducer<Deliveries> = config.create_with_context(Deliveries::default()).map_err(unavailable)?;
        let topic = Topic::Events.name(&self.settings.prefix);
        if let Err(cause) = producer.client().fetch_metadata(Some(&topic), CONNECT_TIMEOUT) {
            // Whoever initialises it waits longer.
            debug!(id = self.id, %cause, "the transactional producer is not connected yet");
        }
        Ok(producer)
    }

    /// Makes the producer, if there is none and for as long as it may: earlier ones of this id are fenced and their open transaction is
    /// ended.
    pub(super) fn ready(&mut self, mut may_fence: impl FnMut() -> bool) -> Result<(), Error> {
        if self.producer.is_some() {
            return Ok(());
        }
        let producer = match self.connected.take() {
            Some(connected) => connected,
            None => self.make()?,
        };
        let deadline = Instant::now() + INIT_TIMEOUT;
        loop {
            match producer.init_transactions(left(deadline).min(INIT_LOOK)) {
                Ok(()) => break,
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                    if !may_fence() {
                        discard(producer);
                        return Err(Error::Unavailable("the lane has lost its place in the group".to_owned()));
                    }
                    debug!(id = self.id, %error, "the transactional producer is not ready yet");
                }
                Err(error) => {
                    discard(producer);
                    return Err(explained(error, || format!("Write on transactional id {}", self.id)));
                }
            }
        }
        self.producer = Some(producer);
        Ok(())
    }

    /// Forgets the producer.
    pub(super) fn discard(&mut self) {
        self.producer.take().into_iter().chain(self.connected.take()).for_each(discard);
    }

    /// One transaction of a producer that is ready: records, then positions, then the commit. `group` is asked when the records are
    /// delivered.
    pub(super) fn commit(
        &mut self,
        batches: &[Batch],
        topic: impl Fn(&Batch) -> String,
        offsets: &TopicPartitionList,
        group: impl FnOnce() -> Option<ConsumerGroupMetadata>,
    ) -> Result<(), Failed> {
        let deadline = Instant::now() + self.settings.commit_deadline.min(TRANSACTION_TIMEOUT);
        let mut outcome = self.attempt(batches, topic, offsets, group, deadline);
        if let Err(failed) = &mut outcome {
            if let Failed::Before { is_fenced, .. } = failed {
                *is_fenced = self.is_fenced();
            }
            self.discard();
        }
        outcome
    }

    fn is_fenced(&self) -> bool {
        let fatal = self.producer.as_ref().and_then(|producer| producer.client().fatal_error());
        fatal.is_some_and(|(code, _)| code == RDKafkaErrorCode::Fenced)
    }

    fn attempt(
        &self,
        batches: &[Batch],
        topic: impl Fn(&Batch) -> String,
        offsets: &TopicPartitionList,
        group: impl FnOnce() -> Option<ConsumerGroupMetadata>,
        deadline: Instant,
    ) -> Result<(), Failed> {
        let Some(producer) = &self.producer else {
            return Err(Failed::before(Error::Unavailable("there is no producer".to_owned())));
        };
        let mut step = Step::begin();
        producer.begin_transaction().map_err(before)?;
        for batch in batches {
            send(producer, batch, &topic(batch), deadline)?;
        }
        let is_delivered = native::flush(producer, left(deadline));
        if let Some(error) = producer.context().take_failure() {
            return Err(before(cause(producer, error)));
        }
        if !is_delivered {
            return Err(Failed::before(Error::Unavailable("the records are not delivered in time".to_owned())));
        }
        step.end(&self.steps.records);
        let Some(group) = group() else {
            return Err(Failed::Outside("the lane is no member of its group".to_owned()));
        };
        producer.send_offsets_to_transaction(offsets, &group, left(deadline)).map_err(before)?;
        step.end(&self.steps.offsets);
        loop {
            match producer.commit_transaction(left(deadline)) {
                Ok(()) => {
                    step.end(&self.steps.end);
                    return Ok(());
                }
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                    warn!(id = self.id, %error, "the commit is not answered yet");
                }
                Err(error) => return Err(Failed::During(error.to_string())),
            }
        }
    }
}

impl Drop for Transactor {
    fn drop(&mut self) {
        self.discard();
    }
}

/// Queues the records of a batch; waits while the library's queue is full.
fn send(producer: &ThreadedProducer<Deliveries>, batch: &Batch, topic: &str, deadline: Instant) -> Result<(), Failed> {
    for record in &batch.records {
        let mut outgoing = BaseRecord::<[u8], [u8], ()>::to(topic).partition(batch.partition as i32);
        outgoing.key = record.key.as_deref();
        outgoing.payload = record.value.as_deref();
        outgoing.headers = owned_headers(record);
        // The broker puts its own time in its place, but in a topic that keeps what records bring.
        outgoing.timestamp = record.timestamp_ms;
        loop {
            match producer.send(outgoing) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) if Instant::now() < deadline => {
                    outgoing = refused;
                    std::thread::sleep(QUEUE_FULL_PAUSE);
                }
                Err((error, _)) => return Err(before(cause(producer, error))),
            }
        }
    }
    Ok(())
}

/// Why a transaction has failed. Of records that were not sent any more the library says only that; asked for another transaction, it says
/// why there can be none.
fn cause(producer: &ThreadedProducer<Deliveries>, error: KafkaError) -> KafkaError {
    use RDKafkaErrorCode::{PurgeInflight, PurgeQueue, State};
    if !matches!(error.rdkafka_error_code(), Some(PurgeInflight | PurgeQueue | State)) {
        return error;
    }
    let told = producer.begin_transaction().err();
    told.filter(|told| told.rdkafka_error_code() != Some(State)).unwrap_or(error)
}

impl Failed {
    fn before(cause: Error) -> Failed {
        Failed::Before { cause, is_fenced: false }
    }
}

/// What an error before the commit means.
fn before(error: KafkaError) -> Failed {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::FencedInstanceId) => Failed::Replaced(error.to_string()),
        _ => Failed::before(unavailable(error)),
    }
}

/// Dropping a producer waits for what it still has under way: not on the lane's time.
fn discard(producer: ThreadedProducer<Deliveries>) {
    let dropped = std::thread::Builder::new().name("finflow-discard".to_owned()).spawn(move || drop(producer));
    if let Err(error) = dropped {
        warn!(%error, "a producer is dropped on the lane's own time");
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
