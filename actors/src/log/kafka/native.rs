//! The calls that only the C library offers. The one file with unsafe code; each call says why it is needed and why it is sound.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::bindings;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};

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
pub(super) type Description = Result<(bool, Vec<Described>), String>;

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
            let found = described(event, &self.topic);
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
unsafe fn described(event: *mut bindings::rd_kafka_event_t, topic: &str) -> Description {
    // SAFETY: the caller's promise; what the library returns from the event lives as long, indices stay below the counts that it
    // gives, and pointers that may be null are checked.
    unsafe {
        if bindings::rd_kafka_event_error(event) != bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(bindings::rd_kafka_event_error_string(event)));
        }
        let result = bindings::rd_kafka_event_DescribeConsumerGroups_result(event);
        let mut count = 0;
        let groups = bindings::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
        if groups.is_null() || count != 1 {
            return Err("the coordinator describes no group".to_owned());
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
            _ => return Err(text(bindings::rd_kafka_error_name(error))),
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
pub(super) type Allowed = Result<BTreeMap<String, Option<Vec<Operation>>>, String>;

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
        if bindings::rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(bindings::rd_kafka_event_error_string(event)));
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
        _ => None,
    }
}
