//! The world of a seed: nodes over one log, and everything that can go wrong between any two of their steps.
//!
//! Nodes crash and come back with the rows they had, older ones or none; partitions move while their old node goes on unaware;
//! commits fail in every way. At the end the world heals, comes to rest, and is checked.

use std::sync::Arc;

use fastrand::Rng;
use finflow_state::{Generation, MemoryStore};
use sha2::{Digest, Sha256};

use super::Node;
use super::check::{AtRest, history, reminders};
use super::counts::Counts;
use super::fault::{Fault, Kind};
use super::planted::{Plant, Planted};
use super::steps::{wander, work};
use super::workload::{Workload, workload};
use crate::halt::Halt;
use crate::lane::Status;
use crate::log::simulated::SimulatedLog;
use crate::log::{Claimed, Log};
use crate::partition::{Outcome as Told, Rules};
use crate::restore;
use crate::topics::Topic;

pub(super) const START_MS: i64 = 1_700_000_000_000;
/// Steps after the last command was sent.
const STEPS_AFTER: usize = 150;
/// Turns in which a healed world must come to rest.
const TURNS_MAX: usize = 200;

/// How often things go wrong, drawn for each world: where all of it is frequent, much of it never meets.
pub(super) struct Odds {
    /// Of a thousand steps.
    crash: u32,
    /// Of a thousand steps.
    relocate: u32,
    /// Of a hundred commits, for each way of failing.
    pub(super) fail: u32,
}

impl Odds {
    fn draw(rng: &mut Rng) -> Odds {
        let mut one_of = |choices: [u32; 4]| choices[rng.usize(..4)];
        Odds { crash: one_of([0, 3, 10, 30]), relocate: one_of([3, 10, 30, 60]), fail: one_of([0, 4, 8, 20]) }
    }
}

/// What a seed led to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Everything that is wrong.
    pub faults: Vec<Fault>,
    /// The digest of the steps taken and of every record of the log.
    pub history: [u8; 32],
    /// What happened.
    pub counts: Counts,
}

/// A commit whose answer was lost, as the world knows it.
pub(super) struct Doubt {
    pub(super) is_committed: bool,
    pub(super) positions: Vec<Claimed>,
}

/// Runs the world of a seed, with a bug or without. The same seed gives the same outcome.
pub fn run_seed(seed: u64, planted: Option<Planted>) -> Outcome {
    let mut world = World::new(seed, planted);
    let ran = world.start().and_then(|()| world.live()).and_then(|()| world.heal());
    let checked = ran.and_then(|()| {
        let World { log, stores, workload, told, .. } = &world;
        AtRest { log, stores, workload, told }.faults().map_err(|error| Fault::new(Kind::Failed, error))
    });
    match checked {
        Ok(mut faults) => world.outcome.faults.append(&mut faults),
        Err(fault) => world.outcome.faults.push(fault),
    }
    let postings = (0..world.log.partitions()).filter_map(|partition| world.log.range(Topic::Postings, partition).ok());
    world.outcome.counts.postings = postings.map(|range| range.end).sum();
    world.outcome.counts.reminders = reminders(&world.log);
    world.outcome.history = history(&world.log, world.trace);
    world.outcome
}

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) odds: Odds,
    pub(super) log: SimulatedLog,
    /// Transactions leave offsets without records, and so do producers that give theirs up.
    has_gaps: bool,
    pub(super) rules: Arc<Rules>,
    pub(super) nodes: Vec<Node>,
    /// Nodes that another of the same name has replaced and which do not know it yet.
    pub(super) ghosts: Vec<Node>,
    /// By node: a commit whose answer it has lost.
    pub(super) doubts: Vec<Option<Doubt>>,
    /// By partition: the node it belongs to, its latest claim, the store there, and an older copy of a store.
    pub(super) owners: Vec<usize>,
    pub(super) claims: Vec<u64>,
    pub(super) stores: Vec<Arc<MemoryStore>>,
    pub(super) copies: Vec<MemoryStore>,
    pub(super) lives: u64,
    pub(super) now_ms: i64,
    pub(super) workload: Workload,
    pub(super) sent: usize,
    pub(super) told: Vec<Told>,
    pub(super) plant: Plant,
    pub(super) trace: Sha256,
    pub(super) outcome: Outcome,
}

impl World {
    fn new(seed: u64, planted: Option<Planted>) -> World {
        let mut rng = Rng::with_seed(seed);
        let partitions = rng.u32(4..=8);
        let rules = Rules {
            attention_after_ms: rng.choice([20, 200, 5_000]).unwrap_or_default(),
            hot_wallets_max: rng.usize(1..8),
            ..Rules::development(partitions)
        };
        let nodes = rng.usize(2..=3);
        let log = SimulatedLog::new(partitions);
        let mut workload = workload(&mut rng, partitions);
        let plant = Plant::new(planted, partitions, &workload.records);
        plant.misread(&mut workload.records);
        let odds = Odds::draw(&mut rng);
        let has_gaps = rng.bool();
        World {
            odds,
            log: if has_gaps { log.with_gaps() } else { log },
            has_gaps,
            rules: Arc::new(rules),
            nodes: vec![],
            ghosts: vec![],
            doubts: (0..nodes).map(|_| None).collect(),
            owners: (0..partitions).map(|_| rng.usize(..nodes)).collect(),
            claims: vec![0; partitions as usize],
            stores: (0..partitions).map(|_| Arc::default()).collect(),
            copies: (0..partitions).map(|_| MemoryStore::default()).collect(),
            lives: nodes as u64,
            now_ms: START_MS,
            plant,
            workload,
            sent: 0,
            told: vec![],
            trace: Sha256::new(),
            outcome: Outcome::default(),
            rng,
        }
    }

    fn start(&mut self) -> Result<(), Fault> {
        self.log.set_time(self.now_ms);
        let created = restore::create(&self.log, Generation([1; 16]), self.now_ms);
        created.map_err(|error| Fault::new(Kind::Failed, error))?;
        for index in 0..self.lives as usize {
            let node = Node::start(&self.log, &format!("lane-{index}"), 1, &self.rules);
            self.nodes.push(node.map_err(|error| Fault::new(Kind::Failed, error))?);
            self.owned(index).into_iter().try_for_each(|partition| self.adopt(index, partition, false))?;
        }
        Ok(())
    }

    pub(super) fn owned(&self, index: usize) -> Vec<u32> {
        (0..).zip(&self.owners).filter(|(_, owner)| **owner == index).map(|(partition, _)| partition).collect()
    }

    pub(super) fn adopt(&mut self, index: usize, partition: u32, after_crash: bool) -> Result<(), Fault> {
        let store = self.plant.store(self.stores[partition as usize].clone(), after_crash);
        let adopted = self.nodes[index].adopt(partition, store);
        let claim = adopted.map_err(|error| Fault::new(Kind::NotRestored, format!("partition {partition}: {error}")))?;
        self.claims[partition as usize] = claim;
        Ok(())
    }

    /// Everything between the first command and the healing.
    fn live(&mut self) -> Result<(), Fault> {
        let mut steps_after = 0;
        while steps_after < STEPS_AFTER {
            self.now_ms += self.rng.i64(0..40);
            self.log.set_time(self.now_ms);
            if self.sent == self.workload.records.len() {
                steps_after += 1;
            } else if self.rng.u8(..3) == 0 {
                self.send();
            }
            let (index, step) = (self.rng.usize(..self.nodes.len()), self.rng.u8(..200));
            self.trace.update([index as u8, step]);
            let mishap = self.rng.u32(..1_000);
            match step {
                _ if mishap < self.odds.crash => self.crash(index)?,
                _ if mishap < self.odds.crash + self.odds.relocate => self.relocate()?,
                0..8 => self.copy(),
                8..10 => self.trim()?,
                10..20 => self.haunt()?,
                20..24 if self.has_gaps => self.give_up()?,
                20..60 => self.apply(index)?,
                60..100 => self.commit(index, true)?,
                _ => wander(&mut self.nodes[index], &mut self.rng, step, self.now_ms)?,
            }
            self.halted()?;
        }
        Ok(())
    }

    fn send(&mut self) {
        for _ in 0..self.rng.usize(1..4) {
            let Some((partition, record)) = self.workload.records.get(self.sent).cloned() else { return };
            self.sent += 1;
            let appended = self.log.append(Topic::Commands, partition, vec![record]);
            self.outcome.faults.extend(appended.err().map(|error| Fault::new(Kind::Failed, error)));
        }
    }

    /// A producer aborts what it has sent to a partition.
    fn give_up(&mut self) -> Result<(), Fault> {
        let (partition, count) = (self.rng.u32(..self.log.partitions()), self.rng.u64(1..4));
        self.log.skip(Topic::Commands, partition, count).map_err(|error| Fault::new(Kind::Failed, error))
    }

    /// No partition may be halted, of whatever node: what one that is not the owner any more takes for a broken invariant stays a
    /// suspicion until its commit is fenced.
    fn halted(&mut self) -> Result<(), Fault> {
        for node in self.nodes.iter_mut().chain(&mut self.ghosts) {
            self.outcome.counts.suspicions += std::mem::take(&mut node.suspicions);
            if let Some((partition, halt)) = halt(node) {
                return Err(Fault::new(Kind::Halted, format!("partition {partition}: {halt}")));
            }
        }
        Ok(())
    }

    /// Nothing fails any more, nobody is unaware any more, and everything is done that is left to do.
    fn heal(&mut self) -> Result<(), Fault> {
        self.ghosts.clear();
        for index in 0..self.nodes.len() {
            if !self.nodes[index].lane.partitions().eq(self.owned(index)) {
                self.crash(index)?;
            }
        }
        self.ghosts.clear();
        let mut quiet = 0;
        for _ in 0..TURNS_MAX {
            self.now_ms += 100;
            self.log.set_time(self.now_ms);
            let epochs = self.outcome.counts.epochs;
            for index in 0..self.nodes.len() {
                work(&mut self.nodes[index], self.now_ms)?;
                self.commit(index, false)?;
                let hosted: Vec<u32> = self.nodes[index].lane.partitions().collect();
                let node = &mut self.nodes[index];
                let applied = hosted.iter().try_for_each(|id| node.apply(*id, usize::MAX));
                applied.map_err(|halt| Fault::new(Kind::NotRestored, halt))?;
            }
            self.halted()?;
            let is_idle = self.nodes.iter().all(Node::is_idle) && self.outcome.counts.epochs == epochs;
            quiet = if is_idle { quiet + 1 } else { 0 };
            if 2 < quiet {
                return Ok(());
            }
        }
        Err(Fault::new(Kind::Restless, "the healed world does not come to rest"))
    }
}

/// A partition of a node that is halted, and why.
fn halt(node: &Node) -> Option<(u32, Halt)> {
    node.lane.partitions().find_map(|partition| match node.lane.status(partition) {
        Some(Status::Halted(halt)) => Some((partition, halt.clone())),
        _ => None,
    })
}
