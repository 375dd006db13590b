//! Commits that fail, and commits of which nobody knows at first whether they did.

use super::{Faulty, claim, claimed, epoch, position, stamp, texts};
use crate::log::simulated::Fault;
use crate::log::{Commit, Error, Resolution};
use crate::topics::Topic;

pub(super) fn an_abort_leaves_nothing(harness: &mut dyn Faulty) {
    let log = harness.open();
    let mut session = log.session("lane/0").expect("a session");
    let claims = [(0, claim(harness, &mut *session, 0)), (1, claim(harness, &mut *session, 1))];
    assert_eq!(session.commit(epoch(1, &claims)), Commit::Committed);
    harness.fail_next(Fault::Abort);
    let aborted = session.commit(epoch(2, &claims));
    assert!(matches!(aborted, Commit::Aborted(_)), "{aborted}");
    assert_eq!(session.commit(epoch(3, &claims)), Commit::Committed, "the session and its claims go on");
    assert_eq!(texts(harness, &*log, Topic::Events, 0, 2), ["events 1", "events 3"]);
    assert_eq!(texts(harness, &*log, Topic::Journal, 1, 2), ["journal 1", "journal 3"]);
}

pub(super) fn about_what_was_committed(harness: &mut dyn Faulty) {
    settle(harness, Fault::DoubtCommitted, Resolution::Committed, &["events 1", "events 2", "events 3"]);
}

pub(super) fn about_what_was_not(harness: &mut dyn Faulty) {
    settle(harness, Fault::DoubtAborted, Resolution::Aborted, &["events 1", "events 3"]);
}

/// Settles a doubt, goes on, and finds exactly what was committed, also after a restart.
fn settle(harness: &mut dyn Faulty, fault: Fault, settled: Resolution, due: &[&str]) {
    let log = harness.open();
    let mut session = log.session("lane/0").expect("a session");
    let claims = [(0, claim(harness, &mut *session, 0)), (1, claim(harness, &mut *session, 1))];
    assert_eq!(session.commit(epoch(1, &claims)), Commit::Committed);
    harness.fail_next(fault);
    let doubt = session.commit(epoch(2, &claims));
    assert!(matches!(doubt, Commit::InDoubt(_)), "{doubt}");
    assert_eq!(session.resolve(&stamp(2)), Ok(settled));
    assert_eq!(session.commit(epoch(3, &claims)), Commit::Committed, "the session and its claims go on");
    for partition in [0, 1] {
        assert_eq!(texts(harness, &*log, Topic::Events, partition, due.len()), due);
    }
    drop((session, log));

    let log = harness.open();
    for partition in [0, 1] {
        assert_eq!(texts(harness, &*log, Topic::Events, partition, due.len()), due);
        let mut session = log.session("lane/0").expect("a session");
        assert_eq!(claimed(harness, &mut *session, partition).position, Some(position(partition, 3)));
    }
}

pub(super) fn come_first(harness: &mut dyn Faulty) {
    let log = harness.open();
    for (fault, due) in [(Fault::DoubtCommitted, vec!["events 1"]), (Fault::DoubtAborted, vec!["events 1"])] {
        let mut session = log.session("lane/0").expect("a session");
        let claimed = claimed(harness, &mut *session, 0);
        let block = claimed.position.map_or(1, |position| position.block + 1);
        harness.fail_next(fault);
        let doubt = session.commit(epoch(block, &[(0, claimed.epoch)]));
        assert!(matches!(doubt, Commit::InDoubt(_)), "{doubt}");
        let refused = session.commit(epoch(block + 1, &[(0, claimed.epoch)]));
        assert!(matches!(refused, Commit::Aborted(_)), "the doubt comes first: {refused}");
        assert!(session.resolve(&stamp(block)).is_ok());
        assert_eq!(texts(harness, &*log, Topic::Events, 0, due.len()), due);
    }
}

pub(super) fn are_not_guessed(harness: &mut dyn Faulty) {
    let log = harness.open();
    for (fault, is_committed) in [(Fault::DoubtCommitted, true), (Fault::DoubtAborted, false)] {
        let mut old = log.session("lane/0").expect("a session");
        harness.give(0, "lane/0");
        let owned = claimed(harness, &mut *old, 0);
        let block = owned.position.map_or(1, |position| position.block + 1);
        harness.fail_next(fault);
        let doubt = old.commit(epoch(block, &[(0, owned.epoch)]));
        assert!(matches!(doubt, Commit::InDoubt(_)), "{doubt}");

        let mut new = log.session("lane/1").expect("a session");
        harness.give(0, "lane/1");
        let taken = claimed(harness, &mut *new, 0);
        assert_eq!(taken.position.map(|position| position.block == block).unwrap_or_default(), is_committed);
        assert_eq!(new.commit(epoch(block + 1, &[(0, taken.epoch)])), Commit::Committed);
        // The new owner's position stands where the doubtful one would tell.
        let told = old.resolve(&stamp(block));
        let truth = if is_committed { Resolution::Committed } else { Resolution::Aborted };
        assert!(told == Ok(truth) || told == Err(Error::Fenced), "{told:?}, though the truth is {truth:?}");
    }
}
