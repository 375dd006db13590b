//! The contract of [`Store`], run on each implementation.

use std::path::PathBuf;

use finflow_ledger::{Country, Currency, Money, Opening, PaymentId, SystemAccount, Tenant, Wallet, WalletId, WalletKind};

use super::{Error, MemoryStore, RocksStore, Shared, Store, digest, verify, visit_differences, visit_raw};
use crate::journal::{EncodedBlock, Generation, Head, Header, Positions, Stamp};
use crate::overlay::Overlay;
use crate::tables::{Accounts, Holds, Table, Tag, Wallets};

const GENERATION: Generation = Generation([1; 16]);

fn aed(minor: i128) -> Money {
    Money::from_minor(minor, Currency::parse("AED").expect("a known currency"))
}

fn id(text: &str) -> WalletId {
    WalletId::parse(text).expect("an id")
}

fn wallet(name: &str, minor: i128) -> Wallet {
    let mut wallet = Wallet::open(Opening {
        id: id(name),
        tenant: Tenant::parse("acme").expect("a tenant"),
        currency: aed(0).currency(),
        country: Country::parse("AE").expect("a country"),
        kind: WalletKind::Personal,
        holder: name.into(),
    });
    wallet.top_up(aed(minor)).expect("an open wallet");
    wallet
}

/// A chain of blocks of one partition.
struct Chain {
    head: Head,
}

impl Chain {
    fn new() -> (Chain, EncodedBlock) {
        let genesis = EncodedBlock::genesis(GENERATION, 3, 8, 0);
        (Chain { head: Head::from_header(genesis.header().clone()) }, genesis)
    }

    fn next(&mut self, change: impl FnOnce(&mut Overlay)) -> EncodedBlock {
        let mut overlay = Overlay::default();
        change(&mut overlay);
        let number = self.head.number + 1;
        let header = Header {
            generation: GENERATION,
            partition: 3,
            number,
            stamp: Stamp { lane: "lane-0".into(), incarnation: 1, counter: number },
            previous: self.head.stamp.clone(),
            at_ms: number as i64,
            positions: Positions { commands: number, postings: 0 },
            sent: vec![(1, number)],
            received: vec![],
        };
        self.head = self.head.follow(&header).expect("the next block");
        EncodedBlock::encode(&header, &overlay)
    }
}

/// Many rows at once are each row by itself, also where there is none, or the same twice, in any order.
fn many(store: &dyn Store) {
    let mut keys: Vec<Vec<u8>> = (0..100).map(|number| key::<Wallets>(&id(&format!("nobody-{number}")))).collect();
    keys.extend(["bob", "alice", "bob"].map(|name| key::<Wallets>(&id(name))));
    // Removed.
    keys.push(key::<Holds>(&PaymentId::from_bytes([1; 16])));
    keys.push(key::<Accounts>(&(SystemAccount::Treasury, aed(0).currency())));
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    for asked in [&keys[..], &keys[98..], &keys[..1], &[]] {
        let each: Vec<_> = asked.iter().map(|key| store.get(key).expect("readable")).collect();
        assert_eq!(store.get_many(asked).expect("readable"), each);
    }
    let found = store.get_many(&keys).expect("readable");
    assert_eq!(found.iter().filter(|value| value.is_some()).count(), 4, "alice, bob twice, and the treasury");
}

fn key<T: Table>(key: &T::Key) -> Vec<u8> {
    let mut bytes = Vec::new();
    T::encode_key(key, &mut bytes);
    bytes
}

fn contract(store: &dyn Store) {
    let (mut chain, genesis) = Chain::new();
    assert_eq!(store.head(), None);
    let first = chain.next(|overlay| {
        overlay.wallets.insert_new(id("alice"), wallet("alice", 100));
        overlay.wallets.insert_new(id("bob"), wallet("bob", 50));
        overlay.accounts.put((SystemAccount::Treasury, aed(0).currency()), -150);
    });
    assert!(matches!(store.apply(std::slice::from_ref(&first)), Err(Error::Discontinuous(_))), "block 0 comes first");
    store.apply(&[genesis.clone(), first.clone()]).expect("a chain");
    assert_eq!(store.head().as_ref(), Some(&chain.head));
    assert!(matches!(store.apply(&[first]), Err(Error::Discontinuous(_))), "no block is applied twice");
    let found = verify(store).expect("readable");
    assert_eq!((found.wallets, found.differences), (2, vec![]));

    let before = digest(store).expect("readable");
    let mut payer = wallet("alice", 100);
    let hold = payer.hold(aed(30)).expect("enough");
    let payment = PaymentId::from_bytes([1; 16]);
    let second = chain.next(|overlay| {
        overlay.wallets.put(id("alice"), payer.clone());
        overlay.holds.insert_new(payment, hold.clone());
    });
    let third = chain.next(|overlay| {
        overlay.wallets.put(id("alice"), wallet("alice", 100));
        overlay.holds.remove(payment);
    });
    assert!(matches!(store.apply(std::slice::from_ref(&third)), Err(Error::Discontinuous(_))), "no block is left out");
    store.apply(&[second]).expect("the next block");
    assert_ne!(digest(store).expect("readable"), before);
    assert_eq!(verify(store).expect("readable").differences, Vec::<String>::new());
    store.apply(&[third]).expect("the next block");
    assert_eq!(digest(store).expect("readable"), before, "images undo each other");

    many(store);
    store.flush().expect("a disk");
    many(store);

    let rows = store.scan(Tag::Wallets, None, 1).expect("readable");
    assert_eq!(rows.len(), 1);
    let rows = store.scan(Tag::Wallets, Some(&rows[0].0), 10).expect("readable");
    assert_eq!(rows.len(), 1, "the scan goes on behind the key");
    assert_eq!(store.scan(Tag::Holds, None, 10).expect("readable"), vec![]);

    let unbalanced = chain.next(|overlay| overlay.wallets.put(id("bob"), wallet("bob", 51)));
    store.apply(&[unbalanced]).expect("the next block");
    assert_eq!(verify(store).expect("readable").differences, vec!["AED is off by 1 minor units".to_owned()]);
}

#[test]
fn memory_keeps_the_contract() {
    contract(&MemoryStore::default());
}

#[test]
fn rocksdb_keeps_the_contract() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = RocksStore::open(dir.path(), &Shared::new(8 << 20, 1)).expect("a new store");
    contract(&store);
}

#[test]
fn what_was_flushed_survives_and_what_survives_is_consistent() {
    let dir = tempfile::tempdir().expect("a directory");
    let shared = Shared::new(8 << 20, 1);
    let (mut chain, genesis) = Chain::new();
    let path: PathBuf = dir.path().join("state");
    let store = RocksStore::open(&path, &shared).expect("a new store");
    let first = chain.next(|overlay| overlay.wallets.insert_new(id("alice"), wallet("alice", 1)));
    store.apply(&[genesis, first]).expect("a chain");
    store.flush().expect("a disk");
    let (flushed, rows) = (store.head(), digest(&store).expect("readable"));
    store.checkpoint(&dir.path().join("copy")).expect("a disk");
    assert!(matches!(RocksStore::open(&path, &shared), Err(Error::Busy(_))), "one process at a time");
    drop(store);
    for path in [path, dir.path().join("copy")] {
        let store = RocksStore::open(&path, &shared).expect("the store again");
        assert_eq!(store.head(), flushed);
        assert_eq!(digest(&store).expect("readable"), rows);
    }
}

#[test]
fn every_damage_to_a_block_is_seen() {
    let (mut chain, _) = Chain::new();
    let block = chain.next(|overlay| overlay.wallets.insert_new(id("alice"), wallet("alice", 1)));
    let bytes = block.bytes();
    assert_eq!(EncodedBlock::parse(bytes.clone()), Ok(block.clone()));
    for length in 0..bytes.len() {
        assert!(EncodedBlock::parse(bytes.slice(..length)).is_err(), "cut to {length} bytes");
    }
    for place in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[place] ^= 0x10;
        assert!(EncodedBlock::parse(damaged.into()).is_err(), "byte {place} changed");
    }
}

#[test]
fn every_damage_to_a_row_on_the_disk_is_seen_by_whoever_reads_it_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let copy = dir.path().join("copy");
    let store = RocksStore::open(&dir.path().join("state"), &Shared::new(8 << 20, 1)).expect("a new store");
    let (mut chain, genesis) = Chain::new();
    let first = chain.next(|overlay| {
        for n in 0..2_000 {
            let name = format!("wallet-{n}");
            overlay.wallets.insert_new(id(&name), wallet(&name, n + 1));
        }
    });
    store.apply(&[genesis, first]).expect("a chain");
    let head = store.checkpoint(&copy).expect("a disk");
    drop(store);
    let read = |goes_on: bool| RocksStore::open_copy(&copy).and_then(|copy| copy.read_whole(&|| goes_on));
    let before = listing(&copy);
    assert_eq!((read(true), read(false)), (Ok(true), Ok(false)));
    assert_eq!(RocksStore::open_copy(&copy).expect("a copy").head(), head);
    assert_eq!(listing(&copy), before, "a copy is left as it is");

    let rows = before.iter().find(|name| name.ends_with(".sst")).map(|name| copy.join(name)).expect("a file of rows");
    let sound = std::fs::read(&rows).expect("a file");
    // Behind the rows stand the filter, which is passed over where it is damaged, and what is read when the file is opened.
    for place in (0..sound.len() * 3 / 4).step_by(997) {
        let mut damaged = sound.clone();
        damaged[place] ^= 0x10;
        std::fs::write(&rows, damaged).expect("a file");
        assert!(matches!(read(true), Err(Error::Corrupt(_))), "byte {place} of {}", sound.len());
    }
}

/// A store whose file of rows is damaged tells it of whatever it is asked for, and of nothing else.
#[test]
fn damage_is_seen_by_whoever_asks_for_many_rows() {
    let dir = tempfile::tempdir().expect("a directory");
    let name = |number: i128| format!("wallet-{number:04}");
    let (mut chain, genesis) = Chain::new();
    let first = chain.next(|overlay| {
        for number in 0..2_000 {
            overlay.wallets.insert_new(id(&name(number)), wallet(&name(number), number + 1));
        }
    });
    let store = RocksStore::open(dir.path(), &Shared::new(8 << 20, 1)).expect("a new store");
    store.apply(&[genesis, first]).and_then(|()| store.flush()).expect("a disk");
    drop(store);
    let rows = listing(dir.path()).iter().find(|name| name.ends_with(".sst")).map(|name| dir.path().join(name));
    let rows = rows.expect("a file of rows");
    let mut bytes = std::fs::read(&rows).expect("a file");
    // In the first block stands the head, without which nothing opens; this is in the second one.
    bytes[6_000] ^= 0x10;
    std::fs::write(&rows, bytes).expect("a file");

    let store = RocksStore::open(dir.path(), &Shared::new(8 << 20, 1)).expect("head and index are sound");
    let keys: Vec<Vec<u8>> = (0..2_000).map(|number| key::<Wallets>(&id(&name(number)))).collect();
    let is_damaged = |key: &&[u8]| match store.get(key) {
        Ok(found) => found.is_none(),
        Err(error) => matches!(error, Error::Corrupt(_)),
    };
    let (damaged, sound): (Vec<&[u8]>, Vec<&[u8]>) = keys.iter().map(Vec::as_slice).partition(is_damaged);
    assert!((1..200).contains(&damaged.len()), "{} rows stand in a block", damaged.len());
    let found = store.get_many(&sound).expect("they are sound");
    assert!(found.iter().all(Option::is_some));
    for place in [0, sound.len() / 2, sound.len()] {
        let asked = [&sound[..place], &damaged[..1], &sound[place..]].concat();
        assert!(matches!(store.get_many(&asked), Err(Error::Corrupt(_))), "one row that cannot be read is told");
    }
}

fn listing(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let mut names: Vec<String> = entries.map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// However many stores share the memory: what their empty memtables take leaves room for rows, and nothing is flushed after a few.
#[test]
fn many_stores_share_the_usual_memory() {
    for stores in [1, 8, 64] {
        let dir = tempfile::tempdir().expect("a directory");
        let shared = Shared::new(96 << 20, stores);
        let dirs: Vec<PathBuf> = (0..stores).map(|number| dir.path().join(number.to_string())).collect();
        let open = |dir: &PathBuf| RocksStore::open(dir, &shared).expect("a new store");
        let mut opened: Vec<(RocksStore, Chain)> = Vec::new();
        for dir in &dirs {
            let ((chain, genesis), store) = (Chain::new(), open(dir));
            store.apply(&[genesis]).expect("block 0");
            opened.push((store, chain));
        }
        for round in 1..6 {
            for (store, chain) in &mut opened {
                let block = chain.next(|overlay| overlay.wallets.put(id("alice"), wallet("alice", round)));
                store.apply(&[block]).expect("the next block");
            }
        }
        let flushed = dirs.iter().filter(|dir| listing(dir).iter().any(|name| name.ends_with(".sst"))).count();
        assert_eq!(flushed, 0, "of {stores}");
    }
}

/// The rows that lead from one set of rows to another, however many pages there are.
#[test]
fn differences_lead_from_the_one_store_to_the_other() {
    let filled = |rows: &[(usize, u8)]| {
        let store = MemoryStore::default();
        let (chain, genesis) = Chain::new();
        let rows: Vec<([u8; 5], [u8; 1])> = rows
            .iter()
            .map(|(number, value)| {
                let tag = if number % 2 == 0 { Tag::Wallets } else { Tag::Accounts };
                let [a, b, c, d] = (*number as u32).to_be_bytes();
                ([tag as u8, a, b, c, d], [*value])
            })
            .collect();
        let header = Header { number: 1, previous: chain.head.stamp.clone(), ..genesis.header().clone() };
        let block = EncodedBlock::of_rows(&header, rows.iter().map(|(key, value)| (&key[..], Some(&value[..]))));
        store.apply(&[genesis, block]).expect("a chain");
        store
    };
    let all = |count: usize, value: u8| (0..count).map(|number| (number, value)).collect::<Vec<_>>();
    let (some, more) = (all(5_000, 1), all(7_001, 1));
    let changed: Vec<(usize, u8)> = some.iter().map(|(number, _)| (*number, u8::from(number % 3 == 0))).collect();
    let gaps: Vec<(usize, u8)> = some.iter().copied().filter(|(number, _)| number % 7 != 2).collect();
    let cases = [&some, &more, &changed, &gaps, &vec![], &vec![(4_998, 1)]];
    for from in cases {
        for to in cases {
            let rows = |store: &MemoryStore| {
                let mut rows = std::collections::BTreeMap::new();
                let visited = visit_raw(store, |key, value| {
                    assert!(rows.insert(key.to_vec(), value.to_vec()).is_none(), "each row once");
                    Ok::<(), Error>(())
                });
                visited.expect("a store in memory");
                rows
            };
            let (from, to) = (filled(from), filled(to));
            let (mut found, due) = (rows(&from), rows(&to));
            let visited = visit_differences(&from, &to, |key, value| {
                let before = match value {
                    Some(value) => found.insert(key.to_vec(), value.to_vec()).is_none_or(|before| before != value),
                    None => found.remove(key).is_some(),
                };
                assert!(before, "only what differs");
                Ok::<(), Error>(())
            });
            visited.expect("stores in memory");
            assert!(found == due);
        }
    }
}
