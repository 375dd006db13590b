//! Encoded rows in memory, at most so many.
//!
//! They stand in shards, by the hash of their keys: a shard that grows, or makes room, moves its own rows only, so that no decision waits
//! for a million of them.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// So many rows at least are a shard's where all are full.
const SHARD_ROWS: usize = 1_024;
/// As a power of two: with more than these, shards take more rows instead.
const SHARDS_MAX_LOG2: u32 = 10;

/// Rows by their keys.
pub(super) struct Rows {
    shards: Vec<HashTable<Row>>,
    hash: RandomState,
    len: usize,
    max: usize,
}

impl Rows {
    /// Room for `max` rows.
    pub(super) fn new(max: usize) -> Rows {
        let shards = 1_usize << (max / SHARD_ROWS).max(1).ilog2().min(SHARDS_MAX_LOG2);
        let shards = std::iter::repeat_with(HashTable::new).take(shards).collect();
        Rows { shards, hash: RandomState::default(), len: 0, max }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many there may be.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    #[cfg(test)]
    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Which of these keys have no row, by their places.
    ///
    /// Rows rest at random places of memory, and so do the slots that point to them: first all slots are looked up, then all rows are
    /// compared, so that many are waited for together.
    pub(super) fn lacks<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Vec<usize> {
        let hashed: Vec<(u64, &[u8])> = keys.map(|key| (self.hash.hash_one(key), key)).collect();
        let shard = |hash| self.shards.get(place(hash, self.shards.len()));
        // Of a hundred that are found so, the key of one is another.
        let likely: Vec<Option<&Row>> = hashed.iter().map(|(hash, _)| shard(*hash)?.find(*hash, |_| true)).collect();
        let is_there = |((hash, key), likely): (&(u64, &[u8]), &Option<&Row>)| match likely {
            Some(row) if row.key() == *key => true,
            Some(_) => shard(*hash).is_some_and(|shard| shard.find(*hash, |row| row.key() == *key).is_some()),
            None => false,
        };
        let all = hashed.iter().zip(&likely).enumerate();
        all.filter(|(_, found)| !is_there(*found)).map(|(place, _)| place).collect()
    }

    /// The value of the row with this key, which is used with that.
    pub(super) fn get(&mut self, key: &[u8]) -> Option<&[u8]> {
        let (hash, shard) = self.shard(key)?;
        let row = shard.find_mut(hash, |row| row.key() == key)?;
        row.use_it();
        Some(row.value())
    }

    /// Keeps a row in place of the one with its key, as one that is used. Where there is no room, others go.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        self.write(key, value, true);
    }

    /// Keeps a row that nobody has asked for yet, unless there is one with its key.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.write(key, value, false);
    }

    /// Forgets the row with this key.
    pub(super) fn remove(&mut self, key: &[u8]) {
        let found = self.shard(key).and_then(|(hash, shard)| shard.find_entry(hash, |row| row.key() == key).ok());
        if let Some(found) = found {
            drop(found.remove());
            self.len = self.len.saturating_sub(1);
        }
    }

    fn shard(&mut self, key: &[u8]) -> Option<(u64, &mut HashTable<Row>)> {
        let hash = self.hash.hash_one(key);
        let place = place(hash, self.shards.len());
        Some((hash, self.shards.get_mut(place)?))
    }

    fn write(&mut self, key: &[u8], value: &[u8], is_used: bool) {
        let state = self.hash.clone();
        let (len, max) = (self.len, self.max);
        let Some((hash, shard)) = self.shard(key) else { return };
        match shard.entry(hash, |row| row.key() == key, |row| state.hash_one(row.key())) {
            Entry::Occupied(mut row) if is_used => row.get_mut().write(key, value),
            Entry::Occupied(_) => {}
            Entry::Vacant(vacant) => {
                vacant.insert(Row::new(key, value, is_used));
                let forgotten = if max <= len { make_room(shard) } else { 0 };
                self.len = len.saturating_add(1).saturating_sub(forgotten);
            }
        }
    }
}

/// Which of so many shards has the rows of this hash: by bits of which the table in it takes no notice.
fn place(hash: u64, shards: usize) -> usize {
    (hash >> 32) as usize & shards.saturating_sub(1)
}

/// Forgets what nobody has needed since the last time, and half of the rest where that is too little; at least one row. Gives how many.
fn make_room(shard: &mut HashTable<Row>) -> usize {
    let before = shard.len();
    shard.retain(Row::was_used);
    let is_enough = shard.len() <= before / 2;
    let mut is_kept = true;
    shard.retain(|_| {
        is_kept = is_enough || !is_kept;
        is_kept
    });
    before.saturating_sub(shard.len())
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

    /// Writes another value, and uses the row.
    fn write(&mut self, key: &[u8], value: &[u8]) {
        // A balance that changes seldom changes its row's length.
        match self.0.get_mut(1 + key.len()..) {
            Some(old) if old.len() == value.len() => {
                old.copy_from_slice(value);
                self.use_it();
            }
            _ => *self = Row::new(key, value, true),
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
