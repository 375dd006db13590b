//! A store that cannot be read for a while: nothing is halted or suspected, the partition is decided once it can be read again, and the
//! others of its lane go on meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use finflow_ledger::WalletId;
use finflow_state::Store;
use finflow_state::store::Error;
use finflow_topologies::lane::Status;
use finflow_topologies::topics::partition_of_wallet;
use finflow_topologies::{Halt, Topic, TopologyDriver};

use self::hooked::Hooked;

#[path = "support/hooked.rs"]
mod hooked;

const PARTITIONS: u32 = 4;
/// The partition whose store fails.
const ILL: u32 = 1;

/// A wallet of each partition: payers, then receivers.
fn wallets(from: usize) -> Vec<String> {
    let home = |name: &String| WalletId::parse(name).map(|id| partition_of_wallet(&id, PARTITIONS));
    let of = |partition| (from..).map(|n| format!("w{n}")).find(|name| home(name) == Some(partition)).expect("a name");
    (0..PARTITIONS).map(of).collect()
}

fn send(driver: &TopologyDriver, wallet: &str, key: &str, rest: &str) {
    driver.send(&format!(r#"{{"tenant":"acme","wallet":"{wallet}","idempotency_key":"{key}",{rest}}}"#));
}

struct World {
    driver: TopologyDriver,
    fails: Arc<AtomicBool>,
    payers: Vec<String>,
    receivers: Vec<String>,
}

impl World {
    /// Wallets with money in every partition, whose stores are read anew.
    fn new(lanes: u32, error: &Error) -> World {
        let fails = Arc::new(AtomicBool::new(false));
        let store = |id| {
            let error = (id == ILL).then(|| error.clone());
            let fails = fails.clone();
            let hook = move |_: Option<&[u8]>| {
                let failing = error.clone().filter(|_| fails.load(Ordering::Relaxed));
                failing.map_or(Ok(()), Err)
            };
            Arc::new(Hooked::new(hook, None)) as Arc<dyn Store>
        };
        let mut driver = TopologyDriver::with_stores(PARTITIONS, lanes, store);
        let (payers, receivers) = (wallets(0), wallets(100));
        for wallet in payers.iter().chain(&receivers) {
            let open = r#""type":"open_wallet","currency":"AED","country":"AE","kind":"personal","holder":"H""#;
            send(&driver, wallet, "open", open);
            let top_up = r#""type":"top_up","amount":"100","currency":"AED","source":{"account":"till"}"#;
            send(&driver, wallet, "top", top_up);
        }
        assert_eq!(driver.run(), Ok(()));
        // Nothing of it is hot any more.
        (0..lanes as usize).for_each(|lane| driver.restart(lane));
        World { driver, fails, payers, receivers }
    }

    /// Every payer pays every receiver once.
    fn pay(&self) {
        for payer in &self.payers {
            for receiver in &self.receivers {
                let rest = format!(r#""type":"transfer","to":"{receiver}","amount":"1","currency":"AED""#);
                send(&self.driver, payer, receiver, &rest);
            }
        }
    }

    /// How many payments have settled.
    fn settled(&self) -> usize {
        let payments = self.driver.events().into_iter().filter(|event| event["idempotency_key"] != "top");
        payments.filter(|event| event["event"] == "payment.settled").count()
    }

    fn is_running(&mut self, lanes: u32) -> bool {
        let lane = self.driver.lane((ILL % lanes) as usize);
        lane.lane.status(ILL) == Some(&Status::Running) && lane.suspicions == 0
    }
}

/// The store fails with `error` while payments come, and works again.
fn check(lanes: u32, error: &Error) {
    let row = format!("{lanes} lanes, {error}");
    let mut world = World::new(lanes, error);
    let committed = world.driver.log_of(Topic::Journal, ILL).len();
    world.fails.store(true, Ordering::Relaxed);
    world.pay();
    let all = (PARTITIONS * PARTITIONS) as usize;
    let others = ((PARTITIONS - 1) * (PARTITIONS - 1)) as usize;
    // However often it is tried.
    for _ in 0..3 {
        assert_eq!(world.driver.run(), Ok(()), "{row}");
        assert!(world.is_running(lanes), "{row}: nothing is halted or suspected");
        assert_eq!(world.settled(), others, "{row}: the others go on");
        assert_eq!(world.driver.log_of(Topic::Journal, ILL).len(), committed, "{row}: nothing of it is");
    }
    world.fails.store(false, Ordering::Relaxed);
    assert_eq!(world.driver.run(), Ok(()), "{row}");
    assert!(world.is_running(lanes), "{row}");
    assert_eq!(world.settled(), all, "{row}: everything is decided once");
    for wallet in world.payers.iter().chain(&world.receivers) {
        let minor = world.driver.wallet(wallet).expect("a wallet").ledger().minor();
        let expected = if world.payers.contains(wallet) { 9_600 } else { 10_400 };
        assert_eq!(minor, expected, "{row}: {wallet}");
    }
}

#[test]
fn what_may_pass_halts_nobody() {
    for lanes in [1, 2, 4] {
        for error in [Error::Io("too many open files".to_owned()), Error::Busy("held".to_owned())] {
            check(lanes, &error);
        }
    }
}

#[test]
fn what_is_corrupt_halts() {
    let error = Error::Corrupt("a checksum".to_owned());
    let world = &mut World::new(2, &error);
    world.fails.store(true, Ordering::Relaxed);
    world.pay();
    assert_eq!(world.driver.run(), Err(Halt::Corrupt("a checksum".to_owned())));
}
