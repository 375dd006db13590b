//! Where the application came from: the topics of former generations, whose records nobody carries out any more.

use serde::{Deserialize, Serialize};

use super::{Table, Tag, untagged};
use crate::codec::{self, Error};
use crate::journal::Generation;

/// Former generation -> what is known of it. Kept by partition 0.
#[derive(Debug)]
pub struct Origins;

/// A former generation of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The prefix of its topics.
    pub prefix: String,
    /// Where its topics ended when it was left. Empty where they are not to be watched, as on another cluster.
    pub ends: Vec<End>,
}

/// One past the last record of a topic's partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The topic, by its word.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct OriginV1 {
    prefix: String,
    ends: Vec<End>,
}

impl Table for Origins {
    const TAG: Tag = Tag::Origins;
    type Key = Generation;
    type Value = Origin;

    fn encode_key(key: &Generation, out: &mut Vec<u8>) {
        out.push(Tag::Origins as u8);
        out.extend_from_slice(&key.0);
    }

    fn decode_key(bytes: &[u8]) -> Result<Generation, Error> {
        let bytes = untagged(Tag::Origins, bytes)?.try_into().map_err(|_| Error::Value("a generation"))?;
        Ok(Generation(bytes))
    }

    fn encode(origin: &Origin, out: &mut Vec<u8>) {
        codec::write(FORMAT, &OriginV1 { prefix: origin.prefix.clone(), ends: origin.ends.clone() }, out);
    }

    fn decode(_key: &Generation, bytes: &[u8]) -> Result<Origin, Error> {
        codec::read::<OriginV1>(FORMAT, bytes).map(|row| Origin { prefix: row.prefix, ends: row.ends })
    }

    fn size(_key: &Generation, origin: &Origin) -> usize {
        48 + origin.prefix.len() + origin.ends.iter().map(|end| end.topic.len() + 20).sum::<usize>()
    }
}
