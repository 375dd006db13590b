//! Records: what is written is read, in order, whole, until it is trimmed.

use super::{Harness, PARTITIONS, claim, claimed, epoch, outgoing, position, read, text, texts};
use crate::log::{Batch, Commit, Error, Headers, Outgoing, Record, Transaction};
use crate::topics::Topic;

/// A value this long is read back; a dead letter may be as long, with its headers.
const LONG_BYTES: usize = 256 * 1024;

fn content(records: &[Record]) -> Vec<Outgoing> {
    let content = |record: &Record| Outgoing {
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
        timestamp_ms: None,
    };
    records.iter().map(content).collect()
}

pub(super) fn come_back_as_they_are(harness: &mut dyn Harness) {
    let log = harness.open();
    let headers = Headers::from_pairs([("a", &b"1"[..]), ("b", b""), ("a", b"2")]);
    let sent = vec![
        text("plain"),
        outgoing(None, Some(b"no key")),
        outgoing(Some("no value"), None),
        outgoing(None, None),
        outgoing(Some(""), Some(b"")),
        Outgoing { headers: headers.clone(), ..outgoing(Some("\0\u{fe}"), Some(&[0, 255, 10])) },
    ];
    let first = log.append(Topic::Commands, 1, sent.clone()).expect("an append");
    let second = log.append(Topic::Commands, 1, vec![text("later")]).expect("an append");
    let found = read(harness, &*log, (Topic::Commands, 1), first, sent.len() + 1);
    assert_eq!(found.first().map(|record| record.offset), Some(first));
    assert_eq!(found.last().map(|record| record.offset), Some(second));
    assert_eq!(content(&found), [sent, vec![text("later")]].concat());
    assert!(found.is_sorted_by_key(|record| record.timestamp_ms), "one log, one clock");

    let long = Outgoing { headers, ..outgoing(Some("long"), Some(&vec![7; LONG_BYTES])) };
    let mut session = log.session("lane/0").expect("a session");
    let claim = claim(harness, &mut *session, 2);
    let batch = Batch { topic: Topic::Dlq, partition: 2, records: vec![long.clone(), long.clone()] };
    let committed = session.commit(Transaction { batches: vec![batch], ..epoch(1, &[(2, claim)]) });
    assert_eq!(committed, Commit::Committed);
    let from = log.range(Topic::Dlq, 2).expect("a partition").start;
    assert_eq!(content(&read(harness, &*log, (Topic::Dlq, 2), from, 2)), vec![long.clone(), long]);
}

/// A day in May 2024.
const THEN_MS: i64 = 1_716_000_000_000;

pub(super) fn keep_their_time(harness: &mut dyn Harness) {
    let log = harness.open();
    let times = [Some(THEN_MS + 5), Some(THEN_MS), None];
    let records = times.map(|timestamp_ms| Outgoing { timestamp_ms, ..text("a letter") }).to_vec();
    let mut session = log.session("lane/0").expect("a session");
    let claim = claim(harness, &mut *session, 1);
    let batches = [Topic::Dlq, Topic::Events].map(|topic| Batch { topic, partition: 1, records: records.clone() });
    let committed = session.commit(Transaction { batches: batches.to_vec(), ..epoch(1, &[(1, claim)]) });
    assert_eq!(committed, Commit::Committed);
    let start = |topic| log.range(topic, 1).expect("a partition").start;
    let mut found = |topic| read(harness, &*log, (topic, 1), start(topic), 3).iter().map(|record| record.timestamp_ms).collect();
    let (letters, events): (Vec<i64>, Vec<i64>) = (found(Topic::Dlq), found(Topic::Events));
    assert_eq!(letters[..2], [THEN_MS + 5, THEN_MS], "a dead letter has the time of its original");
    assert!(!events.contains(&THEN_MS) && !events.contains(&(THEN_MS + 5)), "everything else has the log's: {events:?}");
    assert!(letters[2] == events[2] || THEN_MS + 5 < letters[2], "so has what brings none: {letters:?}");
}

pub(super) fn fetches_move_on(harness: &mut dyn Harness) {
    let log = harness.open();
    let values: Vec<Outgoing> = (0..30).map(|n| text(&format!("{n}:{}", "x".repeat(100)))).collect();
    let mut sent = values.clone();
    let first = log.append(Topic::Commands, 0, sent.split_off(20)).expect("an append");
    log.append(Topic::Commands, 0, sent).expect("an append");
    let all = read(harness, &*log, (Topic::Commands, 0), first, 30);
    for bytes_max in [0, 1, 150, 1_000, usize::MAX] {
        for from in [0, 1, 9, 10, 29] {
            let Some(from) = all.get(from).map(|record| record.offset) else { panic!("30 records") };
            let fetched = log.fetch(Topic::Commands, 0, from, bytes_max).expect("records");
            assert_eq!(fetched.records.first().map(|record| record.offset), Some(from), "at least one, from {from}");
            assert!(from < fetched.next, "the next offset moves on from {from}");
            let same = all.iter().skip_while(|record| record.offset < from).zip(&fetched.records).all(|(a, b)| a == b);
            assert!(same, "a fetch from {from} of {bytes_max} bytes gives the same records");
        }
    }
    let end = log.range(Topic::Commands, 0).expect("a partition").end;
    let at_end = log.fetch(Topic::Commands, 0, end, 1).expect("nothing");
    assert_eq!((at_end.records, at_end.next), (vec![], end));
}

pub(super) fn outside_is_out_of_range(harness: &mut dyn Harness) {
    let log = harness.open();
    let first = log.append(Topic::Commands, 0, vec![text("a")]).expect("an append");
    read(harness, &*log, (Topic::Commands, 0), first, 1);
    let end = log.range(Topic::Commands, 0).expect("a partition").end;
    let beyond = log.fetch(Topic::Commands, 0, end + 1, 1).map(|fetched| fetched.next);
    assert!(matches!(beyond, Err(Error::OutOfRange { asked, .. }) if asked == end + 1), "{beyond:?}");

    let nowhere = log.partitions();
    assert!(PARTITIONS <= nowhere, "the suite needs {PARTITIONS} partitions");
    let unknown = Error::UnknownPartition { topic: Topic::Commands, partition: nowhere };
    assert_eq!(log.append(Topic::Commands, nowhere, vec![text("a")]), Err(unknown.clone()));
    assert_eq!(log.fetch(Topic::Commands, nowhere, 0, 1).map(|fetched| fetched.next), Err(unknown.clone()));
    assert_eq!(log.range(Topic::Commands, nowhere), Err(unknown.clone()));
    assert_eq!(log.session("lane/0").expect("a session").claim(nowhere).map(|claim| claim.epoch), Err(unknown));
}

pub(super) fn trimmed_are_gone(harness: &mut dyn Harness) {
    let mut log = harness.open();
    for n in 0..6 {
        log.append(Topic::Commands, 3, vec![text(&format!("{n}a")), text(&format!("{n}b"))]).expect("an append");
    }
    let start = log.range(Topic::Commands, 3).expect("a partition").start;
    let before = read(harness, &*log, (Topic::Commands, 3), start, 12);
    let Some(kept) = before.get(7..) else { panic!("12 records") };
    let Some(from) = kept.first().map(|record| record.offset) else { panic!("5 records") };
    log.trim(Topic::Commands, 3, from).expect("a trim");
    for restarted in [false, true] {
        if restarted {
            drop(log);
            log = harness.open();
        }
        let start = log.range(Topic::Commands, 3).expect("a partition").start;
        assert!(start <= from, "what was not to be trimmed is there");
        if let Some(below) = start.checked_sub(1) {
            let gone = log.fetch(Topic::Commands, 3, below, 1).map(|fetched| fetched.next);
            assert!(matches!(gone, Err(Error::OutOfRange { .. })), "below the start: {gone:?}");
        }
        assert_eq!(read(harness, &*log, (Topic::Commands, 3), from, 5), kept);
    }
    let end = log.range(Topic::Commands, 3).expect("a partition").end;
    log.trim(Topic::Commands, 3, end).expect("a trim");
    drop(log);
    let log = harness.open();
    assert_eq!(log.range(Topic::Commands, 3).expect("a partition").end, end, "the end outlives the records");
    let next = log.append(Topic::Commands, 3, vec![text("next")]).expect("an append");
    assert!(end <= next, "an offset is never used twice");
    let found = read(harness, &*log, (Topic::Commands, 3), next, 1);
    assert_eq!(content(&found), vec![text("next")]);
}

pub(super) fn a_commit_is_seen_whole(harness: &mut dyn Harness) {
    let log = harness.open();
    let mut session = log.session("lane/0").expect("a session");
    let claims = [(0, claim(harness, &mut *session, 0)), (1, claim(harness, &mut *session, 1))];
    for block in 1..=3 {
        let mut transaction = epoch(block, &claims);
        let records = vec![text(&format!("first {block}")), text(&format!("second {block}"))];
        // Postings go to partitions that somebody else may own.
        transaction.batches.push(Batch { topic: Topic::Postings, partition: 3, records });
        assert_eq!(session.commit(transaction), Commit::Committed);
    }
    for partition in [0, 1] {
        for topic in [Topic::Events, Topic::Journal] {
            let due: Vec<String> = (1..=3).map(|block| format!("{topic} {block}")).collect();
            assert_eq!(texts(harness, &*log, topic, partition, 3), due);
        }
    }
    let due = ["first 1", "second 1", "first 2", "second 2", "first 3", "second 3"];
    assert_eq!(texts(harness, &*log, Topic::Postings, 3, 6), due);
}

pub(super) fn a_commit_is_refused_whole(harness: &mut dyn Harness) {
    let log = harness.open();
    let mut session = log.session("lane/0").expect("a session");
    let claim = claim(harness, &mut *session, 0);
    let mut transaction = epoch(1, &[(0, claim)]);
    let partition = log.partitions();
    transaction.batches.push(Batch { topic: Topic::Postings, partition, records: vec![text("nowhere")] });
    let refused = session.commit(transaction);
    assert!(matches!(refused, Commit::Aborted(_)), "{refused}");
    assert_eq!(session.commit(epoch(2, &[(0, claim)])), Commit::Committed);
    assert_eq!(texts(harness, &*log, Topic::Events, 0, 1), ["events 2"]);
    assert_eq!(texts(harness, &*log, Topic::Journal, 0, 1), ["journal 2"]);
}

pub(super) fn a_restart_keeps_everything(harness: &mut dyn Harness) {
    let log = harness.open();
    let mut session = log.session("lane/0").expect("a session");
    let claims = [(0, claim(harness, &mut *session, 0)), (2, claim(harness, &mut *session, 2))];
    for block in 1..=5 {
        log.append(Topic::Commands, 0, vec![text(&format!("command {block}"))]).expect("an append");
        assert_eq!(session.commit(epoch(block, &claims)), Commit::Committed);
    }
    let places = [(Topic::Commands, 0), (Topic::Events, 0), (Topic::Events, 2), (Topic::Journal, 0), (Topic::Journal, 2)];
    let starts = places.map(|(topic, partition)| log.range(topic, partition).expect("a partition"));
    let before: Vec<Vec<Record>> =
        places.iter().zip(&starts).map(|(place, range)| read(harness, &*log, *place, range.start, 5)).collect();
    drop((session, log));

    let log = harness.open();
    for ((place, range), before) in places.iter().zip(starts).zip(before) {
        assert_eq!(log.range(place.0, place.1).expect("a partition").start, range.start);
        assert_eq!(read(harness, &*log, *place, range.start, 5), before);
    }
    let mut session = log.session("lane/0").expect("a session");
    for partition in [0, 2] {
        let claim = claimed(harness, &mut *session, partition);
        assert_eq!(claim.position, Some(position(partition, 5)));
        assert_eq!(session.commit(epoch(6, &[(partition, claim.epoch)])), Commit::Committed);
        assert_eq!(texts(harness, &*log, Topic::Events, partition, 6).last().map(String::as_str), Some("events 6"));
    }
    assert_eq!(claimed(harness, &mut *session, 1).position, None);
}
