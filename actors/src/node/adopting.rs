//! Adopting: the state directory of a partition takes the place of what the log says, once an operator has decided that it is right.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use finflow_state::{Generation, Head, RocksStore, Shared, Store, snapshot, store};
use finflow_topologies::log;
use finflow_topologies::rescale::{Adoption, Replaced, Sizes};
use finflow_topologies::restore;
use tracing::info;

use super::belonging::{hand_over, may_be_adopted};
use super::moving::MoveError;
use super::opening::fresh_id;
use super::{Settings, StartError};
use crate::log::NodeLog;
use crate::log::embedded::LocalDisk;
use crate::restoring::{Restorer, clear, directory, move_aside};

/// What adopting a partition's directory comes to.
#[derive(Debug)]
pub struct Adopted {
    /// The partition.
    pub partition: u32,
    /// Rows in which the directory differs from what the log says.
    pub rows: u64,
    /// The last block that was written for it, and where the directory was moved; `None` where nothing was done.
    pub done: Option<(u64, PathBuf)>,
}

/// Compares the directories of these partitions with the log, and with `is_meant` writes what differs into it, all of them at once. The
/// directories are moved aside then, because the next start builds the state from the log.
pub fn adopt(settings: &Settings, partitions: &[u32], is_meant: bool) -> Result<Vec<Adopted>, MoveError> {
    may_be_adopted(settings)?;
    let log = match &settings.kafka {
        Some(kafka) => NodeLog::kafka(kafka, settings.partitions)?,
        None => NodeLog::embedded(Arc::new(LocalDisk), &settings.data_dir.join("log"), settings.partitions)?,
    };
    let scratch = settings.data_dir.join("tmp").join("adopt");
    let made = |dir: PathBuf| std::fs::create_dir_all(&dir).map_err(|error| MoveError::Directory(dir, error));
    clear(&scratch).map_err(|error| MoveError::Directory(scratch.clone(), error))?;
    made(scratch.join("state"))?;
    let generation = restore::create(&log, Generation(fresh_id()), settings.clock.now_ms())?;
    let shared = Shared::new(settings.store_memory_bytes, settings.partitions);
    let wanted = directories(settings, partitions, &shared)?;
    let restorer = Restorer {
        state_dir: scratch.join("state"),
        scratch: scratch.join("tmp"),
        snapshots: settings.snapshots().map_err(StartError::from)?,
        generation,
        shared,
        clock: settings.clock.clone(),
        is_of_log: true,
        replay: restore::replay,
    };
    let (mut held, mut heads) = (BTreeMap::new(), BTreeMap::new());
    for (partition, restored) in restorer.restore_all(&log, &log.positions()?) {
        let restored = restored.map_err(|cause| MoveError::Obstacles(vec![format!("partition {partition}: {cause}")]))?;
        heads.insert(partition, restored.head);
        held.insert(partition, restored.store);
    }
    let adopted = write(settings, &log, (&held, &heads), &wanted, is_meant.then_some(&restorer));
    drop((held, wanted));
    // The copies are of no more use, whatever came of it.
    clear(&scratch).map_err(|error| MoveError::Directory(scratch.clone(), error))?;
    let mut adopted = adopted?;
    for adopted in &mut adopted {
        if let Some((_, moved_to)) = &mut adopted.done {
            let dir = directory(&settings.data_dir.join("state"), adopted.partition);
            let aside = move_aside(&dir, "adopted", settings.clock.now_ms(), usize::MAX);
            *moved_to = aside.map_err(|error| MoveError::Directory(dir, error))?;
        }
    }
    if is_meant {
        hand_over(settings)?;
    }
    Ok(adopted)
}

/// The directories' own stores, as they are. What they hold must add up.
fn directories(settings: &Settings, partitions: &[u32], shared: &Shared) -> Result<BTreeMap<u32, RocksStore>, MoveError> {
    let (mut stores, mut faults) = (BTreeMap::new(), Vec::new());
    for partition in partitions {
        let dir = directory(&settings.data_dir.join("state"), *partition);
        if !dir.is_dir() {
            faults.push(format!("{} is not there", dir.display()));
            continue;
        }
        let store = RocksStore::open(&dir, shared)?;
        let differences = store::verify(&store)?.differences;
        faults.extend(differences.into_iter().map(|what| format!("the directory of partition {partition}: {what}")));
        stores.insert(*partition, store);
    }
    if faults.is_empty() { Ok(stores) } else { Err(MoveError::Obstacles(faults)) }
}

fn write(
    settings: &Settings,
    log: &NodeLog,
    (held, heads): (&BTreeMap<u32, RocksStore>, &BTreeMap<u32, Head>),
    wanted: &BTreeMap<u32, RocksStore>,
    meant: Option<&Restorer>,
) -> Result<Vec<Adopted>, MoveError> {
    let of = |(partition, wanted)| {
        let held: &dyn Store = held
            .get(partition)
            .ok_or(log::Error::UnknownPartition { topic: finflow_topologies::Topic::Journal, partition: *partition })?;
        Ok::<_, StartError>((*partition, Replaced { held, wanted: wanted as &dyn Store }))
    };
    let replaced = wanted.iter().map(of).collect::<Result<BTreeMap<u32, Replaced<'_>>, _>>()?;
    let incarnation = u64::from_be_bytes(fresh_id().first_chunk().copied().unwrap_or_default());
    let lane = format!("{}-import", settings.prefix);
    let sizes = Sizes::of(settings.partitions);
    // Who is not seen to leave is missed some seconds later.
    let done = || {
        let _ = log.leave();
    };
    let adoption = Adoption { log, lane: &lane, incarnation, heads, replaced: &replaced, sizes, done: &done };
    let rows = adoption.plan()?;
    let written = match meant {
        Some(restorer) => {
            forget(restorer, heads, wanted)?;
            adoption.run()?
        }
        None => BTreeMap::new(),
    };
    let told = |(partition, rows)| {
        let done = written.get(&partition).map(|head| (head.number, PathBuf::new()));
        Adopted { partition, rows, done }
    };
    Ok(rows.into_iter().map(told).collect())
}

/// Removes the snapshots of what the log has lost: it goes on with other blocks of the same numbers, and the next start would take them
/// for a contradiction. Those that hold more than the directory that is adopted are left for somebody to decide about.
fn forget(restorer: &Restorer, heads: &BTreeMap<u32, Head>, wanted: &BTreeMap<u32, RocksStore>) -> Result<(), MoveError> {
    let failed = |error: snapshot::Error| MoveError::Obstacles(vec![format!("its snapshots cannot be removed: {error}")]);
    let (mut lost, mut faults) = (Vec::new(), Vec::new());
    for (partition, store) in wanted {
        let Some(head) = heads.get(partition) else { continue };
        let reached = store.head().map_or(0, |head| head.number);
        let names = restorer.snapshots.list(restorer.generation, *partition).map_err(failed)?;
        for name in names.into_iter().filter(|name| head.number < name.block) {
            if reached < name.block {
                faults
                    .push(format!("snapshot {name} is ahead of the log and of the directory; move it away to go on without it"));
            }
            lost.push(name);
        }
    }
    if !faults.is_empty() {
        return Err(MoveError::Obstacles(faults));
    }
    for name in lost {
        restorer.snapshots.forget(&name).map_err(failed)?;
        info!(snapshot = %name, "a snapshot of what the log has lost is removed");
    }
    Ok(())
}
