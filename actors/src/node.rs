//! A node: one process's engine. Opens the log and the stores, supervises the lanes, and answers readers from committed state.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use finflow_ledger::{Coordinates, Payment, PaymentId, Wallet, WalletId};
use finflow_state::{RocksStore, snapshot, store};
use finflow_topologies::Topic;
use finflow_topologies::log::{self, Fetched, Headers, Log, Outgoing};
use finflow_topologies::topics::{RECORD_BYTES_MAX, partition_of_key, partition_of_payment, partition_of_wallet};
use ractor::{Actor, ActorRef};
use tokio::sync::watch;

pub use self::adopting::{Adopted, adopt};
pub use self::answers::Awaited;
pub use self::belonging::{Foreign, belongs};
pub use self::moving::{MoveError, Rescaled, Source, bring, rescale};
pub use self::opening::discard;
use self::opening::{Purpose, arguments, open};
pub use self::resuming::{Expired, JournalEnd, ResumeError};
use self::root::Root;
pub use self::status::PartitionStatus;
pub use self::stopping::STOP_MAX;
pub use crate::checking::Checked;
use crate::clock::Guard;
use crate::committed::{Committed, Condition};
use crate::housekeeper::Seen;
use crate::lane::{Message, Troubles};
use crate::log::NodeLog;
use crate::log::embedded::{Disk, LocalDisk};
use crate::partition::Hang;
use crate::settings::Settings;
use crate::snapshots::Carrier;
use crate::socket::Peers;
use crate::waiters::Waiters;

mod adopting;
mod answers;
mod belonging;
mod departure;
mod moving;
mod opening;
mod resuming;
mod root;
mod status;
mod stopping;
mod upkeep;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// A directory cannot be made.
    #[error("{0}: {1}")]
    Directory(PathBuf, std::io::Error),
    /// The data directory is another application's, or another log's.
    #[error(transparent)]
    Foreign(#[from] Foreign),
    /// The place for snapshots cannot be used as it is set.
    #[error(transparent)]
    Snapshots(#[from] snapshot::Error),
    /// An actor cannot be started.
    #[error("cannot start: {0}")]
    Spawn(#[from] ractor::SpawnErr),
}

impl StartError {
    /// What keeps an actor from starting; a lane that the log refuses, or does not answer, for the log's own reason.
    fn of(error: ractor::SpawnErr) -> StartError {
        use log::Error::{Forbidden, Lasting, Refused, Unavailable};
        let refused =
            of_log(&error).filter(|cause| matches!(cause, Refused(_) | Forbidden(_) | Lasting(_) | Unavailable(_))).cloned();
        refused.map_or(StartError::Spawn(error), StartError::Log)
    }
}

/// The log's own reason why an actor does not start, if it is the log's.
fn of_log(error: &ractor::SpawnErr) -> Option<&log::Error> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |cause| cause.source()).find_map(|cause| cause.downcast_ref())
}

/// Why a read is not answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// No lane of this node runs the partition at present, or its owner cannot be sure to have it still.
    #[error("partition {0} is not available now, retry")]
    Elsewhere(u32),
    /// The partition is halted; nothing it says can be trusted.
    #[error("partition {0} is halted: {1}")]
    Halted(u32, String),
}

/// A record for `commands`; never printed, because it is about people.
#[derive(Clone, Default)]
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

impl Publish {
    fn bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        length(&self.key) + length(&self.value) + self.headers.as_bytes().len()
    }
}

/// A running or opened node; clones share it.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    settings: Settings,
    log: NodeLog,
    partitions: BTreeMap<u32, Arc<Committed>>,
    carrier: Arc<Carrier>,
    waiters: Arc<Waiters>,
    peers: Peers,
    /// It has left its group for good.
    is_gone: watch::Sender<bool>,
    clock: Arc<Guard>,
    /// What is wrong with the topics, and what has come to those that were left.
    misfit: Seen,
    doubtful: Seen,
    /// What keeps dying beside the lanes, and is not started any more.
    given_up: Seen,
    /// What keeps each lane from its work.
    troubles: BTreeMap<u32, Arc<Troubles>>,
    started_ms: i64,
    root: Option<ActorRef<root::Message>>,
}

impl Node {
    /// Starts the engine: restores its partitions and begins to take commands. A partition that cannot be restored is halted. Where
    /// others share the log, partitions come and go while it runs.
    pub async fn start(settings: Settings) -> Result<Node, StartError> {
        Node::start_on(Arc::new(LocalDisk), settings).await
    }

    /// Starts the engine with its log on a disk of a test's own making.
    #[doc(hidden)]
    pub async fn start_on(disk: Arc<dyn Disk>, settings: Settings) -> Result<Node, StartError> {
        let mut inner = open(disk, settings, Purpose::Run)?;
        let (root, _) = Actor::spawn(None, Root, arguments(&inner)).await.map_err(StartError::of)?;
        inner.root = Some(root);
        Ok(Node(Arc::new(inner)))
    }

    /// Opens the directory for reading: restores every partition, takes no commands. A partition that cannot be restored is halted.
    pub fn open(settings: Settings) -> Result<Node, StartError> {
        Ok(Node(Arc::new(open(Arc::new(LocalDisk), settings, Purpose::Read)?)))
    }

    /// Whether other nodes share the log.
    pub fn is_shared(&self) -> bool {
        self.0.log.is_shared()
    }

    /// Takes note that it has left and that whoever asked for it knows.
    pub(crate) fn note_gone(&self) {
        self.0.is_gone.send_replace(true);
    }

    /// Returns when the node has left because somebody asked it to.
    pub async fn gone(&self) {
        // The sender lives as long as the node.
        let _ = self.0.is_gone.subscribe().wait_for(|is_gone| *is_gone).await;
    }

    /// Returns when the process has to end, with the reason: it was replaced, or its log's client hangs. What it holds is not to be
    /// trusted any more; what was accepted is in the log, and another start goes on with it.
    pub async fn ended(&self) -> String {
        let ends = self.0.log.ends();
        let cause = ends.subscribe().wait_for(Option::is_some).await.map(|cause| cause.clone());
        cause.ok().flatten().unwrap_or_default()
    }

    /// The partition count.
    pub fn partitions_count(&self) -> u32 {
        self.0.settings.partitions
    }

    /// Appends commands; durable when it returns, and told where each stands. Order within a partition is kept; commands of others may come
    /// between. Where one is too large, none is appended; after any other error some may have been, and all can be sent again.
    pub async fn publish(&self, records: Vec<Publish>) -> Result<Vec<Coordinates>, log::Error> {
        let count = self.0.settings.partitions;
        let mut batches: BTreeMap<u32, Vec<Outgoing>> = BTreeMap::new();
        let mut places = Vec::with_capacity(records.len());
        for record in records {
            let bytes = record.bytes();
            if RECORD_BYTES_MAX < bytes {
                return Err(log::Error::TooLarge { bytes, max: RECORD_BYTES_MAX });
            }
            let partition =
                record.partition.unwrap_or_else(|| partition_of_key(record.key.as_deref().unwrap_or_default(), count));
            let batch = batches.entry(partition).or_default();
            places.push(partition);
            batch.push(Outgoing { key: record.key, value: record.value, headers: record.headers, ..Outgoing::default() });
        }
        let log = self.0.log.clone();
        let partitions: Vec<u32> = batches.keys().copied().collect();
        let append = tokio::task::spawn_blocking(move || log.append_all(batches.into_iter().collect()));
        let offsets = append.await.map_err(|error| log::Error::Unavailable(error.to_string()))??;
        let mut offsets: BTreeMap<u32, _> = partitions.into_iter().zip(offsets.into_iter().map(Vec::into_iter)).collect();
        let place = |partition| {
            let offset = offsets.get_mut(&partition).and_then(Iterator::next);
            let offset =
                offset.ok_or_else(|| log::Error::Unavailable("the log does not say where it has a record".to_owned()))?;
            Ok(Coordinates { partition, offset })
        };
        places.into_iter().map(place).collect()
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
        self.read(partition_of_wallet(id, self.0.settings.partitions), |held| held.wallet(id))
    }

    /// At most `limit` wallets of a partition behind `after`, by id.
    pub fn wallets(&self, partition: u32, after: Option<&WalletId>, limit: usize) -> Result<Vec<Wallet>, ReadError> {
        self.read(partition, |committed| committed.wallets(after, limit))
    }

    /// A payment, or any other command, as it is committed.
    pub fn payment(&self, id: PaymentId) -> Result<Option<Payment>, ReadError> {
        self.read(partition_of_payment(id, self.0.settings.partitions), |held| held.payment(id))
    }

    /// Waits until every command and posting is consumed and nothing is in flight; `false` at the deadline.
    pub async fn idle(&self, deadline: Duration) -> bool {
        let begun = Instant::now();
        let ticks = self.0.log.changed();
        while begun.elapsed() < deadline {
            let before = *ticks.borrow();
            let quiet = self.0.partitions.values().all(|committed| committed.condition().is_quiet);
            let consumed =
                self.status().iter().all(|status| status.commands_lag + status.postings_lag == 0 || status.cause.is_some());
            // Partitions are read one after the other: a posting that was committed meanwhile may have been overlooked.
            if quiet && consumed && self.0.log.fault().is_none() && *ticks.borrow() == before {
                return true;
            }
            self.changed(Duration::from_millis(20)).await;
        }
        false
    }

    /// Kills the lane that runs a partition, and returns when it is dead; another one takes its place.
    pub async fn kill_lane(&self, partition: u32) {
        let (sender, dead) = ractor::concurrency::oneshot();
        self.tell(partition, Message::Fail(sender));
        // It dies over the message, and the answer with it.
        let _ = dead.await;
    }

    /// Kills a partition actor.
    pub fn kill_partition(&self, partition: u32) {
        self.tell(partition, Message::Kill(partition));
    }

    /// Kills those that work beside the lanes: the housekeeper, the timers, what follows others. New ones take their place.
    pub fn kill_beside(&self) {
        if let Some(root) = &self.0.root {
            let _ = root.cast(root::Message::FailBeside);
        }
    }

    /// Lets a partition actor stand still until what is given back is dropped; returns when it does.
    pub async fn hang_partition(&self, partition: u32) -> std::sync::mpsc::Sender<()> {
        let (sender, until) = std::sync::mpsc::channel();
        let (begins, begun) = ractor::concurrency::oneshot();
        self.tell(partition, Message::Hang(partition, Hang { begins, until: until.into() }));
        let _ = begun.await;
        sender
    }

    /// Has the next commit of the lane that runs a partition hang half done, as a call of the Kafka client may, until what is given back
    /// is dropped. The embedded log has no such call.
    pub fn hang_commit(&self, partition: u32) -> std::sync::mpsc::Sender<()> {
        let (sender, until) = std::sync::mpsc::channel();
        let lane = self.0.partitions.get(&partition).and_then(|committed| committed.condition().lane);
        if let (NodeLog::Kafka(log), Some(lane)) = (&self.0.log, lane) {
            log.hang_commit(&lane, until);
        }
        sender
    }

    /// Why no epoch begins anywhere, if so: the wall clock is wrong.
    pub fn clock_cause(&self) -> Option<String> {
        self.0.clock.strayed().map(|strayed| strayed.to_string())
    }

    /// SHA-256 over every row of a partition's store.
    pub fn digest(&self, partition: u32) -> Result<[u8; 32], ReadError> {
        let digest = |store: &Arc<RocksStore>| store::digest(&**store);
        self.inspect(partition, |committed| Ok(committed.store().as_ref().map(digest).transpose()?.unwrap_or_default()))
    }

    /// Tells the lane that runs the partition.
    fn tell(&self, partition: u32, message: Message) {
        let name = self.0.partitions.get(&partition).and_then(|committed| committed.condition().lane);
        if let (Some(root), Some(name)) = (&self.0.root, name) {
            let _ = root.cast(root::Message::Tell(name, message));
        }
    }

    /// Whether a partition in this condition may be another node's.
    fn is_elsewhere(&self, condition: &Condition) -> bool {
        self.0.log.is_shared() && self.0.root.is_some() && condition.lane.is_none() && condition.halted.is_none()
    }

    /// Reads committed state, and makes sure that it was nobody else's meanwhile: only then is it what everybody has to see.
    fn read<T: Default>(&self, partition: u32, read: impl FnOnce(&Committed) -> Result<T, store::Error>) -> Result<T, ReadError> {
        let found = self.inspect(partition, read)?;
        let condition = self.0.partitions.get(&partition).map(|committed| committed.condition());
        // A lane that has let go meanwhile may have lost the partition before.
        let is_its_lanes = |condition: Condition| match &condition.lane {
            Some(lane) => self.0.log.has_lease(lane, partition),
            None => !self.is_elsewhere(&condition),
        };
        let is_ours = self.0.root.is_none() || condition.is_none_or(is_its_lanes);
        if is_ours { Ok(found) } else { Err(ReadError::Elsewhere(partition)) }
    }

    /// What processes that ask each other have in common; `None` where this one answers for everything that can be known.
    pub(crate) fn secret(&self) -> Option<&str> {
        self.0.root.as_ref().and_then(|_| self.0.log.secret())
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.0.peers
    }

    /// Where to ask the process that runs a partition, if it is another one.
    pub(crate) fn owner_elsewhere(&self, partition: u32) -> Option<String> {
        let owner = self.0.log.owner(partition)?;
        owner.address.filter(|_| !self.is_own_lane(&owner.lane))
    }

    /// Reads committed state as it is here. A partition that is halted answers nothing; one that turns out to be corrupt is halted.
    fn inspect<T: Default>(
        &self,
        partition: u32,
        read: impl FnOnce(&Committed) -> Result<T, store::Error>,
    ) -> Result<T, ReadError> {
        let Some(committed) = self.0.partitions.get(&partition) else { return Ok(T::default()) };
        let condition = committed.condition();
        if let Some(cause) = condition.halted {
            return Err(ReadError::Halted(partition, cause));
        }
        if self.is_elsewhere(&condition) {
            return Err(ReadError::Elsewhere(partition));
        }
        let found = read(committed);
        match &found {
            Err(store::Error::Corrupt(cause)) => {
                committed.mark_damaged(cause);
                self.tell(partition, Message::Corrupt(partition, cause.clone()));
            }
            // Its lane has let go of it meanwhile.
            Err(_) if self.is_elsewhere(&committed.condition()) || committed.store().is_none() => {
                return Err(ReadError::Elsewhere(partition));
            }
            Ok(_) | Err(_) => {}
        }
        Ok(found?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_fails_for_the_reason_that_the_log_has() {
        let forbidden = || log::Error::Forbidden("not authorized: Read on group finflow".to_owned());
        let lane = ractor::SpawnErr::StartupFailed(forbidden().into());
        assert_eq!(of_log(&lane), Some(&forbidden()));
        let root = ractor::SpawnErr::StartupFailed(lane.into());
        assert!(matches!(StartError::of(root), StartError::Log(told) if told == forbidden()));
        let fenced = ractor::SpawnErr::StartupFailed(log::Error::Fenced.into());
        assert!(matches!(StartError::of(fenced), StartError::Spawn(_)), "nobody who starts has been fenced");
    }
}
