//! Committed rows kept in memory, so that a decision about a wallet reads no disk.
//!
//! Wallets rest here as the store holds them, encoded: a quarter of the memory that they take decoded, so that a million fit. What a
//! row says may be newer than the store, never older than what has left the layers above. Nothing uncommitted is ever here.

use finflow_ledger::{Currency, SystemAccount, Wallet, WalletId};
use finflow_state::{EncodedBlock, Overlay, Store, Table, Tag, Wallets};
use foldhash::HashMap;

use self::rows::Rows;
use crate::halt::Halt;

mod rows;

/// Rows that a batch of inputs reads ahead from the store, until it is read or the memory is full: 0.1 to 0.3 ms.
const AHEAD_ROWS: usize = 256;
/// How long nothing is read ahead after that, in milliseconds: where little is to do, batches are short and many. While a clock that went
/// back has not caught up, nothing is.
const AHEAD_PAUSE_MS: i64 = 10;

/// Wallets, as many as there is room for, and every account.
pub(crate) struct Hot {
    wallets: Rows,
    pub(super) accounts: HashMap<(SystemAccount, Currency), i128>,
    ahead: Ahead,
    /// From when on more may be read ahead, in milliseconds since 1970-01-01 UTC.
    ahead_from_ms: i64,
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
        Hot { wallets: Rows::new(wallets_max), accounts: HashMap::default(), ahead: Ahead::Behind(None), ahead_from_ms: i64::MIN }
    }

    /// The wallet with this id, whose encoded key is `key`.
    pub(super) fn wallet(&mut self, id: &WalletId, key: &[u8]) -> Result<Option<Wallet>, Halt> {
        self.wallets.get(key).map(|value| decode(id, value)).transpose()
    }

    /// Which of the wallets with these encoded keys are not here, by their places.
    pub(super) fn lacks<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Vec<usize> {
        self.wallets.lacks(keys)
    }

    /// Keeps a row that the store holds, and decodes it.
    pub(super) fn keep_stored(&mut self, id: &WalletId, key: &[u8], value: &[u8]) -> Result<Wallet, Halt> {
        let wallet = decode(id, value)?;
        self.wallets.put(key, value);
        Ok(wallet)
    }

    /// Takes over the rows of an epoch that has reached the store and whose overlay is about to leave the layers. Its block has the
    /// wallets as they rest here.
    pub(crate) fn retire(&mut self, block: &EncodedBlock, overlay: &Overlay) {
        // Tables stand in the order of their tags, and that of the wallets is the first.
        for (key, value) in block.rows().take_while(|(key, _)| Tag::of(key) == Some(Tag::Wallets)) {
            match value {
                Some(value) => self.wallets.put(key, value),
                None => self.wallets.remove(key),
            }
        }
        for (key, row) in overlay.accounts.iter() {
            self.accounts.insert(*key, row.copied().unwrap_or_default());
        }
    }

    /// Reads some more of the store's wallets ahead, so that an engine that was started again is soon as fast as before. What cannot be
    /// read just now is left for the next time: nobody has asked for it.
    pub(crate) fn read_ahead(&mut self, store: &dyn Store, now_ms: i64) -> Result<(), Halt> {
        let Ahead::Behind(after) = &self.ahead else { return Ok(()) };
        if now_ms < self.ahead_from_ms {
            return Ok(());
        }
        self.ahead_from_ms = now_ms.saturating_add(AHEAD_PAUSE_MS);
        let rows = match store.scan(Tag::Wallets, after.as_deref(), AHEAD_ROWS) {
            Ok(rows) => rows,
            Err(error) => return Halt::of(&error).map_or(Ok(()), Err),
        };
        let has_room = self.wallets.len().saturating_add(rows.len()) <= self.wallets.max();
        let is_over = rows.len() < AHEAD_ROWS || !has_room;
        for (key, value) in rows.iter().filter(|_| has_room) {
            // What is here already may be newer.
            self.wallets.add(key, value);
        }
        let last = rows.into_iter().last().filter(|_| !is_over);
        self.ahead = last.map_or(Ahead::Done, |(key, _)| Ahead::Behind(Some(key)));
        Ok(())
    }
}

fn decode(id: &WalletId, value: &[u8]) -> Result<Wallet, Halt> {
    Wallets::decode(id, value).map_err(|error| Halt::State(error.to_string()))
}

#[cfg(test)]
mod tests;
