//! A store in RocksDB: one database per partition, one column family with key tags, no write-ahead log.
//!
//! The log is the write-ahead log: what a crash takes from the memtable is applied again from the journal. Because the head is
//! written in the same batch as the rows, whatever survives is consistent in itself.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ::metrics::{Counter, Histogram};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DEFAULT_COLUMN_FAMILY_NAME,
    DataBlockIndexType, Direction, ErrorKind, IteratorMode, Options, ReadOptions, WriteBatch, WriteBufferManager, WriteOptions,
};

use super::{Error, RawRow, Store, head_after};
use crate::journal::{EncodedBlock, Head};
use crate::metrics;
use crate::tables::Tag;

mod whole;

/// The head row; tag 0 keeps it out of every table.
const HEAD_KEY: [u8; 1] = [Tag::Store as u8];
const BLOCK_BYTES: usize = 4 * 1024;
const WRITE_BUFFER_BYTES_MAX: usize = 16 * 1024 * 1024;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const COMPRESSION: [DBCompressionType; 7] = {
    use DBCompressionType::{Lz4, None};
    [None, None, Lz4, Lz4, Lz4, Lz4, Lz4]
};

/// What all stores of a process share, so that their memory is bounded together.
#[derive(Clone)]
pub struct Shared {
    cache: Cache,
    write_buffers: WriteBufferManager,
    write_buffer_bytes: usize,
}

impl Shared {
    /// `memory_bytes` for cached blocks and memtables of so many stores together.
    ///
    /// All memtables have half of it. One may take twice its part, as not all are full at a time, and no more: what an empty one takes for
    /// its filter goes by what it may take, and where the empty ones alone are too much, every write is flushed.
    pub fn new(memory_bytes: usize, stores: u32) -> Shared {
        let cache = Cache::new_lru_cache(memory_bytes);
        let write_buffers = WriteBufferManager::new_write_buffer_manager_with_cache(memory_bytes / 2, false, cache.clone());
        let write_buffer_bytes = (memory_bytes / stores.max(1) as usize).min(WRITE_BUFFER_BYTES_MAX);
        Shared { cache, write_buffers, write_buffer_bytes }
    }
}

/// Rows in RocksDB.
pub struct RocksStore {
    db: DB,
    head: Mutex<Option<Head>>,
    write: WriteOptions,
    read: ReadOptions,
    blocks_applied: Counter,
    apply_seconds: Histogram,
    /// Declared behind the database, and so dropped when that is closed.
    presence: Arc<()>,
}

impl RocksStore {
    /// How many files one store has open at most.
    pub const OPEN_FILES_MAX: u16 = 256;

    /// Opens the store in `dir`, or begins an empty one where there is nothing.
    pub fn open(dir: &Path, shared: &Shared) -> Result<RocksStore, Error> {
        if is_headless(dir) {
            return Err(Error::Corrupt("the file CURRENT is missing".to_owned()));
        }
        // By name, as whoever asks for many rows has to name it.
        let options = options(shared);
        let rows = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, options.clone());
        let db = DB::open_cf_descriptors(&options, dir, [rows]).map_err(error)?;
        let head = Mutex::new(head_of(&db)?);
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        Ok(RocksStore::of(db, head, write))
    }

    fn of(db: DB, head: Mutex<Option<Head>>, write: WriteOptions) -> RocksStore {
        let blocks_applied = ::metrics::counter!(metrics::STORE_BLOCKS_APPLIED);
        let apply_seconds = ::metrics::histogram!(metrics::STORE_APPLY_SECONDS);
        RocksStore { db, head, write, read: ReadOptions::default(), blocks_applied, apply_seconds, presence: Arc::new(()) }
    }

    /// What cannot be upgraded any more once the store is closed and its directory free to be opened again.
    pub fn presence(&self) -> Weak<()> {
        Arc::downgrade(&self.presence)
    }

    fn lock_head(&self) -> std::sync::MutexGuard<'_, Option<Head>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for RocksStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.db.get_pinned_opt(key, &self.read).map_err(error)?.map(|value| value.to_vec()))
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let Some(rows) = self.db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME) else {
            return keys.iter().map(|key| self.get(key)).collect();
        };
        let values = self.db.batched_multi_get_cf_opt(&rows, keys.iter().copied(), false, &self.read);
        values.into_iter().map(|value| Ok(value.map_err(error)?.map(|value| value.to_vec()))).collect()
    }

    fn head(&self) -> Option<Head> {
        self.lock_head().clone()
    }

    fn apply(&self, blocks: &[EncodedBlock]) -> Result<(), Error> {
        let begun = std::time::Instant::now();
        let mut head = self.lock_head();
        let Some(next) = head_after(head.clone(), blocks)? else { return Ok(()) };
        let mut batch = WriteBatch::default();
        for (key, value) in newest_rows(blocks) {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        batch.put(HEAD_KEY, crate::journal::encode_header(&next.to_header()));
        self.db.write_opt(batch, &self.write).map_err(error)?;
        *head = Some(next);
        self.blocks_applied.increment(blocks.len() as u64);
        self.apply_seconds.record(begun.elapsed());
        Ok(())
    }

    fn scan(&self, tag: Tag, after: Option<&[u8]>, limit: usize) -> Result<Vec<RawRow>, Error> {
        let start = [tag as u8];
        let from = after.unwrap_or(&start);
        let mut read = ReadOptions::default();
        read.fill_cache(false);
        read.set_iterate_upper_bound([(tag as u8).saturating_add(1)]);
        let rows = self.db.iterator_opt(IteratorMode::From(from, Direction::Forward), read);
        let mut found = Vec::new();
        for row in rows {
            let (key, value) = row.map_err(error)?;
            if after.is_some_and(|after| *after == *key) {
                continue;
            }
            found.push((key.into_vec(), value.into_vec()));
            if limit <= found.len() {
                break;
            }
        }
        Ok(found)
    }

    fn flush(&self) -> Result<(), Error> {
        self.db.flush().map_err(error)
    }

    fn checkpoint(&self, into: &Path) -> Result<Option<Head>, Error> {
        // Most of the memtable reaches the disk before blocks are kept out, so that they are kept out only briefly.
        self.flush()?;
        // Holding the head keeps blocks out while the copy is made, so that it ends with a known one.
        let head = self.lock_head();
        Checkpoint::new(&self.db).and_then(|checkpoint| checkpoint.create_checkpoint(into)).map_err(error)?;
        Ok(head.clone())
    }
}

fn head_of(db: &DB) -> Result<Option<Head>, Error> {
    let Some(bytes) = db.get_pinned(HEAD_KEY).map_err(error)? else { return Ok(None) };
    let head = EncodedBlock::parse(bytes::Bytes::copy_from_slice(&bytes));
    let head = head.map_err(|broken| Error::Corrupt(format!("head row: {broken}")))?;
    Ok(Some(Head::from_header(head.header().clone())))
}

/// Whether the directory holds a database that has lost its entry. RocksDB would begin an empty one over it and remove its files.
fn is_headless(dir: &Path) -> bool {
    let is_empty = std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
    !is_empty && !dir.join("CURRENT").exists()
}

/// The newest image of every row, in key order: RocksDB takes ascending keys several times faster than others.
fn newest_rows(blocks: &[EncodedBlock]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    let written = blocks.iter().filter(|block| 0 < block.header().number);
    let mut rows: Vec<(&[u8], Option<&[u8]>)> = written.flat_map(EncodedBlock::rows).collect();
    // Stable: of several images of a row the newest stays last.
    rows.sort_by_key(|(key, _)| *key);
    let mut rows = rows.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut row = rows.next()?;
        while let Some(newer) = rows.next_if(|newer| newer.0 == row.0) {
            row = newer;
        }
        Some(row)
    })
}

fn options(shared: &Shared) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&shared.cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    table.set_cache_index_and_filter_blocks(true);
    // In pieces of a block each: with ten million wallets not all of them are cached, and a whole file's are a megabyte to read again.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_manager(&shared.write_buffers);
    options.set_write_buffer_size(shared.write_buffer_bytes);
    // One writer per database: its own rules make concurrent memtable writes pointless.
    options.set_allow_concurrent_memtable_write(false);
    options.set_memtable_prefix_bloom_ratio(0.1);
    options.set_memtable_whole_key_filtering(true);
    // Young files are soon merged away; what rests below them is worth compressing.
    options.set_compression_per_level(&COMPRESSION);
    options.set_max_open_files(i32::from(RocksStore::OPEN_FILES_MAX));
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    options
}

/// How RocksDB says that somebody else holds its lock, another process or this one.
const HELD: [&str; 2] = ["LOCK: Resource temporarily unavailable", "lock hold by current process"];

/// Whether a database is not opened because somebody else has it open.
pub fn is_held(error: &rocksdb::Error) -> bool {
    let text = error.to_string();
    error.kind() == ErrorKind::IOError && HELD.iter().any(|held| text.contains(held))
}

fn error(error: rocksdb::Error) -> Error {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotSupported => Error::Corrupt(text),
        _ if is_held(&error) => Error::Busy(text),
        ErrorKind::IOError if text.contains("No such file") => Error::Corrupt(text),
        _ => Error::Io(text),
    }
}
