//! Standby: follows the journals of partitions that other processes run, so that what is taken over here goes on from a store that is
//! open and at most a look behind. It answers nothing: what it holds may be older than what its owner has told.
//!
//! Which processes follow a partition, each finds for itself: those that rank highest by a hash of node and partition, its owner left
//! out. The group deals out partitions without knowing that, so with few processes each follows all.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use finflow_topologies::restore;
use sha2::{Digest, Sha256};
use tracing::{debug, info, warn};

use crate::committed::Committed;
use crate::log::NodeLog;
use crate::metrics;
use crate::naming::node_of;
use crate::stepper::Job;

/// Between two looks at the journals: how far a store is behind.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// How often the journal of a partition is read on at one look; the others come first then.
const READS_MAX: usize = 16;
/// Looks that a partition is left alone for where it could not be followed.
const PAUSE_LOOKS: u32 = 10;

#[derive(Clone)]
pub(crate) struct Args {
    pub(crate) partitions: BTreeMap<u32, Arc<Committed>>,
    pub(crate) log: NodeLog,
    pub(crate) prefix: String,
    /// This node.
    pub(crate) node: String,
    /// How many follow each partition.
    pub(crate) replicas: u32,
}

pub(crate) struct Standby {
    args: Args,
    followed: BTreeMap<u32, Followed>,
}

/// A partition that another process runs.
enum Followed {
    /// The offset in its journal behind what the store holds.
    To(u64),
    /// Not for so many looks.
    Later(u32),
    /// Its directory here contradicts the log: whoever is assigned it says so.
    Never,
}

impl Standby {
    pub(crate) fn new(args: Args) -> Standby {
        Standby { args, followed: BTreeMap::new() }
    }

    /// The partitions that this process follows now.
    fn wanted(&self) -> Vec<u32> {
        let owners: BTreeMap<u32, String> =
            self.args.partitions.keys().filter_map(|id| Some((*id, self.args.log.owner(*id)?.lane))).collect();
        let owners: BTreeMap<u32, &str> =
            owners.iter().filter_map(|(id, lane)| Some((*id, node_of(&self.args.prefix, lane)?))).collect();
        wanted(&owners, &self.args.node, self.args.replicas)
    }

    fn follow(&mut self, id: u32) {
        let Some(committed) = self.args.partitions.get(&id) else { return };
        let mut next = match self.followed.get_mut(&id) {
            Some(Followed::To(next)) if committed.stands_by().is_some() => Some(*next),
            Some(Followed::Later(looks)) if 0 < *looks => {
                *looks = looks.saturating_sub(1);
                return;
            }
            Some(Followed::Never) => return,
            Some(Followed::To(_) | Followed::Later(_)) | None => None,
        };
        for _ in 0..READS_MAX {
            let before = next;
            match committed.stand_by(&self.args.log, before) {
                Ok(Some(reached)) => {
                    if before.is_none() {
                        info!(partition = id, "is followed");
                    }
                    next = Some(reached);
                    if before == next {
                        break;
                    }
                }
                // A lane of this process has it, or is about to.
                Ok(None) => {
                    self.followed.remove(&id);
                    return;
                }
                Err(cause) => {
                    self.failed(id, &cause);
                    return;
                }
            }
        }
        self.followed.extend(next.map(|next| (id, Followed::To(next))));
    }

    fn failed(&mut self, id: u32, cause: &restore::Error) {
        let followed = if cause.may_pass() || matches!(cause, restore::Error::Behind { .. }) {
            debug!(partition = id, %cause, "cannot be followed now");
            Followed::Later(PAUSE_LOOKS)
        } else {
            warn!(partition = id, %cause, "is not followed");
            Followed::Never
        };
        self.followed.insert(id, followed);
        // It begins anew then, or leaves its directory alone.
        self.stand_down(id);
    }

    fn stand_down(&self, id: u32) {
        if let Some(committed) = self.args.partitions.get(&id) {
            committed.stand_down();
        }
    }
}

impl Job for Standby {
    fn step(&mut self) {
        if self.args.log.fault().is_some() {
            return;
        }
        let wanted = self.wanted();
        for id in self.args.partitions.keys().filter(|id| !wanted.contains(id) && self.args.log.owner(**id).is_some()) {
            if let Entry::Occupied(followed) = self.followed.entry(*id) {
                followed.remove();
                self.stand_down(*id);
            }
        }
        wanted.into_iter().for_each(|id| self.follow(id));
        let count = self.args.partitions.values().filter(|committed| committed.stands_by().is_some()).count();
        ::metrics::gauge!(metrics::STANDBY_PARTITIONS).set(count as f64);
    }
}

/// The partitions that `node` follows, of those that some node has. A node that has none is known to itself alone: it follows besides.
fn wanted(owners: &BTreeMap<u32, &str>, node: &str, replicas: u32) -> Vec<u32> {
    let others: BTreeSet<&str> = owners.values().copied().filter(|other| *other != node).collect();
    let is_wanted = |(id, owner): &(&u32, &&str)| {
        let own = rank(node, **id);
        let before = others.iter().filter(|other| *other != *owner && own < rank(other, **id)).count();
        **owner != node && before < replicas as usize
    };
    owners.iter().filter(is_wanted).map(|(id, _)| *id).collect()
}

fn rank(node: &str, partition: u32) -> [u8; 32] {
    Sha256::new().chain_update(partition.to_be_bytes()).chain_update(node).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_is_followed_by_so_many_others() {
        let nodes = ["a", "b", "c", "d"];
        let owners: BTreeMap<u32, &str> = (0..64).map(|id| (id, nodes[id as usize % nodes.len()])).collect();
        for (replicas, expected) in [(0, 0), (1, 1), (2, 2), (3, 3), (9, 3)] {
            let followed: Vec<Vec<u32>> = nodes.iter().map(|node| wanted(&owners, node, replicas)).collect();
            for (id, owner) in &owners {
                let by: Vec<&str> =
                    nodes.iter().zip(&followed).filter(|(_, wanted)| wanted.contains(id)).map(|(node, _)| *node).collect();
                assert_eq!(by.len(), expected, "{replicas} for {id}: {by:?}");
                assert!(!by.contains(owner), "nobody follows itself");
            }
            let few = followed.iter().map(Vec::len).min();
            assert!(few.is_some_and(|few| expected == 0 || 8 * expected <= few), "{replicas}: it is spread, {few:?}");
        }
        assert_eq!(wanted(&owners, "e", 4).len(), 64, "who has nothing yet follows as well");
        let before = wanted(&owners, "a", 1);
        let moved: BTreeMap<u32, &str> =
            owners.iter().map(|(id, owner)| (*id, if *owner == "d" { "b" } else { owner })).collect();
        let after = wanted(&moved, "a", 1);
        let kept = before.iter().filter(|id| owners[id] != "d").all(|id| after.contains(id));
        assert!(kept, "when one goes, what the others follow stays: {before:?}, {after:?}");
    }
}
