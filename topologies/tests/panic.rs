//! A command over which the decision panics is dead-lettered; everything else goes on.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use finflow_state::store::{Error, RawRow};
use finflow_state::{EncodedBlock, Generation, Head, MemoryStore, Store, Tag};
use finflow_topologies::log::simulated::SimulatedLog;
use finflow_topologies::log::{Headers, Log, Outgoing};
use finflow_topologies::simulation::Node;
use finflow_topologies::{Rules, Topic, restore};

/// Panics when the wallet `boom` is read.
#[derive(Default)]
struct Minefield(MemoryStore);

impl Store for Minefield {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        assert!(!key.ends_with(b"boom"), "a mine");
        self.0.get(key)
    }

    fn head(&self) -> Option<Head> {
        self.0.head()
    }

    fn apply(&self, blocks: &[EncodedBlock]) -> Result<(), Error> {
        self.0.apply(blocks)
    }

    fn scan(&self, tag: Tag, after: Option<&[u8]>, limit: usize) -> Result<Vec<RawRow>, Error> {
        self.0.scan(tag, after, limit)
    }

    fn flush(&self) -> Result<(), Error> {
        self.0.flush()
    }

    fn checkpoint(&self, into: &Path) -> Result<Option<Head>, Error> {
        self.0.checkpoint(into)
    }
}

#[test]
fn a_panic_costs_one_command_and_nothing_else() {
    let rules = Arc::new(Rules {
        partitions: 1,
        prefix: "finflow".into(),
        treasury_enabled: true,
        dedup_retention_ms: 1_000_000,
        dedup_margin_ms: 1_000,
        hot_wallets_max: 10,
    });
    let log = SimulatedLog::new(1);
    restore::create(&log, Generation([1; 16]), 0).expect("a log in memory");
    let mut node = Node::start(&log, "lane", 1, &rules).expect("a session");
    node.adopt(0, Arc::new(Minefield::default())).expect("an empty partition");
    for wallet in ["alice", "boom", "bob"] {
        let value = format!(
            r#"{{"type":"open_wallet","tenant":"acme","idempotency_key":"k","wallet":"{wallet}","currency":"AED","country":"AE","#
        ) + r#""kind":"personal","holder":"H"}"#;
        let record = Outgoing {
            key: Some(Bytes::copy_from_slice(wallet.as_bytes())),
            value: Some(value.into()),
            headers: Headers::default(),
        };
        log.append(Topic::Commands, 0, vec![record]).expect("a log in memory");
    }
    node.run(0).expect("a running node");
    let dead = log.fetch(Topic::Dlq, 0, 0, usize::MAX).expect("a log in memory").records;
    let codes: Vec<Option<&[u8]>> = dead.iter().map(|record| record.headers.get("x-error-code")).collect();
    assert_eq!(codes, vec![Some(&b"panicked"[..])]);
    assert_eq!(dead[0].key.as_deref(), Some(&b"boom"[..]));
    assert_eq!(log.range(Topic::Events, 0), Ok(0..2));
    assert!(node.is_idle());
}
