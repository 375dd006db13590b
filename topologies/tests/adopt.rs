//! A directory in the place of what the log says: for a log that has lost its end, and for topics that are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use finflow_ledger::{PaymentId, Wallet};
use finflow_state::{EncodedBlock, Generation, Head, Header, MemoryStore, Payments, Positions, Stamp, Store, Wallets, store};
use finflow_topologies::log::simulated::SimulatedLog;
use finflow_topologies::log::{Error, Log};
use finflow_topologies::rescale::{self, Adoption, Replaced, Sizes};
use finflow_topologies::wire::v1::{Posting, PostingBody};
use finflow_topologies::{Topic, TopologyDriver, restore};
use serde_json::Value;

use self::mortal::Mortal;

#[path = "support/mortal.rs"]
mod mortal;

const PARTITIONS: u32 = 3;
/// Blocks and transactions of a few rows, so that there are many of them.
const SMALL: Sizes = Sizes { block_bytes: 1_000, transaction_bytes: 3_000 };

fn opening() -> Vec<String> {
    let mut lines = Vec::new();
    for n in 0..20 {
        let common = format!(r#""tenant":"acme","wallet":"w{n}""#);
        lines.push(format!(
            r#"{{"type":"open_wallet",{common},"idempotency_key":"open","currency":"AED","country":"AE","kind":"personal","holder":"H"}}"#
        ));
        lines.push(format!(
            r#"{{"type":"top_up",{common},"idempotency_key":"top","amount":"100","currency":"AED","source":{{"account":"x"}}}}"#
        ));
    }
    lines
}

fn transfers(round: u64) -> Vec<String> {
    let transfer = |n: u64| {
        format!(
            r#"{{"type":"transfer","tenant":"acme","idempotency_key":"{round}-{n}","wallet":"w{}","to":"w{}","amount":"{}.25","currency":"AED"}}"#,
            n % 20,
            (n * 7 + round) % 20,
            n % 9
        )
    };
    (0..60).map(transfer).collect()
}

/// Top-ups of wallets of one partition alone.
fn top_ups(partition: u32) -> Vec<String> {
    let is_there = |n: &u32| finflow_topologies::topics::partition_of_key(format!("w{n}").as_bytes(), PARTITIONS) == partition;
    let top_up = |n| {
        format!(
            r#"{{"type":"top_up","tenant":"acme","wallet":"w{n}","idempotency_key":"late","amount":"7","currency":"AED","source":{{"account":"x"}}}}"#
        )
    };
    (0..20).filter(is_there).map(top_up).collect()
}

fn carried_out(commands: &[String]) -> TopologyDriver {
    let mut driver = TopologyDriver::new(PARTITIONS, PARTITIONS);
    for command in commands {
        driver.send(command);
        driver.run().expect("nothing halts");
    }
    driver
}

fn content(driver: &TopologyDriver) -> (BTreeMap<String, Wallet>, BTreeMap<String, String>) {
    let (mut wallets, mut payments) = (BTreeMap::new(), BTreeMap::new());
    for partition in 0..PARTITIONS {
        let held = driver.store(partition);
        assert_eq!(store::verify(&*held).expect("readable").differences, Vec::<String>::new());
        let visited = store::visit_rows::<Wallets>(&*held, |id, wallet| drop(wallets.insert(id.as_str().to_owned(), wallet)));
        visited.expect("readable");
        let visited = store::visit_rows::<Payments>(&*held, |id, payment| {
            payments.insert(id.to_string(), format!("{payment:?}"));
        });
        visited.expect("readable");
    }
    (wallets, payments)
}

/// What a log says, also while it is being changed.
fn said(log: &SimulatedLog) -> BTreeMap<u32, MemoryStore> {
    let positions = log.committed_positions();
    let replayed = |(partition, position): (u32, Option<finflow_topologies::log::Position>)| {
        let store = MemoryStore::default();
        restore::replay(log, &store, partition, position.as_ref(), &|_, _| {}).expect("a journal");
        (partition, store)
    };
    positions.into_iter().map(replayed).collect()
}

/// Has the stores take the place of what the log says, through `through`.
fn adopt(
    log: &SimulatedLog,
    through: &dyn Log,
    wanted: &BTreeMap<u32, Arc<dyn Store>>,
) -> Result<BTreeMap<u32, u64>, rescale::Error> {
    let held = said(log);
    let heads = held.iter().map(|(partition, store)| (*partition, store.head().expect("a head"))).collect();
    let replaced = wanted.iter().map(|(partition, wanted)| {
        let held: &dyn Store = &held[partition];
        (*partition, Replaced { held, wanted: &**wanted })
    });
    let replaced = replaced.collect();
    let (lane, done) = ("import", || ());
    let adoption =
        Adoption { log: through, lane, incarnation: 77, heads: &heads, replaced: &replaced, sizes: SMALL, done: &done };
    let rows = adoption.plan()?;
    adoption.run()?;
    Ok(rows)
}

fn stores(driver: &TopologyDriver, partitions: impl IntoIterator<Item = u32>) -> BTreeMap<u32, Arc<dyn Store>> {
    partitions.into_iter().map(|partition| (partition, driver.store(partition))).collect()
}

fn refused(found: Result<BTreeMap<u32, u64>, rescale::Error>) -> String {
    found.expect_err("it is refused").to_string()
}

#[test]
fn a_log_that_has_lost_its_end_says_again_what_the_directories_say() {
    let first: Vec<String> = opening().into_iter().chain(transfers(1)).collect();
    let all: Vec<String> = first.iter().cloned().chain(transfers(2)).collect();
    let (short, long) = (carried_out(&first), carried_out(&all));
    assert_ne!(content(&short), content(&long));

    let one = refused(adopt(short.log(), short.log(), &stores(&long, [1])));
    assert!(one.contains("partition 1") && one.contains("which has sent"), "{one}");
    let swapped = refused(adopt(short.log(), short.log(), &BTreeMap::from([(1, long.store(2))])));
    assert!(swapped.contains("is of partition 2"), "{swapped}");
    let rows = adopt(short.log(), short.log(), &stores(&long, 0..PARTITIONS)).expect("all of them fit");
    assert!(rows.values().all(|rows| 0 < *rows), "{rows:?}");
    let mut again = TopologyDriver::over(short.log().clone(), PARTITIONS);
    assert_eq!(content(&again), content(&long));
    let told = again.events().len();
    for command in transfers(2) {
        again.send(&command);
        again.run().expect("sequences fit");
    }
    assert_eq!(again.events().len(), told, "what was carried out is answered by its record");
    assert_eq!(content(&again), content(&long));
    for command in transfers(3) {
        again.send(&command);
        again.run().expect("sequences go on");
    }
    let due: Vec<String> = all.into_iter().chain(transfers(3)).collect();
    assert_eq!(content(&again).0, content(&carried_out(&due)).0);
}

#[test]
fn one_directory_is_enough_where_nothing_has_passed_between_partitions() {
    let first: Vec<String> = opening().into_iter().chain(transfers(1)).collect();
    let all: Vec<String> = first.iter().cloned().chain(top_ups(1)).collect();
    let (short, long) = (carried_out(&first), carried_out(&all));
    adopt(short.log(), short.log(), &stores(&long, [1])).expect("it fits");
    assert_eq!(content(&TopologyDriver::over(short.log().clone(), 1)), content(&long));
}

#[test]
fn directories_of_topics_that_are_gone_are_adopted_by_new_ones() {
    let old = carried_out(&opening().into_iter().chain(transfers(1)).collect::<Vec<_>>());
    let log = SimulatedLog::new(PARTITIONS).with_gaps();
    restore::create(&log, Generation([2; 16]), 5).expect("a log");
    adopt(&log, &log, &stores(&old, 0..PARTITIONS)).expect("they fit");
    let mut new = TopologyDriver::over(log, PARTITIONS);
    assert_eq!(content(&new), content(&old));
    for command in transfers(1) {
        new.send(&command);
        new.run().expect("nothing halts");
    }
    assert_eq!(new.events(), Vec::<Value>::new(), "what was carried out is answered by its record");
}

#[test]
fn whoever_dies_while_adopting_is_gone_on_from() {
    let first: Vec<String> = opening().into_iter().chain(transfers(1)).collect();
    let all: Vec<String> = first.iter().cloned().chain(transfers(2)).collect();
    let long = carried_out(&all);
    let mut deaths = 0;
    for is_written in [false, true] {
        for commits in 0.. {
            let short = carried_out(&first);
            let log = short.log();
            let mortal = Mortal::new(log, commits, is_written);
            let died = adopt(log, &mortal, &stores(&long, 0..PARTITIONS));
            if died.is_ok() {
                break;
            }
            deaths += 1;
            assert_eq!(died, Err(rescale::Error::Log(Error::Fenced)));
            let is_served = |partition| {
                let position = log.committed_positions().remove(&partition).flatten();
                restore::restore(log, &MemoryStore::default(), partition, position.as_ref()).is_ok()
            };
            let served = (0..PARTITIONS).filter(|partition| is_served(*partition)).count();
            assert!(commits + usize::from(is_written) == 0 || served < PARTITIONS as usize || said_is(log, &long));
            adopt(log, log, &stores(&long, 0..PARTITIONS)).expect("it goes on");
            assert_eq!(content(&TopologyDriver::over(log.clone(), 2)), content(&long), "{commits} commits");
        }
    }
    assert!(6 < deaths, "there were commits to die at, {deaths}");
}

fn said_is(log: &SimulatedLog, driver: &TopologyDriver) -> bool {
    let said = said(log);
    said.iter().all(|(partition, said)| store::digest(said) == store::digest(&*driver.store(*partition)))
}

/// A store of nothing but a head with these sequences.
fn standing(partition: u32, sent: &[(u32, u64)], received: &[(u32, u64)]) -> MemoryStore {
    let genesis = EncodedBlock::genesis(Generation([1; 16]), partition, 2, 0);
    let header = Header {
        generation: Generation([1; 16]),
        partition,
        number: 1,
        stamp: Stamp { lane: "l".into(), incarnation: 1, counter: 1 },
        previous: Stamp::genesis(),
        at_ms: 0,
        positions: Positions::default(),
        sent: sent.to_vec(),
        received: received.to_vec(),
    };
    let store = MemoryStore::default();
    store.apply(&[genesis, EncodedBlock::of_rows(&header, [])]).expect("a chain");
    store
}

#[test]
fn pairs_fit_or_are_named() {
    // What partition 0 has sent, what partition 1 has received, the sequences that wait for partition 1, how many of those are trimmed,
    // and what is wrong.
    let rows: [(u64, u64, &[u64], u64, &str); 12] = [
        (0, 0, &[], 0, ""),
        (4, 4, &[], 0, ""),
        (4, 4, &[3, 4], 0, ""),
        (4, 2, &[3, 4], 0, ""),
        (4, 2, &[1, 2, 3, 4], 0, ""),
        (4, 4, &[3, 4], 2, ""),
        (4, 2, &[1, 2, 3, 4], 2, ""),
        (4, 2, &[1, 2, 3, 4], 3, "partition 1 has received 2 of the 4 postings that partition 0 has sent"),
        (3, 4, &[], 0, "partition 1 has received 4 postings of partition 0, which has sent 3"),
        (4, 2, &[4], 0, "partition 1 has received 2 of the 4 postings that partition 0 has sent"),
        (4, 2, &[], 0, "partition 1 has received 2 of the 4 postings that partition 0 has sent"),
        (4, 4, &[4, 5], 0, "partition 1 has received 4 of the 4 postings that partition 0 has sent"),
    ];
    for (sent, received, waiting, trimmed, told) in rows {
        let log = SimulatedLog::new(2);
        for sequence in waiting {
            let body = PostingBody::Acknowledge { payment: PaymentId::from_bytes([1; 16]), outcome: Ok(()) };
            let posting = Posting { source: 0, destination: 1, sequence: *sequence, body };
            log.append(Topic::Postings, 1, vec![posting.encode()]).expect("a log");
        }
        log.trim(Topic::Postings, 1, trimmed).expect("a log");
        let (source, held) = (standing(0, &[(1, sent)], &[]), standing(1, &[], &[]));
        let wanted = standing(1, &[], &[(0, received)]);
        let heads: BTreeMap<u32, Head> =
            [(0, &source), (1, &held)].into_iter().map(|(partition, store)| (partition, store.head().expect("a head"))).collect();
        let replaced = BTreeMap::from([(1, Replaced { held: &held, wanted: &wanted })]);
        let done = || ();
        let adoption =
            Adoption { log: &log, lane: "l", incarnation: 1, heads: &heads, replaced: &replaced, sizes: SMALL, done: &done };
        match adoption.plan() {
            Ok(_) => assert_eq!(told, "", "{sent} {received} {waiting:?} {trimmed}"),
            Err(cause) => {
                assert!(!told.is_empty() && cause.to_string().contains(told), "{sent} {received} {waiting:?} {trimmed}: {cause}")
            }
        }
    }
}
