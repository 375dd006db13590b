//! A log whose writer dies at one of its commits, before it or behind it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use finflow_state::Stamp;
use finflow_topologies::Topic;
use finflow_topologies::log::simulated::SimulatedLog;
use finflow_topologies::log::{Claim, Commit, Error, Fetched, Log, Outgoing, Resolution, Session, Transaction};

/// A log whose writer dies at one of its commits, before it or behind it.
pub(crate) struct Mortal {
    log: SimulatedLog,
    commits_left: Arc<AtomicUsize>,
    is_written: bool,
}

struct Dying {
    session: Box<dyn Session>,
    commits_left: Arc<AtomicUsize>,
    is_written: bool,
}

impl Mortal {
    /// Dies at the commit behind so many, which is written or not.
    pub(crate) fn new(log: &SimulatedLog, commits: usize, is_written: bool) -> Mortal {
        Mortal { log: log.clone(), commits_left: Arc::new(AtomicUsize::new(commits)), is_written }
    }
}

impl Session for Dying {
    fn claim(&mut self, partition: u32) -> Result<Claim, Error> {
        self.session.claim(partition)
    }

    fn release(&mut self, partition: u32) {
        self.session.release(partition);
    }

    fn commit(&mut self, transaction: Transaction) -> Commit {
        let left = self.commits_left.load(Ordering::Relaxed);
        if left == 0 {
            if self.is_written {
                self.session.commit(transaction);
            }
            // Nothing is done behind it.
            return Commit::Fenced;
        }
        self.commits_left.store(left - 1, Ordering::Relaxed);
        self.session.commit(transaction)
    }

    fn resolve(&mut self, stamp: &Stamp) -> Result<Resolution, Error> {
        self.session.resolve(stamp)
    }
}

impl Log for Mortal {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    fn append(&self, topic: Topic, partition: u32, records: Vec<Outgoing>) -> Result<u64, Error> {
        self.log.append(topic, partition, records)
    }

    fn fetch(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, Error> {
        self.log.fetch(topic, partition, from, bytes_max)
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<u64>, Error> {
        self.log.range(topic, partition)
    }

    fn session(&self, lane: &str) -> Result<Box<dyn Session>, Error> {
        let (commits_left, is_written) = (self.commits_left.clone(), self.is_written);
        Ok(Box::new(Dying { session: self.log.session(lane)?, commits_left, is_written }))
    }

    fn trim(&self, topic: Topic, partition: u32, before: u64) -> Result<(), Error> {
        self.log.trim(topic, partition, before)
    }
}
