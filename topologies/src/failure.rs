//! Why a partition gave nothing back for its work: what its epoch has to be dropped for, and what comes after that.

use finflow_state::store;

use crate::halt::Halt;

/// Why a partition gave nothing back for its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It met what looks like a broken invariant.
    Halted(Halt),
    /// Its store could not be read, for a reason that says nothing about what it holds: a disk that fails, too many open files. The same
    /// inputs can be decided once that has passed.
    Unread(String),
    /// Its actor died; a new one can decide the same inputs again. Said by whoever waits for the answer, never by the partition.
    Lost,
}

/// Whatever breaks an invariant halts.
impl<E: Into<Halt>> From<E> for Failure {
    fn from(cause: E) -> Failure {
        Failure::Halted(cause.into())
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Failure {
        match Halt::of(&error) {
            Some(halt) => Failure::Halted(halt),
            None => Failure::Unread(error.to_string()),
        }
    }
}
