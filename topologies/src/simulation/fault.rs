//! What can be wrong with a world, by kind: a bug is found when it shows as what it is.

use std::fmt;

/// A fault, with the words for whoever looks into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub kind: Kind,
    /// Where, and how.
    pub text: String,
}

/// The kinds of faults. Those up to [`Kind::CreditedElsewhere`] are seen by the auditor, from the events alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An event that is no JSON, or moves money without an amount.
    EventUnreadable,
    /// One event, twice.
    EventTwice,
    /// A payment was executed twice: it moved its money and moved it again.
    SettledTwice,
    /// A payment ended twice in another way.
    EndedTwice,
    /// A payment was left to a human twice, or after it had ended.
    LeftTwice,
    /// A receiver got one payment twice.
    CreditedTwice,
    /// A wallet's events do not follow each other.
    EventMissing,
    /// A balance that an event tells is not the sum of the movements before, or does not add up.
    BalanceWrong,
    /// The wallets do not sum to what was brought in.
    SumWrong,
    /// A receiver got a payment that was not settled.
    CreditedUnsettled,
    /// A transfer was settled, and nobody got it.
    SettledUncredited,
    /// A transfer was settled to one wallet, and another one got it, or another amount.
    CreditedElsewhere,
    /// Dead letters of what can be understood, or none of what cannot.
    DeadLetters,
    /// The rows of a store contradict each other.
    RowsWrong,
    /// Something is still held when everything has ended.
    HoldLeft,
    /// Something is still due when everything has ended.
    TimerLeft,
    /// A store is not what its journal says.
    StoreDiffers,
    /// What one partition sent on its way is not what the other received.
    InTransit,
    /// What was settled is not what was asked.
    NotAsked,
    /// A payment has not ended, was lost, or was made up.
    PaymentLost,
    /// Somebody was told what is not so.
    ToldWrong,
    /// The stores hold other balances than the events tell.
    EventsDiffer,
    /// A partition is halted.
    Halted,
    /// A partition cannot be restored, or its store cannot go on.
    NotRestored,
    /// A commit was fenced that should not be, or was not that should.
    FenceWrong,
    /// A doubt was settled against the truth.
    DoubtWrong,
    /// A partition at rest has not committed how far it has read: what it would ask for may be gone by then.
    PositionBehind,
    /// The world does not come to rest.
    Restless,
    /// A step panicked.
    Panicked,
    /// A step failed that cannot fail.
    Failed,
}

impl Fault {
    pub(super) fn new(kind: Kind, text: impl fmt::Display) -> Fault {
        Fault { kind, text: text.to_string() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}
