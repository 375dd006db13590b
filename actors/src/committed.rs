//! What readers may see of a partition: its store and the committed epochs that are not yet in it. Never anything uncommitted.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use finflow_ledger::{Payment, PaymentId, Wallet, WalletId};
use finflow_state::{EncodedBlock, Head, Overlay, Payments, RocksStore, Store, Table, Tag, Wallets, store};
use finflow_topologies::partition::Layers;
use finflow_topologies::restore;

use crate::restoring::{self, Origin, Restored};

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
}

impl Condition {
    /// That of a partition that stands still at `head`.
    pub(crate) fn at(head: &Head) -> Condition {
        Condition {
            lane: None,
            block: head.number,
            commands_next: head.positions.commands,
            postings_next: head.positions.postings,
            halted: None,
            is_quiet: true,
        }
    }
}

/// The committed state of one partition, shared by its lane and all readers.
pub(crate) struct Committed {
    dir: PathBuf,
    /// `None` where it could not be restored: then it is halted from the start.
    pub(crate) store: Option<Arc<RocksStore>>,
    pub(crate) origin: Origin,
    /// Held by whoever writes the store: a lane that died may have left a write behind, which its successor must not meet.
    writer: Mutex<()>,
    layers: RwLock<Layers>,
    condition: Mutex<Condition>,
    fault: Mutex<Option<String>>,
}

impl Committed {
    /// What came of restoring the partition whose state lives in `dir`.
    pub(crate) fn new(dir: PathBuf, restored: Result<Restored, restore::Error>) -> Committed {
        let (store, origin, condition) = match restored {
            Ok(Restored { store, head, origin }) => (Some(Arc::new(store)), origin, Condition::at(&head)),
            Err(cause) => (None, Origin::default(), Condition { halted: Some(cause.to_string()), ..Condition::default() }),
        };
        let (writer, layers) = (Mutex::default(), RwLock::new(Arc::from([])));
        Committed { dir, store, origin, writer, layers, condition: Mutex::new(condition), fault: Mutex::default() }
    }

    /// The store, if the partition runs on a lane of this node and is not halted: only then is what it holds to be spread.
    pub(crate) fn running(&self) -> Option<&Arc<RocksStore>> {
        let condition = self.condition();
        self.store.as_ref().filter(|_| condition.lane.is_some() && condition.halted.is_none())
    }

    /// Notes that the store is corrupt, so that the next start builds it again.
    pub(crate) fn mark_damaged(&self, cause: &str) {
        restoring::mark_damaged(&self.dir, cause);
    }

    /// Writes blocks to the store; those that it holds already are refused.
    pub(crate) fn apply(&self, blocks: &[EncodedBlock]) -> Result<(), store::Error> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.open_store()?.apply(blocks)
    }

    /// Lets `restore` bring the store up to the log while nobody else writes it.
    pub(crate) fn restored<T>(&self, restore: impl FnOnce() -> T) -> T {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        restore()
    }

    fn open_store(&self) -> Result<&RocksStore, store::Error> {
        self.store.as_deref().ok_or_else(|| store::Error::Io("it is not open".to_owned()))
    }

    pub(crate) fn show(&self, layers: Layers, condition: Condition) {
        *self.layers.write().unwrap_or_else(PoisonError::into_inner) = layers;
        *self.condition.lock().unwrap_or_else(PoisonError::into_inner) = condition;
    }

    /// Shows the partition as halted: nobody will go on with it in this process.
    pub(crate) fn give_up(&self, cause: &str) {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).halted = Some(cause.to_owned());
    }

    /// Why the store cannot be written now; `None` while it can.
    pub(crate) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_fault(&self, fault: Option<String>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    pub(crate) fn condition(&self) -> Condition {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn wallet(&self, id: &WalletId) -> Result<Option<Wallet>, store::Error> {
        self.read::<Wallets>(id, |overlay| overlay.wallets.get(id).map(|row| row.cloned()))
    }

    /// At most `limit` wallets behind `after`, by id.
    pub(crate) fn wallets(&self, after: Option<&WalletId>, limit: usize) -> Result<Vec<Wallet>, store::Error> {
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let from = after.map(|after| [&[Tag::Wallets as u8], after.as_str().as_bytes()].concat());
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
        let mut bytes = Vec::new();
        T::encode_key(key, &mut bytes);
        let row = self.open_store()?.get(&bytes)?;
        Ok(row.map(|row| T::decode(key, &row)).transpose()?)
    }
}
