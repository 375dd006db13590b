//! The contract of the log, on the Kafka one and a real broker, and what only a real broker can show.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use finflow_actors::log::kafka::{KafkaLog, Settings};
use finflow_topologies::Topic;
use finflow_topologies::log::conformance::{Faulty, Harness, PARTITIONS, check, check_faults};
use finflow_topologies::log::simulated::Fault;
use finflow_topologies::log::{Batch, Claimed, Commit, Log, Outgoing, Position, Session, Transaction};
use finflow_topologies::topics::partition_of_key;

use self::broker::Broker;
use self::proxy::Armed;

mod broker;
mod cut_off;
mod expired;
mod fenced;
mod gaps;
mod held_back;
mod hung;
mod lost_position;
mod proxy;
mod reading;
mod removed;
#[path = "../support/s3.rs"]
mod s3;
mod stray;
mod swept;
mod takeover;
mod trimming;
mod uncommitted;

/// The names of lanes that the suite uses.
const LANES: [&str; 2] = ["lane/0", "lane/1"];
/// How often a look is repeated until a commit is seen, and the pause between two looks.
const LOOKS: u32 = 800;
const PAUSE: Duration = Duration::from_millis(25);
/// A command that fills a batch: longer than what a lane asks for at a time, as long as the topic takes.
const LONG_BYTES: usize = 250_000;
/// Commits whose latency is measured, and the records of each.
const MEASURED_COMMITS: u64 = 200;
const MEASURED_RECORDS: usize = 50;

/// Topics of their own on a shared broker.
struct Cluster {
    settings: Settings,
    log: Option<KafkaLog>,
    armed: Armed,
}

impl Cluster {
    fn new(brokers: &str, name: &str, armed: &Armed) -> Cluster {
        let mut settings = Settings::new(brokers, name);
        settings.commit_deadline = Duration::from_secs(2);
        let made = KafkaLog::create_topics(&settings, PARTITIONS, 1).expect("topics");
        assert_eq!(made.len(), Topic::ALL.len());
        assert_eq!(KafkaLog::check_topics(&settings, PARTITIONS, 1), Ok(vec![]));
        Cluster { settings, log: None, armed: armed.clone() }
    }

    fn log(&mut self) -> KafkaLog {
        let log = KafkaLog::open(self.settings.clone()).expect("a log");
        self.log = Some(log.clone());
        log
    }
}

impl Harness for Cluster {
    fn open(&mut self) -> Arc<dyn Log> {
        Arc::new(self.log())
    }

    fn wait(&mut self, tries: u32) -> bool {
        std::thread::park_timeout(PAUSE);
        tries < LOOKS
    }

    /// The group decides: it gives everything to the one lane that has not left.
    fn give(&mut self, _partition: u32, lane: &str) {
        let log = self.log.clone().expect("an open log");
        for other in LANES.into_iter().filter(|other| *other != lane) {
            if !log.leave(other) {
                // Its session is over, its membership is not: whoever comes back under its name can leave.
                let _session = log.session(other).expect("a session");
                assert!(log.leave(other));
            }
        }
    }
}

impl Faulty for Cluster {
    fn fail_next(&mut self, fault: Fault) {
        self.armed.fail_next(fault);
    }
}

#[test]
fn a_real_broker_keeps_the_contract() {
    tracing_subscriber::fmt().with_env_filter("info").with_test_writer().init();
    let proxy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let proxied = proxy.local_addr().expect("an address").port();
    let inner = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("an address").port();
    let broker = Broker::start(|port| {
        let listeners = |inner: u16| format!("PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{inner}");
        vec![
            format!("listeners={},CONTROLLER://127.0.0.1:{}", listeners(inner), port + 1),
            format!("advertised.listeners={}", listeners(proxied)),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
        ]
    });
    let armed = Armed::default();
    proxy::serve(proxy, inner, &armed);
    let (direct, proxied) = (broker.address(), format!("127.0.0.1:{proxied}"));
    let mut clusters = 0;
    let mut cluster = |brokers: &str| {
        clusters += 1;
        Cluster::new(brokers, &format!("contract-{clusters}"), &armed)
    };
    timed("a lost position is taken from the journal", || {
        block_on(lost_position::a_lost_position_is_taken_from_the_journal(&Settings::new(&direct, "lost")));
    });
    timed("the contract", || check(|| cluster(&direct)));
    timed("the contract of commits that fail", || check_faults(|| cluster(&proxied)));
    timed("a lane that is fenced and whose name nobody has taken goes on", || {
        block_on(fenced::a_lane_whose_name_nobody_has_taken_goes_on(&Settings::new(&proxied, "fenced"), &armed));
    });
    timed("what a lane does not let go of has no lease", || {
        what_a_lane_does_not_let_go_of_has_no_lease(&mut Cluster::new(&direct, "lease", &armed));
    });
    timed("who is cut off from the brokers comes back, or ends", || {
        for (number, case) in cut_off::CASES.iter().enumerate() {
            println!("    {case:?}");
            let [direct, proxied] = [&direct, &proxied].map(|at| Settings::new(at, &format!("cut-{number}")));
            block_on(cut_off::who_is_cut_off_comes_back_or_ends(&direct, &proxied, &armed, case));
        }
    });
    timed("a loss that is over before the lane knows of it costs no more than a claim", || {
        block_on(cut_off::a_loss_that_is_over_is_learned_of(&Settings::new(&proxied, "lost-and-given-back"), &armed));
    });
    timed("who was removed from the group commits nothing", || {
        let [direct, proxied] = [&direct, &proxied].map(|at| Settings::new(at, "removed"));
        removed::who_was_removed_commits_nothing(&direct, &proxied, &armed);
    });
    timed("a lane that cannot commit says so", || {
        block_on(uncommitted::a_lane_that_cannot_commit_says_so(&Settings::new(&proxied, "uncommitted"), &armed));
    });
    timed("a commit that hangs in the client library ends the process", || {
        block_on(hung::a_commit_that_hangs_ends_the_process(&Settings::new(&direct, "hung")));
    });
    timed("batches that are longer than a lane asks for come all the same", || {
        long_batches_come(&mut Cluster::new(&direct, "long", &armed));
    });
    timed("one record that is looked up leaves no others behind", || {
        reading::one_record_leaves_no_others_behind(&mut Cluster::new(&direct, "glances", &armed));
    });
    timed("what is forgotten is not kept, and is read again", || {
        reading::what_is_forgotten_is_not_kept_and_is_read_again(&mut Cluster::new(&direct, "forgotten", &armed));
    });
    timed("each command is told its own place, whoever writes beside it", || {
        reading::each_command_is_told_its_own_place(&mut Cluster::new(&direct, "places", &armed));
    });
    timed("java's tools and this log understand each other", || {
        java_understands(&broker, &mut Cluster::new(&direct, "java", &armed));
    });
    timed("partitions that are assigned are restored as at a start", || {
        let assigned = Settings::new(&direct, "takeover");
        block_on(takeover::partitions_that_are_assigned_are_restored_as_at_a_start(&assigned));
    });
    timed("what is followed is taken over as it stands", || {
        block_on(takeover::what_is_followed_is_taken_over_as_it_stands(&Settings::new(&direct, "standby")));
    });
    timed("what an open transaction hides is waited for", || {
        block_on(held_back::what_an_open_transaction_hides_is_waited_for(&Settings::new(&direct, "held")));
    });
    timed("what an open transaction hides from who stands by is waited for", || {
        let followed = Settings::new(&direct, "held-followed");
        block_on(held_back::what_an_open_transaction_hides_from_who_stands_by_is_waited_for(&followed));
    });
    timed("what producers have aborted is passed for good", || {
        block_on(gaps::what_producers_have_aborted_is_passed_for_good(&Settings::new(&direct, "gaps")));
    });
    timed("an operator lets a partition go on past commands that have expired", || {
        block_on(expired::an_operator_lets_it_go_on_past_commands_that_have_expired(&Settings::new(&direct, "expired")));
    });
    timed("records are forgotten by the brokers' time", || {
        block_on(swept::records_are_forgotten_by_the_brokers_time(&Settings::new(&direct, "swept")));
    });
    timed("what is trimmed is had from snapshots", || {
        block_on(trimming::what_is_trimmed_is_had_from_snapshots(&Settings::new(&direct, "trimming")));
    });
    timed("a lane that comes back with less answers for no more than that", || {
        block_on(takeover::a_lane_that_comes_back_with_less_answers_for_no_more_than_that(&Settings::new(&direct, "less")));
    });
    timed("an offset without a stamp halts its partition alone", || {
        block_on(takeover::an_offset_without_a_stamp_halts_its_partition_alone(&Settings::new(&direct, "stamp")));
    });
    timed("commits are measured", || commits_are_measured(&mut Cluster::new(&direct, "measured", &armed)));
}

fn timed(name: &str, case: impl FnOnce()) {
    let begun = Instant::now();
    println!("{name}");
    case();
    println!("    {:.1} s", begun.elapsed().as_secs_f64());
}

/// Runs a case on a runtime of its own.
fn block_on(case: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(case);
}

fn text(key: &str, value: &str) -> Outgoing {
    Outgoing { key: Some(key.to_owned().into()), value: Some(value.to_owned().into()), ..Outgoing::default() }
}

fn transaction(block: u64, claims: &[(u32, u64)], batches: Vec<Batch>) -> Transaction {
    let stamp = finflow_state::Stamp { lane: "lane/0".into(), incarnation: 1, counter: block };
    let position = |partition| Position { partition, commands: 0, block, stamp: stamp.clone() };
    let positions = claims.iter().map(|(partition, claim)| Claimed { claim: *claim, position: position(*partition) });
    Transaction { stamp: stamp.clone(), batches, positions: positions.collect() }
}

fn claim_all(session: &mut dyn Session) -> Vec<(u32, u64)> {
    (0..PARTITIONS).map(|partition| (partition, session.claim(partition).expect("a claim").epoch)).collect()
}

/// What does not compress, in batches that are longer than what a lane asks for of a partition, in several of them at a time.
fn long_batches_come(cluster: &mut Cluster) {
    const EACH: u64 = 3;
    let log = cluster.log();
    let mut random = fastrand::Rng::with_seed(7);
    let mut sent = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let mut values = Vec::new();
        for _ in 0..EACH {
            let mut value = vec![0; LONG_BYTES];
            random.fill(&mut value);
            let record = Outgoing { value: Some(value.clone().into()), ..Outgoing::default() };
            log.append(Topic::Commands, partition, vec![record]).expect("appended");
            values.push(value);
        }
        sent.insert(partition, values);
    }
    let mut found: BTreeMap<u32, Vec<Vec<u8>>> = (0..PARTITIONS).map(|partition| (partition, Vec::new())).collect();
    let mut tries = 0..LOOKS;
    while found != sent {
        assert!(tries.next().is_some(), "{:?} have come", found.values().map(Vec::len).collect::<Vec<_>>());
        for (partition, values) in &mut found {
            let fetched = log.poll(Topic::Commands, *partition, values.len() as u64, usize::MAX).expect("records");
            values.extend(fetched.records.into_iter().map(|record| record.value.expect("a value").to_vec()));
        }
        std::thread::park_timeout(PAUSE);
    }
}

/// Java's producer and this log find the same partition for a key, and Java's consumer sees what was committed and only that.
fn java_understands(broker: &Broker, cluster: &mut Cluster) {
    let log = cluster.log();
    let prefix = cluster.settings.prefix.clone();
    let keys: Vec<String> = (0..200).map(|n| format!("wallet-{n}")).chain(["ä".to_owned(), "x".repeat(300)]).collect();
    let lines: String = keys.iter().map(|key| format!("{key}|value of {key}\n")).collect();
    let (commands, events, address) = (Topic::Commands.name(&prefix), Topic::Events.name(&prefix), broker.address());
    let producer = ["org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", &address, "--topic", &commands];
    let keyed = ["--property", "parse.key=true", "--property", "key.separator=|"];
    broker.tool(&[&producer[..], &keyed].concat(), &lines);
    let mut found = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let mut from = 0;
        while from < log.range(Topic::Commands, partition).expect("a range").end {
            let fetched = log.fetch(Topic::Commands, partition, from, usize::MAX).expect("records");
            from = fetched.next;
            for record in fetched.records {
                let key = String::from_utf8(record.key.expect("a key").to_vec()).expect("text");
                assert_eq!(record.value.as_deref(), Some(format!("value of {key}").as_bytes()));
                found.insert(key, partition);
            }
        }
    }
    let due: BTreeMap<String, u32> =
        keys.into_iter().map(|key| (key.clone(), partition_of_key(key.as_bytes(), PARTITIONS))).collect();
    assert_eq!(found, due, "a key's partition");

    let mut session = log.session("lane/0").expect("a session");
    let claims = claim_all(&mut *session);
    let batch = |value: &str| vec![Batch { topic: Topic::Events, partition: 0, records: vec![text("k", value)] }];
    assert_eq!(session.commit(transaction(1, &claims, batch("first"))), Commit::Committed);
    let nowhere = Batch {
        topic: Topic::Dlq,
        partition: 0,
        records: vec![Outgoing { value: Some(vec![0; 8 << 20].into()), ..text("k", "") }],
    };
    let aborted = session.commit(transaction(2, &claims, [batch("aborted"), vec![nowhere]].concat()));
    assert!(matches!(aborted, Commit::Aborted(_)), "a record that no broker takes: {aborted}");
    assert_eq!(session.commit(transaction(2, &claims, batch("second"))), Commit::Committed);
    let consumer = ["org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", &address, "--topic", &events];
    let committed = ["--isolation-level", "read_committed", "--from-beginning", "--max-messages", "2", "--timeout-ms", "20000"];
    assert_eq!(broker.tool(&[&consumer[..], &committed].concat(), ""), "first\nsecond\n");
}

/// The group takes from a lane what it does not give back in time, and nothing of that is answered for any more when somebody else has it.
fn what_a_lane_does_not_let_go_of_has_no_lease(cluster: &mut Cluster) {
    let (slow, other) = (cluster.log(), cluster.log());
    let (mut session, _) = slow.lane("lane/0").expect("a lane");
    let mut tries = 0..LOOKS;
    while !(0..PARTITIONS).all(|partition| slow.has_lease("lane/0", partition)) {
        assert!(tries.next().is_some(), "it is alone");
        std::thread::park_timeout(PAUSE);
    }
    claim_all(&mut *session);
    let (_other, given) = other.lane("lane/1").expect("a lane");
    let taken = || given.borrow().assigned.clone();
    while taken().len() < PARTITIONS as usize / 2 {
        assert!(tries.next().is_some(), "the group deals out what one lane has had");
        std::thread::park_timeout(PAUSE);
    }
    let leased: Vec<bool> = (0..PARTITIONS).map(|partition| slow.has_lease("lane/0", partition)).collect();
    let kept: Vec<bool> = (0..PARTITIONS).map(|partition| !taken().contains(&partition)).collect();
    assert_eq!(leased, kept);
}

/// How long a commit takes: no test of speed, but one that notices the 100 ms which the client library waits by itself.
fn commits_are_measured(cluster: &mut Cluster) {
    let log = cluster.log();
    let mut session = log.session("lane/0").expect("a session");
    let claims = claim_all(&mut *session);
    let mut took = Vec::new();
    for block in 1..=MEASURED_COMMITS {
        let batch =
            |partition| Batch { topic: Topic::Events, partition, records: vec![text("k", &"x".repeat(300)); MEASURED_RECORDS] };
        let epoch = transaction(block, &claims, (0..PARTITIONS).map(batch).collect());
        let begun = Instant::now();
        assert_eq!(session.commit(epoch), Commit::Committed);
        took.push(begun.elapsed());
    }
    took.sort();
    let at = |share: usize| took.get(took.len() * share / 100).map_or(0.0, |took| took.as_secs_f64() * 1_000.0);
    println!("    {MEASURED_COMMITS} commits of {} records: p50 {:.1} ms, p99 {:.1} ms", MEASURED_RECORDS * 4, at(50), at(99));
    assert!(at(50) < 100.0, "the median commit takes {:.1} ms", at(50));
}
