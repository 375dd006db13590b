//! The actors: what runs the engine - logs, lanes, partitions and the node that supervises them. Nothing here decides about money.

pub use self::bucket::{Bucket, BucketSettings, Credentials};
pub use self::clock::{Clock, Reading};
pub use self::committed::Restoring;
pub use self::node::{
    Adopted, Awaited, Checked, Expired, Foreign, JournalEnd, MoveError, Node, PartitionStatus, Publish, ReadError, Rescaled,
    ResumeError, STOP_MAX, Source, StartError, adopt, belongs, bring, discard, rescale,
};
pub use self::settings::{Housekeeping, Settings, SnapshotPlace};
pub use self::snapshots::SnapshotError;
pub use self::watched::{HeldBack, Watched};

mod bucket;
mod checking;
mod clock;
mod committed;
pub mod descriptors;
mod finding;
mod housekeeper;
mod lane;
pub mod log;
pub mod metrics;
mod naming;
mod node;
mod partition;
pub mod readiness;
mod restoring;
mod rota;
mod settings;
mod snapshots;
pub mod socket;
mod space;
mod standby;
mod stepper;
mod supervisor;
mod timers;
mod trimmer;
mod waiters;
mod watched;
