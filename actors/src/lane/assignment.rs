//! Which partitions a lane runs: what it is assigned it claims and restores, what is wanted back it lets go of.

use std::sync::{Arc, PoisonError};

use finflow_topologies::restore::{self, restore};
use finflow_topologies::{Halt, log};
use ractor::{ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{Message, RETRY_DELAY, State};
use crate::committed::Condition;
use crate::log::Assignment;
use crate::metrics;
use crate::supervisor::Restarts;

/// How often the time between two attempts to adopt is doubled, so that they end up some seconds apart.
const DOUBLINGS_MAX: u32 = 5;

/// Whether a partition that could not be adopted is tried again; anything else ends the lane, which is started anew.
fn may_pass(cause: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let is_unavailable = matches!(cause.downcast_ref(), Some(log::Error::Unavailable(_) | log::Error::Busy(_)));
    is_unavailable || cause.downcast_ref().is_some_and(restore::Error::may_pass)
}

/// Tells the lane when its assignment changes; ends with the lane or its session.
pub(super) fn watch_assignment(mut assignment: watch::Receiver<Assignment>, myself: &ActorRef<Message>) {
    let myself = myself.clone();
    tokio::spawn(async move { while assignment.changed().await.is_ok() && myself.cast(Message::Assigned).is_ok() {} });
}

impl State {
    /// Lets go of what is assigned elsewhere, and takes what has been assigned to this lane.
    pub(super) async fn follow_assignment(&mut self, myself: &ActorRef<Message>) -> Result<(), ActorProcessingErr> {
        let kept = self.assignment.borrow().kept();
        let leaving: Vec<u32> = self.claimed.difference(&kept).copied().collect();
        for id in leaving {
            self.let_go(id);
        }
        let coming: Vec<u32> = kept.difference(&self.claimed).copied().collect();
        for id in coming {
            // Restoring takes its time, in which the group may have decided anew.
            if !self.assignment.borrow().kept().contains(&id) {
                continue;
            }
            match self.adopt(myself, id).await {
                Err(cause) if may_pass(&*cause) => {
                    let delay = RETRY_DELAY * 2_u32.pow(self.refused.min(DOUBLINGS_MAX));
                    self.refused = self.refused.saturating_add(1);
                    warn!(partition = id, %cause, ?delay, "cannot be adopted yet");
                    myself.send_after(delay, || Message::Assigned);
                }
                other => {
                    other?;
                    self.refused = 0;
                }
            }
        }
        myself.cast(Message::Turn)?;
        Ok(())
    }

    /// Looks at the assignment again where something had to come to its end first.
    pub(super) fn recall_assignment(&self, myself: &ActorRef<Message>) -> Result<(), ActorProcessingErr> {
        if self.claimed != self.assignment.borrow().kept() {
            myself.cast(Message::Assigned)?;
        }
        Ok(())
    }

    /// Gives a partition back; while a commit that touches it is in flight, or its store is being written, not yet. What is not in
    /// the store is in the journal.
    fn let_go(&mut self, id: u32) {
        if self.applying.contains(&id) || !self.lane.release(id) {
            return;
        }
        if let Some((actor, _)) = self.actors.remove(&id) {
            actor.stop(None);
        }
        if let Some(committed) = self.args.partitions.get(&id) {
            committed.show(Arc::from([]), Condition::default());
        }
        self.args.log.forget(id);
        self.session.lock().unwrap_or_else(PoisonError::into_inner).release(id);
        self.claimed.remove(&id);
        info!(partition = id, "given back");
    }

    /// Claims a partition, restores it and starts its actor; what cannot be restored is reported as halted and not served.
    async fn adopt(&mut self, myself: &ActorRef<Message>, id: u32) -> Result<(), ActorProcessingErr> {
        let Some(committed) = self.args.partitions.get(&id) else { return Ok(()) };
        // What could not be restored is halted with its cause already.
        let Some(store) = committed.store.clone() else {
            self.claimed.insert(id);
            return Ok(());
        };
        let known = committed.condition().halted;
        let (session, log, held) = (self.session.clone(), self.args.log.clone(), committed.clone());
        let restored = tokio::task::spawn_blocking(move || {
            let claim = session.lock().unwrap_or_else(PoisonError::into_inner).claim(id)?;
            let head = held.restored(|| restore(&log, &*store, id, claim.position.as_ref()));
            Ok::<_, log::Error>((claim, head))
        });
        let (claim, restored) = restored.await??;
        if let Err(cause) = restored.as_ref().map_err(restore::Error::clone)
            && cause.may_pass()
        {
            committed.set_fault(Some(cause.to_string()));
            return Err(cause.into());
        }
        committed.set_fault(None);
        self.claimed.insert(id);
        match restored {
            Ok(head) => {
                info!(partition = id, block = head.number, "adopted");
                if !self.lane.adopt(claim.epoch, head) {
                    return Err("a partition was claimed again while its commit was in flight".into());
                }
                let actor = self.start(myself, id).await?;
                self.actors.insert(id, (actor, Restarts::default()));
                // Only an operator ends a halt, not the death of the lane that found it.
                if let Some(cause) = known {
                    warn!(partition = id, cause, "still halted");
                    self.lane.halt(id, Halt::Known(cause));
                }
                self.show(id);
            }
            Err(cause) => {
                error!(partition = id, %cause, "halted");
                if known.is_none() {
                    ::metrics::counter!(metrics::HALTS).increment(1);
                }
                let condition = Condition { halted: Some(cause.to_string()), ..Condition::default() };
                committed.show(Arc::from([]), condition);
            }
        }
        Ok(())
    }
}
