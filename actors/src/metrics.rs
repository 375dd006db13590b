//! The metrics of this crate: names, labels, help.
//!
//! What is counted of commands and payments is counted once, when it is committed; see `lane/counts.rs`.

use crate::supervisor::Kind;

/// Inputs consumed by committed epochs.
pub const INPUTS: &str = "finflow_inputs_committed_total";
/// Payments that settled.
pub const SETTLED: &str = "finflow_payments_settled_total";
/// Payments that have waited for too long and were left to a human.
pub const ESCALATED: &str = "finflow_payments_requires_attention_total";
/// Wallet commands that were carried out.
pub const APPLIED: &str = "finflow_wallet_commands_applied_total";
/// Commands that were rejected, by reason.
pub const REJECTED: &str = "finflow_commands_rejected_total";
/// Commands that had come before.
pub const DUPLICATES: &str = "finflow_commands_duplicate_total";
/// Commands that were not sent to their home, and were sent on to it.
pub const FORWARDED: &str = "finflow_commands_forwarded_total";
/// Records that became dead letters, by `x-error-code`.
pub const DEAD_LETTERS: &str = "finflow_dead_letters_total";
/// Epochs by outcome (`committed`, `aborted`).
pub const EPOCHS: &str = "finflow_epochs_total";
/// Seconds from handing a transaction to the log to its outcome.
pub const COMMIT_SECONDS: &str = "finflow_commit_duration_seconds";
/// Actors restarted, by kind.
pub const RESTARTS: &str = "finflow_actor_restarts_total";
/// Whether an actor of a kind keeps dying and was given up (1), by kind.
pub const GIVEN_UP: &str = "finflow_actor_given_up";
/// Partitions halted, by partition.
pub const HALTS: &str = "finflow_partition_halts_total";
/// Partitions restored at start, by source (`directory`, `snapshot`, `journal`).
pub const RESTORED: &str = "finflow_partitions_restored_total";
/// Journal blocks applied to bring a store to its committed block.
pub const REPLAYED: &str = "finflow_restore_blocks_replayed_total";
/// Seconds that taking one snapshot took.
pub const SNAPSHOT_SECONDS: &str = "finflow_snapshot_duration_seconds";
/// Snapshots that could not be taken.
pub const SNAPSHOT_FAILURES: &str = "finflow_snapshot_failures_total";
/// Bytes that snapshots have put where they rest.
pub const SNAPSHOT_BYTES: &str = "finflow_snapshot_bytes_total";
/// Files of snapshots, by what was done with them (`put`, or `reused` where they were there).
pub const SNAPSHOT_FILES: &str = "finflow_snapshot_files_total";
/// When the newest snapshot was taken, in seconds since 1970-01-01 UTC, by partition.
pub const SNAPSHOT_TIMESTAMP: &str = "finflow_snapshot_timestamp_seconds";
/// By how many seconds the wall clock has left the monotonic one since the start.
pub const CLOCK_DRIFT_SECONDS: &str = "finflow_clock_drift_seconds";
/// The block of the newest snapshot, by partition.
pub const SNAPSHOT_BLOCK: &str = "finflow_snapshot_block";
/// Records that the lanes' producers have sent to Kafka.
pub const KAFKA_RECORDS: &str = "finflow_kafka_records_sent_total";
/// Seconds that a step of a transaction on Kafka took (`records` until they are delivered, `offsets`, `end`).
pub const KAFKA_STEP_SECONDS: &str = "finflow_kafka_transaction_step_duration_seconds";
/// Bytes of requests that the lanes' producers have sent to Kafka, compressed.
pub const KAFKA_BYTES: &str = "finflow_kafka_bytes_sent_total";
/// Whether a partition of this process is halted (1) or not (0), by partition.
pub const PARTITION_HALTED: &str = "finflow_partition_halted";
/// For how many seconds the oldest leg to another partition has waited for its answer, by partition; of at most 4,096 holds.
pub const LEG_OLDEST_SECONDS: &str = "finflow_leg_oldest_seconds";
/// For how many seconds the oldest command that is not consumed has waited, by partition; 0 where none has for 10 s.
pub const COMMAND_OLDEST_SECONDS: &str = "finflow_command_oldest_seconds";
/// That time as a part of the time for which the log keeps commands, by partition: at 1 they are lost.
pub const RETENTION_USED_RATIO: &str = "finflow_commands_retention_used_ratio";
/// Offsets between what can be read and the end of a topic, by topic and partition: what an open transaction holds back.
pub const STABLE_OFFSET_LAG: &str = "finflow_last_stable_offset_lag";
/// For how many seconds what can be read has stood still before more that is there, by topic and partition.
pub const TRANSACTION_OLDEST_SECONDS: &str = "finflow_open_transaction_seconds";

/// When the log of a partition was trimmed last, or was found to have nothing to trim, in seconds since 1970-01-01 UTC, by partition.
pub const TRIM_TIMESTAMP: &str = "finflow_trim_timestamp_seconds";
/// Attempts to trim a partition's log that something hindered.
pub const TRIM_FAILURES: &str = "finflow_trim_failures_total";
/// The first offset that is left of what is trimmed below snapshots, by topic and partition.
pub const LOG_START: &str = "finflow_log_start_offset";

/// Settings of topics with which something in them is lost sooner than the engine needs, or told with another time.
pub const TOPIC_SETTINGS_LOOSE: &str = "finflow_topic_settings_loose";
/// Records that have come to a topic after the application left it for another number of partitions, by topic.
pub const FORMER_RECORDS: &str = "finflow_former_generation_records";

/// Partitions that other processes run and this one follows.
pub const STANDBY_PARTITIONS: &str = "finflow_standby_partitions";

/// Every metric: name, labels in their order, help.
pub const CATALOGUE: [(&str, &[&str], &str); 37] = [
    (INPUTS, &[], "Inputs consumed by committed epochs"),
    (SETTLED, &[], "Payments that settled"),
    (ESCALATED, &[], "Payments that have waited for too long and were left to a human"),
    (APPLIED, &[], "Wallet commands that were carried out"),
    (REJECTED, &["reason"], "Commands that were rejected"),
    (DUPLICATES, &[], "Commands that had come before"),
    (FORWARDED, &[], "Commands that were not sent to their home, and were sent on to it"),
    (DEAD_LETTERS, &["code"], "Records that became dead letters"),
    (EPOCHS, &["outcome"], "Epochs by outcome"),
    (COMMIT_SECONDS, &[], "Seconds from handing a transaction to the log to its outcome"),
    (RESTARTS, &["kind"], "Actors restarted by their supervisor"),
    (GIVEN_UP, &["kind"], "Whether an actor keeps dying and was given up"),
    (HALTS, &["partition"], "Partitions halted by a broken invariant"),
    (RESTORED, &["source"], "Partitions restored at start"),
    (REPLAYED, &[], "Journal blocks applied to bring a store to its committed block"),
    (SNAPSHOT_SECONDS, &[], "Seconds that taking one snapshot took"),
    (SNAPSHOT_FAILURES, &[], "Snapshots that could not be taken"),
    (SNAPSHOT_BYTES, &[], "Bytes that snapshots have put where they rest"),
    (SNAPSHOT_FILES, &["how"], "Files of snapshots that were put, or reused because they were there"),
    (SNAPSHOT_TIMESTAMP, &["partition"], "When the newest snapshot was taken, in seconds since 1970-01-01 UTC"),
    (CLOCK_DRIFT_SECONDS, &[], "By how much the wall clock has left the monotonic one"),
    (SNAPSHOT_BLOCK, &["partition"], "The block of the newest snapshot"),
    (KAFKA_RECORDS, &[], "Records that the lanes' producers have sent to Kafka"),
    (KAFKA_BYTES, &[], "Bytes of requests that the lanes' producers have sent to Kafka"),
    (KAFKA_STEP_SECONDS, &["step"], "Seconds that a step of a transaction on Kafka took"),
    (STANDBY_PARTITIONS, &[], "Partitions that other processes run and this one follows"),
    (TRIM_TIMESTAMP, &["partition"], "When a log was trimmed last, or had nothing to trim, in seconds since 1970-01-01 UTC"),
    (TRIM_FAILURES, &[], "Attempts to trim a log that something hindered"),
    (LOG_START, &["partition", "topic"], "The first offset that is left of what is trimmed below snapshots"),
    (TOPIC_SETTINGS_LOOSE, &[], "Settings of topics with which something in them is lost, or told with another time"),
    (FORMER_RECORDS, &["topic"], "Records that have come to a topic after the application left it"),
    (PARTITION_HALTED, &["partition"], "Whether a partition of this process is halted"),
    (LEG_OLDEST_SECONDS, &["partition"], "For how long the oldest leg to another partition has waited for its answer"),
    (COMMAND_OLDEST_SECONDS, &["partition"], "For how long the oldest command that is not consumed has waited"),
    (RETENTION_USED_RATIO, &["partition"], "What part of the time for which commands are kept the oldest has waited"),
    (STABLE_OFFSET_LAG, &["partition", "topic"], "Offsets that an open transaction holds back"),
    (TRANSACTION_OLDEST_SECONDS, &["partition", "topic"], "For how long an open transaction has held back what is behind it"),
];

/// The halts of a partition.
pub(crate) fn halts(partition: u32) -> ::metrics::Counter {
    ::metrics::counter!(HALTS, "partition" => partition.to_string())
}

/// Files of snapshots: those that were `put`, or `reused`.
pub(crate) fn snapshot_files(how: &'static str) -> ::metrics::Counter {
    ::metrics::counter!(SNAPSHOT_FILES, "how" => how)
}

/// Lets what is seldom counted begin at 0: a count that appears with its first step shows no step.
pub(crate) fn begin(partitions: u32) {
    (0..partitions).for_each(|partition| drop(halts(partition)));
    Kind::ALL.iter().for_each(|kind| drop(::metrics::counter!(RESTARTS, "kind" => kind.as_str())));
    ["directory", "snapshot", "journal"].iter().for_each(|source| drop(::metrics::counter!(RESTORED, "source" => *source)));
    ["put", "reused"].into_iter().for_each(|how| drop(snapshot_files(how)));
    drop((::metrics::counter!(REPLAYED), ::metrics::counter!(SNAPSHOT_FAILURES), ::metrics::counter!(SNAPSHOT_BYTES)));
    drop(::metrics::counter!(TRIM_FAILURES));
}
