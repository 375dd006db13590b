//! Reading a store whole: whether every row of every file is still what RocksDB wrote.
//!
//! A file that rotted before it was hashed hashes to its name for ever; only the checksums that RocksDB keeps of its blocks tell.
//! They are compared by reading every entry once, older images of a row included, without going through the cache: one sequential
//! read of the files, whatever memory there is. Filters are not read, because RocksDB takes one that is damaged for none.

use std::path::Path;
use std::sync::Mutex;

use rocksdb::{DB, IteratorMode, ReadOptions, WriteOptions};

use super::{Error, RocksStore, Shared, error, head_of, is_headless, options};

/// Memory for reading a copy, in bytes.
const MEMORY_BYTES: usize = 8 << 20;
/// Bytes read ahead of the rows.
const READAHEAD_BYTES: usize = 2 << 20;
/// Rows read between two looks at whether to go on: some milliseconds.
const ROWS_BETWEEN_LOOKS: usize = 4_096;

impl RocksStore {
    /// Opens the copy in `dir` for reading, and leaves every file of it as it is. With a cache of its own: one that holds blocks of the
    /// store that was copied would answer for them, because their files have the same identity.
    pub fn open_copy(dir: &Path) -> Result<RocksStore, Error> {
        if is_headless(dir) {
            return Err(Error::Corrupt("the file CURRENT is missing".to_owned()));
        }
        let db = DB::open_for_read_only(&options(&Shared::new(MEMORY_BYTES, 1)), dir, false).map_err(error)?;
        let head = Mutex::new(head_of(&db)?);
        Ok(RocksStore::of(db, head, WriteOptions::default()))
    }

    /// Reads every row against its checksums; `false` where `goes_on` said no before the end.
    pub fn read_whole(&self, goes_on: &dyn Fn() -> bool) -> Result<bool, Error> {
        let mut read = ReadOptions::default();
        read.set_verify_checksums(true);
        read.fill_cache(false);
        read.set_readahead_size(READAHEAD_BYTES);
        for (number, row) in self.db.iterator_opt(IteratorMode::Start, read).enumerate() {
            row.map_err(error)?;
            if number % ROWS_BETWEEN_LOOKS == 0 && !goes_on() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
