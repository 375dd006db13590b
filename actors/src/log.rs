//! The logs that the engine runs on.

pub mod embedded;
