//! A lane actor: drives the epochs of its partitions.
//! Owns the lane logic and the log session. Receives `Turn` when there may be something to do, and the outcome of its commits.
//! Sends work to its partition actors. A partition actor that dies is started anew and the open epoch is decided again; if the
//! lane dies itself, its node starts a new one, which restores everything from log and stores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use finflow_ledger::PaymentId;
use finflow_state::{Store, store};
use finflow_topologies::lane::{Lane, Status};
use finflow_topologies::log::{self, Commit, Resolution, Session};
use finflow_topologies::{Halt, Rules};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::{Semaphore, watch};
use tracing::{error, warn};

use self::assignment::Adopted;
use self::counts::Counts;
use self::pace::Pace;
use self::rest::Rest;
pub(crate) use self::troubles::Troubles;
use crate::clock::Guard;
use crate::committed::{Committed, Condition};
use crate::log::{Assignment, NodeLog};
use crate::metrics;
use crate::partition::{self, PartitionActor};
use crate::supervisor::{Kind, Restarts};
use crate::waiters::Waiters;

mod apply;
mod assignment;
mod beside;
mod carry;
mod commit;
mod counts;
mod lost;
mod pace;
mod rest;
mod standstill;
mod troubles;
mod turn;

/// How long after the last epoch even a single one is written.
const APPLY_AFTER: Duration = Duration::from_millis(50);
/// Partitions that a lane restores at the same time.
const RESTORES_MAX: usize = 8;
/// How long the lane waits before it asks again how a doubtful commit ended, or commits after a refusal.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// How often the time between two attempts at what goes on failing is doubled, so that they end up some seconds apart.
const DOUBLINGS_MAX: u32 = 5;

/// How long to wait after so many failures in a row before it is tried again.
fn pause_after(failures: u32) -> Duration {
    RETRY_DELAY * 2_u32.pow(failures.min(DOUBLINGS_MAX))
}

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
    /// What keeps the lane from its work, for whoever asks whether all is well.
    pub(crate) troubles: Arc<Troubles>,
}

pub(crate) enum Message {
    /// Something may have to be done.
    Turn,
    /// The partitions that the lane may claim may have changed.
    Assigned,
    /// A partition was claimed and restored, or could not be.
    Adopted(u32, Box<Adopted>),
    /// A partition was given back.
    Released(u32),
    /// The log has answered the commit in flight, after so long.
    CommitEnded(Commit, Duration),
    /// The store of a partition has taken so many epochs, or failed.
    Applied(u32, usize, Result<(), store::Error>),
    /// A doubt was settled, or could not be.
    Resolved(Result<Resolution, log::Error>),
    /// Lets a halted partition go on.
    Resume(u32, Basis),
    /// Proposes records that may be forgotten.
    Sweep(u32, Vec<PaymentId>),
    /// Proposes timers that seem to be due.
    Timers(u32, Vec<(i64, PaymentId)>),
    /// A reader found the store of a partition corrupt.
    Corrupt(u32, String),
    /// Kills a partition actor, as chaos does.
    Kill(u32),
    /// Lets a partition actor stand still, as chaos does.
    Hang(u32, partition::Hang),
    /// The lane dies over it, as chaos does, and so does the answer.
    Fail(ractor::concurrency::OneshotSender<()>),
    /// Finishes what is in flight, writes the stores, answers and takes no more turns.
    Drain(RpcReplyPort<()>),
}

/// Where a halted partition goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Basis {
    /// At its committed position.
    Position,
    /// Where it has none, at the last block of its journal.
    Journal,
    /// At the first command that the log still holds, which is this offset.
    PastExpired(u64),
}

type Alarm = tokio::task::JoinHandle<Result<(), ractor::MessagingErr<Message>>>;

pub(crate) struct State {
    args: Args,
    lane: Lane,
    session: Arc<Mutex<Box<dyn Session>>>,
    assignment: watch::Receiver<Assignment>,
    /// The partitions that are claimed, also those that could not be restored.
    claimed: BTreeSet<u32>,
    /// How often each had been lost when it was begun to be claimed.
    lost_before: BTreeMap<u32, u64>,
    /// How often in a row a partition could not be adopted.
    refused: u32,
    /// Those that are being claimed and restored, and whether they are still wanted.
    adopting: BTreeMap<u32, bool>,
    /// Those whose position may be taken from their journal, if they have none.
    from_journal: BTreeSet<u32>,
    /// Those that are being given back.
    releasing: BTreeSet<u32>,
    /// So many are restored at a time.
    restores: Arc<Semaphore>,
    actors: BTreeMap<u32, (ActorRef<partition::Message>, Restarts)>,
    /// Those whose stores could not be read, until they could again.
    resting: BTreeMap<u32, Rest>,
    /// Those that have not answered in this turn.
    hung: Vec<u32>,
    /// How often those have been replaced that did not answer.
    hangs: BTreeMap<u32, Restarts>,
    /// The assignment is looked at again soon.
    is_recalling: bool,
    /// A `Turn` is in the mailbox already.
    is_scheduled: Arc<AtomicBool>,
    /// What time is counted from that no wrong clock may stretch.
    begun: Instant,
    /// When the open epoch took its first input.
    opened_at: Option<Instant>,
    /// When the last epoch was closed.
    closed_at: Instant,
    pace: Pace,
    /// When positions were carried on last.
    carried_at: Option<Instant>,
    counts: Counts,
    /// A `Turn` at the time when something is due.
    alarm: Option<Alarm>,
    /// The partitions whose stores are being written.
    applying: BTreeSet<u32>,
    draining: Option<RpcReplyPort<()>>,
    /// It has drained: what comes now is the next start's.
    is_over: bool,
    /// Since when the clock has been wrong, which has been said.
    stands_still_since: Option<Instant>,
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
            lost_before: BTreeMap::new(),
            refused: 0,
            adopting: BTreeMap::new(),
            from_journal: BTreeSet::new(),
            releasing: BTreeSet::new(),
            restores: Arc::new(Semaphore::new(RESTORES_MAX)),
            actors: BTreeMap::new(),
            resting: BTreeMap::new(),
            hung: Vec::new(),
            hangs: BTreeMap::new(),
            is_recalling: false,
            is_scheduled: Arc::new(AtomicBool::new(false)),
            begun: Instant::now(),
            opened_at: None,
            closed_at: Instant::now(),
            pace: Pace::new(args.epoch_interval),
            carried_at: None,
            counts: Counts::new(),
            alarm: None,
            applying: BTreeSet::new(),
            draining: None,
            is_over: false,
            stands_still_since: None,
            args,
        };
        if state.args.log.is_shared() {
            state.forget_former();
            state.follow_assignment(&myself)?;
        } else {
            // Nothing is taken away: who started the node finds all of it running.
            state.adopt_all(&myself).await?;
        }
        assignment::watch_assignment(state.assignment.clone(), &myself);
        watch_log(&state.args.log, &myself, &state.is_scheduled);
        myself.cast(Message::Turn)?;
        Ok(state)
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        // One that fails is the root's to tell of.
        state.args.troubles.busy(Instant::now());
        match message {
            Message::Turn => state.turn(&myself).await?,
            Message::Assigned => state.follow_assignment(&myself)?,
            Message::Adopted(partition, adopted) => state.adopted(&myself, partition, *adopted).await?,
            Message::Released(partition) => state.released(&myself, partition)?,
            Message::CommitEnded(commit, took) => state.commit_ended(&myself, &commit, took)?,
            Message::Applied(partition, epochs, result) => state.applied(&myself, partition, epochs, result)?,
            Message::Resolved(Ok(resolution)) => state.take_resolution(&myself, resolution)?,
            Message::Resolved(Err(cause @ log::Error::Fenced)) => return Err(cause.into()),
            Message::Resolved(Err(cause)) => {
                warn!(%cause, "the doubt is not settled yet");
                state.args.troubles.not_committed(Instant::now(), format!("a doubt is not settled: {cause}"));
                state.resolve_later(&myself);
            }
            Message::Resume(partition, basis) if state.is_unrestored(partition) => state.adopt_again(&myself, partition, basis),
            // One that was restored has a position.
            Message::Resume(_, Basis::Journal) => {}
            Message::Resume(partition, basis) => {
                if let Basis::PastExpired(start) = basis {
                    state.accept_loss(partition, start);
                }
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
            Message::Timers(partition, due) => {
                state.lane.offer_timers(partition, due);
                myself.cast(Message::Turn)?;
            }
            Message::Kill(partition) => {
                if let Some((actor, _)) = state.actors.get(&partition) {
                    actor.kill();
                }
            }
            Message::Hang(partition, hang) => {
                if let Some((actor, _)) = state.actors.get(&partition) {
                    // A dead actor does nothing anyway.
                    let _ = actor.cast(partition::Message::Hang(hang));
                }
            }
            Message::Fail(answer) => {
                drop(answer);
                return Err("killed on request".into());
            }
            Message::Drain(answer) => {
                state.draining = Some(answer);
                state.adopting.values_mut().for_each(|is_wanted| *is_wanted = false);
                myself.cast(Message::Turn)?;
            }
        }
        state.args.troubles.idle();
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
        let store: Arc<dyn Store> = committed.store().ok_or("a partition that was not restored")?;
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

    /// Puts another actor in the place of one that does not answer, and halts the partition if that one does not either. The thread
    /// that the first one keeps is lost until it goes on; what it decides then nobody takes.
    async fn replace(&mut self, myself: &ActorRef<Message>, id: u32) -> Result<(), ActorProcessingErr> {
        error!(partition = id, "the partition actor does not answer");
        ::metrics::counter!(metrics::RESTARTS, "kind" => Kind::Hung.as_str()).increment(1);
        let actor = self.start(myself, id).await?;
        if let Some((held, _)) = self.actors.get_mut(&id) {
            std::mem::replace(held, actor).stop(None);
        }
        if !self.hangs.entry(id).or_default().may_restart(Kind::Hung, Instant::now()) {
            self.halt(id, Halt::Hung);
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
        let name = Some(self.args.name.clone());
        // What the lane should have let go of is not answered for, however long it takes.
        let (lane, restored_by) = if self.keeps(id) { (name, None) } else { (None, name) };
        let shown = Condition { lane, restored_by, commands_next, postings_next, ..Condition::at(head) };
        let condition = Condition { halted, is_quiet: !is_busy, ..shown };
        committed.show(&self.args.name, self.lane.committed_layers(id), condition);
    }
}
