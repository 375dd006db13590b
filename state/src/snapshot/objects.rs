//! Where snapshots rest: named objects, and what has to be possible with them. A directory is one such place; an object store is
//! another, which whoever may use a network brings along.
//!
//! An object is whole or not there, what was written is seen by every listing that begins later, and the time of an object is that
//! of the last time it was put, by a clock that is at most [`CLOCK_SKEW_MAX`] from that of any process. Local file systems and S3
//! give all of that: S3 is strongly consistent, and refuses whoever signs with a clock that is farther off.

use std::fmt::Debug;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Error;

/// How far the clock that gives objects their time may be from that of a process.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(15 * 60);

/// Named objects. Names are relative paths of letters, digits, `.`, `-` and `/`.
///
/// Every call may take as long as a disk or a network does, and is bounded by whoever implements it.
pub trait Objects: Debug + Send + Sync {
    /// Where they are, as an operator names it.
    fn place(&self) -> String;

    /// Every object in the folder of this name and those below it; all of them where the name is empty. A folder that is not there
    /// has none.
    fn list(&self, folder: &str) -> Result<Vec<Found>, Error>;

    /// Reads an object from its beginning.
    ///
    /// # Errors
    /// [`Error::Missing`] where it is not there.
    fn get(&self, name: &str) -> Result<Box<dyn Read + '_>, Error>;

    /// Keeps the file `from` as this object. One of that name holds the same, is kept or replaced, and counts as put now.
    fn put(&self, name: &str, from: &Path) -> Result<(), Error>;

    /// Writes an object that must not be there yet; `false` where it is. Of several who do so at once, one succeeds.
    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, Error>;

    /// Gives an object another name, at which it counts as put now. What had that name is replaced.
    fn rename(&self, name: &str, to: &str) -> Result<(), Error>;

    /// Removes an object, if it is there.
    fn delete(&self, name: &str) -> Result<(), Error>;
}

/// An object that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// When it was last put.
    pub put_at: SystemTime,
}
