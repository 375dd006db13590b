//! The Unix socket of a running node: other commands of the same directory ask through it, because the directory has one owner.
//!
//! Frames are a length (u32, big-endian) and a postcard value; one request, one reply. Only the owner of the directory may connect
//! (mode 0600). Both ends are of one version: nothing here is stored.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use finflow_ledger::{Coordinates, Payment, PaymentId, Wallet, WalletId};
use finflow_state::{Payments, Table, Wallets};
use finflow_topologies::Topic;
use finflow_topologies::log::{Fetched, Headers, Record};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;
use tracing::{debug, warn};

use crate::node::{Checked, Node, PartitionStatus, Publish};

/// The longest frame, in bytes.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// How long a client waits for a reply beyond what it asked for.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Count,
    Publish(Vec<Sent>),
    Range(String, u32),
    Fetch(String, u32, u64, usize),
    Changed(u64),
    Wallet(String),
    Wallets(u32, Option<String>, usize),
    Payment([u8; 16]),
    Payments(Vec<[u8; 16]>),
    Status,
    Idle(u64),
    Verify(bool),
    Snapshot,
    Resume(u32),
}

#[derive(Debug, Serialize, Deserialize)]
struct Sent {
    partition: Option<u32>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Read {
    offset: u64,
    timestamp_ms: i64,
    sent: Sent,
}

#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Failed(String),
    Done,
    Count(u32),
    Places(Vec<(u32, u64)>),
    Range(u64, u64),
    Records(Vec<Read>, u64),
    Rows(Vec<(Vec<u8>, Vec<u8>)>),
    Status(Vec<PartitionStatus>),
    Idle(bool),
    Checked(Vec<Checked>),
    Blocks(Vec<(u32, u64)>),
}

/// Where the socket of a data directory is.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("finflow.sock")
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
                    tokio::spawn(converse(node.clone(), stream));
                }
                Err(cause) => {
                    warn!(%cause, "cannot accept on the socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }))
}

async fn converse(node: Node, mut stream: UnixStream) {
    while let Ok(Some(request)) = receive::<Request>(&mut stream).await {
        let reply = answer(&node, request).await.unwrap_or_else(Reply::Failed);
        if let Err(cause) = send(&mut stream, &reply).await {
            debug!(%cause, "a client has gone");
            return;
        }
    }
}

async fn answer(node: &Node, request: Request) -> Result<Reply, String> {
    let topic = |word: &str| Topic::from_word(word).ok_or_else(|| format!("there is no topic {word}"));
    Ok(match request {
        Request::Count => Reply::Count(node.partitions_count()),
        Request::Publish(records) => {
            let records = records.into_iter().map(Publish::try_from).collect::<Result<Vec<_>, _>>()?;
            let places = node.publish(records).await.map_err(text)?;
            Reply::Places(places.into_iter().map(|at| (at.partition, at.offset)).collect())
        }
        Request::Range(word, partition) => {
            let range = node.range(topic(&word)?, partition).map_err(text)?;
            Reply::Range(range.start, range.end)
        }
        Request::Fetch(word, partition, from, bytes_max) => {
            let bytes_max = bytes_max.min(FRAME_BYTES_MAX / 8);
            let fetched = node.fetch(topic(&word)?, partition, from, bytes_max).map_err(text)?;
            Reply::Records(fetched.records.into_iter().map(Read::from).collect(), fetched.next)
        }
        Request::Changed(millis) => {
            node.changed(Duration::from_millis(millis)).await;
            Reply::Done
        }
        Request::Wallet(id) => {
            let id = WalletId::parse(&id).ok_or("not a wallet id")?;
            Reply::Rows(node.wallet(&id).map_err(text)?.iter().map(|wallet| row::<Wallets>(wallet.id(), wallet)).collect())
        }
        Request::Wallets(partition, after, limit) => {
            let after = after.as_deref().and_then(WalletId::parse);
            let wallets = node.wallets(partition, after.as_ref(), limit).map_err(text)?;
            Reply::Rows(wallets.iter().map(|wallet| row::<Wallets>(wallet.id(), wallet)).collect())
        }
        Request::Payment(id) => {
            let payment = node.payment(PaymentId::from_bytes(id)).map_err(text)?;
            Reply::Rows(payment.iter().map(|payment| row::<Payments>(&payment.id, payment)).collect())
        }
        Request::Payments(ids) => {
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                found.extend(node.payment(PaymentId::from_bytes(id)).map_err(text)?);
            }
            Reply::Rows(found.iter().map(|payment| row::<Payments>(&payment.id, payment)).collect())
        }
        Request::Status => Reply::Status(node.status()),
        Request::Idle(millis) => Reply::Idle(node.idle(Duration::from_millis(millis)).await),
        Request::Verify(snapshots) => Reply::Checked(node.check(snapshots).await),
        Request::Snapshot => Reply::Blocks(node.snapshot().await.map_err(text)?.into_iter().collect()),
        Request::Resume(partition) => {
            node.resume(partition);
            Reply::Done
        }
    })
}

/// A connection to a running node.
pub struct Client(Mutex<UnixStream>);

impl Client {
    /// Connects to the node that runs in this directory; `None` where none does.
    pub async fn connect(data_dir: &Path) -> Option<Client> {
        UnixStream::connect(path(data_dir)).await.ok().map(|stream| Client(Mutex::new(stream)))
    }

    /// See [`Node::partitions_count`].
    pub async fn partitions_count(&self) -> Result<u32, String> {
        match self.ask(Request::Count, REPLY_TIMEOUT).await? {
            Reply::Count(count) => Ok(count),
            other => unexpected(&other),
        }
    }

    /// See [`Node::publish`].
    pub async fn publish(&self, records: Vec<Publish>) -> Result<Vec<Coordinates>, String> {
        match self.ask(Request::Publish(records.into_iter().map(Sent::from).collect()), REPLY_TIMEOUT).await? {
            Reply::Places(places) => {
                Ok(places.into_iter().map(|(partition, offset)| Coordinates { partition, offset }).collect())
            }
            other => unexpected(&other),
        }
    }

    /// See [`Node::range`].
    pub async fn range(&self, topic: Topic, partition: u32) -> Result<std::ops::Range<u64>, String> {
        match self.ask(Request::Range(topic.word().to_owned(), partition), REPLY_TIMEOUT).await? {
            Reply::Range(start, end) => Ok(start..end),
            other => unexpected(&other),
        }
    }

    /// See [`Node::fetch`].
    pub async fn fetch(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, String> {
        match self.ask(Request::Fetch(topic.word().to_owned(), partition, from, bytes_max), REPLY_TIMEOUT).await? {
            Reply::Records(records, next) => {
                let records = records.into_iter().map(Record::try_from).collect::<Result<Vec<_>, _>>()?;
                Ok(Fetched { records, next })
            }
            other => unexpected(&other),
        }
    }

    /// See [`Node::changed`].
    pub async fn changed(&self, deadline: Duration) -> Result<(), String> {
        self.ask(Request::Changed(millis(deadline)), deadline + REPLY_TIMEOUT).await.map(|_| ())
    }

    /// See [`Node::wallet`].
    pub async fn wallet(&self, id: &WalletId) -> Result<Option<Wallet>, String> {
        Ok(rows::<Wallets>(self.ask(Request::Wallet(id.to_string()), REPLY_TIMEOUT).await?)?.into_iter().next())
    }

    /// See [`Node::wallets`].
    pub async fn wallets(&self, partition: u32, after: Option<&WalletId>, limit: usize) -> Result<Vec<Wallet>, String> {
        rows::<Wallets>(self.ask(Request::Wallets(partition, after.map(WalletId::to_string), limit), REPLY_TIMEOUT).await?)
    }

    /// See [`Node::payment`].
    pub async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, String> {
        Ok(rows::<Payments>(self.ask(Request::Payment(*id.as_bytes()), REPLY_TIMEOUT).await?)?.into_iter().next())
    }

    /// Those of these payments that are known; see [`Node::payment`].
    pub async fn payments(&self, ids: &[PaymentId]) -> Result<Vec<Payment>, String> {
        let ids = ids.iter().map(|id| *id.as_bytes()).collect();
        rows::<Payments>(self.ask(Request::Payments(ids), REPLY_TIMEOUT).await?)
    }

    /// See [`Node::status`].
    pub async fn status(&self) -> Result<Vec<PartitionStatus>, String> {
        match self.ask(Request::Status, REPLY_TIMEOUT).await? {
            Reply::Status(status) => Ok(status),
            other => unexpected(&other),
        }
    }

    /// See [`Node::idle`].
    pub async fn idle(&self, deadline: Duration) -> Result<bool, String> {
        match self.ask(Request::Idle(millis(deadline)), deadline + REPLY_TIMEOUT).await? {
            Reply::Idle(idle) => Ok(idle),
            other => unexpected(&other),
        }
    }

    /// See [`Node::check`].
    pub async fn check(&self, snapshots: bool) -> Result<Vec<Checked>, String> {
        match self.ask(Request::Verify(snapshots), REPLY_TIMEOUT * 20).await? {
            Reply::Checked(checked) => Ok(checked),
            other => unexpected(&other),
        }
    }

    /// See [`Node::snapshot`].
    pub async fn snapshot(&self) -> Result<BTreeMap<u32, u64>, String> {
        match self.ask(Request::Snapshot, REPLY_TIMEOUT * 20).await? {
            Reply::Blocks(blocks) => Ok(blocks.into_iter().collect()),
            other => unexpected(&other),
        }
    }

    /// See [`Node::resume`].
    pub async fn resume(&self, partition: u32) -> Result<(), String> {
        self.ask(Request::Resume(partition), REPLY_TIMEOUT).await.map(|_| ())
    }

    async fn ask(&self, request: Request, deadline: Duration) -> Result<Reply, String> {
        let mut stream = self.0.lock().await;
        let exchange = async {
            send(&mut stream, &request).await?;
            receive::<Reply>(&mut stream).await
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(Ok(Some(Reply::Failed(cause)))) => Err(cause),
            Ok(Ok(Some(reply))) => Ok(reply),
            Ok(Ok(None)) => Err("the running service has ended".to_owned()),
            Ok(Err(error)) => Err(format!("the running service does not answer: {error}")),
            Err(_) => Err("the running service does not answer in time".to_owned()),
        }
    }
}

/// The reply itself is not told: it may hold what people wrote.
fn unexpected<T>(_reply: &Reply) -> Result<T, String> {
    Err("the running service is of another version: restart it with this one".to_owned())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn row<T: Table>(key: &T::Key, value: &T::Value) -> (Vec<u8>, Vec<u8>) {
    let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
    T::encode_key(key, &mut key_bytes);
    T::encode(value, &mut value_bytes);
    (key_bytes, value_bytes)
}

fn rows<T: Table>(reply: Reply) -> Result<Vec<T::Value>, String> {
    let Reply::Rows(rows) = reply else { return unexpected(&reply) };
    let decoded = rows.iter().map(|(key, value)| T::decode(&T::decode_key(key)?, value));
    decoded.collect::<Result<Vec<_>, _>>().map_err(text)
}

async fn send<T: Serialize>(stream: &mut UnixStream, value: &T) -> std::io::Result<()> {
    let frame = postcard::to_stdvec(value).map_err(std::io::Error::other)?;
    let length = u32::try_from(frame.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&frame).await
}

/// `None` at the end of the conversation.
async fn receive<T: for<'de> Deserialize<'de>>(stream: &mut UnixStream) -> std::io::Result<Option<T>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = u32::from_be_bytes(length) as usize;
    if FRAME_BYTES_MAX < length {
        return Err(std::io::Error::other("a frame is too long"));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    postcard::from_bytes(&frame).map(Some).map_err(std::io::Error::other)
}

impl From<Publish> for Sent {
    fn from(record: Publish) -> Sent {
        let owned = |bytes: Option<Bytes>| bytes.map(|bytes| bytes.to_vec());
        let headers = record.headers.as_bytes().to_vec();
        Sent { partition: record.partition, key: owned(record.key), value: owned(record.value), headers }
    }
}

impl TryFrom<Sent> for Publish {
    type Error = String;

    fn try_from(sent: Sent) -> Result<Publish, String> {
        let headers = Headers::from_bytes(sent.headers.into()).ok_or("headers are malformed")?;
        Ok(Publish { partition: sent.partition, key: sent.key.map(Bytes::from), value: sent.value.map(Bytes::from), headers })
    }
}

impl From<Record> for Read {
    fn from(record: Record) -> Read {
        let Record { offset, timestamp_ms, key, value, headers } = record;
        Read { offset, timestamp_ms, sent: Publish { partition: None, key, value, headers }.into() }
    }
}

impl TryFrom<Read> for Record {
    type Error = String;

    fn try_from(read: Read) -> Result<Record, String> {
        let Publish { key, value, headers, .. } = Publish::try_from(read.sent)?;
        Ok(Record { offset: read.offset, timestamp_ms: read.timestamp_ms, key, value, headers })
    }
}
