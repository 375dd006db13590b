//! Brings a partition's state back, at a start or a takeover: its own directory, else the newest snapshot that is whole, else its
//! journal from block 0.
//!
//! A directory that contradicts the log stays where it is, as evidence, and is not served. One that is damaged, or ends before the
//! journal begins, is moved aside and replaced: what it held is in snapshot and journal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use finflow_state::snapshot::{self, Name};
use finflow_state::{Generation, Head, RocksStore, Shared, Snapshots, Store, store};
use finflow_topologies::Topic;
use finflow_topologies::log::{self, Log, Position};
use finflow_topologies::restore::{Error, Progress};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::metrics;

/// Directories that were moved aside are kept up to this number per partition, the newest ones.
const ASIDE_MAX: usize = 3;
/// Partitions restored at the same time.
const THREADS_MAX: usize = 8;
/// How long a start waits for stores that are still open, all of them together.
const HELD_MAX: Duration = Duration::from_secs(10);
/// Each attempt leaves a file of its log behind, before it finds that the store is locked.
const HELD_PAUSE: Duration = Duration::from_millis(100);
/// Left in a directory whose store was found corrupt while it was served, with the cause.
const DAMAGED: &str = "DAMAGED";

/// What restoring needs besides the log.
pub(crate) struct Restorer {
    pub(crate) state_dir: PathBuf,
    /// For copies that are not whole yet; emptied at start.
    pub(crate) scratch: PathBuf,
    pub(crate) snapshots: Snapshots,
    pub(crate) generation: Generation,
    pub(crate) shared: Shared,
    pub(crate) clock: Clock,
    /// Whether the state is asked for as the log has it, whatever else there is: a snapshot that contradicts it is passed over then, and
    /// halts nothing.
    pub(crate) is_of_log: bool,
    /// How a store is brought to a position: `restore`, or for what is not served `replay`.
    pub(crate) replay: Replay,
}

/// Replays the journal of a partition onto a store.
pub(crate) type Replay = fn(&dyn Log, &dyn Store, u32, Option<&Position>, Progress<'_>) -> Result<Head, Error>;

/// A partition's store at the block that the log has committed.
pub(crate) struct Restored {
    pub(crate) store: RocksStore,
    pub(crate) head: Head,
    pub(crate) origin: Origin,
}

/// Where a restored state came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Origin {
    /// `directory`, `snapshot` or `journal`.
    pub(crate) source: &'static str,
    /// Blocks of the journal applied on top of it.
    pub(crate) replayed: u64,
}

impl Restorer {
    /// Restores every partition of `positions` to its committed position, several at a time.
    pub(crate) fn restore_all(
        &self,
        log: &dyn Log,
        positions: &BTreeMap<u32, Option<Position>>,
    ) -> BTreeMap<u32, Result<Restored, Error>> {
        let waiting = Mutex::new(positions.iter());
        let restored = Mutex::new(BTreeMap::new());
        let deadline = Instant::now() + HELD_MAX;
        let work = || {
            loop {
                let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((id, position)) = next else { break };
                let found = self.restore_by(deadline, log, *id, position.as_ref());
                restored.lock().unwrap_or_else(PoisonError::into_inner).insert(*id, found);
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(positions.len());
        thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        restored.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Restores one partition; a store that is still open is waited for until then. A node that has stopped may be writing its memtables
    /// out, which takes seconds where they are large.
    fn restore_by(&self, deadline: Instant, log: &dyn Log, id: u32, position: Option<&Position>) -> Result<Restored, Error> {
        loop {
            match self.restore(log, id, position, &|_, _| {}) {
                Err(Error::Store(store::Error::Busy(_))) if Instant::now() < deadline => thread::sleep(HELD_PAUSE),
                found => return found,
            }
        }
    }

    /// Restores one partition, which nobody may have open.
    pub(crate) fn restore(
        &self,
        log: &dyn Log,
        id: u32,
        position: Option<&Position>,
        progress: Progress<'_>,
    ) -> Result<Restored, Error> {
        let journal = Journal { log, id, position, progress, replay: self.replay };
        let restored = match self.try_directory(&journal)? {
            Some(restored) => restored,
            None => match self.try_snapshots(&journal)? {
                Ok(restored) => restored,
                Err(unread) => self.journal_alone(&journal, unread)?,
            },
        };
        let Origin { source, replayed } = restored.origin;
        info!(partition = id, block = restored.head.number, source, replayed, "restored");
        ::metrics::counter!(metrics::RESTORED, "source" => source).increment(1);
        ::metrics::counter!(metrics::REPLAYED).increment(replayed);
        Ok(restored)
    }

    /// Brings a store that is open already on to a position.
    pub(crate) fn bring_on(
        &self,
        log: &dyn Log,
        store: &RocksStore,
        id: u32,
        position: Option<&Position>,
        progress: Progress<'_>,
    ) -> Result<Head, Error> {
        Journal { log, id, position, progress, replay: self.replay }.replay_onto(store)
    }

    /// `None` where there is nothing to go on with; what was in the way is moved aside.
    fn try_directory(&self, journal: &Journal<'_>) -> Result<Option<Restored>, Error> {
        let id = journal.id;
        let dir = self.dir(id);
        let opened = if dir.exists() { self.open_own(&dir) } else { return Ok(None) };
        let (label, cause) = match opened {
            // The first blocks never left memory: there is nothing in it.
            Ok(store) if store.head().is_none() => {
                drop(store);
                std::fs::remove_dir_all(&dir).map_err(io_error)?;
                return Ok(None);
            }
            Ok(store) => match journal.replayed(store, "directory") {
                Err(behind @ Error::Behind { .. }) => ("outdated", behind.to_string()),
                Err(Error::Store(store::Error::Corrupt(cause))) => ("damaged", cause),
                other => return other.map(Some),
            },
            Err(store::Error::Corrupt(cause)) => ("damaged", cause),
            Err(other) => return Err(other.into()),
        };
        let aside = move_aside(&dir, label, self.clock.now_ms(), ASIDE_MAX).map_err(io_error)?;
        warn!(partition = id, cause, aside = %aside.display(), "the state directory is {label} and is built again");
        Ok(None)
    }

    /// The directory as it is, for who goes on with it.
    pub(crate) fn open(&self, id: u32) -> Result<RocksStore, store::Error> {
        self.open_own(&self.dir(id))
    }

    fn open_own(&self, dir: &Path) -> Result<RocksStore, store::Error> {
        match std::fs::read_to_string(dir.join(DAMAGED)) {
            Ok(cause) => Err(store::Error::Corrupt(cause)),
            Err(_) => RocksStore::open(dir, &self.shared),
        }
    }

    /// The newest snapshot that is whole; one that is not is passed over, because an older one and the journal are as good. Where there
    /// is none, it gives why those that may be there could not be read, if that may pass.
    fn try_snapshots(&self, journal: &Journal<'_>) -> Result<Result<Restored, Option<String>>, Error> {
        let (id, mut unread) = (journal.id, None);
        let names = self.snapshots.list(self.generation, id).unwrap_or_else(|cause| {
            warn!(partition = id, %cause, "the snapshots cannot be listed");
            unread = Some(cause.to_string());
            Vec::new()
        });
        for name in names {
            let restored = match self.unpacked(&name, id) {
                Ok(store) => journal.replayed(store, "snapshot"),
                Err(cause) => {
                    warn!(partition = id, snapshot = %name, %cause, "the snapshot is passed over");
                    if cause.may_pass() {
                        unread = Some(cause.to_string());
                    }
                    continue;
                }
            };
            let is_passed_over = match &restored {
                Err(Error::Behind { .. } | Error::Store(store::Error::Corrupt(_))) => true,
                Err(Error::Contradiction(_) | Error::Short { .. }) => self.is_of_log,
                _ => false,
            };
            match restored {
                Err(cause) if is_passed_over => {
                    warn!(partition = id, snapshot = %name, %cause, "the snapshot cannot be continued and is passed over");
                    std::fs::remove_dir_all(self.dir(id)).map_err(io_error)?;
                }
                other => return other.map(Ok),
            }
        }
        Ok(Err(unread))
    }

    /// Copies a snapshot to where the partition's state lives and opens it. Nothing is left there unless it is whole: a file can be
    /// what its name says and rotten all the same, so every row is read against its checksums, which takes about as long as hashing
    /// the files on their way.
    fn unpacked(&self, name: &Name, id: u32) -> Result<RocksStore, PassedOver> {
        let scratch = self.scratch.join(format!("restore-{id}"));
        clear(&scratch)?;
        let manifest = self.snapshots.manifest(name)?;
        self.snapshots.copy_out(&manifest, &scratch, &|| true)?;
        let checked = RocksStore::open_copy(&scratch)?;
        if checked.head().as_ref() != Some(&manifest.head) {
            return Err(PassedOver::Elsewhere);
        }
        checked.read_whole(&|| true)?;
        drop(checked);
        let dir = self.dir(id);
        std::fs::rename(&scratch, &dir)?;
        Ok(RocksStore::open(&dir, &self.shared)?)
    }

    /// Where the journal is not all there, snapshots that could not be read now are waited for.
    fn journal_alone(&self, journal: &Journal<'_>, unread: Option<String>) -> Result<Restored, Error> {
        let store = RocksStore::open(&self.dir(journal.id), &self.shared)?;
        journal.replayed(store, "journal").map_err(|error| match (error, unread) {
            (error @ Error::Behind { .. }, None) => Error::Contradiction(format!("{error}, and no snapshot can be used")),
            (error @ Error::Behind { .. }, Some(cause)) => {
                Error::Store(store::Error::Io(format!("{error}, and the snapshots cannot be read now: {cause}")))
            }
            (other, _) => other,
        })
    }

    fn dir(&self, id: u32) -> PathBuf {
        directory(&self.state_dir, id)
    }

    /// Whether nothing was ever restored here.
    pub(crate) fn is_new(&self) -> bool {
        std::fs::read_dir(&self.state_dir).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// Notes in the directory of a partition that its store is corrupt: whoever opens it next moves it aside.
    pub(crate) fn mark_damaged(&self, id: u32, cause: &str) {
        let dir = self.dir(id);
        if let Err(error) = std::fs::write(dir.join(DAMAGED), cause) {
            warn!(dir = %dir.display(), %error, "cannot note the damage");
        }
    }
}

/// Why a snapshot is passed over.
#[derive(Debug, thiserror::Error)]
enum PassedOver {
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Directory(#[from] std::io::Error),
    #[error("its rows do not stand at the block that its manifest names")]
    Elsewhere,
}

impl PassedOver {
    /// Whether it says nothing about the snapshot: it rests where nobody can read it at present.
    fn may_pass(&self) -> bool {
        matches!(self, PassedOver::Snapshot(snapshot::Error::Io(..)))
    }
}

/// The journal of a partition up to a position, and how it is replayed.
struct Journal<'a> {
    log: &'a dyn Log,
    id: u32,
    position: Option<&'a Position>,
    progress: Progress<'a>,
    replay: Replay,
}

impl Journal<'_> {
    /// Whether somebody has left a transaction open in it, as one does who is killed in the middle of it: what others have committed
    /// behind that can be read when the brokers have ended it.
    fn is_held_back(&self) -> Result<bool, Error> {
        Ok(self.log.range(Topic::Journal, self.id)?.end < self.log.written(Topic::Journal, self.id)?)
    }

    /// Replays it onto a store, which is closed again where that fails.
    fn replayed(&self, store: RocksStore, source: &'static str) -> Result<Restored, Error> {
        let before = store.head().map_or(0, |head| head.number);
        let head = self.replay_onto(&store)?;
        let replayed = head.number.saturating_sub(before);
        Ok(Restored { store, head, origin: Origin { source, replayed } })
    }

    /// Replays it onto a store, as far as the position: whatever an open transaction hides of that is waited for.
    fn replay_onto(&self, store: &RocksStore) -> Result<Head, Error> {
        let replay = || (self.replay)(self.log, store, self.id, self.position, self.progress);
        match replay() {
            Err(Error::Short { .. }) if self.is_held_back()? => {
                let cause = format!("a transaction that is still open holds back the journal of partition {}", self.id);
                Err(log::Error::Unavailable(cause).into())
            }
            // It may have ended just now.
            Err(Error::Short { .. }) => replay(),
            found => found,
        }
    }
}

/// Where the state of a partition lives.
pub(crate) fn directory(state_dir: &Path, id: u32) -> PathBuf {
    state_dir.join(id.to_string())
}

/// Renames a directory to `{its name}.{label}-{time}`, keeps the newest `kept_max` of them, and says where it went.
pub(crate) fn move_aside(dir: &Path, label: &str, now_ms: i64, kept_max: usize) -> std::io::Result<PathBuf> {
    let taken = |stamp: &i64| !dir.with_extension(format!("{label}-{stamp:013}")).exists();
    let stamp = (now_ms..).find(taken).unwrap_or(now_ms);
    let aside = dir.with_extension(format!("{label}-{stamp:013}"));
    std::fs::rename(dir, &aside)?;
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { return Ok(aside) };
    let prefix = format!("{}.{label}-", name.to_string_lossy());
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            kept.push(entry.path());
        }
    }
    kept.sort_unstable();
    for old in kept.iter().rev().skip(kept_max) {
        std::fs::remove_dir_all(old)?;
    }
    Ok(aside)
}

/// Removes a directory and what is in it, if it is there.
pub(crate) fn clear(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn io_error(error: std::io::Error) -> Error {
    Error::Store(store::Error::Io(error.to_string()))
}
