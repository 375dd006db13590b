//! Every bad input of the catalogue, one after the other and then all at once among good commands: each ends as the contract says,
//! dead letters keep what they were, and the stream goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use finflow_ledger::WalletId;
use finflow_topologies::log::simulated::SimulatedLog;
use finflow_topologies::log::{Headers, Log, Outgoing, Record};
use finflow_topologies::simulation::{Node, audit};
use finflow_topologies::topics::{DEAD_LETTER_BYTES_MAX, RECORD_BYTES_MAX, Topic, partition_of_wallet};
use finflow_topologies::{Rules, restore};
use serde_json::Value;

use self::catalogue::{Outcome, Row, catalogue, opening};

#[path = "bad_input/catalogue.rs"]
mod catalogue;

const PARTITIONS: u32 = 4;
const NOW_MS: i64 = 1_700_000_000_000;
/// When the log took everything that is sent.
const SENT_MS: i64 = NOW_MS - 1_500;
/// Good commands among the bad ones.
const GOOD: usize = 400;

struct World {
    log: SimulatedLog,
    nodes: Vec<Node>,
    seen: BTreeMap<(Topic, u32), u64>,
}

/// What became of some records: how often each event with each reason, and the dead letters.
#[derive(Default)]
struct Told {
    events: Vec<Value>,
    dead: Vec<Record>,
}

impl World {
    fn new(lanes: u32) -> World {
        let rules = Arc::new(Rules::development(PARTITIONS));
        let log = SimulatedLog::new(PARTITIONS);
        log.set_time(SENT_MS);
        restore::create(&log, finflow_state::Generation([1; 16]), NOW_MS).expect("a log in memory");
        let start = |lane: u32| {
            let mut node = Node::start(&log, &format!("lane-{lane}"), 1, &rules).expect("a session");
            (0..PARTITIONS).filter(|id| id % lanes == lane).for_each(|id| {
                node.adopt_empty(id).expect("an empty partition");
            });
            node
        };
        let nodes = (0..lanes).map(start).collect();
        let mut world = World { log, nodes, seen: BTreeMap::new() };
        for (wallet, command) in opening() {
            world.send(&good(wallet, command));
        }
        world.run();
        let told = world.told();
        let refused = outcomes(&told.events).into_iter().filter(|outcome| outcome.contains("rejected"));
        assert_eq!((refused.collect::<Vec<_>>(), told.dead.len()), (vec![], 0), "all of the opening is carried out");
        world
    }

    fn send(&self, row: &Row) -> (u32, u64) {
        let partition = self.partition(row);
        let bytes = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(Bytes::copy_from_slice);
        let headers = Headers::from_pairs(row.headers.iter().map(|(name, value)| (*name, &value[..])));
        let size = [&row.key, &row.value].into_iter().flatten().map(Vec::len).sum::<usize>() + headers.as_bytes().len();
        assert!(size <= RECORD_BYTES_MAX, "{}: no log takes it", row.name);
        let record = Outgoing { key: bytes(&row.key), value: bytes(&row.value), headers, ..Outgoing::default() };
        (partition, self.log.append(Topic::Commands, partition, vec![record]).expect("a log in memory"))
    }

    /// Where a producer sends it: to the home of the wallet that it names, and `astray` partitions further.
    fn partition(&self, row: &Row) -> u32 {
        let value = row.value.as_deref().unwrap_or_default();
        let command: Option<Value> = serde_json::from_slice(value).ok();
        let wallet = command.and_then(|command| WalletId::parse(command["wallet"].as_str()?));
        (wallet.map_or(0, |wallet| partition_of_wallet(&wallet, PARTITIONS)) + row.astray) % PARTITIONS
    }

    fn run(&mut self) {
        for _ in 0..8 {
            self.nodes.iter_mut().for_each(|node| node.run(NOW_MS).expect("a running node"));
        }
        assert!(self.nodes.iter().all(Node::is_idle));
    }

    /// What was told since the last time.
    fn told(&mut self) -> Told {
        let mut told = Told::default();
        for partition in 0..PARTITIONS {
            for record in self.news(Topic::Events, partition) {
                told.events.push(serde_json::from_slice(record.value.as_deref().unwrap_or_default()).expect("an event is JSON"));
            }
            told.dead.extend(self.news(Topic::Dlq, partition));
        }
        told
    }

    fn news(&mut self, topic: Topic, partition: u32) -> Vec<Record> {
        let next = self.seen.entry((topic, partition)).or_default();
        let fetched = self.log.fetch(topic, partition, *next, usize::MAX).expect("a log in memory");
        *next = fetched.next;
        fetched.records
    }

    fn audited(&self) -> BTreeMap<String, i128> {
        let records = |id| self.log.fetch(Topic::Events, id, 0, usize::MAX).expect("a log in memory").records;
        let events: Vec<Bytes> = (0..PARTITIONS).flat_map(records).filter_map(|record| record.value).collect();
        let audit = audit(events.iter().map(|event| &**event));
        assert_eq!(audit.faults, vec![]);
        audit.balances.into_iter().map(|(wallet, (_, balance))| (wallet, balance)).collect()
    }
}

fn good(wallet: &str, command: String) -> Row {
    Row {
        name: command.clone(),
        key: Some(wallet.as_bytes().to_vec()),
        value: Some(command.into_bytes()),
        headers: vec![],
        astray: 0,
        outcome: Outcome::Duplicate,
    }
}

/// The events on the command's own wallet, as the catalogue names them.
fn outcomes(events: &[Value]) -> Vec<String> {
    let own = events.iter().filter(|event| event["event"] != "wallet.credited");
    own.map(|event| match event["reason"].as_str() {
        Some(reason) => format!("{} {reason}", event["event"].as_str().unwrap_or_default()),
        None => event["event"].as_str().unwrap_or_default().to_owned(),
    })
    .collect()
}

fn check_dead_letter(row: &Row, place: (u32, u64), code: &str, letter: &Record) {
    let name = &row.name;
    assert_eq!(letter.key.as_deref(), row.key.as_deref(), "{name}");
    assert_eq!(letter.value.as_deref(), row.value.as_deref(), "{name}");
    let kept: Vec<_> = letter.headers.iter().take(row.headers.len()).collect();
    assert!(kept.into_iter().eq(row.headers.iter().map(|(name, value)| (*name, &value[..]))), "{name}: headers are kept");
    let header = |name: &str| letter.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
    assert_eq!(header("x-error-code").as_deref(), Some(code), "{name}: {:?}", header("__streams.errors.message"));
    assert_eq!(header("__streams.errors.exception").as_deref(), Some("finflow.Malformed"), "{name}");
    assert_eq!(header("__streams.errors.topic").as_deref(), Some("finflow.commands.v1"), "{name}");
    assert_eq!(header("__streams.errors.partition"), Some(place.0.to_string()), "{name}");
    assert_eq!(header("__streams.errors.offset"), Some(place.1.to_string()), "{name}");
    assert_eq!((letter.timestamp_ms, header("x-dead-lettered-at")), (SENT_MS, Some(NOW_MS.to_string())), "{name}");
    let message = header("__streams.errors.message").unwrap_or_default();
    assert!(!message.is_empty() && message.len() < 200 && message.is_ascii(), "{name}: a message quotes nothing: {message}");
    let size = letter.key.as_ref().map_or(0, Bytes::len) + letter.value.as_ref().map_or(0, Bytes::len);
    assert!(size + letter.headers.as_bytes().len() <= DEAD_LETTER_BYTES_MAX, "{name}");
}

#[test]
fn each_ends_as_the_contract_says() {
    for lanes in [1, 2] {
        let mut world = World::new(lanes);
        for row in catalogue() {
            let place = world.send(&row);
            world.run();
            let told = world.told();
            let (expected, dead) = match row.outcome {
                Outcome::Dead(_) => (vec![], 1),
                Outcome::Refused(event, reason) => (vec![format!("{event} {reason}")], 0),
                Outcome::Done(event) => (vec![event.to_owned()], 0),
                Outcome::Duplicate => (vec![], 0),
            };
            let codes: Vec<_> =
                told.dead.iter().map(|letter| letter.headers.get("x-error-code").map(String::from_utf8_lossy)).collect();
            assert_eq!((outcomes(&told.events), told.dead.len()), (expected, dead), "{lanes} lanes, {}: {codes:?}", row.name);
            if let (Outcome::Dead(code), [letter]) = (row.outcome, &told.dead[..]) {
                check_dead_letter(&row, place, code, letter);
            }
        }
        world.audited();
    }
}

#[test]
fn all_at_once_among_good_commands_lose_nothing_and_stop_nothing() {
    let rows = catalogue();
    let count = |wanted: fn(&Outcome) -> bool| rows.iter().filter(|row| wanted(&row.outcome)).count();
    let dead = count(|outcome| matches!(outcome, Outcome::Dead(_)));
    let settled = count(|outcome| *outcome == Outcome::Done("payment.settled"));
    assert!(150 < rows.len() && 100 < dead, "the catalogue is there: {} rows", rows.len());
    for lanes in [1, 2] {
        let mut world = World::new(lanes);
        // Records of one key keep their order, so that a first request comes before its copies.
        for n in 0..rows.len().max(GOOD) {
            if n < GOOD {
                let (from, to) = if n % 2 == 0 { ("payer", "receiver") } else { ("receiver", "payer") };
                let start = format!(r#"{{"type":"transfer","tenant":"acme","idempotency_key":"good-{n}","wallet":"{from}","#);
                world.send(&good(from, format!(r#"{start}"to":"{to}","amount":"0.01","currency":"AED"}}"#)));
            }
            if let Some(row) = rows.get(n) {
                world.send(row);
            }
        }
        world.run();
        let told = world.told();
        assert_eq!(told.dead.len(), dead, "{lanes} lanes");
        let of = |name: &str| told.events.iter().filter(|event| event["event"] == name).count();
        let good = told.events.iter().filter(|event| {
            let is_good = event["idempotency_key"].as_str().is_some_and(|key| key.starts_with("good-"));
            is_good && matches!(event["event"].as_str(), Some("payment.settled" | "payment.rejected"))
        });
        assert_eq!(good.count(), GOOD, "{lanes} lanes: every good command is answered");
        // Astray records keep no order with the others of their wallet; the rest of the catalogue does.
        assert_eq!(
            of("payment.settled") + of("payment.rejected") + of("command.rejected"),
            GOOD + answered(&rows),
            "{lanes} lanes"
        );
        assert!(settled < of("payment.settled"), "{lanes} lanes");
        let balances = world.audited();
        assert_eq!(balances.get("payer").zip(balances.get("receiver")).map(|(payer, receiver)| payer + receiver), Some(10_000));
        assert_eq!((balances.get("frozen"), balances.get("dinar")), (Some(&1_000), Some(&5_000)));
    }
}

/// Rows that are answered with an event on their own wallet.
fn answered(rows: &[Row]) -> usize {
    rows.iter().filter(|row| matches!(row.outcome, Outcome::Refused(..) | Outcome::Done(_))).count()
}
