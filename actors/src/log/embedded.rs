//! The embedded log: the application's topics in a local RocksDB, for one process.
//!
//! One synced write per commit or append; the records of a commit and partition are stored together as one chunk. Readers see the
//! end of a partition only after the write that moved it is durable. Owners of partitions are kept in memory: RocksDB's lock keeps
//! other processes out.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use finflow_state::Stamp;
use finflow_topologies::log::{
    Claim, Claimed, Commit, Error, Fetched, Log, Outgoing, Position, Resolution, Session, Transaction,
};
use finflow_topologies::topics::Topic;
use rocksdb::{DB, Direction, IteratorMode, Options, WriteBatch, WriteOptions};
use tokio::sync::watch;

mod chunk;

const COUNT_KEY: &[u8] = b"i";
const POSITION: u8 = b'p';
const START: u8 = b's';
const CHUNK: u8 = b'c';
const WRITE_BUFFER_BYTES: usize = 32 * 1024 * 1024;

/// The log; clones share it.
#[derive(Clone)]
pub struct EmbeddedLog(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    partitions: u32,
    /// `None` while a failed write has closed it and it could not be opened again.
    db: RwLock<Option<DB>>,
    state: Mutex<State>,
    ranges: RwLock<Ranges>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    positions: BTreeMap<u32, Position>,
    /// By partition: the session and the epoch of the latest claim.
    claims: BTreeMap<u32, (u64, u64)>,
    claims_given: u64,
    sessions: BTreeMap<String, u64>,
    sessions_opened: u64,
}

impl State {
    fn is_claimed(&self, session: u64, claimed: &Claimed) -> bool {
        self.claims.get(&claimed.position.partition) == Some(&(session, claimed.claim))
    }
}

impl EmbeddedLog {
    /// Opens the log in `dir`, or begins one with `partitions` partitions.
    pub fn open(dir: &Path, partitions: u32) -> Result<EmbeddedLog, Error> {
        let db = open_db(dir)?;
        match db.get(COUNT_KEY).map_err(unavailable)? {
            Some(found) if found != partitions.to_be_bytes() => {
                let found = found.try_into().map(u32::from_be_bytes).unwrap_or_default();
                return Err(Error::Corrupt(format!("the log has {found} partitions, {partitions} are configured")));
            }
            Some(_) => {}
            None => db.put_opt(COUNT_KEY, partitions.to_be_bytes(), &synced()).map_err(unavailable)?,
        }
        let (ranges, positions) = load(&db, partitions)?;
        let shared = Shared {
            dir: dir.to_owned(),
            partitions,
            db: RwLock::new(Some(db)),
            state: Mutex::new(State { positions, ..State::default() }),
            ranges: RwLock::new(ranges),
            changed: watch::Sender::new(0),
        };
        Ok(EmbeddedLog(Arc::new(shared)))
    }

    /// Appends records to several partitions of `commands` in one write, and gives the offset of the first in each.
    pub fn append_all(&self, batches: Vec<(u32, Vec<Outgoing>)>) -> Result<Vec<u64>, Error> {
        let _state = self.settled()?;
        self.write(batches.into_iter().map(|(partition, records)| (Topic::Commands, partition, records)).collect(), &[])
    }

    /// Ticks with every append and commit.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_db<T>(&self, read: impl FnOnce(&DB) -> Result<T, Error>) -> Result<T, Error> {
        let db = self.0.db.read().unwrap_or_else(PoisonError::into_inner);
        read(db.as_ref().ok_or_else(|| Error::Unavailable("the log's disk failed".to_owned()))?)
    }

    /// Writes batches and positions in one synced write and then shows them. The caller holds the state's lock.
    fn write(&self, batches: Vec<(Topic, u32, Vec<Outgoing>)>, positions: &[Claimed]) -> Result<Vec<u64>, Error> {
        let now_ms = now_ms();
        let mut write = WriteBatch::default();
        let mut ends = Vec::with_capacity(batches.len());
        for (topic, partition, records) in &batches {
            let base = self.range(*topic, *partition)?.end;
            let end = base.saturating_add(records.len() as u64);
            if base < end {
                write.put(key(CHUNK, topic_number(*topic), *partition, &base.to_be_bytes()), chunk::encode(now_ms, records));
            }
            ends.push(((*topic, *partition), base, end));
        }
        for Claimed { position, .. } in positions {
            write.put(key(POSITION, 0, position.partition, &[]), chunk::encode_position(position));
        }
        if let Err(error) = self.with_db(|db| db.write_opt(write, &synced()).map_err(unavailable)) {
            // It may have been written all the same: closed until the disk has been asked.
            *self.0.db.write().unwrap_or_else(PoisonError::into_inner) = None;
            return Err(error);
        }
        let mut ranges = self.0.ranges.write().unwrap_or_else(PoisonError::into_inner);
        for (place, _, end) in &ends {
            ranges.entry(*place).or_default().end = *end;
        }
        drop(ranges);
        self.0.changed.send_modify(|ticks| *ticks = ticks.wrapping_add(1));
        Ok(ends.into_iter().map(|(_, base, _)| base).collect())
    }

    /// Closes the database and opens it again, so that what a failed write left behind is known. No writer and no reader comes
    /// between: an end that was read before their write would hide it, and the next append would overwrite it.
    fn reopen(&self, state: &mut State) -> Result<(), Error> {
        let mut db = self.0.db.write().unwrap_or_else(PoisonError::into_inner);
        *db = None;
        let opened = open_db(&self.0.dir)?;
        let (ranges, positions) = load(&opened, self.0.partitions)?;
        *self.0.ranges.write().unwrap_or_else(PoisonError::into_inner) = ranges;
        state.positions = positions;
        *db = Some(opened);
        Ok(())
    }

    /// The state's lock, after what a failed write left behind is known: nobody builds on a guess.
    fn settled(&self) -> Result<MutexGuard<'_, State>, Error> {
        let mut state = self.state();
        let is_closed = self.0.db.read().unwrap_or_else(PoisonError::into_inner).is_none();
        if is_closed {
            self.reopen(&mut state)?;
        }
        Ok(state)
    }
}

impl Log for EmbeddedLog {
    fn partitions(&self) -> u32 {
        self.0.partitions
    }

    fn append(&self, topic: Topic, partition: u32, records: Vec<Outgoing>) -> Result<u64, Error> {
        self.range(topic, partition)?;
        let _state = self.settled()?;
        let bases = self.write(vec![(topic, partition, records)], &[])?;
        Ok(bases.first().copied().unwrap_or_default())
    }

    fn fetch(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, Error> {
        let Range { start, end } = self.range(topic, partition)?;
        if from < start || end < from {
            return Err(Error::OutOfRange { topic, partition, asked: from, start, end });
        }
        let mut fetched = Fetched { records: Vec::new(), next: from };
        if from == end {
            return Ok(fetched);
        }
        let prefix = key(CHUNK, topic_number(topic), partition, &[]);
        let wanted = key(CHUNK, topic_number(topic), partition, &from.to_be_bytes());
        self.with_db(|db| {
            let first = db.iterator(IteratorMode::From(&wanted, Direction::Reverse)).next().transpose().map_err(unavailable)?;
            let first = first.map(|(key, _)| key).filter(|key| key.starts_with(&prefix)).unwrap_or_else(|| wanted.clone().into());
            let mut bytes = 0_usize;
            for row in db.iterator(IteratorMode::From(&first, Direction::Forward)) {
                let (key, value) = row.map_err(unavailable)?;
                if !key.starts_with(&prefix) || (bytes_max <= bytes && !fetched.records.is_empty()) {
                    break;
                }
                let base = key.get(prefix.len()..).and_then(|base| Some(u64::from_be_bytes(base.try_into().ok()?)));
                let base = base.ok_or_else(|| corrupt("a chunk key"))?;
                if end <= base {
                    break;
                }
                bytes = bytes.saturating_add(value.len());
                let records = chunk::decode(base, value.into_vec().into()).ok_or_else(|| corrupt("a chunk"))?;
                fetched.records.extend(records.into_iter().filter(|record| from <= record.offset && record.offset < end));
            }
            Ok(())
        })?;
        fetched.next = fetched.records.last().map_or(from, |record| record.offset.saturating_add(1));
        Ok(fetched)
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<u64>, Error> {
        let ranges = self.0.ranges.read().unwrap_or_else(PoisonError::into_inner);
        ranges.get(&(topic, partition)).cloned().ok_or(Error::UnknownPartition { topic, partition })
    }

    fn session(&self, lane: &str) -> Result<Box<dyn Session>, Error> {
        let mut state = self.state();
        state.sessions_opened = state.sessions_opened.saturating_add(1);
        let id = state.sessions_opened;
        state.sessions.insert(lane.to_owned(), id);
        Ok(Box::new(EmbeddedSession { log: self.clone(), lane: lane.to_owned(), id, doubt: None }))
    }

    fn trim(&self, topic: Topic, partition: u32, before: u64) -> Result<(), Error> {
        let _state = self.settled()?;
        let Range { start, end } = self.range(topic, partition)?;
        let before = before.clamp(start, end);
        let number = topic_number(topic);
        let mut write = WriteBatch::default();
        write.put(key(START, number, partition, &[]), before.to_be_bytes());
        self.with_db(|db| db.write_opt(write, &synced()).map_err(unavailable))?;
        if let Some(range) = self.0.ranges.write().unwrap_or_else(PoisonError::into_inner).get_mut(&(topic, partition)) {
            range.start = before;
        }
        self.drop_chunks(topic, partition, before)
    }
}

impl EmbeddedLog {
    /// Deletes the chunks that end below `before`; the newest chunk stays, because it says where the partition ends.
    fn drop_chunks(&self, topic: Topic, partition: u32, before: u64) -> Result<(), Error> {
        let prefix = key(CHUNK, topic_number(topic), partition, &[]);
        self.with_db(|db| {
            let mut write = WriteBatch::default();
            let mut last: Option<Box<[u8]>> = None;
            for row in db.iterator(IteratorMode::From(&prefix, Direction::Forward)) {
                let (key, _) = row.map_err(unavailable)?;
                let base = key.strip_prefix(&*prefix).and_then(|base| Some(u64::from_be_bytes(base.try_into().ok()?)));
                let Some(base) = base.filter(|base| *base <= before) else { break };
                // The chunk before one that begins at or below `before` ends there too.
                if let Some(done) = last.replace(key).filter(|_| base <= before) {
                    write.delete(done);
                }
            }
            db.write_opt(write, &synced()).map_err(unavailable)
        })
    }
}

struct EmbeddedSession {
    log: EmbeddedLog,
    lane: String,
    id: u64,
    doubt: Option<(Stamp, Vec<Claimed>)>,
}

impl EmbeddedSession {
    fn is_over(&self, state: &State) -> bool {
        state.sessions.get(&self.lane) != Some(&self.id)
    }
}

impl Session for EmbeddedSession {
    fn claim(&mut self, partition: u32) -> Result<Claim, Error> {
        self.log.range(Topic::Commands, partition)?;
        let mut state = self.log.settled()?;
        if self.is_over(&state) {
            return Err(Error::Fenced);
        }
        state.claims_given = state.claims_given.saturating_add(1);
        let epoch = state.claims_given;
        state.claims.insert(partition, (self.id, epoch));
        Ok(Claim { epoch, position: state.positions.get(&partition).cloned() })
    }

    fn release(&mut self, partition: u32) {
        let mut state = self.log.state();
        if state.claims.get(&partition).is_some_and(|(session, _)| *session == self.id) {
            state.claims.remove(&partition);
        }
    }

    fn commit(&mut self, transaction: Transaction) -> Commit {
        if let Some((doubt, _)) = &self.doubt {
            return Commit::Aborted(format!("the doubt about {doubt} comes first"));
        }
        if transaction.positions.is_empty() {
            return Commit::Aborted("no positions: nothing would be fenced".to_owned());
        }
        let mut state = match self.log.settled() {
            Ok(state) => state,
            Err(error) => return Commit::Aborted(error.to_string()),
        };
        if self.is_over(&state) || !transaction.positions.iter().all(|claimed| state.is_claimed(self.id, claimed)) {
            return Commit::Fenced;
        }
        let nowhere = transaction.batches.iter().find_map(|batch| self.log.range(batch.topic, batch.partition).err());
        if let Some(error) = nowhere {
            return Commit::Aborted(error.to_string());
        }
        let Transaction { stamp, batches, positions } = transaction;
        let batches = batches.into_iter().map(|batch| (batch.topic, batch.partition, batch.records)).collect();
        match self.log.write(batches, &positions) {
            Ok(_) => {
                state.positions.extend(positions.into_iter().map(|Claimed { position, .. }| (position.partition, position)));
                Commit::Committed
            }
            Err(error) => {
                self.doubt = Some((stamp, positions));
                Commit::InDoubt(error.to_string())
            }
        }
    }

    fn resolve(&mut self, stamp: &Stamp) -> Result<Resolution, Error> {
        let mut state = self.log.state();
        self.log.reopen(&mut state)?;
        let is_committed = state.positions.values().any(|position| position.stamp == *stamp);
        // Whoever has claimed all of it since may have written other positions over the ones that would tell.
        let is_told = |(_, touched): &(_, Vec<Claimed>)| touched.iter().any(|claimed| state.is_claimed(self.id, claimed));
        if !is_committed && (self.is_over(&state) || self.doubt.as_ref().is_some_and(|doubt| !is_told(doubt))) {
            return Err(Error::Fenced);
        }
        self.doubt = None;
        Ok(if is_committed { Resolution::Committed } else { Resolution::Aborted })
    }
}

fn open_db(dir: &Path) -> Result<DB, Error> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    DB::open(&options, dir).map_err(unavailable)
}

type Ranges = BTreeMap<(Topic, u32), Range<u64>>;

/// Reads ranges and positions, as after a start.
fn load(db: &DB, partitions: u32) -> Result<(Ranges, BTreeMap<u32, Position>), Error> {
    let mut ranges = BTreeMap::new();
    let mut positions = BTreeMap::new();
    for partition in 0..partitions {
        for topic in Topic::ALL {
            ranges.insert((topic, partition), range_of(db, topic, partition)?);
        }
        if let Some(row) = db.get(key(POSITION, 0, partition, &[])).map_err(unavailable)? {
            let position = chunk::decode_position(partition, &row).ok_or_else(|| corrupt("a position"))?;
            positions.insert(partition, position);
        }
    }
    Ok((ranges, positions))
}

fn range_of(db: &DB, topic: Topic, partition: u32) -> Result<Range<u64>, Error> {
    let number = topic_number(topic);
    let start = db.get(key(START, number, partition, &[])).map_err(unavailable)?;
    let start = start.and_then(|start| start.try_into().ok()).map_or(0, u64::from_be_bytes);
    let prefix = key(CHUNK, number, partition, &[]);
    let last = key(CHUNK, number, partition, &u64::MAX.to_be_bytes());
    let row = db.iterator(IteratorMode::From(&last, Direction::Reverse)).next().transpose().map_err(unavailable)?;
    let Some((key, value)) = row.filter(|(key, _)| key.starts_with(&prefix)) else { return Ok(start..start) };
    let base = key.get(prefix.len()..).and_then(|base| Some(u64::from_be_bytes(base.try_into().ok()?)));
    let records = base.and_then(|base| chunk::decode(base, value.into_vec().into())).ok_or_else(|| corrupt("a chunk"))?;
    let end = records.last().map_or(start, |record| record.offset.saturating_add(1));
    Ok(start..end.max(start))
}

fn key(kind: u8, topic: u8, partition: u32, rest: &[u8]) -> Vec<u8> {
    [&[kind, topic][..], &partition.to_be_bytes(), rest].concat()
}

/// Frozen: these numbers stand in keys.
fn topic_number(topic: Topic) -> u8 {
    match topic {
        Topic::Commands => 0,
        Topic::Postings => 1,
        Topic::Events => 2,
        Topic::Journal => 3,
        Topic::Dlq => 4,
    }
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// The broker's clock of this log: the time that records get.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

fn unavailable(error: rocksdb::Error) -> Error {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => Error::Corrupt(error.to_string()),
        _ => Error::Unavailable(error.to_string()),
    }
}

fn corrupt(what: &str) -> Error {
    Error::Corrupt(format!("{what} cannot be read"))
}
