//! What rows add up to, in whatever order and from whatever partition they come.

use sha2::{Digest, Sha256};

use crate::tables::Tag;

/// How many rows there are of each table whose rows move unchanged, and the sum of their digests: equal for the same rows, however
/// they are dealt out. System accounts and origins are not among them; they are made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Wallets.
    pub wallets: u64,
    /// Payment records.
    pub payments: u64,
    /// Holds.
    pub holds: u64,
    /// Timers.
    pub timers: u64,
    /// The sum of the first 128 bits of each row's SHA-256, without what overflows.
    pub content: u128,
}

impl Tally {
    /// Adds a row, if it is one of those that move unchanged.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        let count = match Tag::of(key) {
            Some(Tag::Wallets) => &mut self.wallets,
            Some(Tag::Payments) => &mut self.payments,
            Some(Tag::Holds) => &mut self.holds,
            Some(Tag::Timers) => &mut self.timers,
            Some(Tag::Accounts | Tag::Origins | Tag::Store) | None => return,
        };
        *count = count.saturating_add(1);
        let mut digest = Sha256::new();
        digest.update((key.len() as u32).to_le_bytes());
        digest.update(key);
        digest.update(value);
        let digest: [u8; 32] = digest.finalize().into();
        let first = digest.first_chunk().map_or(0, |first| u128::from_le_bytes(*first));
        self.content = self.content.wrapping_add(first);
    }

    /// Adds other rows.
    pub fn merge(&mut self, other: &Tally) {
        self.wallets = self.wallets.saturating_add(other.wallets);
        self.payments = self.payments.saturating_add(other.payments);
        self.holds = self.holds.saturating_add(other.holds);
        self.timers = self.timers.saturating_add(other.timers);
        self.content = self.content.wrapping_add(other.content);
    }
}
