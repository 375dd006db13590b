//! A whole topology in memory, with virtual time: for whoever wants to see what commands lead to, and for tests.
//!
//! It runs the very lanes and partitions of the engine, one step after the other, over a log in memory. With one lane, postings
//! are handed over; with more, they travel through the log.
//!
//! ```
//! use finflow_topologies::TopologyDriver;
//!
//! let mut driver = TopologyDriver::new(4, 1);
//! driver.send(
//!     r#"{"type":"open_wallet","tenant":"acme","idempotency_key":"1","wallet":"alice",
//!         "currency":"AED","country":"AE","kind":"personal","holder":"Alice"}"#,
//! );
//! driver.send(
//!     r#"{"type":"top_up","tenant":"acme","idempotency_key":"2","wallet":"alice",
//!         "amount":"100","currency":"AED","source":{"account":"till"}}"#,
//! );
//! driver.run()?;
//! assert_eq!(driver.wallet("alice").map(|wallet| wallet.ledger().to_string()).as_deref(), Some("100.00"));
//! assert_eq!(driver.events().len(), 2);
//! # Ok::<(), finflow_topologies::Halt>(())
//! ```

use std::sync::Arc;

use bytes::Bytes;
use finflow_ledger::{IdempotencyKey, Payment, Tenant, Wallet, WalletId};
use finflow_state::{Generation, MemoryStore, Payments, Store, Table, Wallets};
use serde_json::Value;

use crate::halt::Halt;
use crate::lane::Status;
use crate::log::simulated::SimulatedLog;
use crate::log::{Log, Outgoing, Record};
use crate::partition::Rules;
use crate::restore;
use crate::simulation::Node;
use crate::topics::{Topic, partition_of_key, partition_of_wallet, payment_id};

/// When the topology begins, in milliseconds since 1970-01-01 UTC.
pub const START_MS: i64 = 1_700_000_000_000;
/// Rounds over all lanes in which a topology must come to rest; a posting and its answer take two.
const ROUNDS_MAX: usize = 1_000;

/// A topology: a log, lanes that share its partitions, and the time.
pub struct TopologyDriver {
    log: SimulatedLog,
    rules: Arc<Rules>,
    lanes: Vec<Node>,
    now_ms: i64,
}

impl TopologyDriver {
    /// An empty topology whose partitions are dealt out to the lanes in turn.
    pub fn new(partitions: u32, lanes: u32) -> TopologyDriver {
        TopologyDriver::with_stores(partitions, lanes, |_| Arc::new(MemoryStore::default()))
    }

    /// The same over stores of one's own, which have to be empty.
    pub fn with_stores(partitions: u32, lanes: u32, store: impl Fn(u32) -> Arc<dyn Store>) -> TopologyDriver {
        let log = SimulatedLog::new(partitions);
        restore::create(&log, Generation([1; 16]), START_MS).expect("a log in memory takes its first blocks");
        TopologyDriver::begin(log, lanes, store)
    }

    /// The same over a log that holds a topology already.
    pub fn over(log: SimulatedLog, lanes: u32) -> TopologyDriver {
        TopologyDriver::begin(log, lanes, |_| Arc::new(MemoryStore::default()))
    }

    fn begin(log: SimulatedLog, lanes: u32, store: impl Fn(u32) -> Arc<dyn Store>) -> TopologyDriver {
        let partitions = log.partitions();
        let rules = Rules::development(partitions);
        log.set_time(START_MS);
        let mut driver = TopologyDriver { log, rules: Arc::new(rules), lanes: vec![], now_ms: START_MS };
        for lane in 0..lanes {
            let hosted = (0..partitions).filter(|partition| partition % lanes == lane);
            let node = driver.start(lane, 1, hosted.map(|partition| (partition, store(partition))));
            driver.lanes.push(node);
        }
        driver
    }

    /// Kills a lane and starts it again, with the stores as they are.
    pub fn restart(&mut self, lane: usize) {
        let stores: Vec<_> = self.lanes[lane].stores().collect();
        self.lanes[lane] = self.start(lane as u32, 2, stores.into_iter());
    }

    fn start(&self, lane: u32, life: u64, stores: impl Iterator<Item = (u32, Arc<dyn Store>)>) -> Node {
        let mut node =
            Node::start(&self.log, &format!("lane-{lane}"), life, &self.rules).expect("a log in memory opens sessions");
        for (partition, store) in stores {
            node.adopt(partition, store).expect("a store that is behind its log or equal");
        }
        node
    }

    /// Sends a command: under its home wallet as key, to the partition of that key. What has no `wallet` goes without a key.
    pub fn send(&self, command: &str) {
        let parsed: Value = serde_json::from_str(command).unwrap_or_default();
        let wallet = parsed.get("wallet").and_then(Value::as_str);
        self.send_to(partition_of_key(wallet.unwrap_or_default().as_bytes(), self.rules.partitions), wallet, command);
    }

    /// Sends any value, under any key, to any partition.
    pub fn send_to(&self, partition: u32, key: Option<&str>, value: &str) {
        let key = key.map(|key| Bytes::copy_from_slice(key.as_bytes()));
        let record = Outgoing { key, value: Some(Bytes::copy_from_slice(value.as_bytes())), ..Outgoing::default() };
        self.log.append(Topic::Commands, partition, vec![record]).expect("a partition of the topology");
    }

    /// Lets time pass.
    pub fn advance(&mut self, by_ms: i64) {
        self.now_ms = self.now_ms.saturating_add(by_ms);
        self.log.set_time(self.now_ms);
    }

    /// Runs until nothing is left to do. A partition that halts ends the run with its cause.
    ///
    /// # Panics
    /// If the topology does not come to rest.
    pub fn run(&mut self) -> Result<(), Halt> {
        for _ in 0..ROUNDS_MAX {
            let written = self.written();
            for lane in &mut self.lanes {
                lane.run(self.now_ms)?;
            }
            if let Some(halt) = self.lanes.iter().find_map(halted) {
                return Err(halt);
            }
            // A posting for a lane that has had its turn is input that nobody has fetched yet.
            if self.lanes.iter().all(Node::is_idle) && self.written() == written {
                return Ok(());
            }
        }
        panic!("the topology does not come to rest");
    }

    fn written(&self) -> u64 {
        let places = (0..self.rules.partitions).flat_map(|partition| Topic::ALL.map(|topic| (topic, partition)));
        places.map(|(topic, partition)| self.log.range(topic, partition).expect("a partition of the topology").end).sum()
    }

    /// Every event, by partition and in its order there.
    pub fn events(&self) -> Vec<Value> {
        let values = self.records(Topic::Events).into_iter().filter_map(|record| record.value);
        values.map(|value| serde_json::from_slice(&value).expect("an event is JSON")).collect()
    }

    /// Every dead letter, by partition and in its order there.
    pub fn dead_letters(&self) -> Vec<Record> {
        self.records(Topic::Dlq)
    }

    /// Every record of a topic, by partition and in its order there.
    pub fn records(&self, topic: Topic) -> Vec<Record> {
        (0..self.rules.partitions).flat_map(|partition| self.log_of(topic, partition)).collect()
    }

    /// Every record of a topic's partition, in order.
    pub fn log_of(&self, topic: Topic, partition: u32) -> Vec<Record> {
        self.log.fetch(topic, partition, 0, usize::MAX).expect("a partition of the topology").records
    }

    /// A wallet as its store holds it.
    pub fn wallet(&self, id: &str) -> Option<Wallet> {
        let id = WalletId::parse(id)?;
        self.row::<Wallets>(partition_of_wallet(&id, self.rules.partitions), &id)
    }

    /// A payment, or any other command, by what identifies it.
    pub fn payment(&self, tenant: &str, wallet: &str, key: &str) -> Option<Payment> {
        let wallet = WalletId::parse(wallet)?;
        let id = payment_id(&Tenant::parse(tenant)?, &wallet, &IdempotencyKey::parse(key)?);
        self.row::<Payments>(partition_of_wallet(&wallet, self.rules.partitions), &id)
    }

    fn row<T: Table>(&self, partition: u32, key: &T::Key) -> Option<T::Value> {
        let mut bytes = Vec::new();
        T::encode_key(key, &mut bytes);
        let row = self.store(partition).get(&bytes).expect("a store in memory")?;
        Some(T::decode(key, &row).expect("a row that the engine wrote"))
    }

    /// The store of a partition.
    pub fn store(&self, partition: u32) -> Arc<dyn Store> {
        self.lanes.iter().find_map(|lane| lane.store(partition)).expect("a partition of the topology")
    }

    /// The log, to order faults or to read what else is in it.
    pub fn log(&self) -> &SimulatedLog {
        &self.log
    }

    /// A lane, to drive it step by step.
    pub fn lane(&mut self, lane: usize) -> &mut Node {
        &mut self.lanes[lane]
    }

    /// The time, in milliseconds since 1970-01-01 UTC.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }
}

fn halted(lane: &Node) -> Option<Halt> {
    lane.lane.partitions().find_map(|partition| match lane.lane.status(partition) {
        Some(Status::Halted(halt)) => Some(halt.clone()),
        _ => None,
    })
}
