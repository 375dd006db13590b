//! What keeps a lane from its work, as a state: told to whoever asks whether all is well, also while the lane itself waits for something.
//!
//! A warning says that something has failed; this says that it still does. What is tried again and succeeds at once, as after a single
//! abort or while the group deals out its partitions anew, is nobody's concern.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use finflow_topologies::Topic;

/// For how long something may fail, be under way or be missing before somebody must see it.
const PATIENCE: Duration = Duration::from_secs(5);
/// What has not failed for so long, and is not being tried, has passed: there was nothing more to commit, or to read.
const PASSED_AFTER: Duration = Duration::from_secs(10);

/// Those of one lane, through all its lives.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Why there is no lane at present.
    dead: Option<Failing>,
    /// Since when the lane has been at one message.
    busy: Option<Instant>,
    /// Since when a commit has been in flight or in doubt.
    in_flight: Option<Instant>,
    /// That nothing is committed.
    commits: Option<Failing>,
    /// What is not read.
    reads: BTreeMap<(Topic, u32), Failing>,
}

/// Something that fails each time it is tried.
#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    cause: String,
}

impl Failing {
    /// Takes note of a failure of what was begun at `begun`; what has passed by then does not count any more.
    fn note(known: &mut Option<Failing>, begun: Instant, now: Instant, cause: String) {
        let since = known.as_ref().filter(|failing| !failing.has_passed(begun)).map_or(begun, |failing| failing.since);
        *known = Some(Failing { since, last: now, cause });
    }

    fn has_passed(&self, now: Instant) -> bool {
        PASSED_AFTER <= now.saturating_duration_since(self.last)
    }

    /// Whether it has failed again and again for too long.
    fn lasts(&self) -> bool {
        PATIENCE <= self.last.saturating_duration_since(self.since)
    }
}

impl Troubles {
    /// The lane has died, or does not start.
    pub(crate) fn dead(&self, now: Instant, cause: String) {
        let mut known = self.lock();
        (known.busy, known.in_flight) = (None, None);
        known.reads.clear();
        let since = known.dead.as_ref().map_or(now, |dead| dead.since);
        known.dead = Some(Failing { since, last: now, cause });
    }

    /// There is a lane, or there will be none and its partitions say so. What it could not commit it still has to.
    pub(crate) fn alive(&self) {
        self.lock().dead = None;
    }

    /// The lane begins with a message.
    pub(crate) fn busy(&self, now: Instant) {
        self.lock().busy = Some(now);
    }

    /// It is done with it.
    pub(crate) fn idle(&self) {
        self.lock().busy = None;
    }

    /// A commit begins.
    pub(crate) fn commits(&self, now: Instant) {
        self.lock().in_flight = Some(now);
    }

    /// It has failed so far; whether it is over, [`Troubles::settled`] says.
    pub(crate) fn not_committed(&self, now: Instant, cause: String) {
        let known = &mut *self.lock();
        Failing::note(&mut known.commits, known.in_flight.unwrap_or(now), now, cause);
    }

    /// How the commit in flight has ended is certain.
    pub(crate) fn settled(&self, is_committed: bool) {
        let mut known = self.lock();
        known.in_flight = None;
        if is_committed {
            known.commits = None;
        }
    }

    /// Something could not be read.
    pub(crate) fn not_read(&self, now: Instant, topic: Topic, partition: u32, cause: String) {
        let mut known = self.lock();
        let mut failing = known.reads.remove(&(topic, partition));
        Failing::note(&mut failing, now, now, cause);
        known.reads.extend(failing.map(|failing| ((topic, partition), failing)));
    }

    /// Something was read.
    pub(crate) fn read(&self, topic: Topic, partition: u32) {
        self.lock().reads.remove(&(topic, partition));
    }

    /// What somebody must see now.
    pub(crate) fn told(&self, now: Instant) -> Vec<String> {
        let known = self.lock();
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        let dead = known.dead.as_ref().filter(|dead| is_over(dead.since, now));
        let dead = dead.map(|dead| format!("has not run for {} s: {}", seconds(dead.since), dead.cause));
        let busy =
            known.busy.filter(|since| is_over(*since, now)).map(|since| format!("has been at one step for {} s", seconds(since)));
        let mut reads: Vec<_> = known.reads.iter().filter(|(_, failing)| failing.lasts() && !failing.has_passed(now)).collect();
        reads.sort_by_key(|(_, failing)| failing.since);
        let reads = reads.first().map(|((topic, partition), Failing { since, cause, .. })| {
            let others = match reads.len() {
                1 => String::new(),
                count => format!(", nor {} others", count.saturating_sub(1)),
            };
            format!("cannot read {topic} {partition}{others}, for {} s: {cause}", seconds(*since))
        });
        let commits = known.not_committed(now);
        let commits = commits.map(|(since, cause)| format!("has committed nothing for {} s: {cause}", seconds(since)));
        dead.into_iter().chain(busy).chain(commits).chain(reads).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// That nothing is committed. A commit that is tried again is one more of those that have failed, until it succeeds.
    fn not_committed(&self, now: Instant) -> Option<(Instant, &str)> {
        let failing = self.commits.as_ref().filter(|failing| !failing.has_passed(self.in_flight.unwrap_or(now)));
        let hangs = self.in_flight.is_some_and(|begun| is_over(begun, now));
        if !hangs && !failing.is_some_and(Failing::lasts) {
            return None;
        }
        match failing {
            Some(failing) => Some((failing.since, failing.cause.as_str())),
            None => Some((self.in_flight?, "the log has not answered yet")),
        }
    }
}

fn is_over(since: Instant, now: Instant) -> bool {
    PATIENCE <= now.saturating_duration_since(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens to a lane, and when, in milliseconds.
    enum Step {
        Dead(&'static str),
        Alive,
        Busy,
        Idle,
        Commits,
        NotCommitted(&'static str),
        Settled(bool),
        NotRead(u32, &'static str),
        Read(u32),
        /// What is told then.
        Told(&'static str),
    }

    #[test]
    fn what_lasts_is_told_and_what_passes_is_not() {
        use Step::*;
        let rows: [(&str, &[(u64, Step)]); 12] = [
            ("nothing happens", &[(0, Told("")), (3_600_000, Told(""))]),
            (
                "a commit takes its time",
                &[
                    (0, Commits),
                    (4_999, Told("")),
                    (5_000, Told("has committed nothing for 5 s: the log has not answered yet")),
                    (29_000, Told("has committed nothing for 29 s: the log has not answered yet")),
                    (29_100, Settled(true)),
                    (29_100, Told("")),
                ],
            ),
            (
                "a single abort",
                &[
                    (0, Commits),
                    (20, NotCommitted("a")),
                    (20, Settled(false)),
                    (220, Commits),
                    (230, Settled(true)),
                    (6_000, Told("")),
                ],
            ),
            (
                "an abort, and the partition goes, so that nothing is left to commit",
                &[(0, Commits), (20, NotCommitted("a")), (20, Settled(false)), (5_100, Told("")), (9_000, Told(""))],
            ),
            (
                "each commit is aborted at once",
                &[
                    (0, Commits),
                    (10, NotCommitted("a")),
                    (10, Settled(false)),
                    (2_500, Commits),
                    (2_510, NotCommitted("b")),
                    (2_510, Settled(false)),
                    (4_900, Commits),
                    (4_950, Told("")),
                    (5_100, NotCommitted("c")),
                    (5_100, Settled(false)),
                    (5_200, Told("has committed nothing for 5 s: c")),
                    (6_000, Commits),
                    (6_100, Told("has committed nothing for 6 s: c")),
                    (6_200, Settled(true)),
                    (6_200, Told("")),
                ],
            ),
            (
                "an abort, and another commit a while after it",
                &[
                    (0, Commits),
                    (20, NotCommitted("a")),
                    (20, Settled(false)),
                    (7_000, Commits),
                    (7_010, Told("")),
                    (7_020, Settled(true)),
                    (7_020, Told("")),
                ],
            ),
            (
                "one abort, and another one long after it",
                &[
                    (0, Commits),
                    (10, NotCommitted("a")),
                    (10, Settled(false)),
                    (60_000, Commits),
                    (60_010, Told("")),
                    (60_020, NotCommitted("b")),
                    (60_020, Settled(false)),
                    (60_030, Told("")),
                ],
            ),
            (
                "a doubt that is not settled, and then is: nothing of it was committed",
                &[
                    (0, Commits),
                    (1_000, NotCommitted("in doubt")),
                    (4_000, NotCommitted("nobody answers")),
                    (4_900, Told("")),
                    (30_000, Told("has committed nothing for 30 s: nobody answers")),
                    (30_100, Settled(false)),
                    (30_300, Commits),
                    (30_400, Settled(true)),
                    (30_400, Told("")),
                ],
            ),
            (
                "what has failed for long, and is not tried any more",
                &[
                    (0, Commits),
                    (7_000, NotCommitted("late")),
                    (7_000, Settled(false)),
                    (7_100, Told("has committed nothing for 7 s: late")),
                    (17_000, Told("")),
                ],
            ),
            (
                "reads",
                &[
                    (0, NotRead(1, "gone")),
                    (1_000, NotRead(2, "gone too")),
                    (4_999, NotRead(1, "gone")),
                    (5_000, Told("")),
                    (6_000, NotRead(1, "still gone")),
                    (6_000, Told("cannot read commands 1, for 6 s: still gone")),
                    (6_500, NotRead(2, "gone too")),
                    (7_000, Told("cannot read commands 1, nor 1 others, for 7 s: still gone")),
                    (7_100, Read(1)),
                    (7_200, Told("cannot read commands 2, for 6 s: gone too")),
                    (16_500, Told("")),
                ],
            ),
            (
                "a lane that hangs",
                &[
                    (0, Busy),
                    (10, Idle),
                    (20, Busy),
                    (5_020, Told("has been at one step for 5 s")),
                    (5_030, Idle),
                    (5_040, Told("")),
                ],
            ),
            (
                "a lane that dies over a commit and does not start",
                &[
                    (0, Busy),
                    (0, Commits),
                    (10, Dead("killed")),
                    (4_000, Dead("refused")),
                    (5_000, Told("")),
                    (5_010, Told("has not run for 5 s: refused")),
                    (6_000, Alive),
                    (60_000, Told("")),
                ],
            ),
        ];
        let begun = Instant::now();
        for (what, steps) in rows {
            let troubles = Troubles::default();
            for (at_ms, step) in steps {
                let now = begun + Duration::from_millis(*at_ms);
                match step {
                    Dead(cause) => troubles.dead(now, (*cause).to_owned()),
                    Alive => troubles.alive(),
                    Busy => troubles.busy(now),
                    Idle => troubles.idle(),
                    Commits => troubles.commits(now),
                    NotCommitted(cause) => troubles.not_committed(now, (*cause).to_owned()),
                    Settled(is_committed) => troubles.settled(*is_committed),
                    NotRead(partition, cause) => troubles.not_read(now, Topic::Commands, *partition, (*cause).to_owned()),
                    Read(partition) => troubles.read(Topic::Commands, *partition),
                    Told(expected) => assert_eq!(troubles.told(now).join("; "), *expected, "{what}, at {at_ms} ms"),
                }
            }
        }
    }
}
