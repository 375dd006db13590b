//! Timers: a transfer whose receiver's partition does not answer says so, once, and ends as always when it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use finflow_ledger::{PaymentState, WalletId};
use finflow_state::{Store, Tag, store};
use finflow_topologies::topics::partition_of_wallet;
use finflow_topologies::{Halt, TopologyDriver};

use self::hooked::Hooked;

#[path = "support/hooked.rs"]
mod hooked;

const PARTITIONS: u32 = 2;
const AFTER_MS: i64 = 60_000;

/// What happens after the transfer was sent.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Time passes.
    Pass(i64),
    /// The home's lane does what there is to do; the receiver's stands still.
    Home,
    /// Both do.
    Both,
    /// The home's lane is killed and comes back.
    Restart,
    /// Rows of this table can be read no more without a panic.
    Mine(Tag),
}

use Step::{Both, Home, Mine, Pass, Restart};

struct World {
    driver: TopologyDriver,
    /// The table whose rows of the home panic when they are read; 0 = none.
    mined: Arc<AtomicU8>,
    home: u32,
}

fn wallet(partition: u32) -> String {
    let of = |name: &String| partition_of_wallet(&WalletId::parse(name).expect("an id"), PARTITIONS) == partition;
    (0..).map(|n| format!("w{n}")).find(of).expect("a wallet of the partition")
}

impl World {
    /// Two partitions with a lane each; a payer with 10.00 in the first one, and in the other a receiver, if there is one.
    fn new(has_receiver: bool) -> World {
        let mined = Arc::<AtomicU8>::default();
        let home = 0;
        let store = |partition| -> Arc<dyn Store> {
            let mined = if partition == home { mined.clone() } else { Arc::default() };
            let hook = move |key: Option<&[u8]>| {
                let mined = mined.load(Ordering::SeqCst);
                assert!(mined == 0 || key.and_then(<[u8]>::first) != Some(&mined), "a mine");
                Ok(())
            };
            Arc::new(Hooked::new(hook, None))
        };
        let mut driver = TopologyDriver::with_stores(PARTITIONS, PARTITIONS, store);
        let rest = r#""currency":"AED","country":"AE","kind":"personal","holder":"H""#;
        for partition in 0..if has_receiver { PARTITIONS } else { 1 } {
            let wallet = wallet(partition);
            driver.send(&format!(r#"{{"type":"open_wallet","tenant":"acme","idempotency_key":"o","wallet":"{wallet}",{rest}}}"#));
        }
        let payer = wallet(home);
        driver.send(&format!(
            r#"{{"type":"top_up","tenant":"acme","idempotency_key":"t","wallet":"{payer}","amount":"10","currency":"AED","source":{{"account":"till"}}}}"#
        ));
        assert_eq!(driver.run(), Ok(()));
        World { driver, mined, home }
    }

    fn send(&mut self) {
        let (from, to) = (wallet(self.home), wallet(1));
        self.driver.send(&format!(
            r#"{{"type":"transfer","tenant":"acme","idempotency_key":"p","wallet":"{from}","to":"{to}","amount":"2.50","currency":"AED"}}"#
        ));
    }

    fn take(&mut self, step: Step) -> Result<(), Halt> {
        match step {
            Pass(ms) => self.driver.advance(ms),
            Home => {
                let now_ms = self.driver.now_ms();
                self.driver.lane(self.home as usize).run(now_ms)?;
            }
            Both => self.driver.run()?,
            Restart => self.driver.restart(self.home as usize),
            Mine(tag) => self.mined.store(tag as u8, Ordering::SeqCst),
        }
        Ok(())
    }

    /// What the payer was told of the payment: events with their reasons, and what was held then.
    fn told(&self) -> Vec<String> {
        let of = |event: &&serde_json::Value| event["idempotency_key"] == "p" && event["wallet"] == wallet(self.home);
        let told = |event: &serde_json::Value| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let (name, reason, held) = (text(&event["event"]), text(&event["reason"]), text(&event["balance"]["held"]));
            format!("{} {reason} {held}", name.trim_start_matches("payment."))
        };
        self.driver.events().iter().filter(of).map(told).collect()
    }

    fn timers(&self) -> usize {
        store::due(&*self.driver.store(self.home), i64::MIN, i64::MAX, usize::MAX).expect("a store in memory").len()
    }
}

/// What is tried, whether there is a receiver, what happens, what the payer is told, and how many timers are left.
type Row = (&'static str, bool, &'static [Step], &'static [&'static str], usize);

const LATE: &str = "requires_attention in_transit 2.50";

#[test]
fn a_transfer_that_waits_for_too_long_says_so_once_and_ends_as_always() {
    let rows: &[Row] = &[
        ("answered at once", true, &[Both, Pass(AFTER_MS), Both], &["settled  0.00"], 0),
        ("not yet due", true, &[Home, Pass(AFTER_MS - 1), Home], &[], 1),
        ("due", true, &[Home, Pass(AFTER_MS), Home], &[LATE], 0),
        ("due for long", true, &[Home, Pass(AFTER_MS * 1_000), Home, Home, Pass(AFTER_MS), Home], &[LATE], 0),
        ("answered after that", true, &[Home, Pass(AFTER_MS), Home, Both], &[LATE, "settled  0.00"], 0),
        ("refused after that", false, &[Home, Pass(AFTER_MS), Home, Both], &[LATE, "rejected counterparty_unknown 0.00"], 0),
        ("answered when it is due", true, &[Home, Pass(AFTER_MS), Both], &[LATE, "settled  0.00"], 0),
        ("due after a crash", true, &[Home, Restart, Pass(AFTER_MS), Home], &[LATE], 0),
        ("fired before a crash", true, &[Home, Pass(AFTER_MS), Home, Restart, Home, Both], &[LATE, "settled  0.00"], 0),
        (
            "its timer cannot be read",
            true,
            &[Home, Pass(AFTER_MS), Restart, Mine(Tag::Timers), Home, Both],
            &["requires_attention timer_failed 2.50", "settled  0.00"],
            0,
        ),
    ];
    for (name, has_receiver, steps, told, timers) in rows {
        let mut world = World::new(*has_receiver);
        world.send();
        for step in *steps {
            assert_eq!(world.take(*step), Ok(()), "{name}: {step:?}");
        }
        assert_eq!(world.told(), *told, "{name}");
        assert_eq!(world.timers(), *timers, "{name}");
        let payment = world.driver.payment("acme", &wallet(world.home), "p").expect("a payment");
        let due = match told.last() {
            None => PaymentState::Reserved,
            Some(last) if last.starts_with("requires") => PaymentState::RequiresAttention,
            Some(last) if last.starts_with("settled") => PaymentState::Settled,
            Some(_) => PaymentState::Rejected,
        };
        assert_eq!(payment.state, due, "{name}");
        assert_eq!(
            store::verify(&*world.driver.store(world.home)).expect("readable").differences,
            Vec::<String>::new(),
            "{name}"
        );
    }
}

#[test]
fn a_payment_that_cannot_even_be_left_to_a_human_halts_its_partition() {
    let mut world = World::new(true);
    world.send();
    for step in [Home, Pass(AFTER_MS), Restart, Mine(Tag::Payments), Home] {
        assert_eq!(world.take(step), Ok(()), "{step:?}");
    }
    assert!(matches!(world.take(Both), Err(Halt::Panic(_))));
    assert_eq!((world.told(), world.timers()), (vec![], 1), "nothing of it is committed");
}

/// A timer that stands at another time than the setting says, because the setting was another, finds its payment ended.
#[test]
fn what_is_due_for_a_payment_that_has_ended_goes_without_a_word() {
    let mut world = World::new(true);
    world.send();
    assert_eq!(world.take(Home), Ok(()));
    let due = store::due(&*world.driver.store(world.home), i64::MIN, i64::MAX, 10).expect("a store in memory");
    assert_eq!(world.take(Both), Ok(()));
    let told = world.told();
    // Proposed by somebody whose store was behind.
    assert_eq!(world.take(Pass(AFTER_MS)), Ok(()));
    let home = world.home;
    world.driver.lane(home as usize).lane.offer_timers(home, due);
    assert_eq!(world.take(Both), Ok(()));
    assert_eq!(world.told(), told);
}
