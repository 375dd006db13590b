//! The engine in one thread: nodes, log, stores and time under the control of a seed, and an auditor who counts again.
//!
//! A simulated node drives the very same lane and partitions as the actors do; only what happens between two steps is decided
//! here. A seed that fails, fails again.

pub use self::auditor::{Audit, audit};
pub use self::counts::Counts;
pub use self::fault::{Fault, Kind};
pub use self::node::Node;
pub use self::planted::Planted;
pub use self::seeds::{Seeds, run_caught, run_seeds};
pub use self::world::{Outcome, run_seed};

mod auditor;
mod check;
mod counts;
mod fault;
mod node;
mod planted;
mod seeds;
mod steps;
mod workload;
mod world;
