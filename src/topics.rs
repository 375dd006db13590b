//! `finflow topics`: the topics on Kafka, made as the engine needs them, and checked against that.

use finflow_actors::log::kafka::{KafkaLog, Settings};
use finflow_actors::{Clock, StartError};
use finflow_state::Generation;
use finflow_topologies::log::Error;
use finflow_topologies::restore;
use serde_json::json;

use self::acls::acls;
use crate::access::{cluster, configuration};
use crate::cli::{Common, TopicsCommand};
use crate::failure::Failure;
use crate::output::print;

mod acls;

/// What is to be done with the topics.
enum Asked {
    Make,
    Check,
    /// Commands are kept out.
    Seal,
    /// The same undone, `yes` = also where the application has moved elsewhere.
    Unseal {
        yes: bool,
    },
}

pub(crate) async fn topics(common: &Common, command: &TopicsCommand) -> Result<(), Failure> {
    if let TopicsCommand::Acls(options) = command {
        return acls(common, options);
    }
    let config = configuration(common)?;
    let settings = cluster(common, &config)?;
    let (partitions, replication) = (config.topics.partitions, config.topics.replication_factor);
    let asked = match command {
        TopicsCommand::Create => Asked::Make,
        TopicsCommand::Seal => Asked::Seal,
        TopicsCommand::Unseal { yes } => Asked::Unseal { yes: *yes },
        TopicsCommand::Check | TopicsCommand::Acls(_) => Asked::Check,
    };
    let work = move || -> Result<_, Error> {
        let made = match asked {
            Asked::Make => make(&settings, partitions, replication)?,
            Asked::Check => Vec::new(),
            Asked::Seal => {
                KafkaLog::seal(&settings, true)?;
                return Ok((Vec::new(), Vec::new()));
            }
            Asked::Unseal { yes } => return Ok((Vec::new(), unseal(&settings, yes)?)),
        };
        Ok((made, KafkaLog::check_topics(&settings, partitions, replication as i32)?))
    };
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| Failure::Failed(error.to_string()))?;
    let (made, problems) = done.map_err(StartError::Log)?;
    for name in made {
        print(common, &json!({ "topic": name, "status": "created" }))?;
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::Failed(problems.join("\n"))) }
}

/// Lets commands in again. Gives what stands against it.
fn unseal(settings: &Settings, yes: bool) -> Result<Vec<String>, Error> {
    if let Some(place) = KafkaLog::departed(settings)?.filter(|_| !yes) {
        let prefix = &settings.prefix;
        return Ok(vec![format!(
            "{prefix} has moved to {place}, or is on its way there; with --yes it goes on here all the same"
        )]);
    }
    if !yes && KafkaLog::is_forgotten(settings)? {
        let prefix = &settings.prefix;
        return Ok(vec![format!(
            "no position of {prefix} is committed: where it has run, they have expired, and with them the note of where it has gone, if it \
             has; with --yes it goes on here"
        )]);
    }
    // What was not brought to its end cannot be any more from here on.
    KafkaLog::stay(settings)?;
    KafkaLog::seal(settings, false)?;
    Ok(Vec::new())
}

/// Makes the topics that are missing, with block 0 of every partition, and names them. Brokers that have just started are waited for.
pub(crate) fn make(settings: &Settings, partitions: u32, replication: u32) -> Result<Vec<String>, Error> {
    let made = KafkaLog::create_topics(settings, partitions, replication as i32)?;
    let generation = Generation(fastrand::u128(..).to_be_bytes());
    KafkaLog::begin(settings, |log| restore::create(log, generation, Clock::system().now_ms()))?;
    Ok(made)
}
