//! The watch: what happens to topics behind the engine's back. Records that come to a former generation, which nobody carries out;
//! another number of partitions than the application has, with which producers send commands to where nobody reads them; and settings
//! with which something is lost.
//!
//! Partition 0 knows the former generations, so the node that runs it looks; at partitions and settings of the topics every node does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use finflow_state::{Origins, store};
use finflow_topologies::Topic;
use tracing::{error, warn};

use super::Args;
use crate::clock::Reading;
use crate::log::NodeLog;
use crate::log::kafka::{KafkaLog, Loose};
use crate::metrics;

/// How often the topics are looked at.
const EVERY_MS: i64 = 10_000;
/// Of a former generation these are watched: a command that comes is not carried out, a block says that somebody goes on there.
const WATCHED: [Topic; 2] = [Topic::Commands, Topic::Journal];

/// What is wrong, as somebody who looks has noted it, for whoever asks whether all is well.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen(Arc<Mutex<BTreeMap<String, String>>>);

impl Seen {
    /// What is wrong, by what it is about.
    pub(crate) fn all(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what is wrong with something, or that nothing is; `true` where that is new.
    pub(crate) fn note(&self, about: &str, what: Option<String>) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match &what {
            Some(what) => seen.insert(about.to_owned(), what.clone()),
            None => seen.remove(about),
        };
        before != what
    }
}

/// When the topics are looked at next, on the monotonic clock.
pub(super) struct Watch {
    due_ms: i64,
    /// Why a look came to nothing, as it was said last: topics that were left may be removed one day, and that is said once.
    told: Vec<String>,
    /// Whether commands tell another time than the brokers', as it was seen last.
    has_producers_time: bool,
}

impl Watch {
    pub(super) fn new(now_ms: i64) -> Watch {
        Watch { due_ms: now_ms, told: Vec::new(), has_producers_time: false }
    }

    /// Whether nothing can be forgotten by the time that commands tell.
    pub(super) fn has_producers_time(&self) -> bool {
        self.has_producers_time
    }

    /// Looks, if that is due and a broker answers. An embedded log is nobody else's.
    pub(super) fn step(&mut self, args: &Args, now: Reading) {
        let NodeLog::Kafka(log) = &args.log else { return };
        if now.monotonic_ms < self.due_ms || log.fault().is_some() {
            return;
        }
        self.due_ms = now.monotonic_ms.saturating_add(EVERY_MS);
        let looks = [look(args, log), self.look_at_settings(args, log), look_back(args, log)];
        let failed: Vec<String> = looks.into_iter().filter_map(Result::err).collect();
        if failed != self.told {
            failed.iter().for_each(|cause| warn!(cause, "the topics cannot be looked at"));
            self.told = failed;
        }
    }

    /// Looks whether the topics still keep what is in them. This engine goes on where they do not.
    fn look_at_settings(&mut self, args: &Args, log: &KafkaLog) -> Result<(), String> {
        let loose = log.loose().map_err(|error| error.to_string());
        let told = match &loose {
            Ok(loose) => {
                self.has_producers_time = loose.iter().any(Loose::has_producers_time);
                loose.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
            }
            Err(cause) => format!("their settings cannot be seen: {cause}"),
        };
        let told = Some(told).filter(|told| !told.is_empty());
        if args.doubtful.note("topics", told.clone())
            && let (Some(cause), Ok(_)) = (told, &loose)
        {
            error!(cause, "topics are set to lose what is in them, or to tell it with another time");
        }
        // No number where nobody knows.
        ::metrics::gauge!(metrics::TOPIC_SETTINGS_LOOSE).set(loose.as_ref().map_or(f64::NAN, |loose| loose.len() as f64));
        loose.map(drop)
    }
}

/// Looks whether the topics have the partitions that the application has.
fn look(args: &Args, log: &KafkaLog) -> Result<(), String> {
    let misfit = log.misfit().map_err(|error| error.to_string())?;
    if args.misfit.note("topics", misfit.clone())
        && let Some(cause) = misfit
    {
        error!(cause, "somebody has changed the number of partitions");
    }
    Ok(())
}

/// Looks whether records have come to former generations since they were left.
fn look_back(args: &Args, log: &KafkaLog) -> Result<(), String> {
    let Some(store) = args.partitions.get(&0).and_then(|committed| committed.running()) else { return Ok(()) };
    let mut origins = Vec::new();
    store::visit_rows::<Origins>(&*store, |_, origin| origins.push(origin)).map_err(|error| error.to_string())?;
    for origin in origins {
        let mut late: BTreeMap<Topic, u64> = BTreeMap::new();
        for end in &origin.ends {
            let Some(topic) = Topic::from_word(&end.topic).filter(|topic| WATCHED.contains(topic)) else { continue };
            let found = log.end_elsewhere(&origin.prefix, topic, end.partition);
            let found = found.map_err(|error| format!("{}: {error}", topic.name(&origin.prefix)))?;
            let sum = late.entry(topic).or_default();
            *sum = sum.saturating_add(found.saturating_sub(end.offset));
        }
        for (topic, late) in late {
            let name = topic.name(&origin.prefix);
            ::metrics::gauge!(metrics::FORMER_RECORDS, "topic" => name.clone()).set(late as f64);
            let what =
                (0 < late).then(|| format!("{late} records have come since the application left it; nobody carries them out"));
            if args.doubtful.note(&name, what) && 0 < late {
                error!(topic = name, records = late, "records come to a generation that was left; nobody carries them out");
            }
        }
    }
    Ok(())
}
