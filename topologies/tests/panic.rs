//! A command over which the decision panics is dead-lettered; everything else goes on.

use std::path::Path;
use std::sync::Arc;

use finflow_state::store::{Error, RawRow};
use finflow_state::{EncodedBlock, Head, MemoryStore, Store, Tag};
use finflow_topologies::TopologyDriver;

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
    let mut driver = TopologyDriver::with_stores(1, 1, |_| Arc::new(Minefield::default()));
    for wallet in ["alice", "boom", "bob"] {
        let rest = r#""currency":"AED","country":"AE","kind":"personal","holder":"H""#;
        let open = format!(r#"{{"type":"open_wallet","tenant":"acme","idempotency_key":"k","wallet":"{wallet}",{rest}}}"#);
        driver.send(&open);
    }
    driver.run().expect("no halt");
    let dead = driver.dead_letters();
    let codes: Vec<Option<&[u8]>> = dead.iter().map(|record| record.headers.get("x-error-code")).collect();
    assert_eq!(codes, vec![Some(&b"panicked"[..])]);
    assert_eq!(dead[0].key.as_deref(), Some(&b"boom"[..]));
    assert_eq!(driver.events().len(), 2);
    assert!(driver.wallet("alice").is_some() && driver.wallet("bob").is_some());
}
