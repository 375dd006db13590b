//! One partition on a log of its own: what comes of restoring it, whatever log and position say, and whose it is.

use finflow_ledger::{CommandKind, Coordinates, Currency, Hold, IdempotencyKey, Money, PaymentState, Tenant};
use finflow_state::{Generation, Header, Positions, Shared, Snapshots, Stamp, snapshot};
use finflow_topologies::Topic;
use finflow_topologies::log::{Batch, Claimed, Commit, Log, Outgoing, Session, Transaction};

use super::*;
use crate::clock::Clock;
use crate::housekeeper::legs::Legs;
use crate::log::embedded::EmbeddedLog;

const GENERATION: Generation = Generation([7; 16]);

fn stamp(number: u64) -> Stamp {
    if number == 0 { Stamp::genesis() } else { Stamp { lane: "lane".into(), incarnation: 1, counter: number } }
}

fn position(block: u64) -> Position {
    Position { partition: 0, commands: block, block, stamp: stamp(block) }
}

fn block(number: u64) -> EncodedBlock {
    block_of(number, &Overlay::default())
}

fn block_of(number: u64, rows: &Overlay) -> EncodedBlock {
    let header = Header {
        generation: GENERATION,
        partition: 0,
        number,
        stamp: stamp(number),
        previous: stamp(number - 1),
        at_ms: number as i64,
        positions: Positions { commands: number, postings: 0 },
        sent: vec![],
        received: vec![],
    };
    EncodedBlock::encode(&header, rows)
}

struct Place {
    committed: Committed,
    log: NodeLog,
    session: Box<dyn Session>,
    claim: u64,
    _dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().expect("a directory");
        let log = NodeLog::Embedded(EmbeddedLog::open(&dir.path().join("log"), 1).expect("a log"));
        restore::create(&log, GENERATION, 0).expect("block 0");
        let restorer = Restorer {
            state_dir: dir.path().join("state"),
            scratch: dir.path().join("tmp"),
            snapshots: Snapshots::new(snapshot::in_directory(&dir.path().join("snapshots"))),
            generation: GENERATION,
            shared: Shared::new(8 << 20, 1),
            clock: Clock::system(),
            is_of_log: false,
            replay: restore::restore_observed,
        };
        std::fs::create_dir_all(&restorer.state_dir).expect("a directory");
        let mut session = log.session("lane").expect("a session");
        let claim = session.claim(0).expect("a claim").epoch;
        Place { committed: Committed::absent(0, Arc::new(restorer)), log, session, claim, _dir: dir }
    }

    /// The log commits a block and the position that names it, or one of them without the other.
    fn commit(&mut self, number: u64, has_block: bool, has_position: bool) {
        let record = Outgoing { value: Some(block(number).bytes().clone()), ..Outgoing::default() };
        let journal = Batch { topic: Topic::Journal, partition: 0, records: vec![record] };
        if has_position {
            let batches = if has_block { vec![journal] } else { vec![] };
            let positions = vec![Claimed { claim: self.claim, position: position(number) }];
            let committed = self.session.commit(Transaction { stamp: stamp(number), batches, positions });
            assert_eq!(committed, Commit::Committed);
        } else {
            self.log.append(Topic::Journal, 0, journal.records).expect("a block");
        }
    }

    /// Restores to the position that named this block when it was read.
    fn restore(&self, block: u64) -> String {
        let read = (0 < block).then(|| position(block));
        self.committed.take(&"lane".into());
        match self.committed.restore("lane", &self.log, read.as_ref()) {
            Ok(head) => format!("at {}", head.number),
            Err(cause) if cause.may_pass() => "once more".to_owned(),
            Err(_) => "halted".to_owned(),
        }
    }
}

#[test]
fn what_contradicts_a_position_counts_only_while_it_is_the_one_that_was_read() {
    // To which block the store was restored before, the last block and the last position of the log, the block that the position named
    // when it was read, and what comes of it.
    let rows: [(Option<u64>, u64, u64, u64, &str); 9] = [
        (None, 3, 3, 3, "at 3"),
        (Some(2), 3, 3, 3, "at 3"),
        // Somebody else has committed since.
        (None, 3, 3, 2, "once more"),
        (Some(1), 3, 3, 2, "once more"),
        (Some(3), 3, 3, 2, "once more"),
        // Nobody has: a position is lost, or the end of the journal is.
        (None, 4, 3, 3, "halted"),
        (Some(3), 4, 3, 3, "halted"),
        (None, 3, 4, 4, "halted"),
        (Some(3), 3, 4, 4, "halted"),
    ];
    for row @ (before, last_block, last_position, read, expected) in rows {
        let mut place = Place::new();
        let mut restored = None;
        for number in 0..=last_block.max(last_position) {
            if 0 < number {
                place.commit(number, number <= last_block, number <= last_position);
            }
            if before == Some(number) {
                restored = Some(place.restore(number));
            }
        }
        assert_eq!(restored, before.map(|before| format!("at {before}")), "{row:?}");
        assert_eq!(place.restore(read), expected, "{row:?}");
    }
}

/// Two lanes of one process, step by step: whose the partition is then, whether its store is open, what is wrong with it, and how often one
/// of them was refused.
fn shared(steps: &str) -> String {
    let mut place = Place::new();
    place.commit(1, true, true);
    let (committed, mut refused) = (&place.committed, 0);
    for step in steps.split(", ") {
        let (lane, what) = step.split_once(' ').expect("a lane and what it does");
        let lane: Arc<str> = lane.into();
        match what {
            "announces" => committed.announce(&lane),
            "takes" => committed.take(&lane),
            "restores" => refused += i32::from(committed.restore(&lane, &place.log, Some(&position(1))).is_err()),
            "shows" => committed.show(&lane, Arc::from([]), Condition { lane: Some(lane.clone()), ..Condition::default() }),
            "writes" => refused += i32::from(committed.apply(&lane, &[block(2)]).is_err()),
            "fails" => committed.set_fault(&lane, Some(format!("{lane} failed"))),
            "dies" => committed.suspend(&lane),
            "tries again" => drop(committed.give_another_chance(&lane)),
            "puts it away" => drop(committed.put_away(&lane)),
            other => panic!("no step: {other}"),
        }
    }
    let Condition { lane, restored_by, .. } = committed.condition();
    let whose = match (lane, restored_by) {
        (Some(lane), _) => format!("{lane} runs it"),
        (None, Some(lane)) => format!("{lane} brings it"),
        (None, None) => "nobody".to_owned(),
    };
    let store = if committed.store().is_some() { "open" } else { "closed" };
    format!("{whose}, {store}, {}, {refused} refused", committed.fault().as_deref().unwrap_or("well"))
}

#[test]
fn what_another_lane_has_claimed_is_none_of_the_former_ones_business() {
    let begun = "old announces, old takes, old restores, old shows";
    for (steps, expected) in [
        ("", "old runs it, open, well, 0 refused"),
        ("old writes, old fails", "old runs it, open, old failed, 0 refused"),
        ("old fails, old puts it away", "nobody, closed, well, 0 refused"),
        ("old dies", "old brings it, open, well, 0 refused"),
        ("old dies, old announces, old takes, old restores, old shows", "old runs it, open, well, 0 refused"),
        ("old tries again", "old brings it, closed, well, 0 refused"),
        // Who is told that it may claim a partition has not claimed it.
        ("new announces, new shows, new fails, new puts it away", "old runs it, open, well, 0 refused"),
        ("new restores, new writes", "old runs it, open, well, 2 refused"),
        // The claim is what counts.
        ("new takes", "new brings it, open, well, 0 refused"),
        ("new takes, old shows, old fails, old dies", "new brings it, open, well, 0 refused"),
        ("new takes, old announces, old puts it away, old tries again", "new brings it, open, well, 0 refused"),
        ("new takes, old writes, old restores", "new brings it, open, well, 2 refused"),
        ("new takes, new restores, old puts it away, new shows, old shows", "new runs it, open, well, 0 refused"),
        ("new takes, new restores, new shows, old writes, old fails, old puts it away", "new runs it, open, well, 1 refused"),
        ("new takes, new restores, new shows, new puts it away, old shows, old fails", "nobody, closed, well, 0 refused"),
        ("old dies, new announces, new takes, old puts it away", "new brings it, open, well, 0 refused"),
    ] {
        let steps = if steps.is_empty() { begun.to_owned() } else { format!("{begun}, {steps}") };
        assert_eq!(shared(&steps), expected, "{steps}");
    }
}

/// Rows that hold money for these payments, and for those no more.
fn holding(payments: &[u8], ended: &[u8]) -> Overlay {
    let mut rows = Overlay::default();
    let amount = Money::from_minor(5, Currency::parse("AED").expect("a currency"));
    let hold = Hold { wallet: WalletId::parse("alice").expect("an id"), amount };
    payments.iter().for_each(|payment| rows.holds.put(PaymentId::from_bytes([*payment; 16]), hold.clone()));
    ended.iter().for_each(|payment| rows.holds.remove(PaymentId::from_bytes([*payment; 16])));
    rows
}

/// What a halted partition has committed last stays above its store.
#[test]
fn what_is_held_is_what_was_committed_last() {
    let mut place = Place::new();
    place.commit(1, true, true);
    assert_eq!(place.restore(1), "at 1");
    place.committed.apply("lane", &[block_of(2, &holding(&[1, 2, 3], &[]))]).expect("a store");
    let layers: Layers = [holding(&[2, 5], &[]), holding(&[4], &[1, 2])].map(Arc::new).into();
    place.committed.show("lane", layers, Condition { halted: Some("why".to_owned()), ..place.committed.condition() });
    let number = |id: PaymentId| id.as_bytes()[0];
    let held = |after: Option<u8>, limit| {
        let after = after.map(|payment| PaymentId::from_bytes([payment; 16]));
        let (held, last) = place.committed.held(after.as_ref(), limit).expect("a store");
        (held.into_iter().map(number).collect::<Vec<_>>(), last.map(number))
    };
    assert_eq!(held(None, 10), (vec![2, 3, 4, 5], None));
    // Of the store's, none but the first, which has ended since.
    assert_eq!(held(None, 1), (vec![2, 4, 5], Some(1)));
    assert_eq!(held(Some(1), 2), (vec![2, 3, 4, 5], Some(3)));
    assert_eq!(held(Some(3), 2), (vec![2, 4, 5], None));
}

/// A payment that was decided then.
fn created(payment: u8, kind: CommandKind, created_ms: i64) -> (PaymentId, Payment) {
    let id = PaymentId::from_bytes([payment; 16]);
    let payment = Payment {
        id,
        kind,
        tenant: Tenant::parse("acme").expect("a tenant"),
        wallet: WalletId::parse("alice").expect("an id"),
        key: IdempotencyKey::parse("order-1").expect("a key"),
        fingerprint: [9; 16],
        state: PaymentState::Received,
        reason: None,
        amount: None,
        amount_given: None,
        to: None,
        reference: None,
        metadata: vec![],
        correlation: None,
        traceparent: None,
        source: Coordinates { partition: 0, offset: 0 },
        created_ms,
        updated_ms: created_ms,
        received_ms: created_ms,
    };
    (id, payment)
}

/// Where more is held than one look reads, the looks go on one behind the other, and none forgets what an earlier one has found.
#[test]
fn the_oldest_leg_is_found_among_more_than_one_look_reads() {
    use CommandKind::{TopUp, Transfer};
    let mut place = Place::new();
    place.commit(1, true, true);
    assert_eq!(place.restore(1), "at 1");
    let mut rows = holding(&[1, 2, 3, 4, 5], &[]);
    let payments = [(1, Transfer, 500), (2, Transfer, 900), (3, TopUp, 100), (4, Transfer, 300), (5, Transfer, 400)];
    payments.into_iter().for_each(|(payment, kind, at)| {
        let (id, payment) = created(payment, kind, at);
        rows.payments.put(id, payment);
    });
    place.committed.apply("lane", &[block_of(2, &rows)]).expect("a store");
    let mut legs = Legs::default();
    let mut look = || legs.oldest_ms(&place.committed, 2, 1_000).expect("a store");
    // 1 and 2; 3 and 4, of which 4 is older than 1; 5, and 4 is remembered; and again from the first on.
    assert_eq!([look(), look(), look(), look()], [Some(500), Some(700), Some(700), Some(700)]);
    place.committed.apply("lane", &[block_of(3, &holding(&[], &[4]))]).expect("a store");
    // Nobody holds for 4 any more; 3 is no leg.
    assert_eq!([look(), look(), look()], [Some(600), Some(600), Some(600)]);
    place.committed.apply("lane", &[block_of(4, &holding(&[], &[1, 2, 3, 5]))]).expect("a store");
    assert_eq!(look(), None);
}
