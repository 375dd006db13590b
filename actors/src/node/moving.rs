//! Moving a state: out of an application that stands still, into topics, or a directory, that hold nothing yet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use finflow_state::{Dump, End, Head, Origin, RocksStore, Store, dump, store};
use finflow_topologies::Topic;
use finflow_topologies::log::{self, Log};
use finflow_topologies::rescale::{self, Import, Imported, Sizes, obstacles};
use tracing::info;

use super::belonging::{belongs, claim};
use super::departure::{depart, departed, gone, place};
use super::opening::{Purpose, open};
use super::{Inner, Settings, StartError};
use crate::log::NodeLog;
use crate::log::embedded::LocalDisk;
use crate::log::kafka::KafkaLog;
use crate::restoring::clear;

/// Why a state does not move.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The application cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It cannot be brought there.
    #[error(transparent)]
    Rescale(#[from] rescale::Error),
    /// The dump cannot be written or read.
    #[error(transparent)]
    Dump(#[from] dump::Error),
    /// Everything that has to be settled first.
    #[error("{}", .0.join("\n"))]
    Obstacles(Vec<String>),
    /// A directory cannot be used.
    #[error("{0}: {1}")]
    Directory(PathBuf, std::io::Error),
}

impl From<log::Error> for MoveError {
    fn from(error: log::Error) -> MoveError {
        MoveError::Start(error.into())
    }
}

impl From<store::Error> for MoveError {
    fn from(error: store::Error) -> MoveError {
        MoveError::Dump(error.into())
    }
}

/// An application of which no process runs, open for reading.
pub struct Source {
    inner: Inner,
    stores: Vec<Arc<RocksStore>>,
    /// Where its topics ended when it was opened.
    ends: Vec<End>,
}

impl Source {
    /// Opens the application and brings every partition to its committed position.
    pub fn open(settings: Settings) -> Result<Source, MoveError> {
        let inner = open(Arc::new(LocalDisk), settings, Purpose::Read)?;
        let mut halted = Vec::new();
        let mut stores = Vec::new();
        for (partition, committed) in &inner.partitions {
            match (committed.condition().halted, committed.store()) {
                (None, Some(store)) => stores.push(store),
                (cause, _) => halted.push(format!("partition {partition} is halted: {}", cause.unwrap_or_default())),
            }
        }
        if !halted.is_empty() {
            return Err(MoveError::Obstacles(halted));
        }
        let ends = ends(&inner.log)?;
        Ok(Source { inner, stores, ends })
    }

    /// Everything that keeps it from being dumped, in words: what is under way, and what does not add up.
    pub fn obstacles(&self) -> Result<Vec<String>, MoveError> {
        let mut found = self.inner.log.open_transactions()?;
        found.extend(obstacles(&self.inner.log, &self.heads())?);
        for (partition, store) in self.stores.iter().enumerate() {
            let differences = store::verify(&**store)?.differences;
            found.extend(differences.into_iter().map(|what| format!("partition {partition}: {what}")));
        }
        Ok(found)
    }

    /// Where it has gone before, in words, if that is not where it is to go now.
    pub fn gone_elsewhere(&self, to: &Settings) -> Result<Option<String>, MoveError> {
        let settings = &self.inner.settings;
        let elsewhere = departed(settings)?.filter(|found| *found != place(to));
        Ok(elsewhere.map(|found| gone(settings, &found)))
    }

    /// Whether commands may still come in. The embedded log is this process's alone.
    pub fn is_sealed(&self) -> Result<bool, MoveError> {
        match &self.inner.settings.kafka {
            Some(kafka) => Ok(KafkaLog::is_sealed(kafka)?),
            None => Ok(true),
        }
    }

    /// Writes the whole state into the directory, which must be empty or not there, unless something stands against it.
    pub fn dump(&self, into: &Path) -> Result<Dump, MoveError> {
        let obstacles = self.obstacles()?;
        if !obstacles.is_empty() {
            return Err(MoveError::Obstacles(obstacles));
        }
        let stores: Vec<&dyn Store> = self.stores.iter().map(|store| &**store as &dyn Store).collect();
        let dump = Dump::write(into, &self.inner.settings.prefix, &stores)?;
        self.has_stood_still()?;
        info!(dir = %into.display(), "dumped");
        Ok(dump)
    }

    /// A dump of this state that is in the directory already, else a new one.
    fn dump_once(&self, dir: &Path) -> Result<Dump, MoveError> {
        if let Ok(found) = Dump::open(dir)
            && found.manifest().parts.iter().map(|part| &part.head).eq(self.heads().values())
            && found.check().is_ok()
        {
            return Ok(found);
        }
        clear(dir).map_err(|error| MoveError::Directory(dir.to_owned(), error))?;
        self.dump(dir)
    }

    /// What its successor has to know about it.
    fn origin(&self) -> Origin {
        Origin { prefix: self.inner.settings.prefix.clone(), ends: self.ends.clone() }
    }

    /// Nothing has come to its topics since it was opened, and nobody has moved its positions.
    fn has_stood_still(&self) -> Result<(), rescale::Error> {
        if ends(&self.inner.log)? != self.ends {
            return Err(rescale::Error::Refused("records have come to its topics meanwhile".to_owned()));
        }
        let heads = self.heads();
        let stands = |(partition, position): (u32, Option<log::Position>)| {
            let head = heads.get(&partition).filter(|head| 0 < head.number);
            head.map(|head| (head.number, &head.stamp)) == position.as_ref().map(|position| (position.block, &position.stamp))
        };
        let has_moved = !self.inner.log.positions()?.into_iter().all(stands);
        if has_moved { Err(rescale::Error::Refused("its partitions have moved meanwhile".to_owned())) } else { Ok(()) }
    }

    fn heads(&self) -> BTreeMap<u32, Head> {
        (0..).zip(&self.stores).filter_map(|(partition, store)| Some((partition, store.head()?))).collect()
    }
}

/// Where every topic ends.
fn ends(log: &NodeLog) -> Result<Vec<End>, log::Error> {
    let places = Topic::ALL.into_iter().flat_map(|topic| (0..log.partitions()).map(move |partition| (topic, partition)));
    let end = |(topic, partition): (Topic, u32)| {
        let offset = log.range(topic, partition)?.end;
        Ok(End { topic: topic.word().to_owned(), partition, offset })
    };
    places.map(end).collect()
}

/// Brings a dump into the topics, or the directory, of these settings, which must be new or left behind by an earlier attempt. Topics
/// are made with so many replicas.
pub fn bring(settings: &Settings, replication: u32, dump: &Dump) -> Result<Imported, MoveError> {
    bring_with(settings, replication, dump, None, &|| Ok(()))
}

fn bring_with(
    settings: &Settings,
    replication: u32,
    dump: &Dump,
    origin: Option<Origin>,
    may_end: &dyn Fn() -> Result<(), rescale::Error>,
) -> Result<Imported, MoveError> {
    dump.check()?;
    let log = match &settings.kafka {
        Some(kafka) => {
            KafkaLog::create_topics(kafka, settings.partitions, replication as i32)?;
            let problems = KafkaLog::check_topics(kafka, settings.partitions, replication as i32)?;
            if !problems.is_empty() {
                return Err(MoveError::Obstacles(problems));
            }
            NodeLog::Kafka(KafkaLog::open(kafka.clone())?)
        }
        None => {
            belongs(&settings.data_dir, false, &settings.prefix)?;
            let log = NodeLog::embedded(Arc::new(LocalDisk), &settings.data_dir.join("log"), settings.partitions)?;
            claim(settings)?;
            log
        }
    };
    let lane = format!("{}-import", settings.prefix);
    // Who is not seen to leave is missed some seconds later.
    let done = || {
        let _ = log.leave();
    };
    let import = Import {
        dump,
        prefix: &settings.prefix,
        log: &log,
        positions: &|| log.positions(),
        lane: &lane,
        origin,
        sizes: Sizes::of(settings.partitions),
        done: &done,
    };
    Ok(import.run(may_end)?)
}

/// What a change of the number of partitions has done.
#[derive(Debug)]
pub struct Rescaled {
    /// The dump that it went through, which stays.
    pub dump: Dump,
    /// Where that is.
    pub dir: PathBuf,
    /// What was written.
    pub imported: Imported,
}

/// Moves an application to other settings: another number of partitions under another prefix, or in another directory. It goes on
/// where an earlier attempt has ended.
pub fn rescale(from: &Source, to: &Settings, replication: u32) -> Result<Rescaled, MoveError> {
    let dir = from.inner.settings.data_dir.join(format!("rescale-{}", to.prefix));
    let dump = from.dump_once(&dir)?;
    let left = &from.inner.settings;
    depart(left, to)?;
    let may_end = || {
        from.has_stood_still()?;
        match departed(left)? {
            Some(found) if found == place(to) => Ok(()),
            found => Err(rescale::Error::Refused(found.map_or_else(
                || "meanwhile somebody has the application go on where it was".to_owned(),
                |found| gone(left, &found),
            ))),
        }
    };
    let imported = bring_with(to, replication, &dump, Some(from.origin()), &may_end)?;
    Ok(Rescaled { dump, dir, imported })
}
