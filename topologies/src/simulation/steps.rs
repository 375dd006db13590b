//! The steps of a world in which something can go wrong: crashes, moves, unaware nodes, commits that fail.

use std::sync::Arc;

use fastrand::Rng;
use finflow_state::Store;

use super::Node;
use super::planted::{Planted, blocks};
use super::world::World;
use crate::log::Log;
use crate::log::simulated::Fault;

impl World {
    /// Keeps a copy of a store for a later crash.
    pub(super) fn copy(&mut self) {
        let partition = self.rng.usize(..self.stores.len());
        self.copies[partition] = self.stores[partition].copy();
    }

    /// A node dies, or is taken for dead, and another of its name takes its place.
    pub(super) fn crash(&mut self, index: usize) -> Result<(), String> {
        self.lives += 1;
        self.outcome.crashes += 1;
        let node = Node::start(&self.log, &format!("lane-{index}"), self.lives, &self.rules);
        let old = std::mem::replace(&mut self.nodes[index], node.map_err(|error| error.to_string())?);
        let is_ghost = !old.is_fenced && self.rng.u8(..4) == 0;
        if is_ghost {
            self.ghosts.push(old);
        }
        for partition in self.owned(index) {
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

    /// A partition moves to another node; the one that had it is not told.
    pub(super) fn relocate(&mut self) -> Result<(), String> {
        let partition = self.rng.u32(..self.log.partitions());
        let to = self.rng.usize(..self.nodes.len());
        if self.owners[partition as usize] == to {
            return Ok(());
        }
        // A node that lost a partition has to be fenced or to crash before it may have it again.
        if self.nodes[to].lane.partitions().any(|hosted| hosted == partition) {
            self.crash(to)?;
        }
        self.outcome.moves += 1;
        self.owners[partition as usize] = to;
        self.pick_store(partition, true);
        self.adopt(to, partition, true)
    }

    /// A node that was replaced goes on; its commits must be fenced.
    pub(super) fn haunt(&mut self) -> Result<(), String> {
        let Some(mut ghost) = self.ghosts.pop() else { return Ok(()) };
        for _ in 0..4 {
            let step = self.rng.u8(100..200);
            wander(&mut ghost, &mut self.rng, step, self.now_ms);
        }
        ghost.close(self.now_ms);
        let is_new = ghost.in_flight().is_some();
        if let Some(settled) = ghost.commit() {
            self.told.extend(settled.outcomes);
        }
        if is_new && !ghost.is_fenced {
            return Err("a node that was replaced was not fenced".to_owned());
        }
        if ghost.is_fenced {
            self.outcome.fenced += 1;
        } else {
            self.ghosts.push(ghost);
        }
        Ok(())
    }

    pub(super) fn apply(&mut self, index: usize) -> Result<(), String> {
        let hosted: Vec<u32> = self.nodes[index].lane.partitions().collect();
        let Some(partition) = self.rng.choice(hosted) else { return Ok(()) };
        let count = self.rng.usize(..4);
        self.nodes[index].apply(partition, count).map_err(|halt| format!("partition {partition}: {halt}"))
    }

    pub(super) fn commit(&mut self, index: usize, may_fail: bool) -> Result<(), String> {
        let fault = match self.rng.u8(..12) {
            0 => Some(Fault::Abort),
            1 => Some(Fault::DoubtCommitted),
            2 => Some(Fault::DoubtAborted),
            _ => None,
        };
        let fault = fault.filter(|_| may_fail);
        let node = &mut self.nodes[index];
        let mut early = Vec::new();
        let mut is_stale = false;
        if let Some(transaction) = node.in_flight() {
            is_stale = transaction.positions.iter().any(|claimed| self.owners[claimed.position.partition as usize] != index);
            let takes = !is_stale && matches!(fault, None | Some(Fault::DoubtCommitted));
            self.plant.tamper(transaction, takes, &mut self.rng);
            if self.plant.planted == Some(Planted::StoreBeforeCommit) && !is_stale && self.rng.u8(..4) == 0 {
                early = blocks(transaction);
            }
        }
        for block in early {
            let partition = block.header().partition;
            node.apply(partition, usize::MAX).map_err(|halt| format!("partition {partition}: {halt}"))?;
            self.stores[partition as usize].apply(&[block]).map_err(|error| error.to_string())?;
        }
        self.log.fail_next(fault);
        let settled = node.commit();
        self.log.fail_next(None);
        if node.is_fenced != is_stale {
            return Err(format!("a commit over a partition that has moved ({is_stale}) was fenced ({})", node.is_fenced));
        }
        if let Some(settled) = settled {
            self.outcome.epochs += u64::from(settled.committed);
            self.told.extend(settled.outcomes);
        }
        if is_stale {
            self.outcome.fenced += 1;
            self.crash(index)?;
        }
        Ok(())
    }
}

/// One of the steps that need nothing from the world: fetch, decide - now and then an actor dies over it - or close.
pub(super) fn wander(node: &mut Node, rng: &mut Rng, step: u8, now_ms: i64) {
    let hosted: Vec<u32> = node.lane.partitions().collect();
    match step {
        100..130 => hosted.into_iter().filter(|_| rng.bool()).for_each(|partition| node.fetch(partition)),
        130..170 => {
            let lost = rng.choice(hosted).filter(|_| rng.u8(..15) == 0);
            node.round(now_ms, lost);
        }
        _ => {
            node.close(now_ms);
        }
    }
}
