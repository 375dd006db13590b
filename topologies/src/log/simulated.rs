//! A log in memory, with faults on order: the next commit can be lost, be in doubt either way, or be refused.
//!
//! It keeps the contract of [`Log`] otherwise, and is what tests and the simulator run on.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use finflow_state::Stamp;

use super::{Commit, Error, Fetched, Log, Outgoing, Position, Record, Resolution, Session, Transaction};
use crate::topics::Topic;

/// What becomes of the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused, and nothing of it is visible.
    Abort,
    /// Its answer is lost; it was committed.
    DoubtCommitted,
    /// Its answer is lost; it was not committed.
    DoubtAborted,
}

/// The log; clones share it.
#[derive(Clone)]
pub struct SimulatedLog(Arc<Mutex<Inner>>);

struct Inner {
    partitions: u32,
    now_ms: i64,
    records: BTreeMap<(Topic, u32), Partition>,
    positions: BTreeMap<u32, Position>,
    owners: BTreeMap<u32, u64>,
    sessions: BTreeMap<String, u64>,
    sessions_opened: u64,
    fault: Option<Fault>,
}

#[derive(Default)]
struct Partition {
    start: u64,
    records: Vec<Record>,
}

impl SimulatedLog {
    /// An empty log.
    pub fn new(partitions: u32) -> SimulatedLog {
        let inner = Inner {
            partitions,
            now_ms: 0,
            records: BTreeMap::new(),
            positions: BTreeMap::new(),
            owners: BTreeMap::new(),
            sessions: BTreeMap::new(),
            sessions_opened: 0,
            fault: None,
        };
        SimulatedLog(Arc::new(Mutex::new(inner)))
    }

    /// Sets the time that records get.
    pub fn set_time(&self, now_ms: i64) {
        self.lock().now_ms = now_ms;
    }

    /// Orders a fault for the next commit.
    pub fn fail_next(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn partition(&mut self, topic: Topic, partition: u32) -> Result<&mut Partition, Error> {
        if self.partitions <= partition {
            return Err(Error::UnknownPartition { topic, partition });
        }
        Ok(self.records.entry((topic, partition)).or_default())
    }

    fn write(&mut self, topic: Topic, partition: u32, records: Vec<Outgoing>) -> Result<u64, Error> {
        let timestamp_ms = self.now_ms;
        let log = self.partition(topic, partition)?;
        let base = log.start + log.records.len() as u64;
        log.records.extend(records.into_iter().zip(base..).map(|(record, offset)| Record {
            offset,
            timestamp_ms,
            key: record.key,
            value: record.value,
            headers: record.headers,
        }));
        Ok(base)
    }

    fn take(&mut self, transaction: Transaction) -> Result<(), Error> {
        for batch in transaction.batches {
            self.write(batch.topic, batch.partition, batch.records)?;
        }
        for position in transaction.positions {
            self.positions.insert(position.partition, position);
        }
        Ok(())
    }
}

impl Log for SimulatedLog {
    fn partitions(&self) -> u32 {
        self.lock().partitions
    }

    fn append(&self, topic: Topic, partition: u32, records: Vec<Outgoing>) -> Result<u64, Error> {
        self.lock().write(topic, partition, records)
    }

    fn fetch(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, Error> {
        let mut inner = self.lock();
        let log = inner.partition(topic, partition)?;
        let (start, end) = (log.start, log.start + log.records.len() as u64);
        if from < start || end < from {
            return Err(Error::OutOfRange { topic, partition, asked: from, start, end });
        }
        let mut bytes = 0;
        let mut records = Vec::new();
        for record in &log.records[(from - start) as usize..] {
            bytes += record.value.as_ref().map_or(0, |value| value.len()) + record.headers.as_bytes().len();
            if bytes_max < bytes && !records.is_empty() {
                break;
            }
            records.push(record.clone());
        }
        let next = from + records.len() as u64;
        Ok(Fetched { records, next })
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<u64>, Error> {
        let mut inner = self.lock();
        let log = inner.partition(topic, partition)?;
        Ok(log.start..log.start + log.records.len() as u64)
    }

    fn session(&self, lane: &str) -> Result<Box<dyn Session>, Error> {
        let mut inner = self.lock();
        inner.sessions_opened += 1;
        let id = inner.sessions_opened;
        inner.sessions.insert(lane.to_owned(), id);
        Ok(Box::new(SimulatedSession { log: self.clone(), lane: lane.to_owned(), id, doubt: None }))
    }

    fn trim(&self, topic: Topic, partition: u32, before: u64) -> Result<(), Error> {
        let mut inner = self.lock();
        let log = inner.partition(topic, partition)?;
        let count = before.saturating_sub(log.start).min(log.records.len() as u64);
        log.records.drain(..count as usize);
        log.start += count;
        Ok(())
    }
}

struct SimulatedSession {
    log: SimulatedLog,
    lane: String,
    id: u64,
    doubt: Option<Stamp>,
}

impl Session for SimulatedSession {
    fn claim(&mut self, partition: u32) -> Result<Option<Position>, Error> {
        let mut inner = self.log.lock();
        if inner.sessions.get(&self.lane) != Some(&self.id) {
            return Err(Error::Fenced);
        }
        inner.owners.insert(partition, self.id);
        Ok(inner.positions.get(&partition).cloned())
    }

    fn release(&mut self, partition: u32) {
        let mut inner = self.log.lock();
        if inner.owners.get(&partition) == Some(&self.id) {
            inner.owners.remove(&partition);
        }
    }

    fn commit(&mut self, transaction: Transaction) -> Commit {
        let mut inner = self.log.lock();
        if let Some(doubt) = &self.doubt {
            return Commit::Aborted(format!("the doubt about {doubt} comes first"));
        }
        if transaction.positions.is_empty() {
            return Commit::Aborted("no positions: nothing would be fenced".to_owned());
        }
        let is_owner = |position: &Position| inner.owners.get(&position.partition) == Some(&self.id);
        if inner.sessions.get(&self.lane) != Some(&self.id) || !transaction.positions.iter().all(is_owner) {
            return Commit::Fenced;
        }
        let stamp = transaction.stamp.clone();
        let fault = inner.fault.take();
        if matches!(fault, None | Some(Fault::DoubtCommitted))
            && let Err(error) = inner.take(transaction)
        {
            return Commit::Aborted(error.to_string());
        }
        match fault {
            None => Commit::Committed,
            Some(Fault::Abort) => Commit::Aborted("ordered".to_owned()),
            Some(Fault::DoubtCommitted | Fault::DoubtAborted) => {
                self.doubt = Some(stamp);
                Commit::InDoubt("ordered".to_owned())
            }
        }
    }

    fn resolve(&mut self, stamp: &Stamp) -> Result<Resolution, Error> {
        self.doubt = None;
        let inner = self.log.lock();
        let is_committed = inner.positions.values().any(|position| position.stamp == *stamp);
        Ok(if is_committed { Resolution::Committed } else { Resolution::Aborted })
    }
}
