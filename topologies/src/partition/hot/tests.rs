//! Whatever happened before, a hot row is what the store holds or what has just left the layers above it, and there is room.

use finflow_ledger::{Country, Opening, Private, Tenant, WalletKind};
use finflow_state::{EncodedBlock, Generation, Header, MemoryStore, Positions, Stamp};
use proptest::prelude::*;

use super::*;

const WALLETS: u8 = 12;
const ROOM: usize = 5;

#[derive(Debug, Clone)]
enum Step {
    /// A decision reads the wallet.
    Read(u8),
    /// An epoch that has changed the wallet reaches the store, and its overlay leaves the layers.
    Change(u8),
    /// A batch of inputs begins.
    ReadAhead,
    /// The actor is started again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..WALLETS).prop_map(Step::Read),
        8 => (0..WALLETS).prop_map(Step::Change),
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
struct Written {
    store: MemoryStore,
    head: Header,
}

impl Written {
    fn begin() -> Written {
        let genesis = EncodedBlock::genesis(Generation([1; 16]), 0, 1, 0);
        let store = MemoryStore::default();
        store.apply(std::slice::from_ref(&genesis)).expect("block 0 begins a store");
        Written { store, head: genesis.header().clone() }
    }

    fn write(&mut self, wallet: &Wallet) -> (EncodedBlock, Overlay) {
        let mut overlay = Overlay::default();
        overlay.wallets.put(wallet.id().clone(), wallet.clone());
        let number = self.head.number + 1;
        let stamp = Stamp { lane: "lane-1".into(), incarnation: 2, counter: number };
        let previous = std::mem::replace(&mut self.head.stamp, stamp);
        self.head = Header { number, previous, positions: Positions::default(), ..self.head.clone() };
        let block = EncodedBlock::encode(&self.head, &overlay);
        self.store.apply(std::slice::from_ref(&block)).expect("it follows");
        (block, overlay)
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
        let mut written = Written::begin();
        let mut expected: Vec<Option<Wallet>> = vec![None; usize::from(WALLETS)];
        let mut hot = Hot::new(ROOM);
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
                    let (block, overlay) = written.write(&wallet);
                    hot.retire(&block, &overlay);
                    *place = Some(wallet);
                }
                Step::ReadAhead => hot.read_ahead(&written.store).expect("memory does not fail"),
                Step::Restart => hot = Hot::new(ROOM),
            }
            prop_assert!(hot.wallets.len() <= ROOM, "{} rows", hot.wallets.len());
        }
    }
}

#[test]
fn a_start_reads_every_wallet_ahead() {
    let mut written = Written::begin();
    let count = AHEAD_ROWS + 10;
    for number in 0..count {
        let wallet = opened(0);
        let mut parts = wallet.parts().clone();
        parts.id = WalletId::parse(&format!("many-{number}")).expect("an id");
        written.write(&Wallet::from_parts(parts).expect("a wallet"));
    }
    let mut hot = Hot::new(1_000);
    for expected in [AHEAD_ROWS, count, count] {
        hot.read_ahead(&written.store).expect("memory does not fail");
        assert_eq!(hot.wallets.len(), expected);
    }
    let is_done = matches!(hot.ahead, Ahead::Done);
    assert!(is_done);
}
