//! What is fetched before a batch is decided decides nothing: with it and without it, and whatever of it has been forgotten meanwhile, the
//! same is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use finflow_state::Store;
use finflow_state::store::{Error, digest};
use finflow_topologies::{Topic, TopologyDriver};

use self::hooked::Hooked;

#[path = "support/hooked.rs"]
mod hooked;

const PARTITIONS: u32 = 2;
/// Several times as many as a partition keeps in memory.
const WALLETS: u64 = 700;
const TRANSFERS: u64 = 3_000;
/// Of so many transfers one is sent twice.
const REPEAT_EVERY: u64 = 7;

/// How a store answers where it is asked for many rows at once.
type Many = fn() -> Result<(), Error>;

fn command(wallet: u64, key: &str, rest: &str) -> String {
    format!(r#"{{"tenant":"acme","idempotency_key":"{key}","wallet":"w{wallet}","currency":"AED",{rest}}}"#)
}

/// Runs the same load, and gives what is left of it: the journal and the events of each partition, the digest of its store, and how many
/// rows were read one by one.
fn run(many: Many) -> (Vec<Vec<u8>>, Vec<[u8; 32]>, u64) {
    let single = Arc::new(AtomicU64::new(0));
    let store = |_| -> Arc<dyn Store> {
        let single = single.clone();
        let count = move |key: Option<&[u8]>| {
            single.fetch_add(u64::from(key.is_some()), Ordering::Relaxed);
            Ok(())
        };
        Arc::new(Hooked::new(count, Some(many)))
    };
    let mut driver = TopologyDriver::with_stores(PARTITIONS, 1, store);
    for wallet in 0..WALLETS {
        driver.send(&command(wallet, "o", r#""type":"open_wallet","country":"AE","kind":"personal","holder":"H""#));
        driver.send(&command(wallet, "t", r#""type":"top_up","amount":"100","source":{"account":"till"}"#));
    }
    driver.run().expect("nothing is wrong");
    let before = single.load(Ordering::Relaxed);
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0..TRANSFERS {
        // Some go to wallets that there are not.
        let (from, to) = (random.u64(..WALLETS), random.u64(..WALLETS + 5));
        let transfer = command(from, &format!("p{number}"), &format!(r#""type":"transfer","to":"w{to}","amount":"1.5""#));
        (0..=u32::from(number % REPEAT_EVERY == 0)).for_each(|_| driver.send(&transfer));
    }
    driver.run().expect("nothing is wrong");
    let told = [Topic::Journal, Topic::Events].into_iter().flat_map(|topic| driver.records(topic));
    let told = told.filter_map(|record| record.value.map(|value| value.to_vec())).collect();
    let digests = (0..PARTITIONS).map(|id| digest(&*driver.store(id)).expect("readable")).collect();
    (told, digests, single.load(Ordering::Relaxed) - before)
}

#[test]
fn what_is_fetched_ahead_changes_nothing_but_how_often_the_store_is_asked() {
    let rows: [(&str, Many); 2] =
        [("it fails", || Err(Error::Io("for a moment".to_owned()))), ("it panics", || panic!("over one of them"))];
    let (told, digests, single) = run(|| Ok(()));
    for (many, answer) in rows {
        let (otherwise, others, each) = run(answer);
        assert_eq!(told.len(), otherwise.len(), "{many}");
        assert!(told == otherwise && digests == others, "{many}: something else is written");
        assert!(TRANSFERS < each && single * 4 < each, "{many}: {single} rows one by one, {each} without what is fetched ahead");
    }
}
