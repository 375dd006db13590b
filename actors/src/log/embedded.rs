//! The embedded log: the application's topics in a local RocksDB, for one process.
//!
//! Writers stand in line and whoever writes takes everyone with him (`line`), one synced write for all; the records of a commit and
//! partition are stored together as one chunk. Readers see the end of a partition only after the write that moved it is durable
//! (`view`). A write that fails may have been written all the same: the database is closed, everyone in that write is in doubt, and
//! nothing is built on a guess - it is opened again and then tells (`database`). Who may commit, `session` knows.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use finflow_topologies::log::{Error, Fetched, Log, Outgoing, Position, Record, Session};
use finflow_topologies::topics::Topic;
use tokio::sync::watch;

use self::database::{Database, died};
pub use self::disk::Disk;
use self::disk::Rows;
pub(crate) use self::disk::{LocalDisk, OPEN_FILES_MAX};
use self::line::Line;
use self::session::{EmbeddedSession, Owners};
use self::view::{Place, TAIL_BYTES_MAX, View};
use self::writing::{Request, WriteOutcome};

mod chunk;
mod database;
mod disk;
mod line;
mod session;
mod view;
mod writing;

/// What one synced write takes in, in bytes; the next one takes the rest.
const WRITE_BYTES_MAX: usize = 8 << 20;

/// The log; clones share it.
#[derive(Clone)]
pub struct EmbeddedLog(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    partitions: u32,
    disk: Arc<dyn Disk>,
    line: Line<Request, WriteOutcome>,
    database: RwLock<Database>,
    /// Changed only with the pen of the line.
    owners: Mutex<Owners>,
    view: RwLock<View>,
    changed: watch::Sender<u64>,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, or begins one with `partitions` partitions.
    pub fn open(dir: &Path, partitions: u32) -> Result<EmbeddedLog, Error> {
        EmbeddedLog::open_on(Arc::new(LocalDisk), dir, partitions)
    }

    /// Opens the log on a disk of a test's own making.
    #[doc(hidden)]
    pub fn open_on(disk: Arc<dyn Disk>, dir: &Path, partitions: u32) -> Result<EmbeddedLog, Error> {
        let db = disk.open(dir)?;
        let found = disk::begin(&*disk, &db, partitions)?;
        if found != partitions {
            return Err(Error::Refused(format!("the log has {found} partitions, {partitions} are configured")));
        }
        let view = View::new(disk::ranges(&db, partitions)?, TAIL_BYTES_MAX);
        let owners = Owners { positions: disk::positions(&db, partitions)?, ..Owners::default() };
        let shared = Shared {
            dir: dir.to_owned(),
            partitions,
            disk,
            line: Line::new(WRITE_BYTES_MAX),
            database: RwLock::new(Database::Open(db)),
            owners: Mutex::new(owners),
            view: RwLock::new(view),
            changed: watch::Sender::new(0),
        };
        Ok(EmbeddedLog(Arc::new(shared)))
    }

    /// Appends records to several partitions of `commands` in one write, and gives the offset of every record in each.
    pub fn append_all(&self, batches: Vec<(u32, Vec<Outgoing>)>) -> Result<Vec<Vec<u64>>, Error> {
        let counts: Vec<u64> = batches.iter().map(|(_, records)| records.len() as u64).collect();
        let firsts = self.append_to(batches.into_iter().map(|(partition, records)| ((Topic::Commands, partition), records)))?;
        Ok(firsts.into_iter().zip(counts).map(|(first, count)| (first..first.saturating_add(count)).collect()).collect())
    }

    /// The committed position of every partition.
    pub fn committed_positions(&self) -> Result<BTreeMap<u32, Option<Position>>, Error> {
        self.0.line.alone(|| {
            self.ensure_open()?;
            let owners = self.owners();
            Ok((0..self.0.partitions).map(|partition| (partition, owners.positions.get(&partition).cloned())).collect())
        })
    }

    /// Where everything that lanes follow ends at this moment.
    pub(crate) fn moment(&self) -> BTreeMap<Place, u64> {
        self.view().ends()
    }

    /// Ticks with every append and commit, and when a log that was closed is open again.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Why the log is closed; `None` while it is open.
    pub fn fault(&self) -> Option<String> {
        match &*self.database() {
            Database::Open(_) => None,
            Database::Closed(cause) => Some(cause.to_string()),
        }
    }

    fn append_to(&self, batches: impl Iterator<Item = (Place, Vec<Outgoing>)>) -> Result<Vec<u64>, Error> {
        match self.write(batches, None)? {
            WriteOutcome::Written(bases) => Ok(bases),
            WriteOutcome::Refused(error) | WriteOutcome::InDoubt(error) => Err(error),
            WriteOutcome::Fenced => Err(Error::Fenced),
        }
    }

    fn fetch_from_disk(&self, place: Place, from: u64, end: u64, bytes_max: usize) -> Result<Fetched, Error> {
        let mut fetched = Fetched { records: Vec::new(), next: from };
        let mut bytes = 0_usize;
        disk::visit_chunks(self.database().db()?, place, from, |base, stored| {
            if end <= base || (bytes_max <= bytes && !fetched.records.is_empty()) {
                return Ok(false);
            }
            bytes = bytes.saturating_add(stored.len());
            let records = chunk::decode(stored.into()).ok_or_else(|| disk::corrupt("a chunk"))?;
            let numbered = (base..end).zip(records).filter(|(offset, _)| from <= *offset);
            fetched.records.extend(numbered.map(|(offset, record)| Record { offset, ..record }));
            Ok(true)
        })?;
        fetched.next = fetched.records.last().map_or(from, |record| record.offset.saturating_add(1));
        Ok(fetched)
    }

    fn database(&self) -> RwLockReadGuard<'_, Database> {
        self.0.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn owners(&self) -> MutexGuard<'_, Owners> {
        self.0.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.0.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        self.0.changed.send_modify(|ticks| *ticks = ticks.wrapping_add(1));
    }
}

impl Log for EmbeddedLog {
    fn partitions(&self) -> u32 {
        self.0.partitions
    }

    fn append(&self, topic: Topic, partition: u32, records: Vec<Outgoing>) -> Result<u64, Error> {
        let bases = self.append_to([((topic, partition), records)].into_iter())?;
        Ok(bases.first().copied().unwrap_or_default())
    }

    fn fetch(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, Error> {
        let place = (topic, partition);
        let (Range { start, end }, newest) = {
            let view = self.view();
            (view.range(place)?, view.newest(place, from, bytes_max))
        };
        if from < start || end < from {
            return Err(Error::OutOfRange { topic, partition, asked: from, start, end });
        }
        match newest {
            _ if from == end => Ok(Fetched { records: Vec::new(), next: from }),
            Some(newest) => Ok(view::records_from(from, &newest)),
            None => self.fetch_from_disk(place, from, end, bytes_max),
        }
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<u64>, Error> {
        self.view().range((topic, partition))
    }

    fn session(&self, lane: &str) -> Result<Box<dyn Session>, Error> {
        let mut owners = self.owners();
        owners.sessions_opened = owners.sessions_opened.saturating_add(1);
        let id = owners.sessions_opened;
        owners.sessions.insert(lane.to_owned(), id);
        Ok(Box::new(EmbeddedSession { log: self.clone(), lane: lane.to_owned(), id, doubt: None }))
    }

    fn trim(&self, topic: Topic, partition: u32, before: u64) -> Result<(), Error> {
        let place = (topic, partition);
        let kept = self.0.line.alone(|| {
            self.ensure_open()?;
            let Range { start, end } = self.range(topic, partition)?;
            let start = before.clamp(start, end);
            let database = self.database();
            let db = database.db()?;
            // The newest chunk stays, because it says where the partition ends.
            let kept = disk::last_chunk(db, place, start)?.map_or(start, |(base, _)| base);
            let mut rows = Rows::new(db);
            rows.start(place, start, kept)?;
            let written = catch_unwind(AssertUnwindSafe(|| self.0.disk.write(db, rows.into_batch())));
            let written = written.unwrap_or_else(|_| Err(died()));
            drop(database);
            match &written {
                Ok(()) => self.0.view.write().unwrap_or_else(PoisonError::into_inner).trim(place, start),
                Err(error) => self.close(error),
            }
            written.map(|()| kept)
        })?;
        // Beside the writers: only references are moved.
        disk::reclaim(self.database().db()?, place, kept)
    }
}
