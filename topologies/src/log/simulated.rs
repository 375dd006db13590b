//! A log in memory, with faults on order: the next commit can be lost, be in doubt either way, or be refused.
//!
//! It keeps the contract of [`Log`] otherwise, and is what tests and the simulator run on.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use finflow_state::Stamp;

use super::{Claim, Claimed, Commit, Error, Fetched, Log, Outgoing, Position, Record, Resolution, Session, Transaction};
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
    has_gaps: bool,
    now_ms: i64,
    records: BTreeMap<(Topic, u32), Partition>,
    positions: BTreeMap<u32, Position>,
    /// By partition: the session and the epoch of the latest claim.
    claims: BTreeMap<u32, (u64, u64)>,
    claims_given: u64,
    sessions: BTreeMap<String, u64>,
    sessions_opened: u64,
    fault: Option<Fault>,
}

#[derive(Default)]
struct Partition {
    start: u64,
    end: u64,
    records: Vec<Record>,
}

impl SimulatedLog {
    /// An empty log.
    pub fn new(partitions: u32) -> SimulatedLog {
        let inner = Inner {
            partitions,
            has_gaps: false,
            now_ms: 0,
            records: BTreeMap::new(),
            positions: BTreeMap::new(),
            claims: BTreeMap::new(),
            claims_given: 0,
            sessions: BTreeMap::new(),
            sessions_opened: 0,
            fault: None,
        };
        SimulatedLog(Arc::new(Mutex::new(inner)))
    }

    /// Leaves an offset without a record behind each batch of a commit, as the markers of Kafka's transactions do.
    pub fn with_gaps(self) -> SimulatedLog {
        self.lock().has_gaps = true;
        self
    }

    /// Leaves so many offsets without a record at the end of a partition, as a producer's transaction does that was aborted.
    pub fn skip(&self, topic: Topic, partition: u32, count: u64) -> Result<(), Error> {
        self.lock().partition(topic, partition)?.end += count;
        Ok(())
    }

    /// Sets the time that records get.
    pub fn set_time(&self, now_ms: i64) {
        self.lock().now_ms = now_ms;
    }

    /// Orders a fault for the next commit.
    pub fn fail_next(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    /// The committed position of every partition, without a claim.
    pub fn committed_positions(&self) -> BTreeMap<u32, Option<Position>> {
        let inner = self.lock();
        (0..inner.partitions).map(|partition| (partition, inner.positions.get(&partition).cloned())).collect()
    }

    /// Loses the committed position of a partition, as Kafka does when a group's offsets expire.
    pub fn forget_position(&self, partition: u32) {
        self.lock().positions.remove(&partition);
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
        let now_ms = self.now_ms;
        let log = self.partition(topic, partition)?;
        let base = log.end;
        log.end += records.len() as u64;
        log.records.extend(records.into_iter().zip(base..).map(|(record, offset)| Record {
            offset,
            timestamp_ms: record.timestamp_ms.filter(|_| topic.keeps_time()).unwrap_or(now_ms),
            key: record.key,
            value: record.value,
            headers: record.headers,
        }));
        Ok(base)
    }

    fn take(&mut self, transaction: Transaction) -> Result<(), Error> {
        // Refused whole or taken whole.
        transaction.batches.iter().try_for_each(|batch| self.partition(batch.topic, batch.partition).map(|_| ()))?;
        let gap = u64::from(self.has_gaps);
        for batch in transaction.batches {
            self.write(batch.topic, batch.partition, batch.records)?;
            self.partition(batch.topic, batch.partition)?.end += gap;
        }
        for Claimed { position, .. } in transaction.positions {
            self.positions.insert(position.partition, position);
        }
        Ok(())
    }

    fn is_claimed(&self, session: u64, claimed: &Claimed) -> bool {
        self.claims.get(&claimed.position.partition) == Some(&(session, claimed.claim))
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
        let &mut Partition { start, end, ref records } = inner.partition(topic, partition)?;
        if from < start || end < from {
            return Err(Error::OutOfRange { topic, partition, asked: from, start, end });
        }
        let first = records.partition_point(|record| record.offset < from);
        let mut bytes = 0;
        let mut fetched = Fetched { records: Vec::new(), next: end };
        for record in records.iter().skip(first) {
            bytes += record.value.as_ref().map_or(0, |value| value.len()) + record.headers.as_bytes().len();
            if bytes_max < bytes && !fetched.records.is_empty() {
                fetched.next = record.offset;
                break;
            }
            fetched.records.push(record.clone());
        }
        Ok(fetched)
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<u64>, Error> {
        let mut inner = self.lock();
        let log = inner.partition(topic, partition)?;
        Ok(log.start..log.end)
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
        log.start = before.clamp(log.start, log.end);
        let count = log.records.partition_point(|record| record.offset < log.start);
        log.records.drain(..count);
        Ok(())
    }
}

struct SimulatedSession {
    log: SimulatedLog,
    lane: String,
    id: u64,
    doubt: Option<(Stamp, Vec<Claimed>)>,
}

impl SimulatedSession {
    fn is_over(&self, inner: &Inner) -> bool {
        inner.sessions.get(&self.lane) != Some(&self.id)
    }
}

impl Session for SimulatedSession {
    fn claim(&mut self, partition: u32) -> Result<Claim, Error> {
        let mut inner = self.log.lock();
        inner.partition(Topic::Commands, partition)?;
        if self.is_over(&inner) {
            return Err(Error::Fenced);
        }
        inner.claims_given += 1;
        let epoch = inner.claims_given;
        inner.claims.insert(partition, (self.id, epoch));
        Ok(Claim { epoch, position: inner.positions.get(&partition).cloned() })
    }

    fn release(&mut self, partition: u32) {
        let mut inner = self.log.lock();
        if inner.claims.get(&partition).is_some_and(|(session, _)| *session == self.id) {
            inner.claims.remove(&partition);
        }
    }

    fn commit(&mut self, transaction: Transaction) -> Commit {
        let mut inner = self.log.lock();
        if let Some((doubt, _)) = &self.doubt {
            return Commit::Aborted(Error::Unavailable(format!("the doubt about {doubt} comes first")));
        }
        if transaction.positions.is_empty() {
            return Commit::Aborted(Error::Refused("no positions: nothing would be fenced".to_owned()));
        }
        if self.is_over(&inner) || !transaction.positions.iter().all(|claimed| inner.is_claimed(self.id, claimed)) {
            return Commit::Fenced;
        }
        let fault = inner.fault.take();
        let doubt = (transaction.stamp.clone(), transaction.positions.clone());
        if matches!(fault, None | Some(Fault::DoubtCommitted))
            && let Err(error) = inner.take(transaction)
        {
            return Commit::Aborted(error);
        }
        match fault {
            None => Commit::Committed,
            Some(Fault::Abort) => Commit::Aborted(Error::Unavailable("ordered".to_owned())),
            Some(Fault::DoubtCommitted | Fault::DoubtAborted) => {
                self.doubt = Some(doubt);
                Commit::InDoubt(Error::Unavailable("ordered".to_owned()))
            }
        }
    }

    fn resolve(&mut self, stamp: &Stamp) -> Result<Resolution, Error> {
        let inner = self.log.lock();
        let is_committed = inner.positions.values().any(|position| position.stamp == *stamp);
        // Whoever has claimed all of it since may have written other positions over the ones that would tell.
        let is_told = |(_, touched): &(_, Vec<Claimed>)| touched.iter().any(|claimed| inner.is_claimed(self.id, claimed));
        if !is_committed && (self.is_over(&inner) || self.doubt.as_ref().is_some_and(|doubt| !is_told(doubt))) {
            return Err(Error::Fenced);
        }
        self.doubt = None;
        Ok(if is_committed { Resolution::Committed } else { Resolution::Aborted })
    }
}
