//! The lane's turn: fetch, decide, close. What is due is done, and the next turn is ordered for the time when more will be.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use finflow_topologies::lane::{Decided, Failure, Next};
use finflow_topologies::log::Fetched;
use finflow_topologies::{Topic, Work};
use ractor::{ActorProcessingErr, ActorRef};
use tracing::{debug, debug_span, warn};

use super::{APPLY_AFTER, Message, RETRY_DELAY, State};
use crate::clock::Strayed;
use crate::partition;

/// Bytes fetched from one partition of one topic at a time.
const FETCH_BYTES: usize = 512 * 1024;
/// A partition that has not answered its work by then is taken for lost.
const DECIDE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the lane looks whether commands that are withheld may go on.
const WITHHELD_DELAY: Duration = Duration::from_millis(1);

impl State {
    /// Fetches, decides every round that is due, closes the epoch when it is time, and begins its commit.
    pub(super) async fn turn(&mut self, myself: &ActorRef<Message>) -> Result<(), ActorProcessingErr> {
        if self.is_over {
            return Ok(());
        }
        self.is_scheduled.store(false, Ordering::Release);
        if let Err(strayed) = self.args.clock.now() {
            return self.stand_still(myself, strayed);
        }
        self.stands_still_since = None;
        self.end_rests();
        if self.draining.is_none() && !self.fetch() {
            myself.send_after(RETRY_DELAY, || Message::Turn);
        }
        // What another lane has claimed is let go of, though nothing else happens here.
        if !self.is_recalling && self.claimed.iter().any(|id| !self.owns(*id)) {
            self.is_recalling = true;
            myself.send_after(RETRY_DELAY, || Message::Assigned);
        }
        self.carry();
        let decided = self.decide_rounds(myself).await;
        for id in std::mem::take(&mut self.hung) {
            self.replace(myself, id).await?;
        }
        let is_withheld = match decided {
            Ok(is_withheld) => is_withheld,
            Err(strayed) => return self.stand_still(myself, strayed),
        };
        if let Err(strayed) = self.close(myself) {
            return self.stand_still(myself, strayed);
        }
        if !self.lane.is_committing() && !self.lane.has_open() {
            self.apply(myself);
            self.finish_drain();
        }
        self.schedule(myself, is_withheld);
        Ok(())
    }

    /// Remembers since when there is an open epoch.
    pub(super) fn note_opened(&mut self) {
        self.opened_at = self.lane.has_open().then(|| self.opened_at.unwrap_or_else(Instant::now));
    }

    /// Lets the partitions decide round after round, until the epoch is to be closed or nothing is left to decide. `true` if what is
    /// left is withheld: commands of a pair whose postings must become level first.
    async fn decide_rounds(&mut self, myself: &ActorRef<Message>) -> Result<bool, Strayed> {
        loop {
            let next = self.decide_round(myself).await;
            self.note_opened();
            match next? {
                None => return Ok(self.lane.has_input()),
                Some(Next::Dropped) => {
                    // Whatever was dropped is fetched again, also where nothing else wakes the lane.
                    myself.send_after(RETRY_DELAY, || Message::Turn);
                    return Ok(false);
                }
                Some(Next::Quiet) if self.is_due() => return Ok(false),
                Some(Next::Quiet | Next::Round) => {}
            }
        }
    }

    /// Lets the partitions decide one round; `None` when none is due. Nothing is decided by a clock that is wrong.
    async fn decide_round(&mut self, myself: &ActorRef<Message>) -> Result<Option<Next>, Strayed> {
        let work = self.lane.round(self.args.clock.now()?, self.begun.elapsed());
        if work.is_empty() {
            return Ok(None);
        }
        let (answers, hung) = self.decide(work).await;
        self.hung = hung;
        self.note_reads(myself, &answers);
        Ok(Some(self.lane.merge(answers)))
    }

    /// Whether the open epoch should be closed now.
    ///
    /// The first input after a pause is committed at once, a steady stream at the lane's pace, and a backlog in longer epochs.
    pub(super) fn is_due(&self) -> bool {
        let is_waiting = !self.lane.has_input() || self.lane.is_withholding();
        let is_quiet = is_waiting && self.until_next() == Duration::ZERO;
        let is_ripe = |opened_at: Instant| is_quiet || self.pace.backlog() <= opened_at.elapsed();
        let is_asked = self.lane.is_full() || self.lane.has_suspect() || self.draining.is_some();
        is_asked || self.opened_at.is_some_and(is_ripe)
    }

    /// How long the lane rests before it closes what is open. Not at its pace while commands of its own wait for that.
    fn until_next(&self) -> Duration {
        let between = if self.lane.is_withholding() { self.args.epoch_interval } else { self.pace.between() };
        between.saturating_sub(self.closed_at.elapsed())
    }

    /// `false` if something could not be read and must be asked for again.
    fn fetch(&mut self) -> bool {
        let mut is_whole = true;
        let ends = self.args.log.moment();
        // Of what another lane of this process has by now nothing is read here: both would share one reader.
        for id in self.lane.partitions().filter(|id| self.owns(*id)).collect::<Vec<_>>() {
            if !self.lane.takes(id) {
                // What was fetched ahead, each with the answer that it came in, would stay until it does.
                self.args.log.forget(id);
                continue;
            }
            let wants = self.lane.wants(id);
            for (topic, from) in [(Topic::Commands, wants.commands), (Topic::Postings, wants.postings)] {
                let Some(from) = from else { continue };
                let _entered = debug_span!("fetch", partition = id, %topic, offset = from).entered();
                let end = ends.as_ref().and_then(|ends| ends.get(&(topic, id))).copied();
                match self.args.log.follow(topic, id, from, FETCH_BYTES).map(|fetched| up_to(end, fetched)) {
                    Ok(fetched) if fetched.next == from => {}
                    Ok(fetched) => {
                        // What is not a record moves the place as well, and nothing else would show it.
                        let is_empty = fetched.records.is_empty();
                        debug!(records = fetched.records.len(), next = fetched.next, "fetched");
                        self.args.troubles.read(topic, id);
                        self.lane.offer(topic, id, from, fetched);
                        if is_empty {
                            self.show(id);
                        }
                    }
                    Err(cause) => {
                        warn!(partition = id, %topic, from, %cause, "cannot read");
                        self.args.troubles.not_read(Instant::now(), topic, id, cause.to_string());
                        self.lane.unreadable(id, &cause);
                        is_whole = false;
                    }
                }
            }
        }
        is_whole
    }

    /// Gives each partition its work, all at once, and takes the answers. Also, the partitions that have not given any in time.
    async fn decide(&self, work: Vec<(u32, Work)>) -> (Vec<Decided>, Vec<u32>) {
        let mut asked = Vec::with_capacity(work.len());
        for (id, work) in work {
            let (sender, answer) = ractor::concurrency::oneshot();
            let message = partition::Message::Decide(Box::new(work), sender.into());
            let is_sent = self.actors.get(&id).is_some_and(|(actor, _)| actor.cast(message).is_ok());
            asked.push((id, is_sent.then_some(answer)));
        }
        let (mut answers, mut hung) = (Vec::with_capacity(asked.len()), Vec::new());
        let deadline = tokio::time::Instant::now() + DECIDE_TIMEOUT;
        for (id, answer) in asked {
            let decided = match answer {
                None => Err(Failure::Lost),
                Some(answer) => match tokio::time::timeout_at(deadline, answer).await {
                    Ok(Ok(decided)) => decided,
                    Ok(Err(_)) => Err(Failure::Lost),
                    Err(_) => {
                        hung.push(id);
                        Err(Failure::Lost)
                    }
                },
            };
            answers.push((id, decided));
        }
        (answers, hung)
    }

    /// Another turn as soon as there is input to decide, when the open epoch is due, or when the stores should follow.
    pub(super) fn schedule(&mut self, myself: &ActorRef<Message>, is_withheld: bool) {
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
        let since_closed = self.closed_at.elapsed();
        let delay = match self.opened_at {
            _ if self.lane.is_committing() => return,
            Some(_) => self.until_next(),
            None if self.lane.partitions().any(|id| self.may_apply(id)) => APPLY_AFTER.saturating_sub(since_closed),
            None => match self.until_carry() {
                Some(pause) => pause,
                None => return,
            },
        };
        self.alarm = Some(myself.send_after(delay, || Message::Turn));
    }
}

/// Of what was fetched, what stands before `end`: one partition is read after the other, and what has come to the later ones meanwhile
/// may be behind something that the earlier ones have not been asked for.
fn up_to(end: Option<u64>, mut fetched: Fetched) -> Fetched {
    if let Some(end) = end {
        fetched.records.truncate(fetched.records.partition_point(|record| record.offset < end));
        fetched.next = fetched.next.min(end);
    }
    fetched
}
