//! One partition on a log of its own: what comes of restoring it, whatever log and position say.

use finflow_state::{Generation, Header, Positions, Shared, Snapshots, Stamp, snapshot};
use finflow_topologies::Topic;
use finflow_topologies::log::{Batch, Claimed, Commit, Log, Outgoing, Session, Transaction};

use super::*;
use crate::clock::Clock;
use crate::log::embedded::EmbeddedLog;

const GENERATION: Generation = Generation([7; 16]);

fn stamp(number: u64) -> Stamp {
    if number == 0 { Stamp::genesis() } else { Stamp { lane: "lane".into(), incarnation: 1, counter: number } }
}

fn position(block: u64) -> Position {
    Position { partition: 0, commands: block, block, stamp: stamp(block) }
}

fn block(number: u64) -> EncodedBlock {
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
    EncodedBlock::encode(&header, &Overlay::default())
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
            shared: Shared::new(8 << 20),
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
        match self.committed.restore(&self.log, read.as_ref()) {
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
