//! Whatever happened before, a hot row is what the store holds or what has just left the layers above it, and there is room.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use finflow_ledger::{Country, Hold, Money, Opening, PaymentId, Private, Tenant, WalletKind};
use finflow_state::{EncodedBlock, Generation, Header, MemoryStore, Positions, Stamp, TimerKind, store};
use proptest::prelude::*;

use self::hooked::Hooked;
use super::*;

#[path = "../../../tests/support/hooked.rs"]
mod hooked;

const WALLETS: u8 = 12;
const ROOM: usize = 5;

#[derive(Debug, Clone)]
enum Step {
    /// A decision reads the wallet.
    Read(u8),
    /// An epoch that has changed the wallet reaches the store, and its overlay leaves the layers.
    Change(u8),
    /// The same, of an epoch that has removed it. No command does yet; a row that stayed would be money out of nothing.
    Remove(u8),
    /// A batch of inputs begins.
    ReadAhead,
    /// The actor is started again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..WALLETS).prop_map(Step::Read),
        8 => (0..WALLETS).prop_map(Step::Change),
        2 => (0..WALLETS).prop_map(Step::Remove),
        2 => Just(Step::ReadAhead),
        1 => Just(Step::Restart),
    ]
}

fn id(number: u8) -> WalletId {
    WalletId::parse(&format!("w{number}")).expect("an id")
}

fn opened(number: u8) -> Wallet {
    Wallet::open(Opening {
        id: id(number),
        tenant: Tenant::parse("acme").expect("a tenant"),
        currency: Currency::parse("AED").expect("a currency"),
        country: Country::parse("AE").expect("a country"),
        kind: WalletKind::Personal,
        holder: Private::from("H"),
    })
}

/// A store that is written block by block.
struct Written<S> {
    store: S,
    head: Header,
}

impl<S: Store> Written<S> {
    fn begin(store: S) -> Written<S> {
        let genesis = EncodedBlock::genesis(Generation([1; 16]), 0, 1, 0);
        store.apply(std::slice::from_ref(&genesis)).expect("block 0 begins a store");
        Written { store, head: genesis.header().clone() }
    }

    /// An epoch that leaves a wallet so, `None` for removed, and has rows of every other table.
    fn write(&mut self, id: &WalletId, wallet: Option<&Wallet>) -> (EncodedBlock, Overlay) {
        let mut overlay = Overlay::default();
        let number = self.head.number + 1;
        match wallet {
            Some(wallet) => overlay.wallets.put(id.clone(), wallet.clone()),
            None => overlay.wallets.remove(id.clone()),
        }
        let (payment, currency) = (PaymentId::from_bytes([7; 16]), Currency::parse("AED").expect("a currency"));
        overlay.holds.put(payment, Hold { wallet: id.clone(), amount: Money::from_minor(1, currency) });
        overlay.timers.put((1, payment), TimerKind::Deadline);
        overlay.accounts.put((SystemAccount::Treasury, currency), i128::from(number));
        let stamp = Stamp { lane: "lane-1".into(), incarnation: 2, counter: number };
        let previous = std::mem::replace(&mut self.head.stamp, stamp);
        self.head = Header { number, previous, positions: Positions::default(), ..self.head.clone() };
        let block = EncodedBlock::encode(&self.head, &overlay);
        self.store.apply(std::slice::from_ref(&block)).expect("it follows");
        (block, overlay)
    }
}

/// Opens so many wallets, one after the other.
fn open_many<S: Store>(written: &mut Written<S>, count: usize) {
    for number in 0..count {
        let mut parts = opened(0).parts().clone();
        parts.id = WalletId::parse(&format!("many-{number}")).expect("an id");
        let wallet = Wallet::from_parts(parts).expect("a wallet");
        written.write(wallet.id(), Some(&wallet));
    }
}

fn read(hot: &mut Hot, store: &MemoryStore, id: &WalletId) -> Option<Wallet> {
    let mut key = Vec::new();
    Wallets::encode_key(id, &mut key);
    if let Some(wallet) = hot.wallet(id, &key).expect("it decodes") {
        return Some(wallet);
    }
    let value = store.get(&key).expect("memory does not fail")?;
    Some(hot.keep_stored(id, &key, &value).expect("it decodes"))
}

proptest! {
    #[test]
    fn hot_rows_are_the_stores(steps in proptest::collection::vec(step(), 1..120)) {
        let mut written = Written::begin(MemoryStore::default());
        let mut expected: Vec<Option<Wallet>> = vec![None; usize::from(WALLETS)];
        let mut hot = Hot::new(ROOM);
        let mut now_ms = 0;
        for step in steps {
            match step {
                Step::Read(number) => {
                    let found = read(&mut hot, &written.store, &id(number));
                    prop_assert_eq!(&found, &expected[usize::from(number)]);
                }
                Step::Change(number) => {
                    let place = &mut expected[usize::from(number)];
                    let mut wallet = place.clone().unwrap_or_else(|| opened(number));
                    // Numbers of 1 to 3 bytes, so that rows change their length too.
                    for _ in 0..40 {
                        wallet.next_seq();
                    }
                    let (block, overlay) = written.write(&id(number), Some(&wallet));
                    hot.retire(&block, &overlay);
                    *place = Some(wallet);
                    let account = (SystemAccount::Treasury, Currency::parse("AED").expect("a currency"));
                    prop_assert_eq!(hot.accounts.get(&account), Some(&i128::from(written.head.number)));
                }
                Step::Remove(number) => {
                    let (block, overlay) = written.write(&id(number), None);
                    hot.retire(&block, &overlay);
                    expected[usize::from(number)] = None;
                }
                Step::ReadAhead => {
                    now_ms += AHEAD_PAUSE_MS;
                    hot.read_ahead(&written.store, now_ms).expect("memory does not fail");
                }
                Step::Restart => hot = Hot::new(ROOM),
            }
            prop_assert!(hot.wallets.len() <= ROOM, "{} rows", hot.wallets.len());
        }
    }
}

#[test]
fn a_start_reads_every_wallet_ahead() {
    let mut written = Written::begin(MemoryStore::default());
    let count = AHEAD_ROWS + 10;
    open_many(&mut written, count);
    let mut hot = Hot::new(1_000);
    // Not with every batch, but after a pause.
    let (first, second) = (1_000, 1_000 + AHEAD_PAUSE_MS);
    let steps = [(first, AHEAD_ROWS), (first, AHEAD_ROWS), (second - 1, AHEAD_ROWS), (second, count), (second * 2, count)];
    for (now_ms, expected) in steps {
        hot.read_ahead(&written.store, now_ms).expect("memory does not fail");
        assert_eq!(hot.wallets.len(), expected, "at {now_ms}");
    }
    let is_done = matches!(hot.ahead, Ahead::Done);
    assert!(is_done);
}

/// Nobody has asked for what is read ahead: a scan that fails for a moment costs a pause, and one that finds the store corrupt halts.
#[test]
fn reading_ahead_goes_on_after_a_scan_that_failed() {
    // Which scan fails, and whether over damage.
    for (name, failing, halts) in [("the first", 0, false), ("the second", 1, false), ("over damage", 1, true)] {
        let scans = AtomicU32::new(0);
        let scan = |_: Option<&[u8]>| match scans.fetch_add(1, Ordering::Relaxed) == failing {
            true if halts => Err(store::Error::Corrupt("a block".to_owned())),
            true => Err(store::Error::Io("for a moment".to_owned())),
            false => Ok(()),
        };
        let mut written = Written::begin(Hooked::new(scan, None));
        let count = AHEAD_ROWS + 10;
        open_many(&mut written, count);
        let mut hot = Hot::new(1_000);
        let all = (1..=3).map(|round| hot.read_ahead(&written.store, round * AHEAD_PAUSE_MS));
        let is_halted = all.collect::<Result<Vec<()>, Halt>>().is_err();
        assert_eq!(is_halted, halts, "{name}");
        let expected = if halts { AHEAD_ROWS } else { count };
        assert_eq!(hot.wallets.len(), expected, "{name}");
    }
}

/// However many shards there are, a row is the one that was written last, and they are never more than there is room for.
#[test]
fn shards_have_room_for_so_many_rows_together() {
    let key = |number: u32| [&[Tag::Wallets as u8][..], format!("w{number}").as_bytes()].concat();
    for (max, shards) in [(1, 1), (1_023, 1), (2_047, 1), (2_048, 2), (10_000, 8), (10_000_000, 1_024)] {
        let mut rows = Rows::new(max);
        assert_eq!(rows.shards(), shards, "room for {max}");
        let count = (max as u32 * 3).min(60_000);
        for number in 0..count {
            rows.put(&key(number), &number.to_be_bytes());
            assert!(rows.len() <= max, "room for {max}");
            if number % 3 == 0 {
                // In another length, and not by what nobody has asked for.
                rows.put(&key(number), &u64::from(number).to_be_bytes());
                rows.add(&key(number), b"older");
            }
            if number % 7 == 0 {
                rows.remove(&key(number));
                assert_eq!(rows.lacks([&key(number)[..]].into_iter()), [0]);
            }
        }
        let keys: Vec<Vec<u8>> = (0..count).map(key).collect();
        let lacking: BTreeSet<usize> = rows.lacks(keys.iter().map(Vec::as_slice)).into_iter().collect();
        let mut found = 0;
        for number in 0..count {
            let value = rows.get(&key(number)).map(<[u8]>::to_vec);
            assert_eq!(value.is_none(), lacking.contains(&(number as usize)));
            let Some(value) = value else { continue };
            found += 1;
            let expected = if number % 3 == 0 { u64::from(number).to_be_bytes().to_vec() } else { number.to_be_bytes().to_vec() };
            assert_eq!(value, expected);
            assert_ne!(number % 7, 0);
        }
        assert_eq!(found, rows.len(), "room for {max}");
        if max <= count as usize {
            assert!(max / 4 <= found, "{found} of {max} rows are kept");
        }
    }
}

/// Where there is no more room, what was needed lately stays before what was only read ahead.
#[test]
fn what_is_needed_stays() {
    let key = |number: u32| number.to_be_bytes();
    let mut rows = Rows::new(1_000);
    let needed = 0..50;
    needed.clone().for_each(|number| rows.put(&key(number), b"a row"));
    for number in 50..20_000 {
        rows.add(&key(number), b"a row");
        for needed in needed.clone() {
            assert!(rows.get(&key(needed)).is_some(), "{needed} after {number}");
        }
    }
}
