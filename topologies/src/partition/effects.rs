//! What deciding one input asks for: changed rows, events, dead letters, postings. Nothing here has happened yet.
//!
//! Effects are merged into the open epoch only when the whole input was decided, so a refusal or a panic leaves nothing behind.

use finflow_ledger::{Account, Currency, Hold, Money, Payment, PaymentId, PaymentState, Wallet};

use crate::halt::Halt;
use crate::log::Outgoing;
use crate::wire::v1::PostingBody;

/// The effects of one input may take this many bytes at most; what a command within its own limits can cause is far below.
pub const INPUT_BYTES_MAX: usize = 128 * 1024;

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
    drift: Vec<(Currency, i128)>,
}

impl Effects {
    pub(crate) fn clear(&mut self) {
        self.changes.clear();
        self.events.clear();
        self.dead_letters.clear();
        self.postings.clear();
        self.outcomes.clear();
        self.drift.clear();
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
        let bytes: usize = self.events.iter().chain(&self.dead_letters).map(outgoing_bytes).sum();
        if self.events.len() + self.postings.len() + self.dead_letters.len() < 16 && bytes <= INPUT_BYTES_MAX {
            return Ok(());
        }
        // A dead letter carries its original whole and may be larger than what a decision may cause.
        if self.events.is_empty() && self.dead_letters.len() <= 1 {
            return Ok(());
        }
        Err(Halt::TooLarge(bytes))
    }
}

fn outgoing_bytes(record: &Outgoing) -> usize {
    record.value.as_ref().map_or(0, |value| value.len()) + record.headers.as_bytes().len()
}
