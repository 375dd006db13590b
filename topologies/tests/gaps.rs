//! Offsets that hold nothing to decide: a partition at rest commits that it has read past them, once, so that it needs nothing any more
//! that its topic has let go of.

use std::sync::Arc;

use bytes::Bytes;
use finflow_ledger::WalletId;
use finflow_state::Generation;
use finflow_topologies::lane::Status;
use finflow_topologies::log::simulated::{Fault, SimulatedLog};
use finflow_topologies::log::{Log, Outgoing};
use finflow_topologies::simulation::Node;
use finflow_topologies::topics::partition_of_wallet;
use finflow_topologies::{Rules, Topic, restore};

const PARTITIONS: u32 = 2;
/// The partition behind whose commands producers leave gaps.
const GAPPED: u32 = 1;

/// What comes to its commands, one word each.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A command.
    Command,
    /// What an aborted transaction leaves, or the mark of one that was committed.
    Gap,
    /// The lane comes to rest; its next commit ends like this.
    Rest(Option<Fault>),
    /// All that is behind the partition's readers is let go of, as it is when a week has passed.
    Expire,
    /// The lane dies, and another one takes its place.
    Die,
    /// Its open epoch is dropped, as for a neighbour's failure.
    Drop,
}

struct World {
    log: SimulatedLog,
    rules: Arc<Rules>,
    node: Node,
    lives: u64,
    commands: usize,
}

impl World {
    fn new() -> World {
        let rules = Arc::new(Rules::development(PARTITIONS));
        let log = SimulatedLog::new(PARTITIONS);
        restore::create(&log, Generation([1; 16]), 0).expect("a log in memory");
        let node = World::start(&log, 1, &rules);
        World { log, rules, node, lives: 1, commands: 0 }
    }

    fn start(log: &SimulatedLog, life: u64, rules: &Arc<Rules>) -> Node {
        let mut node = Node::start(log, "lane", life, rules).expect("a session");
        for id in 0..PARTITIONS {
            node.adopt_empty(id).expect("an empty partition");
        }
        node
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Command => {
                let home = |name: &String| partition_of_wallet(&WalletId::parse(name).expect("an id"), PARTITIONS) == GAPPED;
                let name = (0..).map(|n| format!("w{n}")).filter(home).nth(self.commands).expect("a name");
                self.commands += 1;
                let rest = r#""currency":"AED","country":"AE","kind":"personal","holder":"H""#;
                let value = format!(r#"{{"type":"open_wallet","tenant":"acme","idempotency_key":"k","wallet":"{name}",{rest}}}"#);
                let record = Outgoing { key: Some(Bytes::from(name)), value: Some(value.into()), ..Outgoing::default() };
                self.log.append(Topic::Commands, GAPPED, vec![record]).expect("a log in memory");
            }
            Step::Gap => self.log.skip(Topic::Commands, GAPPED, 3).expect("a log in memory"),
            Step::Rest(fault) => {
                self.log.fail_next(fault);
                self.node.run(0).expect("nothing halts");
                self.log.fail_next(None);
            }
            Step::Expire => {
                let end = self.log.range(Topic::Commands, GAPPED).expect("a partition").end;
                self.log.trim(Topic::Commands, GAPPED, end).expect("a log in memory");
            }
            Step::Die => {
                self.lives += 1;
                self.node = World::start(&self.log, self.lives, &self.rules);
            }
            Step::Drop => self.node.lane.drop_open(),
        }
    }
}

/// Takes the steps, comes to rest, and expects so many blocks behind block 0, all commands decided, and no more to be written.
fn check(steps: &[Step], blocks: u64) {
    let mut world = World::new();
    steps.iter().chain([&Step::Rest(None)]).for_each(|step| world.take(*step));
    let journal = |world: &World, id| world.log.range(Topic::Journal, id).expect("a partition").end;
    for _ in 0..3 {
        assert_eq!(world.node.lane.status(GAPPED), Some(&Status::Running), "{steps:?}");
        assert_eq!(world.node.suspicions, 0, "{steps:?}");
        assert_eq!([0, GAPPED].map(|id| journal(&world, id)), [1, 1 + blocks], "{steps:?}: nothing is written for nothing");
        assert_eq!(world.log.range(Topic::Events, GAPPED).map(|range| range.end), Ok(world.commands as u64), "{steps:?}");
        // Whatever was read may be gone now, and whoever takes over needs nothing of it.
        [Step::Expire, Step::Drop, Step::Rest(None), Step::Die, Step::Rest(None)].into_iter().for_each(|step| world.take(step));
    }
}

const REST: Step = Step::Rest(None);

#[test]
fn a_partition_at_rest_stands_behind_what_holds_nothing() {
    use Step::{Command, Die, Drop, Gap};
    check(&[], 0);
    check(&[Command], 1);
    check(&[Gap], 1);
    // Read at once, one block says both; the gap alone is said by one of its own, once.
    check(&[Command, Gap], 1);
    check(&[Command, REST, Gap], 2);
    check(&[Command, REST, Gap, REST, REST], 2);
    check(&[Command, REST, Gap, REST, Gap], 3);
    check(&[Gap, REST, Command], 2);
    check(&[Gap, REST, Die, REST, Drop, REST], 1);
}

#[test]
fn a_gap_is_carried_on_however_the_first_attempt_ends() {
    for fault in [Fault::Abort, Fault::DoubtAborted, Fault::DoubtCommitted] {
        check(&[Step::Command, REST, Step::Gap, Step::Rest(Some(fault))], 2);
    }
}

/// What is let go of unread halts the partition, again after every resume, until an operator accepts the loss; that holds whatever drops
/// what is open before it is committed, and however the first commit ends.
#[test]
fn commands_that_expired_unread_are_passed_where_an_operator_accepts_it() {
    use Step::{Command, Die, Drop, Expire, Gap};
    for (between, fault) in [
        (&[][..], None),
        (&[Drop][..], None),
        (&[Command][..], None),
        (&[Command, Drop, Gap][..], Some(Fault::Abort)),
        (&[][..], Some(Fault::DoubtAborted)),
        (&[Drop][..], Some(Fault::DoubtCommitted)),
    ] {
        let mut world = World::new();
        [Command, REST, Command, Command].into_iter().for_each(|step| world.take(step));
        let range = world.log.range(Topic::Commands, GAPPED).expect("a partition");
        world.take(Expire);
        for _ in 0..2 {
            world.node.run(0).expect("a lane in memory");
            let status = world.node.lane.status(GAPPED);
            let Some(Status::Halted(cause)) = status else { panic!("{status:?}") };
            assert!(cause.to_string().contains("`finflow partitions resume 1 --skip-expired`"), "{cause}");
            world.node.lane.resume(GAPPED);
        }
        world.node.lane.accept_loss(GAPPED, range.end);
        world.node.lane.resume(GAPPED);
        between.iter().chain([&Step::Rest(fault), &REST]).for_each(|step| world.take(*step));
        let kept = between.iter().filter(|step| matches!(step, Command)).count();
        let told = |world: &World| world.log.range(Topic::Events, GAPPED).map(|range| range.end);
        assert_eq!(world.node.lane.status(GAPPED), Some(&Status::Running), "{between:?} {fault:?}");
        assert_eq!(told(&world), Ok(1 + kept as u64), "{between:?} {fault:?}: what is left is carried out");
        // For good.
        [Die, REST].into_iter().for_each(|step| world.take(step));
        assert_eq!(world.node.lane.status(GAPPED), Some(&Status::Running), "{between:?} {fault:?}");
        assert_eq!((world.node.suspicions, told(&world)), (0, Ok(1 + kept as u64)), "{between:?} {fault:?}");
    }
}
