//! A lane as a member of the consumer group: which partitions of `commands` the group gives it, and how far they are committed.
//!
//! It reads no records: what is assigned is paused at its end, and the lane reads through a [`Reader`](super::reader::Reader) from
//! wherever its state stands. A revocation waits, within a limit, until the lane has let go of what it claimed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use finflow_topologies::Topic;
use finflow_topologies::log::{Error, Position};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;
use tracing::{info, warn};

use super::admission::{is_unauthorized, unauthorized};
use super::context::{Change, Rebalances, give, take_away};
use super::departure;
use super::names::{Holder, Names};
use super::settings::Settings;
use super::{native, positions};
use crate::log::Assignment;

/// How long the lane may take to let go of revoked partitions; meanwhile the group waits.
pub(super) const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Member {
    consumer: BaseConsumer<Rebalances>,
    topic: String,
    group: String,
    assigned: BTreeSet<u32>,
    /// The epoch of the latest claim of each claimed partition.
    claims: BTreeMap<u32, u64>,
    claims_made: u64,
    /// What is to be given up once it is released, or at the deadline.
    revoking: Option<(TopicPartitionList, Instant)>,
    /// The group has assigned something, if only nothing, since the last subscription.
    has_joined: bool,
    is_subscribed: bool,
    /// What the group lacks to let the lane in.
    refusal: Option<KafkaError>,
    shown: watch::Sender<Assignment>,
    lane: String,
    settings: Settings,
    /// The application's number of partitions: what somebody has added to the topic is the group's to give, and nobody's to run.
    partitions: u32,
    /// What the group calls the lanes of this process.
    names: Names,
}

impl Member {
    pub(super) fn new(
        settings: &Settings,
        lane: &str,
        partitions: u32,
        (shown, names): (watch::Sender<Assignment>, Names),
    ) -> Result<Member, KafkaError> {
        Ok(Member {
            consumer: settings.member(lane).create_with_context(Rebalances::default())?,
            topic: Topic::Commands.name(&settings.prefix),
            group: settings.prefix.clone(),
            assigned: BTreeSet::new(),
            claims: BTreeMap::new(),
            claims_made: 0,
            revoking: None,
            has_joined: false,
            is_subscribed: false,
            refusal: None,
            shown,
            lane: lane.to_owned(),
            settings: settings.clone(),
            partitions,
            names,
        })
    }

    /// Asks the group for partitions, unless it has been asked already.
    pub(super) fn join(&mut self) -> Result<(), KafkaError> {
        if !self.is_subscribed {
            self.consumer.subscribe(&[&self.topic])?;
            self.is_subscribed = true;
        }
        Ok(())
    }

    /// Gives everything back at once, as a process does that will not return.
    pub(super) fn leave(&mut self) {
        self.consumer.unsubscribe();
        self.is_subscribed = false;
        self.has_joined = false;
        self.claims.clear();
    }

    /// Leaves and comes back: what it has goes and returns as with any other member.
    pub(super) fn rejoin(&mut self) -> Result<(), KafkaError> {
        self.consumer.unsubscribe();
        self.has_joined = false;
        self.is_subscribed = false;
        self.join()
    }

    /// Whether the group has answered, with partitions or without.
    pub(super) fn has_joined(&self) -> bool {
        self.has_joined
    }

    /// Why the group does not let the lane in, if it has said so since the lane was last in it.
    pub(super) fn refusal(&self) -> Option<Error> {
        let what = match self.refusal.as_ref()?.rdkafka_error_code() {
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => format!("Read on group {}", self.group),
            _ => format!("Read on topic {}", self.topic),
        };
        Some(unauthorized(&what))
    }

    /// Serves the group for at most `patience`: to be called often, or it takes the lane for dead.
    pub(super) fn serve(&mut self, patience: Duration) {
        let mut patience = patience;
        // Records do not concern a member, and other errors that matter are told by `is_fenced` or by the commit.
        while let Some(found) = self.consumer.poll(patience) {
            patience = Duration::ZERO;
            self.refusal = found.err().filter(is_unauthorized).or(self.refusal.take());
        }
        while let Some(change) = self.consumer.context().next() {
            match change {
                Change::Assigned(partitions) => self.take(&partitions),
                Change::Revoked(partitions) => self.begin_giving(partitions),
            }
        }
        self.give_up();
    }

    fn take(&mut self, partitions: &TopicPartitionList) {
        let mut at_end = TopicPartitionList::new();
        for partition in ids(partitions) {
            if let Err(cause) = at_end.add_partition_offset(&self.topic, partition as i32, Offset::End) {
                warn!(partition, %cause, "cannot take an assigned partition");
            }
        }
        if let Err(cause) = give(&self.consumer, &at_end) {
            warn!(%cause, "cannot take the assignment");
            return;
        }
        if let Err(cause) = self.consumer.pause(&at_end) {
            warn!(%cause, "cannot pause the assignment");
        }
        if self.is_fenced() {
            // Nobody knows whose they are.
            return;
        }
        self.has_joined = true;
        self.refusal = None;
        self.assigned.extend(ids(&at_end).into_iter().filter(|partition| *partition < self.partitions));
        info!(partitions = ?ids(&at_end), "assigned");
        self.show();
    }

    fn begin_giving(&mut self, partitions: TopicPartitionList) {
        if self.consumer.assignment_lost() {
            // Somebody else may have them already: the claims are void at once.
            for partition in ids(&partitions) {
                self.claims.remove(&partition);
            }
        }
        if let Some((earlier, _)) = self.revoking.take() {
            self.finish_giving(&earlier);
        }
        info!(partitions = ?ids(&partitions), lost = self.consumer.assignment_lost(), "revoked");
        self.revoking = Some((partitions, Instant::now() + RELEASE_TIMEOUT));
        self.show();
    }

    /// Carries the revocation out, once nothing of it is claimed any more or the time is over.
    fn give_up(&mut self) {
        let Some((partitions, deadline)) = self.revoking.take() else { return };
        let is_claimed = ids(&partitions).iter().any(|partition| self.claims.contains_key(partition));
        if is_claimed && Instant::now() < deadline {
            self.revoking = Some((partitions, deadline));
            return;
        }
        self.finish_giving(&partitions);
    }

    fn finish_giving(&mut self, partitions: &TopicPartitionList) {
        for partition in ids(partitions) {
            if self.claims.remove(&partition).is_some() {
                warn!(partition, "not released in time");
            }
            self.assigned.remove(&partition);
        }
        // Before the group can give it to anybody else: nothing of it is answered from here on.
        self.show();
        if let Err(cause) = take_away(&self.consumer, partitions) {
            warn!(%cause, "cannot give up what is revoked");
        }
    }

    fn show(&self) {
        if let Some(id) = native::member_id(&self.consumer).filter(|_| !self.is_fenced()) {
            self.names.note(&self.lane, id);
        }
        let revoked = self.revoking.iter().flat_map(|(partitions, _)| ids(partitions)).collect();
        self.shown.send_replace(Assignment { assigned: self.assigned.clone(), revoked });
    }

    /// Whether the group has given the partition to this lane and not asked for it back.
    pub(super) fn may_claim(&self, partition: u32) -> bool {
        self.assigned.contains(&partition) && !self.is_revoked(partition)
    }

    /// Whether the group wants the partition back.
    pub(super) fn is_revoked(&self, partition: u32) -> bool {
        self.revoking.as_ref().is_some_and(|(partitions, _)| ids(partitions).contains(&partition))
    }

    /// The epoch of a new claim, which voids the one before.
    pub(super) fn claim(&mut self, partition: u32) -> u64 {
        self.claims_made = self.claims_made.saturating_add(1);
        self.claims.insert(partition, self.claims_made);
        self.claims_made
    }

    pub(super) fn release(&mut self, partition: u32) {
        self.claims.remove(&partition);
    }

    pub(super) fn release_all(&mut self) {
        self.claims.clear();
    }

    pub(super) fn is_claimed(&self, partition: u32, epoch: u64) -> bool {
        self.claims.get(&partition) == Some(&epoch)
    }

    /// Whether the coordinator has refused this member's name for good: another process has taken it, or the client library has
    /// forgotten what the coordinator calls the member.
    pub(super) fn is_fenced(&self) -> bool {
        let fatal = self.consumer.client().fatal_error();
        fatal.is_some_and(|(code, _)| code == RDKafkaErrorCode::FencedInstanceId)
    }

    /// Who has this member's name, by a look at the group after it was fenced; `None` while there was none.
    pub(super) fn holder(&self, fenced_at: Instant) -> Option<Holder> {
        self.names.holder(&self.lane, fenced_at, Instant::now())
    }

    /// Takes everything for lost, as a member has to that was fenced.
    pub(super) fn lose_all(&mut self) {
        self.claims.clear();
        self.assigned.clear();
        self.has_joined = false;
        self.names.forget(&self.lane);
        self.show();
    }

    /// Takes its place in the group anew, as a process does that comes back: with nothing, until the group has given it something.
    pub(super) fn renew(&mut self) -> Result<(), KafkaError> {
        let renewed = self.settings.member(&self.lane).create_with_context(Rebalances::default())?;
        self.close();
        // The former one is closed with this; a static member does not leave by that.
        self.consumer = renewed;
        self.lose_all();
        if std::mem::take(&mut self.is_subscribed) { self.join() } else { Ok(()) }
    }

    /// The group's metadata of now, with a generation that fences; `None` while the lane is not a member.
    pub(super) fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        native::member_id(&self.consumer).and_then(|_| self.consumer.group_metadata())
    }

    /// The offset list of a transaction, with block number and stamp beside each offset.
    pub(super) fn offsets<'a>(&self, positions: impl Iterator<Item = &'a Position>) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        for position in positions {
            let mut place = list.add_partition(&self.topic, position.partition as i32);
            place.set_offset(Offset::Offset(i64::try_from(position.commands).unwrap_or(i64::MAX)))?;
            place.set_metadata(super::record::metadata(position));
        }
        Ok(list)
    }

    /// [`Error::Refused`] where the application has gone elsewhere.
    pub(super) fn stays(&self) -> Result<(), Error> {
        departure::noted(&self.consumer, &self.group)?.map_or(Ok(()), |place| Err(Error::Refused(departure::gone(&place))))
    }

    /// The committed positions, read when no transaction on them is open any more.
    pub(super) fn committed(&self, partitions: &[u32]) -> Result<BTreeMap<u32, Position>, Error> {
        positions::committed(&self.consumer, &self.topic, partitions)
    }

    /// Gives up what is revoked, before the consumer is dropped.
    fn close(&mut self) {
        // Closing polls the consumer: from here on a revocation is carried out where it is told.
        self.consumer.context().close();
        while let Some(change) = self.consumer.context().next() {
            if let Change::Revoked(partitions) = change {
                self.finish_giving(&partitions);
            }
        }
        if let Some((partitions, _)) = self.revoking.take() {
            self.finish_giving(&partitions);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.close();
    }
}

fn ids(partitions: &TopicPartitionList) -> Vec<u32> {
    partitions.elements().iter().map(|place| place.partition() as u32).collect()
}
