//! A simulated node: a lane with its partitions and stores, driven one step at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use finflow_state::{MemoryStore, Store, store};

use crate::halt::Halt;
use crate::lane::{Failure, Lane, Next, Settled};
use crate::log::simulated::SimulatedLog;
use crate::log::{self, Claim, Commit, Log, Resolution, Session, Transaction};
use crate::partition::{OpenEpoch, Partition, Rules, Work};
use crate::restore::{self, restore};
use crate::topics::Topic;

const FETCH_BYTES: usize = 64 * 1024;
/// Timers proposed to a partition at a time.
const DUE_MAX: usize = 64;

/// A node. Dropping it is a crash: whatever is not in the log or in a store is gone.
pub struct Node {
    /// Its lane.
    pub lane: Lane,
    log: SimulatedLog,
    session: Box<dyn Session>,
    partitions: BTreeMap<u32, (Partition, Arc<dyn Store>)>,
    /// Claimed while a commit that touches the partition was in flight.
    waiting: BTreeMap<u32, (Claim, Arc<dyn Store>)>,
    rules: Arc<Rules>,
    in_flight: Option<Transaction>,
    in_doubt: bool,
    /// It was fenced: whatever it does is refused.
    pub is_fenced: bool,
    /// Decisions that seemed to break an invariant.
    pub suspicions: u64,
}

impl Node {
    /// A node with one lane called `name`, hosting nothing yet.
    pub fn start(log: &SimulatedLog, name: &str, incarnation: u64, rules: &Arc<Rules>) -> Result<Node, restore::Error> {
        Ok(Node {
            lane: Lane::new(name.into(), incarnation),
            session: log.session(name)?,
            log: log.clone(),
            partitions: BTreeMap::new(),
            waiting: BTreeMap::new(),
            rules: rules.clone(),
            in_flight: None,
            in_doubt: false,
            is_fenced: false,
            suspicions: 0,
        })
    }

    /// Takes over a partition with the rows that `store` still holds, and gives the epoch of the claim.
    pub fn adopt(&mut self, partition: u32, store: Arc<dyn Store>) -> Result<u64, restore::Error> {
        let claim = self.session.claim(partition)?;
        let epoch = claim.epoch;
        self.waiting.insert(partition, (claim, store));
        self.adopt_waiting(false)?;
        Ok(epoch)
    }

    /// Restores and adopts what was claimed, but for partitions that a commit in flight touches: they wait until it is settled.
    fn adopt_waiting(&mut self, has_waited: bool) -> Result<(), restore::Error> {
        for (partition, (claim, store)) in std::mem::take(&mut self.waiting) {
            if self.lane.has_flight(partition) {
                self.waiting.insert(partition, (claim, store));
                continue;
            }
            let head = match restore(&self.log, &*store, partition, claim.position.as_ref()) {
                // While it waited, it was taken over once more.
                Err(restore::Error::Outrun { .. }) if has_waited => continue,
                restored => restored?,
            };
            if self.lane.adopt(claim.epoch, head) {
                let logic = Partition::new(partition, self.rules.clone(), store.clone());
                self.partitions.insert(partition, (logic, store));
            }
        }
        Ok(())
    }

    /// Takes over a partition with no rows at all.
    pub fn adopt_empty(&mut self, partition: u32) -> Result<u64, restore::Error> {
        self.adopt(partition, Arc::new(MemoryStore::default()))
    }

    /// Fetches what the partition wants.
    pub fn fetch(&mut self, partition: u32) {
        let wants = self.lane.wants(partition);
        for (topic, from) in [(Topic::Commands, wants.commands), (Topic::Postings, wants.postings)] {
            let Some(from) = from else { continue };
            match self.log.fetch(topic, partition, from, FETCH_BYTES) {
                Ok(fetched) => self.lane.offer(topic, partition, from, fetched),
                Err(error) => {
                    self.suspicions += 1;
                    self.lane.unreadable(partition, &error);
                }
            }
        }
    }

    /// Proposes what is due in a partition, as far as its store knows.
    pub fn remind(&mut self, partition: u32, now_ms: i64) -> Result<(), Halt> {
        let Some((_, held)) = self.partitions.get(&partition) else { return Ok(()) };
        match store::due(&**held, i64::MIN, now_ms, DUE_MAX) {
            Ok(due) if due.is_empty() => Ok(()),
            Ok(due) => {
                self.lane.offer_timers(partition, due);
                Ok(())
            }
            Err(error) => Halt::of(&error).map_or(Ok(()), Err),
        }
    }

    /// Decides one round of the open epoch. `lost` names a partition whose actor dies over its work. The clock is one that never jumps.
    pub fn round(&mut self, now_ms: i64, lost: Option<u32>) -> Option<Next> {
        self.round_at(now_ms, Duration::from_millis(now_ms.unsigned_abs()), lost)
    }

    /// The same by a clock that may be wrong, beside one that is not.
    pub fn round_at(&mut self, now_ms: i64, steady: Duration, lost: Option<u32>) -> Option<Next> {
        let work = self.lane.round(now_ms, steady);
        if work.is_empty() {
            return None;
        }
        let answers: Vec<_> = work.into_iter().map(|(id, work)| (id, self.decide(id, work, lost == Some(id)))).collect();
        let suspicious = answers.iter().filter(|(_, answer)| matches!(answer, Err(Failure::Halted(_))));
        self.suspicions += suspicious.count() as u64;
        Some(self.lane.merge(answers))
    }

    fn decide(&mut self, id: u32, work: Work, is_lost: bool) -> Result<OpenEpoch, Failure> {
        let Some((partition, store)) = self.partitions.get_mut(&id) else { return Err(Failure::Lost) };
        if is_lost {
            *partition = Partition::new(id, self.rules.clone(), store.clone());
            return Err(Failure::Lost);
        }
        partition.decide(work)
    }

    /// Closes the epoch, if there is anything to close, or a position to be carried on; the commit is in flight from then on.
    pub fn close(&mut self, now_ms: i64) -> bool {
        if self.in_flight.is_some() || self.in_doubt {
            return false;
        }
        self.lane.carry();
        self.in_flight = self.lane.close(now_ms);
        self.in_flight.is_some()
    }

    /// The transaction in flight, for those who plant a fault in it.
    pub fn in_flight(&mut self) -> Option<&mut Transaction> {
        self.in_flight.as_mut()
    }

    /// Commits what is in flight, or settles the doubt about it. A partition that was claimed again meanwhile is adopted then.
    pub fn commit(&mut self) -> Result<Option<Settled>, restore::Error> {
        let Some(resolution) = self.resolution() else { return Ok(None) };
        self.in_doubt = false;
        let settled = self.lane.settle(resolution);
        if !self.is_fenced {
            self.adopt_waiting(true)?;
        }
        Ok(Some(settled))
    }

    fn resolution(&mut self) -> Option<Resolution> {
        if self.in_doubt {
            return match self.session.resolve(self.lane.stamp()) {
                Ok(resolution) => Some(resolution),
                Err(cause) => {
                    self.is_fenced |= cause == log::Error::Fenced;
                    None
                }
            };
        }
        let commit = self.session.commit(self.in_flight.take()?);
        self.in_doubt = matches!(commit, Commit::InDoubt(_));
        self.is_fenced |= commit == Commit::Fenced;
        Option::from(&commit)
    }

    /// Writes the oldest `count` committed epochs of a partition to its store.
    pub fn apply(&mut self, partition: u32, count: usize) -> Result<(), Halt> {
        let Some((logic, store)) = self.partitions.get_mut(&partition) else { return Ok(()) };
        let mut blocks = self.lane.unapplied(partition);
        blocks.truncate(count);
        if let Err(error) = store.apply(&blocks) {
            return Halt::of(&error).map_or(Ok(()), Err);
        }
        for epoch in self.lane.applied(partition, blocks.len()) {
            logic.retire(&epoch);
        }
        Ok(())
    }

    /// The store of a partition.
    pub fn store(&self, partition: u32) -> Option<Arc<dyn Store>> {
        self.partitions.get(&partition).map(|(_, store)| store.clone())
    }

    /// Every partition with its store.
    pub fn stores(&self) -> impl Iterator<Item = (u32, Arc<dyn Store>)> {
        self.partitions.iter().map(|(id, (_, store))| (*id, store.clone()))
    }

    /// Whether there is nothing left to do: no input, no open epoch, no commit, nothing to apply.
    pub fn is_idle(&self) -> bool {
        let applied = self.partitions.keys().all(|id| self.lane.unapplied_epochs(*id) == 0);
        let busy = self.lane.has_input() || self.lane.has_open() || self.lane.has_suspect();
        let busy = busy || self.in_flight.is_some() || self.in_doubt || !self.waiting.is_empty();
        !busy && applied && self.lane.is_level()
    }

    /// Does everything there is to do, in order, until nothing is left. A store that could not be read before is read once more.
    pub fn run(&mut self, now_ms: i64) -> Result<(), Halt> {
        let ids: Vec<u32> = self.partitions.keys().copied().collect();
        ids.iter().for_each(|id| self.lane.read_again(*id));
        let mut quiet = 0;
        while quiet < 2 {
            ids.iter().for_each(|id| self.fetch(*id));
            ids.iter().try_for_each(|id| self.remind(*id, now_ms))?;
            let mut is_busy = false;
            while self.round(now_ms, None).is_some() {
                is_busy = true;
            }
            is_busy |= self.close(now_ms) || self.in_doubt;
            self.commit()?;
            for id in &ids {
                self.apply(*id, usize::MAX)?;
            }
            quiet = if is_busy { 0 } else { quiet + 1 };
        }
        Ok(())
    }
}
