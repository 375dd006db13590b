//! How far the log of a partition may be trimmed: what nobody needs any more who begins with one of two snapshots.
//!
//! Decided from what was read, and nothing else. The snapshots have to be of this partition and generation, both have to stand at blocks
//! that the journal still has, word for word, and there have to be two: the journal stays from the older one's block on, so that
//! the manifest of one of them, and what only that one names, may be lost. Where any of it is not so, nothing is trimmed.

use finflow_state::{Generation, Head, Header, snapshot};

/// A snapshot that was read back whole just now, and what the journal has in its block's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Where its store stands.
    pub head: Head,
    /// The offset and the header of the first block in the journal that is not before the snapshot's; `None` where there is none.
    pub block: Option<(u64, Header)>,
}

/// The first offsets that stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In the journal: the block of the older snapshot, which stays.
    pub journal: u64,
    /// In `postings`: where the newer snapshot goes on reading.
    pub postings: u64,
}

/// Why nothing may be trimmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The journal was trimmed below a snapshot that is not where snapshots are looked for: they may be another directory's, or one that
    /// is not mounted.
    #[error("the journal begins at block {0}, and no snapshot goes on there: the others may not be where they seem to be")]
    Baseless(u64),
    /// There are not enough snapshots yet.
    #[error("it has {0} snapshots, and needs {kept}", kept = snapshot::KEPT)]
    TooFew(usize),
    /// A snapshot is another partition's, or of another generation.
    #[error("the snapshot of block {block} is of generation {generation}, partition {partition}")]
    Foreign {
        /// Its block.
        block: u64,
        /// Its generation.
        generation: Generation,
        /// Its partition.
        partition: u32,
    },
    /// The journal does not have the block at which a snapshot stands.
    #[error("the journal has no block {0}, at which a snapshot stands")]
    Missing(u64),
    /// The journal has another block of that number.
    #[error("block {0} of the journal is not the one at which a snapshot stands")]
    Different(u64),
    /// The newer snapshot is not behind the older one.
    #[error("the snapshots of blocks {older} and {newer} do not follow each other")]
    Disordered {
        /// The block of what should be the older one.
        older: u64,
        /// The block of what should be the newer one.
        newer: u64,
    },
}

/// Whether the snapshot is there, among those of these blocks, below which the journal was trimmed to begin with block `begins`: the very
/// one. An older one may be of a place that was in use before, from which nothing goes on.
pub fn based(begins: u64, blocks: impl IntoIterator<Item = u64>) -> Result<(), Refusal> {
    let is_based = begins == 0 || blocks.into_iter().any(|block| block == begins);
    if is_based { Ok(()) } else { Err(Refusal::Baseless(begins)) }
}

/// Up to where the journal and the postings of a partition may be trimmed, given its newest snapshots, the newest first.
pub fn limits(partition: u32, generation: Generation, snapshots: &[Proven]) -> Result<Limits, Refusal> {
    let [newer, older] = snapshots else { return Err(Refusal::TooFew(snapshots.len())) };
    let newer_at = place(partition, generation, newer)?;
    let older_at = place(partition, generation, older)?;
    let (newer, older) = (&newer.head, &older.head);
    let is_behind = older.number < newer.number && older_at < newer_at && older.positions.postings <= newer.positions.postings;
    if !is_behind {
        return Err(Refusal::Disordered { older: older.number, newer: newer.number });
    }
    Ok(Limits { journal: older_at, postings: newer.positions.postings })
}

/// Where the journal has the block of a snapshot, once it is certain that it is the same block.
fn place(partition: u32, generation: Generation, Proven { head, block }: &Proven) -> Result<u64, Refusal> {
    if head.partition != partition || head.generation != generation {
        return Err(Refusal::Foreign { block: head.number, generation: head.generation, partition: head.partition });
    }
    let Some((offset, header)) = block.as_ref().filter(|(_, header)| header.number == head.number) else {
        return Err(Refusal::Missing(head.number));
    };
    let is_same = header.partition == partition
        && header.generation == generation
        && header.stamp == head.stamp
        && header.positions == head.positions
        && header.at_ms == head.at_ms;
    if is_same { Ok(*offset) } else { Err(Refusal::Different(head.number)) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use finflow_state::{Positions, Stamp};

    use super::*;

    const PARTITION: u32 = 3;
    const GENERATION: Generation = Generation([7; 16]);

    fn stamp(counter: u64) -> Stamp {
        Stamp { lane: "lane/0".into(), incarnation: 1, counter }
    }

    /// A snapshot at block `number`, which lies at `offset`, and goes on in `postings` at `postings`.
    fn at(number: u64, offset: u64, postings: u64) -> Proven {
        let positions = Positions { commands: 2 * number, postings };
        let head = Head {
            generation: GENERATION,
            partition: PARTITION,
            number,
            stamp: stamp(number),
            at_ms: number as i64,
            positions,
            sent: BTreeMap::from([(1, number)]),
            received: BTreeMap::new(),
        };
        let header = Header { previous: stamp(number - 1), sent: vec![], ..head.to_header() };
        Proven { head, block: Some((offset, header)) }
    }

    fn with(mut proven: Proven, change: impl FnOnce(&mut Head, &mut Option<(u64, Header)>)) -> Proven {
        change(&mut proven.head, &mut proven.block);
        proven
    }

    /// The same with another header in the journal.
    fn against(proven: Proven, change: impl Fn(&mut Header)) -> Proven {
        with(proven, |_, block| block.iter_mut().for_each(|(_, header)| change(header)))
    }

    #[test]
    fn nothing_more_is_trimmed_where_the_snapshot_is_missing_that_the_journal_begins_with() {
        let rows: [(u64, &[u64], bool); 7] = [
            (0, &[], true),
            (0, &[9, 4], true),
            (4, &[9, 4], true),
            (4, &[9, 7, 4], true),
            (4, &[9, 7, 3], false),
            (4, &[9, 7], false),
            (4, &[], false),
        ];
        for (begins, blocks, expected) in rows {
            let due = if expected { Ok(()) } else { Err(Refusal::Baseless(begins)) };
            assert_eq!(based(begins, blocks.iter().copied()), due, "{begins} {blocks:?}");
        }
    }

    #[test]
    fn the_limit_is_where_the_older_of_two_proven_snapshots_stands() {
        let (newer, older) = (|| at(9, 90, 5), || at(4, 40, 2));
        let missing = |_: &mut Head, block: &mut Option<(u64, Header)>| *block = None;
        let other = Generation([8; 16]);
        let rows: Vec<(&str, Vec<Proven>, &str)> = vec![
            ("two that are whole", vec![newer(), older()], "journal 40, postings 5"),
            ("they have received no posting since", vec![at(9, 90, 2), older()], "journal 40, postings 2"),
            ("none", vec![], "it has 0 snapshots, and needs 2"),
            ("one", vec![newer()], "it has 1 snapshots, and needs 2"),
            ("more than are kept", vec![newer(), older(), at(1, 10, 0)], "it has 3 snapshots, and needs 2"),
            (
                "another partition's",
                vec![newer(), with(older(), |head, _| head.partition = 2)],
                "the snapshot of block 4 is of generation 07070707070707070707070707070707, partition 2",
            ),
            (
                "another generation's",
                vec![with(newer(), |head, _| head.generation = other), older()],
                "the snapshot of block 9 is of generation 08080808080808080808080808080808, partition 3",
            ),
            ("the older block is trimmed away", vec![newer(), against(older(), |header| header.number = 5)], "no block 4"),
            ("the journal ends before the newer one", vec![with(newer(), missing), older()], "no block 9"),
            ("another block in its place", vec![newer(), against(older(), |header| header.stamp.counter = 77)], "block 4 of"),
            ("another life's block", vec![against(newer(), |header| header.stamp.incarnation = 2), older()], "block 9 of"),
            ("a block of another generation", vec![against(newer(), |header| header.generation = other), older()], "block 9 of"),
            ("a block of another partition", vec![newer(), against(older(), |header| header.partition = 1)], "block 4 of"),
            ("other postings", vec![against(newer(), |header| header.positions.postings = 4), older()], "block 9 of"),
            ("other commands", vec![newer(), against(older(), |header| header.positions.commands = 9)], "block 4 of"),
            ("another time", vec![newer(), against(older(), |header| header.at_ms = 1)], "block 4 of"),
            ("the same twice", vec![newer(), newer()], "the snapshots of blocks 9 and 9 do not follow each other"),
            ("the older one first", vec![older(), newer()], "the snapshots of blocks 9 and 4 do not follow each other"),
            ("blocks that lie in another order", vec![at(9, 30, 5), older()], "the snapshots of blocks 4 and 9"),
            ("postings that went back", vec![at(9, 90, 1), older()], "the snapshots of blocks 4 and 9"),
        ];
        for (what, snapshots, expected) in rows {
            let found = match limits(PARTITION, GENERATION, &snapshots) {
                Ok(Limits { journal, postings }) => format!("journal {journal}, postings {postings}"),
                Err(refusal) => refusal.to_string(),
            };
            let is_limit = expected.starts_with("journal ");
            assert!(if is_limit { found == expected } else { found.contains(expected) }, "{what}: {found}, not {expected}");
        }
    }
}
