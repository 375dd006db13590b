//! The metrics of this crate: names, labels, help.

/// Blocks that were written to a store.
pub const STORE_BLOCKS_APPLIED: &str = "finflow_store_blocks_applied_total";
/// Seconds that one write of blocks took.
pub const STORE_APPLY_SECONDS: &str = "finflow_store_apply_duration_seconds";

/// Every metric: name, labels in their order, help.
pub const CATALOGUE: [(&str, &[&str], &str); 2] = [
    (STORE_BLOCKS_APPLIED, &[], "Blocks written to a store"),
    (STORE_APPLY_SECONDS, &[], "Seconds that one write of blocks to a store took"),
];
