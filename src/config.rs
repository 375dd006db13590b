//! `finflow config`: what is in force, and whether it is right.

use serde_json::{Value, json};

use crate::access::{cluster, configuration};
use crate::cli::{Common, ConfigCommand, Format};
use crate::failure::Failure;
use crate::{output, snapshots};

pub(crate) fn config(common: &Common, command: &ConfigCommand) -> Result<(), Failure> {
    let config = configuration(common)?;
    if config.topics.log == finflow_config::LogKind::Kafka {
        cluster(common, &config)?;
    }
    snapshots::place(&config)?;
    match (command, common.format) {
        (ConfigCommand::Check, Format::Json) => output::print(common, &json!({ "ok": true })),
        (ConfigCommand::Check, _) => output::text("the configuration is right\n"),
        (ConfigCommand::Show, Format::Json) => {
            let value: Value = serde_json::to_value(&config).map_err(|error| Failure::Failed(error.to_string()))?;
            output::print(common, &value)
        }
        (ConfigCommand::Show, _) => output::text(&config.to_toml()),
    }
}
