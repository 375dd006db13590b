//! The group as its coordinator describes it: who has which partition and where to ask it, and whether this process is still heard.
//!
//! One thread looks twice a second. What it finds is the owner table, and this process's lease: the coordinator had its members at the
//! time of the look, so that nobody else can have their partitions before a session timeout has passed since their last heartbeat. A
//! process that stood still for longer than that was replaced, and ends. Where an owner is asked it says itself, in [`addresses`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use finflow_topologies::Topic;
use finflow_topologies::log::Error;
use rdkafka::error::KafkaError;
use tokio::sync::watch;
use tracing::{error, warn};

use super::addresses::Addresses;
use super::context::Quiet;
use super::errors::{explained, unavailable};
use super::member::RELEASE_TIMEOUT;
use super::names::Names;
use super::native::{self, Described, Description, Question};
use super::reader::Asker;
use super::session::{Exit, Exits};
use super::settings::{HEARTBEAT_INTERVAL, SESSION_TIMEOUT, Settings, addresses_group};
use crate::log::Assignment;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long each question of a look may take; there are two.
const LOOK_TIMEOUT: Duration = Duration::from_millis(1_500);
const _: () = assert!(LOOK_INTERVAL.as_millis() + 2 * LOOK_TIMEOUT.as_millis() < SESSION_TIMEOUT.as_millis());
/// How long a client may take for an answer before another one is asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// How many of those that have not answered are kept: while all brokers are gone, none of them helps.
const FORMER_MAX: usize = 3;
/// How long after a look that found this process's member its committed state may still be told. A member that was there at a look
/// was heard at most a heartbeat before, and is missed a session timeout after that.
const LEASE: Duration = Duration::from_secs(3);
const _: () = assert!(LEASE.as_millis() + HEARTBEAT_INTERVAL.as_millis() < SESSION_TIMEOUT.as_millis());
/// How long a process that leaves waits to be seen gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the brokers may be gone before the process begins anew: before what the client library has waited for so long fails.
const OUTAGE_MAX: Duration = native::DESCRIPTION_TIMEOUT.saturating_sub(Duration::from_secs(300));
const GONE_LOOK: Duration = Duration::from_millis(20);
/// How long a partition may be nobody's in a group that has decided, before one of its members has it decide anew. A static member that
/// comes back finds what its former life had kept, and the group does not deal out again what that one was giving up.
const ORPHANED_MAX: Duration = Duration::from_secs(6);
const _: () = assert!(RELEASE_TIMEOUT.as_millis() < ORPHANED_MAX.as_millis());
/// How long that may take to show.
const REJOIN_PAUSE: Duration = Duration::from_secs(10);

/// Who runs a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its lane.
    pub lane: String,
    /// Where its process is asked; `None` where that is not known yet.
    pub address: Option<String>,
}

/// The group as it was seen last.
#[derive(Default)]
struct View {
    /// The member that has a partition, and its lane.
    members: BTreeMap<u32, (String, String)>,
    /// The member that has said last where it is asked for a partition, and where.
    addresses: BTreeMap<u32, (String, String)>,
    /// The lanes of this process that the group had, and when it was asked.
    leases: BTreeMap<String, Instant>,
    /// Since when the group leaves a partition to nobody, if it has decided.
    orphaned_at: Option<Instant>,
    /// Since when the coordinator has not answered, or does not let this process look, and why.
    fault: Option<(Instant, Error)>,
    looks: u64,
}

/// Looks at the group for as long as it lives.
pub(super) struct Group {
    view: Arc<Mutex<View>>,
    names: Names,
    /// What the group has given to each lane of this process, as its member tells it.
    given: Mutex<BTreeMap<String, watch::Receiver<Assignment>>>,
    is_over: Arc<AtomicBool>,
    brokers: String,
}

impl Group {
    /// Begins to look, and to watch that this process does not stand still: `ends` is told why it has to end.
    pub(super) fn new(
        settings: &Settings,
        asker: Asker,
        partitions: u32,
        (ends, exits): (watch::Sender<Option<String>>, Exits),
    ) -> Result<Group, KafkaError> {
        let (view, names, is_over) = (Arc::<Mutex<View>>::default(), Names::default(), Arc::new(AtomicBool::new(false)));
        let group = Group {
            view: view.clone(),
            names: names.clone(),
            given: Mutex::default(),
            is_over: is_over.clone(),
            brokers: settings.brokers.clone(),
        };
        let mut addresses = Addresses::new(settings, partitions)?;
        let mut questions = Questions::new(settings)?;
        let brokers = settings.brokers.clone();
        let look = move || {
            let mut before = Instant::now();
            while !is_over.load(Ordering::Acquire) {
                let begun = Instant::now();
                let since = begun.duration_since(before);
                before = begun;
                if SESSION_TIMEOUT < since {
                    let cause = format!("the process stood still for {:.1} s and was replaced", since.as_secs_f64());
                    error!(cause, "this process has to end");
                    ends.send_replace(Some(cause));
                }
                while asker.poll(Duration::ZERO).is_some() {}
                let (asked_at, found) = questions.answer();
                let own = names.own();
                if let Ok((_, members)) = &found {
                    names.see(asked_at, members);
                }
                if let Ok((is_settled, members)) = &found
                    && let Some(lane) = lock(&view).returning(partitions, *is_settled, members, asked_at)
                    && own.contains_key(&lane)
                {
                    warn!(lane, "the group leaves a partition to nobody, asking it to decide anew");
                    let exits = exits.lock().unwrap_or_else(PoisonError::into_inner);
                    exits.get(&lane).into_iter().for_each(Exit::rejoin);
                }
                // What was asked before an outage tells nobody who waits for it what is so now: it is asked again at once.
                let is_outdated = found.is_ok() && LOOK_TIMEOUT < asked_at.elapsed();
                let outage = lock(&view).take(&brokers, &own, (asked_at, since <= LEASE), found);
                if OUTAGE_MAX < outage {
                    ends.send_replace(Some(format!("the brokers have been gone for {} s", outage.as_secs())));
                }
                if is_outdated {
                    continue;
                }
                let wanted = lock(&view).unaddressed(&own);
                if let Some(found) = addresses.look(&wanted, LOOK_TIMEOUT) {
                    lock(&view).addresses = found;
                }
                std::thread::park_timeout(LOOK_INTERVAL);
            }
        };
        let thread = std::thread::Builder::new().name("finflow-group".to_owned()).spawn(look);
        thread.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(group)
    }

    /// Where lanes note what the group calls them, and see who has their names.
    pub(super) fn names(&self) -> Names {
        self.names.clone()
    }

    /// Who runs a partition, if the group has given it to anybody.
    pub(super) fn owner(&self, partition: u32) -> Option<Owner> {
        lock(&self.view).owner(partition)
    }

    /// Holds a lane to what it is given from now on.
    pub(super) fn hold_to(&self, lane: &str, given: watch::Receiver<Assignment>) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).insert(lane.to_owned(), given);
    }

    /// Whether no other lane can have had this lane's partition until now.
    ///
    /// The group gives a partition away when the member is gone, of which its lease warns in time, or when the member has given it up,
    /// whether the lane has let go of it or not: that is shown before the group hears of it.
    pub(super) fn has_lease(&self, lane: &str, partition: u32) -> bool {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let is_given = given.get(lane).is_some_and(|given| given.borrow().assigned.contains(&partition));
        // One that was refused does not know what it still has.
        is_given && self.names.has(lane) && lock(&self.view).leases.get(lane).is_some_and(|proven| proven.elapsed() < LEASE)
    }

    /// Why the cluster is not to be worked with; `None` while it is.
    pub(super) fn fault(&self) -> Option<String> {
        let view = lock(&self.view);
        let (since, cause) = view.fault.as_ref()?;
        let seconds = since.elapsed().as_secs();
        Some(match cause {
            Error::Forbidden(_) => format!("the group has not let this process look for {seconds} s: {cause}"),
            cause => format!("the brokers {} have not answered for {seconds} s: {}", self.brokers, words(cause)),
        })
    }

    /// Waits until the group has no lane of this process any more; `false` at the deadline.
    pub(super) fn wait_until_gone(&self) -> bool {
        let begun = Instant::now();
        // A look that is under way began too early.
        let due = lock(&self.view).looks.saturating_add(2);
        loop {
            let view = lock(&self.view);
            if due <= view.looks && view.fault.is_none() && view.leases.is_empty() {
                return true;
            }
            drop(view);
            if GONE_TIMEOUT < begun.elapsed() {
                return false;
            }
            std::thread::sleep(GONE_LOOK);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The thread ends by itself, after the look that may be under way.
        self.is_over.store(true, Ordering::Release);
    }
}

impl View {
    /// Takes what was found by a look that asked at `begun`, and says for how long nobody has answered.
    ///
    /// A lease needs an `unbroken` run of looks: the first one after a standstill may find a member that is about to be missed.
    fn take(
        &mut self,
        brokers: &str,
        own: &BTreeMap<String, String>,
        (begun, unbroken): (Instant, bool),
        found: Description,
    ) -> Duration {
        self.looks = self.looks.saturating_add(1);
        let (is_settled, members) = match found {
            Ok(found) => found,
            Err(error) => {
                // It answers, and may let this process look again.
                let is_answered = matches!(error, Error::Forbidden(_));
                let since = match self.fault.take() {
                    Some((since, former)) if is_answered == matches!(former, Error::Forbidden(_)) => since,
                    _ => {
                        warn!(cause = words(&error), brokers, "the group's coordinator does not tell who is in it");
                        begun
                    }
                };
                self.fault = Some((since, error));
                return if is_answered { Duration::ZERO } else { since.elapsed() };
            }
        };
        self.fault = None;
        let is_there = |id: &String| members.iter().any(|member| member.member_id == *id);
        let there: Vec<&String> = own.iter().filter(|(_, id)| is_there(id)).map(|(lane, _)| lane).collect();
        self.leases.retain(|lane, _| there.contains(&lane));
        if unbroken {
            self.leases.extend(there.into_iter().map(|lane| (lane.clone(), begun)));
        }
        if is_settled {
            let of = |member: &Described| {
                let owner = (member.member_id.clone(), member.instance_id.clone());
                member.partitions.iter().map(|partition| (*partition, owner.clone())).collect::<Vec<_>>()
            };
            self.members = members.iter().flat_map(of).collect();
        } else {
            // Who keeps what is being decided; who has gone has nothing.
            self.members.retain(|_, (id, _)| is_there(id));
        }
        Duration::ZERO
    }

    /// The lane that has to leave and come back because a partition has been nobody's for too long: the one with the least to lose, for
    /// whichever process looks.
    fn returning(&mut self, partitions: u32, is_settled: bool, members: &[Described], now: Instant) -> Option<String> {
        let owned: BTreeSet<u32> = members.iter().flat_map(|member| &member.partitions).copied().collect();
        if !is_settled || members.is_empty() || (0..partitions).all(|id| owned.contains(&id)) {
            self.orphaned_at = None;
            return None;
        }
        let since = *self.orphaned_at.get_or_insert(now);
        if now.saturating_duration_since(since) < ORPHANED_MAX {
            return None;
        }
        self.orphaned_at = now.checked_add(REJOIN_PAUSE);
        members.iter().min_by_key(|member| (member.partitions.len(), &member.member_id)).map(|member| member.instance_id.clone())
    }

    fn owner(&self, partition: u32) -> Option<Owner> {
        let (member, lane) = self.members.get(&partition)?;
        // What an earlier owner has said does not count.
        let said = self.addresses.get(&partition).filter(|(said_by, _)| said_by == member);
        Some(Owner { lane: lane.clone(), address: said.map(|(_, address)| address.clone()) })
    }

    /// The partitions whose owners have not said yet where they are asked, and what this process has to say for its own.
    fn unaddressed(&self, own: &BTreeMap<String, String>) -> BTreeMap<u32, Option<String>> {
        let is_known = |id: &u32, member: &String| self.addresses.get(id).is_some_and(|(said_by, _)| said_by == member);
        let unknown = self.members.iter().filter(|(id, (member, _))| !is_known(id, member));
        let ours = |member: &String| own.values().any(|own| own == member).then(|| member.clone());
        unknown.map(|(id, (member, _))| (*id, ours(member))).collect()
    }
}

/// What a look asks, by a client that is asked for as long as it answers.
///
/// The client library keeps a question for the coordinator that it knows, and where that is gone it asks who the new one is only when the
/// connection to some broker comes or goes (librdkafka 2.12, `rd_kafka_coord_req_fsm`): with one broker out of several lost, a question
/// may stay for many minutes. A new client knows nothing, and finds the new coordinator. The former one is kept until it has answered,
/// because a question cannot be taken back, and has a client of its own, because it ends with that at the latest.
struct Questions {
    settings: Settings,
    question: Question<Quiet>,
    former: Vec<Question<Quiet>>,
}

impl Questions {
    fn new(settings: &Settings) -> Result<Questions, KafkaError> {
        let question = asker(settings).and_then(|asker| question(settings, asker))?;
        Ok(Questions { settings: settings.clone(), question, former: Vec::new() })
    }

    /// One answer, and when it was asked for.
    fn answer(&mut self) -> (Instant, Description) {
        let mut late = None;
        let is_over = |former: &mut Question<Quiet>| {
            former.serve();
            late = former.ask(Duration::ZERO).or(late.take());
            // One that the library would give up is closed before: a client that is closed takes its questions with it.
            former.unanswered_for() == Duration::ZERO || OUTAGE_MAX < former.unanswered_for()
        };
        for over in self.former.extract_if(.., is_over) {
            // A client takes a while to close; where there is no thread for that, it closes here.
            let _ = std::thread::Builder::new().spawn(move || drop(over));
        }
        self.question.serve();
        if let Some(answer) = self.question.ask(LOOK_TIMEOUT) {
            return answer;
        }
        if ANSWER_TIMEOUT <= self.question.unanswered_for() && self.former.len() < FORMER_MAX {
            let anew = asker(&self.settings).and_then(|asker| question(&self.settings, asker));
            match anew {
                Ok(anew) => self.former.push(std::mem::replace(&mut self.question, anew)),
                Err(cause) => warn!(%cause, "cannot ask for the group anew"),
            }
        }
        // What was asked long ago tells who has what, and proves no lease.
        late.unwrap_or_else(|| (Instant::now(), Err(unanswered())))
    }
}

fn asker(settings: &Settings) -> Result<Asker, KafkaError> {
    Ok(Arc::new(settings.reader(super::LOOK_WAIT).create_with_context(Quiet)?))
}

/// Why there is no answer, without that there is none.
fn words(error: &Error) -> String {
    match error {
        Error::Unavailable(cause) => cause.clone(),
        other => other.to_string(),
    }
}

fn question(settings: &Settings, asker: Asker) -> Result<Question<Quiet>, KafkaError> {
    Question::new(asker, &settings.prefix, &Topic::Commands.name(&settings.prefix))
}

/// Finds the processes of an application for who is none of them.
pub struct Lookup {
    question: Question<Quiet>,
    settings: Settings,
}

impl Lookup {
    /// Connects to the cluster.
    ///
    /// # Errors
    /// The client library refuses its configuration.
    pub fn new(settings: &Settings) -> Result<Lookup, Error> {
        let question = asker(settings).and_then(|asker| question(settings, asker)).map_err(unavailable)?;
        Ok(Lookup { question, settings: settings.clone() })
    }

    /// The addresses of all processes in the group that have a partition, and whether there may be others.
    ///
    /// # Errors
    /// The brokers do not answer, or not this principal.
    pub fn addresses(&mut self) -> Result<(Vec<String>, bool), Error> {
        let (_, found) = self.question.ask(LOOK_TIMEOUT).ok_or_else(unanswered)?;
        let (is_settled, members) = found?;
        let count = members.iter().flat_map(|member| &member.partitions).max().map_or(0, |last| last.saturating_add(1));
        let addresses = Addresses::new(&self.settings, count).map_err(unavailable)?;
        let right = || format!("Read on group {}", addresses_group(&self.settings.prefix));
        let said = addresses.read(LOOK_TIMEOUT).map_err(|error| explained(error, right))?;
        let is_there = |(member, _): &&(String, String)| members.iter().any(|found| found.member_id == *member);
        let mut found: Vec<String> = said.values().filter(is_there).map(|(_, address)| address.clone()).collect();
        found.sort_unstable();
        found.dedup();
        let are_there_others = !members.is_empty() && (found.is_empty() || !is_settled);
        Ok((found, are_there_others))
    }
}

fn unanswered() -> Error {
    Error::Unavailable("no answer in time".to_owned())
}

fn lock(view: &Mutex<View>) -> MutexGuard<'_, View> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
