//! A node: one process's engine. Opens the log and the stores, supervises the lanes, and answers readers from committed state.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use finflow_ledger::{Coordinates, Currency, Money, Payment, PaymentId, PaymentState, Wallet, WalletId};
use finflow_state::{Generation, RocksStore, Shared, Store, Tag, Wallets, store};
use finflow_topologies::log::{self, Fetched, Headers, Log, Outgoing};
use finflow_topologies::topics::{partition_of_key, partition_of_payment, partition_of_wallet};
use finflow_topologies::{Outcome, Rules, Topic, restore};
use ractor::{Actor, ActorRef};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use self::root::Root;
use crate::clock::now_ms;
use crate::committed::{Committed, Condition};
use crate::lane::{Args, Message};
use crate::log::embedded::EmbeddedLog;

mod root;

/// How long a node waits for its lanes to finish when it stops.
const STOP_TIMEOUT_MS: u64 = 10_000;
/// Memory for reading a copy of a store, in bytes.
const CHECK_MEMORY_BYTES: usize = 8 << 20;

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the log and the stores live.
    pub data_dir: PathBuf,
    /// The prefix of the topic names.
    pub prefix: String,
    /// The partition count of the application.
    pub partitions: u32,
    /// The number of lanes.
    pub lanes: u32,
    /// The name of this node; lanes are named after it.
    pub node_id: String,
    /// The least time between two commits of a lane.
    pub epoch_interval: Duration,
    /// Whether top-ups from the treasury are allowed.
    pub treasury_enabled: bool,
    /// How long a finished command's record answers for its duplicates.
    pub dedup_retention: Duration,
    /// How much younger than that a command must be.
    pub dedup_margin: Duration,
    /// Memory for cached blocks and memtables of all stores, in bytes.
    pub store_memory_bytes: usize,
    /// Wallets kept in memory, over all partitions.
    pub hot_wallets: usize,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// A store cannot be opened.
    #[error("partition {0}: {1}")]
    Store(u32, store::Error),
    /// A directory cannot be made.
    #[error("{0}: {1}")]
    Directory(PathBuf, std::io::Error),
    /// An actor cannot be started.
    #[error("cannot start: {0}")]
    Spawn(#[from] ractor::SpawnErr),
    /// A partition cannot be restored.
    #[error("partition {0}: {1}")]
    Restore(u32, restore::Error),
}

/// Why a read is not answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The partition is halted; nothing it says can be trusted.
    #[error("partition {0} is halted: {1}")]
    Halted(u32, String),
}

/// A record for `commands`.
#[derive(Debug, Clone, Default)]
pub struct Publish {
    /// The partition; none = by key.
    pub partition: Option<u32>,
    /// The key, which should be the home wallet.
    pub key: Option<Bytes>,
    /// The command.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Headers,
}

/// What a full read of a partition's rows found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checked {
    /// The partition.
    pub partition: u32,
    /// The block that it was read at.
    pub block: u64,
    /// Wallets read.
    pub wallets: u64,
    /// Payment records read.
    pub payments: u64,
    /// Holds read.
    pub holds: u64,
    /// The sum of the wallets, by currency code, in major units.
    pub sums: BTreeMap<String, String>,
    /// SHA-256 over every row, in hex.
    pub digest: String,
    /// Everything that is wrong, in words.
    pub differences: Vec<String>,
}

/// How a partition is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: u32,
    /// The lane it runs on.
    pub lane: String,
    /// `running`, `halted` or `stopped`.
    pub state: String,
    /// Why it is halted.
    pub cause: Option<String>,
    /// The number of its last committed block.
    pub block: u64,
    /// Commands not consumed yet.
    pub commands_lag: u64,
    /// Postings not consumed yet.
    pub postings_lag: u64,
}

/// A running or opened node; clones share it.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    settings: Settings,
    log: EmbeddedLog,
    partitions: BTreeMap<u32, Arc<Committed>>,
    waiters: Arc<Waiters>,
    root: Option<ActorRef<root::Message>>,
}

/// Callers who wait for a payment's terminal state.
#[derive(Default)]
pub(crate) struct Waiters(Mutex<HashMap<PaymentId, Vec<oneshot::Sender<PaymentState>>>>);

impl Waiters {
    /// Wakes those whose payment has ended.
    pub(crate) fn wake(&self, outcomes: &[Outcome]) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            return;
        }
        for outcome in outcomes.iter().filter(|outcome| outcome.state.is_terminal()) {
            for waiter in waiting.remove(&outcome.payment).into_iter().flatten() {
                // Who has gone needs no answer.
                let _ = waiter.send(outcome.state);
            }
        }
    }

    fn wait(&self, payment: PaymentId) -> oneshot::Receiver<PaymentState> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(payment).or_default().push(sender);
        receiver
    }
}

impl Node {
    /// Starts the engine: restores every partition and begins to take commands. A partition that cannot be restored is halted.
    pub async fn start(settings: Settings) -> Result<Node, StartError> {
        let mut inner = open(settings)?;
        let (root, _) = Actor::spawn(None, Root, lanes(&inner)).await?;
        inner.root = Some(root);
        Ok(Node(Arc::new(inner)))
    }

    /// Opens the directory for reading: restores every partition, takes no commands.
    pub fn open(settings: Settings) -> Result<Node, StartError> {
        let inner = open(settings)?;
        let mut session = inner.log.session("reader")?;
        for (id, committed) in &inner.partitions {
            let claim = session.claim(*id)?;
            let head = restore::restore(&inner.log, &*committed.store, *id, claim.position.as_ref())
                .map_err(|error| StartError::Restore(*id, error))?;
            committed.show(Arc::from([]), Condition::at(&head));
        }
        Ok(Node(Arc::new(inner)))
    }

    /// Finishes what is in flight, writes the stores and stops the actors.
    pub async fn stop(&self) {
        if let Some(root) = &self.0.root {
            // A root that does not answer in time is stopped all the same: the log holds the truth.
            let _ = ractor::call_t!(root, root::Message::Drain, STOP_TIMEOUT_MS);
            root.stop_children_and_wait(None, Some(Duration::from_secs(5))).await;
            let _ = root.stop_and_wait(None, Some(Duration::from_secs(5))).await;
        }
    }

    /// The partition count.
    pub fn partitions_count(&self) -> u32 {
        self.0.settings.partitions
    }

    /// Appends commands; durable when it returns. Order within a partition is kept.
    pub async fn publish(&self, records: Vec<Publish>) -> Result<Vec<Coordinates>, log::Error> {
        let count = self.0.settings.partitions;
        let mut batches: BTreeMap<u32, Vec<Outgoing>> = BTreeMap::new();
        let mut places = Vec::with_capacity(records.len());
        for record in records {
            let partition =
                record.partition.unwrap_or_else(|| partition_of_key(record.key.as_deref().unwrap_or_default(), count));
            let batch = batches.entry(partition).or_default();
            places.push((partition, batch.len() as u64));
            batch.push(Outgoing { key: record.key, value: record.value, headers: record.headers });
        }
        let log = self.0.log.clone();
        let partitions: Vec<u32> = batches.keys().copied().collect();
        let append = tokio::task::spawn_blocking(move || log.append_all(batches.into_iter().collect()));
        let bases = append.await.map_err(|error| log::Error::Unavailable(error.to_string()))??;
        let bases: BTreeMap<u32, u64> = partitions.into_iter().zip(bases).collect();
        let base = |partition| bases.get(&partition).copied().unwrap_or_default();
        Ok(places.into_iter().map(|(partition, index)| Coordinates { partition, offset: base(partition) + index }).collect())
    }

    /// Committed records of a topic.
    pub fn fetch(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, log::Error> {
        self.0.log.fetch(topic, partition, from, bytes_max)
    }

    /// The offsets that a topic's partition holds.
    pub fn range(&self, topic: Topic, partition: u32) -> Result<std::ops::Range<u64>, log::Error> {
        self.0.log.range(topic, partition)
    }

    /// Returns when the log has changed, or at the deadline.
    pub async fn changed(&self, deadline: Duration) {
        let mut changed = self.0.log.changed();
        let _ = tokio::time::timeout(deadline, changed.changed()).await;
    }

    /// A wallet as it is committed.
    pub fn wallet(&self, id: &WalletId) -> Result<Option<Wallet>, ReadError> {
        Ok(self
            .committed(partition_of_wallet(id, self.0.settings.partitions))?
            .map(|held| held.wallet(id))
            .transpose()?
            .flatten())
    }

    /// At most `limit` wallets of a partition behind `after`, by id; what is committed but not yet stored may be missing.
    pub fn wallets(&self, partition: u32, after: Option<&WalletId>, limit: usize) -> Result<Vec<Wallet>, ReadError> {
        let Some(committed) = self.committed(partition)? else { return Ok(Vec::new()) };
        let after = after.map(|after| [&[Tag::Wallets as u8], after.as_str().as_bytes()].concat());
        let rows = committed.store.scan(Tag::Wallets, after.as_deref(), limit)?;
        let ids = rows.iter().map(|(key, _)| <Wallets as finflow_state::Table>::decode_key(key).map_err(store::Error::from));
        let mut wallets = Vec::with_capacity(rows.len());
        for id in ids {
            wallets.extend(committed.wallet(&id?)?);
        }
        Ok(wallets)
    }

    /// A payment, or any other command, as it is committed.
    pub fn payment(&self, id: PaymentId) -> Result<Option<Payment>, ReadError> {
        Ok(self
            .committed(partition_of_payment(id, self.0.settings.partitions))?
            .map(|held| held.payment(id))
            .transpose()?
            .flatten())
    }

    /// Waits until a payment has ended, at most until the deadline, and gives it as it is then.
    pub async fn terminal(&self, id: PaymentId, deadline: Duration) -> Result<Option<Payment>, ReadError> {
        let waiting = self.0.waiters.wait(id);
        let known = self.payment(id)?;
        if known.as_ref().is_some_and(|payment| payment.state.is_terminal()) {
            return Ok(known);
        }
        let _ = tokio::time::timeout(deadline, waiting).await;
        self.payment(id)
    }

    /// How every partition is.
    pub fn status(&self) -> Vec<PartitionStatus> {
        let lanes = self.0.settings.lanes;
        let lag = |topic, partition, next| self.range(topic, partition).map_or(0, |range| range.end.saturating_sub(next));
        let all = self.0.partitions.iter().map(|(id, committed)| {
            let condition = committed.condition();
            let state = if self.0.root.is_none() { "stopped" } else { "running" };
            PartitionStatus {
                partition: *id,
                lane: lane_name(&self.0.settings, id % lanes),
                state: if condition.halted.is_some() { "halted" } else { state }.to_owned(),
                block: condition.block,
                commands_lag: lag(Topic::Commands, *id, condition.commands_next),
                postings_lag: lag(Topic::Postings, *id, condition.postings_next),
                cause: condition.halted,
            }
        });
        all.collect()
    }

    /// Waits until every command and posting is consumed and nothing is in flight; `false` at the deadline.
    pub async fn idle(&self, deadline: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < deadline {
            let quiet = self.0.partitions.values().all(|committed| committed.condition().is_quiet);
            let consumed =
                self.status().iter().all(|status| status.commands_lag + status.postings_lag == 0 || status.cause.is_some());
            if quiet && consumed {
                return true;
            }
            self.changed(Duration::from_millis(20)).await;
        }
        false
    }

    /// Lets a halted partition go on.
    pub fn resume(&self, partition: u32) {
        self.tell(partition, Message::Resume(partition));
    }

    /// Kills a partition actor.
    pub fn kill_partition(&self, partition: u32) {
        self.tell(partition, Message::Kill(partition));
    }

    /// Reads every row of every partition and checks the invariants, on a copy that stands still while the engine runs.
    pub async fn check(&self) -> Result<Vec<Checked>, store::Error> {
        let mut checked = Vec::with_capacity(self.0.partitions.len());
        for (id, committed) in &self.0.partitions {
            let copy = self.0.settings.data_dir.join(format!("check-{id}"));
            let (id, store) = (*id, committed.store.clone());
            let found = tokio::task::spawn_blocking(move || {
                let found = check_copy(id, &store, &copy);
                // What is left of a copy is removed by the next check.
                let _ = std::fs::remove_dir_all(&copy);
                found
            });
            checked.push(found.await.map_err(|error| store::Error::Io(error.to_string()))??);
        }
        Ok(checked)
    }

    /// SHA-256 over every row of a partition's store.
    pub fn digest(&self, partition: u32) -> Result<[u8; 32], ReadError> {
        Ok(self.committed(partition)?.map(|committed| store::digest(&*committed.store)).transpose()?.unwrap_or_default())
    }

    fn tell(&self, partition: u32, message: Message) {
        if let Some(root) = &self.0.root {
            let _ = root.cast(root::Message::Tell(partition % self.0.settings.lanes, message));
        }
    }

    fn committed(&self, partition: u32) -> Result<Option<&Arc<Committed>>, ReadError> {
        let committed = self.0.partitions.get(&partition);
        match committed.and_then(|committed| committed.condition().halted) {
            Some(cause) => Err(ReadError::Halted(partition, cause)),
            None => Ok(committed),
        }
    }
}

fn check_copy(partition: u32, store: &RocksStore, copy: &std::path::Path) -> Result<Checked, store::Error> {
    if copy.exists() {
        std::fs::remove_dir_all(copy).map_err(|error| store::Error::Io(error.to_string()))?;
    }
    store.checkpoint(copy)?;
    let copy = RocksStore::open(copy, &Shared::new(CHECK_MEMORY_BYTES))?;
    let found = store::verify(&copy)?;
    let text =
        |(currency, minor): (&Currency, &i128)| (currency.code().to_owned(), Money::from_minor(*minor, *currency).to_string());
    Ok(Checked {
        partition,
        block: copy.head().map_or(0, |head| head.number),
        wallets: found.wallets,
        payments: found.payments,
        holds: found.holds,
        sums: found.wallet_sums.iter().map(text).collect(),
        digest: store::digest(&copy)?.iter().map(|byte| format!("{byte:02x}")).collect(),
        differences: found.differences,
    })
}

fn open(settings: Settings) -> Result<Inner, StartError> {
    let state_dir = settings.data_dir.join("state");
    std::fs::create_dir_all(&state_dir).map_err(|error| StartError::Directory(state_dir.clone(), error))?;
    let log = EmbeddedLog::open(&settings.data_dir.join("log"), settings.partitions)?;
    restore::create(&log, Generation(fresh_id()), now_ms())?;
    let shared = Shared::new(settings.store_memory_bytes);
    let mut partitions = BTreeMap::new();
    for id in 0..settings.partitions {
        let dir = state_dir.join(id.to_string());
        let store = match RocksStore::open(&dir, &shared) {
            Err(store::Error::Corrupt(cause)) => rebuild(&dir, &shared, id, &cause),
            other => other,
        };
        partitions.insert(id, Arc::new(Committed::new(Arc::new(store.map_err(|error| StartError::Store(id, error))?))));
    }
    Ok(Inner { settings, log, partitions, waiters: Arc::default(), root: None })
}

/// Moves a damaged store aside, where its evidence stays, and begins an empty one, which the journal fills again.
fn rebuild(dir: &std::path::Path, shared: &Shared, id: u32, cause: &str) -> Result<RocksStore, store::Error> {
    tracing::warn!(partition = id, cause, "the store is damaged and is rebuilt from the journal");
    let aside = dir.with_extension(format!("damaged-{}", now_ms()));
    std::fs::rename(dir, &aside).map_err(|error| store::Error::Io(error.to_string()))?;
    RocksStore::open(dir, shared)
}

fn lanes(inner: &Inner) -> BTreeMap<u32, Args> {
    let settings = &inner.settings;
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let rules = Arc::new(Rules {
        partitions: settings.partitions,
        prefix: settings.prefix.as_str().into(),
        treasury_enabled: settings.treasury_enabled,
        dedup_retention_ms: millis(settings.dedup_retention),
        dedup_margin_ms: millis(settings.dedup_margin),
        hot_wallets_max: settings.hot_wallets / settings.partitions.max(1) as usize,
    });
    let of = |lane: u32| {
        let partitions = inner.partitions.iter().filter(|(id, _)| *id % settings.lanes == lane);
        let args = Args {
            name: lane_name(settings, lane).into(),
            incarnation: u64::from_be_bytes(fresh_id().first_chunk().copied().unwrap_or_default()),
            rules: rules.clone(),
            epoch_interval: settings.epoch_interval,
            log: inner.log.clone(),
            partitions: partitions.map(|(id, committed)| (*id, committed.clone())).collect(),
            waiters: inner.waiters.clone(),
        };
        (lane, args)
    };
    (0..settings.lanes).map(of).collect()
}

fn lane_name(settings: &Settings, lane: u32) -> String {
    format!("{}-{}-lane-{lane}", settings.prefix, settings.node_id)
}

/// 128 bits that no other process has: names lives and generations, decides nothing.
fn fresh_id() -> [u8; 16] {
    fastrand::u128(..).to_be_bytes()
}
