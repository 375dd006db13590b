//! The Kafka log: the application's topics on a cluster, for any number of processes.
//!
//! Three kinds of clients share the work: a [`reader`] of committed records, an [`appender`] for commands, and for each lane a [`session`]
//! with its group member and its transactional producer. Which lane owns a partition is the group's decision; what fences an
//! owner that has been replaced is the group's generation in every commit, and the claim that the lane was given.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use finflow_topologies::Topic;
use finflow_topologies::log::{Error, Fetched, Log, Outgoing, Position, Session};
use tokio::sync::watch;

use self::appender::Appender;
use self::context::Quiet;
use self::errors::unavailable;
use self::group::Group;
pub use self::group::{Lookup, Owner};
use self::reader::{Asker, Reader};
use self::session::{Exit, Exits};
pub use self::settings::{COMMON, Flaw, SESSION_TIMEOUT, Settings, TRANSACTION_TIMEOUT, canonical, flaw};
use self::topics::Admin;
pub(crate) use self::topics::Loose;
use super::{Assignment, Seat};
use crate::clock::Clock;
use crate::finding::Finding;

mod addresses;
mod admission;
mod appender;
mod context;
pub(crate) mod departure;
mod errors;
mod group;
mod member;
mod names;
mod native;
mod positions;
mod reader;
mod readiness;
mod record;
mod retention;
pub mod rights;
mod seal;
mod session;
mod settings;
mod topics;
mod transactor;
mod watchdog;

/// How long the broker keeps a request of those who follow, gathering what comes meanwhile, and of those who look at what is there.
const FOLLOW_WAIT: Duration = Duration::from_millis(5);
const LOOK_WAIT: Duration = Duration::from_millis(1);
/// How long a broker may take to show topics that were made just now, and between two looks for what is to come.
const TOPICS_TIMEOUT: Duration = Duration::from_secs(3);
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How long who needs all partitions waits for them: longer than a dead member is missed, and its partitions dealt out.
const GIVEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Partitions that are looked up at a time, each with what is fetched ahead of its reader.
const LOOKS_MAX: usize = 32;
/// Those of which one record is looked up: nothing that came with it is kept.
const GLANCES_MAX: usize = 0;

/// The log; clones share it.
#[derive(Clone)]
pub struct KafkaLog(Arc<Shared>);

struct Shared {
    settings: Settings,
    partitions: u32,
    /// What lanes follow, what anybody reads, and what is looked up a record at a time: apart, so that a look into the past moves no lane's
    /// place, and one record does not bring along what a reader of many is given ahead.
    lanes: Reader,
    looks: Reader,
    glances: Reader,
    /// Sees what open transactions have written.
    unstable: Asker,
    appender: Appender,
    admin: Admin,
    trimmer: Admin,
    group: Group,
    /// Why this process has to end, once it has to.
    ends: watch::Sender<Option<String>>,
    exits: Exits,
}

impl KafkaLog {
    /// Connects to the cluster, whose topics must be there.
    pub fn open(settings: Settings) -> Result<KafkaLog, Error> {
        let asker: Asker = Arc::new(settings.reader(LOOK_WAIT).create_with_context(Quiet).map_err(unavailable)?);
        let looks = Reader::new(&settings, settings.reader(LOOK_WAIT), asker.clone(), LOOKS_MAX).map_err(unavailable)?;
        let mut counts = BTreeMap::new();
        let deadline = Instant::now() + TOPICS_TIMEOUT;
        for topic in Topic::ALL {
            let name = topic.name(&settings.prefix);
            let count = loop {
                match looks.partitions_of(topic)? {
                    Some(count) => break count,
                    // A broker hears of new topics later than the one that has made them.
                    None if Instant::now() < deadline => std::thread::sleep(LOOK_PAUSE),
                    None => {
                        let missing = format!("there is no topic {name}; `finflow topics create` makes what is missing");
                        return Err(Error::Lasting(missing));
                    }
                }
            };
            counts.insert(name, count);
        }
        let partitions = counts.values().copied().min().unwrap_or_default();
        if counts.values().any(|count| *count != partitions) {
            return Err(Error::Refused(format!("the topics differ in their number of partitions: {counts:?}")));
        }
        let glances = Reader::new(&settings, settings.glancer(LOOK_WAIT), asker.clone(), GLANCES_MAX).map_err(unavailable)?;
        let (ends, exits) = (watch::Sender::new(None), Exits::default());
        let shared = Shared {
            partitions,
            looks,
            group: Group::new(&settings, asker.clone(), partitions, (ends.clone(), exits.clone())).map_err(unavailable)?,
            ends,
            lanes: Reader::new(&settings, settings.follower(FOLLOW_WAIT), asker, usize::MAX).map_err(unavailable)?,
            glances,
            unstable: Arc::new(settings.unstable(LOOK_WAIT).create_with_context(Quiet).map_err(unavailable)?),
            appender: Appender::new(&settings).map_err(unavailable)?,
            admin: Admin::new(&settings)?,
            trimmer: Admin::trimmer(&settings)?,
            exits,
            settings,
        };
        Ok(KafkaLog(Arc::new(shared)))
    }

    /// Whether the cluster knows this process, and lets it do with the topics all that an engine does; [`Error::Forbidden`] says what is
    /// missing.
    pub fn admit(settings: &Settings) -> Result<(), Error> {
        admission::admit(settings)
    }

    /// Makes the topics that are missing, and names them.
    pub fn create_topics(settings: &Settings, partitions: u32, replication: i32) -> Result<Vec<String>, Error> {
        admission::reach(settings)?;
        Admin::new(settings)?.create(partitions, replication)
    }

    /// Opens the log of topics that were made just now, and does with it what the cluster may not be able to do yet; tried again until
    /// the time for an administrative request is over.
    pub fn begin<T>(settings: &Settings, mut work: impl FnMut(&KafkaLog) -> Result<T, Error>) -> Result<T, Error> {
        topics::patiently(topics::ADMIN_TIMEOUT, || work(&KafkaLog::open(settings.clone())?))
    }

    /// Removes the application's topics with all that is in them.
    pub fn delete_topics(settings: &Settings) -> Result<(), Error> {
        Admin::new(settings)?.delete()
    }

    /// What is wrong with the topics, in words; nothing if all is well, and each partition has as many replicas or more.
    pub fn check_topics(settings: &Settings, partitions: u32, replicas: i32) -> Result<Vec<String>, Error> {
        admission::reach(settings)?;
        Admin::new(settings)?.check(partitions, replicas)
    }

    /// The settings of the topics that are looser than an engine needs.
    pub(crate) fn loose(&self) -> Result<Vec<Loose>, Error> {
        self.0.admin.loose()
    }

    /// Whether the cluster is ready for an engine of so many partitions, each with so many replicas, and for this principal.
    pub fn readiness(settings: &Settings, (partitions, replicas): (u32, i32), clock: &Clock) -> Vec<Finding> {
        readiness::look(settings, (partitions, replicas), clock)
    }

    /// Opens a lane's session, with what the group gives the lane from now on. An earlier session of this process comes to its end
    /// before: its member would take the name back.
    pub fn lane(&self, lane: &str) -> Result<Seat, Error> {
        let earlier = self.exit(lane);
        if let Some(earlier) = &earlier {
            earlier.dismiss(&self.0.ends)?;
        }
        self.open_lane(lane, earlier.is_some())
    }

    fn exit(&self, lane: &str) -> Option<Exit> {
        self.0.exits.lock().unwrap_or_else(PoisonError::into_inner).get(lane).cloned()
    }

    fn open_lane(&self, lane: &str, was_there: bool) -> Result<Seat, Error> {
        let (shown, assignment) = watch::channel(Assignment::default());
        self.0.group.hold_to(lane, assignment.clone());
        if let Some(earlier) = self.exit(lane) {
            earlier.retire();
        }
        let (names, ends) = (self.0.group.names(), self.0.ends.clone());
        let (session, exit) = session::open(&self.0.settings, (lane, was_there), self.0.partitions, (shown, names), ends)?;
        self.0.exits.lock().unwrap_or_else(PoisonError::into_inner).insert(lane.to_owned(), exit);
        Ok((Box::new(session), assignment))
    }

    /// Opens the session of a lane that is to have all partitions, and waits until the group has given it those of members that are gone.
    pub(crate) fn sole_lane(&self, lane: &str) -> Result<Box<dyn Session>, Error> {
        let (session, assignment) = self.open_lane(lane, false)?;
        let deadline = Instant::now() + GIVEN_TIMEOUT;
        let missing = || {
            let kept = assignment.borrow().kept();
            (0..self.0.partitions).filter(|partition| !kept.contains(partition)).collect::<Vec<_>>()
        };
        while !missing().is_empty() {
            if deadline < Instant::now() {
                let seconds = GIVEN_TIMEOUT.as_secs();
                let who = "does a process of the application still run?";
                let cause = format!("the group has not given the partitions {:?} to this one for {seconds} s: {who}", missing());
                return Err(Error::Unavailable(cause));
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        Ok(session)
    }

    /// The committed position of every partition, without a claim.
    pub fn committed_positions(&self) -> Result<BTreeMap<u32, Option<Position>>, Error> {
        let all: Vec<u32> = (0..self.0.partitions).collect();
        let mut found = self.committed(&all)?;
        Ok(all.into_iter().map(|partition| (partition, found.remove(&partition))).collect())
    }

    /// Those of these partitions that have a committed position, read when no transaction on them is open any more.
    pub(crate) fn committed(&self, partitions: &[u32]) -> Result<BTreeMap<u32, Position>, Error> {
        self.0.looks.committed(partitions)
    }

    /// Has the next commit of a lane hang half done, its records written, until the other end of `until` is gone.
    pub(crate) fn hang_commit(&self, lane: &str, until: Receiver<()>) {
        if let Some(exit) = self.exit(lane) {
            exit.hang_commit(until);
        }
    }

    /// Gives up all partitions of a lane at once, as a process does that will not come back; `false` if there is no such lane.
    pub fn leave(&self, lane: &str) -> bool {
        self.exit(lane).is_some_and(|exit| exit.leave())
    }

    /// The same for all lanes of this process; returns when the group has seen it, `false` where it has not in time.
    pub fn leave_all(&self) -> bool {
        let exits: Vec<Exit> = self.0.exits.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        // Every one of them, also behind one that is over already.
        let have_left: Vec<bool> = exits.iter().map(Exit::leave).collect();
        have_left.into_iter().all(|has_left| has_left) && self.0.group.wait_until_gone()
    }

    /// For how long commands stay, whether they were consumed or not; `None` = for ever. As long as an engine asks for at least, where
    /// this one may not see the topic's settings.
    pub(crate) fn commands_kept(&self) -> Result<Option<Duration>, Error> {
        self.0.admin.commands_kept()
    }

    /// Who runs a partition, if the group has given it to anybody.
    pub fn owner(&self, partition: u32) -> Option<Owner> {
        self.0.group.owner(partition)
    }

    /// Whether no other lane can have had this lane's partition until now.
    pub fn has_lease(&self, lane: &str, partition: u32) -> bool {
        self.0.group.has_lease(lane, partition)
    }

    /// Why the cluster is not to be worked with; `None` while it is.
    pub fn fault(&self) -> Option<String> {
        self.0.group.fault()
    }

    /// Why this process has to end, once it has to: it was replaced, or hangs.
    pub fn ends(&self) -> watch::Sender<Option<String>> {
        self.0.ends.clone()
    }

    /// What it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Appends records to several partitions of `commands`, and gives the offset of every record in each.
    pub fn append_all(&self, batches: Vec<(u32, Vec<Outgoing>)>) -> Result<Vec<Vec<u64>>, Error> {
        let batches: Vec<_> = batches.into_iter().map(|(partition, records)| (Topic::Commands, partition, records)).collect();
        for (topic, partition, _) in &batches {
            self.known(*topic, *partition)?;
        }
        self.0.appender.append(&batches)
    }

    /// What has come so far of a partition that a lane follows, without waiting; perhaps nothing although there is something.
    pub fn poll(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, Error> {
        self.known(topic, partition)?;
        self.0.lanes.poll(topic, partition, from, bytes_max)
    }

    /// Stops following a partition.
    pub fn forget(&self, topic: Topic, partition: u32) {
        self.0.lanes.forget(topic, partition);
    }

    /// About how many records lie in memory that nobody was given yet. It waits for fetches that are under way.
    #[doc(hidden)]
    pub fn held_ahead(&self) -> usize {
        [&self.0.looks, &self.0.glances, &self.0.lanes].into_iter().map(Reader::held_ahead).sum()
    }

    /// Ticks when [`KafkaLog::poll`] may have something.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.lanes.changed()
    }

    fn known(&self, topic: Topic, partition: u32) -> Result<(), Error> {
        if partition < self.0.partitions { Ok(()) } else { Err(Error::UnknownPartition { topic, partition }) }
    }
}

impl Log for KafkaLog {
    fn partitions(&self) -> u32 {
        self.0.partitions
    }

    fn append(&self, topic: Topic, partition: u32, records: Vec<Outgoing>) -> Result<u64, Error> {
        self.known(topic, partition)?;
        let offsets = self.0.appender.append(&[(topic, partition, records)])?;
        match offsets.first().and_then(|offsets| offsets.first()) {
            Some(first) => Ok(*first),
            None => Ok(self.range(topic, partition)?.end),
        }
    }

    fn fetch(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, Error> {
        self.known(topic, partition)?;
        let reader = if reader::wants_one(bytes_max) { &self.0.glances } else { &self.0.looks };
        reader.fetch(topic, partition, from, bytes_max)
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<u64>, Error> {
        self.known(topic, partition)?;
        self.0.looks.range(topic, partition)
    }

    fn written(&self, topic: Topic, partition: u32) -> Result<u64, Error> {
        self.known(topic, partition)?;
        Ok(reader::range(&self.0.unstable, &topic.name(&self.0.settings.prefix), partition)?.end)
    }

    fn session(&self, lane: &str) -> Result<Box<dyn Session>, Error> {
        Ok(self.open_lane(lane, false)?.0)
    }

    fn trim(&self, topic: Topic, partition: u32, before: u64) -> Result<(), Error> {
        self.known(topic, partition)?;
        let Range { start, end } = self.range(topic, partition)?;
        let before = before.clamp(start, end);
        if before == start { Ok(()) } else { self.0.trimmer.trim(topic, partition, before) }
    }
}
