//! Committed rows kept in memory, so that a decision about a wallet reads no disk.
//!
//! Wallets rest here as the store holds them, encoded: a quarter of the memory that they take decoded, so that a million fit. What a
//! row says may be newer than the store, never older than what has left the layers above. Nothing uncommitted is ever here.

use std::hash::BuildHasher;

use finflow_ledger::{Currency, SystemAccount, Wallet, WalletId};
use finflow_state::{EncodedBlock, Overlay, Store, Table, Tag, Wallets};
use foldhash::HashMap;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::halt::Halt;

/// Rows that one batch of inputs reads ahead from the store, until it is read or the memory is full: about 0.1 ms.
const AHEAD_ROWS: usize = 256;

/// Wallets, as many as there is room for, and every account.
pub(crate) struct Hot {
    wallets: HashTable<Row>,
    wallets_max: usize,
    hash: RandomState,
    pub(super) accounts: HashMap<(SystemAccount, Currency), i128>,
    ahead: Ahead,
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
            wallets: HashTable::new(),
            wallets_max,
            hash: RandomState::default(),
            accounts: HashMap::default(),
            ahead: Ahead::Behind(None),
        }
    }

    /// The wallet with this id, whose encoded key is `key`.
    pub(super) fn wallet(&mut self, id: &WalletId, key: &[u8]) -> Result<Option<Wallet>, Halt> {
        let Some(row) = self.wallets.find_mut(self.hash.hash_one(key), |row| row.key() == key) else { return Ok(None) };
        row.use_it();
        decode(id, row.value()).map(Some)
    }

    /// Whether the wallet with this encoded key is here.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.wallets.find(self.hash.hash_one(key), |row| row.key() == key).is_some()
    }

    /// Keeps a row that the store holds, and decodes it.
    pub(super) fn keep_stored(&mut self, id: &WalletId, key: &[u8], value: &[u8]) -> Result<Wallet, Halt> {
        let wallet = decode(id, value)?;
        keep(&mut self.wallets, &self.hash, key, value, true);
        self.forget();
        Ok(wallet)
    }

    /// Takes over the rows of an epoch that has reached the store and whose overlay is about to leave the layers. Its block has the
    /// wallets as they rest here.
    pub(crate) fn retire(&mut self, block: &EncodedBlock, overlay: &Overlay) {
        // Tables stand in the order of their tags, and that of the wallets is the first.
        for (key, value) in block.rows().take_while(|(key, _)| Tag::of(key) == Some(Tag::Wallets)) {
            match value {
                Some(value) => keep(&mut self.wallets, &self.hash, key, value, true),
                None => {
                    let found = self.wallets.find_entry(self.hash.hash_one(key), |row| row.key() == key);
                    found.into_iter().for_each(|entry| drop(entry.remove()));
                }
            }
        }
        self.forget();
        for (key, row) in overlay.accounts.iter() {
            self.accounts.insert(*key, row.copied().unwrap_or_default());
        }
    }

    /// Reads some more of the store's wallets ahead, so that an engine that was started again is soon as fast as before. What cannot be
    /// read just now is left for the next time: nobody has asked for it.
    pub(crate) fn read_ahead(&mut self, store: &dyn Store) -> Result<(), Halt> {
        let Ahead::Behind(after) = &self.ahead else { return Ok(()) };
        let rows = match store.scan(Tag::Wallets, after.as_deref(), AHEAD_ROWS) {
            Ok(rows) => rows,
            Err(error) => return Halt::of(&error).map_or(Ok(()), Err),
        };
        let has_room = self.wallets.len().saturating_add(rows.len()) <= self.wallets_max;
        let is_over = rows.len() < AHEAD_ROWS || !has_room;
        for (key, value) in rows.iter().filter(|_| has_room) {
            // What is here already may be newer.
            if self.wallets.find(self.hash.hash_one(key.as_slice()), |row| row.key() == key).is_none() {
                keep(&mut self.wallets, &self.hash, key, value, false);
            }
        }
        let last = rows.into_iter().last().filter(|_| !is_over);
        self.ahead = last.map_or(Ahead::Done, |(key, _)| Ahead::Behind(Some(key)));
        Ok(())
    }

    /// Makes room: forgets what nobody has needed since the last time, and half of the rest where all was needed.
    fn forget(&mut self) {
        if self.wallets.len() <= self.wallets_max {
            return;
        }
        self.wallets.retain(Row::was_used);
        let mut is_kept = self.wallets.len() <= self.wallets_max / 2;
        let is_enough = is_kept;
        self.wallets.retain(|_| {
            is_kept = is_enough || !is_kept;
            is_kept
        });
    }
}

/// Keeps a row in place of the one with its key.
fn keep(wallets: &mut HashTable<Row>, hash: &RandomState, key: &[u8], value: &[u8], is_used: bool) {
    let row_hash = |row: &Row| hash.hash_one(row.key());
    match wallets.entry(hash.hash_one(key), |row| row.key() == key, row_hash) {
        Entry::Occupied(mut row) => row.get_mut().write(key, value, is_used),
        Entry::Vacant(vacant) => {
            vacant.insert(Row::new(key, value, is_used));
        }
    }
}

fn decode(id: &WalletId, value: &[u8]) -> Result<Wallet, Halt> {
    Wallets::decode(id, value).map_err(|error| Halt::State(error.to_string()))
}

/// A row in one piece: a byte with the key's length and whether it was used lately, the key, the value.
struct Row(Box<[u8]>);

impl Row {
    const USED: u8 = 0x80;

    fn new(key: &[u8], value: &[u8], is_used: bool) -> Row {
        // A wallet's key is its tag and an id of at most 64 characters.
        let length = u8::try_from(key.len()).unwrap_or(u8::MAX) & !Row::USED;
        let used = if is_used { Row::USED } else { 0 };
        Row([&[length | used], key, value].concat().into_boxed_slice())
    }

    fn write(&mut self, key: &[u8], value: &[u8], is_used: bool) {
        // A balance that changes seldom changes its row's length.
        match self.0.get_mut(1 + key.len()..) {
            Some(old) if old.len() == value.len() => old.copy_from_slice(value),
            _ => *self = Row::new(key, value, is_used),
        }
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        let (head, rest) = self.0.split_first().unwrap_or((&0, &[]));
        rest.split_at_checked(usize::from(*head & !Row::USED)).unwrap_or_default()
    }

    fn key(&self) -> &[u8] {
        self.parts().0
    }

    fn value(&self) -> &[u8] {
        self.parts().1
    }

    fn use_it(&mut self) {
        self.0.iter_mut().take(1).for_each(|head| *head |= Row::USED);
    }

    /// Whether it was used since this was last asked.
    fn was_used(&mut self) -> bool {
        let was = self.0.first().is_some_and(|head| Row::USED <= *head);
        self.0.iter_mut().take(1).for_each(|head| *head &= !Row::USED);
        was
    }
}

#[cfg(test)]
mod tests;
