//! Dumps: what is written is read again, the same state gives the same dump, and nothing damaged is believed.

use std::path::Path;

use finflow_ledger::{Country, Currency, Money, Opening, SystemAccount, Tenant, Wallet, WalletId, WalletKind};

use super::{Dump, Error, Tally};
use crate::journal::{EncodedBlock, Generation, Head, Header, Positions, Stamp};
use crate::overlay::Overlay;
use crate::store::{self, MemoryStore, Store};

const GENERATION: Generation = Generation([9; 16]);
/// Enough that a file has more than one frame.
const WALLETS: usize = 4_000;

fn wallet(name: &str, minor: i128) -> Wallet {
    let currency = Currency::parse("AED").expect("a known currency");
    let mut wallet = Wallet::open(Opening {
        id: WalletId::parse(name).expect("an id"),
        tenant: Tenant::parse("acme").expect("a tenant"),
        currency,
        country: Country::parse("AE").expect("a country"),
        kind: WalletKind::Personal,
        holder: "somebody with a name of some length".into(),
    });
    wallet.top_up(Money::from_minor(minor, currency)).expect("an open wallet");
    wallet
}

/// A store with so many wallets, brought there in so many blocks.
fn filled(partition: u32, wallets: usize, blocks: usize) -> MemoryStore {
    let store = MemoryStore::default();
    store.apply(&[EncodedBlock::genesis(GENERATION, partition, 2, 5)]).expect("block 0");
    for number in 1..=blocks {
        let mut overlay = Overlay::default();
        for n in (0..wallets).filter(|n| n % blocks == number - 1) {
            let wallet = wallet(&format!("w{partition}-{n:05}"), n as i128 + 1);
            overlay.wallets.insert_new(wallet.id().clone(), wallet);
        }
        if number == blocks {
            let brought_in: i128 = (1..=wallets as i128).sum();
            overlay.accounts.put((SystemAccount::Treasury, Currency::parse("AED").expect("a currency")), -brought_in);
        }
        let head = store.head().expect("a head");
        let header = Header {
            generation: GENERATION,
            partition,
            number: number as u64,
            stamp: Stamp { lane: "lane-0".into(), incarnation: 3, counter: number as u64 },
            previous: head.stamp,
            at_ms: 10 + number as i64,
            positions: Positions { commands: number as u64, postings: 1 },
            sent: vec![(1, 4)],
            received: vec![(1, 2)],
        };
        store.apply(&[EncodedBlock::encode(&header, &overlay)]).expect("the next block");
    }
    store
}

fn rows(store: &dyn Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let visited = store::visit_raw(store, |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        Ok::<(), store::Error>(())
    });
    visited.expect("a store in memory");
    rows
}

fn write(dir: &Path) -> Dump {
    let stores = [filled(0, WALLETS, 3), filled(1, 0, 1)];
    Dump::write(dir, "finflow", &[&stores[0], &stores[1]]).expect("a dump")
}

#[test]
fn what_is_dumped_is_read_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let dump = write(&dir.path().join("dump"));
    assert_eq!(Dump::open(&dir.path().join("dump")), Ok(dump.clone()));
    dump.check().expect("a whole dump");
    let stores = [filled(0, WALLETS, 3), filled(1, 0, 1)];
    let heads: Vec<Head> = dump.manifest().parts.iter().map(|part| part.head.clone()).collect();
    assert_eq!(heads, stores.iter().map(|store| store.head().expect("a head")).collect::<Vec<_>>());
    let mut found = vec![Vec::new(), Vec::new()];
    let visited = dump.visit::<Error>(&mut |partition, key, value| {
        found[partition as usize].push((key.to_vec(), value.to_vec()));
        Ok(())
    });
    visited.expect("a whole dump");
    assert_eq!(found, [rows(&stores[0]), rows(&stores[1])]);
    assert!(256 * 1024 < dump.manifest().parts[0].bytes, "more than one frame");
    assert_eq!((dump.manifest().rows().wallets, dump.manifest().at_ms()), (WALLETS as u64, 13));
}

#[test]
fn the_same_state_gives_the_same_dump_and_no_other_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let dumped = |name: &str, first: &MemoryStore| {
        Dump::write(&dir.path().join(name), name, &[first, &filled(1, 0, 1)]).expect("a dump").id()
    };
    let one = dumped("one", &filled(0, 20, 2));
    assert_eq!(dumped("two", &filled(0, 20, 2)), one, "whatever its prefix");
    assert_ne!(dumped("three", &filled(0, 21, 2)), one, "another row");
    assert_ne!(dumped("four", &filled(0, 20, 4)), one, "the same rows, at another block");
}

#[test]
fn nothing_damaged_is_believed() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().join("dump");
    assert!(matches!(Dump::open(&dir), Err(Error::Missing(_))));
    let dump = write(&dir);
    let again = Dump::write(&dir, "finflow", &[&filled(0, 1, 1)]);
    assert!(matches!(again, Err(Error::Occupied(_))), "what is there is not written over");
    let file = dir.join("0.rows");
    let whole = std::fs::read(&file).expect("a file");
    let read = || dump.check().and_then(|()| dump.visit(&mut |_, _, _| Ok(())));
    for place in (0..whole.len()).step_by(1 + whole.len() / 97).chain([whole.len() - 1]) {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        std::fs::write(&file, changed).expect("a file");
        assert!(matches!(read(), Err(Error::Damaged(_) | Error::Format(_))), "byte {place}");
    }
    for length in [0, 5, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).expect("a file");
        assert!(matches!(read(), Err(Error::Damaged(_))), "cut to {length}");
    }
    std::fs::write(&file, &whole).expect("a file");
    read().expect("as it was");
    std::fs::copy(dir.join("1.rows"), &file).expect("a file");
    assert!(matches!(read(), Err(Error::Damaged(_))), "the file of another partition");
    std::fs::remove_file(&file).expect("a file");
    assert!(matches!(read(), Err(Error::Damaged(_))), "a file is missing");
    let manifest = dir.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    std::fs::write(&manifest, text.replace("\"bytes\":", "\"bytes\":1")).expect("a file");
    assert!(matches!(Dump::open(&dir), Err(Error::Damaged(_))), "a manifest that was changed");
}

#[test]
fn a_tally_does_not_depend_on_the_order_or_on_how_rows_are_dealt_out() {
    let rows = rows(&filled(0, 50, 1));
    let all = rows.iter().fold(Tally::default(), |mut tally, (key, value)| {
        tally.add(key, value);
        tally
    });
    let (mut even, mut odd) = (Tally::default(), Tally::default());
    for (number, (key, value)) in rows.iter().enumerate().rev() {
        if number % 2 == 0 { &mut even } else { &mut odd }.add(key, value);
    }
    even.merge(&odd);
    assert_eq!(even, all);
    assert_eq!((all.wallets, all.payments), (50, 0));
    let mut other = Tally::default();
    rows.iter().skip(1).for_each(|(key, value)| other.add(key, value));
    other.add(&rows[0].0, b"");
    assert_eq!(other.wallets, all.wallets);
    assert_ne!(other.content, all.content);
}
