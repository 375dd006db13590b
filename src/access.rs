//! Opening the engine of a data directory, for reading or for running.

use std::time::Duration;

use finflow_actors::{Node, Settings};

use crate::cli::Common;
use crate::failure::Failure;

const DAY: Duration = Duration::from_secs(86_400);

/// What the common options say.
pub(crate) fn settings(common: &Common) -> Result<Settings, Failure> {
    if common.partitions < common.lanes {
        return Err(Failure::Configuration("--lanes must not be more than --partitions, for example --lanes 2".to_owned()));
    }
    Ok(Settings {
        data_dir: common.data_dir.clone(),
        prefix: "finflow".to_owned(),
        partitions: common.partitions,
        lanes: common.lanes,
        node_id: "node-1".to_owned(),
        epoch_interval: Duration::from_millis(2),
        treasury_enabled: !common.no_treasury,
        dedup_retention: DAY * 35,
        dedup_margin: Duration::from_secs(3_600),
        store_memory_bytes: 192 << 20,
        hot_wallets: 200_000,
    })
}

/// The directory opened for reading. It must exist: reading makes nothing.
pub(crate) fn open(common: &Common) -> Result<Node, Failure> {
    if !common.data_dir.join("log").is_dir() {
        return Err(Failure::Failed(format!(
            "{} holds no finflow data; publish something first, for example: finflow publish payments.jsonl",
            common.data_dir.display()
        )));
    }
    Ok(Node::open(settings(common)?)?)
}
