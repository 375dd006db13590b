//! Overlays: the rows that an epoch changed, above the store. Open, then committing, then committed but not yet in the store.

use foldhash::HashMap;

use crate::tables::{Accounts, Holds, Payments, Table, Timers, Wallets};

/// Takes an encoded key, and its value or `None` where the row is removed.
pub type RowWriter<'a> = &'a mut dyn FnMut(&[u8], Option<&[u8]>);

/// What the removal of a row takes in a block at most, in bytes: the lengths and the longest key that is ever removed.
const REMOVAL_BYTES: usize = 64;

/// The changed rows of one table.
pub struct Changes<T: Table> {
    rows: HashMap<T::Key, Row<T::Value>>,
    bytes: usize,
}

#[derive(Clone)]
struct Row<V> {
    /// `None` = removed.
    value: Option<V>,
    /// No layer below holds the row.
    born: bool,
}

impl<T: Table> Default for Changes<T> {
    fn default() -> Self {
        Changes { rows: HashMap::default(), bytes: 0 }
    }
}

impl<T: Table> std::fmt::Debug for Changes<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").field("tag", &T::TAG).field("rows", &self.rows.len()).finish()
    }
}

impl<T: Table> Changes<T> {
    fn with_room(rows: usize) -> Changes<T> {
        Changes { rows: HashMap::with_capacity_and_hasher(rows, Default::default()), bytes: 0 }
    }

    /// `None`: not changed here. `Some(None)`: removed here.
    pub fn get(&self, key: &T::Key) -> Option<Option<&T::Value>> {
        self.rows.get(key).map(|row| row.value.as_ref())
    }

    /// Writes a row that a layer below may hold.
    pub fn put(&mut self, key: T::Key, value: T::Value) {
        self.write(key, value, false);
    }

    /// Writes a row that no layer below holds.
    pub fn insert_new(&mut self, key: T::Key, value: T::Value) {
        self.write(key, value, true);
    }

    /// Removes a row. One that was born here vanishes without a trace.
    pub fn remove(&mut self, key: T::Key) {
        let old = self.rows.remove(&key);
        self.bytes = self.bytes.saturating_sub(old.as_ref().map_or(0, |row| size::<T>(&key, row)));
        if !old.is_some_and(|row| row.born) {
            self.bytes = self.bytes.saturating_add(REMOVAL_BYTES);
            self.rows.insert(key, Row { value: None, born: false });
        }
    }

    /// The changed rows in no particular order; `None` = removed.
    pub fn iter(&self) -> impl Iterator<Item = (&T::Key, Option<&T::Value>)> {
        self.rows.iter().map(|(key, row)| (key, row.value.as_ref()))
    }

    /// How many rows are changed.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn write(&mut self, key: T::Key, value: T::Value, born: bool) {
        let new = T::size(&key, &value);
        let old = match self.rows.entry(key) {
            std::collections::hash_map::Entry::Occupied(mut row) => {
                let old = size::<T>(row.key(), row.get());
                // A row born here stays so when it is written again, and one removed here was below.
                row.get_mut().value = Some(value);
                old
            }
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Row { value: Some(value), born });
                0
            }
        };
        self.bytes = self.bytes.saturating_add(new).saturating_sub(old);
    }

    /// Calls `write` with each encoded row in key order; `None` = removed.
    fn encode_sorted(&self, buffers: &mut (Vec<u8>, Vec<u8>), write: RowWriter<'_>) {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        let (key_bytes, value_bytes) = buffers;
        for (key, row) in rows {
            key_bytes.clear();
            value_bytes.clear();
            T::encode_key(key, key_bytes);
            if let Some(value) = &row.value {
                T::encode(value, value_bytes);
            }
            write(key_bytes, row.value.as_ref().map(|_| value_bytes.as_slice()));
        }
    }
}

fn size<T: Table>(key: &T::Key, row: &Row<T::Value>) -> usize {
    row.value.as_ref().map_or(REMOVAL_BYTES, |value| T::size(key, value))
}

/// Everything an epoch changed in one partition.
#[derive(Debug, Default)]
pub struct Overlay {
    /// Changed wallets.
    pub wallets: Changes<Wallets>,
    /// Changed payments.
    pub payments: Changes<Payments>,
    /// Changed holds.
    pub holds: Changes<Holds>,
    /// Changed timers.
    pub timers: Changes<Timers>,
    /// Changed system accounts.
    pub accounts: Changes<Accounts>,
}

impl Overlay {
    /// An empty one with room for as many rows as another has: epochs that follow each other are alike.
    pub fn like(other: &Overlay) -> Overlay {
        Overlay {
            wallets: Changes::with_room(other.wallets.len()),
            payments: Changes::with_room(other.payments.len()),
            holds: Changes::with_room(other.holds.len()),
            timers: Changes::with_room(other.timers.len()),
            accounts: Changes::with_room(other.accounts.len()),
        }
    }

    /// How many rows are changed.
    pub fn entities(&self) -> usize {
        let (money, time) = (self.wallets.len() + self.accounts.len(), self.timers.len());
        money + time + self.payments.len() + self.holds.len()
    }

    /// About how long the rows of this epoch's block become, in bytes: never longer.
    pub fn bytes_estimate(&self) -> usize {
        let (money, time) = (self.wallets.bytes + self.accounts.bytes, self.timers.bytes);
        money + time + self.payments.bytes + self.holds.bytes
    }

    /// Calls `write` with each encoded row, tables by tag and rows by key, so that equal epochs give equal bytes.
    pub fn encode_sorted(&self, write: RowWriter<'_>) {
        let mut buffers = (Vec::with_capacity(96), Vec::with_capacity(256));
        self.wallets.encode_sorted(&mut buffers, write);
        self.payments.encode_sorted(&mut buffers, write);
        self.holds.encode_sorted(&mut buffers, write);
        self.timers.encode_sorted(&mut buffers, write);
        self.accounts.encode_sorted(&mut buffers, write);
    }
}
