//! The calls that only the C library offers. The one file with unsafe code; each call says why it is needed and why it is sound.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use finflow_topologies::log::{Error, Headers, HeadersBuilder, Record};
use rdkafka::TopicPartitionList;
use rdkafka::bindings;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};

use super::errors::{explained, unavailable};
use super::rights::Operation;

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

/// What the group calls the consumer, if it is a member of a generation of its group.
///
/// The crate's group metadata is opaque, and metadata from before the join would fence nothing: the broker takes a transactional
/// offset commit with generation -1 and no member id from anybody.
pub(super) fn member_id<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<String> {
    // SAFETY: the pointer is that of a live client; what the library returns is ours until it is destroyed below, and the strings
    // in it live as long.
    unsafe {
        let metadata = bindings::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return None;
        }
        let generation = bindings::rd_kafka_consumer_group_metadata_generation_id(metadata);
        let id = text(bindings::rd_kafka_consumer_group_metadata_member_id(metadata));
        bindings::rd_kafka_consumer_group_metadata_destroy(metadata);
        Some(id).filter(|id| 0 <= generation && !id.is_empty())
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

/// The queue of a partition that was split off from its client's common one, to take records from many at a time.
///
/// The crate takes one event after the other, each with its locks, and panics over a header whose name is not UTF-8: whoever may write a
/// record could stop its readers.
pub(super) struct Batches<C: ConsumerContext + 'static> {
    queue: *mut bindings::rd_kafka_queue_t,
    taken: Vec<*mut bindings::rd_kafka_message_t>,
    /// Dropped last: the queue is the client's.
    _consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: a queue may be used by any thread; this one is used by its owner alone, who leaves no message behind in `taken`.
unsafe impl<C: ConsumerContext + 'static> Send for Batches<C> {}

impl<C: ConsumerContext + 'static> Batches<C> {
    /// Of one partition; at most `count_max` records are taken at a time, whoever asks for more.
    pub(super) fn new(consumer: Arc<BaseConsumer<C>>, topic: &str, partition: i32, count_max: usize) -> Option<Batches<C>> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client lives, and is kept alive; the library copies the name, and the queue is ours until it is destroyed below.
        let queue = unsafe { bindings::rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), partition) };
        (!queue.is_null()).then(|| Batches { queue, taken: Vec::with_capacity(count_max), _consumer: consumer })
    }

    /// Takes what is there, up to so many records, and copies it: the library's own buffers hold a whole fetch and should go soon. It
    /// waits for the first record as long as `patience`, and for no other. An error is what the library found at its place among the
    /// records; what stood before it in this batch is lost with it, and read again by whoever begins where they stand.
    pub(super) fn take(&mut self, count_max: usize, patience: Duration) -> Result<Vec<Record>, KafkaError> {
        let mut count = self.consume(Duration::ZERO, count_max);
        if count == 0 && !patience.is_zero() {
            count = self.consume(patience, 1);
        }
        let mut records = Ok(Vec::with_capacity(count));
        for message in self.taken.drain(..) {
            // SAFETY: the library has given the message to us; it is destroyed once, after what it holds was copied.
            unsafe {
                if let Ok(so_far) = &mut records {
                    match record(message) {
                        Ok(record) => so_far.push(record),
                        Err(error) => records = Err(error),
                    }
                }
                bindings::rd_kafka_message_destroy(message);
            }
        }
        records
    }

    /// Throws away what was fetched before its partition was let go of. What was fetched since would be lost to its reader.
    pub(super) fn discard(&mut self) {
        // The library drops what is outdated before it waits, however much that is.
        let _ = self.take(usize::MAX, Duration::ZERO);
    }

    /// How many records are in the queue, and marks of transactions.
    pub(super) fn waiting(&self) -> usize {
        // SAFETY: the queue lives; the library guards its own state.
        unsafe { bindings::rd_kafka_queue_length(self.queue) }
    }

    /// The library fills a batch for as long as it may wait.
    fn consume(&mut self, patience: Duration, count_max: usize) -> usize {
        let patience_ms = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        let count_max = count_max.min(self.taken.capacity());
        // SAFETY: the queue lives; the library writes so many pointers at most, which there is room for, and says how many.
        unsafe {
            let taken = bindings::rd_kafka_consume_batch_queue(self.queue, patience_ms, self.taken.as_mut_ptr(), count_max);
            let count = usize::try_from(taken).unwrap_or_default().min(count_max);
            self.taken.set_len(count);
            count
        }
    }
}

impl<C: ConsumerContext + 'static> Drop for Batches<C> {
    fn drop(&mut self) {
        // SAFETY: it is ours, and not used after this.
        unsafe { bindings::rd_kafka_queue_destroy(self.queue) };
    }
}

/// A copy of a message, or the error that it stands for.
///
/// # Safety
/// `message` is live, and was given by a consumer.
unsafe fn record(message: *const bindings::rd_kafka_message_t) -> Result<Record, KafkaError> {
    // SAFETY: the caller's promise; key and value are null or as long as the message says.
    unsafe {
        let found = &*message;
        if found.err != bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::MessageConsumption(found.err.into()));
        }
        let mut kind = bindings::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let timestamp_ms = bindings::rd_kafka_message_timestamp(message, &mut kind);
        Ok(Record {
            offset: u64::try_from(found.offset).unwrap_or_default(),
            // None is told as -1.
            timestamp_ms: timestamp_ms.max(0),
            key: bytes(found.key, found.key_len).map(Bytes::copy_from_slice),
            value: bytes(found.payload, found.len).map(Bytes::copy_from_slice),
            headers: headers(message),
        })
    }
}

/// # Safety
/// As of [`record`].
unsafe fn headers(message: *const bindings::rd_kafka_message_t) -> Headers {
    // SAFETY: the caller's promise; the headers are the message's, names are C strings, and values are null or as long as the library says.
    unsafe {
        let mut found = std::ptr::null_mut();
        if bindings::rd_kafka_message_headers(message, &mut found) != bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Headers::default();
        }
        let mut builder = HeadersBuilder::default();
        for index in 0.. {
            let (mut name, mut value, mut length) = (std::ptr::null(), std::ptr::null(), 0);
            let error = bindings::rd_kafka_header_get_all(found, index, &mut name, &mut value, &mut length);
            if error != bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                break;
            }
            builder.push(&CStr::from_ptr(name).to_string_lossy(), bytes(value, length).unwrap_or_default());
        }
        builder.build()
    }
}

/// # Safety
/// `first` is null, or the first of so many bytes, which live for as long as what is returned is used.
unsafe fn bytes<'a>(first: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!first.is_null()).then(|| unsafe { std::slice::from_raw_parts(first.cast(), length) })
}

/// A member of a consumer group, as the group's coordinator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// What the group calls it: no other member, and no other life of the same one, has ever been called so.
    pub(super) member_id: String,
    /// The static name; empty where it has none.
    pub(super) instance_id: String,
    /// The partitions of the topic that was asked for; none while the group is deciding.
    pub(super) partitions: Vec<u32>,
}

/// Whether a group has decided who has what, and its members; or why that is not known.
pub(super) type Description = Result<(bool, Vec<Described>), Error>;

/// How long the library may look for the coordinator: the longest that it takes, because a request that times out while it looks ends
/// the process when the coordinator is found after all (librdkafka 2.12: `rd_kafka_admin_coord_request` gives back what the timer has
/// taken). Whoever asks waits for less, and for the same answer again.
pub(super) const DESCRIPTION_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Asks a group's coordinator for the group's description, one question at a time.
///
/// The crate's own list of groups asks every broker, and fails where one of them is down.
pub(super) struct Question<C: ConsumerContext + 'static> {
    queue: *mut bindings::rd_kafka_queue_t,
    asked_at: Option<Instant>,
    group: CString,
    topic: String,
    /// Dropped last: the queue is the client's.
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: a queue may be used by any thread; this one is used by its owner alone.
unsafe impl<C: ConsumerContext + 'static> Send for Question<C> {}

impl<C: ConsumerContext + 'static> Question<C> {
    pub(super) fn new(consumer: Arc<BaseConsumer<C>>, group: &str, topic: &str) -> Result<Question<C>, KafkaError> {
        let group = CString::new(group)?;
        // SAFETY: the pointer is that of a live client, which the question keeps alive.
        let queue = unsafe { bindings::rd_kafka_queue_new(consumer.client().native_ptr()) };
        Ok(Question { queue, asked_at: None, group, topic: topic.to_owned(), consumer })
    }

    /// For how long the question has not been answered that was asked last.
    pub(super) fn unanswered_for(&self) -> Duration {
        self.asked_at.map_or(Duration::ZERO, |asked_at| asked_at.elapsed())
    }

    /// Serves the client. What it reports on its own shows in the answers too.
    pub(super) fn serve(&self) {
        while self.consumer.poll(Duration::ZERO).is_some() {}
    }

    /// Asks, unless an earlier question is not answered yet, and waits for the answer: when it was asked, whether the group has decided
    /// who has what, and its members. `None` when the time is over; the answer is then waited for the next time.
    pub(super) fn ask(&mut self, budget: Duration) -> Option<(Instant, Description)> {
        let budget_ms = i32::try_from(budget.as_millis()).unwrap_or(i32::MAX);
        let asked_at = *self.asked_at.get_or_insert_with(|| {
            let asked_at = Instant::now();
            // SAFETY: client and queue live; the options are ours and destroyed once, and the library copies them and the name.
            unsafe {
                let client = self.consumer.client().native_ptr();
                let operation = bindings::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
                let options = bindings::rd_kafka_AdminOptions_new(client, operation);
                let timeout_ms = i32::try_from(DESCRIPTION_TIMEOUT.as_millis()).unwrap_or(i32::MAX);
                bindings::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, std::ptr::null_mut(), 0);
                let mut groups = [self.group.as_ptr()];
                bindings::rd_kafka_DescribeConsumerGroups(client, groups.as_mut_ptr(), groups.len(), options, self.queue);
                bindings::rd_kafka_AdminOptions_destroy(options);
            }
            asked_at
        });
        // SAFETY: the queue lives; an event is ours and destroyed once, after what it holds was copied.
        let found = unsafe {
            let event = bindings::rd_kafka_queue_poll(self.queue, budget_ms);
            if event.is_null() {
                return None;
            }
            let found = described(event, &self.group.to_string_lossy(), &self.topic);
            bindings::rd_kafka_event_destroy(event);
            found
        };
        self.asked_at = None;
        Some((asked_at, found))
    }
}

impl<C: ConsumerContext + 'static> Drop for Question<C> {
    fn drop(&mut self) {
        // SAFETY: it is ours, and not used after this; an answer that comes later finds it closed.
        unsafe { bindings::rd_kafka_queue_destroy(self.queue) };
    }
}

/// The one group that an event describes.
///
/// # Safety
/// `event` is live, and the answer to a description of one group.
unsafe fn described(event: *mut bindings::rd_kafka_event_t, group_id: &str, topic: &str) -> Description {
    let undescribed = |code: bindings::rd_kafka_resp_err_t| {
        explained(KafkaError::AdminOp(code.into()), || format!("Describe on group {group_id}"))
    };
    // SAFETY: the caller's promise; what the library returns from the event lives as long, indices stay below the counts that it
    // gives, and pointers that may be null are checked.
    unsafe {
        let code = bindings::rd_kafka_event_error(event);
        if code != bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(undescribed(code));
        }
        let result = bindings::rd_kafka_event_DescribeConsumerGroups_result(event);
        let mut count = 0;
        let groups = bindings::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
        if groups.is_null() || count != 1 {
            return Err(Error::Unavailable("the coordinator describes no group".to_owned()));
        }
        let group = *groups;
        let error = bindings::rd_kafka_ConsumerGroupDescription_error(group);
        let code = if error.is_null() {
            bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        } else {
            bindings::rd_kafka_error_code(error)
        };
        match code {
            bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            // Nobody has joined it yet.
            bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND => return Ok((true, Vec::new())),
            _ => return Err(undescribed(code)),
        }
        let state = bindings::rd_kafka_ConsumerGroupDescription_state(group);
        let is_stable = state == bindings::rd_kafka_consumer_group_state_t::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE;
        let members = 0..bindings::rd_kafka_ConsumerGroupDescription_member_count(group);
        let of = |index| {
            let member = bindings::rd_kafka_ConsumerGroupDescription_member(group, index);
            Described {
                member_id: text(bindings::rd_kafka_MemberDescription_consumer_id(member)),
                instance_id: text(bindings::rd_kafka_MemberDescription_group_instance_id(member)),
                partitions: assigned(bindings::rd_kafka_MemberDescription_assignment(member), topic),
            }
        };
        Ok((is_stable, members.map(of).collect()))
    }
}

/// # Safety
/// `assignment` is null or live.
unsafe fn assigned(assignment: *const bindings::rd_kafka_MemberAssignment_t, topic: &str) -> Vec<u32> {
    if assignment.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's promise; the list has as many elements as it says.
    unsafe {
        let list = bindings::rd_kafka_MemberAssignment_partitions(assignment);
        if list.is_null() || (*list).elems.is_null() {
            return Vec::new();
        }
        let elements = std::slice::from_raw_parts((*list).elems, usize::try_from((*list).cnt).unwrap_or_default());
        let ours = elements.iter().filter(|element| text(element.topic) == topic);
        ours.filter_map(|element| u32::try_from(element.partition).ok()).collect()
    }
}

/// # Safety
/// `text` is null or a live C string.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// What each topic allows, or why that is not known; nothing where there is no such topic.
pub(super) type Allowed = Result<BTreeMap<String, Option<Vec<Operation>>>, Error>;

/// What the client may do with each of these topics (KIP-430); `None` for a topic that there is not. Looks every `look_wait` whether the
/// answer has come, and gives `None` when `is_over` says so.
///
/// The crate's own metadata leaves the rights out.
pub(super) fn allowed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &[String],
    look_wait: Duration,
    timeout: Duration,
    is_over: impl Fn() -> bool,
) -> Result<Option<Allowed>, KafkaError> {
    let names = topics.iter().map(|name| CString::new(name.as_str())).collect::<Result<Vec<CString>, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let ms = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives for the length of this call and outlives the queue; queue, options and collection are ours and destroyed
    // once, the library copies the names; an event is ours and destroyed once, after what it holds was copied.
    unsafe {
        let client = consumer.client().native_ptr();
        let queue = bindings::rd_kafka_queue_new(client);
        let options =
            bindings::rd_kafka_AdminOptions_new(client, bindings::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        bindings::rd_kafka_AdminOptions_set_request_timeout(options, ms(timeout), std::ptr::null_mut(), 0);
        // It fails for other requests only; destroying nothing does nothing.
        let error = bindings::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        if !error.is_null() {
            bindings::rd_kafka_error_destroy(error);
        }
        let collection = bindings::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        bindings::rd_kafka_DescribeTopics(client, collection, options, queue);
        bindings::rd_kafka_TopicCollection_destroy(collection);
        bindings::rd_kafka_AdminOptions_destroy(options);
        let mut event: *mut bindings::rd_kafka_event_t = std::ptr::null_mut();
        while event.is_null() && !is_over() {
            event = bindings::rd_kafka_queue_poll(queue, ms(look_wait));
        }
        let found = (!event.is_null()).then(|| allowed_by(event));
        if !event.is_null() {
            bindings::rd_kafka_event_destroy(event);
        }
        bindings::rd_kafka_queue_destroy(queue);
        Ok(found)
    }
}

/// What the topics allow that an event describes.
///
/// # Safety
/// `event` is live, and the answer to a description of topics.
unsafe fn allowed_by(event: *mut bindings::rd_kafka_event_t) -> Allowed {
    use bindings::rd_kafka_resp_err_t::{RD_KAFKA_RESP_ERR_NO_ERROR, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED};
    // SAFETY: the caller's promise; what the library returns from the event lives as long, and its arrays have the lengths that it gives.
    unsafe {
        let code = bindings::rd_kafka_event_error(event);
        if code != RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(unavailable(KafkaError::AdminOp(code.into())));
        }
        let (mut count, mut found) = (0, BTreeMap::new());
        let topics =
            bindings::rd_kafka_DescribeTopics_result_topics(bindings::rd_kafka_event_DescribeTopics_result(event), &mut count);
        for topic in (0..count).map(|index| *topics.add(index)) {
            let error = bindings::rd_kafka_TopicDescription_error(topic);
            let code = if error.is_null() { RD_KAFKA_RESP_ERR_NO_ERROR } else { bindings::rd_kafka_error_code(error) };
            let mut operations = 0;
            let first = bindings::rd_kafka_TopicDescription_authorized_operations(topic, &mut operations);
            let allowed = match code {
                RD_KAFKA_RESP_ERR_NO_ERROR if first.is_null() => None,
                RD_KAFKA_RESP_ERR_NO_ERROR => Some((0..operations).filter_map(|index| operation(*first.add(index))).collect()),
                RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => Some(Vec::new()),
                _ => None,
            };
            found.insert(text(bindings::rd_kafka_TopicDescription_name(topic)), allowed);
        }
        Ok(found)
    }
}

fn operation(found: bindings::rd_kafka_AclOperation_t) -> Option<Operation> {
    match found {
        bindings::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ => Some(Operation::Read),
        bindings::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE => Some(Operation::Write),
        bindings::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DELETE => Some(Operation::Delete),
        bindings::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DESCRIBE => Some(Operation::Describe),
        bindings::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Operation::DescribeConfigs),
        _ => None,
    }
}
