//! What operators have to see first of a partition, and from when on somebody must: told by metrics, `/readyz` and `partitions`.

use std::cmp::Reverse;
use std::time::Duration;

use finflow_topologies::Topic;
use serde::{Deserialize, Serialize};

use crate::metrics;

/// Where an open transaction keeps somebody from what is behind it: lanes from their inputs, consumers from events, and whoever restores
/// or follows a partition from its journal.
pub(crate) const TOPICS: [Topic; 4] = [Topic::Commands, Topic::Postings, Topic::Events, Topic::Journal];
/// A transaction that holds readers back for so long is nobody's ordinary commit: the engine's own end after 10 s.
const TRANSACTION_MAX: Duration = Duration::from_secs(30);
/// A leg that takes so long waits for a partition that does not run.
const LEG_MAX: Duration = Duration::from_secs(60);
/// Of the time for which commands are kept, how many tenths may pass before somebody must see it.
const RETENTION_TENTHS_MAX: u64 = 8;

/// What was seen of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// For how long the oldest leg has waited for its answer, in milliseconds; nobody knows where the partition could not be restored.
    pub leg_oldest_ms: Option<u64>,
    /// For how long the oldest command that is not consumed has waited, in milliseconds; only where it has for a while.
    pub command_oldest_ms: Option<u64>,
    /// For how long the log keeps commands, whether consumed or not, in milliseconds.
    pub commands_kept_ms: Option<u64>,
    /// What an open transaction holds back in each of [`TOPICS`].
    pub(crate) held_back: [Option<HeldBack>; TOPICS.len()],
}

/// Records behind an open transaction: there, and not to be read yet. A commit of the engine's own is over before it is one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// How many offsets they take.
    pub lag: u64,
    /// Since it was seen first, in milliseconds.
    pub for_ms: u64,
}

impl Watched {
    /// What has been held back for longest, and the topic that it is in.
    pub fn held_back_longest(&self) -> Option<(Topic, HeldBack)> {
        let held = TOPICS.into_iter().zip(self.held_back).filter_map(|(topic, held)| Some((topic, held?)));
        // Of those that one transaction holds back, the first.
        held.min_by_key(|(_, held)| Reverse(held.for_ms))
    }

    /// What keeps the partition from its work, or is about to be lost.
    pub(crate) fn faults(&self, partition: u32) -> Vec<(String, String)> {
        let mut found = Vec::new();
        if let Some((topic, held)) = self.held_back_longest().filter(|(_, held)| is_over(held.for_ms, TRANSACTION_MAX)) {
            let (lag, seconds) = (held.lag, held.for_ms / 1_000);
            let cause = format!("an open transaction has held back {lag} offsets of {topic} for {seconds} s");
            found.push((format!("transaction {partition}"), cause));
        }
        if let (Some(waited_ms), Some(kept_ms)) = (self.command_oldest_ms, self.commands_kept_ms)
            && kept_ms.saturating_mul(RETENTION_TENTHS_MAX) <= waited_ms.saturating_mul(10)
        {
            let cause =
                format!("commands have waited for {} s, and the log keeps them for {} s", waited_ms / 1_000, kept_ms / 1_000);
            found.push((format!("retention {partition}"), cause));
        }
        found
    }

    /// What somebody should look at, though this partition works.
    pub(crate) fn warnings(&self, partition: u32) -> Vec<(String, String)> {
        let late = self.leg_oldest_ms.filter(|oldest_ms| is_over(*oldest_ms, LEG_MAX));
        let told =
            late.map(|oldest_ms| (format!("leg {partition}"), format!("has waited for its answer for {} s", oldest_ms / 1_000)));
        told.into_iter().collect()
    }

    pub(crate) fn show(&self, partition: u32, is_halted: bool) {
        let label = partition.to_string();
        let seconds = |ms: Option<u64>| ms.unwrap_or_default() as f64 / 1_000.0;
        ::metrics::gauge!(metrics::PARTITION_HALTED, "partition" => label.clone()).set(f64::from(u8::from(is_halted)));
        ::metrics::gauge!(metrics::LEG_OLDEST_SECONDS, "partition" => label.clone()).set(seconds(self.leg_oldest_ms));
        ::metrics::gauge!(metrics::COMMAND_OLDEST_SECONDS, "partition" => label.clone()).set(seconds(self.command_oldest_ms));
        let used = self.commands_kept_ms.map_or(0.0, |kept_ms| seconds(self.command_oldest_ms) / seconds(Some(kept_ms.max(1))));
        ::metrics::gauge!(metrics::RETENTION_USED_RATIO, "partition" => label.clone()).set(used);
        for (topic, held) in TOPICS.into_iter().zip(self.held_back) {
            let labels = [("topic", topic.word().to_owned()), ("partition", label.clone())];
            let lag = held.map_or(0, |held| held.lag);
            ::metrics::gauge!(metrics::STABLE_OFFSET_LAG, &labels).set(lag as f64);
            ::metrics::gauge!(metrics::TRANSACTION_OLDEST_SECONDS, &labels).set(seconds(held.map(|held| held.for_ms)));
        }
    }
}

fn is_over(found_ms: u64, max: Duration) -> bool {
    max.as_millis() <= u128::from(found_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(watched: &Watched) -> String {
        let lines = watched.faults(3).into_iter().map(|found| ("-", found));
        let lines = lines.chain(watched.warnings(3).into_iter().map(|found| ("!", found)));
        lines.map(|(mark, (what, cause))| format!("{mark}{what} {cause}")).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_lasts_too_long_is_told() {
        let hour_ms = Some(3_600_000);
        let held = |for_ms: [u64; TOPICS.len()]| for_ms.map(|for_ms| (0 < for_ms).then_some(HeldBack { lag: 7, for_ms }));
        let rows: [(Watched, &str); 11] = [
            (Watched::default(), ""),
            (Watched { leg_oldest_ms: Some(59_999), ..Watched::default() }, ""),
            (Watched { leg_oldest_ms: Some(60_000), ..Watched::default() }, "!leg 3 has waited for its answer for 60 s"),
            (Watched { held_back: held([29_999; 4]), ..Watched::default() }, ""),
            (
                Watched { held_back: held([0, 31_000, 0, 0]), ..Watched::default() },
                "-transaction 3 an open transaction has held back 7 offsets of postings for 31 s",
            ),
            (
                Watched { held_back: held([0, 0, 30_000, 0]), ..Watched::default() },
                "-transaction 3 an open transaction has held back 7 offsets of events for 30 s",
            ),
            // Of several, the oldest.
            (
                Watched { held_back: held([31_000, 32_000, 0, 33_000]), ..Watched::default() },
                "-transaction 3 an open transaction has held back 7 offsets of journal for 33 s",
            ),
            (
                Watched { held_back: held([30_000; 4]), ..Watched::default() },
                "-transaction 3 an open transaction has held back 7 offsets of commands for 30 s",
            ),
            (Watched { command_oldest_ms: Some(2_879_999), commands_kept_ms: hour_ms, ..Watched::default() }, ""),
            (
                Watched { command_oldest_ms: Some(2_880_000), commands_kept_ms: hour_ms, ..Watched::default() },
                "-retention 3 commands have waited for 2880 s, and the log keeps them for 3600 s",
            ),
            (Watched { command_oldest_ms: Some(u64::MAX), ..Watched::default() }, ""),
        ];
        for (watched, expected) in rows {
            assert_eq!(told(&watched), expected);
        }
    }
}
