//! The snapshot carrier: copies the stores of a running node into its snapshots, one at a time, while the epochs go on.
//!
//! Only the checkpoint (hard links, between two applies) concerns the store; reading, hashing and copying work on what was linked.
//! A snapshot is read whole before it counts, so that one of a store that has rotted never replaces a good one: one sequential read
//! of the store for each snapshot, and none for a partition that has not moved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use finflow_state::snapshot::{self, Hashed, Manifest, Name, Taken, UNNAMED_AGE_MIN};
use finflow_state::{Generation, Head, RocksStore, Snapshots, Store, store};
use finflow_topologies::log::Log;
use finflow_topologies::restore;
use tracing::{info, warn};

use crate::checking::{Checked, check_copy, check_store};
use crate::clock::Clock;
use crate::metrics;
use crate::restoring::clear;
use crate::space::free_bytes;

/// A copy that is read back leaves at least so much room to the log and the stores.
const ROOM_LEFT_MIN: u64 = 64 << 20;

/// Why a snapshot was not taken or is not good.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store cannot be copied.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// It cannot be written or read back.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The store's block cannot be found in the journal.
    #[error(transparent)]
    Journal(#[from] restore::Error),
    /// The copy on its way cannot be made or removed.
    #[error("{0}: {1}")]
    Directory(PathBuf, std::io::Error),
    /// It does not hold what its manifest says.
    #[error("{0} opens at another block than its manifest names")]
    Head(Name),
    /// A copy would leave too little room to the log and the stores.
    #[error("a copy of it takes {} MiB, and {} are free", .bytes >> 20, .free >> 20)]
    Room {
        /// How much it takes.
        bytes: u64,
        /// How much is free.
        free: u64,
    },
    /// The partition runs on another node, or on none.
    #[error("partition {0} is not available now, retry")]
    Elsewhere(u32),
    /// The copy cannot be read, though the store itself can.
    #[error("the copy cannot be read: {0}")]
    Copy(store::Error),
}

/// Takes and checks the snapshots of one application.
pub(crate) struct Carrier {
    pub(crate) snapshots: Snapshots,
    pub(crate) generation: Generation,
    /// For checkpoints on their way.
    pub(crate) scratch: PathBuf,
    clock: Clock,
    /// What is known of the files of each partition's store, while that stays open. Held while a snapshot is taken: one at a time.
    hashed: Mutex<BTreeMap<u32, (Weak<()>, Hashed)>>,
    /// Snapshots that are being read to trim below them.
    read: Mutex<BTreeMap<u32, Vec<Name>>>,
    /// Held while copies are read, whose directories are named by partition.
    reading: Mutex<()>,
    /// When files that nothing names were looked for; `None` = not yet.
    swept_at: Mutex<Option<Instant>>,
    /// When whatever is being taken is given up; `None` = never.
    ends_at: Mutex<Option<Instant>>,
}

impl Carrier {
    pub(crate) fn new(snapshots: Snapshots, generation: Generation, scratch: PathBuf, clock: Clock) -> Carrier {
        let (hashed, read, reading, swept_at, ends_at) = Default::default();
        Carrier { snapshots, generation, scratch, clock, hashed, read, reading, swept_at, ends_at }
    }

    /// Gives up at `end` what is being taken then, and takes nothing more.
    pub(crate) fn end_by(&self, end: Instant) {
        *self.ends_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }

    /// Whether there is still time to take something.
    pub(crate) fn goes_on(&self) -> bool {
        self.ends_at.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|end| Instant::now() < end)
    }

    /// The newest snapshot's block of a partition.
    pub(crate) fn newest(&self, partition: u32) -> Result<Option<u64>, SnapshotError> {
        Ok(self.snapshots.list(self.generation, partition)?.first().map(|name| name.block))
    }

    /// When a partition's newest snapshot was taken; `None` where there is none that can be read.
    pub(crate) fn newest_taken_ms(&self, partition: u32) -> Option<i64> {
        self.newest_manifest(partition).ok()?.map(|manifest| manifest.taken_ms)
    }

    fn newest_manifest(&self, partition: u32) -> Result<Option<Manifest>, SnapshotError> {
        let newest = self.snapshots.list(self.generation, partition)?.first().copied();
        Ok(newest.map(|name| self.snapshots.manifest(&name)).transpose()?)
    }

    /// Tells the metrics which snapshot is the newest.
    pub(crate) fn show_newest(&self, partition: u32) -> Result<(), SnapshotError> {
        let newest = self.newest_manifest(partition)?;
        newest.into_iter().for_each(|manifest| show(&Name::of(&manifest.head), manifest.taken_ms));
        Ok(())
    }

    /// Does something while no snapshot is taken, and none is removed, by this process.
    pub(crate) fn undisturbed<T>(&self, act: impl FnOnce() -> T) -> T {
        let _taking = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        act()
    }

    /// Does something while this process removes none of these snapshots, whatever it takes meanwhile.
    pub(crate) fn sparing<T>(&self, partition: u32, names: &[Name], act: impl FnOnce() -> T) -> T {
        let read = || self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read().insert(partition, names.to_vec());
        let done = act();
        read().remove(&partition);
        done
    }

    /// Takes a snapshot and removes older ones; `None` where the newest one has the store's block already.
    pub(crate) fn take(&self, partition: u32, store: &RocksStore, log: &dyn Log) -> Result<Option<Name>, SnapshotError> {
        let mut hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        let block = store.head().map_or(0, |head| head.number);
        if block == 0 || self.newest(partition)?.is_some_and(|newest| block <= newest) {
            return Ok(None);
        }
        let begun = Instant::now();
        let checkpoint = self.scratch.join(format!("snapshot-{partition}"));
        let cleared = || clear(&checkpoint).map_err(|error| SnapshotError::Directory(checkpoint.clone(), error));
        cleared()?;
        std::fs::create_dir_all(&self.scratch).map_err(|error| SnapshotError::Directory(self.scratch.clone(), error))?;
        let (opened, known) = hashed.entry(partition).or_default();
        if !opened.ptr_eq(&store.presence()) {
            (*opened, *known) = (store.presence(), Hashed::default());
        }
        let taken = self.keep(partition, store, log, &checkpoint, known);
        cleared()?;
        let Taken { name, taken_ms, files_put, bytes_put, files_reused } = taken?;
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).cloned().unwrap_or_default();
        self.snapshots.prune(self.generation, partition, restore::begins_at(log, partition)?, &read)?;
        self.sweep();
        let seconds = begun.elapsed();
        ::metrics::histogram!(metrics::SNAPSHOT_SECONDS).record(seconds);
        ::metrics::counter!(metrics::SNAPSHOT_BYTES).increment(bytes_put);
        metrics::snapshot_files("put").increment(files_put);
        metrics::snapshot_files("reused").increment(files_reused);
        show(&name, taken_ms);
        info!(
            partition,
            block = name.block,
            seconds = seconds.as_secs_f64(),
            bytes_put,
            files_put,
            files_reused,
            "snapshot taken"
        );
        Ok(Some(name))
    }

    fn keep(
        &self,
        partition: u32,
        store: &RocksStore,
        log: &dyn Log,
        checkpoint: &Path,
        hashed: &mut Hashed,
    ) -> Result<Taken, SnapshotError> {
        let head = store.checkpoint(checkpoint)?.ok_or_else(|| store::Error::Corrupt("it has no head".to_owned()))?;
        let offset = restore::offset_of(log, partition, head.number)?;
        self.read_whole(store, checkpoint)?;
        Ok(self.snapshots.take(checkpoint, (head, offset), self.clock.now_ms(), hashed, &|| self.goes_on())?)
    }

    /// Reads every row of a checkpoint. One that is damaged says nothing yet about the store, whose files it links: that is read too.
    fn read_whole(&self, store: &RocksStore, checkpoint: &Path) -> Result<(), SnapshotError> {
        let goes_on = || self.goes_on();
        let read = RocksStore::open_copy(checkpoint).and_then(|copy| copy.read_whole(&goes_on));
        let is_read = match read {
            Err(damage @ store::Error::Corrupt(_)) => {
                store.read_whole(&goes_on)?;
                return Err(SnapshotError::Copy(damage));
            }
            other => other?,
        };
        if is_read { Ok(()) } else { Err(snapshot::Error::GivenUp.into()) }
    }

    /// Removes files that no snapshot names any more, after the first snapshot and then once an hour, because all manifests are read for
    /// it. A failure costs only space.
    fn sweep(&self) {
        let mut swept_at = self.swept_at.lock().unwrap_or_else(PoisonError::into_inner);
        if swept_at.is_some_and(|swept_at| swept_at.elapsed() < UNNAMED_AGE_MIN) {
            return;
        }
        *swept_at = Some(Instant::now());
        match self.snapshots.sweep(SystemTime::now()) {
            Ok(0) => {}
            Ok(files) => info!(files, "snapshot files that nothing names are removed"),
            Err(cause) => warn!(%cause, "snapshot files cannot be swept"),
        }
    }

    /// Reads every row of a copy of a store, which stands still while the engine runs.
    pub(crate) fn check(&self, partition: u32, store: &RocksStore) -> Result<Checked, store::Error> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        check_copy(partition, store, &self.scratch.join(format!("check-{partition}")))
    }

    /// Restores a snapshot into a scratch directory and reads it whole, the files against their names and the rows against their
    /// checksums; gives where it stands and what is wrong with its rows. It is given up where `goes_on` says no.
    pub(crate) fn read_back(&self, name: &Name, goes_on: &dyn Fn() -> bool) -> Result<(Head, Vec<String>), SnapshotError> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let copy = self.scratch.join(format!("verify-{}", name.partition));
        let cleared = || clear(&copy).map_err(|error| SnapshotError::Directory(copy.clone(), error));
        cleared()?;
        let found = self.read_copy(name, &copy, goes_on);
        cleared()?;
        found
    }

    fn read_copy(&self, name: &Name, copy: &Path, goes_on: &dyn Fn() -> bool) -> Result<(Head, Vec<String>), SnapshotError> {
        let manifest = self.snapshots.manifest(name)?;
        let bytes = manifest.files.iter().map(|file| file.bytes).sum();
        let free = free_bytes(&self.scratch).map_err(|error| SnapshotError::Directory(self.scratch.clone(), error))?;
        if free < ROOM_LEFT_MIN.saturating_add(bytes) {
            return Err(SnapshotError::Room { bytes, free });
        }
        self.snapshots.copy_out(&manifest, copy, goes_on)?;
        let store = RocksStore::open_copy(copy)?;
        if store.head().as_ref() != Some(&manifest.head) {
            return Err(SnapshotError::Head(*name));
        }
        if !store.read_whole(goes_on)? {
            return Err(snapshot::Error::GivenUp.into());
        }
        Ok((manifest.head, check_store(name.partition, &store)?.differences))
    }
}

fn show(newest: &Name, taken_ms: i64) {
    let label = newest.partition.to_string();
    ::metrics::gauge!(metrics::SNAPSHOT_BLOCK, "partition" => label.clone()).set(newest.block as f64);
    ::metrics::gauge!(metrics::SNAPSHOT_TIMESTAMP, "partition" => label).set(taken_ms as f64 / 1_000.0);
}
