//! What operators have to see first of the partitions that run here: the oldest leg in transit, the oldest open transaction, and for how
//! long commands have waited, against the time for which the log keeps them. What it means is told in `watched.rs`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use finflow_state::store;
use finflow_topologies::Topic;
use finflow_topologies::log::{Error, Log};
use tracing::warn;

use super::legs::Legs;
use super::{Args, Seen};
use crate::clock::Reading;
use crate::committed::Condition;
use crate::watched::{HeldBack, TOPICS, Watched};

/// How often each partition is looked at; one a step, so that more than a hundred take longer.
const EVERY_MS: i64 = 10_000;
/// Holds read in one look; where there are more, the next look goes on behind them.
const HOLDS_MAX: usize = 4_096;
/// How often the log is asked for how long it keeps commands.
const RETENTION_EVERY_MS: i64 = 3_600_000;

/// A partition of the log that cannot be looked at so many times in a row is out of reach; once may be a leader that moves.
const FAILED_MIN: u32 = 2;

/// What is remembered from look to look.
#[derive(Default)]
pub(super) struct Lookout {
    /// When each partition is looked at next, on the monotonic clock.
    due_ms: BTreeMap<u32, i64>,
    /// How far the search for each partition's oldest leg has come.
    legs: BTreeMap<u32, Legs>,
    /// How far each topic's partition could be read.
    stable: BTreeMap<(Topic, u32), Stable>,
    /// Where commands ended at the last look: one before it that still waits has waited for a while.
    commands_end: BTreeMap<u32, u64>,
    /// How many looks in a row have come to nothing, where any has.
    failed: BTreeMap<u32, u32>,
    /// For how long the log keeps commands, and when to ask again.
    kept: (Option<Duration>, i64),
}

/// The end of what can be read.
struct Stable {
    end: u64,
    /// Since when something has been seen behind it.
    held_since_ms: Option<i64>,
}

impl Lookout {
    pub(super) fn new(args: &Args, now_ms: i64) -> Lookout {
        let due_ms = args.partitions.keys().map(|id| (*id, now_ms)).collect();
        Lookout { due_ms, kept: (None, now_ms), ..Lookout::default() }
    }

    /// Looks at the partition that has not been looked at for longest, if it is due. Gives what is wrong with its store, if that was what
    /// prevented it.
    pub(super) fn step(&mut self, args: &Args, now: Reading) -> Option<(u32, store::Error)> {
        let (id, due_ms) =
            self.due_ms.iter_mut().min_by_key(|(_, due_ms)| **due_ms).filter(|(_, due_ms)| **due_ms <= now.monotonic_ms)?;
        *due_ms = now.monotonic_ms.saturating_add(EVERY_MS);
        let id = *id;
        let committed = args.partitions.get(&id)?.clone();
        let condition = committed.condition();
        let is_halted = condition.halted.is_some();
        let is_halted_here = is_halted && condition.owner().is_some();
        if committed.running().is_none() && !is_halted_here {
            committed.watch(Watched::default());
            Watched::default().show(id, is_halted);
            self.note(&args.misfit, id, None);
            return None;
        }
        let mut watched = Watched::default();
        // A store that could not be brought to what is committed may still be open.
        let is_restored = condition.lane.is_some();
        let search = self.legs.entry(id).or_default();
        let legs = if is_restored { search.oldest_ms(&committed, HOLDS_MAX, now.wall_ms) } else { Ok(None) };
        watched.leg_oldest_ms = legs.as_ref().ok().copied().flatten();
        if args.log.fault().is_none() {
            let looked = self.log(args, id, &condition, now, &mut watched);
            self.note(&args.misfit, id, looked.err().map(|cause| cause.to_string()));
        }
        committed.watch(watched);
        watched.show(id, is_halted);
        legs.err().map(|error| (id, error))
    }

    /// What the log has to tell.
    fn log(&mut self, args: &Args, id: u32, condition: &Condition, now: Reading, watched: &mut Watched) -> Result<(), Error> {
        let in_ms = |kept: Duration| u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
        watched.commands_kept_ms = self.kept.0.map(in_ms);
        // First of all, so that what is out of reach does not hide for how long commands have waited: they may expire.
        let commands = args.log.range(Topic::Commands, id)?;
        watched.command_oldest_ms = self.waited_ms(args, id, condition, &commands, now)?;
        if args.log.is_shared() && self.kept.1 <= now.monotonic_ms {
            self.kept = (args.log.commands_kept()?, now.monotonic_ms.saturating_add(RETENTION_EVERY_MS));
            watched.commands_kept_ms = self.kept.0.map(in_ms);
        }
        for (topic, held) in TOPICS.into_iter().zip(&mut watched.held_back) {
            let end = if topic == Topic::Commands { commands.end } else { args.log.range(topic, id)?.end };
            *held = self.held_back(topic, id, end, now.monotonic_ms, || args.log.written(topic, id))?;
        }
        Ok(())
    }

    /// For how long the oldest command has waited that was there at the last look already.
    fn waited_ms(
        &mut self,
        args: &Args,
        id: u32,
        condition: &Condition,
        range: &Range<u64>,
        now: Reading,
    ) -> Result<Option<u64>, Error> {
        // Commands wait for a halted partition as well, whose lane does not tell any more how far it has come. Where its position is lost
        // or somebody else's, nobody can tell.
        let next = match &condition.halted {
            None => condition.commands_next,
            Some(_) => match args.log.position(id) {
                Ok(Some(position)) => position.commands,
                Ok(None) | Err(Error::Corrupt(_)) => return Ok(None),
                Err(cause) => return Err(cause),
            },
        };
        let before = self.commands_end.insert(id, range.end).unwrap_or_default();
        if before.min(range.end) <= next {
            return Ok(None);
        }
        let waiting = args.log.fetch(Topic::Commands, id, next.max(range.start), 1)?.records;
        let waited_ms = waiting.first().map(|record| now.wall_ms.saturating_sub(record.timestamp_ms));
        Ok(waited_ms.map(|waited_ms| u64::try_from(waited_ms).unwrap_or_default()))
    }

    /// Takes note of how a look has ended: what cannot be read is told by nobody else, because readers only wait for more.
    fn note(&mut self, seen: &Seen, id: u32, cause: Option<String>) {
        let Some(cause) = cause else {
            self.failed.remove(&id);
            seen.note(&format!("log {id}"), None);
            return;
        };
        warn!(partition = id, cause, "what waits in the log cannot be looked at");
        let failed = self.failed.entry(id).or_default();
        *failed = failed.saturating_add(1);
        if FAILED_MIN <= *failed {
            seen.note(&format!("log {id}"), Some(format!("cannot be looked at: {cause}")));
        }
    }

    /// What an open transaction holds back behind `stable`, the end of what can be read; `written` gives the end of everything.
    ///
    /// As long as a transaction is open that end stands still: where it has moved since the last look, nothing more is asked. And it moves
    /// with every transaction that ends, so what is behind it at two looks is of one that was open in between, for longer than any commit.
    fn held_back(
        &mut self,
        topic: Topic,
        id: u32,
        stable: u64,
        now_ms: i64,
        written: impl FnOnce() -> Result<u64, Error>,
    ) -> Result<Option<HeldBack>, Error> {
        let known = self.stable.entry((topic, id)).or_insert(Stable { end: stable, held_since_ms: None });
        if known.end != stable {
            *known = Stable { end: stable, held_since_ms: None };
            return Ok(None);
        }
        let lag = written()?.saturating_sub(stable);
        if lag == 0 {
            known.held_since_ms = None;
            return Ok(None);
        }
        let since_ms = *known.held_since_ms.get_or_insert(now_ms);
        let for_ms = u64::try_from(now_ms.saturating_sub(since_ms)).unwrap_or_default();
        Ok(Some(HeldBack { lag, for_ms }).filter(|held| 0 < held.for_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_of_the_log_that_is_out_of_reach_is_told_from_the_second_look_on() {
        let (mut lookout, seen) = (Lookout::default(), Seen::default());
        // How each look at partition 1 ends, and what is told then.
        let rows = [
            (None, ""),
            (Some("no leader"), ""),
            (None, ""),
            (Some("no leader"), ""),
            (Some("down"), "log 1 cannot be looked at: down"),
            (Some("still down"), "log 1 cannot be looked at: still down"),
            (None, ""),
        ];
        for (cause, expected) in rows {
            lookout.note(&seen, 1, cause.map(str::to_owned));
            // Another partition is another matter.
            lookout.note(&seen, 2, None);
            let told: Vec<String> = seen.all().into_iter().map(|(what, cause)| format!("{what} {cause}")).collect();
            assert_eq!(told.join("; "), expected, "{cause:?}");
        }
    }

    #[test]
    fn an_open_transaction_is_as_old_as_what_it_holds_back_stands_still() {
        let mut watch = Lookout::default();
        // When it is looked at, how far records can be read, where they end if that is asked; how many are held back, and for how long.
        let rows = [
            (0, 5, Some(5), None),
            (10, 5, Some(8), None),
            (20, 5, Some(9), Some((4, 10))),
            (30, 7, None, None),
            (40, 7, Some(9), None),
            (50, 7, Some(9), Some((2, 10))),
            (60, 7, Some(12), Some((5, 20))),
            (70, 12, None, None),
            (80, 12, Some(12), None),
            // A commit is under way at one look, and another one two looks later.
            (90, 12, Some(15), None),
            (100, 15, None, None),
            (110, 15, Some(18), None),
            (120, 18, None, None),
        ];
        for (now_ms, stable, end, expected) in rows {
            let mut asked = None;
            let found = watch.held_back(Topic::Journal, 1, stable, now_ms, || {
                asked = end;
                end.ok_or_else(|| Error::Unavailable("nobody was to ask".to_owned()))
            });
            assert_eq!(found.expect("an end").map(|held| (held.lag, held.for_ms)), expected, "{now_ms}");
            assert_eq!(asked, end, "{now_ms}");
            // Another partition is another matter, and so is another topic.
            for (topic, id) in [(Topic::Journal, 2), (Topic::Events, 1)] {
                assert_eq!(watch.held_back(topic, id, 1, now_ms, || Ok(1)).expect("an end"), None);
            }
        }
    }
}
