//! The logs that the engine runs on, and the one of them that a node has.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use finflow_topologies::Topic;
use finflow_topologies::log::{Error, Fetched, Log, Outgoing, Position, Session};
use tokio::sync::watch;

use self::embedded::{Disk, EmbeddedLog};
use self::kafka::{KafkaLog, Owner};

pub mod embedded;
pub mod kafka;

/// What a lane may claim at present.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The partitions that are the lane's to claim.
    pub assigned: BTreeSet<u32>,
    /// Those among them that it must release soon.
    pub revoked: BTreeSet<u32>,
    /// How often each partition was lost, if ever: what was claimed before the latest loss is void, also where it is assigned again.
    pub losses: BTreeMap<u32, u64>,
}

impl Assignment {
    /// The partitions that the lane should run.
    pub fn kept(&self) -> BTreeSet<u32> {
        self.assigned.difference(&self.revoked).copied().collect()
    }

    /// How often a partition was lost.
    pub fn losses(&self, partition: u32) -> u64 {
        self.losses.get(&partition).copied().unwrap_or_default()
    }

    /// Whether a partition is to stay with who has begun to claim it when it had been lost so often, as `lost_before` tells of each.
    pub fn keeps(&self, partition: u32, lost_before: &BTreeMap<u32, u64>) -> bool {
        let is_kept = self.assigned.contains(&partition) && !self.revoked.contains(&partition);
        is_kept && lost_before.get(&partition) == Some(&self.losses(partition))
    }
}

/// A lane's session and what the lane may claim, from now on.
pub type Seat = (Box<dyn Session>, watch::Receiver<Assignment>);

/// The log of a node; clones share it.
#[derive(Clone)]
pub enum NodeLog {
    /// In the node's own directory.
    Embedded(EmbeddedLog),
    /// On a cluster, shared with other nodes.
    Kafka(KafkaLog),
}

impl NodeLog {
    /// Opens the log in a directory of the node's own.
    pub(crate) fn embedded(disk: Arc<dyn Disk>, dir: &Path, partitions: u32) -> Result<NodeLog, Error> {
        Ok(NodeLog::Embedded(EmbeddedLog::open_on(disk, dir, partitions)?))
    }

    /// Connects to the log on a cluster, whose topics must be there with so many partitions.
    pub(crate) fn kafka(settings: &kafka::Settings, partitions: u32) -> Result<NodeLog, Error> {
        KafkaLog::admit(settings)?;
        let log = KafkaLog::open(settings.clone())?;
        let found = log.partitions();
        if found != partitions {
            return Err(Error::Refused(format!("the log has {found} partitions, {partitions} are configured")));
        }
        // Several processes may start at once, and only one generation can be: whoever makes the topics writes it.
        for partition in 0..found {
            if log.range(Topic::Journal, partition)?.end == 0 {
                let missing = "has no block 0; `finflow topics create` writes it";
                return Err(Error::Lasting(format!("the journal of partition {partition} {missing}")));
            }
        }
        Ok(NodeLog::Kafka(log))
    }

    /// Opens a lane's session. On the embedded log the lane may claim `share` for as long as it lives; in Kafka the group decides.
    pub fn lane(&self, lane: &str, share: BTreeSet<u32>) -> Result<Seat, Error> {
        match self {
            NodeLog::Embedded(log) => {
                let (_, assignment) = watch::channel(Assignment { assigned: share, ..Assignment::default() });
                Ok((log.session(lane)?, assignment))
            }
            NodeLog::Kafka(log) => log.lane(lane),
        }
    }

    /// Whether other nodes share the log, so that a partition may be theirs.
    pub fn is_shared(&self) -> bool {
        matches!(self, NodeLog::Kafka(_))
    }

    /// The committed position of every partition, without a claim: its owner may move it at any time.
    pub fn positions(&self) -> Result<BTreeMap<u32, Option<Position>>, Error> {
        match self {
            NodeLog::Embedded(log) => log.committed_positions(),
            NodeLog::Kafka(log) => log.committed_positions(),
        }
    }

    /// The committed position of a partition, without a claim.
    pub(crate) fn position(&self, partition: u32) -> Result<Option<Position>, Error> {
        match self {
            NodeLog::Embedded(log) => Ok(log.committed_positions()?.remove(&partition).flatten()),
            NodeLog::Kafka(log) => Ok(log.committed(&[partition])?.remove(&partition)),
        }
    }

    /// What of the log is still being written by somebody, in words.
    pub fn open_transactions(&self) -> Result<Vec<String>, Error> {
        match self {
            NodeLog::Embedded(_) => Ok(Vec::new()),
            NodeLog::Kafka(log) => log.open_transactions(),
        }
    }

    /// Returns once no transaction on the position of a partition is open, so that a claim of it is answered at once.
    pub(crate) fn wait_for_position(&self, partition: u32) -> Result<(), Error> {
        match self {
            NodeLog::Embedded(_) => Ok(()),
            NodeLog::Kafka(log) => log.committed(&[partition]).map(|_| ()),
        }
    }

    /// [`Error::Refused`] where commands are kept out, as of an application that was left for another.
    pub(crate) fn unsealed(&self) -> Result<(), Error> {
        match self {
            NodeLog::Embedded(_) => Ok(()),
            NodeLog::Kafka(log) => log.unsealed(),
        }
    }

    /// Appends records to several partitions of `commands`, and gives the offset of every record in each.
    pub fn append_all(&self, batches: Vec<(u32, Vec<Outgoing>)>) -> Result<Vec<Vec<u64>>, Error> {
        match self {
            NodeLog::Embedded(log) => log.append_all(batches),
            NodeLog::Kafka(log) => log.append_all(batches),
        }
    }

    /// Where everything that lanes follow ends at one moment, so that what is fetched up to there lacks nothing that was appended before
    /// it in another one; none where no such moment is known.
    pub(crate) fn moment(&self) -> Option<BTreeMap<(Topic, u32), u64>> {
        match self {
            NodeLog::Embedded(log) => Some(log.moment()),
            NodeLog::Kafka(_) => None,
        }
    }

    /// What has come of a partition that a lane follows, without waiting; perhaps nothing although there is something.
    pub fn follow(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, Error> {
        match self {
            NodeLog::Embedded(log) => {
                let is_at_end = log.range(topic, partition).is_ok_and(|range| range.end <= from);
                if is_at_end {
                    return Ok(Fetched { records: Vec::new(), next: from });
                }
                log.fetch(topic, partition, from, bytes_max)
            }
            NodeLog::Kafka(log) => log.poll(topic, partition, from, bytes_max),
        }
    }

    /// Stops following a partition.
    pub fn forget(&self, partition: u32) {
        if let NodeLog::Kafka(log) = self {
            [Topic::Commands, Topic::Postings].into_iter().for_each(|topic| log.forget(topic, partition));
        }
    }

    /// Ticks when [`NodeLog::follow`] may have something.
    pub fn changed(&self) -> watch::Receiver<u64> {
        match self {
            NodeLog::Embedded(log) => log.changed(),
            NodeLog::Kafka(log) => log.changed(),
        }
    }

    /// Why the log takes nothing at present; `None` while it does.
    pub fn fault(&self) -> Option<String> {
        match self {
            NodeLog::Embedded(log) => log.fault(),
            NodeLog::Kafka(log) => log.fault(),
        }
    }

    /// For how long commands stay, whether they were consumed or not; `None` = until they are.
    pub(crate) fn commands_kept(&self) -> Result<Option<Duration>, Error> {
        match self {
            NodeLog::Embedded(_) => Ok(None),
            NodeLog::Kafka(log) => log.commands_kept(),
        }
    }

    /// Who runs a partition, where several nodes share the log.
    pub fn owner(&self, partition: u32) -> Option<Owner> {
        match self {
            NodeLog::Embedded(_) => None,
            NodeLog::Kafka(log) => log.owner(partition),
        }
    }

    /// Whether no other lane can have had this lane's partition until now.
    pub fn has_lease(&self, lane: &str, partition: u32) -> bool {
        match self {
            NodeLog::Embedded(_) => true,
            NodeLog::Kafka(log) => log.has_lease(lane, partition),
        }
    }

    /// Gives all partitions of this node to the others at once; `false` where nobody is known to have them.
    pub fn leave(&self) -> bool {
        match self {
            NodeLog::Embedded(_) => false,
            NodeLog::Kafka(log) => log.leave_all(),
        }
    }

    /// Why this process has to end, once it has to, and where others may say so. Nothing ends one that is alone with its log.
    pub fn ends(&self) -> watch::Sender<Option<String>> {
        match self {
            NodeLog::Embedded(_) => watch::Sender::new(None),
            NodeLog::Kafka(log) => log.ends(),
        }
    }

    /// What processes that ask each other have in common; `None` where this one is alone, or knows no secret.
    pub(crate) fn secret(&self) -> Option<&str> {
        match self {
            NodeLog::Embedded(_) => None,
            NodeLog::Kafka(log) => Some(log.settings().secret.as_str()).filter(|secret| !secret.is_empty()),
        }
    }

    fn log(&self) -> &dyn Log {
        match self {
            NodeLog::Embedded(log) => log,
            NodeLog::Kafka(log) => log,
        }
    }
}

impl Log for NodeLog {
    fn partitions(&self) -> u32 {
        self.log().partitions()
    }

    fn append(&self, topic: Topic, partition: u32, records: Vec<Outgoing>) -> Result<u64, Error> {
        self.log().append(topic, partition, records)
    }

    fn fetch(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, Error> {
        self.log().fetch(topic, partition, from, bytes_max)
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<u64>, Error> {
        self.log().range(topic, partition)
    }

    fn written(&self, topic: Topic, partition: u32) -> Result<u64, Error> {
        self.log().written(topic, partition)
    }

    /// Opens a session that may claim every partition: of one who is alone with the log.
    fn session(&self, lane: &str) -> Result<Box<dyn Session>, Error> {
        match self {
            NodeLog::Embedded(log) => log.session(lane),
            NodeLog::Kafka(log) => log.sole_lane(lane),
        }
    }

    fn trim(&self, topic: Topic, partition: u32, before: u64) -> Result<(), Error> {
        self.log().trim(topic, partition, before)
    }
}
