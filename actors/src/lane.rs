//! A lane actor: drives the epochs of its partitions.
//! Owns the lane logic and the log session. Receives `Turn` when there may be something to do, and the outcome of its commits.
//! Sends work to its partition actors. A partition actor that dies is started anew and the open epoch is decided again; if the
//! lane dies itself, its node starts a new one, which restores everything from log and stores.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use finflow_ledger::PaymentId;
use finflow_state::{Store, store};
use finflow_topologies::lane::{Answer, Failure, Lane, Next, Status};
use finflow_topologies::log::{self, Commit, Resolution, Session};
use finflow_topologies::{Halt, Rules, Topic, Work};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::watch;
use tracing::warn;

use crate::clock::Guard;
use crate::committed::{Committed, Condition};
use crate::log::{Assignment, NodeLog};
use crate::metrics;
use crate::node::Waiters;
use crate::partition::{self, PartitionActor};
use crate::supervisor::{Kind, Restarts};

mod apply;
mod assignment;
mod standstill;

/// Bytes fetched from one partition of one topic at a time.
const FETCH_BYTES: usize = 512 * 1024;
/// A partition that has not answered its work by then is taken for lost.
const DECIDE_TIMEOUT: Duration = Duration::from_secs(10);
/// Intervals that an epoch may gather while input waits.
const INTERVALS_MAX: u32 = 4;
/// How often the lane looks whether commands that are withheld may go on.
const WITHHELD_DELAY: Duration = Duration::from_millis(1);
/// How long after the last epoch even a single one is written.
const APPLY_AFTER: Duration = Duration::from_millis(50);
/// How long the lane waits before it asks again how a doubtful commit ended, or commits after a refusal.
const RETRY_DELAY: Duration = Duration::from_millis(200);

pub(crate) struct LaneActor;

#[derive(Clone)]
pub(crate) struct Args {
    pub(crate) name: Arc<str>,
    pub(crate) incarnation: u64,
    pub(crate) rules: Arc<Rules>,
    /// The least time between two commits while all input is decided.
    pub(crate) epoch_interval: Duration,
    pub(crate) log: NodeLog,
    pub(crate) clock: Arc<Guard>,
    /// Those that the lane may ever run.
    pub(crate) partitions: BTreeMap<u32, Arc<Committed>>,
    pub(crate) waiters: Arc<Waiters>,
}

pub(crate) enum Message {
    /// Something may have to be done.
    Turn,
    /// The partitions that the lane may claim may have changed.
    Assigned,
    /// The commit in flight was answered.
    Answered(Commit),
    /// The store of a partition has taken so many epochs, or failed.
    Applied(u32, usize, Result<(), store::Error>),
    /// A doubt was settled, or could not be.
    Resolved(Result<Resolution, log::Error>),
    /// Lets a halted partition go on.
    Resume(u32),
    /// Proposes records that may be forgotten.
    Sweep(u32, Vec<PaymentId>),
    /// A reader found the store of a partition corrupt.
    Corrupt(u32, String),
    /// Kills a partition actor, as chaos does.
    Kill(u32),
    /// Finishes what is in flight, writes the stores, answers and takes no more turns.
    Drain(RpcReplyPort<()>),
}

type Alarm = tokio::task::JoinHandle<Result<(), ractor::MessagingErr<Message>>>;

pub(crate) struct State {
    args: Args,
    lane: Lane,
    session: Arc<Mutex<Box<dyn Session>>>,
    assignment: watch::Receiver<Assignment>,
    /// The partitions that are claimed, also those that could not be restored.
    claimed: BTreeSet<u32>,
    actors: BTreeMap<u32, (ActorRef<partition::Message>, Restarts)>,
    /// A `Turn` is in the mailbox already.
    is_scheduled: Arc<AtomicBool>,
    /// When the open epoch took its first input.
    opened_at: Option<Instant>,
    /// When the last epoch was closed.
    closed_at: Instant,
    /// A `Turn` at the time when something is due.
    alarm: Option<Alarm>,
    /// The partitions whose stores are being written.
    applying: BTreeSet<u32>,
    draining: Option<RpcReplyPort<()>>,
    /// It has drained: what comes now is the next start's.
    is_over: bool,
    /// The clock is wrong, and that has been said.
    stands_still: bool,
}

impl Actor for LaneActor {
    type Msg = Message;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Message>, args: Args) -> Result<State, ActorProcessingErr> {
        let (log, name, share) = (args.log.clone(), args.name.clone(), args.partitions.keys().copied().collect());
        let (session, assignment) = tokio::task::spawn_blocking(move || log.lane(&name, share)).await??;
        let mut state = State {
            lane: Lane::new(args.name.clone(), args.incarnation),
            session: Arc::new(Mutex::new(session)),
            assignment,
            claimed: BTreeSet::new(),
            actors: BTreeMap::new(),
            is_scheduled: Arc::new(AtomicBool::new(false)),
            opened_at: None,
            closed_at: Instant::now(),
            alarm: None,
            applying: BTreeSet::new(),
            draining: None,
            is_over: false,
            stands_still: false,
            args,
        };
        state.follow_assignment(&myself).await?;
        assignment::watch_assignment(state.assignment.clone(), &myself);
        watch_log(&state.args.log, &myself, &state.is_scheduled);
        myself.cast(Message::Turn)?;
        Ok(state)
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Turn => state.turn(&myself).await?,
            Message::Assigned => state.follow_assignment(&myself).await?,
            Message::Answered(commit) => state.answered(&myself, &commit)?,
            Message::Applied(partition, epochs, result) => state.applied(&myself, partition, epochs, result)?,
            Message::Resolved(Ok(resolution)) => state.settle(&myself, resolution)?,
            Message::Resolved(Err(cause @ log::Error::Fenced)) => return Err(cause.into()),
            Message::Resolved(Err(cause)) => {
                warn!(%cause, "the doubt is not settled yet");
                state.resolve_later(&myself);
            }
            Message::Resume(partition) => {
                state.lane.resume(partition);
                state.show(partition);
                myself.cast(Message::Turn)?;
            }
            Message::Corrupt(partition, cause) => {
                state.halt(partition, Halt::Corrupt(cause));
                // What the others had decided in the open epoch was dropped with it.
                myself.cast(Message::Turn)?;
            }
            Message::Sweep(partition, payments) => {
                state.lane.offer_sweep(partition, payments);
                myself.cast(Message::Turn)?;
            }
            Message::Kill(partition) => {
                if let Some((actor, _)) = state.actors.get(&partition) {
                    actor.kill();
                }
            }
            Message::Drain(answer) => {
                state.draining = Some(answer);
                myself.cast(Message::Turn)?;
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Message>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, _) | SupervisionEvent::ActorTerminated(cell, _, _) = event {
            let died = state.actors.iter().find(|(_, (actor, _))| actor.get_id() == cell.get_id()).map(|(id, _)| *id);
            if let Some(id) = died {
                state.restart(&myself, id).await?;
            }
        }
        Ok(())
    }
}

/// Wakes the lane when the log has grown.
fn watch_log(log: &NodeLog, myself: &ActorRef<Message>, is_scheduled: &Arc<AtomicBool>) {
    let (mut changed, myself, is_scheduled) = (log.changed(), myself.clone(), is_scheduled.clone());
    tokio::spawn(async move {
        while changed.changed().await.is_ok() {
            if !is_scheduled.swap(true, Ordering::AcqRel) && myself.cast(Message::Turn).is_err() {
                break;
            }
        }
    });
}

impl State {
    async fn start(&self, myself: &ActorRef<Message>, id: u32) -> Result<ActorRef<partition::Message>, ActorProcessingErr> {
        let committed = self.args.partitions.get(&id).ok_or("a partition of another lane")?;
        let store: Arc<dyn Store> = committed.store.clone().ok_or("a partition that was not restored")?;
        let args = partition::Args { id, rules: self.args.rules.clone(), store };
        let (actor, _) = PartitionActor::spawn_linked(None, PartitionActor, args, myself.get_cell()).await?;
        Ok(actor)
    }

    async fn restart(&mut self, myself: &ActorRef<Message>, id: u32) -> Result<(), ActorProcessingErr> {
        warn!(partition = id, "the partition actor died, starting another");
        ::metrics::counter!(metrics::RESTARTS, "kind" => "partition").increment(1);
        self.lane.drop_open();
        let actor = self.start(myself, id).await?;
        if let Some((held, restarts)) = self.actors.get_mut(&id) {
            *held = actor;
            if !restarts.may_restart(Kind::Partition, Instant::now()) {
                self.halt(id, Halt::Panic("its actor keeps dying".to_owned()));
            }
        }
        myself.cast(Message::Turn)?;
        Ok(())
    }

    /// Fetches, decides every round that is due, closes the epoch when it is time, and begins its commit.
    async fn turn(&mut self, myself: &ActorRef<Message>) -> Result<(), ActorProcessingErr> {
        if self.is_over {
            return Ok(());
        }
        self.is_scheduled.store(false, Ordering::Release);
        if let Some(strayed) = self.args.clock.strayed() {
            return self.stand_still(myself, strayed);
        }
        self.stands_still = false;
        if self.draining.is_none() && !self.fetch() {
            myself.send_after(RETRY_DELAY, || Message::Turn);
        }
        let is_withheld = loop {
            let next = self.decide_round().await;
            self.note_opened();
            match next {
                None => break self.lane.has_input(),
                Some(Next::Dropped) => {
                    // Whatever was dropped is fetched again, also where nothing else wakes the lane.
                    myself.send_after(RETRY_DELAY, || Message::Turn);
                    break false;
                }
                Some(Next::Quiet) if self.is_due() => break false,
                Some(Next::Quiet | Next::Round) => {}
            }
        };
        self.close(myself);
        if !self.lane.is_committing() && !self.lane.has_open() {
            self.apply(myself);
            self.finish_drain();
        }
        self.schedule(myself, is_withheld);
        Ok(())
    }

    /// Remembers since when there is an open epoch.
    fn note_opened(&mut self) {
        self.opened_at = self.lane.has_open().then(|| self.opened_at.unwrap_or_else(Instant::now));
    }

    /// Lets the partitions decide one round; `None` when none is due.
    async fn decide_round(&mut self) -> Option<Next> {
        let work = self.lane.round(self.args.clock.clock().now_ms());
        if work.is_empty() {
            return None;
        }
        let answers = self.decide(work).await;
        Some(self.lane.merge(answers))
    }

    /// Whether the open epoch should be closed now.
    ///
    /// A commit costs about the same whatever it holds, so its epoch adapts to the load: the first input after a pause is
    /// committed at once, a steady stream once an interval, and a backlog in epochs that gather several intervals long.
    fn is_due(&self) -> bool {
        let interval = self.args.epoch_interval;
        let is_quiet = !self.lane.has_input() && interval <= self.closed_at.elapsed();
        let is_late = |opened_at: Instant| is_quiet || interval * INTERVALS_MAX <= opened_at.elapsed();
        let is_asked = self.lane.is_full() || self.lane.has_suspect() || self.draining.is_some();
        is_asked || self.opened_at.is_some_and(is_late)
    }

    /// `false` if something could not be read and must be asked for again.
    fn fetch(&mut self) -> bool {
        let mut is_whole = true;
        for id in self.lane.partitions().collect::<Vec<_>>() {
            let wants = self.lane.wants(id);
            for (topic, from) in [(Topic::Commands, wants.commands), (Topic::Postings, wants.postings)] {
                let Some(from) = from else { continue };
                match self.args.log.follow(topic, id, from, FETCH_BYTES) {
                    Ok(fetched) if fetched.next == from => {}
                    Ok(fetched) => {
                        // What is not a record moves the place as well, and nothing else would show it.
                        let is_empty = fetched.records.is_empty();
                        self.lane.offer(topic, id, from, fetched);
                        if is_empty {
                            self.show(id);
                        }
                    }
                    Err(cause) => {
                        warn!(partition = id, %topic, from, %cause, "cannot read");
                        self.lane.unreadable(id, &cause);
                        is_whole = false;
                    }
                }
            }
        }
        is_whole
    }

    /// Gives each partition its work, all at once, and takes the answers.
    async fn decide(&self, work: Vec<(u32, Work)>) -> Vec<Answer> {
        let mut asked = Vec::with_capacity(work.len());
        for (id, work) in work {
            let (sender, answer) = ractor::concurrency::oneshot();
            let message = partition::Message::Decide(Box::new(work), sender.into());
            let is_sent = self.actors.get(&id).is_some_and(|(actor, _)| actor.cast(message).is_ok());
            asked.push((id, is_sent.then_some(answer)));
        }
        let mut answers = Vec::with_capacity(asked.len());
        for (id, answer) in asked {
            let answer = match answer {
                Some(answer) => tokio::time::timeout(DECIDE_TIMEOUT, answer).await,
                None => {
                    answers.push((id, Err(Failure::Lost)));
                    continue;
                }
            };
            answers.push((
                id,
                match answer {
                    Ok(Ok(Ok(open))) => Ok(open),
                    Ok(Ok(Err(halt))) => Err(Failure::Halted(halt)),
                    Ok(Err(_)) | Err(_) => Err(Failure::Lost),
                },
            ));
        }
        answers
    }

    fn close(&mut self, myself: &ActorRef<Message>) {
        if self.lane.is_committing() || !self.is_due() {
            return;
        }
        let Some(transaction) = self.lane.close(self.args.clock.clock().now_ms()) else { return };
        // A confirmation leaves the open epoch as it is.
        self.note_opened();
        self.closed_at = Instant::now();
        let (session, myself) = (self.session.clone(), myself.clone());
        tokio::task::spawn_blocking(move || {
            let commit = || session.lock().unwrap_or_else(PoisonError::into_inner).commit(transaction);
            let commit = catch_unwind(AssertUnwindSafe(commit));
            let commit = commit.unwrap_or_else(|_| Commit::InDoubt("the commit panicked".to_owned()));
            // A lane that is gone has left the outcome in the log.
            let _ = myself.cast(Message::Answered(commit));
        });
    }

    fn answered(&mut self, myself: &ActorRef<Message>, commit: &Commit) -> Result<(), ActorProcessingErr> {
        match commit {
            Commit::Committed => self.settle(myself, Resolution::Committed),
            Commit::Aborted(cause) => {
                warn!(%cause, "epoch aborted");
                self.settle(myself, Resolution::Aborted)
            }
            Commit::Fenced => Err("fenced by another lane of this name".into()),
            Commit::InDoubt(cause) => {
                warn!(%cause, "commit in doubt");
                self.resolve_later(myself);
                Ok(())
            }
        }
    }

    fn resolve_later(&self, myself: &ActorRef<Message>) {
        let (session, myself, stamp) = (self.session.clone(), myself.clone(), self.lane.stamp().clone());
        tokio::spawn(async move {
            tokio::time::sleep(RETRY_DELAY).await;
            let resolve = move || session.lock().unwrap_or_else(PoisonError::into_inner).resolve(&stamp);
            let asked = tokio::task::spawn_blocking(resolve).await;
            let asked = asked.unwrap_or_else(|error| Err(log::Error::Unavailable(error.to_string())));
            // A lane that is gone has left the outcome in the log.
            let _ = myself.cast(Message::Resolved(asked));
        });
    }

    fn settle(&mut self, myself: &ActorRef<Message>, resolution: Resolution) -> Result<(), ActorProcessingErr> {
        let settled = self.lane.settle(resolution);
        settled.halted.iter().for_each(|id| self.report_halt(*id));
        let outcome = if settled.committed { "committed" } else { "aborted" };
        ::metrics::counter!(metrics::EPOCHS, "outcome" => outcome).increment(1);
        ::metrics::counter!(metrics::INPUTS).increment(settled.inputs);
        ::metrics::histogram!(metrics::COMMIT_SECONDS).record(self.closed_at.elapsed());
        self.lane.partitions().for_each(|id| self.show(id));
        self.args.waiters.wake(&settled.outcomes);
        self.apply(myself);
        self.recall_assignment(myself)?;
        if settled.committed {
            myself.cast(Message::Turn)?;
        } else {
            myself.send_after(RETRY_DELAY, || Message::Turn);
        }
        Ok(())
    }

    fn show(&self, id: u32) {
        let (Some(committed), Some(head)) = (self.args.partitions.get(&id), self.lane.head(id)) else { return };
        let halted = match self.lane.status(id) {
            Some(Status::Halted(halt)) => Some(halt.to_string()),
            _ => None,
        };
        let is_busy = self.lane.has_input() || self.lane.has_open() || self.lane.has_suspect() || self.lane.is_committing();
        let reached = self.lane.reached(id).unwrap_or(head.positions);
        let (commands_next, postings_next) = (reached.commands, reached.postings);
        let lane = Some(self.args.name.clone());
        let condition = Condition { lane, commands_next, postings_next, halted, is_quiet: !is_busy, ..Condition::at(head) };
        committed.show(self.lane.committed_layers(id), condition);
    }

    /// Writes the stores and answers, beside the actor: a disk may hold a thread for long, and signals are still to be heard.
    fn finish_drain(&mut self) {
        let is_written = |id| !self.may_apply(id) || self.has_fault(id);
        if !self.applying.is_empty() || !self.lane.partitions().all(is_written) {
            return;
        }
        let Some(answer) = self.draining.take() else { return };
        self.is_over = true;
        let stores: Vec<_> = self.args.partitions.values().filter_map(|committed| committed.store.clone()).collect();
        tokio::task::spawn_blocking(move || {
            for store in stores {
                if let Err(cause) = store.flush() {
                    warn!(%cause, "cannot flush a store");
                }
            }
            // A node that waits no longer stops its actors itself.
            let _ = answer.send(());
        });
    }

    /// Another turn as soon as there is input to decide, when the open epoch is due, or when the stores should follow.
    fn schedule(&mut self, myself: &ActorRef<Message>, is_withheld: bool) {
        if let Some(alarm) = self.alarm.take() {
            alarm.abort();
        }
        if is_withheld {
            self.alarm = Some(myself.send_after(WITHHELD_DELAY, || Message::Turn));
            return;
        }
        if self.lane.has_input() {
            if !self.is_scheduled.swap(true, Ordering::AcqRel) {
                // A lane that cannot be told has ended.
                let _ = myself.cast(Message::Turn);
            }
            return;
        }
        let delay = match self.opened_at {
            _ if self.lane.is_committing() => return,
            Some(_) => self.args.epoch_interval,
            None if self.lane.partitions().any(|id| self.may_apply(id)) => APPLY_AFTER,
            None => return,
        };
        self.alarm = Some(myself.send_after(delay.saturating_sub(self.closed_at.elapsed()), || Message::Turn));
    }
}
