//! Restoring from the journal as a table: what a store may hold, what the journal holds, and what comes of it. Each row runs on a
//! log without gaps and on one with gaps between its offsets, as transactions leave them in Kafka.

use std::ops::Range;
use std::sync::Mutex;

use finflow_state::{EncodedBlock, Generation, Head, Header, MemoryStore, Overlay, Positions, Stamp, Store, store};
use finflow_topologies::Topic;
use finflow_topologies::log::simulated::SimulatedLog;
use finflow_topologies::log::{Error, Fetched, Log, Outgoing, Position, Session};
use finflow_topologies::restore::{self, restore, restore_observed};

const PARTITION: u32 = 1;
const BLOCKS: u64 = 40;

fn stamp(life: u64, counter: u64) -> Stamp {
    if counter == 0 { Stamp::genesis() } else { Stamp { lane: "lane/0".into(), incarnation: life, counter } }
}

/// Block `number` of the chain that one life of a lane wrote.
fn block(generation: u8, partition: u32, life: u64, number: u64) -> EncodedBlock {
    if number == 0 {
        return EncodedBlock::genesis(Generation([generation; 16]), partition, 2, 0);
    }
    let header = Header {
        generation: Generation([generation; 16]),
        partition,
        number,
        stamp: stamp(life, number),
        previous: stamp(life, number - 1),
        at_ms: number as i64,
        positions: Positions { commands: number, postings: 0 },
        sent: vec![],
        received: vec![],
    };
    EncodedBlock::encode(&header, &Overlay::default())
}

/// A store with the blocks up to `number`; `None` = an empty one.
fn store(generation: u8, partition: u32, life: u64, number: Option<u64>) -> MemoryStore {
    let store = MemoryStore::default();
    let blocks: Vec<EncodedBlock> =
        number.into_iter().flat_map(|number| 0..=number).map(|number| block(generation, partition, life, number)).collect();
    store.apply(&blocks).expect("a chain");
    store
}

/// A log whose offsets are twice those of the log behind it.
struct Sparse(SimulatedLog);

impl Log for Sparse {
    fn partitions(&self) -> u32 {
        self.0.partitions()
    }

    fn append(&self, topic: Topic, partition: u32, records: Vec<Outgoing>) -> Result<u64, Error> {
        Ok(self.0.append(topic, partition, records)? * 2)
    }

    fn fetch(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, Error> {
        let range = self.0.range(topic, partition)?;
        let mut fetched = self.0.fetch(topic, partition, from.div_ceil(2).min(range.end), bytes_max)?;
        fetched.records.iter_mut().for_each(|record| record.offset *= 2);
        fetched.next = fetched.records.last().map_or(range.end * 2, |record| record.offset + 1);
        Ok(fetched)
    }

    fn range(&self, topic: Topic, partition: u32) -> Result<Range<u64>, Error> {
        let range = self.0.range(topic, partition)?;
        Ok(range.start * 2..range.end * 2)
    }

    fn session(&self, lane: &str) -> Result<Box<dyn Session>, Error> {
        self.0.session(lane)
    }

    fn trim(&self, topic: Topic, partition: u32, before: u64) -> Result<(), Error> {
        self.0.trim(topic, partition, before.div_ceil(2))
    }
}

/// What the journal is, besides whole.
#[derive(Default, Clone, Copy)]
struct Journal {
    /// Blocks below this one are trimmed away.
    start: u64,
    /// This block was never written.
    missing: Option<u64>,
    /// From this block on it is of another life that does not follow.
    broken: Option<u64>,
    /// It ends before this block.
    end: Option<u64>,
}

fn log(journal: Journal) -> SimulatedLog {
    let log = SimulatedLog::new(2);
    for number in 0..journal.end.unwrap_or(BLOCKS + 1) {
        if journal.missing == Some(number) {
            continue;
        }
        let life = if journal.broken.is_some_and(|broken| broken <= number) { 9 } else { 1 };
        let value = Some(block(1, PARTITION, life, number).bytes().clone());
        log.append(Topic::Journal, PARTITION, vec![Outgoing { key: None, value, ..Outgoing::default() }]).expect("a log");
    }
    log.trim(Topic::Journal, PARTITION, journal.start).expect("a log");
    log
}

fn told(restored: Result<Head, restore::Error>) -> String {
    match restored {
        Ok(head) => format!("block {}", head.number),
        Err(restore::Error::Behind { due, start }) => format!("behind: {due} < {start}"),
        Err(restore::Error::Outrun { committed, found }) => format!("outrun: {found} behind {committed}"),
        Err(restore::Error::Short { found, committed }) => format!("short: {found} of {committed}"),
        Err(restore::Error::Contradiction(cause)) => format!("halt: {cause}"),
        Err(other) => format!("failed: {other}"),
    }
}

fn check(what: &str, journal: Journal, held: impl Fn() -> MemoryStore, target: u64, expected: &str) {
    let position = Position { partition: PARTITION, commands: target, block: target, stamp: stamp(1, target) };
    let log = log(journal);
    for log in [&log as &dyn Log, &Sparse(log.clone())] {
        let store = held();
        let before = store.head();
        let steps = Mutex::new(Vec::new());
        let progress = |block, of| steps.lock().expect("one thread").push((block, of));
        let found = told(restore_observed(log, &store, PARTITION, Some(&position), &progress));
        assert!(found.starts_with(expected), "{what}: {found}, not {expected}");
        if let Some(number) = found.strip_prefix("block ") {
            let steps = steps.into_inner().expect("one thread");
            assert!(steps.is_sorted() && steps.last() == Some(&(target, target)), "{what}: {steps:?}");
            assert_eq!(number, target.to_string(), "{what}");
            assert_eq!(store.head().map(|head| head.number), Some(target), "{what}");
        }
        if found.starts_with("behind") {
            assert_eq!(store.head(), before, "{what}: nothing is applied");
        }
    }
}

#[test]
fn a_store_is_continued_only_where_its_chain_meets_the_journals() {
    let whole = Journal::default();
    let trimmed = Journal { start: 13, ..whole };
    let gone = Journal { start: BLOCKS + 1, ..whole };
    let own = |number| move || store(1, PARTITION, 1, number);
    let other_life = |number| move || store(1, PARTITION, 2, Some(number));
    let all = BLOCKS;
    check("an empty store", whole, own(None), all, "block");
    let ends_at = |number: u64| Journal { end: Some(number + 1), ..whole };
    check("an empty store and nothing committed", ends_at(0), own(None), 0, "block");
    check("a store that is behind", whole, own(Some(17)), all, "block");
    check("a store that is behind by one", whole, own(Some(all - 1)), all, "block");
    check("a store that is level", whole, own(Some(all)), all, "block");
    check("a store that is behind a short journal", ends_at(7), own(Some(3)), 7, "block");
    check("a position that was lost", whole, own(None), 0, "outrun: 1 behind 0");
    check("a position that went back", whole, own(Some(3)), 7, "outrun: 8 behind 7");
    check("a position that went back by one", whole, own(Some(3)), all - 1, "outrun: 40 behind 39");
    check("a store that is ahead", whole, own(Some(8)), 7, "halt: the store holds block 8 of partition 1, the log has");
    check("another life's store", whole, other_life(17), all, "halt: block 17 of the store is not the journal's");
    check("another life's store, level", whole, other_life(all), all, "halt: block 40 of the store is not the journal's");
    check("another generation's store", whole, || store(2, PARTITION, 1, Some(3)), all, "halt: the store is of generation 0202");
    check("another partition's store", whole, || store(1, 0, 1, Some(3)), all, "halt: the store holds block 3 of partition 0");

    check("an empty store", trimmed, own(None), all, "behind: 0 < 13");
    check("a store that ends too early", trimmed, own(Some(11)), all, "behind: 12 < 13");
    check("a store that ends just before", trimmed, own(Some(12)), all, "block");
    check("a store that ends at the first block", trimmed, own(Some(13)), all, "block");
    check("another life's store just before", trimmed, other_life(12), all, "halt: block 13 follows");
    check("another generation's old store", trimmed, || store(2, PARTITION, 1, Some(3)), all, "halt: the store is of generation");
    check("a level store", gone, own(Some(all)), all, "block");
    check("another life's level store", gone, other_life(all), all, "halt: block 40 carries stamp");
    check("a store that is behind", gone, own(Some(all - 1)), all, "short: 39 of 40");

    let holed = Journal { missing: Some(20), ..whole };
    check("a missing block", holed, own(Some(17)), all, "halt: block 21 stands where block 20 is due");
    check("a missing block behind the store", holed, own(Some(30)), all, "block");
    let broken = Journal { broken: Some(20), ..whole };
    check("a broken chain", broken, own(Some(17)), all, "halt: block 20 follows");
    let short = Journal { end: Some(20), ..whole };
    check("a journal that ends too early", short, own(Some(17)), all, "short: 19 of 40");
    check("a journal that ends before the store", short, own(Some(25)), all, "short: 25 of 40");
    let log = log(whole);
    let position = Position { partition: PARTITION, commands: 7, block: 7, stamp: stamp(2, 7) };
    let found = told(restore(&log, &MemoryStore::default(), PARTITION, Some(&position)));
    assert!(found.starts_with("halt: block 7 carries stamp lane/0/0000000000000001/7"), "{found}");
}

#[test]
fn blocks_are_found_by_number_whatever_the_gaps() {
    let log = log(Journal { start: 5, ..Journal::default() });
    for (log, factor) in [(&log as &dyn Log, 1), (&Sparse(log.clone()), 2)] {
        for number in 0..=BLOCKS {
            let at = restore::offset_of(log, PARTITION, number).expect("a log");
            assert!(number.max(5) * factor - (factor - 1) <= at && at <= number.max(5) * factor, "block {number} at {at}");
            let found = log.fetch(Topic::Journal, PARTITION, at, 1).expect("a log").records;
            assert_eq!(found[0].offset, number.max(5) * factor, "block {number}");
        }
        let end = log.range(Topic::Journal, PARTITION).expect("a log").end;
        let behind = restore::offset_of(log, PARTITION, BLOCKS + 1).expect("a log");
        assert!(log.fetch(Topic::Journal, PARTITION, behind, 1).expect("a log").records.is_empty() && behind <= end);
    }
}

/// Without a position: a store that the journal goes on from is right, and its position is lost; the last block of the journal tells it.
#[test]
fn where_a_position_is_lost_the_journal_tells_it() {
    let whole = Journal::default();
    let (forgotten, unknown) = ("outrun: 40 behind 0", "halt: the store holds block");
    // The journal, what the store holds, what comes of it without a position, and the last block.
    let rows: [(&str, Journal, MemoryStore, &str, Option<u64>); 8] = [
        ("nothing", whole, store(1, PARTITION, 1, None), "outrun: 1 behind 0", Some(40)),
        ("block 0", whole, store(1, PARTITION, 1, Some(0)), "outrun: 1 behind 0", Some(40)),
        ("some", whole, store(1, PARTITION, 1, Some(17)), forgotten, Some(40)),
        ("all", whole, store(1, PARTITION, 1, Some(40)), forgotten, Some(40)),
        ("all, trimmed", Journal { start: 13, ..whole }, store(1, PARTITION, 1, Some(40)), forgotten, Some(40)),
        ("more", Journal { end: Some(18), ..whole }, store(1, PARTITION, 1, Some(18)), unknown, Some(17)),
        ("a new log", Journal { end: Some(1), ..whole }, store(1, PARTITION, 1, Some(18)), unknown, None),
        ("another generation", whole, store(2, PARTITION, 1, Some(17)), unknown, Some(40)),
    ];
    for (what, journal, store, expected, last) in rows {
        let log = log(journal);
        for log in [&log as &dyn Log, &Sparse(log.clone())] {
            let found = told(restore(log, &store, PARTITION, None));
            assert!(found.starts_with(expected), "{what}: {found}, not {expected}");
            let told = restore::last_block(log, PARTITION, Generation([1; 16])).ok().map(|last| Position::of(&last));
            let due = last.map(|block| Position { partition: PARTITION, commands: block, block, stamp: stamp(1, block) });
            assert_eq!(told, due, "{what}");
        }
    }
    let log = log(whole);
    let refused = restore::last_block(&log, PARTITION, Generation([9; 16])).expect_err("another application's");
    assert!(matches!(&refused, restore::Error::Refused(cause) if cause.contains("of 0909")), "{refused}");
    assert!(!refused.may_pass());
    let cause = restore(&log, &store(1, PARTITION, 1, Some(17)), PARTITION, None).expect_err("its position is lost");
    assert!(cause.to_string().contains("`finflow partitions resume --from-journal`"), "{cause}");
}

/// What a journal that is trimmed does not say any more is known all the same, or asked for in vain.
#[test]
fn an_application_is_recognised_without_block_0() {
    const GENERATION: Generation = Generation([1; 16]);
    let append = |log: &SimulatedLog, partition, block: EncodedBlock| {
        let record = Outgoing { value: Some(block.bytes().clone()), ..Outgoing::default() };
        log.append(Topic::Journal, partition, vec![record]).expect("a log");
    };
    // Begun with three partitions, whatever there are now.
    let begun = |partitions: u32, trimmed: &[u32]| {
        let log = SimulatedLog::new(partitions);
        for partition in 0..3 {
            append(&log, partition, EncodedBlock::genesis(GENERATION, partition, 3, 0));
            (1..4).for_each(|number| append(&log, partition, block(1, partition, 1, number)));
        }
        trimmed.iter().for_each(|partition| log.trim(Topic::Journal, *partition, 2).expect("a log"));
        log
    };
    // Which partitions are trimmed, how many were added since, and what comes of a start.
    let rows: [(&[u32], u32, Result<(), &str>); 5] = [
        (&[], 0, Ok(())),
        (&[1], 0, Ok(())),
        (&[0, 1, 2], 0, Ok(())),
        (&[1], 1, Err("begun with 3 partitions, 4 are configured")),
        (&[0, 1, 2], 2, Err("begun with 3 partitions, 5 are configured")),
    ];
    for (trimmed, added, expected) in rows {
        let log = begun(3 + added, trimmed);
        for partition in 0..3 {
            let begins = if trimmed.contains(&partition) { 2 } else { 0 };
            assert_eq!(restore::begins_at(&log, partition), Ok(begins), "{trimmed:?}");
        }
        match (restore::create(&log, Generation([9; 16]), 6), expected) {
            (Ok(found), Ok(())) => assert_eq!(found, GENERATION, "{trimmed:?}"),
            (Err(Error::Refused(cause)), Err(expected)) => assert!(cause.contains(expected), "{trimmed:?}: {cause}"),
            (found, _) => panic!("{trimmed:?} {added}: {found:?}"),
        }
        let added = (3..3 + added).map(|partition| log.range(Topic::Journal, partition).expect("a log").end);
        assert!(added.into_iter().all(|end| end == 0), "nothing is written where it is refused");
        assert_eq!(restore::is_being_brought(&log, || Ok(None)), Ok(false), "{trimmed:?}");
    }
    // Somebody has trimmed to the end: nothing is begun anew there.
    for (emptied, expected) in [(vec![1], Ok(GENERATION)), (vec![0, 1, 2], Err("no journal has a block"))] {
        let log = begun(3, &[]);
        emptied.iter().for_each(|partition| log.trim(Topic::Journal, *partition, u64::MAX).expect("a log"));
        match (restore::create(&log, Generation([9; 16]), 6), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(Error::Corrupt(cause)), Err(expected)) => assert!(cause.contains(expected), "{cause}"),
            (found, _) => panic!("{emptied:?}: {found:?}"),
        }
        assert!(emptied.iter().all(|partition| log.range(Topic::Journal, *partition) == Ok(4..4)), "{emptied:?}");
    }
    let log = log(Journal { start: 5, ..Journal::default() });
    let at = |number| restore::block_at(&log, PARTITION, number).map(|found| found.map(|(at, header)| (at, header.number)));
    for (number, expected) in [(0, Some((5, 5))), (5, Some((5, 5))), (6, Some((6, 6))), (BLOCKS, Some((BLOCKS, BLOCKS)))] {
        assert_eq!(at(number), Ok(expected), "block {number}");
    }
    assert_eq!(at(BLOCKS + 1), Ok(None));
}

#[test]
fn a_store_follows_its_journal_to_where_that_ends_and_nowhere_else() {
    let whole = Journal::default();
    // The journal, the life whose store holds block 17, and what comes of it.
    let rows = [
        (whole, 1, "block 40"),
        (Journal { start: 13, ..whole }, 1, "block 40"),
        (Journal { end: Some(18), ..whole }, 1, "block 17"),
        (Journal { start: 20, ..whole }, 1, "failed: "),
        (Journal { missing: Some(18), ..whole }, 1, "halt: block 19 stands where block 18 is due"),
        (Journal { broken: Some(18), ..whole }, 1, "halt: block 18 follows"),
        (whole, 2, "halt: block 18 follows"),
    ];
    for (journal, life, expected) in rows {
        let store = store(1, PARTITION, life, Some(17));
        let log = log(journal);
        let followed = |from| restore::follow(&log, &store, PARTITION, from);
        let found = told(followed(18).map(|next| {
            assert_eq!(followed(next), Ok(next), "nothing comes behind the end");
            store.head().expect("blocks")
        }));
        assert!(found.starts_with(expected), "{found}, not {expected}");
    }
}

/// Only a broken invariant halts a partition; the rest is tried again.
#[test]
fn what_may_pass_is_told_apart_from_what_contradicts() {
    let out_of_range = Error::OutOfRange { topic: Topic::Journal, partition: 0, asked: 1, start: 2, end: 3 };
    let text = String::new;
    for (error, may_pass) in [
        (restore::Error::Log(Error::Unavailable(text())), true),
        (restore::Error::Log(Error::Lasting(text())), true),
        (restore::Error::Log(Error::Forbidden(text())), true),
        (restore::Error::Log(Error::Refused(text())), true),
        (restore::Error::Log(Error::Busy(text())), true),
        (restore::Error::Log(Error::Fenced), true),
        (restore::Error::Log(out_of_range), true),
        (restore::Error::Log(Error::Corrupt(text())), false),
        (restore::Error::Store(store::Error::Io(text())), true),
        (restore::Error::Store(store::Error::Busy(text())), true),
        (restore::Error::Store(store::Error::Corrupt(text())), false),
        (restore::Error::Behind { due: 1, start: 2 }, false),
        (restore::Error::Outrun { committed: 1, found: 2 }, false),
        (restore::Error::Overtaken { before: 1, now: 2 }, true),
        (restore::Error::Contradiction(text()), false),
    ] {
        assert_eq!(error.may_pass(), may_pass, "{error:?}");
    }
}
