//! The lane: the unit of scale, and the epoch loop as a synchronous state machine.
//!
//! It owns the epochs of the partitions it hosts - open, committing, committed but not yet in the store - and says at each
//! step what is to be done: which records to fetch, what the partitions are to decide, which transaction to commit, which blocks
//! to store. Whoever drives it (the lane actor, the simulator) does exactly that and reports back. It has no clock and does no I/O.
//!
//! What travels: [`Fetched`] records, [`Work`] for a partition with the [`OpenEpoch`] lent to it, the [`Transaction`] of all open
//! epochs; from `close` to `settle` each partition's part is in flight, then unapplied until its store has it.
//!
//! One commit is in flight at most; the next epoch may decide meanwhile, and nothing of it leaves before the outcome is known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use finflow_state::{EncodedBlock, Head, Positions, Stamp};

use self::hosted::{Flight, Hosted};
pub use self::hosted::{Status, Suspicion, Wants};
pub use crate::failure::Failure;
use crate::log::{Commit, Fetched, Resolution, Transaction};
use crate::partition::{Epoch, Layers, OpenEpoch, Outcome, Verdicts, Work, add};
use crate::sizes::EPOCH_BYTES_SOFT;
use crate::topics::Topic;
use crate::wire::v1::Posting;

mod close;
mod growth;
mod hosted;
mod merge;
mod queue;
mod suspicion;

/// How long commands may be withheld where postings must become level again.
pub const WITHHELD_MAX: Duration = Duration::from_secs(1);
/// How long after its beginning that may begin anew: commands wait for a fifth of the time at most.
pub const WITHHELD_EVERY: Duration = Duration::from_secs(5);

/// One lane.
pub struct Lane {
    stamp: Stamp,
    hosted: BTreeMap<u32, Hosted>,
    rounds: Rounds,
    /// When commands began to be withheld, on the clock that never jumps.
    withheld_since: Option<Duration>,
    /// Commands were withheld from the last wave.
    is_withholding: bool,
    /// A confirmation is in flight, see [`Lane::suspect`].
    is_confirming: bool,
    now_ms: i64,
}

/// Where the open epoch stands.
#[derive(Debug, Default)]
enum Rounds {
    /// Between waves: input may be taken, or the epoch closed.
    #[default]
    Idle,
    /// The hand-overs that the next round delivers, by destination.
    Handing(BTreeMap<u32, Vec<Posting>>),
    /// Work is with the partitions.
    Deciding,
}

/// What a merge leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Postings were handed over: another round is due.
    Round,
    /// The wave is over: the epoch may be closed, or take another wave.
    Quiet,
    /// The open epoch was dropped; its inputs will be fetched again.
    Dropped,
}

/// What a settled commit leads to.
#[derive(Debug, Default)]
pub struct Settled {
    /// Commands whose state is now durable, for those who wait.
    pub outcomes: Vec<Outcome>,
    /// What the inputs of the epoch have come to; nothing, unless it was committed.
    pub verdicts: Verdicts,
    /// Whether the epoch was committed.
    pub committed: bool,
    /// Inputs that the epoch consumed.
    pub inputs: u64,
    /// Partitions that are halted from now on: what was suspected is confirmed.
    pub halted: Vec<u32>,
}

impl Lane {
    /// A lane called `name` (its transactional id). `incarnation` tells this life of the lane from every other.
    pub fn new(name: Arc<str>, incarnation: u64) -> Lane {
        let stamp = Stamp { lane: name, incarnation, counter: 0 };
        Lane {
            stamp,
            hosted: BTreeMap::new(),
            rounds: Rounds::Idle,
            withheld_since: None,
            is_withholding: false,
            is_confirming: false,
            now_ms: 0,
        }
    }

    /// Takes in a partition that was restored to the head of its journal after the claim of this epoch. The epoch that is open
    /// is dropped, and so is all that an older claim has left here: what of it is committed is in the head.
    ///
    /// `false`, and nothing has changed, while a commit that touches the partition is in flight. That commit was made under an
    /// older claim; its outcome also decides about its other partitions, so it is to be settled first and the partition adopted
    /// after that. If the commit had not reached the log before the claim, it is fenced, and the lane is over.
    #[must_use]
    pub fn adopt(&mut self, claim: u64, head: Head) -> bool {
        if self.has_flight(head.partition) {
            return false;
        }
        self.drop_open_and_suspicions();
        self.now_ms = self.now_ms.max(head.at_ms);
        self.hosted.insert(head.partition, Hosted::new(claim, head));
        true
    }

    /// Whether a commit that touches the partition is in flight.
    pub fn has_flight(&self, partition: u32) -> bool {
        self.hosted.get(&partition).is_some_and(|hosted| hosted.flight.is_some())
    }

    /// Lets go of a partition; whatever of it is not committed is dropped. `false` while a commit that touches it is in flight.
    pub fn release(&mut self, partition: u32) -> bool {
        if self.has_flight(partition) {
            return false;
        }
        self.drop_open_and_suspicions();
        self.hosted.remove(&partition);
        true
    }

    /// Takes note that commands of a partition before `start` may be lost: whenever it fetches anew, it does so there, if it has not come
    /// further. Nothing of it is committed yet; that it stands there is, by the next epoch.
    pub fn accept_loss(&mut self, partition: u32, start: u64) {
        if let Some(hosted) = self.hosted.get_mut(&partition) {
            hosted.lost_before = start;
        }
    }

    /// Lets a halted partition go on from its last committed block.
    pub fn resume(&mut self, partition: u32) {
        self.drop_open();
        if let Some(hosted) = self.hosted.get_mut(&partition) {
            hosted.status = Status::Running;
        }
    }

    /// Lets a partition go on that rests because its store could not be read, see [`Failure::Unread`].
    pub fn read_again(&mut self, partition: u32) {
        if let Some(hosted) = self.hosted.get_mut(&partition) {
            hosted.is_resting = false;
        }
    }

    /// Drops the open epoch: its inputs are fetched again from where the last epoch, committed or committing, left them.
    pub fn drop_open(&mut self) {
        self.rounds = Rounds::Idle;
        for hosted in self.hosted.values_mut() {
            hosted.drop_open();
        }
    }

    /// The partitions hosted, in order.
    pub fn partitions(&self) -> impl Iterator<Item = u32> {
        self.hosted.keys().copied()
    }

    /// How a partition is.
    pub fn status(&self, partition: u32) -> Option<&Status> {
        self.hosted.get(&partition).map(|hosted| &hosted.status)
    }

    /// The head of a partition's last committed block.
    pub fn head(&self, partition: u32) -> Option<&Arc<Head>> {
        self.hosted.get(&partition).map(|hosted| &hosted.base)
    }

    /// How far a partition's inputs are committed, or past what is read and holds nothing to decide, such as the marks of
    /// transactions.
    pub fn reached(&self, partition: u32) -> Option<Positions> {
        self.hosted.get(&partition).map(Hosted::reached)
    }

    /// Whether a partition takes input, once it has room: it is neither suspect nor halted, and does not rest.
    pub fn takes(&self, partition: u32) -> bool {
        self.hosted.get(&partition).is_some_and(Hosted::is_running)
    }

    /// The records that a partition can take now, by the offset to fetch from.
    pub fn wants(&self, partition: u32) -> Wants {
        self.hosted.get(&partition).map(Hosted::wants).unwrap_or_default()
    }

    /// Takes fetched records of `commands` or `postings`. Records that it did not ask for are ignored.
    ///
    /// A posting that cannot be read makes the partition suspect.
    pub fn offer(&mut self, topic: Topic, partition: u32, from: u64, fetched: Fetched) {
        let Some(hosted) = self.hosted.get_mut(&partition) else { return };
        let taken = match topic {
            Topic::Commands => hosted.offer_commands(from, fetched),
            Topic::Postings => hosted.offer_postings(from, fetched),
            Topic::Events | Topic::Journal | Topic::Dlq => Ok(()),
        };
        if let Err(cause) = taken {
            self.suspect(partition, cause);
        }
    }

    /// Whether a partition is past offsets of `commands` that hold nothing to decide, and its committed position is not.
    pub fn has_gap(&self) -> bool {
        self.hosted.values().any(Hosted::has_gap)
    }

    /// Opens an epoch without input in every partition with such a gap, so that the next commit carries its position on; `false` where
    /// there is none. Once that is committed there is no gap, until something comes that leaves another.
    pub fn carry(&mut self) -> bool {
        if matches!(self.rounds, Rounds::Deciding) {
            return false;
        }
        let mut is_any = false;
        for hosted in self.hosted.values_mut().filter(|hosted| hosted.has_gap()) {
            let open = hosted.take_open();
            hosted.open = Some(OpenEpoch { carries: true, ..open });
            is_any = true;
        }
        is_any
    }

    /// Proposes records whose retention may have passed; lost with the epoch, they are proposed again.
    pub fn offer_sweep(&mut self, partition: u32, payments: Vec<finflow_ledger::PaymentId>) {
        if let Some(hosted) = self.hosted.get_mut(&partition) {
            hosted.sweep = payments;
        }
    }

    /// Proposes timers whose time has come; lost with the epoch, they are proposed again. Whoever proposes them has read the store
    /// alone: those that are gone meanwhile are ignored.
    pub fn offer_timers(&mut self, partition: u32, due: Vec<(i64, finflow_ledger::PaymentId)>) {
        if let Some(hosted) = self.hosted.get_mut(&partition) {
            hosted.due = due;
        }
    }

    /// Whether commands wait for postings to become level: the sooner an epoch is committed, the sooner they go on.
    pub fn is_withholding(&self) -> bool {
        self.is_withholding
    }

    /// Whether there is input that no wave has taken yet.
    pub fn has_input(&self) -> bool {
        !self.is_epoch_full() && self.hosted.values().any(|hosted| hosted.has_input())
    }

    /// Whether the open epoch holds anything to commit.
    pub fn has_open(&self) -> bool {
        self.hosted.values().any(|hosted| hosted.open.as_ref().is_some_and(OpenEpoch::is_worth_committing))
    }

    /// Whether a commit is in flight.
    pub fn is_committing(&self) -> bool {
        self.is_confirming || self.hosted.values().any(|hosted| hosted.flight.is_some())
    }

    /// Whether the epoch that is open has grown to where it should be closed soon.
    pub fn is_full(&self) -> bool {
        self.is_epoch_full() || self.hosted.values().any(Hosted::is_full)
    }

    /// Whether the open epoch is as much as one transaction should hold.
    fn is_epoch_full(&self) -> bool {
        let open = self.hosted.values().filter_map(|hosted| hosted.open.as_ref());
        EPOCH_BYTES_SOFT <= open.map(OpenEpoch::bytes).sum()
    }

    /// The work of the next round: round 0 takes input, round k the hand-overs of round k-1. Empty when nothing is due.
    ///
    /// `clock_ms` is what decisions are dated with; `steady` is the time since some moment, on a clock that never jumps and never stands
    /// still, as the first one does for the lane while it is behind the newest block.
    ///
    /// Until [`Lane::merge`] has had an answer to each piece, no other round can begin.
    pub fn round(&mut self, clock_ms: i64, steady: Duration) -> Vec<(u32, Work)> {
        self.now_ms = self.now_ms.max(clock_ms);
        let work: Vec<(u32, Work)> = match std::mem::take(&mut self.rounds) {
            Rounds::Idle if self.is_epoch_full() => Vec::new(),
            Rounds::Idle => {
                let now_ms = self.now_ms;
                let withheld = self.withheld(steady);
                self.is_withholding = !withheld.is_empty();
                let hosted = self.hosted.iter_mut();
                hosted.filter_map(|(id, hosted)| Some((*id, hosted.wave(now_ms, withheld.contains(id))?))).collect()
            }
            Rounds::Handing(handed) => self.deliver(handed),
            Rounds::Deciding => {
                self.rounds = Rounds::Deciding;
                return Vec::new();
            }
        };
        if !work.is_empty() {
            self.rounds = Rounds::Deciding;
        }
        work
    }

    /// Closes the open epoch into a transaction, if it holds anything, no wave is under way and no commit is in flight.
    ///
    /// While a partition is suspect, the transaction asks for the confirmation instead, and the epoch stays open.
    pub fn close(&mut self, clock_ms: i64) -> Option<Transaction> {
        if !matches!(self.rounds, Rounds::Idle) || self.is_committing() || !(self.has_open() || self.has_suspect()) {
            return None;
        }
        self.now_ms = self.now_ms.max(clock_ms);
        self.stamp.counter = self.stamp.counter.saturating_add(1);
        if self.has_suspect() {
            return Some(self.confirmation());
        }
        Some(close::transaction(&mut self.hosted, &self.stamp, self.now_ms))
    }

    /// The stamp of the epoch in flight.
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Takes the outcome of the commit in flight, once it is certain.
    pub fn settle(&mut self, resolution: Resolution) -> Settled {
        let mut settled = Settled { committed: resolution == Resolution::Committed, ..Settled::default() };
        if self.is_confirming {
            settled.halted = self.confirmed(settled.committed);
            return settled;
        }
        if !settled.committed {
            // The epoch that is open was decided on top of the one that was aborted: both are decided again, in order.
            for hosted in self.hosted.values_mut() {
                hosted.flight = None;
            }
            self.drop_open_and_suspicions();
            return settled;
        }
        for hosted in self.hosted.values_mut() {
            let Some(flight) = hosted.flight.take() else { continue };
            let Flight { head, block, overlay, outcomes, verdicts, inputs } = flight;
            hosted.base = head;
            hosted.unapplied.push_back(Epoch { block, overlay });
            settled.outcomes.extend(outcomes);
            add(&mut settled.verdicts, verdicts);
            settled.inputs = settled.inputs.saturating_add(inputs);
        }
        settled
    }

    /// The blocks of a partition that are committed but not in its store, oldest first.
    pub fn unapplied(&self, partition: u32) -> Vec<EncodedBlock> {
        let hosted = self.hosted.get(&partition);
        hosted.map(|hosted| hosted.unapplied.iter().map(|epoch| epoch.block.clone()).collect()).unwrap_or_default()
    }

    /// How many epochs of a partition wait for the store.
    pub fn unapplied_epochs(&self, partition: u32) -> usize {
        self.hosted.get(&partition).map_or(0, |hosted| hosted.unapplied.len())
    }

    /// How many changed rows of a partition wait for the store.
    pub fn unapplied_rows(&self, partition: u32) -> usize {
        self.hosted.get(&partition).map_or(0, |hosted| hosted.unapplied.iter().map(|epoch| epoch.overlay.entities()).sum())
    }

    /// Takes note that the store holds the oldest `count` unapplied blocks, and gives their epochs for the partition to retire.
    pub fn applied(&mut self, partition: u32, count: usize) -> Vec<Epoch> {
        let Some(hosted) = self.hosted.get_mut(&partition) else { return Vec::new() };
        let count = count.min(hosted.unapplied.len());
        hosted.unapplied.drain(..count).collect()
    }

    /// The overlays that a reader of committed state must look at before the store, newest first.
    pub fn committed_layers(&self, partition: u32) -> Layers {
        let hosted = self.hosted.get(&partition);
        hosted.map(|hosted| hosted.unapplied.iter().rev().map(|epoch| epoch.overlay.clone()).collect()).unwrap_or_default()
    }

    /// Whether every posting between two partitions of this lane has been received.
    pub fn is_level(&self) -> bool {
        self.unlevel_pairs().next().is_none()
    }
}

impl From<&Commit> for Option<Resolution> {
    /// What a commit's answer settles by itself; a doubt settles nothing.
    fn from(commit: &Commit) -> Option<Resolution> {
        match commit {
            Commit::Committed => Some(Resolution::Committed),
            Commit::Aborted(_) | Commit::Fenced => Some(Resolution::Aborted),
            Commit::InDoubt(_) => None,
        }
    }
}

/// An answer to one piece of work.
pub type Decided = (u32, Result<OpenEpoch, Failure>);
