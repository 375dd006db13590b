//! The trimmer: removes from the log what nobody needs any more who begins with a snapshot. On a cluster it may sign in as a principal
//! of its own, because the right to delete records is nobody's who writes them.
//!
//! A partition is trimmed by whoever runs it, only where its snapshots outlive the machine, and only after the two that are kept were
//! just read back whole. Where the limit is, [`finflow_topologies::trim`] decides; here it is found out what that rests on, and then
//! done. Whatever hinders it is said, and the log stays as it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use finflow_state::snapshot::{self, KEPT, Name};
use finflow_topologies::Topic;
use finflow_topologies::log::{self, Log};
use finflow_topologies::restore;
use finflow_topologies::trim::{Limits, Proven, Refusal, based, limits};
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::committed::Committed;
use crate::log::NodeLog;
use crate::metrics;
use crate::rota::Rota;
use crate::snapshots::{Carrier, SnapshotError};
use crate::stepper::Job;

/// How often the trimmer looks whether a partition is due; one a step.
pub(crate) const TICK: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub(crate) struct Args {
    pub(crate) interval: Duration,
    pub(crate) log: NodeLog,
    pub(crate) partitions: BTreeMap<u32, Arc<Committed>>,
    pub(crate) carrier: Arc<Carrier>,
    pub(crate) clock: Clock,
}

pub(crate) struct Trimmer {
    args: Args,
    rota: Rota,
}

/// Why a partition was not trimmed.
#[derive(Debug, thiserror::Error)]
enum Hindrance {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Journal(#[from] restore::Error),
    #[error("the snapshots cannot be listed: {0}")]
    List(snapshot::Error),
    #[error("snapshot {0}: {1}")]
    Snapshot(Name, Box<SnapshotError>),
    #[error("snapshot {0}: {1}")]
    Differs(Name, String),
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Another process has removed one that was read.
    #[error("another process has removed a snapshot that was just read")]
    Superseded,
}

impl Hindrance {
    fn of(name: Name, cause: SnapshotError) -> Hindrance {
        Hindrance::Snapshot(name, Box::new(cause))
    }

    /// Whether it is in the nature of things, and passes.
    fn is_usual(&self) -> bool {
        match self {
            Hindrance::Snapshot(_, cause) => matches!(**cause, SnapshotError::Snapshot(snapshot::Error::GivenUp)),
            other => matches!(other, Hindrance::Refused(Refusal::TooFew(_))),
        }
    }
}

impl Trimmer {
    pub(crate) fn new(args: Args) -> Trimmer {
        let rota = Rota::new(args.partitions.keys().copied(), args.interval, args.clock.read().monotonic_ms);
        Trimmer { rota, args }
    }

    fn trim(&self, id: u32) -> Result<(), Hindrance> {
        let mut names = self.listed(id)?;
        names.truncate(KEPT);
        show_starts(&self.args.log, id)?;
        if !self.gains(id, &names)? {
            return Ok(());
        }
        self.args.carrier.sparing(id, &names, || self.trim_below(id, &names))
    }

    fn trim_below(&self, id: u32, names: &[Name]) -> Result<(), Hindrance> {
        let snapshots = names.iter().map(|name| self.proven(name)).collect::<Result<Vec<_>, _>>();
        self.args.carrier.undisturbed(|| {
            // What was read must still be kept: another process may have removed it, and trimming would rest on others.
            let kept = self.listed(id)?;
            if !names.iter().all(|name| kept.contains(name)) {
                return Err(Hindrance::Superseded);
            }
            let Limits { journal, postings } = limits(id, self.args.carrier.generation, &snapshots?)?;
            let places = [(Topic::Journal, journal), (Topic::Postings, postings)];
            let trimmed = places.map(|(topic, before)| self.cut(topic, id, before));
            show_starts(&self.args.log, id)?;
            trimmed.into_iter().collect()
        })
    }

    /// The snapshots of a partition, the newest first, once it is certain that they are where the earlier ones were.
    fn listed(&self, id: u32) -> Result<Vec<Name>, Hindrance> {
        let names = self.args.carrier.snapshots.list(self.args.carrier.generation, id).map_err(Hindrance::List)?;
        based(restore::begins_at(&self.args.log, id)?, names.iter().map(|name| name.block))?;
        Ok(names)
    }

    /// Whether there would be anything to trim, by what the manifests say: only then are the snapshots worth reading.
    fn gains(&self, id: u32, names: &[Name]) -> Result<bool, Hindrance> {
        let [newer, older] = names else { return Err(Refusal::TooFew(names.len()).into()) };
        let manifest = self.args.carrier.snapshots.manifest(newer).map_err(|error| Hindrance::of(*newer, error.into()))?;
        let start = self.args.log.range(Topic::Postings, id)?.start;
        Ok(start < manifest.head.positions.postings || restore::begins_at(&self.args.log, id)? < older.block)
    }

    fn proven(&self, name: &Name) -> Result<Proven, Hindrance> {
        let carrier = &self.args.carrier;
        let read = carrier.read_back(name, &|| carrier.goes_on()).map_err(|error| Hindrance::of(*name, error))?;
        let (head, differences) = read;
        if !differences.is_empty() {
            return Err(Hindrance::Differs(*name, differences.join("; ")));
        }
        let block = restore::block_at(&self.args.log, name.partition, head.number)?;
        Ok(Proven { head, block })
    }

    fn cut(&self, topic: Topic, id: u32, before: u64) -> Result<(), Hindrance> {
        let start = self.args.log.range(topic, id)?.start;
        // The embedded log drops postings as soon as they are applied.
        if before <= start {
            return Ok(());
        }
        self.args.log.trim(topic, id, before)?;
        info!(%topic, partition = id, from = start, to = before, "trimmed");
        Ok(())
    }
}

impl Job for Trimmer {
    fn step(&mut self) {
        if !self.args.carrier.goes_on() || self.args.log.fault().is_some() {
            return;
        }
        let Some(id) = self.rota.next(self.args.clock.read().monotonic_ms) else { return };
        // What is halted keeps all its evidence, and what runs elsewhere is trimmed there.
        if self.args.partitions.get(&id).and_then(|committed| committed.running()).is_none() {
            return;
        }
        match self.trim(id) {
            Ok(()) => {
                let label = id.to_string();
                let seconds = self.args.clock.now_ms() as f64 / 1_000.0;
                ::metrics::gauge!(metrics::TRIM_TIMESTAMP, "partition" => label).set(seconds);
            }
            Err(cause) if cause.is_usual() => {
                debug!(partition = id, %cause, "its log is not trimmed now");
            }
            Err(cause) => {
                ::metrics::counter!(metrics::TRIM_FAILURES).increment(1);
                warn!(partition = id, %cause, "its log is not trimmed");
            }
        }
    }
}

/// Tells the metrics where what is trimmed begins.
fn show_starts(log: &dyn Log, id: u32) -> Result<(), log::Error> {
    for topic in [Topic::Journal, Topic::Postings] {
        let labels = [("topic", topic.word().to_owned()), ("partition", id.to_string())];
        ::metrics::gauge!(metrics::LOG_START, &labels).set(log.range(topic, id)?.start as f64);
    }
    Ok(())
}
