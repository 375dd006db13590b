//! State: the tables of a partition, the overlays of its uncommitted epochs, its stores, its journal blocks and its snapshots.
//!
//! The journal is the state of record; a store is a checkpointed view of it, behind or equal, never ahead. Nothing here knows
//! about Kafka, actors or HTTP.

pub use self::dump::{Dump, Tally};
pub use self::journal::{BlockError, Broken, EncodedBlock, Generation, Head, Header, Positions, Stamp};
pub use self::overlay::{Changes, Overlay};
pub use self::snapshot::Snapshots;
pub use self::store::{MemoryStore, RocksStore, Shared, Store, Verification};
pub use self::tables::{Accounts, End, Holds, Origin, Origins, Payments, Table, Tag, TimerKind, Timers, Wallets};

pub mod codec;
pub mod dump;
pub mod journal;
pub mod metrics;
pub mod overlay;
mod sealed;
pub mod snapshot;
pub mod store;
pub mod tables;
