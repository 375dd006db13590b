//! Stores: where a partition's committed rows rest. Written only with blocks that the log has committed, each exactly once.

use std::collections::BTreeMap;
use std::path::Path;

use finflow_ledger::{Currency, Money, PaymentId, WalletId};
use sha2::{Digest, Sha256};

pub use self::memory::MemoryStore;
pub use self::rocks::{RocksStore, Shared, is_held};
use crate::codec;
use crate::journal::{Broken, EncodedBlock, Head};
use crate::tables::{Accounts, Holds, Payments, Table, Tag, Timers, Wallets};

mod memory;
mod rocks;

/// Rows that a scan reads at a time.
const SCAN_ROWS: usize = 1_000;

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// What it holds is damaged; it must be rebuilt.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// The blocks do not follow what it holds.
    #[error("the blocks do not follow the store: {0}")]
    Discontinuous(#[from] Broken),
    /// Another process holds it.
    #[error("the store is in use by another process: {0}")]
    Busy(String),
    /// The disk refused, for example because it is full.
    #[error("the store's disk failed: {0}")]
    Io(String),
}

impl From<codec::Error> for Error {
    fn from(error: codec::Error) -> Error {
        Error::Corrupt(error.to_string())
    }
}

/// A key and its value.
pub type RawRow = (Vec<u8>, Vec<u8>);

/// The committed rows of one partition.
pub trait Store: Send + Sync {
    /// The value of a row.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// The values of many rows, in the order of their keys: all of them, or an error.
    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// Where the last block it holds left the partition; `None` while it holds none.
    fn head(&self) -> Option<Head>;

    /// Writes blocks at once or not at all; they must follow the head, the first of all being block 0.
    fn apply(&self, blocks: &[EncodedBlock]) -> Result<(), Error>;

    /// At most `limit` rows of a table behind the key `after`, in key order.
    fn scan(&self, tag: Tag, after: Option<&[u8]>, limit: usize) -> Result<Vec<RawRow>, Error>;

    /// Makes what was applied survive a crash of the process.
    fn flush(&self) -> Result<(), Error>;

    /// Writes a copy that can be opened as a store of its own into the directory `into`, which must not exist, and gives the head
    /// that the copy stands at.
    fn checkpoint(&self, into: &Path) -> Result<Option<Head>, Error>;
}

/// The head after `blocks`, or why they do not follow `head`.
pub(crate) fn head_after(head: Option<Head>, blocks: &[EncodedBlock]) -> Result<Option<Head>, Error> {
    let mut head = head;
    for block in blocks {
        head = Some(match head {
            Some(head) => head.follow(block.header())?,
            None if block.header().number == 0 => Head::from_header(block.header().clone()),
            None => return Err(Broken::Number { expected: 0, found: block.header().number }.into()),
        });
    }
    Ok(head)
}

/// Calls `visit` with every row of a table, decoded, in key order.
pub fn visit_rows<T: Table>(store: &dyn Store, mut visit: impl FnMut(T::Key, T::Value)) -> Result<(), Error> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = store.scan(T::TAG, after.as_deref(), SCAN_ROWS)?;
        let is_last = rows.len() < SCAN_ROWS;
        for (key_bytes, value) in &rows {
            let key = T::decode_key(key_bytes)?;
            let value = T::decode(&key, value)?;
            visit(key, value);
        }
        if is_last {
            return Ok(());
        }
        after = rows.into_iter().last().map(|(key, _)| key);
    }
}

/// The first timers that were due between `since_ms` and `now_ms`, both included, in order of time; at most `limit`.
pub fn due(store: &dyn Store, since_ms: i64, now_ms: i64, limit: usize) -> Result<Vec<(i64, PaymentId)>, Error> {
    let mut after = Vec::new();
    if let Some(before_ms) = since_ms.checked_sub(1) {
        Timers::encode_key(&(before_ms, PaymentId::from_bytes([0xff; 16])), &mut after);
    }
    let rows = store.scan(Tag::Timers, Some(&after[..]).filter(|after| !after.is_empty()), limit)?;
    let keys = rows.iter().map(|(key, _)| Ok(Timers::decode_key(key)?));
    keys.take_while(|key| !matches!(key, Ok((due_ms, _)) if now_ms < *due_ms)).collect()
}

/// Calls `visit` with every row as it stands, tables by tag and rows by key.
pub fn visit_raw<E: From<Error>>(store: &dyn Store, mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>) -> Result<(), E> {
    let mut rows = Rows::new(store);
    while let Some((key, value)) = rows.next()? {
        visit(&key, &value)?;
    }
    Ok(())
}

/// Calls `visit` with each row that turns what `from` holds into what `to` holds: key, and value or `None` where it is removed.
pub fn visit_differences<E: From<Error>>(
    from: &dyn Store,
    to: &dyn Store,
    mut visit: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>,
) -> Result<(), E> {
    let (mut from, mut to) = (Rows::new(from), Rows::new(to));
    let (mut old, mut new) = (from.next()?, to.next()?);
    loop {
        match (&old, &new) {
            (None, None) => return Ok(()),
            (Some((key, _)), new_row) if new_row.as_ref().is_none_or(|(new_key, _)| key < new_key) => {
                visit(key, None)?;
                old = from.next()?;
            }
            (old_row, Some((key, value))) => {
                let is_there = old_row.as_ref().is_some_and(|(old_key, _)| old_key == key);
                if old_row.as_ref() != new.as_ref() {
                    visit(key, Some(value))?;
                }
                if is_there {
                    old = from.next()?;
                }
                new = to.next()?;
            }
            (Some(_), None) => old = from.next()?,
        }
    }
}

/// The rows of a store in order, read a page at a time.
struct Rows<'a> {
    store: &'a dyn Store,
    /// The tables that are not read yet.
    tags: std::slice::Iter<'static, Tag>,
    /// The table being read; `None` before the first.
    tag: Option<Tag>,
    after: Option<Vec<u8>>,
    page: std::vec::IntoIter<RawRow>,
    is_last: bool,
}

impl<'a> Rows<'a> {
    fn new(store: &'a dyn Store) -> Rows<'a> {
        let (tags, page) = (Tag::ROWS.iter(), Vec::new().into_iter());
        Rows { store, tags, tag: None, after: None, page, is_last: true }
    }

    fn next(&mut self) -> Result<Option<RawRow>, Error> {
        loop {
            if let Some(row) = self.page.next() {
                if self.page.len() == 0 {
                    self.after = Some(row.0.clone());
                }
                return Ok(Some(row));
            }
            if self.is_last {
                let Some(tag) = self.tags.next() else { return Ok(None) };
                (self.tag, self.after) = (Some(*tag), None);
            }
            let Some(tag) = self.tag else { return Ok(None) };
            let page = self.store.scan(tag, self.after.as_deref(), SCAN_ROWS)?;
            self.is_last = page.len() < SCAN_ROWS;
            self.page = page.into_iter();
        }
    }
}

/// SHA-256 over every row in key order: equal for stores that hold the same rows, whatever way they came.
pub fn digest(store: &dyn Store) -> Result<[u8; 32], Error> {
    let mut digest = Sha256::new();
    visit_raw(store, |key, value| {
        digest.update((key.len() as u32).to_le_bytes());
        digest.update(key);
        digest.update((value.len() as u32).to_le_bytes());
        digest.update(value);
        Ok::<(), Error>(())
    })?;
    Ok(digest.finalize().into())
}

/// What a full read of a store found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verification {
    /// Wallets read.
    pub wallets: u64,
    /// Payment records read.
    pub payments: u64,
    /// Holds read.
    pub holds: u64,
    /// The sum of all accounts per currency, in minor units; each must be zero.
    pub sums: BTreeMap<Currency, i128>,
    /// The sum of the wallets alone per currency.
    pub wallet_sums: BTreeMap<Currency, i128>,
    /// Everything that is wrong, in words.
    pub differences: Vec<String>,
}

/// Reads and decodes every row and checks the invariants: accounts sum to zero, holds are what wallets hold.
pub fn verify(store: &dyn Store) -> Result<Verification, Error> {
    let mut found = Verification::default();
    let mut held: BTreeMap<WalletId, i128> = BTreeMap::new();
    visit_rows::<Holds>(store, |_, hold| {
        found.holds = found.holds.saturating_add(1);
        let sum = held.entry(hold.wallet).or_default();
        *sum = sum.saturating_add(hold.amount.minor());
    })?;
    visit_rows::<Wallets>(store, |id, wallet| {
        found.wallets = found.wallets.saturating_add(1);
        add(&mut found.sums, wallet.ledger());
        add(&mut found.wallet_sums, wallet.ledger());
        let expected = held.remove(&id).unwrap_or_default();
        if wallet.held().minor() != expected {
            found.differences.push(format!("wallet {id} holds {}, its holds sum to {expected}", wallet.held().minor()));
        }
    })?;
    visit_rows::<Accounts>(store, |(_, currency), balance| add(&mut found.sums, Money::from_minor(balance, currency)))?;
    visit_rows::<Payments>(store, |_, _| found.payments = found.payments.saturating_add(1))?;
    found.differences.extend(held.into_keys().map(|wallet| format!("a hold is of wallet {wallet}, which is not here")));
    let unbalanced = found.sums.iter().filter(|(_, sum)| **sum != 0);
    let unbalanced: Vec<String> = unbalanced.map(|(currency, sum)| format!("{currency} is off by {sum} minor units")).collect();
    found.differences.extend(unbalanced);
    Ok(found)
}

fn add(sums: &mut BTreeMap<Currency, i128>, money: Money) {
    let sum = sums.entry(money.currency()).or_default();
    *sum = sum.saturating_add(money.minor());
}

#[cfg(test)]
mod tests;
