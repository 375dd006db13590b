//! Which partitions a lane runs: what it is assigned it claims and restores, what is wanted back it lets go of.
//!
//! Claiming and restoring go on beside the lane, several partitions at a time: those that it runs already are not held up.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use finflow_state::{Head, RocksStore};
use finflow_topologies::log::{self, Claim};
use finflow_topologies::{Halt, restore};
use ractor::{ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{Basis, Message, State, lost, pause_after};
use crate::committed::Condition;
use crate::log::Assignment;
use crate::metrics;
use crate::supervisor::Restarts;

/// What came of a partition that was assigned: the claim, and the head that it was restored to.
pub(crate) type Adopted = Result<(Claim, Result<Head, restore::Error>), log::Error>;

/// Tells the lane when its assignment changes; ends with the lane or its session.
pub(super) fn watch_assignment(mut assignment: watch::Receiver<Assignment>, myself: &ActorRef<Message>) {
    let myself = myself.clone();
    tokio::spawn(async move { while assignment.changed().await.is_ok() && myself.cast(Message::Assigned).is_ok() {} });
}

impl State {
    /// Lets go of what is assigned elsewhere, was lost since it was claimed or has been claimed by another lane of this process, and
    /// begins to take what is assigned to this lane.
    pub(super) fn follow_assignment(&mut self, myself: &ActorRef<Message>) -> Result<(), ActorProcessingErr> {
        self.is_recalling = false;
        let given = self.assignment.borrow().clone();
        let kept = given.kept();
        let is_its = |id: &u32| given.keeps(*id, &self.lost_before) && self.owns(*id);
        let leaving: Vec<u32> = self.claimed.iter().copied().filter(|id| !is_its(id)).collect();
        for id in leaving {
            self.let_go(myself, id);
        }
        for (id, is_wanted) in &mut self.adopting {
            *is_wanted &= given.keeps(*id, &self.lost_before);
        }
        let is_underway = |id: &u32| self.adopting.contains_key(id) || self.releasing.contains(id);
        let coming: Vec<u32> = kept.difference(&self.claimed).copied().filter(|id| !is_underway(id)).collect();
        // Who has been told to finish takes nothing more.
        if self.draining.is_none() && !self.is_over {
            coming.into_iter().for_each(|id| self.begin(myself, id));
        }
        myself.cast(Message::Turn)?;
        Ok(())
    }

    /// Whether a partition that the lane has is to stay, and has not been lost since it was claimed.
    pub(super) fn keeps(&self, id: u32) -> bool {
        self.assignment.borrow().keeps(id, &self.lost_before)
    }

    /// What an earlier life of this lane had and this one has not been given is elsewhere.
    pub(super) fn forget_former(&self) {
        let kept = self.assignment.borrow().kept();
        for (id, committed) in &self.args.partitions {
            if committed.condition().restored_by.as_ref() == Some(&self.args.name) && !kept.contains(id) {
                self.forget(*id);
            }
        }
    }

    /// Shows a partition as elsewhere, and beside the lane closes its store and what a lane that has died has left open to read it: a disk
    /// may take its time.
    fn forget(&self, id: u32) {
        let Some(committed) = self.args.partitions.get(&id) else { return };
        if committed.condition().owner().is_some_and(|owner| *owner != self.args.name) {
            // Another lane of this process may read it by now.
            return;
        }
        let store = committed.put_away(&self.args.name);
        let log = self.args.log.clone();
        tokio::task::spawn_blocking(move || {
            log.forget(id);
            drop(store);
        });
    }

    /// Whether no other lane of this process has claimed the partition since this one did.
    pub(super) fn owns(&self, id: u32) -> bool {
        self.args.partitions.get(&id).is_some_and(|committed| committed.is_of(&self.args.name))
    }

    fn take(&self, id: u32) {
        self.args.partitions.get(&id).into_iter().for_each(|committed| committed.take(&self.args.name));
    }

    /// Takes everything that is assigned, one after the other.
    pub(super) async fn adopt_all(&mut self, myself: &ActorRef<Message>) -> Result<(), ActorProcessingErr> {
        let kept = self.assignment.borrow().kept();
        for id in kept {
            self.take(id);
            if let Some(adoption) = self.adoption(id) {
                let adopted = adoption.await;
                self.adopting.insert(id, true);
                self.adopted(myself, id, adopted).await?;
            }
        }
        Ok(())
    }

    /// Looks at the assignment again where something had to come to its end first.
    pub(super) fn recall_assignment(&self, myself: &ActorRef<Message>) -> Result<(), ActorProcessingErr> {
        let wanted = self.adopting.iter().filter(|(_, is_wanted)| **is_wanted).map(|(id, _)| *id);
        let held: BTreeSet<u32> = self.claimed.iter().copied().chain(wanted).collect();
        let is_so = {
            let given = self.assignment.borrow();
            held == given.kept() && held.iter().all(|id| given.keeps(*id, &self.lost_before))
        };
        let is_so = is_so && self.claimed.iter().all(|id| self.owns(*id));
        if !is_so {
            myself.cast(Message::Assigned)?;
        }
        Ok(())
    }

    /// Gives a partition back; while a commit that touches it is in flight, or its store is being written, not yet, and it is not read any
    /// more. What is not in the store is in the journal.
    fn let_go(&mut self, myself: &ActorRef<Message>, id: u32) {
        if self.applying.contains(&id) || !self.lane.release(id) {
            self.show(id);
            return;
        }
        if let Some((actor, _)) = self.actors.remove(&id) {
            actor.stop(None);
        }
        self.claimed.remove(&id);
        self.resting.remove(&id);
        self.give_back(myself, id);
    }

    /// Closes a partition's store and releases its claim.
    fn give_back(&mut self, myself: &ActorRef<Message>, id: u32) {
        self.from_journal.remove(&id);
        let store = self.args.partitions.get(&id).and_then(|committed| committed.put_away(&self.args.name));
        self.release(myself, id, store, Duration::ZERO);
        info!(partition = id, "given back");
    }

    /// Releases a claim beside the lane: the log may take its time, and so may a disk that closes the store. The partition may be adopted
    /// again after `pause`.
    fn release(&mut self, myself: &ActorRef<Message>, id: u32, store: Option<Arc<RocksStore>>, pause: Duration) {
        self.releasing.insert(id);
        let (session, log, myself) = (self.session.clone(), self.args.log.clone(), myself.clone());
        tokio::task::spawn_blocking(move || {
            log.forget(id);
            session.lock().unwrap_or_else(PoisonError::into_inner).release(id);
            drop(store);
            // A lane that is gone has given everything back.
            myself.send_after(pause, move || Message::Released(id));
        });
    }

    pub(super) fn released(&mut self, myself: &ActorRef<Message>, id: u32) -> Result<(), ActorProcessingErr> {
        self.releasing.remove(&id);
        if !self.assignment.borrow().kept().contains(&id) {
            // It may have gone while it was waited for.
            self.forget(id);
        }
        self.recall_assignment(myself)
    }

    /// Begins to claim and restore a partition, and shows that it is on its way.
    fn begin(&mut self, myself: &ActorRef<Message>, id: u32) {
        let Some(adoption) = self.adoption(id) else { return };
        self.adopting.insert(id, true);
        self.args.partitions.get(&id).into_iter().for_each(|committed| committed.announce(&self.args.name));
        let myself = myself.clone();
        tokio::spawn(async move {
            // A lane that is gone adopts nothing.
            let _ = myself.cast(Message::Adopted(id, Box::new(adoption.await)));
        });
    }

    /// Claims a partition and restores it to the position that it has then. None where that is settled: what could not be restored
    /// is halted with its cause already.
    fn adoption(&mut self, id: u32) -> Option<impl Future<Output = Adopted> + Send + 'static> {
        let committed = self.args.partitions.get(&id)?.clone();
        // Before the claim: one that is lost meanwhile is known for it.
        self.lost_before.insert(id, self.assignment.borrow().losses(id));
        if committed.is_broken() {
            committed.take(&self.args.name);
            self.claimed.insert(id);
            return None;
        }
        let (session, log, restores, name) =
            (self.session.clone(), self.args.log.clone(), self.restores.clone(), self.args.name.clone());
        let is_from_journal = self.from_journal.contains(&id);
        Some(async move {
            let _permit = restores.acquire_owned().await;
            let work = move || {
                // The lane's own thread must not be kept from committing by a transaction that a former owner has left open.
                log.wait_for_position(id)?;
                let claim = session.lock().unwrap_or_else(PoisonError::into_inner).claim(id)?;
                committed.take(&name);
                if is_from_journal && claim.position.is_none() {
                    return lost::take_from_journal(&session, &log, &name, &committed, claim);
                }
                let head = committed.restore(&name, &log, claim.position.as_ref());
                Ok((claim, head))
            };
            let done = tokio::task::spawn_blocking(work).await;
            done.unwrap_or_else(|error| Err(log::Error::Unavailable(error.to_string())))
        })
    }

    /// Takes a partition in that was claimed and restored, and starts its actor; what cannot be restored is reported as halted and not
    /// served. What is not wanted any more is given back.
    pub(super) async fn adopted(
        &mut self,
        myself: &ActorRef<Message>,
        id: u32,
        adopted: Adopted,
    ) -> Result<(), ActorProcessingErr> {
        let is_wanted = self.adopting.remove(&id).unwrap_or_default();
        let (claim, restored) = match adopted {
            Ok(adopted) => adopted,
            Err(cause) if cause.is_waited_for() && !is_wanted => {
                self.give_back(myself, id);
                return Ok(());
            }
            Err(cause) if cause.is_waited_for() => {
                self.adopt_later(myself, id, &cause.to_string());
                return Ok(());
            }
            // Somebody else has written the position: it concerns this partition and no other.
            Err(log::Error::Corrupt(cause)) if is_wanted && self.keeps(id) => {
                self.halt_unrestored(id, &cause);
                myself.cast(Message::Turn)?;
                return Ok(());
            }
            Err(log::Error::Corrupt(_)) => {
                self.give_back(myself, id);
                return Ok(());
            }
            Err(cause) => return Err(cause.into()),
        };
        if !is_wanted || !self.owns(id) {
            self.give_back(myself, id);
            return Ok(());
        }
        let known = self.known_halt(id);
        match restored {
            Ok(head) => {
                info!(partition = id, block = head.number, "adopted");
                self.refused = 0;
                self.from_journal.remove(&id);
                self.set_fault(id, None);
                self.claimed.insert(id);
                self.args.clock.meet(head.at_ms);
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
            Err(cause) if cause.may_pass() => self.adopt_later(myself, id, &cause.to_string()),
            Err(cause) => self.halt_unrestored(id, &cause.to_string()),
        }
        myself.cast(Message::Turn)?;
        Ok(())
    }

    /// Shows a partition as halted that is this lane's, claimed or not, and cannot be restored.
    fn halt_unrestored(&mut self, id: u32, cause: &str) {
        self.take(id);
        error!(partition = id, cause, "halted");
        if self.known_halt(id).is_none() {
            metrics::halts(id).increment(1);
        }
        self.claimed.insert(id);
        self.from_journal.remove(&id);
        self.set_fault(id, None);
        if let Some(committed) = self.args.partitions.get(&id) {
            let name = &self.args.name;
            let (halted, restored_by) = (Some(cause.to_owned()), Some(name.clone()));
            committed.show(name, Arc::from([]), Condition { halted, restored_by, ..Condition::default() });
        }
    }

    /// Begins again after a while, if it is still assigned then; meanwhile the readiness names the cause.
    fn adopt_later(&mut self, myself: &ActorRef<Message>, id: u32, cause: &str) {
        let pause = pause_after(self.refused);
        self.refused = self.refused.saturating_add(1);
        warn!(partition = id, cause, ?pause, "cannot be adopted yet");
        self.set_fault(id, Some(cause.to_owned()));
        self.release(myself, id, None, pause);
    }

    /// Whether the partition is this lane's, and could not be restored.
    pub(super) fn is_unrestored(&self, id: u32) -> bool {
        self.claimed.contains(&id) && !self.actors.contains_key(&id)
    }

    /// Restores a partition anew that could not be: its operator has mended the cause, or wants to see it once more.
    pub(super) fn adopt_again(&mut self, myself: &ActorRef<Message>, id: u32, basis: Basis) {
        let Some(committed) = self.args.partitions.get(&id).cloned() else { return };
        info!(partition = id, ?basis, "is restored again");
        if basis == Basis::Journal {
            self.from_journal.insert(id);
        }
        let store = committed.give_another_chance(&self.args.name);
        self.claimed.remove(&id);
        self.release(myself, id, store, Duration::ZERO);
    }

    /// Why a partition was halted before its lane died, if it was.
    fn known_halt(&self, id: u32) -> Option<String> {
        self.args.partitions.get(&id).and_then(|committed| committed.condition().halted)
    }
}
