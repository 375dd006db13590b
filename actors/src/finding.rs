//! One finding for each thing that has to be right before a start, with what to do where it is not.

/// One thing that has to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// How it is.
    pub state: State,
}

/// How something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// As it should be; with what was seen.
    Well(String),
    /// It was not looked at, for this reason.
    Skipped(String),
    /// It may be right later: something is down, full or busy.
    Unavailable {
        /// What is wrong.
        cause: String,
        /// What to do about it.
        remedy: String,
    },
    /// It stays wrong until somebody changes it.
    Wrong {
        /// What is wrong.
        cause: String,
        /// What to do about it.
        remedy: String,
    },
}

impl Finding {
    pub(crate) fn well(what: &'static str, seen: impl Into<String>) -> Finding {
        Finding { what, state: State::Well(seen.into()) }
    }

    pub(crate) fn skipped(what: &'static str, why: impl Into<String>) -> Finding {
        Finding { what, state: State::Skipped(why.into()) }
    }

    pub(crate) fn unavailable(what: &'static str, cause: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { what, state: State::Unavailable { cause: cause.into(), remedy: remedy.into() } }
    }

    pub(crate) fn wrong(what: &'static str, cause: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { what, state: State::Wrong { cause: cause.into(), remedy: remedy.into() } }
    }
}
