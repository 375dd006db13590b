//! A disk that fails when it is told to, in each of the ways in which a synced write can fail.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use finflow_actors::log::embedded::Disk;
use finflow_topologies::log::Error;
use rocksdb::{DB, WriteBatch};

/// How a write fails. The writer is told the same each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is written.
    Before,
    /// All of it is written and durable; only the answer is lost.
    After,
    /// It reaches the file, but the sync fails, and the second half of it is lost.
    Torn,
    /// All of it is written and durable; then the thread that wrote it panics.
    Panic,
}

#[derive(Default)]
pub(crate) struct FailingDisk(Mutex<State>);

#[derive(Default)]
struct State {
    /// What becomes of the next writes; `None` = it works.
    script: VecDeque<Option<Fault>>,
    is_gone: bool,
    /// Only this thread's next attempt to open is refused, and until then everyone else's.
    refused: Option<ThreadId>,
    torn: Option<(PathBuf, u64)>,
    failed: u64,
    writes: u64,
}

struct SoundDisk;

impl Disk for SoundDisk {}

impl FailingDisk {
    /// Lets the next writes end like this.
    pub(crate) fn script(&self, ends: impl IntoIterator<Item = Option<Fault>>) {
        self.state().script.extend(ends);
    }

    /// Nothing can be written or opened while the disk is gone.
    pub(crate) fn set_gone(&self, is_gone: bool) {
        self.state().is_gone = is_gone;
    }

    /// The next time that this thread opens the log, it cannot; before that nobody can.
    pub(crate) fn refuse_this_thread_once(&self) {
        self.state().refused = Some(std::thread::current().id());
    }

    /// How many writes there were, and how many of them failed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.writes, state.failed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes and then takes half of it away, which shows when the log is opened the next time.
    fn tear(&self, db: &DB, batch: WriteBatch) -> Result<(), Error> {
        let journal = newest_journal(db.path());
        let before = std::fs::metadata(&journal).expect("a write-ahead log").len();
        SoundDisk.write(db, batch)?;
        let after = std::fs::metadata(&journal).expect("a write-ahead log").len();
        assert!(before < after, "the batch goes into the newest write-ahead log");
        self.state().torn = Some((journal, before + (after - before) / 2));
        Ok(())
    }
}

impl Disk for FailingDisk {
    fn open(&self, dir: &Path) -> Result<DB, Error> {
        let mut state = self.state();
        if let Some(thread) = state.refused {
            if thread == std::thread::current().id() {
                state.refused = None;
            }
            return Err(Error::Lasting("refused".to_owned()));
        }
        if state.is_gone {
            return Err(Error::Lasting("no such disk".to_owned()));
        }
        if let Some((journal, length)) = state.torn.take() {
            OpenOptions::new().write(true).open(journal).and_then(|file| file.set_len(length)).expect("a shorter file");
        }
        SoundDisk.open(dir)
    }

    fn write(&self, db: &DB, batch: WriteBatch) -> Result<(), Error> {
        let fault = {
            let mut state = self.state();
            state.writes += 1;
            let scripted = state.script.pop_front().flatten();
            let fault = if state.is_gone { Some(Fault::Before) } else { scripted };
            state.failed += u64::from(fault.is_some());
            fault
        };
        match fault {
            None => return SoundDisk.write(db, batch),
            Some(Fault::Before) => {}
            Some(Fault::After) => SoundDisk.write(db, batch)?,
            Some(Fault::Torn) => self.tear(db, batch)?,
            Some(Fault::Panic) => {
                SoundDisk.write(db, batch)?;
                panic!("a writing thread dies");
            }
        }
        Err(Error::Lasting("input/output error".to_owned()))
    }
}

fn newest_journal(dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().expect("a write-ahead log")
}
