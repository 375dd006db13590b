//! The metrics of this crate: names, labels, help.

/// Inputs consumed by committed epochs.
pub const INPUTS: &str = "finflow_inputs_committed_total";
/// Epochs by outcome (`committed`, `aborted`).
pub const EPOCHS: &str = "finflow_epochs_total";
/// Seconds from handing a transaction to the log to its outcome.
pub const COMMIT_SECONDS: &str = "finflow_commit_duration_seconds";
/// Actors restarted, by kind.
pub const RESTARTS: &str = "finflow_actor_restarts_total";
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

/// Records that have come to a topic after the application left it for another number of partitions, by topic.
pub const FORMER_RECORDS: &str = "finflow_former_generation_records";

/// Partitions that other processes run and this one follows.
pub const STANDBY_PARTITIONS: &str = "finflow_standby_partitions";

/// Every metric: name and help.
pub const CATALOGUE: [(&str, &str); 16] = [
    (INPUTS, "Inputs consumed by committed epochs"),
    (EPOCHS, "Epochs by outcome"),
    (COMMIT_SECONDS, "Seconds from handing a transaction to the log to its outcome"),
    (RESTARTS, "Actors restarted by their supervisor"),
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
];
