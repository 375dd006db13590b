//! How a running node is asked: by other commands of its directory through a Unix socket, because the directory has one owner, and by
//! other processes and their commands through a [`door`], which opens to who knows the application's secret.
//!
//! One request, one reply. Only the owner of the directory may connect to the socket (mode 0600). What a partition of another process
//! has to answer is asked there ([`route`]). Both ends are of one version: nothing here is stored.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use finflow_ledger::{Coordinates, PaymentId, WalletId};
use finflow_state::{Payments, Wallets};
use finflow_topologies::{Topic, log};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tracing::{debug, warn};

pub use self::client::Client;
pub use self::door::Door;
use self::door::Standing;
use self::frames::{FRAME_BYTES_MAX, Read, Sent, Wire, receive, row, send};
pub(crate) use self::route::Peers;
use crate::node::{Awaited, Checked, Expired, JournalEnd, Node, PartitionStatus, Publish, ReadError, ResumeError};
use crate::snapshots::SnapshotError;

mod client;
mod door;
mod frames;
mod route;

/// Wallets in one answer, at most.
const WALLETS_MAX: usize = 10_000;
/// How long a client waits for a reply beyond what it asked for.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long reading a partition and its snapshots, or copying it, may take.
const READ_WHOLE_TIMEOUT: Duration = Duration::from_secs(600);
/// How long commands may take to be taken: longer than the log itself tries, which says then why they were not.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(45);
/// How long to wait where a connection cannot be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a node does not answer as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It cannot.
    #[error("{0}")]
    Failed(String),
    /// Nobody can at present; asking again helps.
    #[error("{0}")]
    Unavailable(String),
    /// Not with the service's rights or settings: somebody has to change them.
    #[error("{0}")]
    Refused(String),
}

impl From<Error> for String {
    fn from(error: Error) -> String {
        error.to_string()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Request {
    Count,
    Publish(Vec<Sent>),
    Range(String, u32),
    Fetch(String, u32, u64, usize),
    Changed(u64),
    /// Offsets of `commands` by partition, with the records that answer them, and how long to wait.
    Answered(Vec<(u32, u64, Option<[u8; 16]>)>, u64),
    Wallet(String),
    Wallets(u32, Option<String>, usize),
    Payment([u8; 16]),
    Payments(Vec<[u8; 16]>),
    Status,
    /// What of disk and clock does not work in this very process.
    Faults,
    Idle(u64),
    Verify(u32, bool),
    Snapshot(u32),
    Resume(u32),
    /// What the end of a journal says of a partition whose position is lost.
    JournalEnd(u32),
    ResumeFromJournal(u32),
    Leave,
    // What is asked is told by its place here: what comes later stands behind, so that a service of another version does not take it for
    // something else.
    /// The commands that the log has let go of before they were consumed.
    Expired(u32),
    /// Where the partition is to go on.
    ResumePastExpired(u32, u64),
}

#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Failed(String),
    /// The partition runs on another process, or on none at present.
    Elsewhere(u32),
    Done,
    Count(u32),
    Places(Vec<(u32, u64)>),
    Range(u64, u64),
    Records(Vec<Read>, u64),
    Rows(Vec<(Vec<u8>, Vec<u8>)>),
    Status(Vec<PartitionStatus>),
    Faults(Vec<(String, String)>),
    Idle(bool),
    Checked(Box<Checked>),
    Block(Option<u64>),
    JournalEnd(JournalEnd),
    Expired(Expired),
    /// Nobody can at present.
    Unavailable(String),
    /// Not with the service's rights or settings.
    Refused(String),
}

/// Where the socket of a data directory is.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("finflow.sock")
}

/// Whether a service can have a socket in this directory, and if not why.
pub fn check(data_dir: &Path) -> Result<(), String> {
    let path = path(data_dir);
    let made = std::os::unix::net::SocketAddr::from_pathname(&path);
    made.map(|_| ())
        .map_err(|error| format!("--data-dir: its socket {} cannot be had: {error}; a shorter path can", path.display()))
}

/// Answers requests until the task is dropped. The node must own the directory already: a socket found there is a dead one's.
pub fn serve(node: Node, data_dir: &Path) -> std::io::Result<tokio::task::JoinHandle<()>> {
    let path = path(data_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(converse(node.clone(), Box::new(stream), Standing::Owner, None));
                }
                Err(cause) => {
                    warn!(%cause, "cannot accept on the socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }))
}

/// Answers who is connected, for as long as it asks: where others may come, within `idle_max`.
async fn converse(node: Node, mut stream: Box<dyn Wire>, standing: Standing, idle_max: Option<Duration>) {
    while let Ok(Some(request)) = timely(idle_max, receive::<Request>(&mut *stream)).await {
        let is_leave = matches!(request, Request::Leave);
        let reply = match standing {
            Standing::Owner => route::anywhere(&node, request).await,
            Standing::Guest if request.is_owners() => Reply::Failed("this is asked on the machine where it runs".to_owned()),
            Standing::Guest => route::anywhere(&node, request).await,
            // Who asks on behalf of others has found this node to be the one.
            Standing::Peer if request.is_peers() => here(&node, request).await,
            Standing::Peer => Reply::Failed("no process asks another one this".to_owned()),
        };
        let is_sent = timely(idle_max, send(&mut *stream, &reply)).await;
        // Whoever was refused has left a service that goes on.
        if is_leave && matches!(reply, Reply::Idle(_)) {
            node.note_gone();
        }
        if let Err(cause) = is_sent {
            debug!(%cause, "a client has gone");
            return;
        }
    }
}

async fn timely<T>(within: Option<Duration>, work: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    match within {
        Some(within) => tokio::time::timeout(within, work).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())),
        None => work.await,
    }
}

impl Request {
    /// Whether only the owner of the data directory may ask this.
    fn is_owners(&self) -> bool {
        matches!(self, Request::Leave)
    }

    /// Whether processes ask each other this.
    fn is_peers(&self) -> bool {
        use Request::{Expired, JournalEnd, Payment, Payments, Status, Verify, Wallet, Wallets};
        use Request::{Resume, ResumeFromJournal, ResumePastExpired, Snapshot};
        let is_read = matches!(self, Wallet(_) | Wallets(..) | Payment(_) | Payments(_) | Status | Verify(..));
        let is_halts = matches!(self, JournalEnd(_) | Expired(_) | Resume(_) | ResumeFromJournal(_) | ResumePastExpired(..));
        is_read || is_halts || matches!(self, Snapshot(_))
    }

    /// How long its answer may take: some read all of a partition.
    fn answered_within(&self) -> Duration {
        match self {
            Request::Verify(..) | Request::Snapshot(_) => READ_WHOLE_TIMEOUT,
            Request::Publish(_) => PUBLISH_TIMEOUT,
            _ => REPLY_TIMEOUT,
        }
    }
}

/// What this node itself replies.
async fn here(node: &Node, request: Request) -> Reply {
    answer(node, request).await.unwrap_or_else(|refusal| refusal)
}

async fn answer(node: &Node, request: Request) -> Result<Reply, Reply> {
    let topic = |word: &str| Topic::from_word(word).ok_or_else(|| failed(format!("there is no topic {word}")));
    Ok(match request {
        Request::Count => Reply::Count(node.partitions_count()),
        Request::Publish(records) => {
            let records = records.into_iter().map(Publish::try_from).collect::<Result<Vec<_>, _>>().map_err(failed)?;
            let places = node.publish(records).await?;
            Reply::Places(places.into_iter().map(|at| (at.partition, at.offset)).collect())
        }
        Request::Range(word, partition) => {
            let topic = topic(&word)?;
            let range = blocking(node, move |node| node.range(topic, partition)).await?;
            Reply::Range(range.start, range.end)
        }
        Request::Fetch(word, partition, from, bytes_max) => {
            let (topic, bytes_max) = (topic(&word)?, bytes_max.min(FRAME_BYTES_MAX / 8));
            let fetched = blocking(node, move |node| node.fetch(topic, partition, from, bytes_max)).await?;
            Reply::Records(fetched.records.into_iter().map(Read::from).collect(), fetched.next)
        }
        Request::Changed(millis) => {
            node.changed(Duration::from_millis(millis)).await;
            Reply::Done
        }
        Request::Answered(awaited, millis) => {
            let awaited: Vec<_> = awaited.into_iter().map(awaited_from).collect();
            node.answered(&awaited, Duration::from_millis(millis)).await;
            Reply::Done
        }
        Request::Wallet(id) => {
            let id = WalletId::parse(&id).ok_or_else(|| failed("not a wallet id"))?;
            Reply::Rows(node.wallet(&id)?.iter().map(|wallet| row::<Wallets>(wallet.id(), wallet)).collect())
        }
        Request::Wallets(partition, after, limit) => {
            let after = after.as_deref().and_then(WalletId::parse);
            let wallets = node.wallets(partition, after.as_ref(), limit.min(WALLETS_MAX))?;
            Reply::Rows(wallets.iter().map(|wallet| row::<Wallets>(wallet.id(), wallet)).collect())
        }
        Request::Payment(id) => {
            let payment = node.payment(PaymentId::from_bytes(id))?;
            Reply::Rows(payment.iter().map(|payment| row::<Payments>(&payment.id, payment)).collect())
        }
        Request::Payments(ids) => {
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                found.extend(node.payment(PaymentId::from_bytes(id))?);
            }
            Reply::Rows(found.iter().map(|payment| row::<Payments>(&payment.id, payment)).collect())
        }
        Request::Status => Reply::Status(blocking(node, |node| Ok::<_, log::Error>(node.status())).await?),
        Request::Faults => Reply::Faults(node.faults()),
        Request::Idle(millis) => Reply::Idle(node.idle(Duration::from_millis(millis)).await),
        Request::Verify(partition, snapshots) => Reply::Checked(Box::new(node.check_one(partition, snapshots).await?)),
        Request::Snapshot(partition) => match node.snapshot_one(partition).await {
            Err(SnapshotError::Elsewhere(partition)) => Reply::Elsewhere(partition),
            taken => Reply::Block(taken.map_err(failed)?),
        },
        Request::Resume(partition) => {
            node.resume(partition)?;
            Reply::Done
        }
        Request::JournalEnd(partition) => Reply::JournalEnd(blocking(node, move |node| node.journal_end(partition)).await?),
        Request::Expired(partition) => Reply::Expired(blocking(node, move |node| node.expired(partition)).await?),
        Request::ResumePastExpired(partition, to) => {
            blocking(node, move |node| node.resume_past_expired(partition, to)).await?;
            Reply::Done
        }
        Request::ResumeFromJournal(partition) => {
            node.resume_from_journal(partition)?;
            Reply::Done
        }
        Request::Leave => Reply::Idle(node.leave().await.map_err(failed)?),
    })
}

fn awaited_from((partition, offset, record): (u32, u64, Option<[u8; 16]>)) -> Awaited {
    Awaited { at: Coordinates { partition, offset }, record: record.map(PaymentId::from_bytes) }
}

/// A call to the log, which may wait for brokers, away from the threads that run the engine.
async fn blocking<T: Send + 'static, E: Into<Reply> + Send + 'static>(
    node: &Node,
    ask: impl FnOnce(&Node) -> Result<T, E> + Send + 'static,
) -> Result<T, Reply> {
    let node = node.clone();
    tokio::task::spawn_blocking(move || ask(&node)).await.map_err(failed)?.map_err(E::into)
}

fn failed(error: impl std::fmt::Display) -> Reply {
    Reply::Failed(error.to_string())
}

impl From<log::Error> for Reply {
    fn from(error: log::Error) -> Reply {
        match error {
            log::Error::Unavailable(_) => Reply::Unavailable(error.to_string()),
            log::Error::Refused(cause) | log::Error::Forbidden(cause) => Reply::Refused(cause),
            other => failed(other),
        }
    }
}

impl From<ReadError> for Reply {
    fn from(error: ReadError) -> Reply {
        match error {
            ReadError::Elsewhere(partition) => Reply::Elsewhere(partition),
            ReadError::Store(_) | ReadError::Halted(..) => failed(error),
        }
    }
}

impl From<ResumeError> for Reply {
    fn from(error: ResumeError) -> Reply {
        match error {
            ResumeError::Read(error) => error.into(),
            ResumeError::Log(error) => error.into(),
            other => failed(other),
        }
    }
}

/// The reply itself is not told: it may hold what people wrote.
fn unexpected<T>(_reply: &Reply) -> Result<T, Error> {
    Err(Error::Failed("the running service is of another version: restart it with this one".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_told_whether_it_may_work_later_or_somebody_has_to_change_something() {
        use log::Error::{Fenced, Forbidden, Lasting, Refused, TooLarge, Unavailable};
        let cause = || "cause".to_owned();
        let rows = [
            (Unavailable(cause()), Error::Unavailable("the log is unavailable: cause".to_owned())),
            (Lasting(cause()), Error::Failed(cause())),
            (Forbidden(cause()), Error::Refused(cause())),
            (Refused(cause()), Error::Refused(cause())),
            (TooLarge { bytes: 2, max: 1 }, Error::Failed("a record of 2 bytes; at most 1 are taken".to_owned())),
            (Fenced, Error::Failed("fenced by a newer session".to_owned())),
        ];
        for (error, expected) in rows {
            let told = match Reply::from(error) {
                Reply::Unavailable(cause) => Error::Unavailable(cause),
                Reply::Refused(cause) => Error::Refused(cause),
                Reply::Failed(cause) => Error::Failed(cause),
                other => panic!("{other:?}"),
            };
            assert_eq!(told, expected);
        }
    }
}
