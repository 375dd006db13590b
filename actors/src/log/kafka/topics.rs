//! The application's topics: made with the settings that the engine needs, and checked against them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use finflow_topologies::Topic;
use finflow_topologies::log::Error;
use finflow_topologies::topics::{DEAD_LETTER_BYTES_MAX, RECORD_BYTES_MAX};
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::info;

use super::context::Quiet;
use super::errors::{administrators, explained, forbidden, shown, unavailable};
use super::seal::SEALED_BYTES;
use super::settings::{BATCH_BYTES_MAX, Settings};

/// How long the cluster may take for an administrative request.
pub(super) const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one broker may take to show what topics there are.
const SHOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts at what the cluster cannot do yet.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Between two looks for the leaders of new topics.
const LEADER_PAUSE: Duration = Duration::from_millis(20);
/// Commands and events are kept for a week; what needs a command later is told by the lag against it.
const WEEK_MS: &str = "604800000";
const FOR_EVER: &str = "-1";

/// The administrator's side of the cluster.
pub(super) struct Admin {
    client: AdminClient<Quiet>,
    settings: Settings,
}

/// A topic as the brokers have it.
struct Found {
    partitions: u32,
    /// Of the partition that has fewest.
    replication: i32,
}

/// A setting of a topic that is looser than the engine needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loose {
    topic: Topic,
    name: String,
    key: &'static str,
    found: String,
    due: String,
}

impl Loose {
    /// Whether an engine must not go on with it: committed state goes, commands are compacted, or the sweep goes by another clock than the
    /// brokers'.
    pub(crate) fn is_fatal(&self) -> bool {
        match self.topic {
            Topic::Journal | Topic::Postings => ["cleanup.policy", "retention.ms", "retention.bytes"].contains(&self.key),
            Topic::Commands => self.key == "cleanup.policy" || self.has_producers_time(),
            Topic::Events | Topic::Dlq => false,
        }
    }

    /// Whether commands tell their producers' time: nothing can be forgotten by it.
    pub(crate) fn has_producers_time(&self) -> bool {
        self.topic == Topic::Commands && self.key == "message.timestamp.type"
    }

    fn is_seal(&self) -> bool {
        let is_short = self.found.parse::<usize>().is_ok_and(|found| found <= SEALED_BYTES);
        self.topic == Topic::Commands && self.key == "max.message.bytes" && is_short
    }
}

impl std::fmt::Display for Loose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Loose { name, key, found, due, .. } = self;
        write!(f, "{name}: {key} is {found:?}, {due} is needed")
    }
}

/// The longest batch that a topic takes, in bytes: what is longer than a command may be is refused to its producer, and whatever is
/// taken as one fits whole into the topic of dead letters.
pub(super) fn batch_bytes_max(topic: Topic) -> usize {
    match topic {
        Topic::Commands => RECORD_BYTES_MAX,
        Topic::Dlq => DEAD_LETTER_BYTES_MAX,
        Topic::Postings | Topic::Events | Topic::Journal => BATCH_BYTES_MAX,
    }
}

/// The settings of a topic that the engine rests on.
fn required(topic: Topic, replication: i32, dlq_retention: Option<Duration>) -> BTreeMap<&'static str, String> {
    let retention = match topic {
        Topic::Commands | Topic::Events => WEEK_MS.to_owned(),
        // Everything here is needed until it was applied, or is below a verified snapshot: trimmed, never expired.
        Topic::Postings | Topic::Journal => FOR_EVER.to_owned(),
        // The age of a dead letter is that of the command that it was.
        Topic::Dlq => dlq_retention.map_or(FOR_EVER.to_owned(), |kept| kept.as_millis().to_string()),
    };
    BTreeMap::from([
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", retention),
        ("retention.bytes", FOR_EVER.to_owned()),
        ("max.message.bytes", batch_bytes_max(topic).to_string()),
        // The age of a command is judged by the broker's clock; a dead letter keeps its original's time.
        ("message.timestamp.type", if topic.keeps_time() { "CreateTime" } else { "LogAppendTime" }.to_owned()),
        // An acknowledged record outlives one broker, and an unclean leader would lose it.
        ("min.insync.replicas", replication.clamp(1, 2).to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ])
}

/// What a topic has that it must not have: the setting may be stricter than required, never looser.
fn is_wrong(topic: Topic, name: &str, found: &str, due: &str) -> bool {
    let number = |text: &str| text.parse::<i64>().unwrap_or_default();
    match name {
        // For ever, or longer than required.
        "retention.ms" | "retention.bytes" => found != FOR_EVER && (due == FOR_EVER || number(found) < number(due)),
        // A longer command would be cut where it becomes a dead letter.
        "max.message.bytes" if topic == Topic::Commands => number(found) != number(due),
        "max.message.bytes" | "min.insync.replicas" => number(found) < number(due),
        _ => found != due,
    }
}

/// Tries again what the cluster cannot do yet, as while its brokers start, until the time for an administrative request is over.
pub(super) fn patiently<T>(patience: Duration, mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(Error::Unavailable(cause) | Error::Lasting(cause)) if begun.elapsed() < patience => {
                info!(cause, "the cluster is not ready, trying again");
                std::thread::sleep(RETRY_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Whether a cluster that cannot make a topic now may be able to later.
fn is_transient(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{
        BrokerTransportFailure, InvalidReplicationFactor, NotController, OperationTimedOut, RequestTimedOut,
        ThrottlingQuotaExceeded,
    };
    // Too few brokers may be too few so far.
    let later = [
        BrokerTransportFailure,
        InvalidReplicationFactor,
        NotController,
        OperationTimedOut,
        RequestTimedOut,
        ThrottlingQuotaExceeded,
    ];
    later.contains(&code)
}

impl Admin {
    pub(super) fn new(settings: &Settings) -> Result<Admin, Error> {
        let client = settings.client().create_with_context(Quiet).map_err(unavailable)?;
        Ok(Admin { client, settings: settings.clone() })
    }

    /// The same as the principal that trims, where it has one of its own.
    pub(super) fn trimmer(settings: &Settings) -> Result<Admin, Error> {
        Admin::new(&settings.as_trimmer())
    }

    pub(super) fn client(&self) -> &AdminClient<Quiet> {
        &self.client
    }

    pub(super) fn prefix(&self) -> &str {
        &self.settings.prefix
    }

    fn required(&self, topic: Topic, replication: i32) -> BTreeMap<&'static str, String> {
        required(topic, replication, self.settings.dlq_retention)
    }

    /// Makes the topics that are missing. What is there already is left as it is, and checked by [`Admin::check`].
    pub(super) fn create(&self, partitions: u32, replication: i32) -> Result<Vec<String>, Error> {
        let names: Vec<(String, BTreeMap<&str, String>)> =
            Topic::ALL.iter().map(|topic| (topic.name(&self.settings.prefix), self.required(*topic, replication))).collect();
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .map(|(name, settings)| {
                let topic = NewTopic::new(name, partitions as i32, TopicReplication::Fixed(replication));
                settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let mut made = Vec::new();
        patiently(ADMIN_TIMEOUT, || {
            let results = wait(self.client.create_topics(&topics, &options())).map_err(unavailable)?;
            let mut cannot = None;
            for result in results {
                match result {
                    Ok(name) => made.push(name),
                    Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                    Err((name, RDKafkaErrorCode::TopicAuthorizationFailed)) => {
                        return Err(administrators(&format!("Create on topic {name}")));
                    }
                    Err((name, code)) if is_transient(code) => cannot = Some(format!("cannot create {name}: {code}")),
                    Err((name, code)) => return Err(Error::Refused(format!("cannot create {name}: {code}"))),
                }
            }
            cannot.map_or(Ok(()), |cause| Err(Error::Unavailable(cause)))
        })?;
        if !made.is_empty() {
            self.wait_until_led(&made)?;
        }
        Ok(made)
    }

    /// Waits until every broker of the cluster shows these topics with a leader for each partition: whoever connects next may ask any
    /// of them.
    fn wait_until_led(&self, names: &[String]) -> Result<(), Error> {
        let deadline = Instant::now() + ADMIN_TIMEOUT;
        let metadata = self.client.inner().fetch_metadata(None, ADMIN_TIMEOUT).map_err(unavailable)?;
        for broker in metadata.brokers() {
            let host = if broker.host().contains(':') { format!("[{}]", broker.host()) } else { broker.host().to_owned() };
            let brokers = format!("{host}:{}", broker.port());
            Admin::new(&Settings { brokers, ..self.settings.clone() })?.wait_until_shown(names, deadline)?;
        }
        Ok(())
    }

    /// The same for the broker that is asked. One that does not answer in time is nobody's next either.
    fn wait_until_shown(&self, names: &[String], deadline: Instant) -> Result<(), Error> {
        while let Ok(metadata) = self.client.inner().fetch_metadata(None, SHOWN_TIMEOUT) {
            let is_led = |name: &String| {
                let found = metadata.topics().iter().find(|found| found.name() == name);
                found.is_some_and(|found| {
                    let partitions = found.partitions();
                    !partitions.is_empty() && partitions.iter().all(|partition| 0 <= partition.leader())
                })
            };
            match names.iter().find(|name| !is_led(name)) {
                None => break,
                Some(name) if deadline < Instant::now() => {
                    return Err(Error::Unavailable(format!("{name} was made, but is not there in time")));
                }
                Some(_) => std::thread::sleep(LEADER_PAUSE),
            }
        }
        Ok(())
    }

    /// Removes the topics with all that is in them.
    pub(super) fn delete(&self) -> Result<(), Error> {
        let names: Vec<String> = Topic::ALL.iter().map(|topic| topic.name(&self.settings.prefix)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for result in wait(self.client.delete_topics(&names, &options())).map_err(unavailable)? {
            result.map_err(|(name, code)| match code {
                RDKafkaErrorCode::TopicAuthorizationFailed => administrators(&format!("Delete on topic {name}")),
                code => Error::Unavailable(format!("cannot remove {name}: {code}")),
            })?;
        }
        Ok(())
    }

    /// Everything about the topics that would lose data or break the engine, in words, where they are to have so many replicas.
    pub(super) fn check(&self, partitions: u32, replicas: i32) -> Result<Vec<String>, Error> {
        let mut problems = Vec::new();
        let mut present = Vec::new();
        for topic in Topic::ALL {
            let name = topic.name(&self.settings.prefix);
            let Some(Found { partitions: count, replication }) = self.found(topic, ADMIN_TIMEOUT)? else {
                problems.push(format!("{name}: there is no such topic"));
                continue;
            };
            if count != partitions {
                problems.push(format!("{name}: {count} partitions, {partitions} are configured"));
            }
            if replication < replicas {
                problems.push(format!("{name}: replicated {replication} times, {replicas} are configured"));
            }
            present.push((topic, replication));
        }
        problems.extend(self.looser(&present, ADMIN_TIMEOUT)?.iter().map(Loose::to_string));
        Ok(problems)
    }

    /// The settings of the topics that are looser than an engine needs; a seal on the commands is none. Waits for no broker that is away.
    pub(super) fn loose(&self) -> Result<Vec<Loose>, Error> {
        let mut present = Vec::new();
        for topic in Topic::ALL {
            present.extend(self.found(topic, SHOWN_TIMEOUT)?.map(|found| (topic, found.replication)));
        }
        let mut loose = self.looser(&present, SHOWN_TIMEOUT)?;
        loose.retain(|setting| !setting.is_seal());
        Ok(loose)
    }

    /// A topic as the brokers have it; `None` where they have none of its name.
    fn found(&self, topic: Topic, timeout: Duration) -> Result<Option<Found>, Error> {
        let name = topic.name(&self.settings.prefix);
        let metadata = self.client.inner().fetch_metadata(Some(&name), timeout).map_err(unavailable)?;
        let partitions = shown(&metadata, &name)?.map_or(&[][..], |found| found.partitions());
        let replication = partitions.iter().map(|partition| partition.replicas().len()).min();
        Ok(replication.map(|replication| Found {
            partitions: partitions.len() as u32,
            replication: i32::try_from(replication).unwrap_or(i32::MAX),
        }))
    }

    /// The settings that are looser than a topic of so many replicas needs. One that the brokers do not tell is none.
    fn looser(&self, present: &[(Topic, i32)], timeout: Duration) -> Result<Vec<Loose>, Error> {
        let mut loose = Vec::new();
        if present.is_empty() {
            return Ok(loose);
        }
        let names: Vec<String> = present.iter().map(|(topic, _)| topic.name(&self.settings.prefix)).collect();
        for (((topic, replication), name), described) in present.iter().zip(&names).zip(self.described(&names, timeout)?) {
            for (key, due) in self.required(*topic, *replication) {
                let Some(found) = described.get(key).and_then(|entry| entry.value.clone()) else { continue };
                if is_wrong(*topic, key, &found, &due) {
                    loose.push(Loose { topic: *topic, name: name.clone(), key, found, due });
                }
            }
        }
        Ok(loose)
    }

    /// For how long commands stay; see [`super::KafkaLog::commands_kept`].
    pub(super) fn commands_kept(&self) -> Result<Option<Duration>, Error> {
        let name = Topic::Commands.name(self.prefix());
        let retention = match self.described(&[name], ADMIN_TIMEOUT) {
            Ok(found) => found.first().and_then(|found| found.get("retention.ms")?.value.clone()).unwrap_or_default(),
            // Who may not see it takes it for what `finflow topics create` sets.
            Err(Error::Forbidden(_)) => WEEK_MS.to_owned(),
            Err(error) => return Err(error),
        };
        Ok(retention.parse().ok().map(Duration::from_millis))
    }

    /// What the brokers tell of the settings of these topics, in their order; [`Error::Forbidden`] where one of them may not be seen.
    pub(super) fn described(&self, names: &[String], timeout: Duration) -> Result<Vec<ConfigResource>, Error> {
        let topics: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let described = wait(self.client.describe_configs(&topics, &options_within(timeout))).map_err(unavailable)?;
        let unseen = |name: &str| forbidden(&format!("DescribeConfigs on topic {name}"));
        let found = names.iter().zip(described).map(|(name, described)| match described {
            // Who may not see the settings is told that there are none.
            Ok(found) if found.entries.is_empty() => Err(unseen(name)),
            Ok(found) => Ok(found),
            Err(RDKafkaErrorCode::TopicAuthorizationFailed) => Err(unseen(name)),
            Err(code) => Err(Error::Unavailable(format!("cannot describe {name}: {code}"))),
        });
        let found = found.collect::<Result<Vec<_>, _>>()?;
        if found.len() == names.len() { Ok(found) } else { Err(Error::Unavailable("not all topics are described".to_owned())) }
    }

    /// Deletes the records of a partition below offset `before`.
    pub(super) fn trim(&self, topic: Topic, partition: u32, before: u64) -> Result<(), Error> {
        let mut list = TopicPartitionList::new();
        let offset = rdkafka::Offset::Offset(i64::try_from(before).unwrap_or(i64::MAX));
        list.add_partition_offset(&topic.name(&self.settings.prefix), partition as i32, offset).map_err(unavailable)?;
        let trimmed = wait(self.client.delete_records(&list, &options())).map_err(unavailable)?;
        for place in trimmed.elements() {
            let right = || format!("Delete on topic {}", topic.name(&self.settings.prefix));
            place.error().map_err(|error| explained(error, right))?;
        }
        Ok(())
    }
}

pub(super) fn options() -> AdminOptions {
    options_within(ADMIN_TIMEOUT)
}

fn options_within(timeout: Duration) -> AdminOptions {
    AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout))
}

/// Waits for an administrative request, which ends by its own timeout.
pub(super) fn wait<T>(request: impl Future<Output = Result<T, KafkaError>>) -> Result<T, KafkaError> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut request = pin!(request);
    loop {
        match request.as_mut().poll(&mut context) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcomes<'a> = &'a [Result<(), Error>];

    #[test]
    fn what_the_cluster_cannot_do_yet_is_tried_again() {
        let (unavailable, refused) = (|| Err(Error::Unavailable("soon".into())), || Err(Error::Refused("never".into())));
        let forbidden = || Err(Error::Forbidden("ask somebody".into()));
        let long = Duration::from_secs(60);
        // For how long it is tried, what each attempt gives, how many there are, and whether it is done in the end.
        let rows: [(Duration, Outcomes<'_>, usize, bool); 5] = [
            (long, &[Ok(())], 1, true),
            (long, &[unavailable(), unavailable(), Ok(())], 3, true),
            (long, &[unavailable(), refused(), Ok(())], 2, false),
            (long, &[forbidden(), Ok(())], 1, false),
            (Duration::ZERO, &[unavailable(), Ok(())], 1, false),
        ];
        for (patience, outcomes, due, is_done) in rows {
            let mut attempts = 0;
            let done = patiently(patience, || {
                attempts += 1;
                outcomes[attempts - 1].clone()
            });
            assert_eq!((attempts, done.is_ok()), (due, is_done), "{outcomes:?}");
        }
        assert!(is_transient(RDKafkaErrorCode::InvalidReplicationFactor) && !is_transient(RDKafkaErrorCode::PolicyViolation));
    }

    #[test]
    fn a_start_is_refused_where_state_is_lost_or_swept_by_another_clock() {
        // Topic, setting and what it is; whether it is fatal, and whether it is a seal.
        let rows = [
            (Topic::Journal, "cleanup.policy", "compact", true, false),
            (Topic::Journal, "retention.ms", "1", true, false),
            (Topic::Journal, "min.insync.replicas", "1", false, false),
            (Topic::Postings, "retention.bytes", "1", true, false),
            (Topic::Commands, "cleanup.policy", "compact", true, false),
            (Topic::Commands, "message.timestamp.type", "CreateTime", true, false),
            (Topic::Commands, "retention.ms", "1", false, false),
            (Topic::Commands, "max.message.bytes", "100", false, true),
            (Topic::Commands, "max.message.bytes", "1000", false, false),
            (Topic::Commands, "max.message.bytes", "10000000", false, false),
            (Topic::Events, "max.message.bytes", "100", false, false),
            (Topic::Events, "message.timestamp.type", "CreateTime", false, false),
            (Topic::Events, "cleanup.policy", "compact", false, false),
            (Topic::Dlq, "retention.ms", "1", false, false),
        ];
        for (topic, key, found, is_fatal, is_seal) in rows {
            let loose = Loose { topic, name: topic.name("p"), key, found: found.to_owned(), due: String::new() };
            assert_eq!((loose.is_fatal(), loose.is_seal()), (is_fatal, is_seal), "{loose}");
            assert_eq!(loose.has_producers_time(), topic == Topic::Commands && found == "CreateTime", "{loose}");
        }
    }

    #[test]
    fn only_what_nobody_needs_expires() {
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        let rows = [
            (Topic::Commands, days(1), WEEK_MS),
            (Topic::Events, days(1), WEEK_MS),
            (Topic::Postings, days(1), FOR_EVER),
            (Topic::Journal, days(1), FOR_EVER),
            (Topic::Dlq, days(30), "2592000000"),
            (Topic::Dlq, None, FOR_EVER),
        ];
        for (topic, dlq_retention, expected) in rows {
            let found = required(topic, 1, dlq_retention);
            assert_eq!(found.get("retention.ms").map(String::as_str), Some(expected), "{topic} {dlq_retention:?}");
            assert_eq!(found.get("retention.bytes").map(String::as_str), Some(FOR_EVER), "{topic}");
        }
    }

    #[test]
    fn a_topic_takes_what_may_be_in_it_and_commands_no_more() {
        let rows = [
            (Topic::Commands, 262_144, [true, false, true]),
            (Topic::Dlq, 327_680, [true, false, false]),
            (Topic::Journal, 2_097_152, [true, false, false]),
        ];
        for (topic, due, are_wrong) in rows {
            assert_eq!(batch_bytes_max(topic), due, "{topic}");
            let found = [due - 1, due, due + 1];
            let are = found.map(|found| is_wrong(topic, "max.message.bytes", &found.to_string(), &due.to_string()));
            assert_eq!(are, are_wrong, "{topic}");
        }
    }

    #[test]
    fn a_setting_may_be_stricter_but_not_looser() {
        let rows = [
            ("retention.ms", "1", "2", true),
            ("retention.ms", "3", "2", false),
            ("retention.ms", "-1", "2", false),
            ("retention.ms", "9000000", "-1", true),
            ("min.insync.replicas", "1", "2", true),
            ("min.insync.replicas", "3", "2", false),
            ("cleanup.policy", "compact", "delete", true),
            ("message.timestamp.type", "CreateTime", "LogAppendTime", true),
            ("message.timestamp.type", "LogAppendTime", "LogAppendTime", false),
        ];
        for (name, found, due, expected) in rows {
            assert_eq!(is_wrong(Topic::Events, name, found, due), expected, "{name} {found} for {due}");
        }
    }
}
