//! Whether the cluster lets this process in, and with which rights: asked before anything else, so that whoever starts an engine reads
//! what is missing instead of seeing it wait.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use finflow_topologies::Topic;
use finflow_topologies::log::Error;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::context::log;
use super::errors::{forbidden, unavailable};
use super::native;
use super::rights::{Operation, Resource, Role, rights};
use super::settings::Settings;

/// How long a broker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long other brokers may take when one has refused: that one may be the fault.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(2);
const LOOK_WAIT: Duration = Duration::from_millis(50);

/// Hears why a broker refuses the client.
#[derive(Default)]
struct Listener {
    refused: Mutex<Option<(Instant, String)>>,
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let is_refusal = matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL));
        // With TLS 1.3 a broker refuses the client's certificate after the handshake, as an alert on a connection that then breaks.
        if is_refusal || reason.contains("SSL alert") {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            let since = refused.as_ref().map_or_else(Instant::now, |(since, _)| *since);
            *refused = Some((since, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Listener {}

/// Whether a broker takes the process's word for who it is.
pub(super) fn reach(settings: &Settings) -> Result<(), Error> {
    ask(settings).map(drop)
}

/// Whether the process may do with the topics all that an engine does.
pub(super) fn admit(settings: &Settings) -> Result<(), Error> {
    let allowed = ask(settings)?;
    let missing = rights(&settings.prefix, "").into_iter().filter(|right| {
        let Resource::Topic(name) = &right.resource else { return false };
        let found = allowed.get(name).and_then(Option::as_ref);
        let is_needed = right.role == Role::Engine && right.is_indispensable();
        is_needed && found.is_some_and(|found| !found.contains(&right.operation))
    });
    let missing: Vec<String> = missing.map(|right| right.to_string()).collect();
    if missing.is_empty() { Ok(()) } else { Err(forbidden(&missing.join(", "))) }
}

/// What the process may do with each topic of the application; `None` for a topic that there is not.
pub(super) fn ask(settings: &Settings) -> Result<BTreeMap<String, Option<Vec<Operation>>>, Error> {
    let config = settings.reader(LOOK_WAIT);
    let client: BaseConsumer<Listener> = config.create_with_context(Listener::default()).map_err(unavailable)?;
    let topics: Vec<String> = Topic::ALL.iter().map(|topic| topic.name(&settings.prefix)).collect();
    let begun = Instant::now();
    let is_over = || {
        // Its errors come out of its queue.
        while client.poll(Duration::ZERO).is_some() {}
        let refused = client.context().refused.lock().unwrap_or_else(PoisonError::into_inner);
        ANSWER_TIMEOUT < begun.elapsed() || refused.as_ref().is_some_and(|(since, _)| OTHERS_TIMEOUT < since.elapsed())
    };
    let answer = native::allowed(&client, &topics, LOOK_WAIT, ANSWER_TIMEOUT * 2, is_over).map_err(unavailable)?;
    if let Some(answer) = answer {
        return answer;
    }
    let refused = client.context().refused.lock().unwrap_or_else(PoisonError::into_inner).take();
    let brokers = &settings.brokers;
    Err(match refused {
        Some((_, reason)) => Error::Refused(format!("refused by {reason}")),
        None => Error::Unavailable(format!("no broker answers at {brokers} after {} s", ANSWER_TIMEOUT.as_secs())),
    })
}
