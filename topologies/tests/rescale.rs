//! An application with another number of partitions: what it holds stays the same, and it goes on where it was. Also when whoever
//! brings it dies at any commit, and begins again.

use std::collections::BTreeMap;
use std::sync::Arc;

use finflow_ledger::{SystemAccount, Wallet};
use finflow_state::{Accounts, Dump, Generation, Holds, MemoryStore, Origin, Origins, Payments, Store, Wallets, store};
use finflow_topologies::log::simulated::{Fault, SimulatedLog};
use finflow_topologies::log::{Error, Log, Outgoing};
use finflow_topologies::rescale::{self, Import, Imported, Sizes, obstacles};
use finflow_topologies::restore::{self, restore};
use finflow_topologies::simulation::audit;
use finflow_topologies::topics::{partition_of_payment, partition_of_wallet};
use finflow_topologies::{Topic, TopologyDriver};
use proptest::prelude::*;
use serde_json::Value;

use self::mortal::Mortal;

#[path = "support/mortal.rs"]
mod mortal;

/// Blocks and transactions of a few rows, so that there are many of them.
const SMALL: Sizes = Sizes { block_bytes: 1_500, transaction_bytes: 4_000 };
const WALLETS: u64 = 40;

/// A load with everything that leaves a trace in the state: wallets in two currencies, some frozen, transfers of which some fail.
fn commands(seed: u64, transfers: u64) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let currency = |n: u64| if n.is_multiple_of(3) { "VND" } else { "AED" };
    let mut lines = Vec::new();
    for n in 0..WALLETS {
        let common = format!(r#""tenant":"acme","wallet":"w{n}""#);
        let currency = currency(n);
        lines.push(format!(
            r#"{{"type":"open_wallet",{common},"idempotency_key":"open","currency":"{currency}","country":"AE","kind":"personal","holder":"H"}}"#
        ));
        lines.push(format!(
            r#"{{"type":"top_up",{common},"idempotency_key":"top","amount":"1000","currency":"{currency}","source":{{"account":"x"}}}}"#
        ));
        if n % 11 == 5 {
            lines.push(format!(r#"{{"type":"freeze_wallet",{common},"idempotency_key":"freeze","reason":"test"}}"#));
        }
    }
    for n in 0..transfers {
        let (from, to) = (random.u64(..WALLETS), random.u64(..WALLETS + 2));
        let (amount, currency) = (random.u64(1..400), currency(from));
        lines.push(format!(
            r#"{{"type":"transfer","tenant":"acme","idempotency_key":"{seed}-{n}","wallet":"w{from}","to":"w{to}","amount":"{amount}","currency":"{currency}"}}"#
        ));
    }
    lines
}

fn carry_out(driver: &mut TopologyDriver, commands: &[String]) {
    // In turn, so that the order between wallets does not depend on the number of partitions.
    for command in commands {
        driver.send(command);
        driver.run().expect("nothing halts");
    }
}

/// Everything that must be the same before and after.
#[derive(Debug, PartialEq, Eq, Default)]
struct Content {
    wallets: BTreeMap<String, Wallet>,
    payments: BTreeMap<String, String>,
    holds: usize,
}

fn content(driver: &TopologyDriver, partitions: u32) -> Content {
    let mut content = Content::default();
    let mut rescaled = BTreeMap::new();
    for partition in 0..partitions {
        let held = driver.store(partition);
        assert_eq!(store::verify(&*held).expect("readable").differences, Vec::<String>::new(), "partition {partition}");
        let visited = store::visit_rows::<Wallets>(&*held, |id, wallet| {
            assert_eq!(partition_of_wallet(&id, partitions), partition);
            content.wallets.insert(id.as_str().to_owned(), wallet);
        });
        visited.expect("readable");
        let visited = store::visit_rows::<Payments>(&*held, |id, payment| {
            assert_eq!(partition_of_payment(id, partitions), partition);
            content.payments.insert(id.to_string(), format!("{payment:?}"));
        });
        visited.expect("readable");
        store::visit_rows::<Holds>(&*held, |_, _| content.holds += 1).expect("readable");
        let visited = store::visit_rows::<Accounts>(&*held, |(kind, currency), minor| {
            if kind == SystemAccount::Rescale {
                *rescaled.entry(currency).or_insert(0) += minor;
            }
        });
        visited.expect("readable");
    }
    assert!(rescaled.values().all(|sum| *sum == 0), "the rescale accounts net to zero: {rescaled:?}");
    content
}

fn dumped(driver: &TopologyDriver, partitions: u32, dir: &std::path::Path) -> Dump {
    let heads = (0..partitions).map(|partition| (partition, driver.store(partition).head().expect("a head"))).collect();
    assert_eq!(obstacles(driver.log(), &heads), Ok(vec![]), "it stands still");
    let stores: Vec<Arc<dyn Store>> = (0..partitions).map(|partition| driver.store(partition)).collect();
    let stores: Vec<&dyn Store> = stores.iter().map(|store| &**store).collect();
    let dump = Dump::write(dir, "old", &stores).expect("a dump");
    dump.check().expect("a whole dump");
    dump
}

/// Brings the dump through `log`, which is `inner` or what stands before it.
fn bring(dump: &Dump, log: &dyn Log, inner: &SimulatedLog) -> Result<Imported, rescale::Error> {
    let positions = || Ok(inner.committed_positions());
    let origin = Some(Origin { prefix: "old".to_owned(), ends: vec![] });
    let import =
        Import { dump, prefix: "new", log, positions: &positions, lane: "new-import", origin, sizes: SMALL, done: &|| () };
    import.run(&|| Ok(()))
}

fn events(driver: &TopologyDriver) -> Vec<Vec<u8>> {
    driver.events().iter().map(|event| event.to_string().into_bytes()).collect()
}

/// A state on `from` partitions, brought to `to` of them.
fn check(seed: u64, from: u32, to: u32, lanes: u32) {
    let case = format!("seed {seed}, {from} to {to} partitions, {lanes} lanes");
    let first = commands(seed, 120);
    let mut old = TopologyDriver::new(from, lanes);
    carry_out(&mut old, &first);
    let before = content(&old, from);
    assert_eq!(before.holds, 0);
    let told = events(&old);

    let dir = tempfile::tempdir().expect("a directory");
    let dump = dumped(&old, from, &dir.path().join("dump"));
    let log = SimulatedLog::new(to).with_gaps();
    let imported = bring(&dump, &log, &log).expect("it is brought");
    assert!(!imported.was_whole && 0 < imported.blocks, "{case}: {imported:?}");
    let mut new = TopologyDriver::over(log.clone(), lanes);
    assert_eq!(content(&new, to), before, "{case}");
    for partition in 0..to {
        let head = new.store(partition).head().expect("a head");
        assert_eq!((head.sent.len(), head.received.len()), (0, 0), "{case}: sequences begin again");
        let mut others = 0;
        let visited = store::visit_rows::<Accounts>(&*new.store(partition), |(kind, _), _| {
            others += usize::from(kind != SystemAccount::Rescale);
        });
        visited.expect("readable");
        assert_eq!(0 < others, partition == 0, "{case}: system accounts are in partition 0");
        let mut origins = Vec::new();
        store::visit_rows::<Origins>(&*new.store(partition), |_, origin| origins.push(origin.prefix)).expect("readable");
        assert_eq!(origins, if partition == 0 { vec!["old"] } else { vec![] }, "{case}");
    }

    carry_out(&mut new, &first);
    assert_eq!(new.events(), Vec::<Value>::new(), "{case}: every command is a duplicate");
    let second = commands(seed + 1_000_000, 60);
    carry_out(&mut new, &second);
    carry_out(&mut old, &second);
    let (mut went_on, mut would_have) = (content(&new, to), content(&old, from));
    // Where and when they were read differs.
    went_on.payments.clear();
    would_have.payments.clear();
    assert_eq!(went_on, would_have, "{case}: it goes on as it would have gone on");
    let audited = audit(told.iter().chain(&events(&new)));
    assert!(audited.faults.is_empty(), "{case}: {:?}", audited.faults);

    // And back again: the rescale accounts of the first change are left behind by the second.
    let back = dumped(&new, to, &dir.path().join("back"));
    let log = SimulatedLog::new(from);
    bring(&back, &log, &log).expect("it is brought back");
    let driver = TopologyDriver::over(log, lanes);
    assert_eq!(content(&driver, from), content(&new, to), "{case}: back again");
    let mut origins = 0;
    store::visit_rows::<Origins>(&*driver.store(0), |_, _| origins += 1).expect("readable");
    assert_eq!(origins, 2, "{case}: both former generations are known");
}

#[test]
fn what_it_holds_stays_the_same_and_it_goes_on_where_it_was() {
    for (seed, from, to, lanes) in [(1, 1, 1, 1), (2, 4, 4, 2), (3, 8, 32, 2), (4, 5, 2, 1), (5, 3, 7, 3), (6, 2, 1, 2)] {
        check(seed, from, to, lanes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn between_any_numbers_of_partitions(seed in 100_u64..1_000_000, from in 1_u32..7, to in 1_u32..12, lanes in 1_u32..3) {
        check(seed, from, to, lanes);
    }
}

/// The journals as they are read, whatever lies between their records.
fn journals(log: &SimulatedLog) -> Vec<Vec<Option<bytes::Bytes>>> {
    let read = |partition| log.fetch(Topic::Journal, partition, 0, usize::MAX).expect("a journal").records;
    (0..log.partitions()).map(|partition| read(partition).into_iter().map(|record| record.value).collect()).collect()
}

fn restored(log: &SimulatedLog, partition: u32) -> Result<(), restore::Error> {
    let position = log.committed_positions().remove(&partition).flatten();
    restore(log, &MemoryStore::default(), partition, position.as_ref()).map(drop)
}

#[test]
fn whoever_dies_at_any_commit_is_gone_on_from() {
    let (from, to) = (3, 5);
    let mut old = TopologyDriver::new(from, 2);
    carry_out(&mut old, &commands(7, 150));
    let dir = tempfile::tempdir().expect("a directory");
    let dump = dumped(&old, from, &dir.path().join("dump"));
    let log = SimulatedLog::new(to).with_gaps();
    let whole = bring(&dump, &log, &log).expect("it is brought");
    let due = journals(&log);
    let mut deaths = 0;
    for is_written in [false, true] {
        for commits in 0.. {
            let log = SimulatedLog::new(to).with_gaps();
            let mortal = Mortal::new(&log, commits, is_written);
            let died = bring(&dump, &mortal, &log);
            if died.is_ok() {
                break;
            }
            deaths += 1;
            assert_eq!(died, Err(rescale::Error::Log(Error::Fenced)));
            let is_whole = journals(&log) == due;
            for partition in 0..to {
                let found = restored(&log, partition);
                match commits {
                    0 if !is_written => assert!(matches!(found, Err(restore::Error::Contradiction(_))), "there is nothing"),
                    _ if is_whole => assert_eq!(found, Ok(())),
                    _ => assert_eq!(found, Err(restore::Error::Unfinished), "{commits} commits, partition {partition}"),
                }
            }
            let again = bring(&dump, &log, &log).expect("it goes on");
            assert_eq!((again.generation, again.was_whole), (whole.generation, is_whole), "{commits} commits");
            if !is_whole {
                assert_eq!(again.blocks, whole.blocks);
                assert!(commits + usize::from(is_written) < 2 || 0 < again.found, "what is there is not written again");
            }
            assert!(journals(&log) == due, "{commits} commits, {is_written}: it ends the same");
            assert!(bring(&dump, &log, &log).expect("nothing to do").was_whole);
        }
    }
    assert!(12 < deaths, "there were commits to die at, {deaths}");
}

#[test]
fn a_commit_that_fails_or_is_in_doubt_is_gone_on_from() {
    let mut old = TopologyDriver::new(2, 1);
    carry_out(&mut old, &commands(8, 40));
    let dir = tempfile::tempdir().expect("a directory");
    let dump = dumped(&old, 2, &dir.path().join("dump"));
    let log = SimulatedLog::new(3);
    bring(&dump, &log, &log).expect("it is brought");
    let due = journals(&log);
    for fault in [Fault::Abort, Fault::DoubtAborted, Fault::DoubtCommitted] {
        let log = SimulatedLog::new(3);
        log.fail_next(Some(fault));
        bring(&dump, &log, &log).expect("it goes on by itself");
        assert!(journals(&log) == due, "{fault:?}");
    }
}

#[test]
fn it_ends_only_where_it_may() {
    let mut old = TopologyDriver::new(2, 1);
    carry_out(&mut old, &commands(9, 10));
    let dir = tempfile::tempdir().expect("a directory");
    let dump = dumped(&old, 2, &dir.path().join("dump"));
    let log = SimulatedLog::new(3);
    let positions = || Ok(log.committed_positions());
    let import = Import {
        dump: &dump,
        prefix: "new",
        log: &log,
        positions: &positions,
        lane: "l",
        origin: None,
        sizes: SMALL,
        done: &|| (),
    };
    let refused = rescale::Error::Refused("the old partitions have moved".to_owned());
    assert_eq!(import.run(&|| Err(refused.clone())), Err(refused.clone()));
    let forgotten = || restore(&log, &MemoryStore::default(), 1, None).map(drop);
    assert_eq!((restored(&log, 1), forgotten()), (Err(restore::Error::Unfinished), Err(restore::Error::Unfinished)));
    assert_eq!(restore::is_being_brought(&log, || Ok(None)), Ok(true));
    assert!(import.run(&|| Ok(())).is_ok_and(|imported| imported.found == imported.blocks), "all rows were there");
    assert_eq!(restored(&log, 1), Ok(()));
    // Whoever loses the positions later is not taken for one who is not done.
    assert!(matches!(forgotten(), Err(restore::Error::Outrun { committed: 0, .. })), "{:?}", forgotten());
    assert_eq!(restore::is_being_brought(&log, || Ok(None)), Ok(false));
}

#[test]
fn topics_that_hold_something_else_are_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let dump_of = |name: &str, seed| {
        let mut old = TopologyDriver::new(2, 1);
        carry_out(&mut old, &commands(seed, 5));
        dumped(&old, 2, &dir.path().join(name))
    };
    let (one, other) = (dump_of("one", 1), dump_of("other", 2));
    let told = |log: &SimulatedLog| bring(&one, log, log).expect_err("it is refused").to_string();

    let begun = SimulatedLog::new(3);
    restore::create(&begun, Generation([4; 16]), 0).expect("a log");
    assert!(told(&begun).contains("another application"));
    let log = SimulatedLog::new(3);
    bring(&other, &log, &log).expect("it is brought");
    assert!(told(&log).contains("another dump"));
    let log = SimulatedLog::new(3);
    bring(&one, &log, &log).expect("it is brought");
    log.forget_position(1);
    assert!(told(&log).contains("parts of something else"), "positions were lost");
}

#[test]
fn whatever_is_under_way_is_named() {
    let mut driver = TopologyDriver::new(4, 4);
    carry_out(&mut driver, &commands(3, 30));
    let heads = |driver: &TopologyDriver| -> BTreeMap<u32, finflow_state::Head> {
        (0..4).map(|partition| (partition, driver.store(partition).head().expect("a head"))).collect()
    };
    let resting = heads(&driver);
    assert_eq!(obstacles(driver.log(), &resting), Ok(vec![]));
    driver.send(r#"{"type":"freeze_wallet","tenant":"acme","wallet":"w1","idempotency_key":"f","reason":"r"}"#);
    let found = obstacles(driver.log(), &heads(&driver)).expect("a log");
    assert!(found.len() == 1 && found[0].contains("commands of partition") && found[0].contains("not consumed"), "{found:?}");
    driver.run().expect("nothing halts");
    assert_eq!(obstacles(driver.log(), &heads(&driver)), Ok(vec![]));

    let mut unequal = heads(&driver);
    let pair = unequal.iter().find_map(|(source, head)| Some((*source, *head.sent.iter().next()?.0)));
    let (source, destination) = pair.expect("a pair that has sent something");
    *unequal.get_mut(&source).expect("a head").sent.get_mut(&destination).expect("a sequence") += 1;
    let found = obstacles(driver.log(), &unequal).expect("a log");
    assert!(found.len() == 1 && found[0].starts_with(&format!("partition {source} has sent")), "{found:?}");
    unequal.get_mut(&source).expect("a head").sent.remove(&destination);
    assert_eq!(obstacles(driver.log(), &unequal).expect("a log").len(), 1, "received what was not sent");
}

#[test]
fn books_that_do_not_net_to_zero_are_not_opened() {
    let currency = finflow_ledger::Currency::parse("AED").expect("a currency");
    let money = |minor| finflow_ledger::Money::from_minor(minor, currency);
    type Row = (u32, SystemAccount, i128);
    let rows: [(&[Row], i128, &str); 6] = [
        (&[(0, SystemAccount::Treasury, -100)], 100, ""),
        (
            &[(0, SystemAccount::Treasury, -100), (0, SystemAccount::InTransit(1), 7), (1, SystemAccount::InTransit(0), -7)],
            100,
            "",
        ),
        (&[(0, SystemAccount::Treasury, -107), (0, SystemAccount::InTransit(1), 7)], 100, "7 minor units of AED are in transit"),
        (&[(0, SystemAccount::Rescale, -100)], 100, "the rescale accounts sum to -100"),
        (&[(0, SystemAccount::Treasury, -99)], 100, "all accounts together are off by 1"),
        (&[(0, SystemAccount::Fees, i128::MAX), (1, SystemAccount::Fees, 1)], 0, "beyond what money can be"),
    ];
    for (accounts, wallet, told) in rows {
        let mut books = rescale::Books::default();
        accounts.iter().for_each(|(partition, kind, minor)| books.account(*partition, (*kind, currency), *minor));
        books.wallet(1, money(wallet));
        match books.open() {
            Ok(opened) => {
                assert_eq!(told, "");
                let sums = opened.values().map(|balances| balances.values().sum::<i128>()).collect::<Vec<_>>();
                assert_eq!(sums, [0, -wallet], "with its wallet, each partition sums to zero");
            }
            Err(faults) => assert!(!told.is_empty() && faults.iter().any(|fault| fault.contains(told)), "{told}: {faults:?}"),
        }
    }
}

#[test]
fn another_number_of_partitions_is_refused() {
    let log = SimulatedLog::new(3);
    let dir = tempfile::tempdir().expect("a directory");
    let old = TopologyDriver::new(2, 1);
    let dump = dumped(&old, 2, &dir.path().join("dump"));
    bring(&dump, &log, &log).expect("an empty state is brought too");
    restore::create(&log, Generation([1; 16]), 0).expect("the same number");
    let more = SimulatedLog::new(4);
    let block = log.fetch(Topic::Journal, 0, 0, 1).expect("a journal").records.remove(0);
    more.append(Topic::Journal, 0, vec![Outgoing { value: block.value, ..Outgoing::default() }]).expect("a log");
    let refused = restore::create(&more, Generation([1; 16]), 0).expect_err("it is refused").to_string();
    assert!(refused.contains("begun with 3 partitions, 4 are configured"), "{refused}");
    assert_eq!(more.range(Topic::Journal, 3).map(|range| range.end), Ok(0), "and nothing is written");
}
