//! The steps of a world in which something can go wrong: crashes, moves, unaware nodes, commits that fail.

use std::sync::Arc;

use fastrand::Rng;
use finflow_state::Store;

use super::Node;
use super::fault::{Fault, Kind};
use super::planted::{Planted, blocks};
use super::world::{Doubt, World};
use crate::log::simulated::Fault as Ordered;
use crate::log::{Claimed, Log};
use crate::topics::Topic;

impl World {
    /// Keeps a copy of a store for a later crash.
    pub(super) fn copy(&mut self) {
        let partition = self.rng.usize(..self.stores.len());
        self.copies[partition] = self.stores[partition].copy();
    }

    /// A node dies, or is taken for dead, and another of its name takes its place. It may die again at once.
    pub(super) fn crash(&mut self, index: usize) -> Result<(), Fault> {
        loop {
            self.replace(index)?;
            if self.rng.u8(..4) != 0 {
                return Ok(());
            }
        }
    }

    fn replace(&mut self, index: usize) -> Result<(), Fault> {
        self.lives += 1;
        self.outcome.counts.crashes += 1;
        self.doubts[index] = None;
        let node = Node::start(&self.log, &format!("lane-{index}"), self.lives, &self.rules);
        let old = std::mem::replace(&mut self.nodes[index], node.map_err(|error| Fault::new(Kind::Failed, error))?);
        let is_ghost = !old.is_fenced && self.rng.u8(..4) == 0;
        if is_ghost {
            self.ghosts.push(old);
        }
        for partition in self.owned(index) {
            if self.plant.loses_position(&self.stores[partition as usize]) {
                self.log.forget_position(partition);
                self.stores[partition as usize] = Arc::default();
            }
            self.pick_store(partition, is_ghost);
            self.adopt(index, partition, true)?;
        }
        Ok(())
    }

    /// The rows that a partition comes back with. Those that somebody else may still write are copied.
    fn pick_store(&mut self, partition: u32, is_shared: bool) {
        let place = partition as usize;
        match self.rng.u8(..6) {
            0 => self.stores[place] = Arc::default(),
            1 | 2 => self.stores[place] = Arc::new(self.copies[place].copy()),
            _ if is_shared => self.stores[place] = Arc::new(self.stores[place].copy()),
            _ => {}
        }
    }

    /// A partition moves to another node; the one that had it is not told. Now and then it comes straight back.
    pub(super) fn relocate(&mut self) -> Result<(), Fault> {
        let partition = self.rng.u32(..self.log.partitions());
        let from = self.owners[partition as usize];
        let to = self.rng.usize(..self.nodes.len());
        if from == to {
            return Ok(());
        }
        self.take_over(partition, to)?;
        match self.rng.u8(..3) {
            0 => self.take_over(partition, from),
            1 => self.get_ahead(to, from),
            _ => Ok(()),
        }
    }

    /// The new owner works and commits, while the former one decides on what it does not know to be gone.
    fn get_ahead(&mut self, ahead: usize, behind: usize) -> Result<(), Fault> {
        for _ in 0..self.rng.usize(1..4) {
            work(&mut self.nodes[ahead], self.now_ms)?;
            self.commit(ahead, true)?;
        }
        for _ in 0..self.rng.usize(1..6) {
            let step = self.rng.u8(100..200);
            wander(&mut self.nodes[behind], &mut self.rng, step, self.now_ms)?;
        }
        Ok(())
    }

    fn take_over(&mut self, partition: u32, to: usize) -> Result<(), Fault> {
        self.outcome.counts.moves += 1;
        self.outcome.counts.returns += u64::from(self.nodes[to].lane.has_flight(partition));
        self.owners[partition as usize] = to;
        self.pick_store(partition, true);
        self.adopt(to, partition, true)
    }

    /// A node that was replaced goes on; its commits must be fenced.
    pub(super) fn haunt(&mut self) -> Result<(), Fault> {
        let Some(mut ghost) = self.ghosts.pop() else { return Ok(()) };
        for _ in 0..4 {
            let step = self.rng.u8(100..200);
            wander(&mut ghost, &mut self.rng, step, self.now_ms)?;
        }
        ghost.close(self.now_ms);
        let is_new = ghost.in_flight().is_some();
        let settled = ghost.commit().map_err(|error| Fault::new(Kind::NotRestored, format!("a ghost: {error}")))?;
        self.told.extend(settled.into_iter().flat_map(|settled| settled.outcomes));
        if is_new && !ghost.is_fenced {
            return Err(Fault::new(Kind::FenceWrong, "a node that was replaced was not fenced"));
        }
        if ghost.is_fenced {
            self.outcome.counts.fenced += 1;
            self.outcome.counts.suspicions += ghost.suspicions;
        } else {
            self.ghosts.push(ghost);
        }
        Ok(())
    }

    pub(super) fn apply(&mut self, index: usize) -> Result<(), Fault> {
        let hosted: Vec<u32> = self.nodes[index].lane.partitions().collect();
        let Some(partition) = self.rng.choice(hosted) else { return Ok(()) };
        let count = self.rng.usize(..4);
        let applied = self.nodes[index].apply(partition, count);
        applied.map_err(|halt| Fault::new(Kind::NotRestored, format!("partition {partition}: {halt}")))
    }

    /// Forgets inputs that have reached the store: no replay may ever ask for them again.
    pub(super) fn trim(&mut self) -> Result<(), Fault> {
        let partition = self.rng.u32(..self.log.partitions());
        let Some(head) = self.stores[partition as usize].head() else { return Ok(()) };
        let trims = [(Topic::Commands, head.positions.commands), (Topic::Postings, head.positions.postings)];
        for (topic, before) in trims {
            self.log.trim(topic, partition, before).map_err(|error| Fault::new(Kind::Failed, error))?;
            self.outcome.counts.trims += u64::from(0 < before);
        }
        Ok(())
    }

    /// Commits what a node has in flight, or settles its doubt, and compares the answer with the truth.
    pub(super) fn commit(&mut self, index: usize, may_fail: bool) -> Result<(), Fault> {
        let ordered = [Ordered::Abort, Ordered::DoubtCommitted, Ordered::DoubtAborted];
        let drawn = self.rng.u32(..100).checked_div(self.odds.fail).and_then(|way| ordered.get(way as usize).copied());
        let ordered = drawn.filter(|_| may_fail);
        let mut is_stale = false;
        if let Some(transaction) = self.nodes[index].in_flight() {
            is_stale = stale(&transaction.positions, &self.claims).next().is_some();
            let takes = !is_stale && matches!(ordered, None | Some(Ordered::DoubtCommitted));
            self.plant.tamper(transaction, takes, &mut self.rng);
            let positions = transaction.positions.clone();
            let early = blocks(transaction);
            if self.plant.planted == Some(Planted::StoreBeforeCommit) && !is_stale && self.rng.u8(..4) == 0 {
                self.apply_early(index, &early)?;
            }
            let is_doubtful = matches!(ordered, Some(Ordered::DoubtCommitted | Ordered::DoubtAborted));
            self.doubts[index] = (is_doubtful && !is_stale).then_some(Doubt { is_committed: takes, positions });
        }
        self.log.fail_next(ordered);
        let node = &mut self.nodes[index];
        let (suspected, is_open) = (node.lane.has_suspect(), node.lane.has_open());
        let settled = node.commit().map_err(|error| Fault::new(Kind::NotRestored, error))?;
        self.log.fail_next(None);
        let (is_fenced, is_suspect) = (node.is_fenced, node.lane.has_suspect());
        let doubt = if settled.is_some() || is_fenced { self.doubts[index].take() } else { None };
        if let Some(doubt) = &doubt {
            is_stale = stale(&doubt.positions, &self.claims).count() == doubt.positions.len() && is_fenced;
        }
        if is_fenced != is_stale {
            let text = format!("a commit under a claim that was replaced ({is_stale}) was fenced ({is_fenced})");
            return Err(Fault::new(Kind::FenceWrong, text));
        }
        if let Some(settled) = settled.filter(|_| !is_fenced) {
            if doubt.is_some_and(|doubt| doubt.is_committed != settled.committed) {
                return Err(Fault::new(Kind::DoubtWrong, format!("a doubt was settled as committed: {}", settled.committed)));
            }
            let counts = &mut self.outcome.counts;
            counts.epochs += u64::from(settled.committed);
            counts.aborted_under_open += u64::from(!settled.committed && is_open);
            counts.acquitted += u64::from(suspected && !is_suspect && !settled.committed);
            self.told.extend(settled.outcomes);
        }
        if is_fenced {
            self.outcome.counts.fenced += 1;
            self.crash(index)?;
        }
        Ok(())
    }

    fn apply_early(&mut self, index: usize, early: &[finflow_state::EncodedBlock]) -> Result<(), Fault> {
        for block in early {
            let partition = block.header().partition;
            let failed = |error: &dyn std::fmt::Display| Fault::new(Kind::NotRestored, format!("partition {partition}: {error}"));
            self.nodes[index].apply(partition, usize::MAX).map_err(|halt| failed(&halt))?;
            self.stores[partition as usize].apply(std::slice::from_ref(block)).map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}

/// The positions whose claim is not the latest one of their partition.
fn stale<'a>(positions: &'a [Claimed], claims: &'a [u64]) -> impl Iterator<Item = &'a Claimed> {
    positions.iter().filter(|claimed| claims[claimed.position.partition as usize] != claimed.claim)
}

/// Everything up to the next commit: fetch, decide, close.
pub(super) fn work(node: &mut Node, now_ms: i64) -> Result<(), Fault> {
    let hosted: Vec<u32> = node.lane.partitions().collect();
    for partition in hosted {
        node.fetch(partition);
        remind(node, partition, now_ms)?;
    }
    while node.round(now_ms, None).is_some() {}
    node.close(now_ms);
    Ok(())
}

fn remind(node: &mut Node, partition: u32, now_ms: i64) -> Result<(), Fault> {
    node.remind(partition, now_ms).map_err(|halt| Fault::new(Kind::NotRestored, format!("partition {partition}: {halt}")))
}

/// One of the steps that need nothing from the world: fetch, propose what is due, decide - now and then an actor dies over it - or close.
pub(super) fn wander(node: &mut Node, rng: &mut Rng, step: u8, now_ms: i64) -> Result<(), Fault> {
    let hosted: Vec<u32> = node.lane.partitions().collect();
    match step {
        100..120 => hosted.into_iter().filter(|_| rng.bool()).for_each(|partition| node.fetch(partition)),
        120..130 => hosted.into_iter().filter(|_| rng.bool()).try_for_each(|partition| remind(node, partition, now_ms))?,
        130..170 => {
            let lost = rng.choice(hosted).filter(|_| rng.u8(..15) == 0);
            node.round(now_ms, lost);
            // The rounds of a wave follow each other, as they do in a lane's turn, or something comes between.
            while rng.u8(..3) != 0 && node.round(now_ms, None).is_some() {}
        }
        _ => {
            node.close(now_ms);
        }
    }
    Ok(())
}
