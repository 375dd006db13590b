//! The housekeeper: what a node does beside its epochs - snapshots, retention of the log, and the sweep of old records.
//! Owns the jobs and when they are due. Receives `Tick`, `Done` when a step has ended, and `Rest`. Tells the lanes what it found.
//! One step runs at a time, on a blocking thread. On failure the root starts another, whose jobs begin their intervals anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use finflow_state::store;
use finflow_topologies::Rules;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use self::retention::Retention;
use self::snapshots::Schedule;
use self::sweep::Sweep;
use crate::clock::Guard;
use crate::committed::Committed;
use crate::lane;
use crate::log::NodeLog;
use crate::metrics;
use crate::settings::Housekeeping;
use crate::snapshots::Carrier;

mod retention;
mod snapshots;
mod sweep;

/// How often the housekeeper looks what is due. Also the least time between two steps of the sweep.
const TICK: Duration = Duration::from_millis(100);

pub(crate) struct Housekeeper;

/// Takes a message to the lane of a partition.
pub(crate) type Tell = Arc<dyn Fn(u32, lane::Message) + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Args {
    pub(crate) settings: Housekeeping,
    pub(crate) rules: Arc<Rules>,
    pub(crate) log: NodeLog,
    pub(crate) partitions: BTreeMap<u32, Arc<Committed>>,
    pub(crate) carrier: Arc<Carrier>,
    pub(crate) clock: Arc<Guard>,
}

pub(crate) enum Message {
    /// Something may be due.
    Tick,
    /// A step has ended; `None` = it panicked.
    Done(Option<Box<Jobs>>),
    /// No more steps; answered when the last one has ended.
    Rest(RpcReplyPort<()>),
}

/// The jobs, each of which does a bounded step at a time.
pub(crate) struct Jobs {
    args: Args,
    tell: Tell,
    snapshots: Schedule,
    retention: Retention,
    sweep: Sweep,
}

pub(crate) struct State {
    /// `None` while a step runs.
    jobs: Option<Box<Jobs>>,
    resting: Option<RpcReplyPort<()>>,
}

impl Actor for Housekeeper {
    type Msg = Message;
    type State = State;
    type Arguments = (Args, Tell);

    async fn pre_start(&self, myself: ActorRef<Message>, (args, tell): (Args, Tell)) -> Result<State, ActorProcessingErr> {
        myself.send_interval(TICK, || Message::Tick);
        Ok(State { jobs: Some(Box::new(Jobs::new(args, tell))), resting: None })
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Tick if state.resting.is_none() => {
                if let Some(jobs) = state.jobs.take() {
                    begin_step(jobs, myself.clone());
                }
            }
            Message::Tick => {}
            Message::Done(None) => return Err("a step panicked".into()),
            Message::Done(jobs) => state.jobs = jobs,
            Message::Rest(answer) => state.resting = Some(answer),
        }
        if state.jobs.is_some()
            && let Some(answer) = state.resting.take()
        {
            // Nothing is due any more, and no store is held.
            myself.stop(None);
            let _ = answer.send(());
        }
        Ok(())
    }
}

fn begin_step(mut jobs: Box<Jobs>, myself: ActorRef<Message>) {
    tokio::spawn(async move {
        let stepped = tokio::task::spawn_blocking(move || {
            jobs.step();
            jobs
        });
        // A housekeeper that is gone has no more steps to do.
        let _ = myself.cast(Message::Done(stepped.await.ok()));
    });
}

impl Jobs {
    fn new(args: Args, tell: Tell) -> Jobs {
        let now_ms = args.clock.clock().read().monotonic_ms;
        let snapshots = Schedule::new(&args, now_ms);
        Jobs { snapshots, retention: Retention::new(now_ms), sweep: Sweep::new(now_ms), args, tell }
    }

    /// Does what is due, a little of each.
    fn step(&mut self) {
        ::metrics::gauge!(metrics::CLOCK_DRIFT_SECONDS).set(self.args.clock.drift_ms() as f64 / 1_000.0);
        let now = self.args.clock.clock().read();
        if let Some((id, error)) = self.snapshots.step(&self.args, now.monotonic_ms) {
            self.corrupt(id, &error);
        }
        // On a cluster, retention is the topics' own.
        if !self.args.log.is_shared() {
            self.retention.step(&self.args, now);
        }
        // A wall clock that has jumped would forget records too early.
        if self.args.clock.strayed().is_some() {
            return;
        }
        match self.sweep.step(&self.args, now) {
            Some((id, Ok(payments))) if !payments.is_empty() => (self.tell)(id, lane::Message::Sweep(id, payments)),
            Some((id, Err(error))) => self.corrupt(id, &error),
            _ => {}
        }
    }

    /// Halts a partition whose store turned out to be corrupt.
    fn corrupt(&self, id: u32, error: &store::Error) {
        if let store::Error::Corrupt(cause) = error {
            (self.tell)(id, lane::Message::Corrupt(id, cause.clone()));
        }
    }
}
