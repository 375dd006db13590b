//! Reading everything: the rows of a partition, and of what its snapshots restore to, against the invariants.

use std::collections::BTreeMap;
use std::path::Path;

use finflow_ledger::{Currency, Money};
use finflow_state::{RocksStore, Shared, Store, store};
use serde::{Deserialize, Serialize};

use crate::restoring::clear;

/// Memory for reading a copy of a store, in bytes.
const MEMORY_BYTES: usize = 8 << 20;

/// What a full read of a partition's rows found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Checked {
    /// The partition.
    pub partition: u32,
    /// The block that it was read at.
    pub block: u64,
    /// Wallets read.
    pub wallets: u64,
    /// Payment records read.
    pub payments: u64,
    /// Holds read.
    pub holds: u64,
    /// The sum of the wallets, by currency code, in major units.
    pub sums: BTreeMap<String, String>,
    /// SHA-256 over every row, in hex.
    pub digest: String,
    /// The blocks of the snapshots that were read back whole; `None` where they were not asked for.
    pub snapshots: Option<Vec<u64>>,
    /// Everything that is wrong, in words.
    pub differences: Vec<String>,
}

/// Reads a copy of the store that stands still while the engine runs.
pub(crate) fn check_copy(partition: u32, store: &RocksStore, copy: &Path) -> Result<Checked, store::Error> {
    clear(copy).map_err(|error| store::Error::Io(error.to_string()))?;
    store.checkpoint(copy)?;
    let found = RocksStore::open(copy, &Shared::new(MEMORY_BYTES, 1)).and_then(|copy| check_store(partition, &copy));
    // What is left of a copy is removed by the next check, or at the next start.
    let _ = clear(copy);
    found
}

/// Reads every row of a store.
pub(crate) fn check_store(partition: u32, store: &RocksStore) -> Result<Checked, store::Error> {
    let found = store::verify(store)?;
    let text =
        |(currency, minor): (&Currency, &i128)| (currency.code().to_owned(), Money::from_minor(*minor, *currency).to_string());
    Ok(Checked {
        partition,
        block: store.head().map_or(0, |head| head.number),
        wallets: found.wallets,
        payments: found.payments,
        holds: found.holds,
        sums: found.wallet_sums.iter().map(text).collect(),
        digest: store::digest(store)?.iter().map(|byte| format!("{byte:02x}")).collect(),
        snapshots: None,
        differences: found.differences,
    })
}
