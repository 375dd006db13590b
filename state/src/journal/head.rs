//! The head of a partition: everything its last block and all before it say about positions and sequences.

use std::collections::BTreeMap;

use super::{Generation, Header, Positions, Stamp};

/// Where a partition stands after its last block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The application's generation.
    pub generation: Generation,
    /// The partition.
    pub partition: u32,
    /// The last block's number.
    pub number: u64,
    /// The last block's stamp.
    pub stamp: Stamp,
    /// The last block's time, in milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// How far the inputs are consumed.
    pub positions: Positions,
    /// The last sequence sent to each partition.
    pub sent: BTreeMap<u32, u64>,
    /// The last sequence received from each partition.
    pub received: BTreeMap<u32, u64>,
}

/// Why a block does not follow a head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Of another generation or partition.
    #[error("block {number} is of generation {generation}, partition {partition}")]
    Foreign {
        /// The block's number.
        number: u64,
        /// Its generation.
        generation: Generation,
        /// Its partition.
        partition: u32,
    },
    /// Not the next number.
    #[error("block {found} stands where block {expected} is due")]
    Number {
        /// The number that was due.
        expected: u64,
        /// The number found.
        found: u64,
    },
    /// The next number, but of another chain.
    #[error("block {number} follows {found}, not {expected}")]
    Chain {
        /// The block's number.
        number: u64,
        /// The stamp it should follow.
        expected: Stamp,
        /// The stamp it names.
        found: Stamp,
    },
    /// Time or a position went back.
    #[error("block {0} goes back in time or position")]
    Back(u64),
}

impl Head {
    /// The head of an empty partition: block 0 of this generation.
    pub fn genesis(generation: Generation, partition: u32, at_ms: i64) -> Head {
        Head {
            generation,
            partition,
            number: 0,
            stamp: Stamp::genesis(),
            at_ms,
            positions: Positions::default(),
            sent: BTreeMap::new(),
            received: BTreeMap::new(),
        }
    }

    /// The head after `header`, or why it does not follow.
    pub fn follow(&self, header: &Header) -> Result<Head, Broken> {
        let Header { generation, partition, number, .. } = *header;
        let expected = self.number.saturating_add(1);
        if generation != self.generation || partition != self.partition {
            return Err(Broken::Foreign { number, generation, partition });
        }
        if number != expected {
            return Err(Broken::Number { expected, found: number });
        }
        if header.previous != self.stamp {
            return Err(Broken::Chain { number, expected: self.stamp.clone(), found: header.previous.clone() });
        }
        let (now, before) = (header.positions, self.positions);
        if header.at_ms < self.at_ms || now.commands < before.commands || now.postings < before.postings {
            return Err(Broken::Back(number));
        }
        Ok(self.with(header))
    }

    /// The head after `header`, which is known to follow.
    pub fn with(&self, header: &Header) -> Head {
        let mut head = Head {
            generation: self.generation,
            partition: self.partition,
            number: header.number,
            stamp: header.stamp.clone(),
            at_ms: header.at_ms,
            positions: header.positions,
            sent: self.sent.clone(),
            received: self.received.clone(),
        };
        head.sent.extend(header.sent.iter().copied());
        head.received.extend(header.received.iter().copied());
        head
    }

    /// The head written like a header that names every pair.
    pub fn to_header(&self) -> Header {
        Header {
            generation: self.generation,
            partition: self.partition,
            number: self.number,
            stamp: self.stamp.clone(),
            previous: self.stamp.clone(),
            at_ms: self.at_ms,
            positions: self.positions,
            sent: self.sent.iter().map(|(to, sequence)| (*to, *sequence)).collect(),
            received: self.received.iter().map(|(from, sequence)| (*from, *sequence)).collect(),
        }
    }

    /// The head that [`Head::to_header`] wrote.
    pub fn from_header(header: Header) -> Head {
        Head {
            generation: header.generation,
            partition: header.partition,
            number: header.number,
            stamp: header.stamp,
            at_ms: header.at_ms,
            positions: header.positions,
            sent: header.sent.into_iter().collect(),
            received: header.received.into_iter().collect(),
        }
    }
}
