//! The world of a seed: nodes over one log, and everything that can go wrong between any two of their steps.
//!
//! Nodes crash and come back with the rows they had, older ones or none; partitions move while their old node goes on unaware;
//! commits fail in every way. At the end the world heals, comes to rest, and is checked.

use std::sync::Arc;

use fastrand::Rng;
use finflow_state::{Generation, MemoryStore};
use sha2::{Digest, Sha256};

use super::Node;
use super::check::{AtRest, history};
use super::planted::{Plant, Planted};
use super::steps::wander;
use super::workload::{Workload, workload};
use crate::halt::Halt;
use crate::lane::Status;
use crate::log::Log;
use crate::log::simulated::SimulatedLog;
use crate::partition::{Outcome as Told, Rules};
use crate::restore;
use crate::topics::Topic;

const START_MS: i64 = 1_700_000_000_000;
const DAY_MS: i64 = 86_400_000;
/// Steps after the last command was sent.
const STEPS_AFTER: usize = 150;
/// Turns in which a healed world must come to rest.
const TURNS_MAX: usize = 200;

/// What a seed led to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Everything that is wrong, in words.
    pub faults: Vec<String>,
    /// The digest of the steps taken and of every record of the log.
    pub history: [u8; 32],
    /// Nodes that crashed.
    pub crashes: u64,
    /// Partitions that moved.
    pub moves: u64,
    /// Commits that were refused because their node or one of its partitions had been taken over.
    pub fenced: u64,
    /// Nodes that halted a partition because they did not know yet that another one was theirs no more.
    pub halted_unaware: u64,
    /// Epochs that were committed.
    pub epochs: u64,
}

/// Runs the world of a seed, with a bug or without. The same seed gives the same outcome.
pub fn run_seed(seed: u64, planted: Option<Planted>) -> Outcome {
    let mut world = World::new(seed, planted);
    let ran = world.start().and_then(|()| world.live()).and_then(|()| world.heal());
    let checked = ran.and_then(|()| {
        let World { log, stores, workload, told, .. } = &world;
        AtRest { log, stores, workload, told }.faults()
    });
    match checked {
        Ok(mut faults) => world.outcome.faults.append(&mut faults),
        Err(fault) => world.outcome.faults.push(fault),
    }
    world.outcome.history = history(&world.log, world.trace);
    world.outcome
}

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) log: SimulatedLog,
    pub(super) rules: Arc<Rules>,
    pub(super) nodes: Vec<Node>,
    /// Nodes that another of the same name has replaced and which do not know it yet.
    pub(super) ghosts: Vec<Node>,
    /// By partition: the node it belongs to, the store there, and an older copy of a store.
    pub(super) owners: Vec<usize>,
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
            partitions,
            prefix: "finflow".into(),
            treasury_enabled: true,
            dedup_retention_ms: 35 * DAY_MS,
            dedup_margin_ms: DAY_MS / 24,
            hot_wallets_max: rng.usize(1..8),
        };
        let nodes = rng.usize(2..=3);
        World {
            log: SimulatedLog::new(partitions),
            rules: Arc::new(rules),
            nodes: vec![],
            ghosts: vec![],
            owners: (0..partitions).map(|_| rng.usize(..nodes)).collect(),
            stores: (0..partitions).map(|_| Arc::default()).collect(),
            copies: (0..partitions).map(|_| MemoryStore::default()).collect(),
            lives: nodes as u64,
            now_ms: START_MS,
            workload: workload(&mut rng, partitions),
            sent: 0,
            told: vec![],
            plant: Plant::new(planted),
            trace: Sha256::new(),
            outcome: Outcome::default(),
            rng,
        }
    }

    fn start(&mut self) -> Result<(), String> {
        self.log.set_time(self.now_ms);
        restore::create(&self.log, Generation([1; 16]), self.now_ms).map_err(|error| error.to_string())?;
        for index in 0..self.lives as usize {
            let node = Node::start(&self.log, &format!("lane-{index}"), 1, &self.rules).map_err(|error| error.to_string())?;
            self.nodes.push(node);
            self.owned(index).into_iter().try_for_each(|partition| self.adopt(index, partition, false))?;
        }
        Ok(())
    }

    pub(super) fn owned(&self, index: usize) -> Vec<u32> {
        (0..).zip(&self.owners).filter(|(_, owner)| **owner == index).map(|(partition, _)| partition).collect()
    }

    pub(super) fn adopt(&mut self, index: usize, partition: u32, after_crash: bool) -> Result<(), String> {
        let store = self.plant.store(self.stores[partition as usize].clone(), after_crash);
        self.nodes[index].adopt(partition, store).map_err(|error| format!("partition {partition} is not restored: {error}"))
    }

    /// Everything between the first command and the healing.
    fn live(&mut self) -> Result<(), String> {
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
            match step {
                0..2 => self.crash(index)?,
                2..4 => self.relocate()?,
                4..10 => self.copy(),
                10..20 => self.haunt()?,
                20..60 => self.apply(index)?,
                60..100 => self.commit(index, true)?,
                _ => wander(&mut self.nodes[index], &mut self.rng, step, self.now_ms),
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
            self.outcome.faults.extend(appended.err().map(|error| error.to_string()));
        }
    }

    /// No partition may halt, but for those of a node that has lost one and does not know it yet, in two cases.
    ///
    /// The lost partition itself reads answers to what its new owner asked and it did not. And it decides once more what its new
    /// owner has decided and hands the postings to a neighbour that the node still has, which then reads them again in the log.
    /// Nothing of either can be committed; the node is taken down in place of a fence.
    fn halted(&mut self) -> Result<(), String> {
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let Some((partition, halt)) = halt(node) else { continue };
            let has_lost = |wanted: u32| hosts(node, wanted) && self.owners[wanted as usize] != index;
            let is_unaware = has_lost(partition) || matches!(halt, Halt::Sequence { from, .. } if has_lost(from));
            if !is_unaware {
                return Err(format!("partition {partition} is halted: {halt}"));
            }
            self.outcome.halted_unaware += 1;
            self.crash(index)?;
        }
        // Nothing that a replaced node hosts is still its own.
        let ghosts = self.ghosts.len();
        self.ghosts.retain(|ghost| halt(ghost).is_none());
        self.outcome.halted_unaware += (ghosts - self.ghosts.len()) as u64;
        Ok(())
    }

    /// Nothing fails any more, nobody is unaware any more, and everything is done that is left to do.
    fn heal(&mut self) -> Result<(), String> {
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
            let epochs = self.outcome.epochs;
            for index in 0..self.nodes.len() {
                let hosted: Vec<u32> = self.nodes[index].lane.partitions().collect();
                let node = &mut self.nodes[index];
                hosted.iter().for_each(|partition| node.fetch(*partition));
                while node.round(self.now_ms, None).is_some() {}
                node.close(self.now_ms);
                self.commit(index, false)?;
                let node = &mut self.nodes[index];
                hosted.iter().try_for_each(|id| node.apply(*id, usize::MAX)).map_err(|halt| halt.to_string())?;
            }
            self.halted()?;
            let is_idle = self.nodes.iter().all(Node::is_idle) && self.outcome.epochs == epochs;
            quiet = if is_idle { quiet + 1 } else { 0 };
            if 2 < quiet {
                return Ok(());
            }
        }
        Err("the healed world does not come to rest".to_owned())
    }
}

fn hosts(node: &Node, partition: u32) -> bool {
    node.lane.partitions().any(|hosted| hosted == partition)
}

/// A partition of a node that is halted, and why.
fn halt(node: &Node) -> Option<(u32, Halt)> {
    node.lane.partitions().find_map(|partition| match node.lane.status(partition) {
        Some(Status::Halted(halt)) => Some((partition, halt.clone())),
        _ => None,
    })
}
