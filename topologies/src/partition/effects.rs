//! What deciding one input asks for: changed rows, events, dead letters, postings. Nothing here has happened yet.
//!
//! Effects are merged into the open epoch only when the whole input was decided, so a refusal or a panic leaves nothing behind.

use finflow_ledger::{Account, Currency, Hold, Money, Payment, PaymentId, PaymentState, Wallet};
use finflow_state::{Payments, Table, TimerKind, Timers, Wallets};

use super::verdict::Verdict;
use crate::halt::Halt;
use crate::log::Outgoing;
use crate::sizes::INPUT_BYTES_MAX;
use crate::topics::DEAD_LETTER_BYTES_MAX;
use crate::wire::v1::{Code, PostingBody};

/// Records that one input may cause: what is decided causes three at most.
const RECORDS_MAX: usize = 15;
/// What a changed row of fixed size takes in a block, in bytes; a removal takes less.
const ROW_BYTES: usize = 160;

/// What became of a command, for those who wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The payment or wallet command.
    pub payment: PaymentId,
    /// The state it has reached.
    pub state: PaymentState,
}

/// One changed row. `born` says that no older layer holds the row.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Wallet { wallet: Wallet, born: bool },
    Payment { payment: Box<Payment>, born: bool },
    PaymentRemoved(PaymentId),
    Hold { payment: PaymentId, hold: Hold },
    HoldRemoved(PaymentId),
    Timer { due_ms: i64, payment: PaymentId, kind: TimerKind },
    TimerRemoved { due_ms: i64, payment: PaymentId },
    Account(Account),
}

/// Everything one input causes.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) changes: Vec<Change>,
    pub(crate) events: Vec<Outgoing>,
    pub(crate) dead_letters: Vec<Outgoing>,
    pub(crate) postings: Vec<(u32, PostingBody)>,
    pub(crate) outcomes: Vec<Outcome>,
    /// What the input has come to, if to anything.
    pub(crate) verdict: Option<Verdict>,
    drift: Vec<(Currency, i128)>,
}

impl Effects {
    pub(crate) fn clear(&mut self) {
        self.changes.clear();
        self.events.clear();
        self.dead_letters.clear();
        self.postings.clear();
        self.outcomes.clear();
        self.verdict = None;
        self.drift.clear();
    }

    /// Gives up what cannot be understood or decided.
    pub(crate) fn give_up(&mut self, letter: Outgoing, code: Code) {
        self.dead_letters.push(letter);
        self.verdict = Some(Verdict::DeadLettered(code));
    }

    /// Notes that an account's ledger balance moved from `before` to `after`.
    pub(crate) fn moved(&mut self, before: Money, after: Money) -> Result<(), Halt> {
        let by = after.checked_sub(before)?;
        if by.is_zero() {
            return Ok(());
        }
        match self.drift.iter_mut().find(|(currency, _)| *currency == by.currency()) {
            Some((currency, sum)) => {
                let (currency, minor) = (*currency, by.minor());
                *sum = sum.checked_add(minor).ok_or(Halt::Unbalanced { currency, minor })?;
            }
            None => self.drift.push((by.currency(), by.minor())),
        }
        Ok(())
    }

    /// Double entry: the movements of one input sum to zero per currency, and the whole stays within its size.
    pub(crate) fn check(&self) -> Result<(), Halt> {
        if let Some((currency, minor)) = self.drift.iter().find(|(_, sum)| *sum != 0) {
            return Err(Halt::Unbalanced { currency: *currency, minor: *minor });
        }
        let records = self.events.iter().chain(&self.dead_letters).map(Outgoing::bytes).sum::<usize>();
        let postings = self.postings.iter().map(|(_, body)| body.bytes()).sum::<usize>();
        let rows = self.changes.iter().map(Change::bytes).sum::<usize>();
        let count = self.events.len() + self.postings.len() + self.dead_letters.len();
        let bytes = records + postings + rows;
        // What carries its original whole is no decision, and may be larger than one.
        let bytes_max = if self.is_passed_on() { DEAD_LETTER_BYTES_MAX } else { INPUT_BYTES_MAX };
        if RECORDS_MAX < count || bytes_max < bytes { Err(Halt::TooLarge(bytes)) } else { Ok(()) }
    }

    /// Whether the input is dead-lettered or forwarded, and nothing else.
    fn is_passed_on(&self) -> bool {
        let is_changed = !self.changes.is_empty() || !self.events.is_empty();
        match (&self.dead_letters[..], &self.postings[..]) {
            _ if is_changed => false,
            ([_], []) | ([], [(_, PostingBody::Forward { .. })]) => true,
            _ => false,
        }
    }
}

impl Change {
    /// About how many bytes its row takes in the block.
    fn bytes(&self) -> usize {
        match self {
            Change::Wallet { wallet, .. } => Wallets::size(wallet.id(), wallet),
            Change::Payment { payment, .. } => Payments::size(&payment.id, payment),
            Change::Timer { due_ms, payment, kind } => Timers::size(&(*due_ms, *payment), kind),
            Change::Hold { .. } | Change::Account(_) => ROW_BYTES,
            Change::PaymentRemoved(_) | Change::HoldRemoved(_) | Change::TimerRemoved { .. } => 64,
        }
    }
}
