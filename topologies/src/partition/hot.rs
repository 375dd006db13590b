//! Committed rows kept in memory, so that a decision about a wallet reads no disk.
//!
//! Wallets rest here as the store holds them, encoded: a third of the memory that they take decoded, so that a million fit. What a
//! row says may be newer than the store, never older than what has left the layers above. Nothing uncommitted is ever here.

use finflow_ledger::{Currency, SystemAccount, Wallet, WalletId};
use finflow_state::{Overlay, Store, Table, Tag, Wallets, store};
use foldhash::HashMap;

use crate::halt::Halt;

/// Rows that one batch of inputs reads ahead from the store, until it is read or the memory is full: about 0.1 ms.
const AHEAD_ROWS: usize = 256;

/// Encoded wallets by encoded key.
type Rows = HashMap<Box<[u8]>, Box<[u8]>>;

/// Two generations of wallets, so that forgetting costs nothing, and every account.
pub(crate) struct Hot {
    young: Rows,
    old: Rows,
    wallets_max: usize,
    pub(super) accounts: HashMap<(SystemAccount, Currency), i128>,
    ahead: Ahead,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// How far the store's wallets are read ahead.
#[derive(Debug)]
enum Ahead {
    /// Behind this key, or from the first.
    Behind(Option<Vec<u8>>),
    /// All of them, or as many as there is room for.
    Done,
}

impl Hot {
    /// Room for `wallets_max` wallets.
    pub(crate) fn new(wallets_max: usize) -> Hot {
        Hot {
            young: Rows::default(),
            old: Rows::default(),
            wallets_max,
            accounts: HashMap::default(),
            ahead: Ahead::Behind(None),
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    /// The wallet with this id, whose encoded key is `key`.
    pub(super) fn wallet(&mut self, id: &WalletId, key: &[u8]) -> Result<Option<Wallet>, Halt> {
        if let Some(value) = self.young.get(key) {
            return decode(id, value).map(Some);
        }
        let Some((key, value)) = self.old.remove_entry(key) else { return Ok(None) };
        let wallet = decode(id, &value)?;
        self.young.insert(key, value);
        Ok(Some(wallet))
    }

    /// Keeps a row that the store holds, and decodes it.
    pub(super) fn keep_stored(&mut self, id: &WalletId, key: &[u8], value: Vec<u8>) -> Result<Wallet, Halt> {
        let wallet = decode(id, &value)?;
        self.keep(key.into(), value.into());
        Ok(wallet)
    }

    /// Takes over the rows of an epoch that has reached the store and whose overlay is about to leave the layers.
    pub(crate) fn retire(&mut self, overlay: &Overlay) {
        for (id, wallet) in overlay.wallets.iter() {
            self.key.clear();
            Wallets::encode_key(id, &mut self.key);
            self.old.remove(self.key.as_slice());
            let Some(wallet) = wallet else {
                self.young.remove(self.key.as_slice());
                continue;
            };
            self.value.clear();
            Wallets::encode(wallet, &mut self.value);
            match self.young.get_mut(self.key.as_slice()) {
                // A balance that changes seldom changes its row's length.
                Some(value) if value.len() == self.value.len() => value.copy_from_slice(&self.value),
                _ => self.keep(self.key.as_slice().into(), self.value.as_slice().into()),
            }
        }
        for (key, row) in overlay.accounts.iter() {
            self.accounts.insert(*key, row.copied().unwrap_or_default());
        }
    }

    /// Reads some more of the store's wallets ahead, so that an engine that was started again is soon as fast as before.
    pub(crate) fn read_ahead(&mut self, store: &dyn Store) -> Result<(), store::Error> {
        let Ahead::Behind(after) = &self.ahead else { return Ok(()) };
        let rows = store.scan(Tag::Wallets, after.as_deref(), AHEAD_ROWS)?;
        let has_room = self.young.len().saturating_add(self.old.len()).saturating_add(rows.len()) < self.wallets_max;
        let is_over = rows.len() < AHEAD_ROWS || !has_room;
        let last = rows.last().filter(|_| !is_over).map(|(key, _)| key.clone());
        for (key, value) in rows.into_iter().filter(|_| has_room) {
            if !self.young.contains_key(key.as_slice()) && !self.old.contains_key(key.as_slice()) {
                self.old.insert(key.into(), value.into());
            }
        }
        self.ahead = last.map_or(Ahead::Done, |last| Ahead::Behind(Some(last)));
        Ok(())
    }

    fn keep(&mut self, key: Box<[u8]>, value: Box<[u8]>) {
        self.young.insert(key, value);
        if self.wallets_max < self.young.len().saturating_add(self.old.len()) {
            self.forget();
        }
    }

    /// Forgets what was not needed lately: the old generation, or every second of it while the young one is small.
    fn forget(&mut self) {
        if self.wallets_max <= self.young.len().saturating_mul(2) {
            self.old = std::mem::take(&mut self.young);
            return;
        }
        let mut is_kept = false;
        self.old.retain(|_, _| {
            is_kept = !is_kept;
            is_kept
        });
    }
}

fn decode(id: &WalletId, value: &[u8]) -> Result<Wallet, Halt> {
    Wallets::decode(id, value).map_err(|error| Halt::State(error.to_string()))
}
