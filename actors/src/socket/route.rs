//! Where a request is answered: here, or by the process that runs the partition.
//!
//! The owner table only says whom to ask. Whether an answer is good is decided by who gives it: an owner answers within its lease and
//! nobody else does, so that a table which is out of date costs another question and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use finflow_ledger::{PaymentId, WalletId};
use finflow_topologies::topics::{partition_of_payment, partition_of_wallet};

use super::door::{self, Standing};
use super::{Client, Error, REPLY_TIMEOUT, Reply, Request, here};
use crate::node::Node;

/// How long a node looks for one who can answer.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(3);
const SEARCH_PAUSE: Duration = Duration::from_millis(50);
/// How long another process may take for its answer.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections to one process that are kept for the next question.
const KEPT_MAX: usize = 4;

/// Connections to other processes.
#[derive(Default)]
pub(crate) struct Peers(Mutex<HashMap<String, Vec<Client>>>);

impl Peers {
    async fn ask(&self, address: &str, secret: &str, request: &Request) -> Result<Reply, Error> {
        let within = request.answered_within();
        let is_quick = within <= REPLY_TIMEOUT;
        let within = if is_quick { PEER_TIMEOUT } else { within };
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(address).and_then(Vec::pop);
        // Whether the other end of a kept connection has gone shows only when it is used, and not soon where an answer takes long.
        if let Some(client) = kept.filter(|_| is_quick)
            && let Ok(reply) = client.exchange(request, within).await
        {
            self.keep(address, client);
            return Ok(reply);
        }
        let knocked = door::knock(address, secret, Standing::Peer).await;
        let client = Client::over(knocked.map_err(|error| Error::Failed(error.to_string()))?);
        let reply = client.exchange(request, within).await?;
        self.keep(address, client);
        Ok(reply)
    }

    fn keep(&self, address: &str, client: Client) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.entry(address.to_owned()).or_default();
        if kept.len() < KEPT_MAX {
            kept.push(client);
        }
    }
}

/// Answers a request about any partition.
pub(super) async fn anywhere(node: &Node, request: Request) -> Reply {
    match request {
        Request::Payments(ids) => payments(node, ids).await,
        Request::Status => status(node).await,
        request => match partition_of(node, &request) {
            Some(partition) => at(node, partition, request).await,
            None => here(node, request).await,
        },
    }
}

/// The partition that a request is about, if it is about one that somebody must own to answer.
fn partition_of(node: &Node, request: &Request) -> Option<u32> {
    let count = node.partitions_count();
    match request {
        Request::Wallet(id) => WalletId::parse(id).map(|id| partition_of_wallet(&id, count)),
        Request::Payment(id) => Some(partition_of_payment(PaymentId::from_bytes(*id), count)),
        Request::Wallets(partition, ..) | Request::Verify(partition, _) => Some(*partition),
        Request::Snapshot(partition) | Request::Resume(partition) => Some(*partition),
        Request::JournalEnd(partition) | Request::ResumeFromJournal(partition) => Some(*partition),
        Request::Expired(partition) | Request::ResumePastExpired(partition, _) => Some(*partition),
        _ => None,
    }
}

/// Answers here, or asks the owner of the partition; while it moves, until somebody has it.
async fn at(node: &Node, partition: u32, request: Request) -> Reply {
    let begun = Instant::now();
    loop {
        let refused = match here(node, request.clone()).await {
            refused @ Reply::Elsewhere(_) => refused,
            reply => return reply,
        };
        let Some(secret) = node.secret() else { return refused };
        if let Some(address) = node.owner_elsewhere(partition) {
            match node.peers().ask(&address, secret, &request).await {
                Ok(Reply::Elsewhere(_)) | Err(_) => {}
                Ok(reply) => return reply,
            }
        }
        if SEARCH_TIMEOUT < begun.elapsed() {
            return refused;
        }
        tokio::time::sleep(SEARCH_PAUSE).await;
    }
}

/// The payments of every partition, each asked where it runs.
async fn payments(node: &Node, ids: Vec<[u8; 16]>) -> Reply {
    let mut by_partition: BTreeMap<u32, Vec<[u8; 16]>> = BTreeMap::new();
    for id in ids {
        by_partition.entry(partition_of_payment(PaymentId::from_bytes(id), node.partitions_count())).or_default().push(id);
    }
    let mut found = Vec::new();
    for (partition, ids) in by_partition {
        match at(node, partition, Request::Payments(ids)).await {
            Reply::Rows(rows) => found.extend(rows),
            other => return other,
        }
    }
    Reply::Rows(found)
}

/// How every partition is where it runs; `elsewhere`, or `standby`, where nobody who can be asked has it.
async fn status(node: &Node) -> Reply {
    let mut all = match here(node, Request::Status).await {
        Reply::Status(all) => all,
        other => return other,
    };
    let Some(secret) = node.secret() else { return Reply::Status(all) };
    let elsewhere = all.iter().filter(|status| !status.is_first_hand());
    let addresses: BTreeSet<String> = elsewhere.filter_map(|status| node.owner_elsewhere(status.partition)).collect();
    let asked = addresses.into_iter().map(|address| {
        let (node, secret) = (node.clone(), secret.to_owned());
        tokio::spawn(async move { node.peers().ask(&address, &secret, &Request::Status).await })
    });
    for asked in asked.collect::<Vec<_>>() {
        let Ok(Ok(Reply::Status(theirs))) = asked.await else { continue };
        for status in theirs {
            let Some(known) = all.iter_mut().find(|known| known.partition == status.partition) else { continue };
            let standbys = [&known.standbys[..], &status.standbys].concat();
            if status.is_first_hand() && !known.is_first_hand() {
                *known = status;
            }
            known.standbys = standbys;
        }
    }
    Reply::Status(all)
}
