//! How every partition is, and what does not work: what operators see first, in `partitions`, `/readyz` and `check`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use finflow_topologies::Topic;
use finflow_topologies::log::Log;
use serde::{Deserialize, Serialize};

use super::{Node, Settings};
use crate::committed::{Condition, Restoring};
use crate::lane::Troubles;
use crate::naming::{lane_name, node_of};
use crate::watched::Watched;

/// How a partition is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: u32,
    /// The node that has it, by its name; none where nobody is known to.
    pub owner: Option<String>,
    /// The lane it runs on.
    pub lane: String,
    /// `running`, `restoring`, `halted`, `stopped`, `elsewhere` where no lane of this node has it, or `standby` where it follows who
    /// has.
    pub state: String,
    /// Why it is halted.
    pub cause: Option<String>,
    /// The number of its last committed block.
    pub block: u64,
    /// The offset of the first command that is not consumed yet.
    pub commands_next: u64,
    /// Commands not consumed yet.
    pub commands_lag: u64,
    /// Postings not consumed yet.
    pub postings_lag: u64,
    /// What it was restored from: `directory`, `snapshot` or `journal`; empty where it could not be.
    pub restored_from: String,
    /// Journal blocks applied on top of that.
    pub replayed: u64,
    /// How far it is being restored, while it is.
    pub restoring: Option<Restoring>,
    /// What was seen of it at the last look; nothing where it does not run.
    pub watched: Watched,
    /// The nodes that follow it, of those that were asked.
    pub standbys: Vec<String>,
}

impl PartitionStatus {
    /// Whether it is told by who has the partition, or by one whom nobody else keeps from it.
    pub(crate) fn is_first_hand(&self) -> bool {
        !matches!(self.state.as_str(), "elsewhere" | "standby")
    }
}

impl Node {
    /// How every partition is. What runs elsewhere, and all of it while the log does not answer, is told without its lag.
    pub fn status(&self) -> Vec<PartitionStatus> {
        let is_answering = self.0.log.fault().is_none();
        self.status_with(|topic, partition, next| {
            let range = if is_answering { self.0.log.range(topic, partition).ok() } else { None };
            range.map_or(0, |range| range.end.saturating_sub(next))
        })
    }

    /// How every partition is, without asking the log.
    pub fn conditions(&self) -> Vec<PartitionStatus> {
        self.status_with(|_, _, _| 0)
    }

    fn status_with(&self, lag: impl Fn(Topic, u32, u64) -> u64) -> Vec<PartitionStatus> {
        let lag = |condition: &Condition, topic, partition, next| {
            if self.is_elsewhere(condition) { 0 } else { lag(topic, partition, next) }
        };
        let all = self.0.partitions.iter().map(|(id, committed)| {
            let (condition, standby) = (committed.condition(), committed.stands_by());
            let state = match &condition.lane {
                Some(_) => "running",
                None if condition.restored_by.is_some() => "restoring",
                None if standby.is_some() => "standby",
                None if self.0.root.is_some() => "elsewhere",
                None => "stopped",
            };
            PartitionStatus {
                partition: *id,
                owner: self.owner_of(*id, &condition),
                lane: condition.lane.as_deref().unwrap_or_default().to_owned(),
                state: if condition.halted.is_some() { "halted" } else { state }.to_owned(),
                block: standby.unwrap_or(condition.block),
                commands_next: condition.commands_next,
                commands_lag: lag(&condition, Topic::Commands, *id, condition.commands_next),
                postings_lag: lag(&condition, Topic::Postings, *id, condition.postings_next),
                restored_from: committed.origin().source.to_owned(),
                replayed: committed.origin().replayed,
                restoring: committed.restoring().filter(|_| condition.restored_by.is_some()),
                watched: committed.watched(),
                standbys: standby.iter().map(|_| self.0.settings.node_id.clone()).collect(),
                cause: condition.halted,
            }
        });
        all.collect()
    }

    /// The node that has a partition in this condition: this one, or the one that the group has given it to.
    fn owner_of(&self, partition: u32, condition: &Condition) -> Option<String> {
        // One that only reads has none.
        self.0.root.as_ref()?;
        let settings = &self.0.settings;
        if condition.lane.is_some() || condition.restored_by.is_some() || condition.halted.is_some() {
            return Some(settings.node_id.clone());
        }
        node_of(&settings.prefix, &self.0.log.owner(partition)?.lane).map(str::to_owned)
    }

    /// What does not work now, each with its cause; the rest goes on.
    pub fn faults(&self) -> Vec<(String, String)> {
        let stores = self.0.partitions.iter();
        let stores = stores.filter_map(|(id, committed)| Some((format!("store {id}"), committed.fault()?)));
        let clock = self.clock_cause().map(|cause| ("clock".to_owned(), cause));
        let watched = self.0.partitions.iter().flat_map(|(id, committed)| committed.watched().faults(*id));
        let log = self.0.log.fault().map(|cause| ("log".to_owned(), cause));
        // While the log itself says why, its lanes have nothing to add.
        let lanes = if log.is_some() { Vec::new() } else { self.troubles() };
        log.into_iter()
            .chain(lanes)
            .chain(self.0.misfit.all())
            .chain(self.0.given_up.all())
            .chain(clock)
            .chain(stores)
            .chain(watched)
            .collect()
    }

    /// What keeps the lanes from their work.
    fn troubles(&self) -> Vec<(String, String)> {
        let now = Instant::now();
        let told = |(lane, troubles): (&u32, &Arc<Troubles>)| {
            let lane = format!("lane {lane}");
            troubles.told(now).into_iter().map(|cause| (lane.clone(), cause)).collect::<Vec<_>>()
        };
        self.0.troubles.iter().flat_map(told).collect()
    }

    /// What an operator has to look after although everything works, by what it is about.
    pub fn warnings(&self) -> BTreeMap<String, String> {
        let legs = self.0.partitions.iter().flat_map(|(id, committed)| committed.watched().warnings(*id));
        self.0.doubtful.all().into_iter().chain(legs).collect()
    }

    /// Whether a lane is one of this node's.
    pub(super) fn is_own_lane(&self, lane: &str) -> bool {
        let Settings { prefix, node_id, lanes, .. } = &self.0.settings;
        (0..*lanes).any(|number| lane_name(prefix, node_id, number) == lane)
    }
}
