//! The store: blocks of transfers written to RocksDB as a lane does it, and a payment that is not there looked up.

use finflow_state::store::{RocksStore, Shared, Store};
use finflow_state::{EncodedBlock, Payments, Table};

use crate::codec::{header, overlay, payment};
use crate::measure;

/// Transfers of one block.
const TRANSFERS: u32 = 100;
/// Blocks that are written together.
const BLOCKS: u64 = 8;

pub(crate) fn all() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = RocksStore::open(dir.path(), &Shared::new(192 << 20, 1)).expect("a store");
    store.apply(&[EncodedBlock::encode(&header(0), &finflow_state::Overlay::default())]).expect("an empty store");
    let mut number = 0;
    let (mut prepared, mut key) = (Vec::new(), Vec::new());
    measure("store: encode and apply a transfer", TRANSFERS * BLOCKS as u32, || {
        prepared.clear();
        for _ in 0..BLOCKS {
            number += 1;
            prepared.push(EncodedBlock::encode(&header(number), &overlay(number * u64::from(TRANSFERS), TRANSFERS)));
        }
        store.apply(&prepared).expect("blocks that follow");
    });
    let mut missing = u64::MAX / 2;
    measure("store: look for a payment that is not there", 1, || {
        missing += 1;
        key.clear();
        Payments::encode_key(&payment(missing).id, &mut key);
        store.get(&key).expect("a store")
    });
}
