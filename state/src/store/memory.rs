//! A store in memory, for the simulator and for tests: the same contract, nothing survives.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{Error, RawRow, Store, head_after};
use crate::journal::{EncodedBlock, Head};
use crate::tables::Tag;

/// Rows in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Rows>);

#[derive(Debug, Default, Clone)]
struct Rows {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    head: Option<Head>,
}

impl MemoryStore {
    /// A store with the same rows, as a checkpoint gives it.
    pub fn copy(&self) -> MemoryStore {
        MemoryStore(Mutex::new(self.lock().clone()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.lock().rows.get(key).cloned())
    }

    fn head(&self) -> Option<Head> {
        self.lock().head.clone()
    }

    fn apply(&self, blocks: &[EncodedBlock]) -> Result<(), Error> {
        let mut inner = self.lock();
        inner.head = head_after(inner.head.clone(), blocks)?;
        for block in blocks.iter().filter(|block| 0 < block.header().number) {
            for (key, value) in block.rows() {
                match value {
                    Some(value) => inner.rows.insert(key.to_vec(), value.to_vec()),
                    None => inner.rows.remove(key),
                };
            }
        }
        Ok(())
    }

    fn scan(&self, tag: Tag, after: Option<&[u8]>, limit: usize) -> Result<Vec<RawRow>, Error> {
        let inner = self.lock();
        let from = after.map_or(Bound::Included(vec![tag as u8]), |after| Bound::Excluded(after.to_vec()));
        let rows = inner.rows.range((from, Bound::Unbounded)).take_while(|(key, _)| key.first() == Some(&(tag as u8)));
        Ok(rows.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    fn checkpoint(&self, _into: &Path) -> Result<Option<Head>, Error> {
        Err(Error::Io("a store in memory has no checkpoint".to_owned()))
    }
}
