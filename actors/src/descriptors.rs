//! How many files this process may have open at once. Stores and log keep theirs open; past the limit the next one cannot be read.

use finflow_state::RocksStore;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::finding::Finding;
use crate::log::embedded;
use crate::settings::Settings;

/// For everything else: connections, pipes and clients' own files, and a copy of a store that is being read.
const BESIDE: u64 = 512;

/// Raises what this process may open to the most that it may allow itself, and says so where that may be too little.
pub fn raise(settings: &Settings) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(cause) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        warn!(%cause, limit = limit.current, "the limit of open files cannot be raised");
    }
    let (allowed, needed) = (getrlimit(Resource::Nofile).current, needed(settings));
    if let Some(allowed) = allowed.filter(|allowed| *allowed < needed) {
        warn!(allowed, needed, "the limit of open files may be too low");
    }
}

/// Whether a process started here could open what it may need.
pub(crate) fn finding(settings: &Settings) -> Finding {
    finding_of(getrlimit(Resource::Nofile).maximum, needed(settings))
}

fn finding_of(allowed: Option<u64>, needed: u64) -> Finding {
    const WHAT: &str = "open files";
    match allowed {
        None => Finding::well(WHAT, format!("there is no limit; it may need {needed}")),
        Some(allowed) if needed <= allowed => Finding::well(WHAT, format!("{allowed} are allowed; it may need {needed}")),
        Some(allowed) => {
            let remedy =
                "raise the hard limit, for example with `ulimit -Hn` or LimitNOFILE=; a start raises the soft one by itself";
            Finding::wrong(WHAT, format!("{allowed} are allowed; it may need {needed}"), remedy)
        }
    }
}

/// What a process may open that runs all partitions, as the last one does.
fn needed(settings: &Settings) -> u64 {
    let stores = u64::from(settings.partitions).saturating_mul(RocksStore::OPEN_FILES_MAX.into());
    let log = if settings.kafka.is_none() { embedded::OPEN_FILES_MAX.into() } else { 0 };
    stores.saturating_add(log).saturating_add(BESIDE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn what_is_allowed_is_held_against_what_may_be_needed() {
        for (allowed, expected) in [
            (None, "well: there is no limit; it may need 2816"),
            (Some(2_816), "well: 2816 are allowed; it may need 2816"),
            (Some(2_815), "wrong: 2815 are allowed; it may need 2816"),
        ] {
            let told = match finding_of(allowed, 2_816).state {
                State::Well(seen) => format!("well: {seen}"),
                State::Wrong { cause, .. } => format!("wrong: {cause}"),
                other => format!("{other:?}"),
            };
            assert_eq!(told, expected);
        }
    }
}
