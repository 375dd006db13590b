//! Bringing the state of an application into other topics: with another number of partitions, or on another cluster.
//!
//! What stands still ([`rest`]) is dumped; the rows of the dump are dealt out anew by home wallet ([`homes`]), the system accounts go
//! to partition 0, every partition is opened with a balancing `rescale` account ([`books`]), and the journals of the new topics get
//! it as blocks ([`import`]). Sequences begin again, because nothing is on its way.

pub use self::adopt::{Adoption, Replaced};
pub use self::books::{Balances, Books};
pub use self::homes::{Home, home};
pub use self::import::{Import, Imported};
pub use self::rest::{obstacles, unequal_pairs};
pub use self::writing::{IMPORT, IMPORTED, Sizes};

mod adopt;
mod books;
mod homes;
mod import;
mod rest;
mod writing;

use finflow_state::{codec, dump, store};

use crate::log;

/// Why a state cannot be brought into other topics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The log cannot be read or written now. What was brought stays, and the next attempt goes on there.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The dump cannot be read.
    #[error(transparent)]
    Dump(#[from] dump::Error),
    /// The topics hold something else.
    #[error("the topics hold {0} already; a state is brought into new ones only")]
    Occupied(String),
    /// The state does not add up, each fault in words.
    #[error("the state does not add up: {}", .0.join("; "))]
    Unsound(Vec<String>),
    /// What was written is not what was read: nothing of it counts.
    #[error("what was written is not what was dumped: {0}")]
    Different(String),
    /// It cannot end now.
    #[error("{0}")]
    Refused(String),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        Error::Dump(error.into())
    }
}

impl From<codec::Error> for Error {
    fn from(error: codec::Error) -> Error {
        Error::Dump(error.into())
    }
}
