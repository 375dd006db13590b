//! What a node is started with: the application's constants, where things live, and how much there may be of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use finflow_state::{Snapshots, snapshot};
use finflow_topologies::Rules;

use crate::bucket::{Bucket, BucketSettings};
use crate::clock::Clock;
use crate::log::kafka;

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the log and the stores live.
    pub data_dir: PathBuf,
    /// The prefix of the topic names.
    pub prefix: String,
    /// The partition count of the application.
    pub partitions: u32,
    /// The cluster that holds the topics; none = the embedded log in `data_dir`.
    pub kafka: Option<kafka::Settings>,
    /// The number of lanes.
    pub lanes: u32,
    /// How many other nodes follow the journal of each partition, where nodes share the log.
    pub standby_replicas: u32,
    /// The name of this node; lanes are named after it.
    pub node_id: String,
    /// The least time between two commits of a lane that keeps up with its input.
    pub epoch_interval: Duration,
    /// Whether top-ups from the treasury are allowed.
    pub treasury_enabled: bool,
    /// How long a finished command's record answers for its duplicates.
    pub dedup_retention: Duration,
    /// How much younger than that a command must be.
    pub dedup_margin: Duration,
    /// How long a transfer waits for the receiver's partition before it says that it does.
    pub attention_after: Duration,
    /// Memory for cached blocks and memtables of all stores, in bytes.
    pub store_memory_bytes: usize,
    /// Wallets kept in memory, over all partitions.
    pub hot_wallets: usize,
    /// What is done beside the epochs.
    pub housekeeping: Housekeeping,
    /// What time it is.
    pub clock: Clock,
}

impl Settings {
    /// The snapshots, where they rest. Nothing is asked of that place yet.
    pub(crate) fn snapshots(&self) -> Result<Snapshots, snapshot::Error> {
        let objects = match &self.housekeeping.snapshots {
            SnapshotPlace::BesideData => snapshot::in_directory(&self.data_dir.join("snapshots")),
            SnapshotPlace::Directory(dir) => snapshot::in_directory(dir),
            SnapshotPlace::Shared(dir) => snapshot::in_shared_directory(dir),
            SnapshotPlace::Bucket(bucket) => Arc::new(Bucket::new(bucket)?),
        };
        Ok(Snapshots::new(objects))
    }

    /// What decisions depend on besides the state.
    pub fn rules(&self) -> Rules {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Rules {
            partitions: self.partitions,
            prefix: self.prefix.as_str().into(),
            treasury_enabled: self.treasury_enabled,
            dedup_retention_ms: millis(self.dedup_retention),
            dedup_margin_ms: millis(self.dedup_margin),
            attention_after_ms: millis(self.attention_after),
            hot_wallets_max: self.hot_wallets / self.partitions.max(1) as usize,
        }
    }
}

/// Where snapshots rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SnapshotPlace {
    /// In `snapshots` in the data directory.
    #[default]
    BesideData,
    /// In this directory, which may be lost with the machine.
    Directory(PathBuf),
    /// In this directory, which outlives the machine and every process of the application has. An operator says so; nothing else can
    /// know.
    Shared(PathBuf),
    /// In a bucket.
    Bucket(BucketSettings),
}

/// What a node does beside its epochs.
#[derive(Debug, Clone)]
pub struct Housekeeping {
    /// Where snapshots rest.
    pub snapshots: SnapshotPlace,
    /// How often a partition's snapshots are read back, and its journal trimmed below them, where they outlive this machine.
    pub trim_interval: Duration,
    /// How old the newest snapshot of a partition may become while the partition moves.
    pub snapshot_interval: Duration,
    /// How often all records are read for those that may be forgotten.
    pub sweep_interval: Duration,
    /// How long the log keeps commands and events; `None` = for ever. On a cluster the topics have their own.
    pub retention: Option<Duration>,
    /// The same of dead letters.
    pub dlq_retention: Option<Duration>,
}

impl Housekeeping {
    /// Whether the log is trimmed below snapshots: they rest where the loss of this machine does not reach them.
    pub(crate) fn is_trimmed(&self) -> bool {
        match self.snapshots {
            SnapshotPlace::BesideData | SnapshotPlace::Directory(_) => false,
            SnapshotPlace::Shared(_) | SnapshotPlace::Bucket(_) => true,
        }
    }
}

impl Default for Housekeeping {
    fn default() -> Housekeeping {
        Housekeeping {
            snapshots: SnapshotPlace::BesideData,
            trim_interval: Duration::from_secs(3_600),
            snapshot_interval: Duration::from_secs(600),
            sweep_interval: Duration::from_secs(86_400),
            retention: Some(Duration::from_secs(7 * 86_400)),
            dlq_retention: Some(Duration::from_secs(30 * 86_400)),
        }
    }
}
