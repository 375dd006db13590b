//! `finflow check`: whether a start would succeed, and what runs is well; one line for each thing that has to be right, and what to do
//! where it is not. It changes nothing.

use std::net::{SocketAddr, TcpListener};

use finflow_actors::log::kafka::KafkaLog;
use finflow_actors::readiness::{self, Finding, State};
use finflow_actors::socket::Client;
use finflow_config::Config;
use serde_json::{Value, json};

use crate::access::{configuration, settings};
use crate::cli::Common;
use crate::failure::Failure;
use crate::output::print;

pub(crate) async fn check(common: &Common) -> Result<(), Failure> {
    let (config, settings) = (configuration(common)?, settings(common)?);
    let here = settings.clone();
    let look = move || readiness::machine(&here);
    let mut found = tokio::task::spawn_blocking(look).await.map_err(|error| Failure::Failed(error.to_string()))?;
    found.extend(match Client::connect(&common.data_dir).await {
        Some(client) => readiness::service(&client.status().await?, &client.faults().await?),
        None => listeners(&config),
    });
    if let Some(kafka) = settings.kafka {
        let (size, clock) = ((settings.partitions, config.topics.replication_factor as i32), settings.clock);
        let look = move || KafkaLog::readiness(&kafka, size, &clock);
        found.extend(tokio::task::spawn_blocking(look).await.map_err(|error| Failure::Failed(error.to_string()))?);
    }
    found.iter().try_for_each(|finding| print(common, &finding_json(finding)))?;
    verdict(&found)
}

/// What a service that is started now would listen on.
fn listeners(config: &Config) -> Vec<Finding> {
    let mut found = vec![listener("admin listener", config.admin.listen, "admin.listen")];
    if config.topics.log == finflow_config::LogKind::Kafka && !config.internal.secret.is_empty() {
        found.push(listener("internal listener", config.internal.listen, "internal.listen"));
    }
    found
}

fn listener(what: &'static str, listen: SocketAddr, key: &str) -> Finding {
    let state = match TcpListener::bind(listen) {
        Ok(_) => State::Well(format!("{listen} is free")),
        Err(error) => State::Wrong { cause: format!("{listen}: {error}"), remedy: format!("name another address with {key}") },
    };
    Finding { what, state }
}

fn finding_json(Finding { what, state }: &Finding) -> Value {
    let (status, seen, cause, remedy) = match state {
        State::Well(seen) => ("ok", Some(seen), None, None),
        State::Skipped(why) => ("skipped", None, Some(why), None),
        State::Unavailable { cause, remedy } | State::Wrong { cause, remedy } => ("failed", None, Some(cause), Some(remedy)),
    };
    json!({ "status": status, "check": what, "seen": seen, "cause": cause, "remedy": remedy })
}

/// What must be changed by hand weighs more than what may pass.
fn verdict(found: &[Finding]) -> Result<(), Failure> {
    let names = |is: fn(&State) -> bool| {
        let failed = found.iter().filter(|finding| is(&finding.state)).map(|finding| finding.what);
        let mut names: Vec<&str> = failed.collect();
        names.dedup();
        names.join(", ")
    };
    let failed = names(|state| matches!(state, State::Wrong { .. } | State::Unavailable { .. }));
    match (names(|state| matches!(state, State::Wrong { .. })).is_empty(), failed.is_empty()) {
        (false, _) => Err(Failure::Configuration(format!("not ready: {failed}"))),
        (true, false) => Err(Failure::Temporary(format!("not ready now: {failed}"))),
        (true, true) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_changed_weighs_more_than_what_may_pass() {
        let text = |text: &str| text.to_owned();
        let well = || Finding { what: "disk", state: State::Well(text("x")) };
        let skipped = || Finding { what: "topics", state: State::Skipped(text("x")) };
        let unavailable = || Finding { what: "clock", state: State::Unavailable { cause: text("x"), remedy: text("y") } };
        let wrong = || Finding { what: "rights", state: State::Wrong { cause: text("x"), remedy: text("y") } };
        for (found, expected) in [
            (vec![], None),
            (vec![well(), skipped()], None),
            (vec![well(), unavailable()], Some((75, "not ready now: clock"))),
            (vec![unavailable(), unavailable()], Some((75, "not ready now: clock"))),
            (vec![wrong(), well(), unavailable()], Some((78, "not ready: rights, clock"))),
        ] {
            let told = verdict(&found).err().map(|failure| (failure.code(), failure.to_string()));
            assert_eq!(told, expected.map(|(code, told)| (code, text(told))));
        }
        let told = finding_json(&unavailable()).to_string();
        assert_eq!(told, r#"{"status":"failed","check":"clock","seen":null,"cause":"x","remedy":"y"}"#);
    }
}
