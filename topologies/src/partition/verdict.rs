//! What an input has come to, in one word, for whoever counts. It says nothing about anybody.

use std::collections::BTreeMap;

use finflow_ledger::{Payment, PaymentState, Rejection};

use crate::wire::v1::Code;

/// The reasons of `command.rejected` that are not a [`Rejection`].
pub(super) const KEY_REUSED: &str = "key_reused";
pub(super) const EXPIRED: &str = "expired";

/// What an input has come to. A leg of a transfer that goes on elsewhere has come to nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Money has moved.
    Settled,
    /// A wallet command was carried out.
    Applied,
    /// It was refused by a rule, with this reason.
    Rejected(&'static str),
    /// It had come before, and had its answer then.
    Duplicate,
    /// It was sent on to its home.
    Forwarded,
    /// It cannot be understood or decided.
    DeadLettered(Code),
    /// It has waited for too long and was left to a human.
    Escalated,
}

/// How often each was given.
pub type Verdicts = BTreeMap<Verdict, u64>;

impl Verdict {
    /// Every one that there is.
    pub fn all() -> impl Iterator<Item = Verdict> {
        let single = [Verdict::Settled, Verdict::Applied, Verdict::Duplicate, Verdict::Forwarded, Verdict::Escalated];
        let reasons = Rejection::ALL.iter().map(|rejection| rejection.code()).chain([KEY_REUSED, EXPIRED]);
        single.into_iter().chain(reasons.map(Verdict::Rejected)).chain(Code::ALL.map(Verdict::DeadLettered))
    }

    /// That of a payment, or any other command, which has just reached its state.
    pub(super) fn of(payment: &Payment) -> Option<Verdict> {
        match payment.state {
            PaymentState::Settled => Some(Verdict::Settled),
            PaymentState::Applied => Some(Verdict::Applied),
            PaymentState::Rejected => payment.reason.map(|reason| Verdict::Rejected(reason.code())),
            PaymentState::RequiresAttention => Some(Verdict::Escalated),
            _ => None,
        }
    }
}

/// Adds what an epoch or a partition has counted.
pub(crate) fn add(sum: &mut Verdicts, more: Verdicts) {
    for (verdict, count) in more {
        let known = sum.entry(verdict).or_default();
        *known = known.saturating_add(count);
    }
}
