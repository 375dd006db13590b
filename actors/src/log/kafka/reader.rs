//! A reader: committed records of partitions that it assigns itself, each through a queue of its own.
//!
//! The library fetches ahead into a partition's queue up to a limit; whoever reads takes from the queue and so bounds it. Control
//! records and aborted transactions occupy offsets without being seen, so the offset to go on from is the library's position.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use finflow_topologies::Topic;
use finflow_topologies::log::{Error, Fetched, Position};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::context::Quiet;
use super::errors::{explained, forbidden, hides, is_unauthorized, shown, unavailable};
use super::native::{self, Batches};
use super::positions;
use super::record::weight;
use super::settings::Settings;

/// How often the consumer's own events are served, and whoever follows looks again.
const SERVE_INTERVAL: Duration = Duration::from_millis(250);
/// How long one look at the broker may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a first look for a topic's leaders may take.
const LEADER_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two looks for the leader of a partition.
const LEADER_PAUSE: Duration = Duration::from_millis(50);
/// How long to wait for records that are known to be there.
const RECORDS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one look into a queue waits for the first of them.
const RECORDS_PATIENCE: Duration = Duration::from_millis(20);
/// Records taken from a queue at a time, at most: those of a batch are all taken, however long they are.
const BATCH_RECORDS: usize = 32;
/// How long what still comes of a partition that is not read any more is thrown away: the answers that were under way.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// As short as records are: who asks for so few bytes is given no more than one of them.
const RECORD_BYTES_MIN: usize = 64;
/// Records taken at a time by a lane: no further batch is begun past so many.
const TAKE_RECORDS_MAX: usize = 2_048;

type Place = (Topic, u32);
type Slots = Mutex<HashMap<Place, Arc<Mutex<Slot>>>>;

/// Whether who asks for so few bytes is given one record, or the next few if they are short.
pub(super) fn wants_one(bytes_max: usize) -> bool {
    bytes_max < 2 * RECORD_BYTES_MIN
}

/// Asks the cluster and reads nothing. On a connection of its own: the broker answers in order, and a request behind a fetch waits
/// for as long as that waits for records.
pub(super) type Asker = Arc<BaseConsumer<Quiet>>;

pub(super) struct Reader {
    asker: Asker,
    consumer: Arc<BaseConsumer<Quiet>>,
    prefix: String,
    slots: Arc<Slots>,
    /// Topics whose leaders the library has been asked to look for.
    known: Mutex<BTreeSet<Topic>>,
    /// The feeds that are open, oldest first, those last that were in use when they had to give way; and how many may be.
    opened: Mutex<VecDeque<Place>>,
    feeds_max: usize,
    changed: watch::Sender<u64>,
    is_over: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

/// A partition that is being read, or was.
#[derive(Default)]
struct Slot {
    feed: Option<Feed>,
    /// The queue of the feed that was closed, and when. What the library has fetched ahead stays in there, and what it was fetching comes
    /// into it, until somebody looks.
    left: Option<(Batches<Quiet>, Instant)>,
}

/// One partition being read.
struct Feed {
    batches: Batches<Quiet>,
    /// What tells when its queue is not empty any more, for as long as it lives.
    _queue: PartitionQueue<Quiet>,
    /// The offset of the next record, or of what is before it and not seen.
    next: u64,
    /// Something may have come since the queue was found empty.
    is_touched: Arc<AtomicBool>,
}

/// Whether a topic without leaders is one that the broker does not show to this principal: of that the library keeps nothing else.
fn is_hidden(asker: &Asker, topic: &str, error: &KafkaError) -> bool {
    use RDKafkaErrorCode::UnknownPartition;
    let found =
        matches!(error, KafkaError::MetadataFetch(UnknownPartition)).then(|| asker.fetch_metadata(Some(topic), ASK_TIMEOUT));
    found.and_then(Result::ok).is_some_and(|found| found.topics().first().is_some_and(hides))
}

/// The offsets that a partition holds, as far as a client may see it.
pub(super) fn range(asker: &Asker, topic: &str, partition: u32) -> Result<Range<u64>, Error> {
    use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition};
    let deadline = Instant::now() + ASK_TIMEOUT;
    loop {
        match asker.fetch_watermarks(topic, partition as i32, ASK_TIMEOUT) {
            Ok((low, high)) => return Ok(u64::try_from(low).unwrap_or_default()..u64::try_from(high).unwrap_or_default()),
            // The partition is new, or moves to another broker.
            Err(KafkaError::MetadataFetch(NotLeaderForPartition | LeaderNotAvailable)) if Instant::now() < deadline => {
                std::thread::sleep(LEADER_PAUSE);
            }
            Err(error) if is_unauthorized(&error) || is_hidden(asker, topic, &error) => {
                return Err(forbidden(&format!("Describe on topic {topic}")));
            }
            Err(error) => return Err(unavailable(error)),
        }
    }
}

impl Reader {
    /// A reader that keeps at most `feeds_max` partitions open between fetches, with what was fetched ahead: the one that was opened first
    /// gives way.
    pub(super) fn new(settings: &Settings, config: ClientConfig, asker: Asker, feeds_max: usize) -> Result<Reader, KafkaError> {
        let consumer: Arc<BaseConsumer<Quiet>> = Arc::new(config.create_with_context(Quiet)?);
        let is_over = Arc::new(AtomicBool::new(false));
        let changed = watch::Sender::new(0);
        let slots: Arc<Slots> = Arc::default();
        let (served, over, tick, left) = (consumer.clone(), is_over.clone(), changed.clone(), slots.clone());
        let serve = move || {
            while !over.load(Ordering::Acquire) {
                // Every record has a queue of its own; what is left are errors, which whoever reads meets too, and statistics.
                if let Some(Err(cause)) = served.poll(SERVE_INTERVAL) {
                    debug!(%cause, "the reader reports");
                }
                // Nothing tells when what could not be read can be read again: whoever follows looks once in a while.
                tick.send_modify(|ticks: &mut u64| *ticks = ticks.wrapping_add(1));
                discard_left(&left);
            }
        };
        let server = std::thread::Builder::new().name("finflow-reader".to_owned()).spawn(serve);
        let server = server.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Reader {
            asker,
            consumer,
            prefix: settings.prefix.clone(),
            slots,
            known: Mutex::default(),
            opened: Mutex::default(),
            feeds_max,
            changed,
            is_over,
            server: Some(server),
        })
    }

    /// Ticks when records may have come for a partition that is being read.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The partition count of a topic; `None` if there is no such topic.
    pub(super) fn partitions_of(&self, topic: Topic) -> Result<Option<u32>, Error> {
        let name = topic.name(&self.prefix);
        let metadata = self.asker.fetch_metadata(Some(&name), ASK_TIMEOUT).map_err(unavailable)?;
        Ok(shown(&metadata, &name)?.map(|found| found.partitions().len() as u32).filter(|count| 0 < *count))
    }

    /// The committed positions of the application's group; it takes no membership to read them.
    pub(super) fn committed(&self, partitions: &[u32]) -> Result<BTreeMap<u32, Position>, Error> {
        positions::committed(&*self.asker, (&self.prefix, &Topic::Commands.name(&self.prefix)), partitions)
    }

    /// The offsets held: the first, and one past the last that is committed.
    pub(super) fn range(&self, topic: Topic, partition: u32) -> Result<Range<u64>, Error> {
        self.range_of(&topic.name(&self.prefix), partition)
    }

    /// The same of any topic on the cluster.
    pub(super) fn range_of(&self, name: &str, partition: u32) -> Result<Range<u64>, Error> {
        range(&self.asker, name, partition)
    }

    /// What has come so far from `from` on, without waiting; perhaps nothing although there is something.
    pub(super) fn poll(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, Error> {
        let slot = self.slot(topic, partition);
        let mut slot = self.lock(&slot, topic, partition);
        let open = self.at(&mut slot, topic, partition, from)?;
        if !open.is_touched.swap(false, Ordering::AcqRel) {
            return Ok(Fetched { records: Vec::new(), next: from });
        }
        let mut fetched = Fetched { records: Vec::new(), next: from };
        let taken = take(open, &mut fetched, bytes_max, Duration::ZERO);
        match taken {
            Ok(true) => open.is_touched.store(true, Ordering::Release),
            Ok(false) => fetched.next = fetched.next.max(self.position(topic, partition).unwrap_or(from)),
            Err(error) => {
                self.close(&mut slot, topic, partition);
                return Err(self.explain(error, topic, partition, from));
            }
        }
        open.next = fetched.next;
        Ok(fetched)
    }

    /// Records from `from` on, at least one if there is one below the committed end; waits for them.
    pub(super) fn fetch(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, Error> {
        let slot = self.slot(topic, partition);
        let fetched = self.fetch_by(&mut self.lock(&slot, topic, partition), topic, partition, (from, bytes_max));
        // It could not give way while it was in use, and the others may have been in use as well.
        self.make_room();
        fetched
    }

    fn fetch_by(&self, slot: &mut Slot, topic: Topic, partition: u32, (from, bytes_max): (u64, usize)) -> Result<Fetched, Error> {
        if let Some(fetched) = self.fetched_ahead(slot, topic, partition, (from, bytes_max)) {
            return Ok(fetched);
        }
        let Range { start, end } = self.range(topic, partition)?;
        if from < start || end < from {
            return Err(Error::OutOfRange { topic, partition, asked: from, start, end });
        }
        let mut fetched = Fetched { records: Vec::new(), next: from };
        if from == end {
            return Ok(fetched);
        }
        let open = self.at(slot, topic, partition, from)?;
        let deadline = Instant::now() + RECORDS_TIMEOUT;
        let outcome = loop {
            match take(open, &mut fetched, bytes_max, RECORDS_PATIENCE) {
                Ok(true) => break Ok(()),
                Ok(false) => fetched.next = fetched.next.max(self.position(topic, partition).unwrap_or(from)),
                Err(error) => break Err(self.explain(error, topic, partition, from)),
            }
            if !fetched.records.is_empty() || end <= fetched.next {
                break Ok(());
            }
            if deadline < Instant::now() {
                break Err(Error::Unavailable(format!("{topic}-{partition} gives nothing at {from}")));
            }
        };
        open.next = fetched.next;
        // At the end nothing is fetched ahead, and the fetch that waits for more would hold up the next one.
        if outcome.is_err() || end <= fetched.next {
            self.close(slot, topic, partition);
        }
        outcome.map(|()| fetched)
    }

    /// What has been fetched ahead for a reader that goes on where the feed stands.
    fn fetched_ahead(&self, slot: &mut Slot, topic: Topic, partition: u32, (from, bytes_max): (u64, usize)) -> Option<Fetched> {
        let open = slot.feed.as_mut().filter(|open| open.next == from)?;
        let mut fetched = Fetched { records: Vec::new(), next: from };
        if let Err(cause) = take(open, &mut fetched, bytes_max, Duration::ZERO) {
            // What stood before the error in the queue is out of it: all of it is read again.
            debug!(%topic, partition, from, %cause, "what was fetched ahead is given up");
            self.close(slot, topic, partition);
            return None;
        }
        open.next = fetched.next;
        (!fetched.records.is_empty()).then_some(fetched)
    }

    fn slot(&self, topic: Topic, partition: u32) -> Arc<Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry((topic, partition)).or_default().clone()
    }

    /// Whoever panics over a feed may have taken from it what nobody was given: it is read anew.
    fn lock<'a>(&self, slot: &'a Mutex<Slot>, topic: Topic, partition: u32) -> MutexGuard<'a, Slot> {
        slot.lock().unwrap_or_else(|poisoned| {
            let mut locked = poisoned.into_inner();
            self.close(&mut locked, topic, partition);
            slot.clear_poison();
            locked
        })
    }

    /// The feed at offset `from`; it is assigned anew where it stands elsewhere, which also drops what was fetched ahead.
    fn at<'a>(&self, slot: &'a mut Slot, topic: Topic, partition: u32, from: u64) -> Result<&'a mut Feed, Error> {
        if slot.feed.as_ref().is_some_and(|open| open.next != from) {
            self.close(slot, topic, partition);
        }
        // From here on the queue is the new feed's.
        slot.left.take().into_iter().for_each(|(mut left, _)| left.discard());
        match &mut slot.feed {
            Some(open) => Ok(open),
            feed => Ok(feed.insert(self.open(topic, partition, from)?)),
        }
    }

    fn open(&self, topic: Topic, partition: u32, from: u64) -> Result<Feed, Error> {
        let name = topic.name(&self.prefix);
        // Until a former assignment has come to its end its position is still told, and would lead past records.
        let deadline = Instant::now() + ASK_TIMEOUT;
        while self.position(topic, partition).is_some() {
            if deadline < Instant::now() {
                return Err(Error::Unavailable(format!("{topic}-{partition} is still being stopped")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // The queue is split off before the assignment, so that no record reaches the common one.
        let queue = self.consumer.split_partition_queue(&name, partition as i32);
        let mut queue = queue.ok_or(Error::UnknownPartition { topic, partition })?;
        let batches = Batches::new(self.consumer.clone(), &name, partition as i32, BATCH_RECORDS);
        let batches = batches.ok_or(Error::UnknownPartition { topic, partition })?;
        self.get_to_know(topic, &name);
        let is_touched = Arc::new(AtomicBool::new(true));
        let (touched, changed) = (is_touched.clone(), self.changed.clone());
        queue.set_nonempty_callback(move || {
            touched.store(true, Ordering::Release);
            changed.send_modify(|ticks| *ticks = ticks.wrapping_add(1));
        });
        let mut list = TopicPartitionList::new();
        let offset = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
        list.add_partition_offset(&name, partition as i32, offset).map_err(unavailable)?;
        self.consumer.incremental_assign(&list).map_err(unavailable)?;
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).push_back((topic, partition));
        self.make_room();
        Ok(Feed { batches, _queue: queue, next: from, is_touched })
    }

    /// Has the library look for the leaders of a topic that it meets for the first time; by itself it does so once a second.
    fn get_to_know(&self, topic: Topic, name: &str) {
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(topic)
            && let Err(cause) = self.consumer.fetch_metadata(Some(name), LEADER_TIMEOUT)
        {
            debug!(%topic, %cause, "the leaders are not known yet");
        }
    }

    /// Closes the oldest feeds while there are too many. One that is in use goes behind the others, and is looked at again when its use
    /// ends.
    fn make_room(&self) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..opened.len() {
            if opened.len() <= self.feeds_max {
                break;
            }
            let Some(place) = opened.pop_front() else { break };
            let slot = self.slot(place.0, place.1);
            match unused(&slot) {
                Some(mut slot) => self.stop(&mut slot, place),
                None => opened.push_back(place),
            }
        }
    }

    fn close(&self, slot: &mut Slot, topic: Topic, partition: u32) {
        if slot.feed.is_none() {
            return;
        }
        self.stop(slot, (topic, partition));
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).retain(|place| *place != (topic, partition));
    }

    /// What was fetched ahead goes with it: nobody else would take it out of the queue, and each record may hold the answer that it came
    /// in.
    fn stop(&self, slot: &mut Slot, (topic, partition): Place) {
        let Some(Feed { mut batches, .. }) = slot.feed.take() else { return };
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic.name(&self.prefix), partition as i32);
        match self.consumer.incremental_unassign(&list) {
            // All in the queue is outdated now, and moves no position when it is taken.
            Ok(()) => {
                batches.discard();
                slot.left = Some((batches, Instant::now()));
            }
            Err(cause) => warn!(%topic, partition, %cause, "cannot stop reading"),
        }
    }

    /// Lets go of a partition that nobody reads any more.
    pub(super) fn forget(&self, topic: Topic, partition: u32) {
        let slot = self.slot(topic, partition);
        self.close(&mut self.lock(&slot, topic, partition), topic, partition);
    }

    /// About how many records were fetched and not taken: marks of transactions count too.
    pub(super) fn held_ahead(&self) -> usize {
        let waiting = |slot: &Slot| {
            let queues = slot.feed.iter().map(|open| &open.batches).chain(slot.left.iter().map(|(left, _)| left));
            queues.map(Batches::waiting).sum::<usize>()
        };
        all(&self.slots).iter().map(|slot| waiting(&slot.lock().unwrap_or_else(PoisonError::into_inner))).sum()
    }

    /// How far the library has come, past what it does not show.
    fn position(&self, topic: Topic, partition: u32) -> Option<u64> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&topic.name(&self.prefix), partition as i32);
        native::position(&self.consumer, &list)
    }

    fn explain(&self, error: KafkaError, topic: Topic, partition: u32, asked: u64) -> Error {
        use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
        if matches!(error.rdkafka_error_code(), Some(AutoOffsetReset | OffsetOutOfRange))
            && let Ok(Range { start, end }) = self.range(topic, partition)
            && (asked < start || end < asked)
        {
            return Error::OutOfRange { topic, partition, asked, start, end };
        }
        explained(error, || format!("Read on topic {}", topic.name(&self.prefix)))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if let Some(server) = self.server.take() {
            // A server that has panicked has nothing left to serve.
            let _ = server.join();
        }
    }
}

fn all(slots: &Slots) -> Vec<Arc<Mutex<Slot>>> {
    slots.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
}

/// A slot, if nobody reads, opens or closes it just now.
fn unused(slot: &Mutex<Slot>) -> Option<MutexGuard<'_, Slot>> {
    match slot.try_lock() {
        Ok(slot) => Some(slot),
        Err(TryLockError::Poisoned(slot)) => Some(slot.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Throws away what has come of partitions that are not read any more.
fn discard_left(slots: &Slots) {
    for slot in all(slots) {
        let Some(mut slot) = unused(&slot) else { continue };
        if let Some((batches, closed_at)) = &mut slot.left {
            batches.discard();
            if LEAVE_TIMEOUT < closed_at.elapsed() {
                slot.left = None;
            }
        }
    }
}

/// Moves records from the queue; `true` if a limit ended it, `false` if the queue is empty.
fn take(feed: &mut Feed, fetched: &mut Fetched, bytes_max: usize, patience: Duration) -> Result<bool, KafkaError> {
    let mut bytes = 0_usize;
    loop {
        let patience = if fetched.records.is_empty() { patience } else { Duration::ZERO };
        let taken = feed.batches.take((bytes_max.saturating_sub(bytes) / RECORD_BYTES_MIN).max(1), patience)?;
        if taken.is_empty() {
            return Ok(false);
        }
        for record in taken {
            if fetched.next <= record.offset {
                bytes = bytes.saturating_add(weight(&record));
                fetched.next = record.offset.saturating_add(1);
                fetched.records.push(record);
            }
        }
        if bytes_max <= bytes || TAKE_RECORDS_MAX <= fetched.records.len() {
            return Ok(true);
        }
    }
}
