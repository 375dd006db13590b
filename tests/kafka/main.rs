//! The engine on a real broker, as its users see it: topics, foreign producers and consumers, and processes that come and go.
//! One broker serves all of it.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use self::broker::Broker;
use self::process::Process;
use self::three::Three;

mod asked;
mod belonging;
mod bench;
#[path = "../../actors/tests/kafka_log/broker.rs"]
mod broker;
#[path = "../support/child.rs"]
mod child;
#[path = "../support/contract.rs"]
mod commands;
mod contract;
mod elsewhere;
#[path = "../support/http.rs"]
mod http;
mod process;
mod readme;
mod rescale;
mod resumed;
mod seen;
mod settings;
#[path = "../../actors/tests/kafka_log/stray.rs"]
mod stray;
mod three;

/// How long a start may wait for brokers.
const UNANSWERED_MAX: Duration = Duration::from_secs(20);

#[test]
fn the_engine_on_a_real_broker() {
    let broker = Broker::start(|_| vec![]);
    // Applications of their own, which mostly wait.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            timed("the contract's file gives the contract's events", || {
                contract::the_contracts_file_gives_the_contracts_events(&broker);
            });
            timed("a directory is used with one log only", || belonging::a_directory_is_used_with_one_log_only(&broker));
            timed("a state goes to another broker", || elsewhere::a_state_goes_to_another_broker(&broker));
        });
        timed("what the README says is typed", readme::what_the_readme_says_is_typed);
        timed("what operators must see first is seen", || seen::what_operators_must_see_first_is_seen(&broker));
        timed("what would lose something is told or refused", || {
            settings::what_would_lose_something_is_told_or_refused(&broker);
        });
        timed("whoever is asked has partitions go on", || resumed::whoever_is_asked_has_partitions_go_on(&broker));
    });
    let dir = tempfile::tempdir().expect("a directory");
    let address = broker.address();
    let mut three = Three::start(dir.path(), &address);
    timed("every process answers for every wallet", || three.each_answers_for_all());
    timed("one is killed under load", || three.one_is_killed_under_load());
    timed("one restarts, and keeps its partitions", || three.one_restarts());
    timed("one leaves, and the others have its partitions at once", || three.one_leaves());
    timed("one stands still for longer than its session, and ends when it wakes up", || three.one_stands_still());
    timed("one is started twice, and the older one ends", || three.its_name_is_taken());
    timed("the broker is gone for a while", || three.the_broker_is_gone(&broker));
    timed("every cent is accounted for", || three.check());
    drop(three);
    timed("the benchmark runs", || bench::it_is_measured(&broker));
    timed("eight partitions become thirty-two", || rescale::eight_partitions_become_thirty_two(&broker));
}

/// Nobody listens there: a supervisor tries again.
#[test]
fn a_start_that_no_broker_answers_ends_soon_and_says_so() {
    let (dir, begun) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a port");
    let brokers = free.to_string();
    let process = Process::new(dir.path(), "one", &brokers, "alone");
    let (code, told) = (process.begin(1, &[]).ended(), process.logged());
    let causes: Vec<&str> = told.lines().filter(|line| line.starts_with("finflow: ")).collect();
    assert!(code == Some(75) && causes.len() == 1 && causes[0].contains(&brokers), "{code:?} {told}");
    assert!(begun.elapsed() < UNANSWERED_MAX, "{:?}", begun.elapsed());
}

fn timed(name: &str, case: impl FnOnce()) {
    let begun = Instant::now();
    println!("{name}");
    case();
    println!("    {:.1} s: {name}", begun.elapsed().as_secs_f64());
}
