//! One partition as its lane holds it: how far it is committed, what is in flight, what is open, what waits to be decided.

use std::collections::VecDeque;
use std::sync::Arc;

use finflow_ledger::PaymentId;
use finflow_state::{EncodedBlock, Head, Overlay, Positions};

use super::queue::{Queue, Weighed};
use crate::halt::Halt;
use crate::log::{Fetched, Record};
use crate::partition::{Epoch, Input, Layers, OpenEpoch, Outcome, Verdicts, Work};
use crate::sizes::{UNAPPLIED_EPOCHS_MAX, WAVE_BYTES_MAX, WAVE_COMMANDS_MAX, WAVE_COMMANDS_MIN, WAVE_POSTINGS_MAX};
use crate::wire::v1::Posting;

/// How a hosted partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It takes input.
    Running,
    /// An invariant is broken, if the epoch that says so was decided on what is ours. It takes nothing until the log has told.
    Suspect(Suspicion),
    /// An invariant is broken; it takes nothing until an operator resumes it.
    Halted(Halt),
}

/// A halt that was decided out of an epoch which nobody has committed.
///
/// A lane that has lost a partition without knowing it decides on what is not there any more. Its commit would be fenced; what it
/// takes for a broken invariant has to be asked for as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspicion {
    /// The invariant that seems to be broken.
    pub cause: Halt,
    /// Whether the confirmation in flight is also about this suspicion: it was asked for after the suspicious decision.
    pub(super) is_asked: bool,
}

/// Offsets to fetch from; `None` = nothing wanted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// In `commands`.
    pub commands: Option<u64>,
    /// In `postings`.
    pub postings: Option<u64>,
}

/// A closed epoch on its way into the log.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) head: Arc<Head>,
    pub(super) block: EncodedBlock,
    pub(super) overlay: Arc<Overlay>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) verdicts: Verdicts,
    pub(super) inputs: u64,
}

pub(super) struct Hosted {
    pub(super) status: Status,
    /// Its store could not be read: it takes no input until somebody has it read again.
    pub(super) is_resting: bool,
    /// The epoch of the claim under which it was restored.
    pub(super) claim: u64,
    /// The head of the last committed block.
    pub(super) base: Arc<Head>,
    pub(super) flight: Option<Flight>,
    pub(super) open: Option<OpenEpoch>,
    /// Committed, not yet in the store, oldest first.
    pub(super) unapplied: VecDeque<Epoch>,
    commands: Queue<Record>,
    postings: Queue<(u64, Posting)>,
    pub(super) sweep: Vec<PaymentId>,
    /// Timers that seem to be due.
    pub(super) due: Vec<(i64, PaymentId)>,
    /// Where the next fetch goes on.
    read: Positions,
    /// An operator accepts that commands before this offset, which were not read, are lost.
    pub(super) lost_before: u64,
}

impl Hosted {
    pub(super) fn new(claim: u64, head: Head) -> Hosted {
        Hosted {
            status: Status::Running,
            is_resting: false,
            claim,
            read: head.positions,
            base: Arc::new(head),
            flight: None,
            open: None,
            unapplied: VecDeque::new(),
            commands: Queue::default(),
            postings: Queue::default(),
            sweep: Vec::new(),
            due: Vec::new(),
            lost_before: 0,
        }
    }

    /// Whether it takes input.
    pub(super) fn is_running(&self) -> bool {
        self.status == Status::Running && !self.is_resting
    }

    /// How far the inputs are committed, or past what is read and holds nothing to decide.
    pub(super) fn reached(&self) -> Positions {
        let base = self.base.positions;
        if self.open.is_some() || self.flight.is_some() { base } else { self.consumed(base) }
    }

    /// The newest head: of the epoch in flight, else of the last committed one.
    pub(super) fn newest(&self) -> &Arc<Head> {
        self.flight.as_ref().map_or(&self.base, |flight| &flight.head)
    }

    pub(super) fn is_suspect(&self) -> bool {
        matches!(self.status, Status::Suspect(_))
    }

    /// Notes what a decision has found; an earlier finding stands.
    pub(super) fn suspect(&mut self, cause: Halt) {
        if self.status == Status::Running {
            self.status = Status::Suspect(Suspicion { cause, is_asked: false });
        }
    }

    /// Forgets a suspicion whose ground is gone: the inputs are decided again.
    pub(super) fn acquit(&mut self) {
        if self.is_suspect() {
            self.status = Status::Running;
        }
    }

    pub(super) fn drop_open(&mut self) {
        self.open = None;
        self.commands.clear();
        self.postings.clear();
        self.sweep.clear();
        self.due.clear();
        self.read = self.newest().positions;
        self.read.commands = self.read.commands.max(self.lost_before);
    }

    pub(super) fn wants(&self) -> Wants {
        if !self.is_running() {
            return Wants::default();
        }
        Wants {
            commands: self.commands.has_room().then_some(self.read.commands),
            postings: self.postings.has_room().then_some(self.read.postings),
        }
    }

    pub(super) fn offer_commands(&mut self, from: u64, fetched: Fetched) -> Result<(), Halt> {
        if from == self.read.commands && self.is_running() {
            fetched.records.into_iter().for_each(|record| self.commands.push(record));
            self.read.commands = fetched.next;
        }
        Ok(())
    }

    pub(super) fn offer_postings(&mut self, from: u64, fetched: Fetched) -> Result<(), Halt> {
        if from != self.read.postings || !self.is_running() {
            return Ok(());
        }
        for record in &fetched.records {
            let posting =
                Posting::decode(record).map_err(|error| Halt::Posting { offset: record.offset, cause: error.to_string() })?;
            self.postings.push((record.offset, posting));
        }
        self.read.postings = fetched.next;
        Ok(())
    }

    /// How far the inputs are consumed: where none is queued, past the gap behind the last one, so that a partition at rest stands
    /// at the log's end and nothing that it still asks for can be trimmed away.
    pub(super) fn consumed(&self, decided: Positions) -> Positions {
        let past = |is_empty: bool, read: u64, decided: u64| if is_empty { read.max(decided) } else { decided };
        Positions {
            commands: past(self.commands.is_empty(), self.read.commands, decided.commands),
            postings: past(self.postings.is_empty(), self.read.postings, decided.postings),
        }
    }

    /// Whether nothing but an epoch without input would commit that it has read on. Only `commands` are asked about: their topic lets go
    /// of what is old, whoever has read it.
    pub(super) fn has_gap(&self) -> bool {
        let is_idle = self.flight.is_none() && !self.open.as_ref().is_some_and(OpenEpoch::is_worth_committing);
        let committed = self.base.positions;
        let is_behind = committed.commands < self.consumed(committed).commands;
        self.is_running() && is_idle && is_behind && self.unapplied.len() < UNAPPLIED_EPOCHS_MAX
    }

    pub(super) fn has_input(&self) -> bool {
        let proposed = !self.sweep.is_empty() || !self.due.is_empty();
        let queued = proposed || !self.commands.is_empty() || !self.postings.is_empty();
        self.is_running() && queued && self.unapplied.len() < UNAPPLIED_EPOCHS_MAX && !self.is_full()
    }

    pub(super) fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(OpenEpoch::is_full)
    }

    /// Takes an answer to work: the open epoch, and at the head of their queues the inputs that had no room in it.
    pub(super) fn take_answer(&mut self, mut open: OpenEpoch) {
        while let Some(input) = open.untaken.pop() {
            match input {
                Input::Command(record) => self.commands.put_back(record),
                Input::Posting { offset: Some(offset), posting } => self.postings.put_back((offset, posting)),
                // Its row is still there, and it is proposed again.
                Input::Timer { .. } => {}
                // A partition puts back what comes again, and nothing else.
                Input::Posting { offset: None, .. } | Input::Sweep(_) => {}
            }
        }
        self.open = Some(open);
    }

    /// The overlays below the open epoch, newest first.
    pub(super) fn layers(&self) -> Layers {
        let committing = self.flight.iter().map(|flight| flight.overlay.clone());
        committing.chain(self.unapplied.iter().rev().map(|epoch| epoch.overlay.clone())).collect()
    }

    /// Takes the open epoch, or begins one.
    pub(super) fn take_open(&mut self) -> OpenEpoch {
        self.open.take().unwrap_or_else(|| {
            let flight = self.flight.as_ref().map(|flight| &flight.overlay);
            let before = flight.or_else(|| self.unapplied.back().map(|epoch| &epoch.overlay));
            OpenEpoch::new(self.newest().clone(), before.map(Arc::as_ref))
        })
    }

    /// The work of round 0, each with its own share: commands, then postings, because a wallet that was opened before a transfer to it was
    /// sent has to be open when the credit comes; then timers, so that an answer comes before its deadline.
    pub(super) fn wave(&mut self, now_ms: i64, commands_withheld: bool) -> Option<Work> {
        if !self.has_input() {
            return None;
        }
        let mut inputs = Vec::new();
        let postings = self.postings.take(WAVE_POSTINGS_MAX, WAVE_BYTES_MAX);
        if !commands_withheld {
            let commands_max = if self.postings.is_empty() { WAVE_COMMANDS_MAX } else { WAVE_COMMANDS_MIN };
            inputs.extend(self.commands.take(commands_max, WAVE_BYTES_MAX).into_iter().map(Input::Command));
        }
        inputs.extend(postings.into_iter().map(|(offset, posting)| Input::Posting { offset: Some(offset), posting }));
        inputs.extend(self.due.drain(..).map(|(due_ms, payment)| Input::Timer { due_ms, payment }));
        if !self.sweep.is_empty() {
            inputs.push(Input::Sweep(std::mem::take(&mut self.sweep)));
        }
        if inputs.is_empty() {
            return None;
        }
        Some(Work { now_ms, inputs, open: self.take_open(), layers: self.layers() })
    }
}

impl Weighed for Record {
    fn bytes(&self) -> usize {
        Record::bytes(self)
    }
}

impl Weighed for (u64, Posting) {
    fn bytes(&self) -> usize {
        self.1.body.bytes()
    }
}
