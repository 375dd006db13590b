//! The engine's own work with neither log nor threads: commands decided by lane and partitions, epochs closed, written to the stores and
//! kept hot, one after the other. Among as many wallets as the benchmark of the whole has, what is met is in no cache, as there.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use finflow_state::store::{RocksStore, Shared, Store};
use finflow_state::{EncodedBlock, Generation, Head, Header, Overlay, Positions, Stamp};
use finflow_topologies::lane::{Lane, Next};
use finflow_topologies::log::{Fetched, Headers, Record, Resolution};
use finflow_topologies::topics::partition_of_key;
use finflow_topologies::{Partition, Rules, Topic};

use crate::is_asked;

const PARTITIONS: u32 = 8;
/// Among a thousand, what is met is in a cache.
const WALLETS: [u64; 3] = [1_000, 100_000, 1_000_000];
/// Commands of one epoch, as at full speed on Kafka.
const EPOCH: usize = 4_700;
/// Epochs before those that are measured, and these.
const WARM: usize = 40;
const MEASURED: usize = 60;
/// As of `store.memory`.
const MEMORY_BYTES: usize = 96 << 20;
const NOW_MS: i64 = 1_700_000_000_000;

/// The time that each part of the work has taken.
const PARTS: [&str; 5] = ["decide", "write to the stores", "keep hot", "close", "drop what was sent"];

struct Engine {
    lane: Lane,
    partitions: BTreeMap<u32, (Partition, Arc<RocksStore>)>,
    /// Where the next command of each partition stands.
    next: BTreeMap<u32, u64>,
    taken: [Duration; PARTS.len()],
}

pub(crate) fn all() {
    WALLETS.iter().filter(|wallets| is_asked(&title(**wallets))).for_each(|wallets| among(*wallets));
}

fn title(wallets: u64) -> String {
    format!("engine, {wallets} wallets")
}

fn among(wallets: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut engine = Engine::new(dir.path());
    let mut random = fastrand::Rng::with_seed(1);
    let opened: Vec<String> = (0..wallets).flat_map(opening).collect();
    opened.chunks(EPOCH).for_each(|commands| engine.run(commands));
    let mut made = 0;
    let mut epochs = |count: usize| -> Vec<Vec<String>> {
        let epoch = |_| {
            let command = |_| {
                made += 1;
                transfer(&mut random, wallets, made)
            };
            (0..EPOCH).map(command).collect()
        };
        (0..count).map(epoch).collect()
    };
    let (warm, measured) = (epochs(WARM), epochs(MEASURED));
    warm.iter().for_each(|commands| engine.run(commands));
    engine.taken = Default::default();
    let mut rounds: Vec<[Duration; PARTS.len()]> = Vec::new();
    for commands in &measured {
        let before = engine.taken;
        engine.run(commands);
        rounds.push(std::array::from_fn(|part| engine.taken[part] - before[part]));
    }
    let row = |name: &str, of: &dyn Fn(&[Duration; PARTS.len()]) -> Duration| {
        let mut nanos: Vec<f64> = rounds.iter().map(|round| of(round).as_nanos() as f64 / EPOCH as f64).collect();
        nanos.sort_by(f64::total_cmp);
        println!(
            "{:<44} {:>10.0} ns least {:>10.0} ns median",
            format!("{}: {name}", title(wallets)),
            nanos[0],
            nanos[nanos.len() / 2]
        );
    };
    for (part, name) in PARTS.into_iter().enumerate() {
        row(name, &|round| round[part]);
    }
    row("all of it", &|round| round.iter().sum());
}

impl Engine {
    fn new(dir: &std::path::Path) -> Engine {
        let rules = Arc::new(Rules { hot_wallets_max: 1_000_000, ..Rules::development(PARTITIONS) });
        let shared = Shared::new(MEMORY_BYTES, PARTITIONS);
        let mut lane = Lane::new("finflow-1-lane-0".into(), 7);
        let mut partitions = BTreeMap::new();
        for id in 0..PARTITIONS {
            let header = Header {
                generation: Generation([1; 16]),
                partition: id,
                number: 0,
                stamp: Stamp::genesis(),
                previous: Stamp::genesis(),
                at_ms: NOW_MS,
                positions: Positions { commands: 0, postings: 0 },
                sent: vec![],
                received: vec![],
            };
            let store = RocksStore::open(&dir.join(id.to_string()), &shared).expect("a store");
            store.apply(&[EncodedBlock::encode(&header, &Overlay::default())]).expect("an empty store");
            assert!(lane.adopt(1, Head::from_header(header)));
            let store = Arc::new(store);
            partitions.insert(id, (Partition::new(id, rules.clone(), store.clone()), store));
        }
        Engine { lane, partitions, next: BTreeMap::new(), taken: Default::default() }
    }

    /// Takes the commands in one epoch, or in two where one gets full.
    fn run(&mut self, commands: &[String]) {
        self.offer(commands);
        while self.lane.has_input() {
            self.epoch();
        }
    }

    fn epoch(&mut self) {
        let begun = Instant::now();
        loop {
            let work = self.lane.round(NOW_MS, Duration::ZERO);
            if work.is_empty() {
                break;
            }
            let decide = |(id, work)| {
                let (partition, _) = self.partitions.get_mut(&id).expect("a partition");
                (id, partition.decide(work))
            };
            let answers = work.into_iter().map(decide).collect();
            assert_ne!(self.lane.merge(answers), Next::Dropped);
        }
        // As in the engine, the epoch before this one is committed and not in the stores yet.
        let begun = self.note(0, begun);
        for (id, (_, store)) in &self.partitions {
            store.apply(&self.lane.unapplied(*id)).expect("blocks that follow");
        }
        let begun = self.note(1, begun);
        for (id, (partition, _)) in &mut self.partitions {
            self.lane.applied(*id, usize::MAX).iter().for_each(|epoch| partition.retire(epoch));
        }
        let begun = self.note(2, begun);
        let sent = self.lane.close(NOW_MS).expect("an epoch");
        let begun = self.note(3, begun);
        drop(black_box(sent));
        self.note(4, begun);
        black_box(self.lane.settle(Resolution::Committed));
    }

    fn note(&mut self, part: usize, begun: Instant) -> Instant {
        let now = Instant::now();
        self.taken[part] += now - begun;
        now
    }

    fn offer(&mut self, commands: &[String]) {
        let mut records: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        for command in commands {
            let key = command.split("\"wallet\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a wallet");
            let partition = partition_of_key(key.as_bytes(), PARTITIONS);
            let next = self.next.entry(partition).or_default();
            records.entry(partition).or_default().push(Record {
                offset: *next,
                timestamp_ms: NOW_MS,
                key: Some(Bytes::copy_from_slice(key.as_bytes())),
                value: Some(Bytes::copy_from_slice(command.as_bytes())),
                headers: Headers::default(),
            });
            *next += 1;
        }
        for (partition, records) in records {
            let from = self.lane.wants(partition).commands.expect("room");
            let next = self.next[&partition];
            self.lane.offer(Topic::Commands, partition, from, Fetched { records, next });
        }
    }
}

fn opening(number: u64) -> [String; 2] {
    let open = format!(r#""type":"open_wallet","currency":"AED","country":"AE","kind":"personal","holder":"Holder {number}""#);
    let top_up = r#""type":"top_up","amount":"10000","currency":"AED","source":{"account":"bench"}"#;
    [command(number, "open", &open), command(number, "top-up", top_up)]
}

fn transfer(random: &mut fastrand::Rng, wallets: u64, number: u64) -> String {
    let (from, to) = (random.u64(..wallets), random.u64(..wallets - 1));
    let to = if to < from { to } else { to + 1 };
    let amount = random.u32(1..=99);
    let body = format!(r#""type":"transfer","to":"wallet-{to}","amount":"0.{amount:02}","currency":"AED""#);
    command(from, &format!("t{number}"), &body)
}

fn command(wallet: u64, key: &str, rest: &str) -> String {
    format!(r#"{{"tenant":"bench","idempotency_key":"{key}","wallet":"wallet-{wallet}",{rest}}}"#)
}
