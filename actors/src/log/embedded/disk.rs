//! The log's database: its layout, its bounds, and the seam at which tests make the disk fail.
//!
//! Each topic is a column family with chunks under `partition | base offset`; what is trimmed leaves the disk as whole blob files.
//! Chunks are large and come in the order of their keys: they lie in blob files, so that compaction moves only their short
//! references and a record is written twice, to the write-ahead log and to its blob. The default family holds the partition
//! count, where each partition starts, and the positions.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use finflow_state::store::is_held;
use finflow_topologies::log::{Error, Position};
use finflow_topologies::topics::Topic;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Direction, ErrorKind,
    IteratorMode, Options, WriteBatch, WriteOptions,
};

use super::chunk;
use super::view::Place;

/// Memory of all memtables together, in bytes; past it the oldest is written out. Twice as much for a moment, while it is.
const MEMTABLES_BYTES: usize = 24 << 20;
/// A memtable of one topic is written out at this size, in bytes.
const MEMTABLE_BYTES: usize = 8 << 20;
/// Memory for blocks of keys read back, in bytes.
const CACHE_BYTES: usize = 4 << 20;
/// The write-ahead log is cut at this length, in bytes: what a start after a crash has to read at most.
const WAL_BYTES_MAX: u64 = 48 << 20;
/// Chunks from this size on, in bytes, lie in blob files.
const BLOB_BYTES_MIN: u64 = 512;
/// Open at once; a log of any size starts without opening all its files.
pub(crate) const OPEN_FILES_MAX: u16 = 256;

const COUNT_KEY: &[u8] = b"i";
const POSITION: u8 = b'p';
const START: u8 = b's';

/// How the log reaches its database. Tests put a failing one in its place.
pub trait Disk: Send + Sync {
    /// Opens the database in a directory, or begins one. What is in it then is durable: RocksDB writes what it recovers into new
    /// files and syncs them before it returns.
    fn open(&self, dir: &Path) -> Result<DB, Error> {
        open(dir)
    }

    /// Writes a batch, all of it or nothing, and returns when it is durable. After an error either may be the case.
    fn write(&self, db: &DB, batch: WriteBatch) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        db.write_opt(batch, &options).map_err(unavailable)
    }
}

/// The disk that there is.
pub(crate) struct LocalDisk;

impl Disk for LocalDisk {}

fn open(dir: &Path) -> Result<DB, Error> {
    std::fs::create_dir_all(dir).map_err(|error| Error::Lasting(format!("{}: {error}", dir.display())))?;
    refuse_headless(dir)?;
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // A write that a crash has cut short is forgotten. Damage before the end is not: what follows it was acknowledged.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_db_write_buffer_size(MEMTABLES_BYTES);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_max_background_jobs(2);
    options.set_max_open_files(i32::from(OPEN_FILES_MAX));
    options.set_skip_stats_update_on_db_open(true);
    options.set_keep_log_file_num(2);
    let families = Topic::ALL.map(Topic::word).into_iter().chain([rocksdb::DEFAULT_COLUMN_FAMILY_NAME]);
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    let families = families.map(|name| ColumnFamilyDescriptor::new(name, family_options(&cache)));
    DB::open_cf_descriptors(&options, dir, families).map_err(unavailable)
}

/// Without its file `CURRENT`, RocksDB takes a directory for a new one and removes what is in it: the only truth there is.
fn refuse_headless(dir: &Path) -> Result<(), Error> {
    if dir.join("CURRENT").exists() {
        return Ok(());
    }
    let failed = |error: std::io::Error| Error::Lasting(format!("{}: {error}", dir.display()));
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "sst" || extension == "blob" || extension == "log") {
            return Err(Error::Corrupt(format!("{} has lost its file CURRENT, but not its data", dir.display())));
        }
    }
    Ok(())
}

fn family_options(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    // Chunks are compressed before they come here.
    options.set_compression_type(DBCompressionType::None);
    options.set_enable_blob_files(true);
    options.set_min_blob_size(BLOB_BYTES_MIN);
    options
}

/// A batch of rows in the layout above.
pub(super) struct Rows<'a> {
    db: &'a DB,
    batch: WriteBatch,
}

impl<'a> Rows<'a> {
    pub(super) fn new(db: &'a DB) -> Rows<'a> {
        Rows { db, batch: WriteBatch::default() }
    }

    pub(super) fn chunk(&mut self, (topic, partition): Place, base: u64, stored: &[u8]) -> Result<(), Error> {
        self.batch.put_cf(family(self.db, topic)?, chunk_key(partition, base), stored);
        Ok(())
    }

    pub(super) fn position(&mut self, position: &Position) {
        self.batch.put(position_key(position.partition), chunk::encode_position(position));
    }

    /// Moves the start of a place to `start` and drops the chunks below the one that begins at `kept`.
    pub(super) fn start(&mut self, (topic, partition): Place, start: u64, kept: u64) -> Result<(), Error> {
        self.batch.put(start_key((topic, partition)), start.to_be_bytes());
        self.batch.delete_range_cf(family(self.db, topic)?, chunk_key(partition, 0), chunk_key(partition, kept));
        Ok(())
    }

    pub(super) fn into_batch(self) -> WriteBatch {
        self.batch
    }
}

/// The partition count that the log was begun with, which is written if there is none.
pub(super) fn begin(disk: &dyn Disk, db: &DB, partitions: u32) -> Result<u32, Error> {
    if let Some(found) = db.get(COUNT_KEY).map_err(unavailable)? {
        return found.try_into().map(u32::from_be_bytes).map_err(|_| corrupt("the partition count"));
    }
    let mut batch = WriteBatch::default();
    batch.put(COUNT_KEY, partitions.to_be_bytes());
    disk.write(db, batch)?;
    Ok(partitions)
}

/// What every place holds, with one seek each.
pub(super) fn ranges(db: &DB, partitions: u32) -> Result<BTreeMap<Place, Range<u64>>, Error> {
    let places = (0..partitions).flat_map(|partition| Topic::ALL.map(|topic| (topic, partition)));
    places.map(|place| Ok((place, range(db, place)?))).collect()
}

fn range(db: &DB, place: Place) -> Result<Range<u64>, Error> {
    let start = db.get(start_key(place)).map_err(unavailable)?;
    let start = start.and_then(|start| start.try_into().ok()).map_or(0, u64::from_be_bytes);
    let Some((base, stored)) = last_chunk(db, place, u64::MAX)? else { return Ok(start..start) };
    let count = chunk::decode(stored.into()).ok_or_else(|| corrupt("a chunk"))?.len();
    Ok(start..base.saturating_add(count as u64).max(start))
}

pub(super) fn positions(db: &DB, partitions: u32) -> Result<BTreeMap<u32, Position>, Error> {
    let mut positions = BTreeMap::new();
    for partition in 0..partitions {
        if let Some(row) = db.get(position_key(partition)).map_err(unavailable)? {
            let position = chunk::decode_position(partition, &row).ok_or_else(|| corrupt("a position"))?;
            positions.insert(partition, position);
        }
    }
    Ok(positions)
}

/// The chunk with the greatest base up to `offset`.
pub(super) fn last_chunk(db: &DB, (topic, partition): Place, offset: u64) -> Result<Option<(u64, Vec<u8>)>, Error> {
    let from = chunk_key(partition, offset);
    let mut rows = db.iterator_cf(family(db, topic)?, IteratorMode::From(&from, Direction::Reverse));
    let Some((key, stored)) = rows.next().transpose().map_err(unavailable)? else { return Ok(None) };
    Ok(base_of(partition, &key)?.map(|base| (base, stored.into_vec())))
}

/// Gives back the space of the chunks below the one that begins at `kept`, which were dropped: blob files go when no reference to
/// them is left, and references are so short that RocksDB would hardly ever compact them by itself.
pub(super) fn reclaim(db: &DB, (topic, partition): Place, kept: u64) -> Result<(), Error> {
    db.compact_range_cf(family(db, topic)?, Some(chunk_key(partition, 0)), Some(chunk_key(partition, kept)));
    Ok(())
}

/// Calls `visit` with the base and the bytes of each chunk from the one that holds `from` on, until it says that it is enough.
pub(super) fn visit_chunks(
    db: &DB,
    place: Place,
    from: u64,
    mut visit: impl FnMut(u64, Vec<u8>) -> Result<bool, Error>,
) -> Result<(), Error> {
    let (topic, partition) = place;
    let first = last_chunk(db, place, from)?.map_or(from, |(base, _)| base);
    let first = chunk_key(partition, first);
    for row in db.iterator_cf(family(db, topic)?, IteratorMode::From(&first, Direction::Forward)) {
        let (key, stored) = row.map_err(unavailable)?;
        let Some(base) = base_of(partition, &key)? else { break };
        if !visit(base, stored.into_vec())? {
            break;
        }
    }
    Ok(())
}

/// The base in a chunk's key; `None` if the key is another partition's.
fn base_of(partition: u32, key: &[u8]) -> Result<Option<u64>, Error> {
    let (of, base) = key.split_first_chunk::<4>().ok_or_else(|| corrupt("a chunk's key"))?;
    let base = base.try_into().map(u64::from_be_bytes).map_err(|_| corrupt("a chunk's key"))?;
    Ok((u32::from_be_bytes(*of) == partition).then_some(base))
}

fn family(db: &DB, topic: Topic) -> Result<&ColumnFamily, Error> {
    db.cf_handle(topic.word()).ok_or_else(|| corrupt("the list of topics"))
}

fn chunk_key(partition: u32, base: u64) -> [u8; 12] {
    let mut key = [0; 12];
    let (head, tail) = key.split_at_mut(4);
    head.copy_from_slice(&partition.to_be_bytes());
    tail.copy_from_slice(&base.to_be_bytes());
    key
}

fn position_key(partition: u32) -> Vec<u8> {
    [&[POSITION][..], &partition.to_be_bytes()].concat()
}

fn start_key((topic, partition): Place) -> Vec<u8> {
    [&[START][..], topic.word().as_bytes(), &partition.to_be_bytes()].concat()
}

pub(super) fn unavailable(error: rocksdb::Error) -> Error {
    match error.kind() {
        ErrorKind::Corruption => Error::Corrupt(error.to_string()),
        _ if is_held(&error) => Error::Busy(error.to_string()),
        ErrorKind::IOError => Error::Lasting(error.to_string()),
        _ => Error::Unavailable(error.to_string()),
    }
}

pub(super) fn corrupt(what: &str) -> Error {
    Error::Corrupt(format!("{what} cannot be read"))
}
