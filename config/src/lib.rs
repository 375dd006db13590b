//! The configuration: typed, complete and checked before anything starts.
//!
//! Layers: the built-in defaults < files < variables `FINFLOW__SECTION__KEY` < settings `section.key=value`. Every layer is checked
//! by itself, so a wrong value is reported even where a later layer overrides it, and all problems are reported at once.
//! The crate reads no file, no environment and no clock, and no message repeats a value: it could be a secret.

mod kafka;
mod layers;
mod problems;
mod rest;
mod values;

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

pub use kafka::Kafka;
pub use layers::nearest;
pub use problems::{Place, Problem, Problems};
pub use rest::Rest;

/// The documented defaults, as shipped.
pub const DEFAULTS: &str = include_str!("../default.toml");
/// The profile for production, to be given to [`Config::load`] as the first file.
pub const PRODUCTION: &str = include_str!("../profiles/production.toml");

/// Most partitions of a topic.
pub const PARTITIONS_MAX: u32 = 4096;
/// Most copies of a record.
pub const REPLICATION_MAX: u32 = 100;
/// Most wallets kept decoded in memory.
pub const HOT_WALLETS_MAX: u32 = 100_000_000;

/// All of the configuration. `default.toml` says what each key means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Lanes of this process, 1 to `topics.partitions`.
    #[serde(deserialize_with = "values::whole::<_, 1, PARTITIONS_MAX>")]
    pub lanes: u32,
    /// How many other processes follow each partition, 0 to 15.
    #[serde(deserialize_with = "values::whole::<_, 0, 15>")]
    pub standby_replicas: u32,
    /// This process.
    pub node: Node,
    /// The topics.
    pub topics: Topics,
    /// The cluster.
    pub kafka: Kafka,
    /// How processes ask each other.
    pub internal: Internal,
    /// The epochs.
    pub epoch: Epoch,
    /// The treasury.
    pub treasury: Treasury,
    /// The clock.
    pub clock: Clock,
    /// The memory of commands seen.
    pub dedup: Dedup,
    /// Transfers.
    pub transfers: Transfers,
    /// The store.
    pub store: Store,
    /// The snapshots.
    pub snapshots: Snapshots,
    /// The log of this process.
    pub log: Log,
    /// The administrative server.
    pub admin: Admin,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The name of this process, unlike that of any other of the same application.
    #[serde(deserialize_with = "values::name")]
    pub id: String,
}

/// `[topics]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    /// What all topic names begin with; fit for a Kafka topic.
    #[serde(deserialize_with = "values::name")]
    pub prefix: String,
    /// Where they are.
    #[serde(deserialize_with = "values::log_kind")]
    pub log: LogKind,
    /// Partitions of every topic, 1 to [`PARTITIONS_MAX`].
    #[serde(deserialize_with = "values::whole::<_, 1, PARTITIONS_MAX>")]
    pub partitions: u32,
    /// Copies of every record that a Kafka keeps, 1 to [`REPLICATION_MAX`].
    #[serde(deserialize_with = "values::whole::<_, 1, REPLICATION_MAX>")]
    pub replication_factor: u32,
    /// How long the embedded log keeps commands and events; `None` = for ever.
    #[serde(with = "values::duration_or_off")]
    pub retention: Option<Duration>,
    /// How long dead letters are kept, on either log; `None` = for ever.
    #[serde(with = "values::duration_or_off")]
    pub dlq_retention: Option<Duration>,
}

/// Which log holds the topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// The one in the data directory.
    Embedded,
    /// Apache Kafka.
    Kafka,
}

/// `[internal]`
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Internal {
    /// Where other processes ask this one; port 0 takes any free one.
    #[serde(deserialize_with = "values::internal_address")]
    pub listen: SocketAddr,
    /// How they reach it, as `host:port`; empty = where it listens.
    #[serde(deserialize_with = "values::advertised")]
    pub advertise: String,
    /// What they have in common; never shown.
    #[serde(deserialize_with = "values::secret", serialize_with = "values::hidden")]
    pub secret: String,
}

impl std::fmt::Debug for Internal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Internal").field("listen", &self.listen).field("advertise", &self.advertise).finish_non_exhaustive()
    }
}

/// `[epoch]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// The least time between two commits of a lane that keeps up; more than zero.
    #[serde(with = "values::duration")]
    pub interval: Duration,
}

/// `[treasury]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Treasury {
    /// Whether top-ups are allowed.
    #[serde(deserialize_with = "values::truth")]
    pub enabled: bool,
}

/// `[clock]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// How far it may be behind the newest committed block at the start; more than zero.
    #[serde(with = "values::duration")]
    pub behind_max: Duration,
}

/// `[dedup]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dedup {
    /// How long a command's key is remembered; more than `margin`.
    #[serde(with = "values::duration")]
    pub retention: Duration,
    /// How much longer it is kept; more than zero.
    #[serde(with = "values::duration")]
    pub margin: Duration,
    /// How often all records are read for those that may be forgotten; more than zero.
    #[serde(with = "values::duration")]
    pub sweep_interval: Duration,
}

/// `[transfers]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfers {
    /// How long one waits for the receiver's partition before it says so; more than zero.
    #[serde(with = "values::duration")]
    pub attention_after: Duration,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// `store.memory`, in bytes; more than zero.
    #[serde(rename = "memory", with = "values::size")]
    pub memory_bytes: u64,
    /// Wallets kept in memory, 1 to [`HOT_WALLETS_MAX`].
    #[serde(deserialize_with = "values::whole::<_, 1, HOT_WALLETS_MAX>")]
    pub hot_wallets: u32,
}

/// `[snapshots]`
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshots {
    /// Where they rest; empty = beside the data. See [`Snapshots::rest`].
    #[serde(deserialize_with = "values::snapshots_url")]
    pub url: String,
    /// The region of the bucket.
    #[serde(deserialize_with = "values::name")]
    pub region: String,
    /// Where the bucket's server is; empty = where Amazon has that region.
    #[serde(deserialize_with = "values::endpoint")]
    pub endpoint: String,
    /// Who asks there; empty = as the environment says.
    #[serde(deserialize_with = "values::access_key_id")]
    pub access_key_id: String,
    /// His secret; never shown.
    #[serde(deserialize_with = "values::secret", serialize_with = "values::hidden")]
    pub secret_access_key: String,
    /// How old the newest one may become; more than zero.
    #[serde(with = "values::duration")]
    pub interval: Duration,
    /// Whether they outlive the loss of this machine, so that the journal is trimmed below them.
    #[serde(deserialize_with = "values::truth")]
    pub shared: bool,
    /// How often they are read back and the log is trimmed below them; more than zero.
    #[serde(with = "values::duration")]
    pub trim_interval: Duration,
}

impl Snapshots {
    /// Where they rest.
    pub fn rest(&self) -> Rest {
        // Nothing else is read.
        Rest::parse(&self.url).unwrap_or(Rest::BesideData)
    }
}

impl std::fmt::Debug for Snapshots {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshots").field("url", &self.url).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// How lines are written.
    #[serde(deserialize_with = "values::log_format")]
    pub format: LogFormat,
}

/// How the lines of the process's log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For a terminal.
    Human,
    /// One object a line.
    Json,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Where the administrative server listens; port 0 takes any free one.
    #[serde(deserialize_with = "values::address")]
    pub listen: SocketAddr,
}

/// Whether a configuration file holds a secret: who may read the file has it.
pub fn holds_secret(text: &str) -> bool {
    let Ok(table) = text.parse::<toml::Table>() else { return false };
    let of = |section: &str, key: &str| table.get(section).and_then(|section| section.get(key)).cloned();
    let is_set = |value: toml::Value| value.as_str().is_some_and(|text| !text.is_empty());
    of("internal", "secret").is_some_and(is_set)
        || of("snapshots", "secret_access_key").is_some_and(is_set)
        || table.get("kafka").and_then(toml::Value::as_table).is_some_and(kafka::holds_secret)
}

impl Config {
    /// The configuration that `files` (name and text), `variables` (name and value) and `settings` (`section.key=value`) make of the
    /// defaults, each overriding those before it.
    ///
    /// Variables that do not begin with `FINFLOW__` are ignored.
    ///
    /// # Errors
    /// All problems of all layers, each with its place.
    pub fn load(
        files: &[(String, String)],
        variables: impl IntoIterator<Item = (String, String)>,
        settings: &[String],
    ) -> Result<Config, Problems> {
        Config::load_with(files, variables, settings, |_| Vec::new())
    }

    /// The same with rules of the caller, who knows more: keys, and what is wrong with what the layers make of
    /// them, to be told where each was set last.
    ///
    /// # Errors
    /// All problems of all layers, each with its place.
    pub fn load_with(
        files: &[(String, String)],
        variables: impl IntoIterator<Item = (String, String)>,
        settings: &[String],
        rules: impl FnOnce(&Config) -> Vec<(String, String)>,
    ) -> Result<Config, Problems> {
        layers::load(files, variables, settings, rules)
    }

    /// The configuration as a file that [`Config::load`] reads back to the same.
    pub fn to_toml(&self) -> String {
        // Strings, whole numbers and truth values in tables: TOML can write them all.
        toml::to_string(self).unwrap_or_default()
    }

    /// The rules between keys: the key that is wrong, the one it is measured against, and what is wrong.
    fn contradictions(&self) -> Vec<(&'static str, &'static str, String)> {
        let mut found = Vec::new();
        if self.topics.partitions < self.lanes {
            let partitions = self.topics.partitions;
            found.push(("lanes", "topics.partitions", format!("must be at most `topics.partitions`, which is {partitions}")));
        }
        let Internal { listen, advertise, secret } = &self.internal;
        if secret.is_empty() && !listen.ip().is_loopback() {
            let rule = "must be set where `internal.listen` is not a loopback address";
            found.push(("internal.secret", "internal.listen", rule.to_owned()));
        }
        if advertise.is_empty() && listen.ip().is_unspecified() {
            let rule = "must be set where `internal.listen` is every address";
            found.push(("internal.advertise", "internal.listen", rule.to_owned()));
        }
        if self.snapshots.shared && self.snapshots.url.is_empty() {
            let rule = "must be set where `snapshots.shared` is true";
            found.push(("snapshots.url", "snapshots.shared", rule.to_owned()));
        }
        let Snapshots { access_key_id, secret_access_key, .. } = &self.snapshots;
        if access_key_id.is_empty() != secret_access_key.is_empty() {
            let (unset, set) = match access_key_id.is_empty() {
                true => ("snapshots.access_key_id", "snapshots.secret_access_key"),
                false => ("snapshots.secret_access_key", "snapshots.access_key_id"),
            };
            found.push((unset, set, format!("must be set where `{set}` is")));
        }
        if self.dedup.retention <= self.dedup.margin {
            found.push(("dedup.retention", "dedup.margin", "must be more than `dedup.margin`".to_owned()));
        }
        found
    }
}
