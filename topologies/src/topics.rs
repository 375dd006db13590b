//! The topics of the application and the partitioner: where a wallet, a payment and their records live.
//!
//! One partition count serves every topic, so that a wallet's commands, events, postings and journal share a number.
//! The hash is Kafka's: any Java producer with the default partitioner finds the same partition.

use std::fmt;

use finflow_ledger::{IdempotencyKey, PaymentId, Tenant, WalletId};
use sha2::{Digest, Sha256};

/// The longest record of `commands` that is taken: key, value and headers together, in bytes (`max.message.bytes`). A command may be
/// as long as `wire::v1::COMMAND_BYTES_MAX`; what is longer goes whole to the DLQ.
pub const RECORD_BYTES_MAX: usize = 256 * 1024;
/// The longest dead letter: such a record, and what is wrong with it (`max.message.bytes` of the DLQ).
pub const DEAD_LETTER_BYTES_MAX: usize = 320 * 1024;

/// The topics, in the order in which a record travels. Names are given without the configured prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// JSON commands, keyed by home wallet; written by producers.
    Commands,
    /// Binary legs, acknowledgements and forwarded commands between partitions.
    Postings,
    /// JSON events, keyed by wallet.
    Events,
    /// One binary block per epoch and partition: the state of record.
    Journal,
    /// Commands that cannot be understood, with their original bytes.
    Dlq,
}

impl Topic {
    /// All topics.
    pub const ALL: [Topic; 5] = [Topic::Commands, Topic::Postings, Topic::Events, Topic::Journal, Topic::Dlq];

    /// The word by which the command line and file formats call the topic.
    pub fn word(self) -> &'static str {
        match self {
            Topic::Commands => "commands",
            Topic::Postings => "postings",
            Topic::Events => "events",
            Topic::Journal => "journal",
            Topic::Dlq => "dlq",
        }
    }

    /// The full name under `prefix`, for example `finflow.commands.v1`.
    pub fn name(self, prefix: &str) -> String {
        self.name_parts(prefix).concat()
    }

    /// The pieces of [`Topic::name`], one behind the other, for who needs no text of its own.
    pub(crate) fn name_parts(self, prefix: &str) -> [&str; 4] {
        [prefix, ".", self.word(), ".v1"]
    }

    /// Whether its records keep the time that they bring (`CreateTime`): a dead letter has that of its original. Everywhere else a
    /// record has the time when the log took it (`LogAppendTime`).
    pub fn keeps_time(self) -> bool {
        self == Topic::Dlq
    }

    /// The topic whose [`Topic::word`] is `word`.
    pub fn from_word(word: &str) -> Option<Topic> {
        Topic::ALL.into_iter().find(|topic| topic.word() == word)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The partition of a record key, as Kafka's Java client computes it: `toPositive(murmur2(key)) % partitions`.
///
/// `partitions` must not be zero; zero gives partition 0.
pub fn partition_of_key(key: &[u8], partitions: u32) -> u32 {
    partition_of_hash(murmur2(key), partitions)
}

/// The partition of a wallet: that of its id as a record key.
pub fn partition_of_wallet(wallet: &WalletId, partitions: u32) -> u32 {
    partition_of_key(wallet.as_str().as_bytes(), partitions)
}

/// The home partition of a payment, read from the hash in the first four bytes of its id.
pub fn partition_of_payment(payment: PaymentId, partitions: u32) -> u32 {
    let [a, b, c, d, ..] = *payment.as_bytes();
    partition_of_hash(u32::from_be_bytes([a, b, c, d]), partitions)
}

fn partition_of_hash(hash: u32, partitions: u32) -> u32 {
    (hash & 0x7fff_ffff).checked_rem(partitions).unwrap_or(0)
}

/// The payment id of CONTRACT section 1: murmur2 of the home wallet, then 96 bits of
/// SHA-256(tenant 0x00 home wallet 0x00 idempotency key). A client knows it before it asks.
pub fn payment_id(tenant: &Tenant, home: &WalletId, key: &IdempotencyKey) -> PaymentId {
    let mut digest = Sha256::new();
    for (index, part) in [tenant.as_str(), home.as_str(), key.as_str()].into_iter().enumerate() {
        if 0 < index {
            digest.update([0]);
        }
        digest.update(part.as_bytes());
    }
    let mut bytes = [0_u8; 16];
    let (hash, tail) = bytes.split_at_mut(4);
    hash.copy_from_slice(&murmur2(home.as_str().as_bytes()).to_be_bytes());
    for (byte, from) in tail.iter_mut().zip(digest.finalize()) {
        *byte = from;
    }
    PaymentId::from_bytes(bytes)
}

/// The 32-bit murmur2 of `org.apache.kafka.common.utils.Utils`, seed `0x9747b28c`, before masking.
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut h = SEED ^ (data.len() as u32);
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = chunk.iter().rev().fold(0_u32, |k, byte| (k << 8) | u32::from(*byte));
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        h ^= rest.iter().rev().fold(0_u32, |k, byte| (k << 8) | u32::from(*byte));
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_kafkas_own_test_vectors() {
        // From `UtilsTest.testMurmur2` of Apache Kafka.
        let rows: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in rows {
            assert_eq!(murmur2(key) as i32, expected, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn a_payment_and_its_home_wallet_share_a_partition() {
        for (tenant, wallet, key) in [("acme", "alice", "order-1"), ("acme", "bob", "1"), ("x", "w:1.2_3-4", " ")] {
            let (Some(tenant), Some(wallet), Some(key)) =
                (Tenant::parse(tenant), WalletId::parse(wallet), IdempotencyKey::parse(key))
            else {
                panic!("the row must parse");
            };
            let id = payment_id(&tenant, &wallet, &key);
            for partitions in [1, 3, 8, 12, 1000] {
                assert_eq!(partition_of_payment(id, partitions), partition_of_wallet(&wallet, partitions));
            }
        }
    }
}
