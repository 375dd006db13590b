//! The calls that only the C library offers. The one file with unsafe code; each call says why it is needed and why it is sound.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};

/// Waits until every record handed to the producer is delivered or has failed; `false` if some are left when `budget` is over.
///
/// The crate's own `flush`, which its `commit_transaction` begins with, polls in steps of 100 ms and so makes every commit last
/// 101 ms; this one waits on a condition and returns at once (measured: 3 to 8 ms). The producer must have a thread that serves
/// its delivery reports, as a [`ThreadedProducer`] has.
pub(super) fn flush<C: ProducerContext>(producer: &ThreadedProducer<C>, budget: Duration) -> bool {
    let budget_ms = i32::try_from(budget.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer is that of a live client, borrowed for the length of this call; the library guards its own state.
    let error = unsafe { bindings::rd_kafka_flush(producer.client().native_ptr(), budget_ms) };
    error == bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// Whether the consumer is a member of a generation of its group.
///
/// The crate's group metadata is opaque, and metadata from before the join would fence nothing: the broker takes a transactional
/// offset commit with generation -1 and no member id from anybody.
pub(super) fn is_member<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> bool {
    // SAFETY: the pointer is that of a live client; what the library returns is ours until it is destroyed below, and the strings
    // in it live as long.
    unsafe {
        let metadata = bindings::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return false;
        }
        let generation = bindings::rd_kafka_consumer_group_metadata_generation_id(metadata);
        let id = bindings::rd_kafka_consumer_group_metadata_member_id(metadata);
        let has_id = !id.is_null() && !CStr::from_ptr(id).is_empty();
        bindings::rd_kafka_consumer_group_metadata_destroy(metadata);
        0 <= generation && has_id
    }
}

/// The position of the one partition in `list`: one past the last record, shown or not, that was taken from its queue.
///
/// The crate's own `position` leaves out what is not assigned, and this must be known of a partition that has just been given up:
/// while the library still stops it, the position is that of the former assignment.
pub(super) fn position<C: ConsumerContext>(consumer: &BaseConsumer<C>, list: &TopicPartitionList) -> Option<u64> {
    // SAFETY: both pointers are those of live values, borrowed for the length of this call; it writes into the list's elements
    // only, which nobody else holds meanwhile.
    let error = unsafe { bindings::rd_kafka_position(consumer.client().native_ptr(), list.ptr()) };
    if error != bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return None;
    }
    list.elements().first().and_then(|found| found.offset().to_raw()).and_then(|offset| u64::try_from(offset).ok())
}
