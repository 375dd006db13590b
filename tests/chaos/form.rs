//! What the processes run with besides their names: lanes, and standbys that follow what others run.

use std::fmt::{self, Display, Formatter};

/// The process that has two lanes, where one has.
const TWO_LANED: &str = "two";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One lane in each process, and nobody follows what others run.
    Plain,
    /// The same, and one other process follows each partition.
    Followed,
    /// That, and one of the three has two lanes, and so two shares of the partitions.
    TwoLaned,
}

impl Form {
    /// Of a long run: every other seed has two lanes in a process.
    pub(crate) fn of(seed: u64) -> Form {
        if seed.is_multiple_of(2) { Form::TwoLaned } else { Form::Followed }
    }

    /// The lanes of a process.
    pub(crate) fn lanes(self, name: &str) -> u32 {
        if self == Form::TwoLaned && name == TWO_LANED { 2 } else { 1 }
    }

    /// How many processes follow each partition.
    pub(crate) fn standby_replicas(self) -> u32 {
        match self {
            Form::Plain => 0,
            Form::Followed | Form::TwoLaned => 1,
        }
    }
}

impl Display for Form {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Form::Plain => write!(f, "no standbys, one lane in each process"),
            Form::Followed => write!(f, "one standby for each partition, one lane in each process"),
            Form::TwoLaned => write!(f, "one standby for each partition, two lanes in process {TWO_LANED}"),
        }
    }
}
