//! The metrics of this crate: names, labels, help.

/// Inputs consumed by committed epochs.
pub const INPUTS: &str = "finflow_inputs_committed_total";
/// Epochs by outcome (`committed`, `aborted`).
pub const EPOCHS: &str = "finflow_epochs_total";
/// Seconds from handing a transaction to the log to its outcome.
pub const COMMIT_SECONDS: &str = "finflow_commit_duration_seconds";
/// Actors restarted, by kind.
pub const RESTARTS: &str = "finflow_actor_restarts_total";
/// Whether an actor of a kind keeps dying and was given up (1), by kind.
pub const GIVEN_UP: &str = "finflow_actor_given_up";
/// Partitions halted.
pub const HALTS: &str = "finflow_partition_halts_total";
/// Partitions restored at start, by source (`directory`, `snapshot`, `journal`).
pub const RESTORED: &str = "finflow_partitions_restored_total";
/// Journal blocks applied to bring a store to its committed block.
pub const REPLAYED: &str = "finflow_restore_blocks_replayed_total";
/// Seconds that taking one snapshot took.
pub const SNAPSHOT_SECONDS: &str = "finflow_snapshot_duration_seconds";
/// Snapshots that could not be taken.
pub const SNAPSHOT_FAILURES: &str = "finflow_snapshot_failures_total";
/// When the newest snapshot was taken, in seconds since 1970-01-01 UTC, by partition.
pub const SNAPSHOT_TIMESTAMP: &str = "finflow_snapshot_timestamp_seconds";
/// By how many seconds the wall clock has left the monotonic one since the start.
pub const CLOCK_DRIFT_SECONDS: &str = "finflow_clock_drift_seconds";
/// The block of the newest snapshot, by partition.
pub const SNAPSHOT_BLOCK: &str = "finflow_snapshot_block";
/// Records that the lanes' producers have sent to Kafka.
pub const KAFKA_RECORDS: &str = "finflow_kafka_records_sent_total";
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

/// Records that have come to a topic after the application left it for another number of partitions, by topic.
pub const FORMER_RECORDS: &str = "finflow_former_generation_records";

/// Partitions that other processes run and this one follows.
pub const STANDBY_PARTITIONS: &str = "finflow_standby_partitions";

/// Every metric: name and help.
pub const CATALOGUE: [(&str, &str); 23] = [
    (INPUTS, "Inputs consumed by committed epochs"),
    (EPOCHS, "Epochs by outcome"),
    (COMMIT_SECONDS, "Seconds from handing a transaction to the log to its outcome"),
    (RESTARTS, "Actors restarted by their supervisor"),
    (GIVEN_UP, "Whether an actor keeps dying and was given up"),
    (HALTS, "Partitions halted by a broken invariant"),
    (RESTORED, "Partitions restored at start"),
    (REPLAYED, "Journal blocks applied to bring a store to its committed block"),
    (SNAPSHOT_SECONDS, "Seconds that taking one snapshot took"),
    (SNAPSHOT_FAILURES, "Snapshots that could not be taken"),
    (SNAPSHOT_TIMESTAMP, "When the newest snapshot was taken, in seconds since 1970-01-01 UTC"),
    (CLOCK_DRIFT_SECONDS, "By how much the wall clock has left the monotonic one"),
    (SNAPSHOT_BLOCK, "The block of the newest snapshot"),
    (KAFKA_RECORDS, "Records that the lanes' producers have sent to Kafka"),
    (KAFKA_BYTES, "Bytes of requests that the lanes' producers have sent to Kafka"),
    (STANDBY_PARTITIONS, "Partitions that other processes run and this one follows"),
    (FORMER_RECORDS, "Records that have come to a topic after the application left it"),
    (PARTITION_HALTED, "Whether a partition of this process is halted"),
    (LEG_OLDEST_SECONDS, "For how long the oldest leg to another partition has waited for its answer"),
    (COMMAND_OLDEST_SECONDS, "For how long the oldest command that is not consumed has waited"),
    (RETENTION_USED_RATIO, "How much of the time for which commands are kept has passed for the oldest that waits"),
    (STABLE_OFFSET_LAG, "Offsets that an open transaction holds back"),
    (TRANSACTION_OLDEST_SECONDS, "For how long an open transaction has held back what is behind it"),
];
