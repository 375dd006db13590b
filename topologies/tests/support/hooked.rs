//! A store in memory with a hook before each read.

use std::path::Path;

use finflow_state::store::{Error, RawRow};
use finflow_state::{EncodedBlock, Head, MemoryStore, Store, Tag};

/// The hook is given the key that is read, none for a scan, and may fail or panic.
pub(crate) struct Hooked<H> {
    rows: MemoryStore,
    hook: H,
    many: Option<fn() -> Result<(), Error>>,
}

impl<H: Fn(Option<&[u8]>) -> Result<(), Error> + Send + Sync> Hooked<H> {
    /// Many rows at once are read one by one, unless `many` is the hook for that.
    pub(crate) fn new(hook: H, many: Option<fn() -> Result<(), Error>>) -> Hooked<H> {
        Hooked { rows: MemoryStore::default(), hook, many }
    }
}

impl<H: Fn(Option<&[u8]>) -> Result<(), Error> + Send + Sync> Store for Hooked<H> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        (self.hook)(Some(key))?;
        self.rows.get(key)
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let Some(hook) = self.many else { return keys.iter().map(|key| self.get(key)).collect() };
        hook()?;
        self.rows.get_many(keys)
    }

    fn head(&self) -> Option<Head> {
        self.rows.head()
    }

    fn apply(&self, blocks: &[EncodedBlock]) -> Result<(), Error> {
        self.rows.apply(blocks)
    }

    fn scan(&self, tag: Tag, after: Option<&[u8]>, limit: usize) -> Result<Vec<RawRow>, Error> {
        (self.hook)(None)?;
        self.rows.scan(tag, after, limit)
    }

    fn flush(&self) -> Result<(), Error> {
        self.rows.flush()
    }

    fn checkpoint(&self, into: &Path) -> Result<Option<Head>, Error> {
        self.rows.checkpoint(into)
    }
}
