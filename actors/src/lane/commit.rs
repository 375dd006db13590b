//! The commit of an epoch: it is closed, written beside the lane, and settled once its outcome is certain.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use finflow_state::Store;
use finflow_topologies::log::{Claimed, Commit, Resolution};
use ractor::{ActorProcessingErr, ActorRef};
use tracing::{debug, debug_span, warn};

use super::beside::{beside, died_asking, died_committing};
use super::{Message, RETRY_DELAY, State};
use crate::clock::Strayed;

impl State {
    /// Closes the open epoch, if it is due and nothing is in flight, and begins its commit.
    pub(super) fn close(&mut self, myself: &ActorRef<Message>) -> Result<(), Strayed> {
        if self.lane.is_committing() || !self.is_due() {
            return Ok(());
        }
        let Some(transaction) = self.lane.close(self.args.clock.now()?) else { return Ok(()) };
        // A confirmation leaves the open epoch as it is.
        self.note_opened();
        self.closed_at = Instant::now();
        self.args.troubles.commits(self.closed_at);
        let session = self.session.clone();
        let span = debug_span!("commit", lane = %self.args.name, epoch = transaction.stamp.counter);
        let commit = move || {
            let _entered = span.entered();
            for Claimed { position, .. } in &transaction.positions {
                debug!(partition = position.partition, offset = position.commands, block = position.block, "committing");
            }
            let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
            // A claim that held the session up says nothing of what commits take.
            let begun = Instant::now();
            let commit = session.commit(transaction);
            debug!(outcome = %commit, "ended");
            (commit, begun.elapsed())
        };
        let died = (died_committing(), Duration::ZERO);
        beside(myself, commit, died, |(commit, took)| Message::CommitEnded(commit, took));
        Ok(())
    }

    /// Takes the log's answer to the commit in flight; a doubt has to be resolved first.
    pub(super) fn commit_ended(
        &mut self,
        myself: &ActorRef<Message>,
        commit: &Commit,
        took: Duration,
    ) -> Result<(), ActorProcessingErr> {
        if *commit != Commit::Committed {
            self.args.troubles.not_committed(Instant::now(), commit.to_string());
        }
        match commit {
            Commit::Committed => {
                self.pace.note(took);
                self.take_resolution(myself, Resolution::Committed)
            }
            Commit::Aborted(cause) => {
                warn!(%cause, "epoch aborted");
                self.take_resolution(myself, Resolution::Aborted)
            }
            Commit::Fenced => Err("fenced by another lane of this name".into()),
            Commit::InDoubt(cause) => {
                warn!(%cause, "commit in doubt");
                self.resolve_later(myself);
                Ok(())
            }
        }
    }

    /// Asks the log how the commit in doubt has ended, after a while.
    pub(super) fn resolve_later(&self, myself: &ActorRef<Message>) {
        let (session, myself, stamp) = (self.session.clone(), myself.clone(), self.lane.stamp().clone());
        tokio::spawn(async move {
            tokio::time::sleep(RETRY_DELAY).await;
            let resolve = move || session.lock().unwrap_or_else(PoisonError::into_inner).resolve(&stamp);
            beside(&myself, resolve, Err(died_asking()), Message::Resolved);
        });
    }

    /// The outcome is certain: readers see the epoch, then waiters wake and the stores follow; or it is decided again.
    pub(super) fn take_resolution(
        &mut self,
        myself: &ActorRef<Message>,
        resolution: Resolution,
    ) -> Result<(), ActorProcessingErr> {
        let settled = self.lane.settle(resolution);
        self.args.troubles.settled(settled.committed);
        settled.halted.iter().for_each(|id| self.report_halt(*id));
        self.counts.take(&settled, self.closed_at.elapsed());
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

    /// Writes the stores and answers, beside the actor: a disk may hold a thread for long, and signals are still to be heard.
    pub(super) fn finish_drain(&mut self) {
        let is_written = |id| !self.may_apply(id) || self.has_fault(id);
        if !self.applying.is_empty() || !self.lane.partitions().all(is_written) {
            return;
        }
        let Some(answer) = self.draining.take() else { return };
        self.is_over = true;
        let stores: Vec<_> = self.args.partitions.values().filter_map(|committed| committed.store()).collect();
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
}
