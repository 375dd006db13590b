//! The load: publishers that never stop, and never take an answer for given that they did not get.
//!
//! A batch that was not acknowledged is sent again, whole, under the same keys: it may have been accepted before. What was
//! acknowledged has coordinates, and must be found there for ever after.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use finflow_actors::Publish;
use finflow_actors::socket::Client;
use finflow_ledger::Coordinates;
use tokio::task::JoinHandle;

pub(crate) const WALLETS: u64 = 48;
pub(crate) const TOP_UP_MINOR: i128 = 100_000;
const PUBLISHERS: u64 = 3;
const BATCH: u64 = 8;
/// Each publisher's time between two batches.
const PACE: Duration = Duration::from_millis(8);
/// One batch in so many is sent twice although it was acknowledged.
const DUPLICATED_EVERY: u64 = 8;

/// What the service has acknowledged.
#[derive(Default)]
pub(crate) struct Accepted {
    /// Where each record must be found from now on.
    pub(crate) records: Vec<(Coordinates, Bytes)>,
    /// The keys of the payments that must end, as `wallet/key`.
    pub(crate) keys: BTreeSet<String>,
    /// Batches that were sent again because nobody had answered.
    pub(crate) repeated: u64,
}

pub(crate) struct Load {
    accepted: Arc<Mutex<Accepted>>,
    is_over: Arc<AtomicBool>,
    publishers: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(data_dir: &Path) -> Load {
        let accepted = Arc::<Mutex<Accepted>>::default();
        let is_over = Arc::<AtomicBool>::default();
        let publish = |id| {
            let publisher = Publisher { id, next: 0, data_dir: data_dir.to_owned() };
            tokio::spawn(publisher.run(accepted.clone(), is_over.clone()))
        };
        let publishers = (0..PUBLISHERS).map(publish).collect();
        Load { accepted, is_over, publishers }
    }

    /// The records acknowledged until now, behind the first `skipped`.
    pub(crate) fn accepted_behind(&self, skipped: usize) -> Vec<(Coordinates, Bytes)> {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.records.get(skipped..).unwrap_or_default().to_vec()
    }

    /// Begins no batch any more and waits until the last ones are acknowledged.
    pub(crate) async fn finish(self) -> Accepted {
        self.is_over.store(true, Ordering::Release);
        for publisher in self.publishers {
            publisher.await.expect("a publisher that does not panic");
        }
        std::mem::take(&mut self.accepted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Publisher {
    id: u64,
    next: u64,
    data_dir: PathBuf,
}

impl Publisher {
    async fn run(mut self, accepted: Arc<Mutex<Accepted>>, is_over: Arc<AtomicBool>) {
        let mut pace = tokio::time::interval(PACE);
        let mut client = None;
        let mut pending: Option<Batch> = None;
        while pending.is_some() || !is_over.load(Ordering::Acquire) {
            pace.tick().await;
            if client.is_none() {
                client = Client::connect(&self.data_dir).await;
            }
            let Some(connected) = &client else { continue };
            let batch = pending.get_or_insert_with(|| self.batch());
            let answer = connected.publish(batch.commands.iter().map(Command::record).collect()).await;
            let mut accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Ok(places) => {
                    accepted.keys.extend(batch.commands.iter().map(|command| command.ended_key.clone()));
                    accepted.records.extend(places.into_iter().zip(batch.commands.iter().map(|command| command.value.clone())));
                    batch.copies -= 1;
                    pending = pending.filter(|batch| 0 < batch.copies);
                }
                Err(_) => {
                    accepted.repeated += 1;
                    client = None;
                }
            }
        }
    }

    /// The next commands: at first each publisher opens its share of the wallets and fills them, then it moves money among all.
    fn batch(&mut self) -> Batch {
        let opened = WALLETS.div_ceil(PUBLISHERS);
        let begin = self.next;
        self.next += BATCH;
        let commands = (begin..self.next).map(|n| if n < 2 * opened { self.opening(n) } else { self.transfer(n) }).collect();
        Batch { commands, copies: if begin.is_multiple_of(BATCH * DUPLICATED_EVERY) { 2 } else { 1 } }
    }

    fn opening(&self, n: u64) -> Command {
        let wallet = self.id + PUBLISHERS * (n / 2);
        let rest = if n.is_multiple_of(2) {
            r#""type":"open_wallet","currency":"AED","country":"AE","kind":"personal","holder":"H""#.to_owned()
        } else {
            format!(r#""type":"top_up","amount":"{}.00","currency":"AED","source":{{"account":"till"}}"#, TOP_UP_MINOR / 100)
        };
        Command::new(wallet, &format!("{}-{n}", self.id), &rest)
    }

    fn transfer(&self, n: u64) -> Command {
        let from = (n * 5 + self.id * 11) % WALLETS;
        let to = (from + 1 + n * 7 % (WALLETS - 1)) % WALLETS;
        let rest = format!(r#""type":"transfer","to":"w{to}","amount":"{}.{:02}","currency":"AED""#, n % 40, n % 99 + 1);
        Command::new(from, &format!("{}-{n}", self.id), &rest)
    }
}

struct Batch {
    commands: Vec<Command>,
    /// How often it must still be acknowledged.
    copies: u64,
}

struct Command {
    wallet: String,
    ended_key: String,
    value: Bytes,
}

impl Command {
    fn new(wallet: u64, key: &str, rest: &str) -> Command {
        let wallet = format!("w{wallet}");
        let value = format!(r#"{{"tenant":"acme","wallet":"{wallet}","idempotency_key":"{key}",{rest}}}"#);
        Command { ended_key: format!("{wallet}/{key}"), value: value.into(), wallet }
    }

    fn record(&self) -> Publish {
        let key = Some(Bytes::copy_from_slice(self.wallet.as_bytes()));
        Publish { partition: None, key, value: Some(self.value.clone()), ..Publish::default() }
    }
}
