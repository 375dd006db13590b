//! What the client library tells on its own: its log lines, delivery failures, and changes of the assignment.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};
use tracing::{debug, info, warn};

use crate::metrics;

/// Passes the library's log lines on.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            warn!(facility, "{line}");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => info!(facility, "{line}"),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => debug!(facility, "{line}"),
    }
}

/// A client without anything to say but its log lines.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "a client reports");
    }
}

impl ConsumerContext for Quiet {}

/// Remembers that a record of the transaction could not be delivered, and counts what is sent.
#[derive(Default)]
pub(super) struct Deliveries {
    failed: Mutex<Option<KafkaError>>,
    sent: Mutex<Sent>,
}

/// What a producer has sent since it was made.
#[derive(Default)]
struct Sent {
    records: u64,
    bytes: u64,
}

impl Deliveries {
    /// The first failure since the last call.
    pub(super) fn take_failure(&self) -> Option<KafkaError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "the transactional producer reports");
    }

    fn stats(&self, statistics: Statistics) {
        let now = Sent { records: counted(statistics.txmsgs), bytes: counted(statistics.tx_bytes) };
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        ::metrics::counter!(metrics::KAFKA_RECORDS).increment(now.records.saturating_sub(sent.records));
        ::metrics::counter!(metrics::KAFKA_BYTES).increment(now.bytes.saturating_sub(sent.bytes));
        *sent = now;
    }
}

fn counted(total: i64) -> u64 {
    u64::try_from(total).unwrap_or_default()
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.clone());
        }
    }
}

/// A change of the assignment that the group has decided.
pub(super) enum Change {
    /// These partitions come in addition.
    Assigned(TopicPartitionList),
    /// These partitions go.
    Revoked(TopicPartitionList),
}

/// Puts the group's decisions aside: they are carried out by the thread that polls, in plain sight, and not in a callback.
#[derive(Default)]
pub(super) struct Rebalances {
    changes: Mutex<VecDeque<Change>>,
    /// The consumer is being dropped, which polls until it is closed: nobody else carries anything out any more.
    is_closing: AtomicBool,
}

impl Rebalances {
    pub(super) fn next(&self) -> Option<Change> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "the group member reports");
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let is_assigned = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.is_closing.load(Ordering::Acquire) {
            if !is_assigned && let Err(cause) = take_away(consumer, partitions) {
                warn!(%cause, "cannot give up the assignment");
            }
            return;
        }
        let change = if is_assigned { Change::Assigned(partitions.clone()) } else { Change::Revoked(partitions.clone()) };
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push_back(change);
    }
}

/// Carries out an assignment.
pub(super) fn give(consumer: &BaseConsumer<Rebalances>, partitions: &TopicPartitionList) -> Result<(), KafkaError> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(partitions),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(partitions),
    }
}

/// Carries out a revocation.
pub(super) fn take_away(consumer: &BaseConsumer<Rebalances>, partitions: &TopicPartitionList) -> Result<(), KafkaError> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}
