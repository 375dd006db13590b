//! The root of the supervision tree: starts the lanes and the housekeeper, and starts one again that has died.
//! Owns them. Receives messages to pass on, and their deaths. When one keeps dying it stops trying, and says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tracing::{error, warn};

use super::stopping::{DRAIN_MAX, REST_MAX};
use crate::housekeeper::{self, Housekeeper, Tell};
use crate::lane::{self, LaneActor};
use crate::metrics;
use crate::supervisor::{Kind, Restarts};

/// How long to wait before a lane is started again.
const RESTART_DELAY: Duration = Duration::from_millis(100);

pub(super) struct Root;

#[derive(Clone)]
pub(super) struct Args {
    pub(super) lanes: BTreeMap<u32, lane::Args>,
    pub(super) housekeeper: housekeeper::Args,
}

pub(super) enum Message {
    /// For the lane of this name.
    Tell(Arc<str>, lane::Message),
    /// Lets a halted partition go on, whichever lane has it.
    Resume(u32),
    /// Starts a lane that has died.
    Restart(u32),
    /// Starts the housekeeper, which has died.
    RestartHousekeeper,
    /// Lets every lane finish, and tells whether all did in time.
    Drain(RpcReplyPort<bool>),
}

pub(super) struct State {
    args: Args,
    lanes: BTreeMap<u32, (ActorRef<lane::Message>, Restarts)>,
    housekeeper: (ActorRef<housekeeper::Message>, Restarts),
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
        let housekeeper = (start_housekeeper(&myself, &args).await?, Restarts::default());
        Ok(State { args, lanes, housekeeper })
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
            Message::Resume(partition) => {
                for (lane, _) in state.lanes.values() {
                    // One that is dead is started again, and keeps halted what is halted.
                    let _ = lane.cast(lane::Message::Resume(partition));
                }
            }
            Message::Restart(id) => state.restart(&myself, id).await,
            Message::RestartHousekeeper => state.restart_housekeeper(&myself).await,
            Message::Drain(answer) => {
                let (drain_ms, rest_ms) = (DRAIN_MAX.as_millis() as u64, REST_MAX.as_millis() as u64);
                let housekeeper = state.housekeeper.0.clone();
                let rest = tokio::spawn(async move { ractor::call_t!(housekeeper, housekeeper::Message::Rest, rest_ms).is_ok() });
                let drain =
                    |lane: ActorRef<lane::Message>| async move { ractor::call_t!(lane, lane::Message::Drain, drain_ms).is_ok() };
                // All at once: each has the whole time.
                let lanes: Vec<_> = state.lanes.values().map(|(lane, _)| tokio::spawn(drain(lane.clone()))).collect();
                // One that a disk holds, or that has been given up, has nothing that would have to be finished.
                let _ = rest.await;
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
            let died = state.lanes.iter().find(|(_, (lane, _))| lane.get_id() == cell.get_id()).map(|(id, _)| *id);
            if let Some(id) = died {
                warn!(lane = id, %cause, "the lane died");
                myself.send_after(RESTART_DELAY, move || Message::Restart(id));
            } else if state.housekeeper.0.get_id() == cell.get_id() {
                warn!(%cause, "the housekeeper died");
                myself.send_after(RESTART_DELAY, || Message::RestartHousekeeper);
            }
        }
        Ok(())
    }
}

async fn start_housekeeper(myself: &ActorRef<Message>, args: &Args) -> Result<ActorRef<housekeeper::Message>, ractor::SpawnErr> {
    let (root, partitions) = (myself.clone(), args.housekeeper.partitions.clone());
    let tell: Tell = Arc::new(move |partition, message| {
        let lane = partitions.get(&partition).and_then(|committed| committed.condition().lane);
        // A root that is gone has no lanes.
        let _ = lane.map(|lane| root.cast(Message::Tell(lane, message)));
    });
    let args = (args.housekeeper.clone(), tell);
    Ok(Housekeeper::spawn_linked(None, Housekeeper, args, myself.get_cell()).await?.0)
}

impl State {
    async fn restart_housekeeper(&mut self, myself: &ActorRef<Message>) {
        let (housekeeper, restarts) = &mut self.housekeeper;
        if !restarts.may_restart(Kind::Housekeeper, Instant::now()) {
            error!("the housekeeper keeps dying and is given up: no snapshots, no retention, no sweep");
            return;
        }
        ::metrics::counter!(metrics::RESTARTS, "kind" => "housekeeper").increment(1);
        match start_housekeeper(myself, &self.args).await {
            Ok(fresh) => *housekeeper = fresh,
            Err(cause) => warn!(%cause, "the housekeeper does not start"),
        }
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
            args.partitions.values().for_each(|committed| committed.give_up("its lane keeps dying; restart the service"));
            return;
        }
        ::metrics::counter!(metrics::RESTARTS, "kind" => "lane").increment(1);
        args.incarnation = args.incarnation.wrapping_add(1);
        match LaneActor::spawn_linked(None, LaneActor, args.clone(), myself.get_cell()).await {
            Ok((fresh, _)) => *lane = fresh,
            Err(cause) => {
                warn!(lane = id, %cause, "the lane does not start");
                myself.send_after(RESTART_DELAY, move || Message::Restart(id));
            }
        }
    }
}
