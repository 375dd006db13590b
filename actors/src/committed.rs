//! What readers may see of a partition: its store and the committed epochs that are not yet in it. Never anything uncommitted.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use finflow_ledger::{Payment, PaymentId, Wallet, WalletId};
use finflow_state::{Head, Overlay, Payments, RocksStore, Store, Table, Wallets, store};
use finflow_topologies::partition::Layers;
use finflow_topologies::restore;

use crate::restoring::{self, Origin, Restored};

/// How a partition is, for operators.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
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
    layers: RwLock<Layers>,
    condition: Mutex<Condition>,
}

impl Committed {
    /// What came of restoring the partition whose state lives in `dir`.
    pub(crate) fn new(dir: PathBuf, restored: Result<Restored, restore::Error>) -> Committed {
        let (store, origin, condition) = match restored {
            Ok(Restored { store, head, origin }) => (Some(Arc::new(store)), origin, Condition::at(&head)),
            Err(cause) => (None, Origin::default(), Condition { halted: Some(cause.to_string()), ..Condition::default() }),
        };
        Committed { dir, store, origin, layers: RwLock::new(Arc::from([])), condition: Mutex::new(condition) }
    }

    /// Notes that the store is corrupt, so that the next start builds it again.
    pub(crate) fn mark_damaged(&self, cause: &str) {
        restoring::mark_damaged(&self.dir, cause);
    }

    pub(crate) fn show(&self, layers: Layers, condition: Condition) {
        *self.layers.write().unwrap_or_else(PoisonError::into_inner) = layers;
        *self.condition.lock().unwrap_or_else(PoisonError::into_inner) = condition;
    }

    pub(crate) fn condition(&self) -> Condition {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn wallet(&self, id: &WalletId) -> Result<Option<Wallet>, store::Error> {
        self.read::<Wallets>(id, |overlay| overlay.wallets.get(id).map(|row| row.cloned()))
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
        let Some(store) = &self.store else { return Err(store::Error::Io("it is not open".to_owned())) };
        let row = store.get(&bytes)?;
        Ok(row.map(|row| T::decode(key, &row)).transpose()?)
    }
}
