//! From suspicion to halt: each row is what happens between the suspicious decision and the end of the lane's doubts about it.

use std::sync::Arc;

use bytes::Bytes;
use finflow_ledger::WalletId;
use finflow_state::Generation;
use finflow_topologies::lane::Status;
use finflow_topologies::log::simulated::{Fault, SimulatedLog};
use finflow_topologies::log::{Log, Outgoing};
use finflow_topologies::simulation::Node;
use finflow_topologies::topics::partition_of_wallet;
use finflow_topologies::{Halt, Rules, Topic, restore};

const PARTITIONS: u32 = 4;
/// The partition whose postings cannot be read.
const BROKEN: u32 = 0;
/// Another one of the same lane.
const NEIGHBOUR: u32 = 1;

struct World {
    log: SimulatedLog,
    rules: Arc<Rules>,
    node: Node,
}

/// What happens to the lane, one word each.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A command for the neighbour is sent and decided.
    Open,
    /// The open epoch is closed: its commit is in flight.
    Close,
    /// The broken posting is read: the decision about it looks like a halt.
    Meet,
    /// Commands are trimmed that were not consumed, and asked for.
    Starve,
    /// What is in flight is committed, in one of these ways.
    Commit(Option<Fault>),
    /// Another node takes over the broken partition, or its neighbour.
    Lose(u32),
    /// The lane takes it over again, and knows it.
    Return(u32),
}

impl World {
    fn new() -> World {
        let rules = Arc::new(Rules {
            dedup_retention_ms: 1_000_000,
            dedup_margin_ms: 1_000,
            hot_wallets_max: 10,
            ..Rules::development(PARTITIONS)
        });
        let log = SimulatedLog::new(PARTITIONS);
        restore::create(&log, Generation([1; 16]), 0).expect("a log in memory");
        let mut node = Node::start(&log, "lane", 1, &rules).expect("a session");
        for partition in [BROKEN, NEIGHBOUR] {
            node.adopt_empty(partition).expect("an empty partition");
        }
        World { log, rules, node }
    }

    fn take(&mut self, step: Step, number: usize) {
        match step {
            Step::Open => {
                let wallets = (0..).map(|n| format!("wallet-{number}-{n}"));
                let mut wallets =
                    wallets.filter(|id| WalletId::parse(id).map(|id| partition_of_wallet(&id, PARTITIONS)) == Some(NEIGHBOUR));
                let wallet = wallets.next().expect("a wallet of the neighbour");
                let value = format!(
                    r#"{{"type":"open_wallet","tenant":"acme","idempotency_key":"k","wallet":"{wallet}","currency":"AED","country":"AE","kind":"personal","holder":"H"}}"#
                );
                self.append(Topic::Commands, NEIGHBOUR, &wallet, &value);
                self.node.fetch(NEIGHBOUR);
                while self.node.round(0, None).is_some() {}
            }
            Step::Meet => {
                self.append(Topic::Postings, BROKEN, "k", "no posting");
                self.node.fetch(BROKEN);
            }
            Step::Starve => {
                self.append(Topic::Commands, BROKEN, "k", "lost");
                self.log.trim(Topic::Commands, BROKEN, 1).expect("a log in memory");
                self.node.fetch(BROKEN);
            }
            Step::Close => assert!(self.node.close(0), "step {number}: something is to be closed"),
            Step::Commit(fault) => {
                self.log.fail_next(fault);
                self.node.commit().expect("a log in memory");
                self.log.fail_next(None);
                // A doubt is settled with the next word.
                self.node.commit().expect("a log in memory");
            }
            Step::Lose(partition) => {
                let mut other = Node::start(&self.log, "other", 1, &self.rules).expect("a session");
                other.adopt_empty(partition).expect("a partition");
            }
            Step::Return(partition) => {
                self.node.adopt_empty(partition).expect("a partition");
            }
        }
    }

    fn append(&self, topic: Topic, partition: u32, key: &str, value: &str) {
        let bytes = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
        let record = Outgoing { key: bytes(key), value: bytes(value), ..Outgoing::default() };
        self.log.append(topic, partition, vec![record]).expect("a log in memory");
    }

    fn is(&self) -> &'static str {
        match self.node.lane.status(BROKEN) {
            _ if self.node.is_fenced => "fenced",
            Some(Status::Running) => "running",
            Some(Status::Suspect(_)) => "suspect",
            Some(Status::Halted(Halt::Posting { .. } | Halt::Input(_))) => "halted",
            other => panic!("{other:?}"),
        }
    }
}

/// Takes the steps and expects the partition to be, after each of them, what stands beside it.
fn check(steps: &[(Step, &str)]) -> World {
    let mut world = World::new();
    for (number, (step, expected)) in steps.iter().enumerate() {
        world.take(*step, number);
        assert_eq!(world.is(), *expected, "after step {number} of {steps:?}");
    }
    world
}

const SURE: Step = Step::Commit(None);

#[test]
fn a_halt_is_reported_once_the_log_has_confirmed_who_owns_what() {
    check(&[(Step::Meet, "suspect"), (Step::Close, "suspect"), (SURE, "halted")]);
    check(&[(Step::Starve, "suspect"), (Step::Close, "suspect"), (SURE, "halted")]);
    check(&[(Step::Starve, "suspect"), (Step::Lose(BROKEN), "suspect"), (Step::Close, "suspect"), (SURE, "fenced")]);
    for refusal in [Fault::Abort, Fault::DoubtAborted, Fault::DoubtCommitted] {
        let asked = (Step::Commit(Some(refusal)), "suspect");
        check(&[(Step::Meet, "suspect"), (Step::Close, "suspect"), asked, (Step::Close, "suspect"), (SURE, "halted")]);
    }
}

#[test]
fn what_was_lost_is_not_reported() {
    for lost in [BROKEN, NEIGHBOUR] {
        let lose = (Step::Lose(lost), "suspect");
        check(&[(Step::Meet, "suspect"), lose, (Step::Close, "suspect"), (SURE, "fenced")]);
        check(&[(Step::Meet, "suspect"), (Step::Close, "suspect"), lose, (SURE, "fenced")]);
        // It has come back, unknown to the confirmation on its way.
        let back = (Step::Return(lost), "running");
        check(&[(Step::Meet, "suspect"), (Step::Close, "suspect"), lose, back, (SURE, "fenced")]);
    }
}

#[test]
fn a_suspicion_stands_on_the_epoch_in_flight() {
    let start = [(Step::Open, "running"), (Step::Close, "running"), (Step::Meet, "suspect")];
    let ends = [(Step::Close, "suspect"), (SURE, "halted")];
    check(&[&start[..], &[(SURE, "suspect")], &ends].concat());
    // The ground is gone with the epoch: the partition runs again, and meets the same posting again.
    let aborted = [(Step::Commit(Some(Fault::Abort)), "running")];
    check(&[&start[..], &aborted, &[(Step::Meet, "suspect")], &ends].concat());
}

#[test]
fn a_confirmation_speaks_only_for_what_was_suspected_before_it() {
    // Adopting the neighbour takes the suspicion's ground away; the one that follows is not asked for by what is in flight.
    let steps =
        [(Step::Meet, "suspect"), (Step::Close, "suspect"), (Step::Return(NEIGHBOUR), "running"), (Step::Meet, "suspect")];
    check(&[&steps[..], &[(SURE, "fenced")]].concat());
}

#[test]
fn the_neighbours_go_on_and_their_epoch_stays_open_meanwhile() {
    let steps = [
        (Step::Meet, "suspect"),
        (Step::Open, "suspect"),
        (Step::Close, "suspect"),
        (Step::Commit(Some(Fault::Abort)), "suspect"),
        (Step::Close, "suspect"),
        (SURE, "halted"),
        (Step::Close, "halted"),
        (SURE, "halted"),
        (Step::Open, "halted"),
        (Step::Close, "halted"),
        (SURE, "halted"),
    ];
    let mut world = check(&steps);
    assert_eq!(world.log.range(Topic::Events, NEIGHBOUR), Ok(0..2), "each command has its event, once");
    assert_eq!(world.log.range(Topic::Journal, BROKEN), Ok(0..1), "a confirmation writes nothing");
    world.node.lane.resume(BROKEN);
    assert_eq!(world.is(), "running");
}
