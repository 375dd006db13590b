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

/// Every metric: name and help.
pub const CATALOGUE: [(&str, &str); 5] = [
    (INPUTS, "Inputs consumed by committed epochs"),
    (EPOCHS, "Epochs by outcome"),
    (COMMIT_SECONDS, "Seconds from handing a transaction to the log to its outcome"),
    (RESTARTS, "Actors restarted by their supervisor"),
    (HALTS, "Partitions halted by a broken invariant"),
];
