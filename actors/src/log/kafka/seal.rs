//! The seal of an application that is left for another: its topic of commands takes nothing any more, and nothing on it is under way.
//!
//! Kafka has no topic that is only read. What it has is a limit on the length of a batch: below the shortest that can hold a command,
//! above the mark that ends a transaction, which the broker itself must still be able to write.

use std::collections::BTreeMap;

use finflow_topologies::Topic;
use finflow_topologies::log::{Error, Log};
use rdkafka::admin::{AlterConfig, ConfigEntry, ConfigSource, ResourceSpecifier};
use rdkafka::error::RDKafkaErrorCode;

use super::KafkaLog;
use super::errors::{administrators, unavailable};
use super::settings::Settings;
use super::topics::{ADMIN_TIMEOUT, Admin, batch_bytes_max, options, wait};

/// A batch of one mark takes 78 bytes, one of a command at least 61 for its header, and 60 for the names of its fields.
pub(super) const SEALED_BYTES: usize = 100;
const LIMIT: &str = "max.message.bytes";

impl Admin {
    /// The topic of commands, and its settings.
    fn commands_settings(&self) -> Result<(String, Vec<ConfigEntry>), Error> {
        let name = Topic::Commands.name(self.prefix());
        let described = self.described(std::slice::from_ref(&name), ADMIN_TIMEOUT)?;
        Ok((name, described.into_iter().flat_map(|found| found.entries).collect()))
    }

    pub(super) fn is_sealed(&self) -> Result<bool, Error> {
        let (_, settings) = self.commands_settings()?;
        let limit = settings.iter().find(|entry| entry.name == LIMIT).and_then(|entry| entry.value.as_deref());
        Ok(limit.and_then(|limit| limit.parse::<usize>().ok()).is_some_and(|limit| limit <= SEALED_BYTES))
    }

    /// Sets or lifts the seal; the topic's other settings are sent along, because the request replaces them all.
    pub(super) fn seal(&self, limit: usize) -> Result<(), Error> {
        let (name, settings) = self.commands_settings()?;
        let own = settings.into_iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
        let mut kept: BTreeMap<String, String> = own.filter_map(|entry| Some((entry.name, entry.value?))).collect();
        kept.insert(LIMIT.to_owned(), limit.to_string());
        let altered = AlterConfig::new(ResourceSpecifier::Topic(&name));
        let altered = kept.iter().fold(altered, |altered, (key, value)| altered.set(key, value));
        for result in wait(self.client().alter_configs(&[altered], &options())).map_err(unavailable)? {
            result.map_err(|(_, code)| match code {
                RDKafkaErrorCode::TopicAuthorizationFailed => administrators(&format!("AlterConfigs on topic {name}")),
                code => Error::Unavailable(format!("cannot change the settings of {name}: {code}")),
            })?;
        }
        Ok(())
    }
}

impl KafkaLog {
    /// Whether the topic of commands takes no command.
    pub fn is_sealed(settings: &Settings) -> Result<bool, Error> {
        Admin::new(settings)?.is_sealed()
    }

    /// [`Error::Refused`] where the topic of commands is sealed: the application may have been left for another, which the note of it does
    /// not tell any more where that has expired with the positions. The seal stays.
    pub(crate) fn unsealed(&self) -> Result<(), Error> {
        if !self.0.admin.is_sealed()? {
            return Ok(());
        }
        let name = Topic::Commands.name(&self.settings().prefix);
        Err(Error::Refused(format!(
            "{name} is sealed, as where an application has moved elsewhere, and the note that would tell is lost with the positions: if \
             nobody goes on with its state elsewhere, `finflow topics unseal --yes` has it go on here"
        )))
    }

    /// Has the topic of commands take nothing any more, or take commands again.
    pub fn seal(settings: &Settings, is_sealed: bool) -> Result<(), Error> {
        Admin::new(settings)?.seal(if is_sealed { SEALED_BYTES } else { batch_bytes_max(Topic::Commands) })
    }

    /// The partitions on which a transaction is open, in words.
    pub fn open_transactions(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for topic in Topic::ALL {
            let name = topic.name(&self.settings().prefix);
            for partition in 0..self.0.partitions {
                let written = self.written(topic, partition)?;
                if self.0.looks.range(topic, partition)?.end < written {
                    found.push(format!("a transaction is open on {name}, partition {partition}"));
                }
            }
        }
        Ok(found)
    }

    /// One past the last committed record of a partition of another application on the cluster.
    pub fn end_elsewhere(&self, prefix: &str, topic: Topic, partition: u32) -> Result<u64, Error> {
        Ok(self.0.looks.range_of(&topic.name(prefix), partition)?.end)
    }

    /// How many partitions each topic has at present, where that is not what this log was opened with.
    pub fn misfit(&self) -> Result<Option<String>, Error> {
        for topic in Topic::ALL {
            let (found, due) = (self.0.looks.partitions_of(topic)?, self.0.partitions);
            if found != Some(due) {
                let name = topic.name(&self.settings().prefix);
                let found = found.map_or("no".to_owned(), |found| found.to_string());
                return Ok(Some(format!("{name} has {found} partitions, the application has {due}")));
            }
        }
        Ok(None)
    }
}
