//! For how long the brokers keep the positions of an application that stands still: once it has no member, the group's offsets expire.
//! Its partitions halt then, and go on from their journals when an operator says so.

use std::time::Duration;

use finflow_topologies::log::Error;
use rdkafka::admin::ResourceSpecifier;
use rdkafka::error::KafkaError;

use super::errors::{is_unauthorized, unavailable};
use super::settings::Settings;
use super::topics::{ADMIN_TIMEOUT, Admin, options, wait};
use crate::finding::Finding;

const WHAT: &str = "positions";
const KEY: &str = "offsets.retention.minutes";
/// A stop that is planned, or that nobody notices, is shorter.
const KEPT_MIN: Duration = Duration::from_secs(30 * 86_400);

/// What the brokers say of it. It is no reason against a start, even where they do not tell it to this principal, or not now.
pub(super) fn look(settings: &Settings) -> Finding {
    match Admin::new(settings).and_then(|admin| admin.positions_kept()) {
        Ok(Some(kept)) => of(kept),
        // The engine does without this right, and is not given it.
        Ok(None) => Finding::skipped(WHAT, format!("not authorized: DescribeConfigs on the cluster; look at the brokers' {KEY}")),
        Err(error) => Finding::skipped(WHAT, error.to_string()),
    }
}

fn of(kept: Duration) -> Finding {
    let days = kept.as_secs() / 86_400;
    let told = format!("kept for {days} days after the last process has stopped");
    if KEPT_MIN <= kept {
        return Finding::well(WHAT, told);
    }
    let longer = format!("have the brokers' {KEY} be longer than any stop, for example {}", KEPT_MIN.as_secs() / 60);
    Finding::well(WHAT, format!("{told}, which is short: {longer}"))
}

impl Admin {
    /// The shortest time that one of the brokers keeps the offsets of a group without members; `None` where none of them tells its
    /// settings, as to somebody who may not see them.
    fn positions_kept(&self) -> Result<Option<Duration>, Error> {
        let metadata = self.client().inner().fetch_metadata(None, ADMIN_TIMEOUT).map_err(unavailable)?;
        let (mut shortest, mut failed): (Option<Duration>, Option<Error>) = (None, None);
        // Each tells its own settings, and is asked by itself.
        for broker in metadata.brokers() {
            let asked = [ResourceSpecifier::Broker(broker.id())];
            let described = wait(self.client().describe_configs(&asked, &options())).map_err(unavailable)?;
            for found in described {
                let minutes = match found.map_err(KafkaError::AdminOp) {
                    Ok(found) => found.get(KEY).and_then(|found| found.value.as_deref()?.parse::<u64>().ok()),
                    Err(error) if is_unauthorized(&error) => None,
                    Err(error) => {
                        failed = failed.or(Some(unavailable(error)));
                        None
                    }
                };
                let kept = minutes.map(|minutes| Duration::from_secs(minutes.saturating_mul(60)));
                shortest = shortest.into_iter().chain(kept).min();
            }
        }
        // What one of them tells says more than that another one does not.
        failed.filter(|_| shortest.is_none()).map_or(Ok(shortest), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn what_is_kept_too_short_is_told_and_stands_against_nothing() {
        for (minutes, expected) in
            [(10_080, "kept for 7 days after the last process has stopped, which is short"), (43_200, "30 days")]
        {
            let found = of(Duration::from_secs(minutes * 60));
            let State::Well(told) = &found.state else { panic!("{found:?}") };
            assert!(told.contains(expected), "{told}");
            assert_eq!(told.contains("for example 43200"), minutes < 43_200, "{told}");
        }
    }
}
