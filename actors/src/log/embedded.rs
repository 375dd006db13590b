//! The embedded log: the application's topics in a local RocksDB, for one process.
//!
//! Writers stand in line and whoever writes takes everyone with him (`line`), one synced write for all; the records of a commit and
//! partition are stored together as one chunk. Readers see the end of a partition only after the write that moved it is durable
//! (`view`). A write that fails may have been written all the same: the database is closed, everyone in that write is in doubt, and
//! nothing is built on a guess - it is opened again, by whoever writes next or by itself, and then tells. Claims of partitions are
//! kept in memory: RocksDB's lock keeps other processes out.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use finflow_state::Stamp;
use finflow_topologies::log::{
    Claim, Claimed, Commit, Error, Fetched, Log, Outgoing, Position, Record, Resolution, Session, Transaction,
};
use finflow_topologies::topics::Topic;
use rocksdb::DB;
use tokio::sync::watch;
use tracing::{error, info, warn};

pub use self::disk::Disk;
pub(crate) use self::disk::LocalDisk;
use self::disk::Rows;
use self::line::Line;
use self::view::{Place, TAIL_BYTES_MAX, View};

mod chunk;
mod disk;
mod line;
mod view;

/// What one synced write takes in, in bytes; the next one takes the rest.
const WRITE_BYTES_MAX: usize = 8 << 20;
/// How long a closed log waits before it tries to open again.
const REOPEN_EVERY: Duration = Duration::from_millis(100);

/// The log; clones share it.
#[derive(Clone)]
pub struct EmbeddedLog(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    partitions: u32,
    disk: Arc<dyn Disk>,
    line: Line<Request, Answer>,
    database: RwLock<Database>,
    /// Changed only with the pen of the line.
    owners: Mutex<Owners>,
    view: RwLock<View>,
    changed: watch::Sender<u64>,
}

enum Database {
    Open(DB),
    /// A write has failed, for this cause: what is on disk is not known until it is opened again.
    Closed(String),
}

#[derive(Default)]
struct Owners {
    positions: BTreeMap<u32, Position>,
    /// By partition: the session and the epoch of the latest claim.
    claims: BTreeMap<u32, (u64, u64)>,
    claims_given: u64,
    sessions: BTreeMap<String, u64>,
    sessions_opened: u64,
}

/// What somebody wants written.
struct Request {
    batches: Vec<Encoded>,
    /// For an epoch: who commits it. A producer needs no claim.
    commit: Option<Committing>,
}

struct Encoded {
    place: Place,
    chunk: chunk::Encoded,
}

struct Committing {
    lane: String,
    session: u64,
    positions: Vec<Claimed>,
}

#[derive(Debug)]
enum Answer {
    /// Durable; the offsets of the first record of each batch.
    Written(Vec<u64>),
    /// Nothing of it was written.
    Refused(Error),
    Fenced,
    /// It may have been written or not.
    InDoubt(Error),
}

impl Owners {
    fn is_over(&self, lane: &str, session: u64) -> bool {
        self.sessions.get(lane) != Some(&session)
    }

    fn is_claimed(&self, session: u64, claimed: &Claimed) -> bool {
        self.claims.get(&claimed.position.partition) == Some(&(session, claimed.claim))
    }

    fn may_commit(&self, commit: &Committing) -> bool {
        let is_over = self.is_over(&commit.lane, commit.session);
        !is_over && commit.positions.iter().all(|claimed| self.is_claimed(commit.session, claimed))
    }
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
            return Err(Error::Corrupt(format!("the log has {found} partitions, {partitions} are configured")));
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

    /// Appends records to several partitions of `commands` in one write, and gives the offset of the first in each.
    pub fn append_all(&self, batches: Vec<(u32, Vec<Outgoing>)>) -> Result<Vec<u64>, Error> {
        self.append_to(batches.into_iter().map(|(partition, records)| ((Topic::Commands, partition), records)))
    }

    /// The committed position of every partition.
    pub fn committed_positions(&self) -> Result<BTreeMap<u32, Option<Position>>, Error> {
        self.0.line.alone(|| {
            self.settle()?;
            let owners = self.owners();
            Ok((0..self.0.partitions).map(|partition| (partition, owners.positions.get(&partition).cloned())).collect())
        })
    }

    /// Ticks with every append and commit, and when a log that was closed is open again.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Why the log is closed; `None` while it is open.
    pub fn fault(&self) -> Option<String> {
        match &*self.database() {
            Database::Open(_) => None,
            Database::Closed(cause) => Some(cause.clone()),
        }
    }

    fn append_to(&self, batches: impl Iterator<Item = (Place, Vec<Outgoing>)>) -> Result<Vec<u64>, Error> {
        match self.write(batches, None)? {
            Answer::Written(bases) => Ok(bases),
            Answer::Refused(error) | Answer::InDoubt(error) => Err(error),
            Answer::Fenced => Err(Error::Fenced),
        }
    }

    /// Stands in line with batches and, for an epoch, its positions. An error is of the request itself: nothing of it was written.
    fn write(&self, batches: impl Iterator<Item = (Place, Vec<Outgoing>)>, commit: Option<Committing>) -> Result<Answer, Error> {
        let now_ms = now_ms();
        let encode = |(place, records): (Place, Vec<Outgoing>)| {
            self.view().range(place)?;
            let chunk = chunk::encode(now_ms, &records, place.0.keeps_time(), is_read_at_once(place.0));
            let chunk = chunk.ok_or_else(|| Error::Unavailable("records that could not be read back".to_owned()))?;
            Ok(Encoded { place, chunk })
        };
        let batches = batches.map(encode).collect::<Result<Vec<_>, Error>>()?;
        let bytes = batches.iter().map(|batch| batch.chunk.stored.len()).sum();
        let answer = self.0.line.stand(Request { batches, commit }, bytes, |requests| self.write_or_close(requests));
        Ok(answer.unwrap_or_else(|| Answer::InDoubt(died())))
    }

    /// Writes all requests, or closes the log where that panics: nobody knows then what is on the disk, nor whether it was shown. The
    /// caller has the pen.
    fn write_or_close(&self, requests: Vec<Request>) -> Vec<Answer> {
        let count = requests.len();
        let written = catch_unwind(AssertUnwindSafe(|| self.write_all(requests)));
        written.unwrap_or_else(|_| {
            self.close(&died());
            (0..count).map(|_| Answer::InDoubt(died())).collect()
        })
    }

    /// Writes all requests that may be written in one synced write and then shows them. The caller has the pen.
    fn write_all(&self, requests: Vec<Request>) -> Vec<Answer> {
        if let Err(error) = self.settle() {
            return requests.iter().map(|_| Answer::Refused(error.clone())).collect();
        }
        let answers = match self.write_rows(&requests) {
            Ok(answers) => answers,
            Err(error) => {
                self.close(&error);
                return requests.iter().map(|_| Answer::InDoubt(error.clone())).collect();
            }
        };
        let (mut owners, mut view) = (self.owners(), self.0.view.write().unwrap_or_else(PoisonError::into_inner));
        for (request, answer) in requests.into_iter().zip(&answers) {
            let Answer::Written(bases) = answer else { continue };
            let positions = request.commit.into_iter().flat_map(|commit| commit.positions);
            owners.positions.extend(positions.map(|claimed| (claimed.position.partition, claimed.position)));
            for (batch, base) in request.batches.into_iter().zip(bases) {
                let end = base.saturating_add(batch.chunk.count);
                view.extend(batch.place, end, batch.chunk.appended(*base));
            }
        }
        drop((owners, view));
        self.tick();
        answers
    }

    fn write_rows(&self, requests: &[Request]) -> Result<Vec<Answer>, Error> {
        let database = self.database();
        let db = database.db()?;
        let (owners, view) = (self.owners(), self.view());
        let mut ends = BTreeMap::<Place, u64>::new();
        let mut rows = Rows::new(db);
        let mut answers = Vec::with_capacity(requests.len());
        for Request { batches, commit } in requests {
            if commit.as_ref().is_some_and(|commit| !owners.may_commit(commit)) {
                answers.push(Answer::Fenced);
                continue;
            }
            let mut bases = Vec::with_capacity(batches.len());
            for Encoded { place, chunk } in batches {
                let base = ends.get(place).map_or_else(|| view.range(*place).map(|range| range.end), |end| Ok(*end))?;
                if 0 < chunk.count {
                    rows.chunk(*place, base, &chunk.stored)?;
                }
                ends.insert(*place, base.saturating_add(chunk.count));
                bases.push(base);
            }
            commit.iter().flat_map(|commit| &commit.positions).for_each(|claimed| rows.position(&claimed.position));
            answers.push(Answer::Written(bases));
        }
        // Readers go on while the disk is at work.
        drop((owners, view));
        self.0.disk.write(db, rows.into_batch())?;
        Ok(answers)
    }

    /// Closes the log after a write that failed, until what it left behind is known. The caller has the pen.
    fn close(&self, error: &Error) {
        error!(cause = %error, "the log's disk failed, it is closed until it can be opened again");
        *self.0.database.write().unwrap_or_else(PoisonError::into_inner) = Database::Closed(error.to_string());
        let shared = Arc::downgrade(&self.0);
        let reopen = move || {
            while let Some(log) = shared.upgrade().map(EmbeddedLog) {
                if log.0.line.alone(|| log.settle()).is_ok() {
                    break;
                }
                drop(log);
                std::thread::sleep(REOPEN_EVERY);
            }
        };
        if let Err(cause) = std::thread::Builder::new().name("log-reopen".to_owned()).spawn(reopen) {
            warn!(%cause, "the log stays closed until somebody writes");
        }
    }

    /// Opens a closed log again, so that nobody builds on a guess. The caller has the pen: an end that is read beside a write would
    /// hide that write, and the next one would overwrite it.
    fn settle(&self) -> Result<(), Error> {
        if self.fault().is_none() {
            return Ok(());
        }
        let opened = self.open_again();
        let mut database = self.0.database.write().unwrap_or_else(PoisonError::into_inner);
        match opened {
            Ok(db) => *database = Database::Open(db),
            Err(error) => {
                *database = Database::Closed(error.to_string());
                return Err(error);
            }
        }
        drop(database);
        info!("the log is open again");
        self.tick();
        Ok(())
    }

    fn open_again(&self) -> Result<DB, Error> {
        let db = self.0.disk.open(&self.0.dir)?;
        let view = View::new(disk::ranges(&db, self.0.partitions)?, TAIL_BYTES_MAX);
        self.owners().positions = disk::positions(&db, self.0.partitions)?;
        *self.0.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        Ok(db)
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

impl Database {
    fn db(&self) -> Result<&DB, Error> {
        match self {
            Database::Open(db) => Ok(db),
            Database::Closed(cause) => Err(Error::Unavailable(cause.clone())),
        }
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
            self.settle()?;
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

struct EmbeddedSession {
    log: EmbeddedLog,
    lane: String,
    id: u64,
    doubt: Option<(Stamp, Vec<Claimed>)>,
}

impl Session for EmbeddedSession {
    fn claim(&mut self, partition: u32) -> Result<Claim, Error> {
        self.log.range(Topic::Commands, partition)?;
        self.log.0.line.alone(|| {
            self.log.settle()?;
            let mut owners = self.log.owners();
            if owners.is_over(&self.lane, self.id) {
                return Err(Error::Fenced);
            }
            owners.claims_given = owners.claims_given.saturating_add(1);
            let epoch = owners.claims_given;
            owners.claims.insert(partition, (self.id, epoch));
            Ok(Claim { epoch, position: owners.positions.get(&partition).cloned() })
        })
    }

    fn release(&mut self, partition: u32) {
        let mut owners = self.log.owners();
        if owners.claims.get(&partition).is_some_and(|(session, _)| *session == self.id) {
            owners.claims.remove(&partition);
        }
    }

    fn commit(&mut self, transaction: Transaction) -> Commit {
        if let Some((doubt, _)) = &self.doubt {
            return Commit::Aborted(format!("the doubt about {doubt} comes first"));
        }
        if transaction.positions.is_empty() {
            return Commit::Aborted("no positions: nothing would be fenced".to_owned());
        }
        let Transaction { stamp, batches, positions } = transaction;
        let commit = Committing { lane: self.lane.clone(), session: self.id, positions: positions.clone() };
        let batches = batches.into_iter().map(|batch| ((batch.topic, batch.partition), batch.records));
        match self.log.write(batches, Some(commit)) {
            Ok(Answer::Written(_)) => Commit::Committed,
            Ok(Answer::Fenced) => Commit::Fenced,
            Ok(Answer::Refused(error)) | Err(error) => Commit::Aborted(error.to_string()),
            Ok(Answer::InDoubt(error)) => {
                self.doubt = Some((stamp, positions));
                Commit::InDoubt(error.to_string())
            }
        }
    }

    fn resolve(&mut self, stamp: &Stamp) -> Result<Resolution, Error> {
        // Whatever a doubt is about was followed by a closed log: once that is open, the positions are what is on disk.
        let is_committed = self.log.0.line.alone(|| {
            self.log.settle()?;
            let owners = self.log.owners();
            let is_committed = owners.positions.values().any(|position| position.stamp == *stamp);
            // Whoever has claimed all of it since may have written other positions over the ones that would tell.
            let is_told = |(_, touched): &(_, Vec<Claimed>)| touched.iter().any(|claimed| owners.is_claimed(self.id, claimed));
            let is_over = owners.is_over(&self.lane, self.id) || self.doubt.as_ref().is_some_and(|doubt| !is_told(doubt));
            if is_over && !is_committed { Err(Error::Fenced) } else { Ok(is_committed) }
        })?;
        self.doubt = None;
        Ok(if is_committed { Resolution::Committed } else { Resolution::Aborted })
    }
}

fn died() -> Error {
    Error::Unavailable("the writer of this write died".to_owned())
}

/// Whether records of a topic are read as soon as they are written, rather than at a restart or by an operator.
fn is_read_at_once(topic: Topic) -> bool {
    match topic {
        Topic::Commands | Topic::Postings | Topic::Events => true,
        Topic::Journal | Topic::Dlq => false,
    }
}

/// The broker's clock of this log: the time that records get.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
