//! The engine in one thread: nodes, log, stores and time under the control of a seed, and an auditor who counts again.
//!
//! A simulated node drives the very same lane and partitions as the actors do; only what happens between two steps is decided
//! here. A seed that fails, fails again.

pub use self::auditor::{Audit, audit};
pub use self::node::Node;
pub use self::planted::Planted;
pub use self::world::{Outcome, run_seed};

mod auditor;
mod check;
mod node;
mod planted;
mod steps;
mod workload;
mod world;
