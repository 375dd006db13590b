//! Postings go through the log while partitions come to a lane one after the other; under a backlog they have to become level again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use finflow_ledger::WalletId;
use finflow_state::{Generation, MemoryStore};
use finflow_topologies::lane::{Next, WITHHELD_EVERY, WITHHELD_MAX};
use finflow_topologies::log::simulated::SimulatedLog;
use finflow_topologies::log::{Log, Outgoing};
use finflow_topologies::simulation::Node;
use finflow_topologies::topics::partition_of_wallet;
use finflow_topologies::{Rules, Topic, restore};

const PARTITIONS: u32 = 4;
const WALLETS: usize = 200;
/// Transfers that wait in each partition.
const BACKLOG: usize = 40_000;
/// Epochs before the last partition comes: what is sent to it meanwhile takes longer to be received than commands are withheld.
const EPOCHS_WITHOUT: usize = 150;
/// Between two epochs.
const EPOCH_MS: i64 = 20;
/// Epochs after which nothing may go through the log any more.
const LEVEL_WITHIN: usize = 60;

struct World {
    log: SimulatedLog,
    node: Node,
    now_ms: i64,
}

impl World {
    fn new() -> World {
        let rules = Rules {
            dedup_retention_ms: 1_000_000,
            dedup_margin_ms: 1_000,
            hot_wallets_max: 1_000,
            ..Rules::development(PARTITIONS)
        };
        let log = SimulatedLog::new(PARTITIONS);
        restore::create(&log, Generation([1; 16]), 0).expect("a log in memory");
        let node = Node::start(&log, "lane", 1, &Arc::new(rules)).expect("a session");
        World { log, node, now_ms: 0 }
    }

    fn send(&self, wallet: &str, rest: &str) {
        let value = format!(r#"{{"tenant":"acme","wallet":"{wallet}",{rest}}}"#);
        let home = partition_of_wallet(&WalletId::parse(wallet).expect("an id"), PARTITIONS);
        let command = Outgoing { key: Some(Bytes::from(wallet.to_owned())), value: Some(value.into()), ..Outgoing::default() };
        self.log.append(Topic::Commands, home, vec![command]).expect("a log in memory");
    }

    /// One wave, one commit.
    fn epoch(&mut self) {
        self.now_ms += EPOCH_MS;
        let hosted: Vec<u32> = self.node.lane.partitions().collect();
        hosted.iter().for_each(|id| self.node.fetch(*id));
        while matches!(self.node.round(self.now_ms, None), Some(Next::Round)) {}
        self.node.close(self.now_ms);
        self.node.commit().expect("a log in memory");
        hosted.iter().for_each(|id| self.node.apply(*id, usize::MAX).expect("a store in memory"));
    }

    fn ends(&self, topic: Topic) -> u64 {
        (0..PARTITIONS).map(|id| self.log.range(topic, id).expect("a partition").end).sum()
    }

    fn consumed(&self) -> u64 {
        (0..PARTITIONS).filter_map(|id| self.node.lane.head(id)).map(|head| head.positions.commands).sum()
    }
}

#[test]
fn pairs_become_level_again_under_a_backlog() {
    let mut world = World::new();
    let names: Vec<String> = (0..WALLETS).map(|n| format!("w{n}")).collect();
    for name in &names {
        let rest = r#""currency":"AED","country":"AE","kind":"personal","holder":"H""#;
        world.send(name, &format!(r#""type":"open_wallet","idempotency_key":"o",{rest}"#));
        world.send(name, r#""type":"top_up","idempotency_key":"t","amount":"1000","currency":"AED","source":{"account":"till"}"#);
    }
    for n in 0..BACKLOG * PARTITIONS as usize {
        let (from, to) = (&names[n % WALLETS], &names[(n * 7 + 1) % WALLETS]);
        world.send(from, &format!(r#""type":"transfer","idempotency_key":"p{n}","to":"{to}","amount":"0.01","currency":"AED""#));
    }
    // Each comes while those before it work.
    for id in 0..PARTITIONS {
        let epochs = if id == PARTITIONS - 1 { EPOCHS_WITHOUT } else { 4 };
        (0..epochs).for_each(|_| world.epoch());
        world.node.adopt(id, Arc::new(MemoryStore::default())).expect("an empty store");
    }
    let all = world.ends(Topic::Commands);
    assert!(0 < world.ends(Topic::Postings), "the first ones could not hand over anything");
    (0..LEVEL_WITHIN).for_each(|_| world.epoch());
    let (sent, consumed) = (world.ends(Topic::Postings), world.consumed());
    assert!(consumed < all / 2, "most of the backlog is still there: {consumed} of {all}");
    let mut epochs = 0;
    while world.consumed() < all || !world.node.is_idle() {
        world.epoch();
        epochs += 1;
        assert!(epochs < 10_000, "{} of {all} after {epochs} epochs", world.consumed());
    }
    assert_eq!(world.ends(Topic::Postings), sent, "nothing goes through the log once all is level");
}

/// A posting is on its way that nobody fetches, so that its pair cannot become level, and the wall clock shows `clock_ms(steady)`: each
/// command for its source, sent when the one before is decided, waits no longer than it may.
fn check_withheld(what: &str, clock_ms: impl Fn(i64) -> i64) {
    const SOURCE: u32 = 0;
    const DESTINATION: u32 = 1;
    let mut world = World::new();
    let of = |partition: u32| {
        let home = |name: &String| partition_of_wallet(&WalletId::parse(name).expect("an id"), PARTITIONS);
        (0..).map(|n| format!("w{n}")).find(|name| home(name) == partition).expect("a name")
    };
    let (from, to) = (of(SOURCE), of(DESTINATION));
    let open = r#""type":"open_wallet","idempotency_key":"o","currency":"AED","country":"AE","kind":"personal","holder":"H""#;
    world.send(&from, open);
    world.send(&from, r#""type":"top_up","idempotency_key":"t","amount":"1","currency":"AED","source":{"account":"till"}"#);
    world.send(&from, &format!(r#""type":"transfer","idempotency_key":"p","to":"{to}","amount":"0.01","currency":"AED""#));
    world.now_ms = 10_000;
    world.node.adopt_empty(SOURCE).expect("an empty store");
    world.epoch();
    assert_eq!((world.ends(Topic::Postings), world.consumed()), (1, 3));
    world.node.adopt_empty(DESTINATION).expect("an empty store");

    let (begun_ms, mut steady_ms, mut waited_ms) = (world.now_ms, 0, 0);
    for n in 0..400 {
        world.send(&from, &format!(r#""type":"freeze_wallet","idempotency_key":"f{n}","reason":"r""#));
        let (consumed, since_ms) = (world.consumed(), steady_ms);
        while world.consumed() == consumed {
            steady_ms += EPOCH_MS;
            let now_ms = begun_ms + clock_ms(steady_ms);
            world.node.fetch(SOURCE);
            let steady = Duration::from_millis(steady_ms.unsigned_abs());
            while matches!(world.node.round_at(now_ms, steady, None), Some(Next::Round)) {}
            world.node.close(now_ms);
            world.node.commit().expect("a log in memory");
            world.node.apply(SOURCE, usize::MAX).expect("a store in memory");
            let waits = Duration::from_millis((steady_ms - since_ms).unsigned_abs());
            assert!(
                waits <= WITHHELD_MAX + Duration::from_millis(2 * EPOCH_MS.unsigned_abs()),
                "{what}: {n} waits for {waits:?}"
            );
        }
        waited_ms += steady_ms - since_ms - EPOCH_MS;
    }
    let all = WITHHELD_EVERY.as_millis() as i64 / WITHHELD_MAX.as_millis() as i64;
    assert!(
        0 < waited_ms && waited_ms <= steady_ms / all + WITHHELD_MAX.as_millis() as i64,
        "{what}: {waited_ms} of {steady_ms} ms"
    );
}

#[test]
fn commands_are_withheld_for_a_part_of_the_time_whatever_the_clock_shows() {
    check_withheld("a clock that is right", |steady_ms| steady_ms);
    check_withheld("one that stands still", |_| 0);
    check_withheld("one that is behind", |steady_ms| steady_ms - 60_000);
    check_withheld("one that goes back again and again", |steady_ms| steady_ms % 500);
}
