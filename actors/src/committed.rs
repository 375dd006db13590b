//! What readers may see of a partition: its store and the committed epochs that are not yet in it. Never anything uncommitted.
//!
//! The store is open only while the partition is at home here: where several nodes share the log it is opened when the partition is
//! assigned, restored exactly as at a start, and closed when it goes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError, Weak};
use std::time::{Duration, Instant};

use finflow_ledger::{Payment, PaymentId, Wallet, WalletId};
use finflow_state::{EncodedBlock, Generation, Head, Holds, Overlay, Payments, RocksStore, Store, Table, Tag, Wallets, store};
use finflow_topologies::log::{self, Position};
use finflow_topologies::partition::Layers;
use finflow_topologies::restore::{self, Progress};
use serde::{Deserialize, Serialize};

use crate::log::NodeLog;
use crate::restoring::{Origin, Restored, Restorer};
use crate::watched::Watched;

/// How long opening a partition again waits for those who still read its former store.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_PAUSE: Duration = Duration::from_millis(2);
/// What a lane is told that comes too late.
const ANOTHERS: &str = "another lane of this process has the partition";
/// What a store was restored from that had followed the journal while another process ran the partition.
const STANDBY: &str = "standby";

/// How a partition is, for operators.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    /// The lane that runs it; none while it stands still, or runs elsewhere.
    pub(crate) lane: Option<Arc<str>>,
    pub(crate) block: u64,
    pub(crate) commands_next: u64,
    pub(crate) postings_next: u64,
    pub(crate) halted: Option<String>,
    pub(crate) is_quiet: bool,
    /// The lane of this node that it has been assigned to and that brings it here.
    pub(crate) restored_by: Option<Arc<str>>,
}

impl Condition {
    /// The lane of this node that runs it, or brings it here.
    pub(crate) fn owner(&self) -> Option<&Arc<str>> {
        self.lane.as_ref().or(self.restored_by.as_ref())
    }

    /// Whether no lane of this node has it, or is about to.
    fn is_nobodys(&self) -> bool {
        self.owner().is_none() && self.halted.is_none()
    }

    /// That of a partition that stands still at `head`.
    pub(crate) fn at(head: &Head) -> Condition {
        Condition {
            lane: None,
            block: head.number,
            commands_next: head.positions.commands,
            postings_next: head.positions.postings,
            halted: None,
            is_quiet: true,
            restored_by: None,
        }
    }
}

/// The committed state of one partition, shared by its lane and all readers.
pub(crate) struct Committed {
    id: u32,
    restorer: Arc<Restorer>,
    held: RwLock<Held>,
    /// Held by whoever writes the store: a lane that died may have left a write behind, which its successor must not meet.
    writer: Mutex<()>,
    layers: RwLock<Layers>,
    /// Locked by who changes what the lane that it names has: before `held`, and after `writer` where both are.
    condition: Mutex<Condition>,
    fault: Mutex<Option<String>>,
    restoring: Mutex<Option<Restoring>>,
    watched: Mutex<Watched>,
}

/// How far a partition is being restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    /// The block that its store has reached.
    pub block: u64,
    /// The block that it has to reach.
    pub target: u64,
}

/// The store of a partition that is at home here.
#[derive(Default)]
struct Held {
    /// `None` where it could not be restored, which halts it, or where the partition is not at home.
    store: Option<Arc<RocksStore>>,
    origin: Origin,
    /// It could not be restored when the node was opened, and that is settled.
    is_broken: bool,
    /// The store that was opened last: readers may keep it open for a while, and its directory shut.
    last: Weak<()>,
}

impl Held {
    fn of(restored: Restored) -> (Held, Head) {
        let Restored { store, head, origin } = restored;
        (Held { last: store.presence(), store: Some(Arc::new(store)), origin, is_broken: false }, head)
    }
}

impl Committed {
    /// A partition that is not at home yet.
    pub(crate) fn absent(id: u32, restorer: Arc<Restorer>) -> Committed {
        let (held, writer, layers) = (RwLock::default(), Mutex::default(), RwLock::new(Arc::from([])));
        let (condition, fault, restoring, watched) = Default::default();
        Committed { id, restorer, held, writer, layers, condition, fault, restoring, watched }
    }

    /// What came of restoring the partition.
    pub(crate) fn new(id: u32, restorer: Arc<Restorer>, restored: Result<Restored, restore::Error>) -> Committed {
        let (held, condition) = match restored {
            Ok(restored) => {
                let (held, head) = Held::of(restored);
                (held, Condition::at(&head))
            }
            Err(cause) => (
                Held { is_broken: true, ..Held::default() },
                Condition { halted: Some(cause.to_string()), ..Condition::default() },
            ),
        };
        let absent = Committed::absent(id, restorer);
        Committed { held: RwLock::new(held), condition: Mutex::new(condition), ..absent }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// That of the application, which every block of the journal has to have.
    pub(crate) fn generation(&self) -> Generation {
        self.restorer.generation
    }

    /// The store, if it is open. Whoever keeps it for long keeps the partition from coming back to this node.
    pub(crate) fn store(&self) -> Option<Arc<RocksStore>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).store.clone()
    }

    /// What the store was restored from.
    pub(crate) fn origin(&self) -> Origin {
        self.held.read().unwrap_or_else(PoisonError::into_inner).origin
    }

    /// The store, if the partition runs on a lane of this node and is not halted: only then is what it holds to be spread.
    pub(crate) fn running(&self) -> Option<Arc<RocksStore>> {
        let condition = self.condition();
        self.store().filter(|_| condition.lane.is_some() && condition.halted.is_none())
    }

    /// Whether it could not be restored when the node was opened.
    pub(crate) fn is_broken(&self) -> bool {
        self.held.read().unwrap_or_else(PoisonError::into_inner).is_broken
    }

    /// Has a partition that could not be restored be tried again, and gives the store that it may have left open; nothing where it is
    /// another lane's.
    pub(crate) fn give_another_chance(&self, lane: &Arc<str>) -> Option<Arc<RocksStore>> {
        let mut condition = self.lock_condition();
        if condition.owner().is_some_and(|owner| owner != lane) {
            return None;
        }
        *condition = Condition { restored_by: Some(lane.clone()), ..Condition::default() };
        self.held.write().unwrap_or_else(PoisonError::into_inner).is_broken = false;
        self.close()
    }

    /// Notes that the store is corrupt, so that whoever opens it next builds it again.
    pub(crate) fn mark_damaged(&self, cause: &str) {
        self.restorer.mark_damaged(self.id, cause);
    }

    /// Brings the state to the committed position for the lane that has it, while nobody else writes it: on from the store that is open,
    /// or else exactly as at a start, from the directory, the newest snapshot or the journal alone.
    pub(crate) fn restore(&self, lane: &str, log: &NodeLog, position: Option<&Position>) -> Result<Head, restore::Error> {
        self.restore_to(lane, log, position, position)
    }

    /// The same to the block of a position that may not be committed yet, where `read` is the one that was.
    pub(crate) fn restore_to(
        &self,
        lane: &str,
        log: &NodeLog,
        position: Option<&Position>,
        read: Option<&Position>,
    ) -> Result<Head, restore::Error> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_of(lane) {
            return Err(log::Error::Unavailable(ANOTHERS.to_owned()).into());
        }
        let restored =
            self.restore_observed(log, position, &|block, target| self.set_restoring(Some(Restoring { block, target })));
        self.set_restoring(None);
        restored.map_err(|cause| self.judged(log, read, cause))
    }

    fn restore_observed(
        &self,
        log: &NodeLog,
        position: Option<&Position>,
        progress: Progress<'_>,
    ) -> Result<Head, restore::Error> {
        if let Some(store) = self.store() {
            match self.restorer.bring_on(log, &store, self.id, position, progress) {
                // Who opens the directory anew finds that too, and another way.
                Err(restore::Error::Behind { .. } | restore::Error::Store(store::Error::Corrupt(_))) => {}
                other => return other,
            }
        }
        drop(self.close());
        self.wait_until_closed()?;
        let (held, head) = Held::of(self.restorer.restore(log, self.id, position, progress)?);
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(head)
    }

    /// Goes on behind the process that runs the partition, while no lane of this one has it: from the offset in its journal behind what
    /// the store holds, or where that is not known exactly as at a start. Gives the next such offset; `None` where somebody else is
    /// busy with the partition, or has it.
    ///
    /// What is open then is what the partition goes on with when it is assigned to a lane here.
    pub(crate) fn stand_by(&self, log: &NodeLog, next: Option<u64>) -> Result<Option<u64>, restore::Error> {
        let Some(_writer) = self.idle_writer() else { return Ok(None) };
        if let (Some(store), Some(next)) = (self.store(), next) {
            return restore::follow(log, &*store, self.id, next).map(Some);
        }
        drop(self.close());
        self.wait_until_closed()?;
        let position = log.position(self.id)?;
        let store = match self.restorer.restore(log, self.id, position.as_ref(), &|_, _| {}) {
            Ok(restored) => restored.store,
            // The owner has gone on meanwhile.
            Err(restore::Error::Outrun { .. }) => self.restorer.open(self.id)?,
            Err(cause) => return Err(self.judged(log, position.as_ref(), cause)),
        };
        let due = store.head().map_or(0, |head| head.number.saturating_add(1));
        let next = restore::offset_of(log, self.id, due)?;
        let origin = Origin { source: STANDBY, replayed: 0 };
        let held = Held { last: store.presence(), store: Some(Arc::new(store)), origin, is_broken: false };
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(Some(next))
    }

    /// What it comes to that state and log contradict each other: where the position has moved since it was read, somebody else has the
    /// partition, or has had it meanwhile, and may have taken a snapshot that is ahead of it.
    fn judged(&self, log: &NodeLog, position: Option<&Position>, cause: restore::Error) -> restore::Error {
        let is_contradiction =
            matches!(cause, restore::Error::Outrun { .. } | restore::Error::Short { .. } | restore::Error::Contradiction(_));
        if !is_contradiction {
            return cause;
        }
        let block = |position: Option<&Position>| position.map_or(0, |position| position.block);
        match log.position(self.id) {
            Ok(now) if now.as_ref() == position => cause,
            Ok(now) => restore::Error::Overtaken { before: block(position), now: block(now.as_ref()) },
            Err(error) => error.into(),
        }
    }

    /// Closes what [`Committed::stand_by`] has opened, unless a lane has it by now.
    pub(crate) fn stand_down(&self) {
        let writer = self.idle_writer();
        if writer.is_some() && self.stands_by().is_some() {
            drop(self.close());
        }
    }

    /// The block that a store has come to which follows its journal while no lane of this node runs the partition.
    pub(crate) fn stands_by(&self) -> Option<u64> {
        let is_nobodys = self.condition().is_nobodys();
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let store = held.store.as_ref().filter(|_| held.origin.source == STANDBY && is_nobodys);
        store.and_then(|store| store.head()).map(|head| head.number)
    }

    /// The right to write the store, if nobody has it and no lane of this node has the partition, or is about to: who is about to waits
    /// for it.
    fn idle_writer(&self) -> Option<MutexGuard<'_, ()>> {
        let writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        self.condition().is_nobodys().then_some(writer)
    }

    /// Takes the store away; it is closed when the last who reads it lets go, which may take the disk a while.
    fn close(&self) -> Option<Arc<RocksStore>> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.origin = Origin::default();
        held.store.take()
    }

    fn wait_until_closed(&self) -> Result<(), log::Error> {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let last = self.held.read().unwrap_or_else(PoisonError::into_inner).last.clone();
        while 0 < last.strong_count() {
            if deadline < Instant::now() {
                return Err(log::Error::Unavailable(format!("the former store of partition {} is still in use", self.id)));
            }
            std::thread::sleep(CLOSE_PAUSE);
        }
        Ok(())
    }

    /// Writes blocks to the store for the lane that has the partition; those that it holds already are refused.
    pub(crate) fn apply(&self, lane: &str, blocks: &[EncodedBlock]) -> Result<(), store::Error> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_of(lane) {
            return Err(store::Error::Busy(ANOTHERS.to_owned()));
        }
        self.open_store()?.apply(blocks)
    }

    fn open_store(&self) -> Result<Arc<RocksStore>, store::Error> {
        self.store().ok_or_else(|| store::Error::Io("it is not open".to_owned()))
    }

    /// Shows that a lane is about to bring the partition here, unless another one has it so far.
    pub(crate) fn announce(&self, lane: &Arc<str>) {
        let condition = self.lock_condition();
        if condition.owner().is_none_or(|owner| owner == lane) {
            self.hand_to(lane, condition);
        }
    }

    /// The partition is a lane's that has claimed it: whatever the one still does that had it before changes nothing of it any more.
    pub(crate) fn take(&self, lane: &Arc<str>) {
        let condition = self.lock_condition();
        if condition.owner() != Some(lane) {
            self.hand_to(lane, condition);
        }
    }

    /// Nothing of it is seen until the lane shows it. Only an operator ends a halt.
    fn hand_to(&self, lane: &Arc<str>, mut condition: MutexGuard<'_, Condition>) {
        let halted = condition.halted.take();
        *condition = Condition { halted, restored_by: Some(lane.clone()), ..Condition::default() };
        self.set_layers(Arc::from([]));
    }

    /// Whether the partition is this lane's.
    pub(crate) fn is_of(&self, lane: &str) -> bool {
        self.owned_by(lane).is_some()
    }

    /// The condition, if the partition is this lane's, which no other one takes while that is held.
    fn owned_by(&self, lane: &str) -> Option<MutexGuard<'_, Condition>> {
        let condition = self.lock_condition();
        condition.owner().is_some_and(|owner| **owner == *lane).then_some(condition)
    }

    /// Lets readers see what the lane that has the partition has committed.
    pub(crate) fn show(&self, lane: &str, layers: Layers, shown: Condition) {
        if let Some(mut condition) = self.owned_by(lane) {
            *condition = shown;
            self.set_layers(layers);
        }
    }

    /// Shows the partition as nobody's and takes its store away, if it is this lane's.
    pub(crate) fn put_away(&self, lane: &str) -> Option<Arc<RocksStore>> {
        let mut condition = self.owned_by(lane)?;
        *condition = Condition::default();
        self.set_layers(Arc::from([]));
        *self.lock_fault() = None;
        self.close()
    }

    fn set_layers(&self, layers: Layers) {
        *self.layers.write().unwrap_or_else(PoisonError::into_inner) = layers;
    }

    /// Takes the partition out of sight, because the lane that ran it has died: what it had is its own until another one has claimed it.
    pub(crate) fn suspend(&self, lane: &Arc<str>) {
        let mut condition = self.lock_condition();
        if condition.lane.as_ref() == Some(lane) {
            *condition = Condition { lane: None, restored_by: Some(lane.clone()), ..condition.clone() };
        }
    }

    /// Shows the partition as halted: nobody will go on with it in this process.
    pub(crate) fn give_up(&self, cause: &str) {
        self.lock_condition().halted = Some(cause.to_owned());
    }

    /// Why the store cannot be written or read now; `None` while it can.
    pub(crate) fn fault(&self) -> Option<String> {
        self.lock_fault().clone()
    }

    /// Notes what the lane that has the partition has found.
    pub(crate) fn set_fault(&self, lane: &str, fault: Option<String>) {
        if let Some(_condition) = self.owned_by(lane) {
            *self.lock_fault() = fault;
        }
    }

    fn lock_fault(&self) -> MutexGuard<'_, Option<String>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it was being restored when that was told last.
    pub(crate) fn restoring(&self) -> Option<Restoring> {
        *self.restoring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_restoring(&self, restoring: Option<Restoring>) {
        *self.restoring.lock().unwrap_or_else(PoisonError::into_inner) = restoring;
    }

    /// What was seen of it at the last look.
    pub(crate) fn watched(&self) -> Watched {
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn watch(&self, watched: Watched) {
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = watched;
    }

    pub(crate) fn condition(&self) -> Condition {
        self.lock_condition().clone()
    }

    fn lock_condition(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wallet(&self, id: &WalletId) -> Result<Option<Wallet>, store::Error> {
        self.read::<Wallets>(id, |overlay| overlay.wallets.get(id).map(|row| row.cloned()))
    }

    /// At most `limit` wallets behind `after`, by id.
    pub(crate) fn wallets(&self, after: Option<&WalletId>, limit: usize) -> Result<Vec<Wallet>, store::Error> {
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let from = after.map(key_of::<Wallets>);
        let rows = self.open_store()?.scan(Tag::Wallets, from.as_deref(), limit)?;
        let mut ids = BTreeSet::new();
        for (key, _) in &rows {
            ids.insert(Wallets::decode_key(key)?);
        }
        // Of a full page, nothing behind its last row is known to be next.
        let last = ids.last().filter(|_| rows.len() == limit).cloned();
        let layered = layers.iter().flat_map(|overlay| overlay.wallets.iter().map(|(id, _)| id));
        let is_here = |id: &&WalletId| after.is_none_or(|after| after < *id) && last.as_ref().is_none_or(|last| *id <= last);
        ids.extend(layered.filter(is_here).cloned());
        let mut wallets = Vec::with_capacity(ids.len().min(limit));
        for id in ids.iter().take(limit) {
            wallets.extend(self.wallet(id)?);
        }
        Ok(wallets)
    }

    pub(crate) fn payment(&self, id: PaymentId) -> Result<Option<Payment>, store::Error> {
        self.read::<Payments>(&id, |overlay| overlay.payments.get(&id).map(|row| row.cloned()))
    }

    /// The payments that money is held for: of those in the store at most `limit` behind `after`, and all that are not yet in it. Also, the
    /// last of the store's, where there may be more behind it.
    pub(crate) fn held(
        &self,
        after: Option<&PaymentId>,
        limit: usize,
    ) -> Result<(BTreeSet<PaymentId>, Option<PaymentId>), store::Error> {
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let from = after.map(key_of::<Holds>);
        let stored = self.open_store()?.scan(Tag::Holds, from.as_deref(), limit)?;
        let ids = stored.iter().map(|(key, _)| Holds::decode_key(key)).collect::<Result<Vec<_>, _>>()?;
        let last = ids.last().copied().filter(|_| ids.len() == limit);
        let mut held = BTreeSet::from_iter(ids);
        // The newest layer comes first.
        for (id, hold) in layers.iter().rev().flat_map(|overlay| overlay.holds.iter()) {
            match hold {
                Some(_) => held.insert(*id),
                None => held.remove(id),
            };
        }
        Ok((held, last))
    }

    /// Whether money is held for a payment.
    pub(crate) fn holds(&self, id: &PaymentId) -> Result<bool, store::Error> {
        Ok(self.read::<Holds>(id, |overlay| overlay.holds.get(id).map(|row| row.cloned()))?.is_some())
    }

    /// The layers are taken before the store is read: an epoch that moves from one to the other meanwhile is seen twice, not never.
    fn read<T: Table>(
        &self,
        key: &T::Key,
        layered: impl Fn(&Overlay) -> Option<Option<T::Value>>,
    ) -> Result<Option<T::Value>, store::Error> {
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(row) = layers.iter().find_map(|overlay| layered(overlay)) {
            return Ok(row);
        }
        let row = self.open_store()?.get(&key_of::<T>(key))?;
        Ok(row.map(|row| T::decode(key, &row)).transpose()?)
    }
}

fn key_of<T: Table>(key: &T::Key) -> Vec<u8> {
    let mut bytes = Vec::new();
    T::encode_key(key, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
