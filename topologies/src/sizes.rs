//! Sizes: how much an input, an epoch and a queue may hold. What an epoch holds is what one transaction of the log has to take.
//!
//! A partition stops taking input when its open epoch has reached one of the soft limits. Only one input's effects, and what its
//! neighbours hand over, come on top of that; a hand-over that would pass a maximum goes through the log instead.

/// Commands that one partition takes into one wave. Between two waves an epoch may be closed.
pub const WAVE_COMMANDS_MAX: usize = 128;
/// Commands that it takes while postings are left: what has begun elsewhere comes first, but not alone.
pub const WAVE_COMMANDS_MIN: usize = 32;
/// Postings that it takes into one wave: a command leads to two at most, so that they can never gather for long.
pub const WAVE_POSTINGS_MAX: usize = 512;
/// So many bytes of them, each, but at least one record.
pub const WAVE_BYTES_MAX: usize = 512 * 1024;
/// A partition stops taking input when the block of its open epoch is this long, in bytes.
pub const BLOCK_BYTES_SOFT: usize = 256 * 1024;
/// A hand-over that would take a block past this length, in bytes, goes through the log instead.
pub const BLOCK_BYTES_MAX: usize = 512 * 1024;
/// A partition stops taking input when the events, postings and dead letters of its open epoch take so many bytes. A full block of
/// ordinary payments comes with half of it.
pub const RECORDS_BYTES_SOFT: usize = 2 * 1024 * 1024;
/// A hand-over whose event, or dead letter, would take them past so many bytes goes through the log instead.
pub const RECORDS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A lane begins no wave when the open epochs of all its partitions take so many bytes: what the embedded log writes at a time.
pub const EPOCH_BYTES_SOFT: usize = 8 * 1024 * 1024;
/// The effects of one input may take this many bytes at most; what a command within its own limits can cause is far below.
pub const INPUT_BYTES_MAX: usize = 128 * 1024;
/// Records fetched ahead and not yet decided, per partition and topic.
pub const QUEUE_RECORDS_MAX: usize = 4_096;
/// Their bytes. Beyond half of either limit no more is fetched, so that what is under way then has room.
pub const QUEUE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Epochs that are committed but not yet in the store, per partition, before the lane takes no more input for it.
pub const UNAPPLIED_EPOCHS_MAX: usize = 64;

/// What an epoch holds for a record, an answer or a posting besides its bytes.
pub(crate) const OVERHEAD_BYTES: usize = 96;
