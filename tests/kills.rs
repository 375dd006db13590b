//! `kill -9` of a running service at any moment under load, again and again: nothing is lost, doubled or changed.
//!
//! The service is the real program on its real disk. Publishers load it through its socket without a pause; it is killed while it
//! starts, while it works and while it stops. `FINFLOW_KILLS=n` kills it another number of times, `FINFLOW_SEED=n` repeats the
//! moments of a run as far as a machine can.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use finflow_actors::socket::Client;
use finflow_ledger::{Coordinates, WalletId};
use finflow_topologies::Topic;
use finflow_topologies::simulation::{Audit, audit};
use serde_json::Value;

use self::load::{Accepted, Load, TOP_UP_MINOR, WALLETS};
use self::service::{DEADLINE, Service, json};
use self::witness::{OVERLAP, Witness};

#[path = "kills/load.rs"]
mod load;
#[path = "process/service.rs"]
mod service;
#[path = "kills/witness.rs"]
mod witness;

const KILLS: u64 = 100;
const PARTITIONS: u32 = 8;
/// The partitions whose state directories are lost, and truncated, at the end.
const LOST: usize = 3;
const TRUNCATED: usize = 5;
/// One restart in so many is followed by a check of everything instead of what is new.
const CHECK_ALL_EVERY: u64 = 25;
/// So often that kills meet snapshots on their way.
const SNAPSHOTS: [&str; 1] = ["snapshots.interval=1s"];
const STOPPED_WITHIN: Duration = Duration::from_secs(15);

/// When the service is killed.
enum Moment {
    /// So long after its start, whether it answers yet or not.
    Starting(Duration),
    /// So long after it has settled a payment.
    Working(Duration),
    /// So long after it was asked to stop.
    Stopping(Duration),
}

impl Moment {
    /// `started` is about how long a start takes.
    fn draw(random: &mut fastrand::Rng, started: Duration) -> Moment {
        let mut within = |millis| Duration::from_micros(random.u64(0..millis * 1_000));
        let (starting, working, stopping) = (within(1 + started.as_millis() as u64), within(400), within(60));
        match random.u32(0..10) {
            0..3 => Moment::Starting(starting),
            3..8 => Moment::Working(working),
            _ => Moment::Stopping(stopping),
        }
    }
}

#[derive(Default)]
struct Driver {
    witness: Witness,
    /// Accepted commands that a check has found and the next one need not look for.
    accepted_checked: usize,
    /// From the start of the process to its first settlement, for each that got so far.
    recoveries: Vec<Duration>,
    kills: BTreeMap<&'static str, u64>,
}

impl Driver {
    /// Starts the service, follows it, and kills it at the moment.
    async fn round(&mut self, dir: &Path, load: &Load, moment: Moment, check_all: bool) {
        let mut service = Service::start(dir, &SNAPSHOTS);
        match moment {
            Moment::Starting(after) => {
                tokio::time::sleep(after).await;
                *self.kills.entry("starting").or_default() += 1;
            }
            Moment::Working(after) => {
                self.work(&mut service, load, after, check_all).await;
                *self.kills.entry("working").or_default() += 1;
            }
            Moment::Stopping(after) => {
                self.work(&mut service, load, Duration::ZERO, check_all).await;
                service.terminate();
                tokio::time::sleep(after).await;
                *self.kills.entry("stopping").or_default() += 1;
            }
        }
        service.kill();
    }

    /// Waits for the first settlement, checks what was seen before, and goes on reading for so long.
    async fn work(&mut self, service: &mut Service, load: &Load, reading: Duration, check_all: bool) {
        let (begun, begun_ms) = (Instant::now(), now_ms());
        let client = service.expect_client().await;
        while !self.told(service, &client, begun_ms).await {
            assert!(begun.elapsed() < DEADLINE, "nothing is settled: {}", service.logs());
        }
        self.recoveries.push(begun.elapsed());
        let skipped = if check_all { 0 } else { self.accepted_checked };
        let accepted = load.accepted_behind(skipped);
        self.check(&client, &accepted, check_all).await;
        self.accepted_checked = (skipped + accepted.len()).saturating_sub(OVERLAP);
        // The killer does not wait until a read is over.
        let _ = tokio::time::timeout(reading, async {
            loop {
                self.told(service, &client, begun_ms).await;
            }
        })
        .await;
    }

    /// What was seen and accepted is there, unchanged: all of it, or what is new since the last check.
    async fn check(&mut self, client: &Client, accepted: &[(Coordinates, Bytes)], all: bool) {
        let mut found = self.witness.check_events(client, all).await.expect("the service answers");
        found.extend(Witness::check_accepted(client, accepted).await.expect("the service answers"));
        assert!(found.is_empty(), "after {:?} kills: {found:#?}", self.kills);
    }

    async fn told(&mut self, service: &Service, client: &Client, since_ms: i64) -> bool {
        match self.witness.follow(client, PARTITIONS, since_ms).await {
            Ok(is_settled) => is_settled,
            Err(cause) => panic!("after {:?} kills, {cause}: {}", self.kills, service.logs()),
        }
    }

    fn started(&self) -> Duration {
        self.recoveries.last().copied().unwrap_or(Duration::from_millis(300))
    }

    fn report(&mut self, seed: u64, accepted: &Accepted, took: Duration) {
        self.recoveries.sort();
        let at = |hundredth: usize| self.recoveries.get((self.recoveries.len() * hundredth / 100).saturating_sub(1));
        println!(
            "seed {seed}: killed {:?} in {took:.0?}; {} commands accepted, {} batches repeated, {} events; \
             start to first settlement p50 {:.0?} p95 {:.0?} max {:.0?}",
            self.kills,
            accepted.records.len(),
            accepted.repeated,
            self.witness.events_count(),
            at(50).copied().unwrap_or_default(),
            at(95).copied().unwrap_or_default(),
            at(100).copied().unwrap_or_default(),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_killed_at_any_moment_loses_doubles_and_changes_nothing() {
    let begun = Instant::now();
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let seed = number("FINFLOW_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let kills = number("FINFLOW_KILLS").unwrap_or(KILLS);
    println!("FINFLOW_SEED={seed} FINFLOW_KILLS={kills}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut driver = Driver::default();
    let load = Load::start(&dir.join("data"));
    for kill in 1..=kills {
        let moment = Moment::draw(&mut random, driver.started());
        driver.round(dir, &load, moment, kill.is_multiple_of(CHECK_ALL_EVERY)).await;
    }

    let mut service = Service::start(dir, &SNAPSHOTS);
    let client = service.expect_client().await;
    let accepted = load.finish().await;
    assert_eq!(client.idle(DEADLINE).await, Ok(true), "{}", service.logs());
    while driver.told(&service, &client, i64::MAX).await {}
    driver.check(&client, &accepted.records, true).await;
    check_money(&client, &accepted).await;
    service.terminate();
    assert!(service.ended(STOPPED_WITHIN).await.success(), "{}", service.logs());
    driver.report(seed, &accepted, begun.elapsed());
    check_rebuild(dir);
}

/// Every accepted command has ended once, every cent is where the events say, and the state agrees with itself.
async fn check_money(client: &Client, accepted: &Accepted) {
    let events = events(client).await;
    let audit: Audit = audit(events.iter().map(|event| &**event));
    assert_eq!(audit.faults, vec![]);
    let ended = ended_once(&events);
    assert!(
        ended == accepted.keys,
        "not ended: {:?}; never sent: {:?}",
        minus(&accepted.keys, &ended),
        minus(&ended, &accepted.keys)
    );
    assert_eq!(audit.sums.get("AED"), Some(&(i128::from(WALLETS) * TOP_UP_MINOR)));
    for (wallet, (_, minor)) in &audit.balances {
        let id = WalletId::parse(wallet).expect("a wallet id");
        let told = client.wallet(&id).await.expect("readable").expect("opened");
        assert_eq!((told.ledger().minor(), told.held().is_zero()), (*minor, true), "{wallet}");
    }
    for partition in 0..client.partitions_count().await.expect("a count") {
        let checked = client.check(partition, true).await.expect("readable");
        assert_eq!((checked.differences, checked.holds), (Vec::new(), 0), "partition {partition}");
    }
}

/// The commands that have ended, as `wallet/key`; none may have ended twice.
fn ended_once(events: &[Vec<u8>]) -> BTreeSet<String> {
    let mut ended = BTreeSet::new();
    for event in events {
        let event: Value = serde_json::from_slice(event).expect("an event is JSON");
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        if ["payment.settled", "payment.rejected", "wallet.opened"].contains(&text("event")) {
            let key = format!("{}/{}", text("wallet"), text("idempotency_key"));
            assert!(ended.insert(key.clone()), "{key} has ended twice");
        }
    }
    ended
}

fn minus(all: &BTreeSet<String>, less: &BTreeSet<String>) -> Vec<String> {
    all.difference(less).take(10).cloned().collect()
}

async fn events(client: &Client) -> Vec<Vec<u8>> {
    let mut events = Vec::new();
    for partition in 0..PARTITIONS {
        let mut from = client.range(Topic::Events, partition).await.expect("a range").start;
        loop {
            let fetched = client.fetch(Topic::Events, partition, from, 2 << 20).await.expect("records");
            if fetched.records.is_empty() {
                break;
            }
            events.extend(fetched.records.into_iter().filter_map(|record| Some(record.value?.to_vec())));
            from = fetched.next;
        }
    }
    events
}

/// One partition's state is lost and another's truncated: both come back to the same rows, from snapshot and journal, and once the
/// snapshots are lost too from the journal alone.
fn check_rebuild(dir: &Path) {
    let before = digests(dir);
    assert_eq!(before.len(), PARTITIONS as usize);
    for source in ["snapshot", "journal"] {
        if source == "journal" {
            std::fs::remove_dir_all(dir.join("data/snapshots")).expect("snapshots");
        }
        damage(&dir.join("data/state"));
        let told = json(dir, &["partitions"]);
        for partition in [LOST, TRUNCATED] {
            assert_eq!(told[partition]["restored_from"], source, "{told:?}");
        }
        assert_eq!(digests(dir), before, "from the {source}: {told:?}");
    }
}

fn digests(dir: &Path) -> Vec<(Value, Value)> {
    let verified = json(dir, &["state", "verify"]);
    verified.into_iter().map(|row| (row["partition"].clone(), row["digest"].clone())).collect()
}

fn damage(state: &Path) {
    std::fs::remove_dir_all(state.join(LOST.to_string())).expect("a state directory");
    let tables: Vec<_> = std::fs::read_dir(state.join(TRUNCATED.to_string()))
        .expect("a state directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .collect();
    assert!(!tables.is_empty(), "a stopped service has written its state");
    for table in tables {
        let bytes = std::fs::read(&table).expect("a table");
        // A file of its own: the table may be a snapshot's too.
        std::fs::remove_file(&table).expect("a table");
        std::fs::write(&table, &bytes[..bytes.len() / 2]).expect("a shorter table");
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
