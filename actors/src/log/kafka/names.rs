//! Names in the group: what the group calls the lanes of this process, and who has which name by the latest look.
//!
//! A lane keeps its name for life; what the group calls its member changes with every life of it. After an outage the client library
//! forgets that, and the coordinator refuses who speaks under the name alone as if another process had taken it; who joins under it takes
//! it from another process, if one has it. Whether one has is found here: it would be in the group under the name, and called as no
//! member of this process ever was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::native::Described;
use super::settings::{HEARTBEAT_INTERVAL, SESSION_TIMEOUT};

/// How old a look may be that is believed: a process may have stood still since, and another one have come.
const FRESH: Duration = Duration::from_secs(3);
// Who is not heard knows it while it is still a member.
const _: () = assert!(FRESH.as_millis() + HEARTBEAT_INTERVAL.as_millis() < SESSION_TIMEOUT.as_millis());

/// Who has a lane's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// The group has nobody of that name.
    Nobody,
    /// A member of this process, of now or of before.
    Own,
    /// A member of another process.
    Another,
}

#[derive(Default)]
struct Table {
    /// What the group calls the lanes of this process.
    own: BTreeMap<String, String>,
    /// Whatever it has ever called them: one more for each time that a lane had to join anew.
    ever: BTreeSet<String>,
    /// When the latest look was asked for, and what the group called the member of each name then.
    seen: Option<(Instant, BTreeMap<String, String>)>,
}

/// Clones share them.
#[derive(Clone, Default)]
pub(super) struct Names(Arc<Mutex<Table>>);

impl Names {
    /// What the group calls the lanes of this process, by lane.
    pub(super) fn own(&self) -> BTreeMap<String, String> {
        self.lock().own.clone()
    }

    /// Whether the group has a name for the lane, as far as this process knows.
    pub(super) fn has(&self, lane: &str) -> bool {
        self.lock().own.contains_key(lane)
    }

    /// Notes what the group calls a lane from now on.
    pub(super) fn note(&self, lane: &str, id: String) {
        let mut table = self.lock();
        table.ever.insert(id.clone());
        table.own.insert(lane.to_owned(), id);
    }

    /// The lane is no member at present, as far as it knows.
    pub(super) fn forget(&self, lane: &str) {
        self.lock().own.remove(lane);
    }

    /// Takes what a look has found that was asked for then.
    pub(super) fn see(&self, asked_at: Instant, members: &[Described]) {
        let named = members.iter().filter(|member| !member.instance_id.is_empty());
        let found = named.map(|member| (member.instance_id.clone(), member.member_id.clone())).collect();
        self.lock().seen = Some((asked_at, found));
    }

    /// Who has the lane's name, by a look that was asked for after `since` and not long before `now`; `None` while there was none.
    pub(super) fn holder(&self, lane: &str, since: Instant, now: Instant) -> Option<Holder> {
        let table = self.lock();
        let is_of_now = |asked_at: Instant| since < asked_at && now.saturating_duration_since(asked_at) < FRESH;
        let (_, found) = table.seen.as_ref().filter(|(asked_at, _)| is_of_now(*asked_at))?;
        Some(match found.get(lane) {
            None => Holder::Nobody,
            Some(id) if table.ever.contains(id) => Holder::Own,
            Some(_) => Holder::Another,
        })
    }

    /// Whether the group has answered, but not for so long that nobody knows who is in it.
    pub(super) fn is_unheard(&self, now: Instant) -> bool {
        let table = self.lock();
        table.seen.as_ref().is_some_and(|(asked_at, _)| FRESH <= now.saturating_duration_since(*asked_at))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row<'a> = (&'a [&'a str], Duration, &'a [(&'a str, &'a str)], Option<Holder>);

    fn member(name: &str, id: &str) -> Described {
        Described { member_id: id.to_owned(), instance_id: name.to_owned(), partitions: vec![] }
    }

    #[test]
    fn a_name_is_taken_only_by_who_is_seen_after_the_refusal_and_was_never_of_this_process() {
        let (before, after) = (Duration::from_millis(500), Duration::from_millis(501));
        // What the group has called the lane, when the look was asked for, whom it found, and who has the name.
        let rows: [Row<'_>; 9] = [
            (&["lane-1"], before, &[("lane", "lane-9")], None),
            (&["lane-1"], before, &[], None),
            (&["lane-1"], after, &[], Some(Holder::Nobody)),
            (&["lane-1"], after, &[("other", "lane-1")], Some(Holder::Nobody)),
            (&["lane-1"], after, &[("", "lane-9"), ("lane", "lane-1")], Some(Holder::Own)),
            (&["lane-1", "lane-2"], after, &[("other", "other-1"), ("lane", "lane-1")], Some(Holder::Own)),
            (&["lane-1", "lane-2"], after, &[("lane", "lane-2")], Some(Holder::Own)),
            (&["lane-1", "lane-2"], after, &[("lane", "lane-9")], Some(Holder::Another)),
            (&[], after, &[("lane", "lane-9")], Some(Holder::Another)),
        ];
        let begun = Instant::now();
        for (called, asked, found, expected) in rows {
            let names = Names::default();
            called.iter().for_each(|id| names.note("lane", (*id).to_owned()));
            names.forget("lane");
            assert!(!names.has("lane"), "it is nobody's until it has joined again");
            assert_eq!(names.holder("lane", begun + before, begun + after), None, "nobody has looked");
            names.see(begun + asked, &found.iter().map(|(name, id)| member(name, id)).collect::<Vec<_>>());
            assert_eq!(names.holder("lane", begun + before, begun + after), expected, "{called:?} {asked:?} {found:?}");
            let later = begun + asked + FRESH;
            assert!(!names.is_unheard(begun + after) && names.is_unheard(later), "the group has been silent for too long");
            assert_eq!(names.holder("lane", begun + before, later), None, "who has it since is not known");
        }
    }
}
