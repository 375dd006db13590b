//! The tables of a partition. Key tags and value formats are frozen: a tag once given is never used for something else.

use std::hash::Hash;

pub use self::accounts::Accounts;
pub use self::holds::Holds;
pub use self::origins::{End, Origin, Origins};
pub use self::payments::Payments;
pub use self::timers::{TimerKind, Timers};
pub use self::wallets::Wallets;
use crate::codec;

mod accounts;
mod holds;
mod origins;
mod payments;
mod timers;
mod wallets;

/// The first byte of every key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Tag {
    /// The store's own rows: head and identity. Never in a block.
    Store = 0,
    /// Wallets by id.
    Wallets = 1,
    /// Payments, and so the dedup entries, by id.
    Payments = 2,
    /// Holds by payment.
    Holds = 3,
    /// Timers by due time.
    Timers = 4,
    /// System accounts by kind and currency.
    Accounts = 5,
    /// Where the application came from, by its former generation.
    Origins = 6,
}

impl Tag {
    /// The tables that blocks carry.
    pub const ROWS: [Tag; 6] = [Tag::Wallets, Tag::Payments, Tag::Holds, Tag::Timers, Tag::Accounts, Tag::Origins];

    /// The table of the row with this key.
    pub fn of(key: &[u8]) -> Option<Tag> {
        let first = key.first()?;
        Tag::ROWS.into_iter().find(|tag| *tag as u8 == *first)
    }
}

/// One table: how its keys and values are written.
pub trait Table {
    /// The first byte of its keys.
    const TAG: Tag;
    /// A row's key.
    type Key: Clone + Eq + Ord + Hash;
    /// A row's value.
    type Value: Clone;

    /// Appends the key, tag first.
    fn encode_key(key: &Self::Key, out: &mut Vec<u8>);
    /// Reads a key, tag included.
    fn decode_key(bytes: &[u8]) -> Result<Self::Key, codec::Error>;
    /// Appends the value.
    fn encode(value: &Self::Value, out: &mut Vec<u8>);
    /// Reads the value of the row at `key`.
    fn decode(key: &Self::Key, bytes: &[u8]) -> Result<Self::Value, codec::Error>;
    /// About how many bytes key and value take in a block, with their lengths: never more.
    fn size(key: &Self::Key, value: &Self::Value) -> usize;
}

/// The bytes of a key behind its tag.
pub(crate) fn untagged(tag: Tag, bytes: &[u8]) -> Result<&[u8], codec::Error> {
    match bytes.split_first() {
        Some((first, rest)) if *first == tag as u8 => Ok(rest),
        _ => Err(codec::Error::Value("a key of another table")),
    }
}

#[cfg(test)]
mod tests;
