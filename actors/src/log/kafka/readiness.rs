//! Whether the cluster is ready for an engine, and for this principal: brokers, topics, rights, journal, transactions and clocks.
//!
//! Looking changes nothing but one thing: the brokers tell their time only with a record that they take, so that one is sent in a
//! transaction of its own, which is aborted. No reader of committed records sees it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use finflow_topologies::Topic;
use finflow_topologies::log::Error;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Timestamp};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message, TopicPartitionList};

use super::admission;
use super::context::Quiet;
use super::errors::is_unauthorized;
use super::rights::{Operation, Resource, Role, rights};
use super::settings::{Settings, addresses_group};
use super::topics::Admin;
use super::watchdog::{HUNG_TIMEOUT, within};
use super::{LOOK_WAIT, native, positions, retention};
use crate::clock::Clock;
use crate::finding::Finding;

/// How long each question may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How far the clock of this machine may be from the broker's, as in the engine.
const STRAY_MAX: Duration = Duration::from_secs(5);
const GRANT: &str = "grant it: `finflow topics acls` prints the commands";

/// What a topic allows the client, by its name; `None` for a topic that there is not.
type Allowed = BTreeMap<String, Option<Vec<Operation>>>;

/// Looks at everything that an engine of so many partitions needs of the cluster. What depends on what is wrong is left out.
pub(super) fn look(settings: &Settings, (partitions, replicas): (u32, i32), clock: &Clock) -> Vec<Finding> {
    let brokers = &settings.brokers;
    let allowed = match admission::ask(settings) {
        Ok(allowed) => allowed,
        Err(Error::Forbidden(cause)) => return vec![Finding::wrong("brokers", cause, GRANT)],
        Err(Error::Refused(cause)) => {
            let remedy = "correct in [kafka] security.protocol, what it signs in with, and ssl.ca.location";
            return vec![Finding::wrong("brokers", cause, remedy)];
        }
        Err(error) => {
            let remedy = "start the brokers, or name others with kafka.\"bootstrap.servers\"";
            return vec![Finding::unavailable("brokers", error.to_string(), remedy)];
        }
    };
    let mut found = vec![Finding::well("brokers", format!("{brokers} answer"))];
    let missing = missing_topics(settings, &allowed);
    if !missing.is_empty() {
        let cause = format!("there is no {}", missing.join(", no "));
        found.push(Finding::wrong("topics", cause, "run `finflow topics create`"));
        return found;
    }
    let engine = engine_rights(settings, &allowed);
    let is_allowed = matches!(engine.state, crate::finding::State::Well(_));
    found.extend([topics(settings, partitions, replicas), engine, trimmer_rights(settings), groups(settings)]);
    if is_allowed {
        found.push(journal(settings, partitions));
        found.push(retention::look(settings));
        found.extend(transactions(settings, clock));
    }
    found
}

fn missing_topics(settings: &Settings, allowed: &Allowed) -> Vec<String> {
    let names = Topic::ALL.map(|topic| topic.name(&settings.prefix));
    names.into_iter().filter(|name| allowed.get(name).is_none_or(Option::is_none)).collect()
}

fn topics(settings: &Settings, partitions: u32, replicas: i32) -> Finding {
    match Admin::new(settings).and_then(|admin| admin.check(partitions, replicas)) {
        Ok(problems) if problems.is_empty() => {
            Finding::well("topics", format!("{partitions} partitions each, nothing is lost by them"))
        }
        Ok(problems) => Finding::wrong(
            "topics",
            problems.join("; "),
            "set it with kafka-configs; a partition count stays as it was made, and replicas are added with kafka-reassign-partitions",
        ),
        Err(Error::Forbidden(cause)) => Finding::skipped("topics", cause),
        Err(error) => Finding::unavailable("topics", error.to_string(), "ask again"),
    }
}

/// Which rights on topics a role lacks.
fn lacking(settings: &Settings, role: Role, allowed: &Allowed) -> Vec<String> {
    let lacks =
        |name: &String, operation| allowed.get(name).and_then(Option::as_ref).is_none_or(|found| !found.contains(&operation));
    let missing = rights(&settings.prefix, "").into_iter().filter(|right| {
        let Resource::Topic(name) = &right.resource else { return false };
        // Whether the settings can be seen is told by the look at them.
        right.role == role && right.is_indispensable() && lacks(name, right.operation)
    });
    missing.map(|right| right.to_string()).collect()
}

fn engine_rights(settings: &Settings, allowed: &Allowed) -> Finding {
    let missing = lacking(settings, Role::Engine, allowed);
    if missing.is_empty() {
        return Finding::well("rights", "on topics, the engine has what it needs");
    }
    Finding::wrong("rights", format!("not authorized: {}", missing.join(", ")), GRANT)
}

/// Without it the engine runs; the disks of the brokers fill up.
fn trimmer_rights(settings: &Settings) -> Finding {
    let what = "rights of the trimmer";
    match admission::ask(&settings.as_trimmer()) {
        Ok(allowed) => match lacking(settings, Role::Trimmer, &allowed) {
            missing if missing.is_empty() => Finding::well(what, "it may delete what is not needed any more"),
            missing => {
                let remedy = "grant it with `finflow topics acls --role trimmer`, or name who may in [kafka.trim]";
                Finding::wrong(what, format!("not authorized: {}", missing.join(", ")), remedy)
            }
        },
        Err(Error::Refused(cause) | Error::Forbidden(cause)) => Finding::wrong(what, cause, "correct [kafka.trim]"),
        Err(error) => Finding::unavailable(what, error.to_string(), "ask again"),
    }
}

/// Whether the groups that processes meet in let this one read.
fn groups(settings: &Settings) -> Finding {
    let read = |config: rdkafka::ClientConfig| -> Result<(), KafkaError> {
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet)?;
        let mut list = TopicPartitionList::new();
        list.add_partition(&Topic::Commands.name(&settings.prefix), 0);
        positions::seen(&consumer, list, ANSWER_TIMEOUT)?.elements().iter().try_for_each(|of| of.error())
    };
    let names = [settings.prefix.clone(), addresses_group(&settings.prefix)];
    for (name, config) in names.iter().zip([settings.reader(LOOK_WAIT), settings.addresses()]) {
        match read(config) {
            Ok(()) => {}
            Err(error) if is_unauthorized(&error) => {
                return Finding::wrong("groups", format!("not authorized: Read on group {name}"), GRANT);
            }
            Err(error) => {
                return Finding::unavailable("groups", format!("{name}: {error}"), "ask again once the coordinator answers");
            }
        }
    }
    Finding::well("groups", format!("{} answer", names.join(" and ")))
}

/// Whether every partition has the block that it begins with.
fn journal(settings: &Settings, partitions: u32) -> Finding {
    let consumer: Result<BaseConsumer<Quiet>, _> = settings.reader(LOOK_WAIT).create_with_context(Quiet);
    let empty = consumer.and_then(|consumer| {
        let name = Topic::Journal.name(&settings.prefix);
        let end =
            |partition: u32| consumer.fetch_watermarks(&name, partition as i32, ANSWER_TIMEOUT).map(|(_, end)| (partition, end));
        let ends = (0..partitions).map(end).collect::<Result<Vec<_>, _>>()?;
        Ok(ends.into_iter().filter(|(_, end)| *end <= 0).map(|(partition, _)| partition.to_string()).collect::<Vec<_>>())
    });
    match empty {
        Ok(empty) if empty.is_empty() => Finding::well("journal", "every partition has begun"),
        Ok(empty) => {
            Finding::wrong("journal", format!("partitions {} have no block 0", empty.join(", ")), "run `finflow topics create`")
        }
        Err(error) => Finding::unavailable("journal", error.to_string(), "ask again once the partitions have leaders"),
    }
}

/// Remembers when the broker has taken a record.
#[derive(Default)]
struct Taken(Mutex<Option<Result<i64, KafkaError>>>);

impl ClientContext for Taken {}

impl ProducerContext for Taken {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let taken = match result {
            Ok(message) => match message.timestamp() {
                Timestamp::LogAppendTime(millis) => Ok(millis),
                // The topic takes the time that a record brings.
                _ => return,
            },
            Err((error, _)) => Err(error.clone()),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken);
    }
}

/// Whether transactions work, and how far the clock of this machine is from the broker's.
fn transactions(settings: &Settings, clock: &Clock) -> Vec<Finding> {
    let id = format!("{}-check", settings.prefix);
    let (asked, named, now) = (settings.clone(), id.clone(), clock.clone());
    let probed = match within(HUNG_TIMEOUT, move || probe(&asked, &named, &now)) {
        Ok(probed) => probed,
        Err(hung) => return vec![Finding::unavailable("transactions", hung.to_string(), "ask again")],
    };
    match probed {
        Ok(Some((strays_ms, within_ms))) => {
            vec![Finding::well("transactions", format!("as {id}")), broker_clock(strays_ms, within_ms)]
        }
        Ok(None) => {
            let why = format!("{} does not take the broker's time", Topic::Events.name(&settings.prefix));
            vec![Finding::well("transactions", format!("as {id}")), Finding::skipped("clock", why)]
        }
        Err(error) if is_unauthorized(&error) => {
            vec![Finding::wrong("transactions", format!("not authorized: Write on transactional id {id}: {error}"), GRANT)]
        }
        Err(error) => vec![Finding::unavailable("transactions", error.to_string(), "ask again once the coordinator answers")],
    }
}

/// How much later the broker's clock is than ours, and how exactly that is known, both in milliseconds.
fn probe(settings: &Settings, id: &str, clock: &Clock) -> Result<Option<(i64, i64)>, KafkaError> {
    let producer: ThreadedProducer<Taken> = settings.prober(id).create_with_context(Taken::default())?;
    producer.init_transactions(ANSWER_TIMEOUT)?;
    producer.begin_transaction()?;
    let topic = Topic::Events.name(&settings.prefix);
    let (begun, sent_ms) = (Instant::now(), clock.now_ms());
    let sent = producer.send(BaseRecord::<[u8], [u8]>::to(&topic).partition(0)).map_err(|(error, _)| error);
    let is_delivered = sent.is_ok() && native::flush(&producer, ANSWER_TIMEOUT);
    let took_ms = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
    let taken = producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take();
    // Whatever came of it, nothing of it may stay open.
    producer.abort_transaction(ANSWER_TIMEOUT)?;
    sent?;
    let taken_ms = taken.filter(|_| is_delivered).transpose()?;
    let half_ms = took_ms / 2;
    Ok(taken_ms.map(|taken_ms| (taken_ms.saturating_sub(sent_ms).saturating_sub(half_ms), half_ms.saturating_add(1))))
}

fn broker_clock(strays_ms: i64, within_ms: i64) -> Finding {
    let max_ms = i64::try_from(STRAY_MAX.as_millis()).unwrap_or(i64::MAX);
    let seconds = |ms: i64| format!("{}.{:03} s", ms / 1_000, ms % 1_000);
    let apart = seconds(strays_ms.saturating_abs());
    let exactly = seconds(within_ms);
    if strays_ms.saturating_abs().saturating_sub(within_ms) <= max_ms {
        return Finding::well("clock", format!("{apart} from the broker's, known to {exactly}"));
    }
    let side = if strays_ms < 0 { "ahead of" } else { "behind" };
    let cause = format!("the clock of this machine is {apart} {side} the broker's, known to {exactly}");
    Finding::unavailable("clock", cause, "set the clocks of both, and keep them with NTP")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn a_clock_may_be_as_far_away_as_the_engine_lets_it() {
        for (strays_ms, within_ms, expected) in [
            (0, 1, None),
            (-5_000, 1, None),
            (5_001, 1, None),
            (5_002, 1, Some("5.002 s behind the broker's")),
            (-86_400_000, 4, Some("86400.000 s ahead of the broker's")),
            (9_000, 4_000, None),
        ] {
            let found = broker_clock(strays_ms, within_ms);
            match (&found.state, expected) {
                (State::Well(_), None) => {}
                (State::Unavailable { cause, .. }, Some(expected)) => assert!(cause.contains(expected), "{cause}"),
                (state, expected) => panic!("{strays_ms}: {state:?}, not {expected:?}"),
            }
        }
    }
}
