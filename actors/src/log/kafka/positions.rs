//! The committed positions of the lanes' group, as the coordinator tells them to a member or to anybody else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use finflow_topologies::log::{Error, Position};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::errors::{explained, is_unauthorized};
use super::record::position;

/// How long the broker may take to tell committed offsets: longer than an open transaction lasts, whose end it waits for, and the
/// 10 s between two looks for such.
pub(super) const OFFSETS_TIMEOUT: Duration = Duration::from_secs(25);
/// How often who waits for them looks whether it waits in vain.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The committed offsets of the consumer's group, for a client that is no member and that nobody else polls: a coordinator that does not
/// let it in says so by an event, and does not answer.
pub(super) fn seen<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: TopicPartitionList,
    timeout: Duration,
) -> Result<TopicPartitionList, KafkaError> {
    let begun = Instant::now();
    loop {
        let left = timeout.saturating_sub(begun.elapsed());
        let error = match consumer.committed_offsets(list.clone(), left.min(LOOK_INTERVAL)) {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        let mut told = std::iter::from_fn(|| consumer.poll(Duration::ZERO));
        if let Some(refused) = told.find_map(|told| told.err().filter(is_unauthorized)) {
            return Err(refused);
        }
        let is_late = error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut);
        if !is_late || left <= LOOK_INTERVAL {
            return Err(error);
        }
    }
}

/// The committed positions of the consumer's `group`, read when no transaction on them is open any more.
pub(super) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    (group, topic): (&str, &str),
    partitions: &[u32],
) -> Result<BTreeMap<u32, Position>, Error> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition as i32);
    }
    let found = consumer.committed_offsets(list, OFFSETS_TIMEOUT);
    let found = found.map_err(|error| explained(error, || format!("Read on group {group}")))?;
    let mut positions = BTreeMap::new();
    for place in found.elements() {
        place.error().map_err(|error| explained(error, || format!("Describe on topic {topic}")))?;
        let (partition, offset) = (place.partition() as u32, place.offset());
        let Offset::Offset(offset) = offset else { continue };
        let known = position(partition, offset, place.metadata()).ok_or_else(|| {
            let found = place.metadata();
            Error::Corrupt(format!("the committed offset {offset} of {topic}-{partition} carries {found:?}, no stamp"))
        })?;
        positions.insert(partition, known);
    }
    Ok(positions)
}
