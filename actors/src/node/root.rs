//! The root of the supervision tree: starts the lanes and those that work beside them, and starts one again that has died.
//! Owns them. Receives messages to pass on, and their deaths. When one keeps dying it stops trying, and says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use finflow_topologies::log;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tracing::{error, warn};

use super::of_log;
use super::stopping::{DRAIN_MAX, REST_MAX};
use crate::housekeeper::{self, Housekeeper, Schedule, Seen};
use crate::lane::{self, LaneActor};
use crate::metrics;
use crate::standby::{self, Standby};
use crate::stepper::{self, Job, Stepper, Tell};
use crate::supervisor::{Kind, Restarts, policy};
use crate::timers::{self, Timers};
use crate::trimmer::{self, Trimmer};

/// How long to wait before a lane is started again.
const RESTART_DELAY: Duration = Duration::from_millis(100);
/// The same where a right is missing, which somebody has to grant: so seldom that the lane is not given up for it.
const FORBIDDEN_DELAY: Duration = Duration::from_secs(15);
const _: () = {
    let (times, within) = policy(Kind::Lane);
    assert!(within.as_secs() < FORBIDDEN_DELAY.as_secs() * times as u64);
};

pub(super) struct Root;

#[derive(Clone)]
pub(super) struct Args {
    pub(super) lanes: BTreeMap<u32, lane::Args>,
    pub(super) housekeeper: housekeeper::Args,
    pub(super) timers: timers::Args,
    /// None where nothing is followed.
    pub(super) standby: Option<standby::Args>,
    /// None where the log is not trimmed below snapshots.
    pub(super) trimmer: Option<trimmer::Args>,
    /// What keeps dying and was given up, and what is not done any more therefore.
    pub(super) given_up: Seen,
}

pub(super) enum Message {
    /// For the lane of this name.
    Tell(Arc<str>, lane::Message),
    /// Lets a halted partition go on, whichever lane has it.
    Resume(u32, lane::Basis),
    /// Starts a lane that has died.
    Restart(u32),
    /// Starts one that works beside the lanes and has died.
    RestartBeside(Kind),
    /// Kills all that work beside the lanes.
    FailBeside,
    /// Lets every lane finish, and tells whether all did in time.
    Drain(RpcReplyPort<bool>),
}

pub(super) struct State {
    args: Args,
    lanes: BTreeMap<u32, (ActorRef<lane::Message>, Restarts)>,
    /// Those that work beside the lanes.
    beside: BTreeMap<Kind, (ActorRef<stepper::Message>, Restarts)>,
}

impl Actor for Root {
    type Msg = Message;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Message>, args: Args) -> Result<State, ActorProcessingErr> {
        let mut lanes = BTreeMap::new();
        for (id, args) in &args.lanes {
            let (lane, _) = LaneActor::spawn_linked(None, LaneActor, args.clone(), myself.get_cell()).await?;
            lanes.insert(*id, (lane, Restarts::default()));
        }
        let mut beside = BTreeMap::new();
        let standby = args.standby.iter().map(|_| Kind::Standby);
        let trimmer = args.trimmer.iter().map(|_| Kind::Trimmer);
        for kind in [Kind::Housekeeper, Kind::Snapshots, Kind::Timers].into_iter().chain(standby).chain(trimmer) {
            beside.insert(kind, (start_beside(kind, &myself, &args).await?, Restarts::default()));
        }
        Ok(State { args, lanes, beside })
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Tell(name, message) => {
                let id = state.args.lanes.iter().find(|(_, args)| args.name == name).map(|(id, _)| id);
                if let Some((lane, _)) = id.and_then(|id| state.lanes.get(id)) {
                    // A dead lane is started again, and its partitions with it.
                    let _ = lane.cast(message);
                }
            }
            Message::Resume(partition, basis) => {
                for (lane, _) in state.lanes.values() {
                    // One that is dead is started again, and keeps halted what is halted.
                    let _ = lane.cast(lane::Message::Resume(partition, basis));
                }
            }
            Message::Restart(id) => state.restart(&myself, id).await,
            Message::RestartBeside(kind) => state.restart_beside(&myself, kind).await,
            Message::FailBeside => {
                for (beside, _) in state.beside.values() {
                    // One that is dead is started again, or was given up.
                    let _ = beside.cast(stepper::Message::Fail);
                }
            }
            Message::Drain(answer) => {
                let (drain_ms, rest_ms) = (DRAIN_MAX.as_millis() as u64, REST_MAX.as_millis() as u64);
                let rest = |beside: ActorRef<stepper::Message>| async move {
                    ractor::call_t!(beside, stepper::Message::Rest, rest_ms).is_ok()
                };
                let beside: Vec<_> = state.beside.values().map(|(beside, _)| tokio::spawn(rest(beside.clone()))).collect();
                let drain =
                    |lane: ActorRef<lane::Message>| async move { ractor::call_t!(lane, lane::Message::Drain, drain_ms).is_ok() };
                // All at once: each has the whole time.
                let lanes: Vec<_> = state.lanes.values().map(|(lane, _)| tokio::spawn(drain(lane.clone()))).collect();
                // One that a disk holds, or that has been given up, has nothing that would have to be finished.
                for beside in beside {
                    let _ = beside.await;
                }
                let mut are_drained = true;
                for lane in lanes {
                    are_drained &= lane.await.unwrap_or(false);
                }
                // A node that waits no longer stops its actors itself.
                let _ = answer.send(are_drained);
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
        if let SupervisionEvent::ActorFailed(cell, cause) = event {
            let beside = state.beside.iter().find(|(_, (beside, _))| beside.get_id() == cell.get_id()).map(|(kind, _)| *kind);
            let died = state.lanes.iter().find(|(_, (lane, _))| lane.get_id() == cell.get_id()).map(|(id, _)| *id);
            if let Some(id) = died {
                warn!(lane = id, %cause, "the lane died");
                state.note_dead(id, cause.to_string());
                state.suspend(id);
                myself.send_after(RESTART_DELAY, move || Message::Restart(id));
            } else if let Some(kind) = beside {
                warn!(kind = kind.as_str(), %cause, "died");
                myself.send_after(RESTART_DELAY, move || Message::RestartBeside(kind));
            }
        }
        Ok(())
    }
}

async fn start_beside(
    kind: Kind,
    myself: &ActorRef<Message>,
    args: &Args,
) -> Result<ActorRef<stepper::Message>, ractor::SpawnErr> {
    let (root, partitions) = (myself.clone(), args.housekeeper.partitions.clone());
    let tell: Tell = Arc::new(move |partition, message| {
        let lane = partitions.get(&partition).and_then(|committed| committed.condition().lane);
        // A root that is gone has no lanes.
        let _ = lane.map(|lane| root.cast(Message::Tell(lane, message)));
    });
    let job: (Box<dyn Job>, Duration) = match (kind, &args.standby, &args.trimmer) {
        (Kind::Standby, Some(args), _) => (Box::new(Standby::new(args.clone())), standby::TICK),
        (Kind::Trimmer, _, Some(args)) => (Box::new(Trimmer::new(args.clone())), trimmer::TICK),
        (Kind::Timers, ..) => (Box::new(Timers::new(args.timers.clone(), tell)), timers::TICK),
        (Kind::Snapshots, ..) => (Box::new(Schedule::new(args.housekeeper.clone(), tell)), housekeeper::TICK),
        (Kind::Housekeeper | Kind::Standby | Kind::Trimmer | Kind::Lane | Kind::Partition | Kind::Hung, ..) => {
            (Box::new(Housekeeper::new(args.housekeeper.clone(), tell)), housekeeper::TICK)
        }
    };
    Ok(Stepper::spawn_linked(None, Stepper, job, myself.get_cell()).await?.0)
}

impl State {
    async fn restart_beside(&mut self, myself: &ActorRef<Message>, kind: Kind) {
        let Some((beside, restarts)) = self.beside.get_mut(&kind) else { return };
        if !restarts.may_restart(kind, Instant::now()) {
            let left = match kind {
                Kind::Timers => "nothing that is due is done",
                Kind::Standby => "nothing that others run is followed",
                Kind::Trimmer => "the journal is not trimmed",
                Kind::Snapshots => "no snapshots",
                _ => "no retention, no sweep, no lookout",
            };
            error!(kind = kind.as_str(), left, "it keeps dying and is given up");
            ::metrics::gauge!(metrics::GIVEN_UP, "kind" => kind.as_str()).set(1.0);
            self.args.given_up.note(kind.as_str(), Some(format!("keeps dying and is given up: {left}; restart the service")));
            return;
        }
        ::metrics::counter!(metrics::RESTARTS, "kind" => kind.as_str()).increment(1);
        match start_beside(kind, myself, &self.args).await {
            Ok(fresh) => *beside = fresh,
            Err(cause) => {
                warn!(kind = kind.as_str(), %cause, "it does not start");
                myself.send_after(RESTART_DELAY, move || Message::RestartBeside(kind));
            }
        }
    }

    /// Says that there is no lane until another one runs.
    fn note_dead(&self, id: u32, cause: String) {
        if let Some(args) = self.args.lanes.get(&id) {
            args.troubles.dead(Instant::now(), cause);
        }
    }

    /// Whatever a dead lane ran may be another process's by now, and is not told any more.
    fn suspend(&self, id: u32) {
        let Some(args) = self.args.lanes.get(&id).filter(|args| args.log.is_shared()) else { return };
        args.partitions.values().for_each(|committed| committed.suspend(&args.name));
    }

    async fn restart(&mut self, myself: &ActorRef<Message>, id: u32) {
        let (Some(args), Some((lane, restarts))) = (self.args.lanes.get_mut(&id), self.lanes.get_mut(&id)) else { return };
        if !restarts.may_restart(Kind::Lane, Instant::now()) {
            error!(lane = id, "the lane keeps dying and is given up");
            if args.log.is_shared() {
                // Others can have its partitions, which only they and the group know.
                args.log.ends().send_replace(Some(format!("lane {id} keeps dying")));
                return;
            }
            ::metrics::gauge!(metrics::GIVEN_UP, "kind" => Kind::Lane.as_str()).set(1.0);
            args.troubles.alive();
            args.partitions.values().for_each(|committed| committed.give_up("its lane keeps dying; restart the service"));
            return;
        }
        ::metrics::counter!(metrics::RESTARTS, "kind" => "lane").increment(1);
        args.incarnation = args.incarnation.wrapping_add(1);
        match LaneActor::spawn_linked(None, LaneActor, args.clone(), myself.get_cell()).await {
            Ok((fresh, _)) => {
                *lane = fresh;
                args.troubles.alive();
            }
            Err(cause) => {
                warn!(lane = id, %cause, "the lane does not start");
                args.troubles.dead(Instant::now(), format!("it does not start: {cause}"));
                let is_forbidden = matches!(of_log(&cause), Some(log::Error::Forbidden(_)));
                let delay = if is_forbidden { FORBIDDEN_DELAY } else { RESTART_DELAY };
                myself.send_after(delay, move || Message::Restart(id));
            }
        }
    }
}
