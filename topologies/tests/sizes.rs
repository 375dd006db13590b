//! Sizes: whatever waits in the log, what a lane holds in memory is bounded, and so is every transaction that it closes.
//!
//! Each row is a backlog behind a commit whose outcome is not known for long. All of it is carried out in the end.

use std::sync::Arc;

use bytes::Bytes;
use finflow_ledger::WalletId;
use finflow_state::{Generation, MemoryStore};
use finflow_topologies::log::simulated::SimulatedLog;
use finflow_topologies::log::{Log, Outgoing, Transaction};
use finflow_topologies::simulation::{Node, audit};
use finflow_topologies::sizes::{
    BLOCK_BYTES_MAX, BLOCK_BYTES_SOFT, QUEUE_BYTES_MAX, RECORDS_BYTES_MAX, RECORDS_BYTES_SOFT, WAVE_BYTES_MAX,
};
use finflow_topologies::topics::{DEAD_LETTER_BYTES_MAX, RECORD_BYTES_MAX, partition_of_wallet};
use finflow_topologies::{Rules, Topic, restore};

const PARTITIONS: u32 = 2;
const FETCH_BYTES: usize = 512 * 1024;
/// Of a block's header, with its stamps, and of postings, besides what they carry.
const FRAME_BYTES: usize = 4 * 1024;

/// Which limit a backlog is large enough to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reaches {
    Block,
    Records,
    Neither,
}

struct Row {
    name: &'static str,
    /// Carried out before the backlog comes.
    before: Vec<String>,
    /// What waits, and how far from its home.
    backlog: Vec<String>,
    astray: u32,
    /// With one lane, and with two.
    reaches: [Reaches; 2],
    /// Dead letters, and events of the backlog.
    ends: (usize, usize),
}

/// The first wallet that is at home in a partition.
fn wallet(partition: u32) -> String {
    let mut all = (0..).map(|n| format!("w{n}"));
    all.find(|id| partition_of_wallet(&WalletId::parse(id).expect("an id"), PARTITIONS) == partition).expect("one of them")
}

fn open(wallet: &str, key: &str) -> String {
    let rest = r#""currency":"AED","country":"AE","kind":"personal","holder":"H""#;
    format!(r#"{{"type":"open_wallet","tenant":"acme","idempotency_key":"{key}","wallet":"{wallet}",{rest}}}"#)
}

fn transfer(key: usize, metadata: &str) -> String {
    let (from, to) = (wallet(0), wallet(1));
    let rest = format!(r#""to":"{to}","amount":"0.01","currency":"AED","metadata":{{{metadata}}}"#);
    format!(r#"{{"type":"transfer","tenant":"acme","idempotency_key":"t{key}","wallet":"{from}",{rest}}}"#)
}

/// As much metadata as a command may have.
fn metadata() -> String {
    let pairs = (0..16).map(|n| format!(r#""{n:064}":"{}""#, "\u{20ac}".repeat(256)));
    pairs.collect::<Vec<_>>().join(",")
}

fn rows() -> Vec<Row> {
    let top_up = r#""type":"top_up","amount":"1000","currency":"AED","source":{"account":"x"}"#;
    let top_up = format!(r#"{{"tenant":"acme","idempotency_key":"p","wallet":"{}",{top_up}}}"#, wallet(0));
    let funded = vec![open(&wallet(0), "o"), open(&wallet(1), "o"), top_up];
    let padded = |n: usize| open(&wallet(0), &format!("far-{n}")) + &" ".repeat(60 * 1024);
    vec![
        Row {
            name: "poison records as long as the log takes them",
            before: vec![],
            backlog: vec!["x".repeat(RECORD_BYTES_MAX - 100); 120],
            astray: 0,
            reaches: [Reaches::Records; 2],
            ends: (120, 0),
        },
        Row {
            name: "payments with all the metadata there may be",
            before: vec![],
            backlog: (0..200).map(|n| transfer(n, &metadata())).collect(),
            astray: 0,
            reaches: [Reaches::Block; 2],
            ends: (0, 200),
        },
        Row {
            name: "legs with all the metadata there may be",
            before: funded.clone(),
            backlog: (0..200).map(|n| transfer(n, &metadata())).collect(),
            astray: 0,
            reaches: [Reaches::Block; 2],
            ends: (0, 400),
        },
        Row {
            name: "long commands that came to the wrong partition",
            before: vec![],
            backlog: (0..150).map(padded).collect(),
            astray: 1,
            reaches: [Reaches::Neither, Reaches::Records],
            ends: (0, 150),
        },
        Row {
            name: "amounts so long that record and event are more than one input may cause",
            before: vec![],
            backlog: (0..20).map(|n| transfer(n, "").replace("0.01", &"9".repeat(65_300))).collect(),
            astray: 0,
            reaches: [Reaches::Neither; 2],
            ends: (20, 0),
        },
        Row {
            name: "copies of one command",
            before: funded,
            backlog: vec![transfer(0, ""); 40_000],
            astray: 0,
            reaches: [Reaches::Neither; 2],
            ends: (0, 2),
        },
    ]
}

struct World {
    log: SimulatedLog,
    nodes: Vec<Node>,
    /// Bytes that the lanes took from the log.
    taken: usize,
    /// The largest block, and the most of events and dead letters or of postings that one partition had in one transaction.
    largest: (usize, usize),
    /// The most commands that were answered by one commit.
    answers: usize,
}

impl World {
    fn new(lanes: u32) -> World {
        let log = SimulatedLog::new(PARTITIONS);
        restore::create(&log, Generation([1; 16]), 0).expect("a log in memory");
        let rules = Arc::new(Rules {
            dedup_retention_ms: 1_000_000,
            dedup_margin_ms: 1_000,
            hot_wallets_max: 10,
            ..Rules::development(PARTITIONS)
        });
        let start = |lane: u32| {
            let mut node = Node::start(&log, &format!("lane-{lane}"), 1, &rules).expect("a session");
            for partition in (0..PARTITIONS).filter(|partition| partition % lanes == lane) {
                node.adopt(partition, Arc::new(MemoryStore::default())).expect("an empty partition");
            }
            node
        };
        let nodes = (0..lanes).map(start).collect();
        World { log, nodes, taken: 0, largest: (0, 0), answers: 0 }
    }

    fn send(&self, value: &str, astray: u32) {
        let command: serde_json::Value = serde_json::from_str(value).unwrap_or_default();
        let wallet = command["wallet"].as_str().unwrap_or("k").to_owned();
        let home = WalletId::parse(&wallet).map_or(0, |id| partition_of_wallet(&id, PARTITIONS));
        let record = Outgoing { key: Some(wallet.into()), value: Some(Bytes::from(value.to_owned())), ..Outgoing::default() };
        self.log.append(Topic::Commands, (home + astray) % PARTITIONS, vec![record]).expect("a log in memory");
    }

    /// Fetches and decides as long as the lanes want something.
    fn decide(&mut self) {
        for node in &mut self.nodes {
            let mut is_busy = true;
            while is_busy {
                is_busy = false;
                for partition in node.lane.partitions().collect::<Vec<_>>() {
                    let wants = node.lane.wants(partition);
                    for (topic, from) in [(Topic::Commands, wants.commands), (Topic::Postings, wants.postings)] {
                        let Some(from) = from else { continue };
                        let fetched = self.log.fetch(topic, partition, from, FETCH_BYTES).expect("a log in memory");
                        is_busy |= fetched.next != from;
                        self.taken += fetched.records.iter().map(|record| record.bytes()).sum::<usize>();
                        node.lane.offer(topic, partition, from, fetched);
                    }
                }
                while node.round(0, None).is_some() {
                    is_busy = true;
                }
            }
        }
    }

    /// Closes what is open and looks at its size.
    fn close(&mut self) {
        for node in &mut self.nodes {
            if node.close(0) {
                let (block, records) = sizes(node.in_flight().expect("a commit in flight"));
                self.largest = (self.largest.0.max(block), self.largest.1.max(records));
            }
        }
    }

    fn commit(&mut self) {
        for node in &mut self.nodes {
            let settled = node.commit().expect("a log in memory");
            self.answers = self.answers.max(settled.map_or(0, |settled| settled.outcomes.len()));
            for partition in node.lane.partitions().collect::<Vec<_>>() {
                node.apply(partition, usize::MAX).expect("a store in memory");
            }
        }
    }

    fn run(&mut self) {
        for _ in 0..10_000 {
            let before = Topic::ALL.map(|topic| self.count(topic));
            self.decide();
            self.close();
            self.commit();
            // A posting for a lane that has had its turn is input that nobody has fetched yet.
            if self.nodes.iter().all(Node::is_idle) && before == Topic::ALL.map(|topic| self.count(topic)) {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn count(&self, topic: Topic) -> usize {
        let end = |partition| self.log.range(topic, partition).expect("a log in memory").end;
        (0..PARTITIONS).map(end).sum::<u64>() as usize
    }
}

fn sizes(transaction: &Transaction) -> (usize, usize) {
    let (mut block, mut records) = (0, 0);
    for batch in &transaction.batches {
        let bytes = batch.records.iter().map(Outgoing::bytes).sum::<usize>();
        match batch.topic {
            Topic::Journal => block = block.max(bytes),
            _ => records = records.max(bytes),
        }
    }
    (block, records)
}

fn check(row: &Row, lanes: u32, reached: Reaches) {
    let name = format!("{}, {lanes} lanes", row.name);
    let mut world = World::new(lanes);
    row.before.iter().for_each(|command| world.send(command, 0));
    world.run();
    // An epoch that is not answered for long, and all of the backlog behind it.
    world.send(&open(&wallet(0), "first"), 0);
    world.send(&open(&wallet(1), "first"), 0);
    world.decide();
    world.close();
    row.backlog.iter().for_each(|command| world.send(command, row.astray));
    let (dead, told) = (world.count(Topic::Dlq), world.count(Topic::Events));
    world.taken = 0;
    world.decide();
    let queued = QUEUE_BYTES_MAX + 2 * (FETCH_BYTES + RECORD_BYTES_MAX);
    let held = PARTITIONS as usize * (queued + RECORDS_BYTES_MAX + WAVE_BYTES_MAX);
    assert!(world.taken <= held, "{name}: {} bytes are held behind a commit", world.taken);

    world.commit();
    world.run();
    let (block, records) = world.largest;
    let fits = block <= BLOCK_BYTES_MAX + FRAME_BYTES && records <= RECORDS_BYTES_MAX + DEAD_LETTER_BYTES_MAX;
    assert!(fits, "{name}: a block of {block}, records of {records} bytes");
    assert!(world.answers <= RECORDS_BYTES_SOFT / 64, "{name}: {} answers in one epoch", world.answers);
    let reaches = match (BLOCK_BYTES_SOFT <= block * 5 / 4, RECORDS_BYTES_SOFT <= records * 4 / 3) {
        (_, true) => Reaches::Records,
        (true, false) => Reaches::Block,
        (false, false) => Reaches::Neither,
    };
    assert_eq!(reaches, reached, "{name}: a block of {block}, records of {records} bytes");
    // The two that open the row are answered too.
    let ends = (world.count(Topic::Dlq) - dead, world.count(Topic::Events) - told - 2);
    assert_eq!(ends, row.ends, "{name}");
    let events = (0..PARTITIONS).flat_map(|id| world.log.fetch(Topic::Events, id, 0, usize::MAX).expect("a log").records);
    let events: Vec<_> = events.filter_map(|record| record.value).collect();
    assert_eq!(audit(events.iter().map(|event| &event[..])).faults, vec![], "{name}");
}

/// A credit from another lane, behind commands that fill every epoch and do not end.
#[test]
fn commands_leave_room_for_what_others_wait_for() {
    const EPOCHS_MAX: usize = 8;
    let (from, to) = (wallet(1), wallet(0));
    let funded = [
        open(&from, "o"),
        open(&to, "o"),
        format!(
            r#"{{"type":"top_up","tenant":"acme","idempotency_key":"p","wallet":"{from}","amount":"9","currency":"AED","source":{{"account":"x"}}}}"#
        ),
    ];
    let transfer_to_busy = format!(
        r#"{{"type":"transfer","tenant":"acme","idempotency_key":"x","wallet":"{from}","to":"{to}","amount":"1","currency":"AED"}}"#
    );
    let mut world = World::new(2);
    funded.iter().for_each(|command| world.send(command, 0));
    world.run();
    let told = world.log.range(Topic::Events, 1).expect("a log in memory").end;
    let (mut keys, mut epochs) = (0.., 0);
    while world.log.range(Topic::Events, 1).expect("a log in memory").end == told {
        assert!(epochs < EPOCHS_MAX, "the transfer waits behind {epochs} full epochs of commands");
        // As many as two epochs hold, and more than are taken before a look at the postings.
        keys.by_ref().take(400).for_each(|key| world.send(&transfer(key, &metadata()), 0));
        if epochs == 1 {
            world.send(&transfer_to_busy, 0);
        }
        world.decide();
        world.close();
        world.commit();
        epochs += 1;
    }
    world.run();
    let events = world.log.fetch(Topic::Events, 1, told, usize::MAX).expect("a log in memory").records;
    let settled =
        events.iter().any(|record| record.value.as_ref().is_some_and(|value| value.windows(15).any(|w| w == b"payment.settled")));
    assert!(settled, "{events:?}");
}

#[test]
fn what_is_held_and_what_is_committed_at_once_is_bounded() {
    for row in rows() {
        for (lanes, reached) in (1..).zip(row.reaches) {
            check(&row, lanes, reached);
        }
    }
}
