//! The journal: what a partition's state of record is made of. One block per epoch in which the partition consumed input.
//!
//! Block numbers run without a gap and epoch stamps form a chain; images make replay idempotent.

pub use self::block::{BlockError, EncodedBlock};
pub use self::head::{Broken, Head};
pub use self::header::{Generation, Header, Positions, Stamp};

pub(crate) use self::block::{Rows, encode_header, write_row};

mod block;
mod head;
mod header;
