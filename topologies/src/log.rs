//! The log: the only truth. Partitioned, ordered, durable, read-committed, with atomic commits over many partitions.
//!
//! This is the seam between the engine and what stores its records: `embedded` and `kafka` in the actors' crate,
//! `simulated` here. Calls may block and are made from threads that may; nothing in the partition logic calls them.

use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use finflow_state::{Header, Stamp};

use crate::topics::Topic;

pub mod conformance;
pub mod simulated;

/// A record as it was committed.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition; offsets grow but may have gaps.
    pub offset: u64,
    /// When the log took it (`LogAppendTime`), or in a topic that keeps it its own time, in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// The record key, usually a wallet id.
    pub key: Option<Bytes>,
    /// The record value.
    pub value: Option<Bytes>,
    /// The record headers.
    pub headers: Headers,
}

/// A record on its way into the log.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Outgoing {
    /// The record key.
    pub key: Option<Bytes>,
    /// The record value.
    pub value: Option<Bytes>,
    /// The record headers.
    pub headers: Headers,
    /// Its own time, in milliseconds since 1970-01-01 UTC; only a topic that [keeps](Topic::keeps_time) it looks at that, and takes
    /// its own time for a record that brings none.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// Key, value and headers together, in bytes.
    pub fn bytes(&self) -> usize {
        bytes(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

impl Outgoing {
    /// Key, value and headers together, in bytes.
    pub fn bytes(&self) -> usize {
        bytes(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

/// Key, value and headers together, in bytes.
pub(crate) fn bytes(key: Option<&Bytes>, value: Option<&Bytes>, headers: &Headers) -> usize {
    let length = |bytes: Option<&Bytes>| bytes.map_or(0, Bytes::len);
    length(key).saturating_add(length(value)).saturating_add(headers.as_bytes().len())
}

/// Record headers in one allocation: repeated (name length u16, name, value length u32, value), big-endian.
///
/// Names may repeat, as in Kafka; the last one wins in [`Headers::get`].
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers(Bytes);

impl Headers {
    /// Headers from name and value pairs. A name longer than 65,535 bytes or a value longer than `u32` is cut.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Headers {
        let mut builder = HeadersBuilder::default();
        for (name, value) in pairs {
            builder.push(name, value);
        }
        builder.build()
    }

    /// The packed form, as stored.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Headers from their packed form; `None` where the bytes are not well formed.
    pub fn from_bytes(bytes: Bytes) -> Option<Headers> {
        let walked: usize = HeadersIter(&bytes).map(|(name, value)| name.len() + value.len() + 6).sum();
        (walked == bytes.len()).then_some(Headers(bytes))
    }

    /// Each header in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        HeadersIter(&self.0)
    }

    /// The value of the last header called `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().filter(|(found, _)| *found == name).last().map(|(_, value)| value)
    }

    /// Whether there is no header.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Packs headers one after the other.
#[derive(Debug, Default)]
pub struct HeadersBuilder(BytesMut);

impl HeadersBuilder {
    /// Room for so many bytes.
    pub fn with_capacity(bytes: usize) -> HeadersBuilder {
        HeadersBuilder(BytesMut::with_capacity(bytes))
    }

    /// Appends one header. A name longer than 65,535 bytes or a value longer than `u32` is cut, a name between two characters.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let name = name.get(..name.floor_char_boundary(usize::from(u16::MAX))).unwrap_or_default().as_bytes();
        let value = value.get(..u32::MAX as usize).unwrap_or(value);
        self.0.reserve(name.len().saturating_add(value.len()).saturating_add(6));
        self.0.put_u16(name.len() as u16);
        self.0.put_slice(name);
        self.0.put_u32(value.len() as u32);
        self.0.put_slice(value);
    }

    /// The packed headers.
    pub fn build(self) -> Headers {
        Headers(self.0.freeze())
    }
}

struct HeadersIter<'a>(&'a [u8]);

impl<'a> Iterator for HeadersIter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        self.0 = rest;
        Some((std::str::from_utf8(name).ok()?, value))
    }
}

/// What a fetch found.
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    /// Committed records from the asked offset on, in order.
    pub records: Vec<Record>,
    /// The offset to ask for next; past the last record, or past a gap.
    pub next: u64,
}

/// The records of one commit for one partition of one topic.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
    /// Its records, in order.
    pub records: Vec<Outgoing>,
}

/// How far a partition's input is consumed, as the log keeps it beside the offset (`commands[p]` in Kafka, with block number
/// and stamp in the metadata string).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: u32,
    /// The next offset of `commands` to read.
    pub commands: u64,
    /// The number of the partition's last journal block.
    pub block: u64,
    /// The epoch stamp of that block.
    pub stamp: Stamp,
}

impl Position {
    /// What a block of a partition's journal says of it, as the position that names it does.
    pub fn of(header: &Header) -> Position {
        let Header { partition, number, positions, stamp, .. } = header;
        Position { partition: *partition, commands: positions.commands, block: *number, stamp: stamp.clone() }
    }
}

/// The right to commit for a partition, as [`Session::claim`] gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The assignment epoch. Of all claims of a partition only the latest is good, also among those of one session: what was
    /// decided under an older one may rest on what somebody else has changed since.
    pub epoch: u64,
    /// The partition's committed position, read when every older claim was void; `None` = none yet.
    pub position: Option<Position>,
}

/// A partition that a transaction touches: the epoch of the claim under which it was decided, and its position from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// [`Claim::epoch`].
    pub claim: u64,
    /// The new position, or the committed one once more, which confirms that the claim is still good.
    pub position: Position,
}

/// Everything that one epoch makes durable, at once or not at all.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// The epoch's stamp; the same in every new position.
    pub stamp: Stamp,
    /// Records by topic and partition; each pair stands here at most once.
    pub batches: Vec<Batch>,
    /// The position of every touched partition. Never empty: an empty list would fence nothing.
    pub positions: Vec<Claimed>,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// Durable and visible.
    Committed,
    /// Nothing of it is or will be visible, and why; the session can go on.
    Aborted(Error),
    /// Unknown, and why; [`Session::resolve`] must settle it before the session commits again.
    InDoubt(Error),
    /// The session, or one of the claims, has been replaced by a newer one; nothing of it is or will be visible. What the lane
    /// has decided rests on what it does not own: it has to begin again with a new session.
    Fenced,
}

/// How a doubt was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// The doubtful epoch is durable and visible.
    Committed,
    /// Nothing of it is or will be visible.
    Aborted,
}

/// Why the log did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The offset is outside what the log holds.
    #[error("offset {asked} of {topic}-{partition} is outside {start}..{end}")]
    OutOfRange {
        /// The topic.
        topic: Topic,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        asked: u64,
        /// The first offset held.
        start: u64,
        /// One past the last committed offset.
        end: u64,
    },
    /// There is no such partition.
    #[error("{topic} has no partition {partition}")]
    UnknownPartition {
        /// The topic.
        topic: Topic,
        /// The partition.
        partition: u32,
    },
    /// A record that its topic does not take.
    #[error("a record of {bytes} bytes; at most {max} are taken")]
    TooLarge {
        /// Key, value and headers together.
        bytes: usize,
        /// What is taken.
        max: usize,
    },
    /// Another session has taken over.
    #[error("fenced by a newer session")]
    Fenced,
    /// It cannot answer now; asking again later may help.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// It cannot until somebody has mended something: a disk, a certificate, a topic that nobody has made. Who runs goes on asking; who
    /// only asks, or begins, is told.
    #[error("{0}")]
    Lasting(String),
    /// A right is missing, and which, or a password is not taken: put right while a process runs, it has what it waits for; who only
    /// asks, or begins, waits for nobody.
    #[error("{0}")]
    Forbidden(String),
    /// It does not let this process in, or not do what it has to: asking again does not help until somebody has changed that.
    #[error("{0}")]
    Refused(String),
    /// Another process holds it.
    #[error("the log is in use by another process: {0}")]
    Busy(String),
    /// What it holds is damaged; asking again does not help.
    #[error("the log is corrupt: {0}")]
    Corrupt(String),
}

impl Error {
    /// Whether whoever runs asks again later: nothing is wrong with what it has asked, and nobody has taken its place.
    pub fn is_waited_for(&self) -> bool {
        matches!(self, Error::Unavailable(_) | Error::Lasting(_) | Error::Forbidden(_) | Error::Busy(_))
    }
}

/// A log. Cheap to share; every method may block.
pub trait Log: Send + Sync {
    /// The partition count of every topic.
    fn partitions(&self) -> u32;

    /// Appends records to one partition, durable when it returns, and gives the offset of the first.
    ///
    /// This is a producer's way in (commands, tests); the engine writes only through [`Session::commit`].
    fn append(&self, topic: Topic, partition: u32, records: Vec<Outgoing>) -> Result<u64, Error>;

    /// Committed records of a partition from offset `from` on, about `bytes_max` bytes of them but at least one if there is one.
    ///
    /// At the end it gives none; beyond the end, or before the start, [`Error::OutOfRange`].
    fn fetch(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, Error>;

    /// The offsets held: the first one, and one past the last committed one.
    fn range(&self, topic: Topic, partition: u32) -> Result<Range<u64>, Error>;

    /// One past the last record that was written, those of open transactions included; where none can be open, the end of the range.
    fn written(&self, topic: Topic, partition: u32) -> Result<u64, Error> {
        Ok(self.range(topic, partition)?.end)
    }

    /// Opens the session of the lane called `lane` and fences every earlier session of that name.
    fn session(&self, lane: &str) -> Result<Box<dyn Session>, Error>;

    /// Forgets the records of a partition below offset `before`, wholly or in part.
    fn trim(&self, topic: Topic, partition: u32, before: u64) -> Result<(), Error>;
}

/// One lane's right to commit for the partitions it claims.
pub trait Session: Send {
    /// Takes over a partition, voids every earlier claim of it, this session's own included, and then reads its position.
    ///
    /// [`Error::Unavailable`] where somebody else decides who may claim what and has not given it to this session: it may come.
    fn claim(&mut self, partition: u32) -> Result<Claim, Error>;

    /// Gives a partition back.
    fn release(&mut self, partition: u32);

    /// Makes an epoch durable. Every position must be under this session's latest claim of it, else [`Commit::Fenced`].
    fn commit(&mut self, transaction: Transaction) -> Commit;

    /// Settles the doubt about the epoch with this stamp, which was the session's last commit.
    ///
    /// What [is waited for](Error::is_waited_for) means ask again. [`Error::Fenced`]: none of the claims it was made under is good any
    /// more, so that the positions cannot tell; the session is over.
    fn resolve(&mut self, stamp: &Stamp) -> Result<Resolution, Error>;
}

/// Records are about people and headers may hold secrets: what is printed is where and how long, never what.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({}, ", self.offset)?;
        sizes(f, self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outgoing(")?;
        sizes(f, self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

fn sizes(f: &mut fmt::Formatter<'_>, key: Option<&Bytes>, value: Option<&Bytes>, headers: &Headers) -> fmt::Result {
    let length = |bytes: Option<&Bytes>| bytes.map_or("no".to_owned(), |bytes| format!("{} bytes of", bytes.len()));
    write!(f, "{} key, {} value, {headers:?})", length(key), length(value))
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Commit::Committed => f.write_str("committed"),
            Commit::Aborted(cause) => write!(f, "aborted: {cause}"),
            Commit::InDoubt(cause) => write!(f, "in doubt: {cause}"),
            Commit::Fenced => f.write_str("fenced"),
        }
    }
}
