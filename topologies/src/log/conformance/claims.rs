//! Claims and positions: one owner at a time, and what the former one is still sending is refused.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Harness, claim, claimed, epoch, position, stamp, texts};
use crate::log::{Claimed, Commit, Error, Transaction};
use crate::topics::Topic;

/// How often a claim races the commits of the former owner, and how many those are at most.
const RACES: u64 = 5;
const RACED_COMMITS: u64 = 100;

pub(super) fn give_the_position(harness: &mut dyn Harness) {
    let log = harness.open();
    let mut session = log.session("lane/0").expect("a session");
    let first = claimed(harness, &mut *session, 0);
    assert_eq!(first.position, None, "nothing is committed yet");
    assert_eq!(session.commit(epoch(1, &[(0, first.epoch)])), Commit::Committed);
    let other = claim(harness, &mut *session, 1);
    assert_eq!(session.commit(epoch(2, &[(0, first.epoch), (1, other)])), Commit::Committed);
    assert_eq!(session.commit(epoch(3, &[(1, other)])), Commit::Committed);

    let mut next = log.session("lane/0").expect("a session");
    let positions = [0, 1, 2].map(|partition| claimed(harness, &mut *next, partition).position);
    assert_eq!(positions, [Some(position(0, 2)), Some(position(1, 3)), None]);
}

pub(super) fn no_positions_are_refused(harness: &mut dyn Harness) {
    let log = harness.open();
    let mut session = log.session("lane/0").expect("a session");
    let claim = claim(harness, &mut *session, 0);
    let refused = session.commit(Transaction { positions: vec![], ..epoch(1, &[(0, claim)]) });
    assert!(matches!(refused, Commit::Aborted(_)), "{refused}");
    assert_eq!(session.commit(epoch(2, &[(0, claim)])), Commit::Committed, "the session goes on");
    assert_eq!(texts(harness, &*log, Topic::Events, 0, 1), ["events 2"]);
}

pub(super) fn sessions_fence(harness: &mut dyn Harness) {
    let log = harness.open();
    let mut old = log.session("lane/0").expect("a session");
    let owned = claim(harness, &mut *old, 0);
    assert_eq!(old.commit(epoch(1, &[(0, owned)])), Commit::Committed);

    let mut new = log.session("lane/0").expect("a session");
    assert_eq!(old.commit(epoch(2, &[(0, owned)])), Commit::Fenced, "before the new session claims anything");
    assert_eq!(old.claim(1).map(|claim| claim.epoch), Err(Error::Fenced));
    let claim = claimed(harness, &mut *new, 0);
    assert_eq!(claim.position, Some(position(0, 1)));
    assert_eq!(new.commit(epoch(2, &[(0, claim.epoch)])), Commit::Committed);
    assert_eq!(texts(harness, &*log, Topic::Events, 0, 2), ["events 1", "events 2"]);
}

pub(super) fn fence_the_owner(harness: &mut dyn Harness) {
    let log = harness.open();
    let mut old = log.session("lane/0").expect("a session");
    let claims = [(0, claim(harness, &mut *old, 0)), (1, claim(harness, &mut *old, 1))];
    assert_eq!(old.commit(epoch(1, &claims)), Commit::Committed);

    let mut new = log.session("lane/1").expect("a session");
    harness.give(1, "lane/1");
    let taken = claimed(harness, &mut *new, 1);
    assert_eq!(taken.position, Some(position(1, 1)));
    assert_eq!(old.commit(epoch(2, &claims)), Commit::Fenced, "one of two partitions has been taken over");
    assert_eq!(new.commit(epoch(3, &[(1, taken.epoch)])), Commit::Committed);
    assert_eq!(texts(harness, &*log, Topic::Events, 1, 2), ["events 1", "events 3"]);
    assert_eq!(texts(harness, &*log, Topic::Journal, 0, 1), ["journal 1"], "nothing of it, for the other partition either");
}

pub(super) fn void_earlier_ones(harness: &mut dyn Harness) {
    let log = harness.open();
    let mut session = log.session("lane/0").expect("a session");
    let kept = claim(harness, &mut *session, 1);
    let first = claim(harness, &mut *session, 0);
    let again = claim(harness, &mut *session, 0);
    assert_ne!(first, again);
    assert_eq!(session.commit(epoch(1, &[(0, first), (1, kept)])), Commit::Fenced, "claimed again by itself");

    let mut session = log.session("lane/0").expect("a session");
    let before = claim(harness, &mut *session, 0);
    let mut other = log.session("lane/1").expect("a session");
    harness.give(0, "lane/1");
    let meanwhile = claim(harness, &mut *other, 0);
    assert_eq!(other.commit(epoch(2, &[(0, meanwhile)])), Commit::Committed);
    harness.give(0, "lane/0");
    let back = claimed(harness, &mut *session, 0);
    assert_eq!(back.position, Some(position(0, 2)));
    assert_eq!(session.commit(epoch(3, &[(0, before)])), Commit::Fenced, "moved away and back");

    let mut session = log.session("lane/0").expect("a session");
    let claim = claim(harness, &mut *session, 0);
    assert_eq!(session.commit(epoch(4, &[(0, claim)])), Commit::Committed);
    assert_eq!(texts(harness, &*log, Topic::Events, 0, 2), ["events 2", "events 4"]);
}

pub(super) fn are_needed(harness: &mut dyn Harness) {
    let log = harness.open();
    let mut session = log.session("lane/0").expect("a session");
    let claimed = claim(harness, &mut *session, 0);
    assert_eq!(session.commit(epoch(1, &[(0, claimed), (1, claimed)])), Commit::Fenced, "partition 1 was never claimed");

    let mut session = log.session("lane/0").expect("a session");
    let claimed = claim(harness, &mut *session, 0);
    session.release(0);
    assert_eq!(session.commit(epoch(1, &[(0, claimed)])), Commit::Fenced, "partition 0 was given back");

    let mut session = log.session("lane/0").expect("a session");
    let claimed = claim(harness, &mut *session, 0);
    assert_eq!(session.commit(epoch(2, &[(0, claimed)])), Commit::Committed);
    assert_eq!(texts(harness, &*log, Topic::Events, 0, 1), ["events 2"]);
}

pub(super) fn may_be_confirmed(harness: &mut dyn Harness) {
    let log = harness.open();
    let mut session = log.session("lane/0").expect("a session");
    let claims = [(0, claim(harness, &mut *session, 0)), (1, claim(harness, &mut *session, 1))];
    let confirm = |counter: u64, blocks: [u64; 2]| {
        let sent = claims.iter().zip(blocks);
        let positions = sent.map(|((partition, claim), block)| Claimed { claim: *claim, position: position(*partition, block) });
        Transaction { stamp: stamp(counter), batches: vec![], positions: positions.collect() }
    };
    assert_eq!(session.commit(epoch(1, &claims)), Commit::Committed);
    assert_eq!(session.commit(epoch(2, &claims[..1])), Commit::Committed);
    assert_eq!(session.commit(confirm(3, [2, 1])), Commit::Committed, "positions of two epochs, sent once more");
    assert_eq!(session.commit(epoch(4, &claims)), Commit::Committed, "and the partitions go on");

    let mut other = log.session("lane/1").expect("a session");
    harness.give(0, "lane/1");
    assert_eq!(claimed(harness, &mut *other, 0).position, Some(position(0, 4)));
    assert_eq!(session.commit(confirm(5, [4, 4])), Commit::Fenced, "a claim that is not good any more is not confirmed");
    let mut next = log.session("lane/0").expect("a session");
    harness.give(1, "lane/0");
    assert_eq!(claimed(harness, &mut *next, 1).position, Some(position(1, 4)));
    assert_eq!(texts(harness, &*log, Topic::Events, 1, 2), ["events 1", "events 4"]);
}

pub(super) fn race_commits(harness: &mut dyn Harness) {
    let log = harness.open();
    let mut due = Vec::new();
    let mut newest = None;
    for race in 0..RACES {
        harness.give(0, "lane/0");
        let mut old = log.session("lane/0").expect("a session");
        let owned = claim(harness, &mut *old, 0);
        let mut new = log.session("lane/1").expect("a session");
        let first = race * RACED_COMMITS + 1;
        let committed = AtomicU64::new(0);
        let position = std::thread::scope(|scope| {
            let committing = scope.spawn(|| {
                let mut block = first;
                for _ in 0..RACED_COMMITS {
                    match old.commit(epoch(block, &[(0, owned)])) {
                        Commit::Committed => {
                            committed.store(block, Ordering::SeqCst);
                            block += 1;
                        }
                        // A change of owners may abort what is under way.
                        Commit::Aborted(_) => {}
                        Commit::Fenced => return,
                        other => panic!("block {block} is {other}"),
                    }
                }
            });
            while committed.load(Ordering::SeqCst) < first + race && !committing.is_finished() {
                std::thread::yield_now();
            }
            harness.give(0, "lane/1");
            claimed(harness, &mut *new, 0).position
        });
        let last = committed.into_inner();
        newest = Some(last).filter(|last| 0 < *last).or(newest);
        assert_eq!(position, newest.map(|last| super::position(0, last)), "what was acknowledged, all of it and nothing else");
        due.extend((first..=last).map(|block| format!("events {block}")));
    }
    assert_eq!(texts(harness, &*log, Topic::Events, 0, due.len()), due);
}
