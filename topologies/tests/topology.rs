//! The whole topology in memory: commands in, events and balances out. One row per attempt, through one `check`.

use std::sync::Arc;

use bytes::Bytes;
use finflow_ledger::{IdempotencyKey, Tenant, WalletId};
use finflow_state::{Payments, Store, Table, Wallets, store};
use finflow_topologies::log::simulated::{Fault, SimulatedLog};
use finflow_topologies::log::{Headers, Log, Outgoing};
use finflow_topologies::simulation::{Node, audit};
use finflow_topologies::topics::{Topic, partition_of_wallet, payment_id};
use finflow_topologies::{Rules, restore};

const PARTITIONS: u32 = 4;
const NOW_MS: i64 = 1_700_000_000_000;

fn rules() -> Arc<Rules> {
    Arc::new(Rules {
        partitions: PARTITIONS,
        prefix: "finflow".into(),
        treasury_enabled: true,
        dedup_retention_ms: 35 * 86_400_000,
        dedup_margin_ms: 3_600_000,
        hot_wallets_max: 100,
    })
}

struct World {
    log: SimulatedLog,
    nodes: Vec<Node>,
}

impl World {
    /// `lanes` nodes that share the partitions: with one, postings are handed over; with more, they travel through the log.
    fn new(lanes: u32) -> World {
        let log = SimulatedLog::new(PARTITIONS);
        log.set_time(NOW_MS);
        restore::create(&log, finflow_state::Generation([1; 16]), NOW_MS).expect("a log in memory");
        let mut world = World { log, nodes: vec![] };
        for lane in 0..lanes {
            let mut node = Node::start(&world.log, &format!("lane-{lane}"), 1, &rules()).expect("a session");
            for id in (0..PARTITIONS).filter(|id| id % lanes == lane) {
                node.adopt_empty(id).expect("an empty partition");
            }
            world.nodes.push(node);
        }
        world
    }

    fn send(&self, partition: u32, key: Option<&str>, value: &str) {
        let key = key.map(|key| Bytes::copy_from_slice(key.as_bytes()));
        let value = Some(Bytes::copy_from_slice(value.as_bytes()));
        let record = Outgoing { key, value, headers: Headers::default() };
        self.log.append(Topic::Commands, partition, vec![record]).expect("a log in memory");
    }

    fn command(&self, wallet: &str, value: &str) {
        self.send(partition_of_wallet(&id(wallet), PARTITIONS), Some(wallet), value);
    }

    fn run(&mut self) {
        for _ in 0..8 {
            self.nodes.iter_mut().for_each(|node| node.run(NOW_MS).expect("a running node"));
        }
        assert!(self.nodes.iter().all(Node::is_idle));
    }

    fn store(&self, partition: u32) -> Arc<dyn Store> {
        self.nodes.iter().find_map(|node| node.store(partition)).expect("a hosted partition")
    }

    fn ledger(&self, wallet: &str) -> String {
        let wallet = id(wallet);
        let mut key = Vec::new();
        Wallets::encode_key(&wallet, &mut key);
        let store = self.store(partition_of_wallet(&wallet, PARTITIONS));
        let row = store.get(&key).expect("a store in memory");
        row.map_or("none".to_owned(), |row| {
            let wallet = Wallets::decode(&wallet, &row).expect("a wallet");
            assert!(wallet.held().is_zero());
            wallet.ledger().to_string()
        })
    }

    fn payment(&self, wallet: &str, key: &str) -> String {
        let id = payment_id(&Tenant::parse("acme").expect("valid"), &id(wallet), &IdempotencyKey::parse(key).expect("valid"));
        let mut bytes = Vec::new();
        Payments::encode_key(&id, &mut bytes);
        let partition = finflow_topologies::topics::partition_of_payment(id, PARTITIONS);
        let Some(row) = self.store(partition).get(&bytes).expect("a store in memory") else { return "none".to_owned() };
        let payment = Payments::decode(&id, &row).expect("a payment");
        match payment.reason {
            Some(reason) => format!("{} {reason}", payment.state.as_str()),
            None => payment.state.as_str().to_owned(),
        }
    }

    fn records(&self, topic: Topic) -> Vec<Vec<u8>> {
        let all = (0..PARTITIONS).flat_map(|id| self.log.fetch(topic, id, 0, usize::MAX).expect("a log in memory").records);
        all.map(|record| record.value.expect("a value").to_vec()).collect()
    }

    fn verify(&self) {
        for partition in 0..PARTITIONS {
            assert_eq!(store::verify(&*self.store(partition)).expect("readable").differences, Vec::<String>::new());
        }
        let events = self.records(Topic::Events);
        assert_eq!(audit(events.iter().map(Vec::as_slice)).faults, vec![]);
    }
}

fn id(wallet: &str) -> WalletId {
    WalletId::parse(wallet).expect("a wallet id")
}

/// Runs rows of `verb key arguments -> state of the command | wallet balance ...`, each on the state of the rows before.
fn check(rows: &str) {
    for lanes in [1, 2, 4] {
        let mut world = World::new(lanes);
        for row in rows.lines().map(str::trim).filter(|row| !row.is_empty()) {
            let (command, expected) = row.split_once("->").expect("a row has an arrow");
            let words: Vec<&str> = command.split_whitespace().collect();
            let (verb, key, wallet) = (words[0], words[1], words[2]);
            world.command(wallet, &json(verb, key, &words[2..]));
            world.run();
            let (state, balances) = expected.split_once('|').unwrap_or((expected, ""));
            assert_eq!(world.payment(wallet, key), state.trim(), "{lanes} lanes: {row}");
            let balances: Vec<&str> = balances.split_whitespace().collect();
            for pair in balances.chunks(2) {
                assert_eq!(world.ledger(pair[0]), pair[1], "{lanes} lanes: {row}: {}", pair[0]);
            }
        }
        world.verify();
    }
}

fn json(verb: &str, key: &str, words: &[&str]) -> String {
    let start = format!(r#""tenant":"acme","idempotency_key":"{key}","wallet":"{}""#, words[0]);
    let rest = match (verb, words) {
        ("open_wallet", [_, currency]) => format!(r#""currency":"{currency}","country":"AE","kind":"personal","holder":"H""#),
        ("top_up", [_, amount, currency]) => format!(r#""amount":"{amount}","currency":"{currency}","source":{{"account":"x"}}"#),
        ("transfer", [_, to, amount, currency]) => format!(r#""to":"{to}","amount":"{amount}","currency":"{currency}""#),
        _ => r#""reason":"because""#.to_owned(),
    };
    format!(r#"{{"type":"{verb}",{start},{rest}}}"#)
}

#[test]
fn transfers_settle_once_or_are_rejected_in_order() {
    check(
        "
        open_wallet o1 alice AED            -> applied | alice 0.00
        open_wallet o2 bob AED              -> applied
        open_wallet o3 carol KWD            -> applied
        open_wallet o4 dave AED             -> applied
        open_wallet o5 alice AED            -> rejected wallet_exists
        open_wallet o6 eve XXX              -> rejected currency_unknown
        top_up p1 alice 100 AED             -> settled | alice 100.00
        top_up p1 alice 100 AED             -> settled | alice 100.00
        top_up p2 carol 1.2345 KWD          -> rejected amount_invalid
        top_up p3 carol 1.234 KWD           -> settled | carol 1.234
        transfer t1 alice bob 60.00 AED     -> settled | alice 40.00 bob 60.00
        transfer t1 alice bob 60 AED        -> settled | alice 40.00 bob 60.00
        transfer t1 alice dave 60.00 AED    -> settled | alice 40.00 dave 0.00
        transfer t2 alice bob 60.00 AED     -> rejected insufficient_funds | alice 40.00 bob 60.00
        transfer t3 alice dave 0.01 AED     -> settled | alice 39.99 dave 0.01
        transfer t4 alice alice 1 AED       -> rejected same_wallet
        transfer t5 alice nobody 1 AED      -> rejected counterparty_unknown | alice 39.99
        transfer t6 alice carol 1 AED       -> rejected counterparty_currency_mismatch | alice 39.99
        transfer t7 alice bob 1 KWD         -> rejected currency_mismatch
        transfer t8 alice bob 0 AED         -> rejected amount_invalid
        transfer t9 ghost bob 1 AED         -> rejected wallet_unknown
        transfer ta ghost bob 0 XXX         -> rejected amount_invalid
        freeze_wallet f1 bob                -> applied
        transfer tb alice bob 1 AED         -> rejected counterparty_frozen | alice 39.99
        transfer tc bob alice 1 AED         -> rejected wallet_frozen
        freeze_wallet f2 bob                -> rejected wallet_frozen
        unfreeze_wallet u1 bob              -> applied
        unfreeze_wallet u2 bob              -> rejected wallet_not_frozen
        close_wallet c1 bob                 -> rejected balance_not_zero
        transfer td bob alice 60 AED        -> settled | alice 99.99 bob 0.00
        close_wallet c2 bob                 -> applied
        transfer te alice bob 1 AED         -> rejected counterparty_closed | alice 99.99
        freeze_wallet f3 bob                -> rejected wallet_closed
        ",
    );
}

#[test]
fn misrouted_commands_are_executed_once_at_home_and_poison_is_dead_lettered() {
    for lanes in [1, 2] {
        let mut world = World::new(lanes);
        world.command("alice", &json("open_wallet", "o1", &["alice", "AED"]));
        world.run();
        let top_up = json("top_up", "p1", &["alice", "5", "AED"]);
        for partition in 0..PARTITIONS {
            world.send(partition, Some("alice"), &top_up);
            world.send(partition, Some("somebody"), &top_up);
            world.send(partition, None, &top_up);
            world.send(partition, Some("alice"), "poison");
        }
        world.run();
        assert_eq!(world.ledger("alice"), "5.00");
        assert_eq!(world.records(Topic::Dlq), vec![b"poison".to_vec(); PARTITIONS as usize]);
        world.verify();
    }
}

#[test]
fn another_tenants_wallet_is_unknown_and_old_commands_are_refused() {
    let mut world = World::new(1);
    world.command("alice", &json("open_wallet", "o1", &["alice", "AED"]));
    world.command("alice", &json("top_up", "p1", &["alice", "5", "AED"]).replace("acme", "rival"));
    world.log.set_time(NOW_MS - 36 * 86_400_000);
    world.command("alice", &json("top_up", "p2", &["alice", "5", "AED"]));
    world.run();
    assert_eq!((world.ledger("alice"), world.payment("alice", "p2")), ("0.00".to_owned(), "none".to_owned()));
    let events = world.records(Topic::Events);
    let has = |part: &str| events.iter().any(|event| String::from_utf8_lossy(event).contains(part));
    assert!(has(r#""reason":"expired""#) && has(r#""reason":"wallet_unknown""#));
    world.verify();
}

#[test]
fn a_crash_a_doubt_or_an_abort_changes_nothing() {
    for fault in [None, Some(Fault::Abort), Some(Fault::DoubtAborted), Some(Fault::DoubtCommitted)] {
        for crash_after in 0..4 {
            let mut world = World::new(1);
            world.command("alice", &json("open_wallet", "o1", &["alice", "AED"]));
            world.command("bob", &json("open_wallet", "o2", &["bob", "AED"]));
            world.command("alice", &json("top_up", "p1", &["alice", "5", "AED"]));
            world.run();
            world.command("alice", &json("transfer", "t1", &["alice", "bob", "2", "AED"]));
            world.log.fail_next(fault);
            let node = &mut world.nodes[0];
            (0..PARTITIONS).for_each(|id| node.fetch(id));
            while 0 < crash_after && node.round(NOW_MS, None).is_some() {}
            if 1 < crash_after {
                node.close(NOW_MS);
            }
            if 2 < crash_after {
                node.commit().expect("nothing waits");
            }
            let stores: Vec<_> = (0..PARTITIONS).map(|id| world.store(id)).collect();
            let mut node = Node::start(&world.log, "lane-0", 2, &rules()).expect("a session");
            for (id, store) in (0..PARTITIONS).zip(stores) {
                node.adopt(id, store).expect("a store that is behind or equal");
            }
            world.nodes = vec![node];
            world.log.fail_next(None);
            world.run();
            assert_eq!((world.ledger("alice"), world.ledger("bob")), ("3.00".to_owned(), "2.00".to_owned()));
            world.verify();
        }
    }
}
