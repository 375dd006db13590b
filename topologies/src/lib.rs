//! The topologies: topics and formats, the partition logic, the epoch logic of a lane, and the simulator that proves them.
//!
//! Everything here is synchronous and deterministic: time, ids and configuration arrive as arguments, the outside world leaves
//! as effects.

pub use self::driver::TopologyDriver;
pub use self::halt::Halt;
pub use self::lane::Lane;
pub use self::partition::{Epoch, Input, OpenEpoch, Outcome, Partition, Rules, Verdict, Verdicts, Work};
pub use self::topics::Topic;

pub mod driver;
mod failure;
pub mod graph;
mod halt;
pub mod lane;
pub mod log;
pub mod partition;
pub mod replay;
pub mod rescale;
pub mod restore;
pub mod simulation;
pub mod sizes;
pub mod topics;
pub mod trim;
pub mod wire;
