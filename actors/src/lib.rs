//! The actors: what runs the engine - logs, lanes, partitions and the node that supervises them. Nothing here decides about money.

pub use self::node::{Checked, Node, PartitionStatus, Publish, ReadError, Settings, StartError};

mod clock;
mod committed;
mod lane;
pub mod log;
pub mod metrics;
mod node;
mod partition;
pub mod socket;
mod supervisor;
