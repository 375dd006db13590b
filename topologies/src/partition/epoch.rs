//! The open epoch of one partition: everything decided since its last commit, lent to the partition and given back.

use std::collections::BTreeMap;
use std::sync::Arc;

use finflow_state::{EncodedBlock, Head, Overlay, Positions};

use super::effects::{Change, Effects, Outcome};
use super::verdict::Verdicts;
use super::{Input, Layers};
use crate::halt::Halt;
use crate::log::Outgoing;
use crate::sizes::{BLOCK_BYTES_SOFT, OVERHEAD_BYTES, RECORDS_BYTES_SOFT};
use crate::wire::v1::Posting;

/// A batch for one partition, with what it may see.
pub struct Work {
    /// The time of the decision, in milliseconds since 1970-01-01 UTC; never before the partition's last block.
    pub now_ms: i64,
    /// The inputs, in order.
    pub inputs: Vec<Input>,
    /// The open epoch.
    pub open: OpenEpoch,
    /// The overlays below it, newest first.
    pub layers: Layers,
}

/// Everything a partition has decided in the open epoch.
#[derive(Debug)]
pub struct OpenEpoch {
    pub(crate) base: Arc<Head>,
    pub(crate) overlay: Overlay,
    pub(crate) events: Vec<Outgoing>,
    pub(crate) dead_letters: Vec<Outgoing>,
    /// Decided in the last round; the next merge hands them over or leaves them for the log.
    pub(crate) postings: Vec<Posting>,
    pub(crate) for_log: Vec<Posting>,
    pub(crate) outcomes: Vec<Outcome>,
    /// What its inputs have come to.
    pub(crate) verdicts: Verdicts,
    pub(crate) sent: BTreeMap<u32, u64>,
    pub(crate) received: BTreeMap<u32, u64>,
    pub(crate) positions: Positions,
    pub(crate) inputs: u64,
    /// It is committed whatever it holds: its positions are past what holds nothing to decide.
    pub(crate) carries: bool,
    /// What it holds besides its changed rows: events, postings, dead letters and answers, in bytes.
    pub(crate) record_bytes: usize,
    /// Inputs for which there was no room any more and which come again, in order.
    pub(crate) untaken: Vec<Input>,
}

/// A committed epoch of one partition.
#[derive(Debug, Clone)]
pub struct Epoch {
    /// The block that the journal has.
    pub block: EncodedBlock,
    /// Its rows.
    pub overlay: Arc<Overlay>,
}

/// Of the room in an epoch.
pub(crate) const QUARTERS: usize = 4;

impl OpenEpoch {
    /// An epoch in which nothing was decided yet, on top of `base`, with room for what the one before it has changed, if that is known.
    pub(crate) fn new(base: Arc<Head>, before: Option<&Overlay>) -> OpenEpoch {
        OpenEpoch {
            positions: base.positions,
            base,
            overlay: before.map(Overlay::like).unwrap_or_default(),
            events: Vec::new(),
            dead_letters: Vec::new(),
            postings: Vec::new(),
            for_log: Vec::new(),
            outcomes: Vec::new(),
            verdicts: Verdicts::new(),
            sent: BTreeMap::new(),
            received: BTreeMap::new(),
            inputs: 0,
            carries: false,
            record_bytes: 0,
            untaken: Vec::new(),
        }
    }

    /// Whether there is anything to commit.
    pub(crate) fn is_worth_committing(&self) -> bool {
        0 < self.inputs || self.carries
    }

    /// Whether it takes no more input before it is committed.
    pub(crate) fn is_full(&self) -> bool {
        self.has_taken(QUARTERS)
    }

    /// Whether so many [`QUARTERS`] of its room are taken.
    pub(crate) fn has_taken(&self, quarters: usize) -> bool {
        let share = |soft: usize| soft / QUARTERS * quarters;
        share(BLOCK_BYTES_SOFT) <= self.overlay.bytes_estimate() || share(RECORDS_BYTES_SOFT) <= self.record_bytes
    }

    /// About how many bytes its part of the transaction takes.
    pub(crate) fn bytes(&self) -> usize {
        self.overlay.bytes_estimate().saturating_add(self.record_bytes)
    }

    /// The last sequence sent to `destination`.
    pub(crate) fn sent_to(&self, destination: u32) -> u64 {
        let known = self.sent.get(&destination).or_else(|| self.base.sent.get(&destination));
        known.copied().unwrap_or_default()
    }

    /// The last sequence received from `source`.
    pub(crate) fn received_from(&self, source: u32) -> u64 {
        let known = self.received.get(&source).or_else(|| self.base.received.get(&source));
        known.copied().unwrap_or_default()
    }

    pub(crate) fn check_sequence(&self, here: u32, posting: &Posting) -> Result<(), Halt> {
        if posting.destination != here {
            return Err(Halt::Misdelivered { here, found: posting.destination });
        }
        let expected = self.received_from(posting.source).saturating_add(1);
        if posting.sequence != expected {
            return Err(Halt::Sequence { from: posting.source, expected, found: posting.sequence });
        }
        Ok(())
    }

    /// Merges the effects of one decided input.
    pub(crate) fn merge(&mut self, input: &Input, effects: &mut Effects) {
        // A timer whose row is gone is nothing to commit.
        if matches!(input, Input::Timer { .. }) && effects.changes.is_empty() {
            return;
        }
        self.consume(input);
        let told = effects.events.iter().chain(&effects.dead_letters).map(|record| held(record.bytes())).sum::<usize>();
        let sent = effects.postings.iter().map(|(_, body)| held(body.bytes())).sum::<usize>();
        let outcomes = effects.outcomes.len().saturating_mul(OVERHEAD_BYTES);
        self.record_bytes = self.record_bytes.saturating_add(told).saturating_add(sent).saturating_add(outcomes);
        for change in effects.changes.drain(..) {
            self.change(change);
        }
        self.events.append(&mut effects.events);
        self.dead_letters.append(&mut effects.dead_letters);
        self.outcomes.append(&mut effects.outcomes);
        if let Some(verdict) = effects.verdict.take() {
            let count = self.verdicts.entry(verdict).or_default();
            *count = count.saturating_add(1);
        }
        for (destination, body) in effects.postings.drain(..) {
            let sequence = self.sent_to(destination).saturating_add(1);
            self.sent.insert(destination, sequence);
            self.postings.push(Posting { source: self.base.partition, destination, sequence, body });
        }
    }

    fn consume(&mut self, input: &Input) {
        self.inputs = self.inputs.saturating_add(1);
        match input {
            Input::Command(record) => self.positions.commands = record.offset.saturating_add(1),
            Input::Posting { offset, posting } => {
                if let Some(offset) = offset {
                    self.positions.postings = offset.saturating_add(1);
                }
                self.received.insert(posting.source, posting.sequence);
            }
            Input::Timer { .. } | Input::Sweep(_) => {}
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Wallet { wallet, born: true } => self.overlay.wallets.insert_new(wallet.id().clone(), wallet),
            Change::Wallet { wallet, born: false } => self.overlay.wallets.put(wallet.id().clone(), wallet),
            Change::Payment { payment, born: true } => self.overlay.payments.insert_new(payment.id, *payment),
            Change::Payment { payment, born: false } => self.overlay.payments.put(payment.id, *payment),
            Change::PaymentRemoved(id) => self.overlay.payments.remove(id),
            Change::Hold { payment, hold } => self.overlay.holds.insert_new(payment, hold),
            Change::HoldRemoved(id) => self.overlay.holds.remove(id),
            Change::Timer { due_ms, payment, kind } => self.overlay.timers.insert_new((due_ms, payment), kind),
            Change::TimerRemoved { due_ms, payment } => self.overlay.timers.remove((due_ms, payment)),
            Change::Account(account) => {
                self.overlay.accounts.put((account.kind(), account.currency()), account.balance().minor())
            }
        }
    }
}

/// What an epoch holds for a record or a posting of so many bytes.
pub(crate) fn held(bytes: usize) -> usize {
    bytes.saturating_add(OVERHEAD_BYTES)
}
