//! Bugs on purpose: what the engine would do if one of its guards were missing, brought about from outside of it.
//!
//! The production code has no switch for any of this; a store or a transaction is wrapped or altered on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use finflow_ledger::{Coordinates, PaymentId, WalletId};
use finflow_state::store::{Error, RawRow};
use finflow_state::{EncodedBlock, Head, MemoryStore, Payments, Store, Table, Tag};

use super::Outcome;
use super::fault::{Fault, Kind};
use crate::log::{Outgoing, Record, Transaction};
use crate::topics::{Topic, partition_of_wallet, payment_id};
use crate::wire::v1::{self, Posting, PostingBody};

/// A bug that the simulator must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// After a crash the records of what has ended are not looked at.
    DedupSkippedOnReplay,
    /// A block reaches the store before the log has committed it.
    StoreBeforeCommit,
    /// A credit is delivered twice, and nobody looks at its sequence.
    SequenceUnchecked,
    /// A block lacks one of the rows that its epoch changed.
    EntityMissing,
    /// The log loses a posting.
    PostingLost,
    /// An event is written twice.
    EventTwice,
    /// The log loses the committed position of a partition.
    PositionLost,
    /// A credit goes to another wallet than its transfer names.
    CreditedElsewhere,
    /// Every transfer is carried out to another wallet than was asked.
    ReceiverMisread,
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 9] = [
        Planted::DedupSkippedOnReplay,
        Planted::StoreBeforeCommit,
        Planted::SequenceUnchecked,
        Planted::EntityMissing,
        Planted::PostingLost,
        Planted::EventTwice,
        Planted::PositionLost,
        Planted::CreditedElsewhere,
        Planted::ReceiverMisread,
    ];

    /// The name by which the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Planted::DedupSkippedOnReplay => "dedup-skipped-on-replay",
            Planted::StoreBeforeCommit => "store-before-commit",
            Planted::SequenceUnchecked => "sequence-unchecked",
            Planted::EntityMissing => "entity-missing",
            Planted::PostingLost => "posting-lost",
            Planted::EventTwice => "event-twice",
            Planted::PositionLost => "position-lost",
            Planted::CreditedElsewhere => "credited-elsewhere",
            Planted::ReceiverMisread => "receiver-misread",
        }
    }

    /// The bug of this name.
    pub fn from_name(name: &str) -> Option<Planted> {
        Planted::ALL.into_iter().find(|planted| planted.name() == name)
    }

    /// The faults that show the bug as what it is.
    pub fn shows_as(self) -> &'static [Kind] {
        match self {
            Planted::DedupSkippedOnReplay => &[Kind::SettledTwice],
            // Its rows are not the journal's, or it is seen to be ahead before anybody reads them.
            Planted::StoreBeforeCommit => &[Kind::StoreDiffers, Kind::NotRestored],
            Planted::SequenceUnchecked => &[Kind::CreditedTwice],
            Planted::EntityMissing => &[Kind::StoreDiffers],
            // The engine sees the gap itself; this shows that a halt out of what is ours is reported.
            Planted::PostingLost => &[Kind::Halted],
            Planted::EventTwice => &[Kind::EventTwice],
            // Going on from block 0 would execute everything again: it is refused before that.
            Planted::PositionLost => &[Kind::NotRestored],
            Planted::CreditedElsewhere => &[Kind::CreditedElsewhere],
            Planted::ReceiverMisread => &[Kind::NotAsked],
        }
    }

    /// Whether the outcome of a seed shows the bug as what it is, and not through a halt that comes of it.
    pub fn shows_in(self, outcome: &Outcome) -> bool {
        let shows = |fault: &Fault| self.shows_as().contains(&fault.kind);
        let is_halted = outcome.faults.iter().any(|fault| fault.kind == Kind::Halted);
        outcome.faults.iter().any(shows) && is_halted == self.shows_as().contains(&Kind::Halted)
    }
}

/// The bug of a seed and what it has done so far.
pub(super) struct Plant {
    pub(super) planted: Option<Planted>,
    partitions: u32,
    is_done: bool,
    /// Pairs of partitions whose sequences in the log are ahead of those that were decided.
    ahead: BTreeSet<(u32, u32)>,
    doubled: Option<Doubled>,
    /// The commands of the workload by the payment that they ask for.
    commands: BTreeMap<PaymentId, Outgoing>,
}

/// The payment that is credited twice.
#[derive(Clone, Copy)]
struct Doubled {
    payment: PaymentId,
    is_answered: bool,
}

impl Plant {
    pub(super) fn new(planted: Option<Planted>, partitions: u32, records: &[(u32, Outgoing)]) -> Plant {
        let commands = records.iter().filter_map(|(_, record)| Some((asks_for(record)?, record.clone())));
        let commands = if planted == Some(Planted::SequenceUnchecked) { commands.collect() } else { BTreeMap::new() };
        Plant { planted, partitions, is_done: false, ahead: BTreeSet::new(), doubled: None, commands }
    }

    /// The store as a node gets it.
    pub(super) fn store(&self, inner: Arc<MemoryStore>, after_crash: bool) -> Arc<dyn Store> {
        match self.planted {
            Some(Planted::DedupSkippedOnReplay) if after_crash => Arc::new(Wrapped { inner, forgets: true }),
            Some(Planted::StoreBeforeCommit) => Arc::new(Wrapped { inner, forgets: false }),
            _ => inner,
        }
    }

    /// Alters the commands before they are sent.
    pub(super) fn misread(&self, records: &mut [(u32, Outgoing)]) {
        if self.planted != Some(Planted::ReceiverMisread) {
            return;
        }
        for (_, record) in records {
            let text = record.value.as_deref().and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
            let Some((before, rest)) = text.split_once(r#""to":"wallet-"#) else { continue };
            let Some((number, after)) = rest.split_once('"') else { continue };
            // One of the same currency.
            let other = number.parse::<usize>().map_or(0, |number| (number + 3) % 6);
            record.value = Some(Bytes::from(format!(r#"{before}"to":"wallet-{other}"{after}"#)));
        }
    }

    /// Whether the log loses the position of a partition now that its node has died with this store.
    pub(super) fn loses_position(&mut self, store: &MemoryStore) -> bool {
        let has_blocks = store.head().is_some_and(|head| 0 < head.number);
        let loses = self.planted == Some(Planted::PositionLost) && !self.is_done && has_blocks;
        self.is_done |= loses;
        loses
    }

    /// Alters a transaction that is about to be committed; `takes` says that the log is going to take it.
    pub(super) fn tamper(&mut self, transaction: &mut Transaction, takes: bool, rng: &mut Rng) {
        match self.planted {
            Some(Planted::SequenceUnchecked) => self.deliver_twice(transaction, takes),
            Some(Planted::EntityMissing) if takes && !self.is_done => self.is_done = drop_row(transaction, rng).is_some(),
            Some(Planted::PostingLost) if takes && !self.is_done => {
                self.is_done = records(transaction, Topic::Postings).map(Vec::pop).next().is_some();
            }
            Some(Planted::CreditedElsewhere) if takes && !self.is_done => {
                self.is_done =
                    records(transaction, Topic::Postings).flatten().any(|record| redirect(record, self.partitions).is_some());
            }
            Some(Planted::EventTwice) if takes && !self.is_done => {
                let events = records(transaction, Topic::Events).next();
                self.is_done = events.is_some_and(|events| {
                    events.extend(events.first().cloned());
                    true
                });
            }
            _ => {}
        }
    }

    /// Writes a credit a second time, under the next sequence, so that the receiver takes it once more; all that the pair sends
    /// later is counted on. The second answer would find nothing held: the home gets a duplicate in its place.
    fn deliver_twice(&mut self, transaction: &mut Transaction, takes: bool) {
        let mut doubled = self.doubled;
        for records in records(transaction, Topic::Postings) {
            let mut postings: Vec<Posting> = records.iter().filter_map(decode).collect();
            for posting in &mut postings {
                posting.sequence += u64::from(self.ahead.contains(&(posting.source, posting.destination)));
                if let Some(second) = doubled.as_mut().and_then(|doubled| doubled.second(posting, &self.commands)) {
                    posting.body = second;
                }
            }
            let credit = postings.iter().find_map(|posting| Some((posting.clone(), credited(posting)?)));
            if let Some((mut credit, payment)) = credit.filter(|_| takes && doubled.is_none()) {
                let pair = postings.iter().filter(|posting| posting.source == credit.source);
                credit.sequence = pair.map(|posting| posting.sequence).max().unwrap_or_default() + 1;
                self.ahead.insert((credit.source, credit.destination));
                doubled = Some(Doubled { payment, is_answered: false });
                postings.push(credit);
            }
            *records = postings.iter().map(Posting::encode).collect();
        }
        if takes {
            self.doubled = doubled;
        }
    }
}

impl Doubled {
    /// What stands in the place of the second answer: the payment's own command, which its home knows already.
    fn second(&mut self, posting: &Posting, commands: &BTreeMap<PaymentId, Outgoing>) -> Option<PostingBody> {
        if !matches!(posting.body, PostingBody::Acknowledge { payment, .. } if payment == self.payment) {
            return None;
        }
        if !std::mem::replace(&mut self.is_answered, true) {
            return None;
        }
        let Outgoing { key, value, headers, .. } = commands.get(&self.payment)?.clone();
        let source = Coordinates { partition: posting.source, offset: 0 };
        Some(PostingBody::Forward { key, value, headers, timestamp_ms: super::world::START_MS, source })
    }
}

/// Sends a credit to another wallet of the same partition and currency, where there can be one.
fn redirect(record: &mut Outgoing, partitions: u32) -> Option<()> {
    let mut posting = decode(record)?;
    let PostingBody::Credit(credit) = &mut posting.body else { return None };
    let number: usize = credit.to.as_str().strip_prefix("wallet-")?.parse().ok()?;
    let others = (0..16).filter(|other| *other != number && other % 3 == number % 3);
    let mut others = others.filter_map(|other| WalletId::parse(&format!("wallet-{other}")));
    credit.to = others.find(|other| partition_of_wallet(other, partitions) == posting.destination)?;
    *record = posting.encode();
    Some(())
}

fn asks_for(record: &Outgoing) -> Option<PaymentId> {
    let command = v1::decode(record.value.as_deref(), &record.headers).ok()?;
    Some(payment_id(&command.tenant, &command.wallet, &command.key))
}

fn credited(posting: &Posting) -> Option<PaymentId> {
    match &posting.body {
        PostingBody::Credit(credit) => Some(credit.payment),
        _ => None,
    }
}

/// The records of a transaction for each partition of a topic.
fn records(transaction: &mut Transaction, topic: Topic) -> impl Iterator<Item = &mut Vec<Outgoing>> {
    transaction.batches.iter_mut().filter(move |batch| batch.topic == topic).map(|batch| &mut batch.records)
}

/// The journal blocks of a transaction.
pub(super) fn blocks(transaction: &Transaction) -> Vec<EncodedBlock> {
    let journal = transaction.batches.iter().filter(|batch| batch.topic == Topic::Journal);
    let values = journal.flat_map(|batch| batch.records.iter().filter_map(|record| record.value.clone()));
    values.filter_map(|value| EncodedBlock::parse(value).ok()).collect()
}

fn decode(record: &Outgoing) -> Option<Posting> {
    let Outgoing { key, value, headers, .. } = record.clone();
    Posting::decode(&Record { offset: 0, timestamp_ms: 0, key, value, headers }).ok()
}

/// Writes a block of the transaction again without one of its rows.
fn drop_row(transaction: &mut Transaction, rng: &mut Rng) -> Option<()> {
    let record = records(transaction, Topic::Journal).find_map(|records| {
        let record = records.first_mut()?;
        let block = EncodedBlock::parse(record.value.clone()?).ok()?;
        (0 < block.rows().count()).then_some((record, block))
    });
    let (record, block) = record?;
    let missing = rng.usize(..block.rows().count());
    let header_bytes = u32::from_le_bytes(block.bytes().get(1..5)?.try_into().ok()?) as usize;
    let mut bytes = block.bytes().get(..5 + header_bytes)?.to_vec();
    for (_, (key, value)) in block.rows().enumerate().filter(|(index, _)| *index != missing) {
        bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&value.map_or(0, |value| value.len() as u32 + 1).to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value.unwrap_or_default());
    }
    let checksum = crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    let bytes = EncodedBlock::parse(Bytes::from(bytes)).ok()?.bytes().clone();
    record.value = Some(bytes);
    Some(())
}

fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

/// A store that forgets what has ended, or else one that takes a block it already holds for granted.
struct Wrapped {
    inner: Arc<MemoryStore>,
    forgets: bool,
}

impl Store for Wrapped {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let row = self.inner.get(key)?;
        Ok(row.filter(|row| !(self.forgets && has_ended(key, row))))
    }

    fn head(&self) -> Option<Head> {
        self.inner.head()
    }

    fn apply(&self, blocks: &[EncodedBlock]) -> Result<(), Error> {
        if self.forgets {
            return self.inner.apply(blocks);
        }
        let held = self.inner.head().map(|head| head.number);
        let new: Vec<EncodedBlock> = blocks.iter().filter(|block| held < Some(block.header().number)).cloned().collect();
        self.inner.apply(&new)
    }

    fn scan(&self, tag: Tag, after: Option<&[u8]>, limit: usize) -> Result<Vec<RawRow>, Error> {
        self.inner.scan(tag, after, limit)
    }

    fn flush(&self) -> Result<(), Error> {
        self.inner.flush()
    }

    fn checkpoint(&self, into: &Path) -> Result<Option<Head>, Error> {
        self.inner.checkpoint(into)
    }
}

/// Whether the row is the record of a payment that has ended; a transfer that still waits for its answer has not.
fn has_ended(key: &[u8], row: &[u8]) -> bool {
    let id = Some(key).filter(|key| key.first() == Some(&(Tag::Payments as u8))).and_then(|key| Payments::decode_key(key).ok());
    id.and_then(|id| Payments::decode(&id, row).ok()).is_some_and(|payment| payment.state.is_terminal())
}
