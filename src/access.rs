//! The way to the engine: the service that runs in the data directory, else any process of the application on Kafka, else the directory
//! itself.

use std::collections::HashMap;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use finflow_actors::log::kafka::{self, Lookup};
use finflow_actors::socket::Client;
use finflow_actors::{
    Awaited, Checked, Clock, Expired, Housekeeping, JournalEnd, Node, PartitionStatus, Publish, Settings, SnapshotPlace,
};
use finflow_config::{Config, Problems};
use finflow_ledger::{Coordinates, Payment, PaymentId, Wallet, WalletId};
use finflow_topologies::Topic;
use finflow_topologies::log::{self, Fetched};

use crate::cli::{Common, LogKind};
use crate::failure::Failure;
use crate::snapshots;

/// The engine, in another process or in this one.
pub(crate) enum Access {
    Running(Client),
    Own(Node),
}

/// How long a command looks for a process of the application that answers: as long as it takes until one that has died is missed.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(10);
const SEARCH_PAUSE: Duration = Duration::from_millis(250);

/// Defaults, files, variables and settings together, or every problem of them.
pub(crate) fn configuration(common: &Common) -> Result<Config, Failure> {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for path in &common.config {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => {
                if finflow_config::holds_secret(&text) && is_for_all(path) {
                    problems.push(format!("{name}: holds a secret, and every user of the machine may read it; chmod o-r"));
                }
                files.push((name, text));
            }
            Err(error) => problems.push(format!("{name}: {error}")),
        }
    }
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => variables.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with("FINFLOW__") => problems.push(format!("variable {name}: is not UTF-8")),
            // Variables of other programs may hold anything.
            _ => {}
        }
    }
    let admin = common.admin.map(|address| format!("admin.listen={address}"));
    let log = common.log.map(|kind| format!("topics.log={}", if kind == LogKind::Kafka { "kafka" } else { "embedded" }));
    let brokers = common.brokers.as_ref().map(|brokers| format!("kafka.bootstrap.servers={brokers}"));
    let settings: Vec<String> = common.set.iter().cloned().chain(admin).chain(log).chain(brokers).collect();
    let config = Config::load_with(&files, variables, &settings, property_problems);
    problems.extend(config.as_ref().err().into_iter().flat_map(Problems::iter).map(ToString::to_string));
    // All problems at once, each with its place.
    config.ok().filter(|_| problems.is_empty()).ok_or_else(|| Failure::Configuration(problems.join("\n")))
}

/// Whether a path leads into a directory, whatever of either is there so far.
fn is_below(path: &Path, dir: &Path) -> bool {
    let resolved = |path: &Path| {
        let path = std::path::absolute(path).ok()?;
        let found = |there: &Path| Some(std::fs::canonicalize(there).ok()?.join(path.strip_prefix(there).ok()?));
        path.ancestors().find_map(found)
    };
    resolved(path).zip(resolved(dir)).is_some_and(|(path, dir)| path.starts_with(dir))
}

/// Whether any user of the machine may read a file.
fn is_for_all(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
}

/// What is wrong with properties of the Kafka client, by key: only the client library knows its own.
fn property_problems(config: &Config) -> Vec<(String, String)> {
    let mut named = HashMap::new();
    let mut problem = |(key, name, value): (String, &str, &str)| {
        let section = key.strip_suffix(name).unwrap_or_default().to_owned();
        let other = named.insert((section, kafka::canonical(name).to_owned()), name.to_owned());
        let told = flaw(name, value).or_else(|| Some(format!("is the same property as {}", other?)));
        Some((key, told?))
    };
    config.kafka.each().filter_map(&mut problem).collect()
}

fn flaw(name: &str, value: &str) -> Option<String> {
    let flaw = kafka::flaw(name, value)?;
    let meant = finflow_config::nearest(name, kafka::COMMON.iter().copied()).filter(|_| flaw == kafka::Flaw::Unknown);
    Some(meant.map_or_else(|| flaw.to_string(), |meant| format!("{flaw}; did you mean \"{meant}\"?")))
}

/// The cluster, with the properties of configuration and command line; those that belong to the engine are refused.
pub(crate) fn cluster(common: &Common, config: &Config) -> Result<kafka::Settings, Failure> {
    let mut settings = kafka::Settings::new(&config.kafka.brokers, &config.topics.prefix);
    settings.secret.clone_from(&config.internal.secret);
    settings.dlq_retention = config.topics.dlq_retention;
    let mut problems = Vec::new();
    let named = |(name, value): (&String, &String)| (kafka::canonical(name).to_owned(), value.clone());
    settings.properties = config.kafka.properties.iter().map(named).collect();
    settings.trim_properties = config.kafka.trim.iter().map(named).collect();
    for (number, property) in common.properties.iter().enumerate() {
        // What was typed may be a secret, and is not repeated.
        let Some((name, value)) = property.split_once('=').map(|(name, value)| (name.trim(), value)) else {
            problems.push(format!("-X number {}: must have the form name=value", number + 1));
            continue;
        };
        problems.extend(flaw(name, value).map(|flaw| format!("-X: {name} {flaw}")));
        settings.properties.insert(kafka::canonical(name).to_owned(), value.to_owned());
    }
    if problems.is_empty() {
        problems.extend(settings.problem());
    }
    if problems.is_empty() { Ok(settings) } else { Err(Failure::Configuration(problems.join("\n"))) }
}

/// What the engine is started with.
pub(crate) fn settings(common: &Common) -> Result<Settings, Failure> {
    let config = configuration(common)?;
    let kafka = match config.topics.log {
        finflow_config::LogKind::Kafka => Some(cluster(common, &config)?),
        finflow_config::LogKind::Embedded => None,
    };
    let snapshots = snapshots::place(&config)?;
    if let SnapshotPlace::Shared(dir) = &snapshots {
        if is_below(dir, &common.data_dir) {
            let cause = "snapshots.shared: the directory of snapshots.url lies in the data directory, and would be lost with it";
            return Err(Failure::Configuration(cause.to_owned()));
        }
        if !dir.is_dir() {
            return Err(Failure::Temporary(format!("snapshots.url: {} is not there; is it mounted?", dir.display())));
        }
    }
    Ok(Settings {
        kafka,
        data_dir: common.data_dir.clone(),
        prefix: config.topics.prefix,
        partitions: config.topics.partitions,
        lanes: config.lanes,
        standby_replicas: config.standby_replicas,
        node_id: config.node.id,
        epoch_interval: config.epoch.interval,
        treasury_enabled: config.treasury.enabled,
        dedup_retention: config.dedup.retention,
        dedup_margin: config.dedup.margin,
        attention_after: config.transfers.attention_after,
        store_memory_bytes: usize::try_from(config.store.memory_bytes).unwrap_or(usize::MAX),
        hot_wallets: config.store.hot_wallets as usize,
        housekeeping: Housekeeping {
            snapshots,
            trim_interval: config.snapshots.trim_interval,
            snapshot_interval: config.snapshots.interval,
            sweep_interval: config.dedup.sweep_interval,
            retention: config.topics.retention,
            dlq_retention: config.topics.dlq_retention,
        },
        clock: Clock::system().behind(config.clock.behind_max),
    })
}

impl Access {
    /// For reading: a directory must exist, because reading makes nothing, and no partition of it may be halted.
    pub(crate) async fn open(common: &Common) -> Result<Access, Failure> {
        let access = Access::inspect(common).await?;
        if let Access::Own(node) = &access
            && let Some(halted) = node.status().into_iter().find(|status| status.cause.is_some())
        {
            let cause = halted.cause.unwrap_or_default();
            return Err(Failure::Failed(format!("partition {} is halted: {cause}", halted.partition)));
        }
        Ok(access)
    }

    /// Like [`Access::open`], for commands that show what is wrong with a halted partition.
    pub(crate) async fn inspect(common: &Common) -> Result<Access, Failure> {
        if let Some(client) = running(common).await? {
            return Ok(Access::Running(client));
        }
        let settings = settings(common)?;
        if let Some(client) = somewhere(settings.kafka.as_ref()).await? {
            return Ok(Access::Running(client));
        }
        if settings.kafka.is_none() && !common.data_dir.join("log").is_dir() {
            let dir = common.data_dir.display();
            let has_state = common.data_dir.join("state").is_dir();
            return Err(Failure::Failed(if has_state {
                format!("{dir} has a state and no log, which is the record: put {dir}/log back where it was")
            } else {
                format!("{dir} holds no finflow data; publish something first, for example: finflow publish payments.jsonl")
            }));
        }
        Ok(Access::Own(Node::open(settings)?))
    }

    /// For publishing: without a running service the engine runs in this process.
    pub(crate) async fn start(common: &Common) -> Result<Access, Failure> {
        if let Some(client) = running(common).await? {
            return Ok(Access::Running(client));
        }
        let settings = settings(common)?;
        match somewhere(settings.kafka.as_ref()).await? {
            Some(client) => Ok(Access::Running(client)),
            None => {
                let node = Node::start(settings).await?;
                // A service waits until its clock is right; nobody waits here.
                if let Some(cause) = node.clock_cause() {
                    node.stop().await;
                    return Err(Failure::Temporary(cause));
                }
                Ok(Access::Own(node))
            }
        }
    }

    /// Stops what [`Access::start`] started; a service of another process runs on.
    pub(crate) async fn stop(&self) {
        // An engine that ran for one command does not come back for its partitions.
        if let Access::Own(node) = self
            && node.leave().await.is_err()
        {
            node.stop().await;
        }
    }

    pub(crate) async fn partitions_count(&self) -> Result<u32, Failure> {
        match self {
            Access::Running(client) => Ok(client.partitions_count().await?),
            Access::Own(node) => Ok(node.partitions_count()),
        }
    }

    pub(crate) async fn publish(&self, records: Vec<Publish>) -> Result<Vec<Coordinates>, Failure> {
        match self {
            Access::Running(client) => Ok(client.publish(records).await?),
            Access::Own(node) => Ok(node.publish(records).await?),
        }
    }

    pub(crate) async fn range(&self, topic: Topic, partition: u32) -> Result<Range<u64>, Failure> {
        match self {
            Access::Running(client) => Ok(client.range(topic, partition).await?),
            Access::Own(node) => Ok(node.range(topic, partition)?),
        }
    }

    pub(crate) async fn fetch(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, Failure> {
        match self {
            Access::Running(client) => Ok(client.fetch(topic, partition, from, bytes_max).await?),
            Access::Own(node) => Ok(node.fetch(topic, partition, from, bytes_max)?),
        }
    }

    pub(crate) async fn changed(&self, deadline: Duration) -> Result<(), Failure> {
        match self {
            Access::Running(client) => client.changed(deadline).await?,
            Access::Own(node) => node.changed(deadline).await,
        }
        Ok(())
    }

    /// Waits until commands are answered, at most until the deadline.
    pub(crate) async fn answered(&self, awaited: &[Awaited], deadline: Duration) -> Result<(), Failure> {
        match self {
            Access::Running(client) => client.answered(awaited, deadline).await?,
            Access::Own(node) => drop(node.answered(awaited, deadline).await),
        }
        Ok(())
    }

    pub(crate) async fn wallet(&self, id: &WalletId) -> Result<Option<Wallet>, Failure> {
        match self {
            Access::Running(client) => Ok(client.wallet(id).await?),
            Access::Own(node) => Ok(node.wallet(id)?),
        }
    }

    pub(crate) async fn wallets(&self, partition: u32, after: Option<&WalletId>, limit: usize) -> Result<Vec<Wallet>, Failure> {
        match self {
            Access::Running(client) => Ok(client.wallets(partition, after, limit).await?),
            Access::Own(node) => Ok(node.wallets(partition, after, limit)?),
        }
    }

    pub(crate) async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, Failure> {
        match self {
            Access::Running(client) => Ok(client.payment(id).await?),
            Access::Own(node) => Ok(node.payment(id)?),
        }
    }

    /// Those of these payments, or other commands, that are known.
    pub(crate) async fn payments(&self, ids: Vec<PaymentId>) -> Result<HashMap<PaymentId, Payment>, Failure> {
        let found = match self {
            Access::Running(client) => client.payments(&ids).await?,
            Access::Own(node) => {
                let found = ids.into_iter().map(|id| node.payment(id));
                found.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()?
            }
        };
        Ok(found.into_iter().map(|payment| (payment.id, payment)).collect())
    }

    pub(crate) async fn status(&self) -> Result<Vec<PartitionStatus>, Failure> {
        match self {
            Access::Running(client) => Ok(client.status().await?),
            Access::Own(node) => Ok(node.status()),
        }
    }

    pub(crate) async fn idle(&self, deadline: Duration) -> Result<bool, Failure> {
        match self {
            Access::Running(client) => Ok(client.idle(deadline).await?),
            Access::Own(node) => Ok(node.idle(deadline).await),
        }
    }

    pub(crate) async fn check(&self, partition: u32, snapshots: bool) -> Result<Checked, Failure> {
        match self {
            Access::Running(client) => Ok(client.check(partition, snapshots).await?),
            Access::Own(node) => Ok(node.check_one(partition, snapshots).await?),
        }
    }

    /// The block of the newest snapshot of a partition, once one has been taken where it is due.
    pub(crate) async fn snapshot(&self, partition: u32) -> Result<Option<u64>, Failure> {
        match self {
            Access::Running(client) => Ok(client.snapshot(partition).await?),
            Access::Own(node) => node.snapshot_one(partition).await.map_err(|error| Failure::Failed(error.to_string())),
        }
    }

    pub(crate) async fn resume(&self, partition: u32) -> Result<(), Failure> {
        match self {
            Access::Running(client) => Ok(client.resume(partition).await?),
            Access::Own(node) => Ok(node.resume(partition)?),
        }
    }

    /// Where a partition goes on whose position is lost.
    pub(crate) async fn journal_end(&self, partition: u32) -> Result<JournalEnd, Failure> {
        match self {
            Access::Running(client) => Ok(client.journal_end(partition).await?),
            Access::Own(node) => node.journal_end(partition).map_err(|error| Failure::Failed(error.to_string())),
        }
    }

    /// What of the commands of a halted partition has expired.
    pub(crate) async fn expired(&self, partition: u32) -> Result<Expired, Failure> {
        match self {
            Access::Running(client) => Ok(client.expired(partition).await?),
            Access::Own(node) => node.expired(partition).map_err(|error| Failure::Failed(error.to_string())),
        }
    }

    /// Lets a halted partition go on past them.
    pub(crate) async fn resume_past_expired(&self, partition: u32, to: u64) -> Result<(), Failure> {
        match self {
            Access::Running(client) => Ok(client.resume_past_expired(partition, to).await?),
            Access::Own(node) => node.resume_past_expired(partition, to).map_err(|error| Failure::Failed(error.to_string())),
        }
    }

    pub(crate) async fn resume_from_journal(&self, partition: u32) -> Result<(), Failure> {
        match self {
            Access::Running(client) => Ok(client.resume_from_journal(partition).await?),
            Access::Own(node) => Ok(node.resume_from_journal(partition)?),
        }
    }
}

/// The service that runs in the data directory. Whoever names a log means the application on that one, and no other.
async fn running(common: &Common) -> Result<Option<Client>, Failure> {
    let Some(client) = Client::connect(&common.data_dir).await else { return Ok(None) };
    let config = configuration(common)?;
    let is_kafka = config.topics.log == finflow_config::LogKind::Kafka;
    if is_kafka || common.log.is_some() {
        finflow_actors::belongs(&common.data_dir, is_kafka, &config.topics.prefix)?;
    }
    Ok(Some(client))
}

/// Makes sure that no process of the application runs, here or on the cluster.
pub(crate) async fn nobody_runs(settings: &Settings) -> Result<(), Failure> {
    let runs = Client::connect(&settings.data_dir).await.is_some() || somewhere(settings.kafka.as_ref()).await?.is_some();
    let stop = || Failure::Temporary(format!("processes of {} run; stop all of them first", settings.prefix));
    if runs { Err(stop()) } else { Ok(()) }
}

/// Any process of the application on Kafka, for what this machine has no part in; `None` where none runs.
async fn somewhere(kafka: Option<&kafka::Settings>) -> Result<Option<Client>, Failure> {
    let Some(kafka) = kafka else { return Ok(None) };
    let begun = Instant::now();
    let mut lookup = Lookup::new(kafka)?;
    loop {
        let looked = tokio::task::spawn_blocking(move || {
            let found = lookup.addresses();
            (lookup, found)
        });
        let (again, asked) = looked.await.map_err(|error| Failure::Failed(error.to_string()))?;
        lookup = again;
        let mut causes = Vec::new();
        let (addresses, are_there_others) = match asked {
            Ok((addresses, false)) if addresses.is_empty() => return Ok(None),
            Ok(found) => found,
            // Nobody grants a right, or changes a setting, while he waits here.
            Err(error @ (log::Error::Forbidden(_) | log::Error::Refused(_) | log::Error::Lasting(_))) => return Err(error.into()),
            Err(error) => {
                causes.push(error.to_string());
                (Vec::new(), false)
            }
        };
        for address in addresses {
            match Client::connect_to(&address, &kafka.secret).await {
                Ok(client) => return Ok(Some(client)),
                Err(cause) => causes.push(format!("{address}: {cause}")),
            }
        }
        if SEARCH_TIMEOUT < begun.elapsed() {
            causes.extend(are_there_others.then(|| "one has not said where it is asked".to_owned()));
            let causes = causes.join("; ");
            return Err(Failure::Temporary(format!("no process of the application answers, retry: {causes}")));
        }
        tokio::time::sleep(SEARCH_PAUSE).await;
    }
}
