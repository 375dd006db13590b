//! Where an application has gone that is left for another: a note among the committed offsets of its own group, at a place that no lane
//! commits, so that it lives for as long as the positions do.
//!
//! It is written in a transaction, under an id of its own. Of two that write at once the one that began first is fenced, or what it
//! wrote is there when the other one reads.

use finflow_topologies::Topic;
use finflow_topologies::log::Error;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::context::Quiet;
use super::errors::{explained, shown, unavailable};
use super::positions::{self, OFFSETS_TIMEOUT};
use super::settings::Settings;
use super::transactor::{Failed, Transactor};
use super::watchdog::{HUNG_TIMEOUT, within};
use super::{KafkaLog, LOOK_WAIT};

/// What the note begins with.
const MOVED_TO: &str = "moved to ";

impl KafkaLog {
    /// Where the application has gone, or is on its way to.
    pub fn departed(settings: &Settings) -> Result<Option<String>, Error> {
        seen(&asker(settings)?, &settings.prefix)
    }

    /// Whether no partition has a position, whoever has put it there: the application has never run, or its offsets have expired, and the
    /// note with them.
    pub fn is_forgotten(settings: &Settings) -> Result<bool, Error> {
        let (asker, commands, group) = (asker(settings)?, Topic::Commands.name(&settings.prefix), &settings.prefix);
        let metadata = asker.fetch_metadata(Some(&commands), OFFSETS_TIMEOUT).map_err(unavailable)?;
        let Some(topic) = shown(&metadata, &commands)? else {
            return Err(Error::Lasting(format!("there is no topic {commands}")));
        };
        let mut places = TopicPartitionList::new();
        for partition in topic.partitions() {
            places.add_partition(&commands, partition.id());
        }
        let found = positions::seen(&asker, places, OFFSETS_TIMEOUT);
        let found = found.map_err(|error| explained(error, || format!("Read on group {group}")))?;
        Ok(!found.elements().iter().any(|place| matches!(place.offset(), Offset::Offset(_))))
    }

    /// Notes where the application goes. [`Error::Refused`] where it has gone elsewhere.
    pub(crate) fn depart(settings: &Settings, to: &str) -> Result<(), Error> {
        write(settings, Some(to))
    }

    /// Forgets where the application has gone: it is to go on here.
    pub fn stay(settings: &Settings) -> Result<(), Error> {
        write(settings, None)
    }
}

/// Writes where it goes, or that it stays. Not for ever: these calls may hang in the client library.
fn write(settings: &Settings, to: Option<&str>) -> Result<(), Error> {
    let (settings, to) = (settings.clone(), to.map(str::to_owned));
    within(HUNG_TIMEOUT, move || write_unwatched(&settings, to.as_deref()))?
}

fn write_unwatched(settings: &Settings, to: Option<&str>) -> Result<(), Error> {
    let mut transactor = Transactor::new(settings, &format!("{}-departure", settings.prefix));
    // From here on nobody who began before can write any more.
    transactor.ready(|| true)?;
    let asker = asker(settings)?;
    match (seen(&asker, &settings.prefix)?, to) {
        (found, to) if found.as_deref() == to => return Ok(()),
        (Some(found), Some(to)) => {
            let prefix = &settings.prefix;
            return Err(Error::Refused(format!(
                "{prefix} has moved to {found}, or is on its way there, and cannot move to {to}"
            )));
        }
        (None, _) | (_, None) => {}
    }
    let mut note = TopicPartitionList::new();
    let mut place = note.add_partition(&topic(&settings.prefix), 0);
    place.set_offset(Offset::Offset(0)).map_err(unavailable)?;
    place.set_metadata(to.map(|to| format!("{MOVED_TO}{to}")).unwrap_or_default());
    transactor.commit(&[], |_| String::new(), &note, || asker.group_metadata()).map_err(|failed| match failed {
        Failed::Before { cause, .. } => cause,
        Failed::During(cause) | Failed::Replaced(cause) | Failed::Outside(cause) => Error::Unavailable(cause),
    })
}

fn asker(settings: &Settings) -> Result<BaseConsumer<Quiet>, Error> {
    settings.reader(LOOK_WAIT).create_with_context(Quiet).map_err(unavailable)
}

/// The same, for a client that is no member.
fn seen(asker: &BaseConsumer<Quiet>, prefix: &str) -> Result<Option<String>, Error> {
    told(positions::seen(asker, place(prefix), OFFSETS_TIMEOUT), prefix)
}

/// Where the application of the consumer's group has gone.
pub(super) fn noted<C: ConsumerContext>(member: &BaseConsumer<C>, prefix: &str) -> Result<Option<String>, Error> {
    told(member.committed_offsets(place(prefix), OFFSETS_TIMEOUT), prefix)
}

/// Where the note stands.
fn place(prefix: &str) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(&topic(prefix), 0);
    list
}

/// What the note says.
fn told(found: Result<TopicPartitionList, KafkaError>, prefix: &str) -> Result<Option<String>, Error> {
    let found = found.map_err(|error| explained(error, || format!("Read on group {prefix}")))?;
    let mut noted = None;
    for place in found.elements() {
        place.error().map_err(|error| explained(error, || format!("Describe on topic {}", topic(prefix))))?;
        noted = place.metadata().strip_prefix(MOVED_TO).map(str::to_owned);
    }
    Ok(noted)
}

/// Lanes commit their positions on commands alone.
fn topic(prefix: &str) -> String {
    Topic::Events.name(prefix)
}

/// That the application is gone, and how to have it back.
pub(crate) fn gone(place: &str) -> String {
    format!("the application has moved to {place}, or is on its way there; `finflow topics unseal --yes` has it go on here")
}
