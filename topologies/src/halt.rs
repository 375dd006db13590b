//! Why a partition stops: an invariant is broken, and going on could lose or make money.
//!
//! A halted partition keeps its evidence and says its cause; only an operator's explicit command resumes it.

use finflow_ledger::{Currency, HoldError, IllegalTransition, MoneyError, PaymentId};
use finflow_state::store;

/// The broken invariant, in words an operator can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// What an earlier life of the lane has found, in its words.
    #[error("{0}")]
    Known(String),
    /// Under the protocol this means that the log lost or repeated committed data.
    #[error("posting {found} from partition {from} arrived where {expected} was due")]
    Sequence {
        /// The sending partition.
        from: u32,
        /// The sequence that was due.
        expected: u64,
        /// The sequence that arrived.
        found: u64,
    },
    /// Only commands may be dead-lettered; a posting that cannot be read is a loss.
    #[error("posting at offset {offset} cannot be read: {cause}")]
    Posting {
        /// Its offset in `postings`.
        offset: u64,
        /// What is wrong with it.
        cause: String,
    },
    /// The log does not hold what was not consumed yet: it was trimmed or lost.
    #[error("inputs are lost: {0}")]
    Input(String),
    /// A posting for another partition.
    #[error("posting for partition {found} arrived at partition {here}")]
    Misdelivered {
        /// This partition.
        here: u32,
        /// The partition it names.
        found: u32,
    },
    /// An answer to a payment that holds nothing.
    #[error("acknowledgement of {0}, which holds nothing here")]
    NoHold(PaymentId),
    /// A step the state machine does not know.
    #[error("{0}: {1}")]
    Transition(PaymentId, IllegalTransition),
    /// Decided entries do not sum to zero.
    #[error("entries of one input leave {minor} minor units of {currency} over")]
    Unbalanced {
        /// The currency.
        currency: Currency,
        /// What is left over.
        minor: i128,
    },
    /// A hold that does not fit its wallet.
    #[error("{0}")]
    Hold(#[from] HoldError),
    /// A sum outside what money can be.
    #[error("{0}")]
    Money(#[from] MoneyError),
    /// The effects of one input are larger than a transaction may take.
    #[error("the effects of one input take {0} bytes")]
    TooLarge(usize),
    /// The decision panicked on an input that may not be dead-lettered.
    #[error("panic while deciding: {0}")]
    Panic(String),
    /// Its decisions do not end: a disk that does not answer, or a bug.
    #[error("it does not answer")]
    Hung,
    /// The local state cannot be read or continued.
    #[error("state: {0}")]
    State(String),
    /// The local state is damaged; it can be built again from snapshot and journal.
    #[error("state: the store is corrupt: {0}")]
    Corrupt(String),
}

impl Halt {
    /// What an error of the store halts its partition with; `None` where it says nothing about the rows and may pass.
    pub fn of(error: &store::Error) -> Option<Halt> {
        match error {
            store::Error::Corrupt(cause) => Some(Halt::Corrupt(cause.clone())),
            store::Error::Discontinuous(_) => Some(Halt::State(error.to_string())),
            store::Error::Busy(_) | store::Error::Io(_) => None,
        }
    }
}
