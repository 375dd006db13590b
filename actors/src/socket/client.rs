//! The asking side of the socket.

use std::path::Path;
use std::time::Duration;

use finflow_ledger::{Coordinates, Payment, PaymentId, Wallet, WalletId};
use finflow_state::{Payments, Wallets};
use finflow_topologies::Topic;
use finflow_topologies::log::{Fetched, Record};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::door::{self, Standing};
use super::frames::{Read, Sent, Wire, receive, rows, send};
use super::{Error, REPLY_TIMEOUT, Reply, Request, path, unexpected};
#[cfg(doc)]
use crate::node::Node;
use crate::node::{Awaited, Checked, Expired, JournalEnd, PartitionStatus, Publish, ReadError};

/// A connection to a running node.
pub struct Client(Mutex<Box<dyn Wire>>);

impl Client {
    /// Connects to the node that runs in this directory; `None` where none does.
    pub async fn connect(data_dir: &Path) -> Option<Client> {
        UnixStream::connect(path(data_dir)).await.ok().map(Client::over)
    }

    /// Connects to the node that answers at this address, as one who knows the secret.
    pub async fn connect_to(address: &str, secret: &str) -> std::io::Result<Client> {
        Ok(Client::over(door::knock(address, secret, Standing::Guest).await?))
    }

    pub(super) fn over(stream: impl Wire + 'static) -> Client {
        Client(Mutex::new(Box::new(stream)))
    }

    /// See [`Node::partitions_count`].
    pub async fn partitions_count(&self) -> Result<u32, Error> {
        match self.ask(Request::Count, REPLY_TIMEOUT).await? {
            Reply::Count(count) => Ok(count),
            other => unexpected(&other),
        }
    }

    /// See [`Node::publish`].
    pub async fn publish(&self, records: Vec<Publish>) -> Result<Vec<Coordinates>, Error> {
        let request = Request::Publish(records.into_iter().map(Sent::from).collect());
        let within = request.answered_within();
        match self.ask(request, within).await? {
            Reply::Places(places) => {
                Ok(places.into_iter().map(|(partition, offset)| Coordinates { partition, offset }).collect())
            }
            other => unexpected(&other),
        }
    }

    /// See [`Node::range`].
    pub async fn range(&self, topic: Topic, partition: u32) -> Result<std::ops::Range<u64>, Error> {
        match self.ask(Request::Range(topic.word().to_owned(), partition), REPLY_TIMEOUT).await? {
            Reply::Range(start, end) => Ok(start..end),
            other => unexpected(&other),
        }
    }

    /// See [`Node::fetch`].
    pub async fn fetch(&self, topic: Topic, partition: u32, from: u64, bytes_max: usize) -> Result<Fetched, Error> {
        match self.ask(Request::Fetch(topic.word().to_owned(), partition, from, bytes_max), REPLY_TIMEOUT).await? {
            Reply::Records(records, next) => {
                let records = records.into_iter().map(|read: Read| Record::try_from(read));
                let records = records.collect::<Result<Vec<_>, _>>().map_err(Error::Failed)?;
                Ok(Fetched { records, next })
            }
            other => unexpected(&other),
        }
    }

    /// See [`Node::changed`].
    pub async fn changed(&self, deadline: Duration) -> Result<(), Error> {
        self.ask(Request::Changed(millis(deadline)), deadline + REPLY_TIMEOUT).await.map(|_| ())
    }

    /// See [`Node::answered`].
    pub async fn answered(&self, awaited: &[Awaited], deadline: Duration) -> Result<(), Error> {
        let sent = awaited.iter().map(|one| (one.at.partition, one.at.offset, one.record.map(|id| *id.as_bytes())));
        self.ask(Request::Answered(sent.collect(), millis(deadline)), deadline + REPLY_TIMEOUT).await.map(|_| ())
    }

    /// See [`Node::wallet`].
    pub async fn wallet(&self, id: &WalletId) -> Result<Option<Wallet>, Error> {
        Ok(rows::<Wallets>(self.ask(Request::Wallet(id.to_string()), REPLY_TIMEOUT).await?)?.into_iter().next())
    }

    /// See [`Node::wallets`].
    pub async fn wallets(&self, partition: u32, after: Option<&WalletId>, limit: usize) -> Result<Vec<Wallet>, Error> {
        rows::<Wallets>(self.ask(Request::Wallets(partition, after.map(WalletId::to_string), limit), REPLY_TIMEOUT).await?)
    }

    /// See [`Node::payment`].
    pub async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, Error> {
        Ok(rows::<Payments>(self.ask(Request::Payment(*id.as_bytes()), REPLY_TIMEOUT).await?)?.into_iter().next())
    }

    /// Those of these payments that are known; see [`Node::payment`].
    pub async fn payments(&self, ids: &[PaymentId]) -> Result<Vec<Payment>, Error> {
        let ids = ids.iter().map(|id| *id.as_bytes()).collect();
        rows::<Payments>(self.ask(Request::Payments(ids), REPLY_TIMEOUT).await?)
    }

    /// See [`Node::status`].
    pub async fn status(&self) -> Result<Vec<PartitionStatus>, Error> {
        match self.ask(Request::Status, REPLY_TIMEOUT).await? {
            Reply::Status(status) => Ok(status),
            other => unexpected(&other),
        }
    }

    /// See [`Node::faults`], of the process that is asked.
    pub async fn faults(&self) -> Result<Vec<(String, String)>, Error> {
        match self.ask(Request::Faults, REPLY_TIMEOUT).await? {
            Reply::Faults(faults) => Ok(faults),
            other => unexpected(&other),
        }
    }

    /// See [`Node::idle`].
    pub async fn idle(&self, deadline: Duration) -> Result<bool, Error> {
        match self.ask(Request::Idle(millis(deadline)), deadline + REPLY_TIMEOUT).await? {
            Reply::Idle(idle) => Ok(idle),
            other => unexpected(&other),
        }
    }

    /// See [`Node::check_one`].
    pub async fn check(&self, partition: u32, snapshots: bool) -> Result<Checked, Error> {
        let request = Request::Verify(partition, snapshots);
        let within = request.answered_within();
        match self.ask(request, within).await? {
            Reply::Checked(checked) => Ok(*checked),
            other => unexpected(&other),
        }
    }

    /// See [`Node::snapshot_one`].
    pub async fn snapshot(&self, partition: u32) -> Result<Option<u64>, Error> {
        let request = Request::Snapshot(partition);
        let within = request.answered_within();
        match self.ask(request, within).await? {
            Reply::Block(block) => Ok(block),
            other => unexpected(&other),
        }
    }

    /// See [`Node::resume`].
    pub async fn resume(&self, partition: u32) -> Result<(), Error> {
        self.ask(Request::Resume(partition), REPLY_TIMEOUT).await.map(|_| ())
    }

    /// See [`Node::journal_end`].
    pub async fn journal_end(&self, partition: u32) -> Result<JournalEnd, Error> {
        match self.ask(Request::JournalEnd(partition), REPLY_TIMEOUT).await? {
            Reply::JournalEnd(end) => Ok(end),
            other => unexpected(&other),
        }
    }

    /// See [`Node::resume_from_journal`].
    pub async fn resume_from_journal(&self, partition: u32) -> Result<(), Error> {
        self.ask(Request::ResumeFromJournal(partition), REPLY_TIMEOUT).await.map(|_| ())
    }

    /// See [`Node::expired`].
    pub async fn expired(&self, partition: u32) -> Result<Expired, Error> {
        match self.ask(Request::Expired(partition), REPLY_TIMEOUT).await? {
            Reply::Expired(expired) => Ok(expired),
            other => unexpected(&other),
        }
    }

    /// See [`Node::resume_past_expired`].
    pub async fn resume_past_expired(&self, partition: u32, to: u64) -> Result<(), Error> {
        self.ask(Request::ResumePastExpired(partition, to), REPLY_TIMEOUT).await.map(|_| ())
    }

    /// See [`Node::leave`]: `true` where the others have been seen to do without it.
    pub async fn leave(&self, deadline: Duration) -> Result<bool, Error> {
        match self.ask(Request::Leave, deadline).await? {
            Reply::Idle(is_gone) => Ok(is_gone),
            other => unexpected(&other),
        }
    }

    async fn ask(&self, request: Request, deadline: Duration) -> Result<Reply, Error> {
        match self.exchange(&request, deadline).await? {
            Reply::Failed(cause) => Err(Error::Failed(cause)),
            Reply::Unavailable(cause) => Err(Error::Unavailable(cause)),
            Reply::Refused(cause) => Err(Error::Refused(cause)),
            Reply::Elsewhere(partition) => Err(Error::Unavailable(ReadError::Elsewhere(partition).to_string())),
            reply => Ok(reply),
        }
    }

    /// One request and whatever is replied. After an error the connection is of no more use.
    pub(super) async fn exchange(&self, request: &Request, deadline: Duration) -> Result<Reply, Error> {
        let mut stream = self.0.lock().await;
        let exchange = async {
            send(&mut **stream, request).await?;
            receive::<Reply>(&mut **stream).await
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(Ok(Some(reply))) => Ok(reply),
            Ok(Ok(None)) => Err(Error::Failed("the running service has ended".to_owned())),
            Ok(Err(error)) => Err(Error::Failed(format!("the running service does not answer: {error}"))),
            Err(_) => Err(Error::Failed("the running service does not answer in time".to_owned())),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
