//! How a node begins: it opens the log, which keeps every other process out, restores every partition, and puts together what its
//! actors are started with.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use finflow_state::{Generation, Shared, Store};
use finflow_topologies::log::{self, Log};
use finflow_topologies::{Rules, restore};
use tokio::sync::watch;
use tracing::{error, warn};

use super::belonging::{belongs, claim};
use super::departure::{departed, gone};
use super::{Inner, Settings, StartError, root};
use crate::clock::Guard;
use crate::committed::Committed;
use crate::housekeeper::{self, Seen};
use crate::lane::{Args, Troubles};
use crate::log::NodeLog;
use crate::log::embedded::{Disk, EmbeddedLog};
use crate::log::kafka::KafkaLog;
use crate::metrics;
use crate::naming::lane_name;
use crate::restoring::{Restorer, clear, directory, move_aside};
use crate::snapshots::Carrier;
use crate::socket::Peers;
use crate::{standby, timers, trimmer};

/// What a node is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To run partitions; where others share the log, those that it will be assigned.
    Run,
    /// To read them all.
    Read,
}

/// Opens the log, an embedded one for this process alone, and restores the partitions that it is for.
pub(super) fn open(disk: Arc<dyn Disk>, settings: Settings, purpose: Purpose) -> Result<Inner, StartError> {
    let made = |path: &PathBuf| std::fs::create_dir_all(path).map_err(|error| StartError::Directory(path.clone(), error));
    // What is in it is personal, and its owner's alone.
    if !settings.data_dir.exists() {
        // Where that cannot be, what is made in it says why.
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(&settings.data_dir);
    }
    belongs(&settings.data_dir, settings.kafka.is_some(), &settings.prefix)?;
    let state_dir = settings.data_dir.join("state");
    made(&state_dir)?;
    claim(&settings)?;
    let log = match &settings.kafka {
        Some(kafka) => NodeLog::kafka(kafka, settings.partitions)?,
        None => NodeLog::embedded(disk, &settings.data_dir.join("log"), settings.partitions)?,
    };
    if let (Purpose::Run, NodeLog::Kafka(kafka)) = (purpose, &log) {
        keeps_state(kafka)?;
    }
    // On a cluster a session is refused that joins the group.
    if purpose == Purpose::Run
        && settings.kafka.is_none()
        && let Some(place) = departed(&settings)?
    {
        return Err(log::Error::Refused(gone(&settings, &place)).into());
    }
    let scratch = settings.data_dir.join("tmp");
    clear(&scratch).map_err(|error| StartError::Directory(scratch.clone(), error))?;
    made(&scratch)?;
    let generation = restore::create(&log, Generation(fresh_id()), settings.clock.now_ms())?;
    let first_position = || Ok(log.positions()?.remove(&0).flatten());
    let unknown = |error| match error {
        restore::Error::Log(error @ (log::Error::Forbidden(_) | log::Error::Lasting(_))) => error,
        error => log::Error::Unavailable(error.to_string()),
    };
    if restore::is_being_brought(&log, first_position).map_err(unknown)? {
        return Err(log::Error::Lasting(restore::Error::Unfinished.to_string()).into());
    }
    metrics::begin(settings.partitions);
    let restorer = Arc::new(Restorer {
        state_dir,
        scratch: scratch.clone(),
        snapshots: settings.snapshots()?,
        generation,
        shared: Shared::new(settings.store_memory_bytes, settings.partitions),
        clock: settings.clock.clone(),
        is_of_log: false,
        replay: restore::restore_observed,
    });
    let partitions = match purpose {
        Purpose::Run if log.is_shared() => awaited(&restorer, &log),
        Purpose::Run | Purpose::Read => restored(&restorer, &log)?,
    };
    let carrier = Arc::new(Carrier::new(restorer.snapshots.clone(), generation, scratch, settings.clock.clone()));
    let heads = partitions.values().filter_map(|committed| committed.store()?.head());
    let newest_ms = heads.map(|head| head.at_ms).max().unwrap_or(i64::MIN);
    let clock = Arc::new(Guard::new(settings.clock.clone(), newest_ms));
    let started_ms = settings.clock.now_ms();
    let troubles = (0..settings.lanes).map(|lane| (lane, Arc::<Troubles>::default())).collect();
    Ok(Inner {
        settings,
        log,
        partitions,
        carrier,
        waiters: Arc::default(),
        peers: Peers::default(),
        is_gone: watch::Sender::new(false),
        clock,
        misfit: Seen::default(),
        doubtful: Seen::default(),
        given_up: Seen::default(),
        troubles,
        started_ms,
        root: None,
    })
}

/// Fails where the topics lose committed state, or have it swept by another clock: before this process joins the others. What cannot be
/// seen now, and what is less than that, is told by the housekeeper while it runs.
fn keeps_state(log: &KafkaLog) -> Result<(), log::Error> {
    let loose = match log.loose() {
        Ok(loose) => loose,
        Err(cause) => {
            warn!(%cause, "nobody knows whether the topics keep what is in them");
            return Ok(());
        }
    };
    let fatal: Vec<String> = loose.iter().filter(|setting| setting.is_fatal()).map(ToString::to_string).collect();
    if fatal.is_empty() {
        return Ok(());
    }
    Err(log::Error::Refused(format!("{}; set it with kafka-configs", fatal.join("; "))))
}

/// Moves the state directory of a partition aside, where all of it stays, and says where it is; the next start builds another.
///
/// Fails while another process has the embedded log open; on a cluster, the caller has to know that none has.
pub fn discard(settings: &Settings, partition: u32) -> Result<PathBuf, StartError> {
    belongs(&settings.data_dir, settings.kafka.is_some(), &settings.prefix)?;
    let open = || EmbeddedLog::open(&settings.data_dir.join("log"), settings.partitions);
    let _log = if settings.kafka.is_none() { Some(open()?) } else { None };
    let dir = directory(&settings.data_dir.join("state"), partition);
    move_aside(&dir, "discarded", settings.clock.now_ms(), usize::MAX).map_err(|error| StartError::Directory(dir, error))
}

/// Partitions that are restored when they are assigned. A new process fetches what it may be given before it joins the others, who go
/// on meanwhile; one that comes back joins at once, because its partitions wait for it.
fn awaited(restorer: &Arc<Restorer>, log: &NodeLog) -> BTreeMap<u32, Arc<Committed>> {
    if restorer.is_new() {
        match log.positions() {
            // What is not whole, or moves on meanwhile, is met again when the partition is assigned.
            Ok(positions) => drop(restorer.restore_all(log, &positions)),
            Err(cause) => warn!(%cause, "nothing is fetched ahead"),
        }
    }
    let absent = |id| (id, Arc::new(Committed::absent(id, restorer.clone())));
    (0..log.partitions()).map(absent).collect()
}

/// Every partition, or why it is halted.
fn restored(restorer: &Arc<Restorer>, log: &NodeLog) -> Result<BTreeMap<u32, Arc<Committed>>, StartError> {
    let restored = restorer.restore_all(log, &log.positions()?);
    let committed = |(id, restored): (u32, Result<_, restore::Error>)| {
        if let Err(cause) = &restored {
            error!(partition = id, %cause, "halted");
            metrics::halts(id).increment(1);
        }
        (id, Arc::new(Committed::new(id, restorer.clone(), restored)))
    };
    Ok(restored.into_iter().map(committed).collect())
}

pub(super) fn arguments(inner: &Inner) -> root::Args {
    let rules = Arc::new(inner.settings.rules());
    let housekeeper = housekeeper::Args {
        settings: inner.settings.housekeeping.clone(),
        rules: rules.clone(),
        log: inner.log.clone(),
        partitions: inner.partitions.clone(),
        carrier: inner.carrier.clone(),
        clock: inner.clock.clone(),
        misfit: inner.misfit.clone(),
        doubtful: inner.doubtful.clone(),
    };
    let timers = timers::Args { partitions: inner.partitions.clone(), clock: inner.clock.clone() };
    let (settings, log) = (&inner.settings, &inner.log);
    let standby = (log.is_shared() && 0 < settings.standby_replicas).then(|| standby::Args {
        partitions: inner.partitions.clone(),
        log: log.clone(),
        prefix: settings.prefix.clone(),
        node: settings.node_id.clone(),
        replicas: settings.standby_replicas,
    });
    let trimmer = settings.housekeeping.is_trimmed().then(|| trimmer::Args {
        interval: settings.housekeeping.trim_interval,
        log: log.clone(),
        partitions: inner.partitions.clone(),
        carrier: inner.carrier.clone(),
        clock: settings.clock.clone(),
    });
    root::Args { lanes: lanes(inner, &rules), housekeeper, timers, standby, trimmer, given_up: inner.given_up.clone() }
}

fn lanes(inner: &Inner, rules: &Arc<Rules>) -> BTreeMap<u32, Args> {
    let settings = &inner.settings;
    let of = |lane: u32| {
        // Where other nodes take part, any lane may be given any partition.
        let partitions = inner.partitions.iter().filter(|(id, _)| inner.log.is_shared() || *id % settings.lanes == lane);
        let args = Args {
            name: lane_name(&settings.prefix, &settings.node_id, lane).into(),
            incarnation: u64::from_be_bytes(fresh_id().first_chunk().copied().unwrap_or_default()),
            rules: rules.clone(),
            epoch_interval: settings.epoch_interval,
            log: inner.log.clone(),
            clock: inner.clock.clone(),
            partitions: partitions.map(|(id, committed)| (*id, committed.clone())).collect(),
            waiters: inner.waiters.clone(),
            troubles: inner.troubles.get(&lane).cloned().unwrap_or_default(),
        };
        (lane, args)
    };
    (0..settings.lanes).map(of).collect()
}

/// 128 bits that no other process has: names lives and generations, decides nothing.
pub(super) fn fresh_id() -> [u8; 16] {
    fastrand::u128(..).to_be_bytes()
}
