//! A lane as a member of the consumer group: which partitions of `commands` the group gives it, and how far they are committed.
//!
//! It reads no records: what is assigned is paused at its end, and the lane reads through a [`Reader`](super::reader::Reader) from
//! wherever its state stands. A revocation waits, within a limit, until the lane has let go of what it claimed. What is lost is given up
//! by nobody until it is known that no other process has the name: carried out, it makes the client library join again by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use finflow_topologies::Topic;
use finflow_topologies::log::{Error, Position};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;
use tracing::{info, warn};

use super::context::{Change, Rebalances, give, take_away};
use super::departure;
use super::errors::{forbidden, is_unauthorized, unavailable};
use super::names::{Holder, Names};
use super::record::metadata;
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
    /// Claims that a loss has made void, until they are let go of.
    void: BTreeMap<u32, u64>,
    /// How often each partition was lost.
    losses: BTreeMap<u32, u64>,
    /// The membership was lost, and with it everything: nothing is given up or asked for until [`Member::come_back`].
    is_lost: bool,
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
    /// A member that has not joined yet; where `is_lost` says that one of this process has had the name, only once nobody else has it.
    pub(super) fn new(
        settings: &Settings,
        lane: &str,
        partitions: u32,
        (shown, names): (watch::Sender<Assignment>, Names),
        is_lost: bool,
    ) -> Result<Member, KafkaError> {
        Ok(Member {
            consumer: settings.member(lane).create_with_context(Rebalances::default())?,
            topic: Topic::Commands.name(&settings.prefix),
            group: settings.prefix.clone(),
            assigned: BTreeSet::new(),
            claims: BTreeMap::new(),
            claims_made: 0,
            void: BTreeMap::new(),
            losses: BTreeMap::new(),
            is_lost,
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
        // Who asks for nothing does not join again either.
        if std::mem::take(&mut self.is_lost) {
            self.give_up();
        }
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
        let refusal = self.refusal.as_ref()?;
        Some(match refusal.rdkafka_error_code() {
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => forbidden(&format!("Read on group {}", self.group)),
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => forbidden(&format!("Read on topic {}", self.topic)),
            _ => unavailable(refusal.clone()),
        })
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
        self.notice();
        self.give_up();
    }

    /// Notices a loss of which the client library does not tell, because it has nothing to revoke or the lane still has to let go of what
    /// is. With nothing to revoke it joins again at once, under a name that another process may have by then; and what it asks for on a
    /// wire that is cut arrives when nobody waits for it any more. So who has nothing leaves while it is still a member.
    fn notice(&mut self) {
        if !self.has_joined || self.is_lost || self.is_fenced() {
            return;
        }
        let is_out = native::member_id(&self.consumer).is_none();
        let may_be_empty = self.assigned.is_empty() && self.revoking.is_none();
        let is_unheard = may_be_empty && self.names.is_unheard(Instant::now());
        let is_empty = || self.consumer.assignment().is_ok_and(|given| given.count() == 0);
        if may_be_empty && (is_out || is_unheard) && is_empty() {
            self.consumer.unsubscribe();
            self.lose();
        } else if is_out {
            self.lose();
        }
    }

    fn lose(&mut self) {
        info!("lost everything; the group is asked who has the name");
        self.is_lost = true;
        self.lose_all();
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
        if self.is_fenced() || self.is_lost {
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
        if let Some((earlier, _)) = self.revoking.take() {
            self.finish_giving(&earlier);
        }
        let is_lost = self.consumer.assignment_lost();
        info!(partitions = ?ids(&partitions), lost = is_lost, "revoked");
        self.revoking = Some((partitions, Instant::now() + RELEASE_TIMEOUT));
        if is_lost && !self.is_lost {
            // Somebody else may have them already: the claims are void at once.
            self.lose();
        }
        self.show();
    }

    /// Carries the revocation out, once nothing of it is claimed any more or the time is over; what is lost stays as it is.
    fn give_up(&mut self) {
        if self.is_lost {
            return;
        }
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
            if let Some(epoch) = self.claims.remove(&partition) {
                warn!(partition, "not released in time");
                self.void(partition, epoch);
            }
            self.assigned.remove(&partition);
        }
        // Before the group can give it to anybody else: nothing of it is answered from here on.
        self.show();
        if let Err(cause) = take_away(&self.consumer, partitions) {
            warn!(%cause, "cannot give up what is revoked");
        }
    }

    /// A claim is no good any more, and its lane does not know yet.
    fn void(&mut self, partition: u32, epoch: u64) {
        self.void.insert(partition, epoch);
        let losses = self.losses.entry(partition).or_default();
        *losses = losses.saturating_add(1);
    }

    fn show(&self) {
        if let Some(id) = native::member_id(&self.consumer).filter(|_| !self.is_fenced()) {
            self.names.note(&self.lane, id);
        }
        let revoked = self.revoking.iter().flat_map(|(partitions, _)| ids(partitions)).collect();
        self.shown.send_replace(Assignment { assigned: self.assigned.clone(), revoked, losses: self.losses.clone() });
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
        self.void.remove(&partition);
        self.claims.insert(partition, self.claims_made);
        self.claims_made
    }

    pub(super) fn release(&mut self, partition: u32) {
        self.void.remove(&partition);
        self.claims.remove(&partition);
    }

    pub(super) fn release_all(&mut self) {
        self.claims.clear();
    }

    pub(super) fn is_claimed(&self, partition: u32, epoch: u64) -> bool {
        self.claims.get(&partition) == Some(&epoch)
    }

    /// Whether the claim was good until it was lost, and the lane has not let go of it since.
    pub(super) fn is_void(&self, partition: u32, epoch: u64) -> bool {
        self.void.get(&partition) == Some(&epoch)
    }

    /// Whether the membership was lost, so that another process may have the name.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether the coordinator has refused this member's name for good: another process has taken it, or the client library has
    /// forgotten what the coordinator calls the member.
    pub(super) fn is_fenced(&self) -> bool {
        let fatal = self.consumer.client().fatal_error();
        fatal.is_some_and(|(code, _)| code == RDKafkaErrorCode::FencedInstanceId)
    }

    /// Who has this member's name, by a look at the group that was asked for after it was fenced or lost; `None` while there was none.
    pub(super) fn holder(&self, since: Instant) -> Option<Holder> {
        self.names.holder(&self.lane, since, Instant::now())
    }

    /// Takes everything for lost, as a member has to that was fenced.
    pub(super) fn lose_all(&mut self) {
        for (partition, epoch) in std::mem::take(&mut self.claims) {
            self.void(partition, epoch);
        }
        self.assigned.clear();
        self.has_joined = false;
        self.names.forget(&self.lane);
        self.show();
    }

    /// Goes on after a loss, when no other process has the name: what was lost is given up, by which the client library joins again.
    pub(super) fn come_back(&mut self) -> Result<(), KafkaError> {
        if self.is_fenced() || (self.revoking.is_none() && self.is_subscribed) {
            return self.renew();
        }
        self.is_lost = false;
        self.give_up();
        Ok(())
    }

    /// Takes its place in the group anew, as a process does that comes back: with nothing, until the group has given it something.
    pub(super) fn renew(&mut self) -> Result<(), KafkaError> {
        let renewed = self.settings.member(&self.lane).create_with_context(Rebalances::default())?;
        self.close();
        // The former one is closed with this; a static member does not leave by that.
        self.consumer = renewed;
        self.is_lost = false;
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
            place.set_metadata(metadata(position));
        }
        Ok(list)
    }

    /// [`Error::Refused`] where the application has gone elsewhere.
    pub(super) fn stays(&self) -> Result<(), Error> {
        departure::noted(&self.consumer, &self.group)?.map_or(Ok(()), |place| Err(Error::Refused(departure::gone(&place))))
    }

    /// The committed positions, read when no transaction on them is open any more.
    pub(super) fn committed(&self, partitions: &[u32]) -> Result<BTreeMap<u32, Position>, Error> {
        positions::committed(&self.consumer, (&self.group, &self.topic), partitions)
    }

    /// Gives up what is revoked, before the consumer is dropped.
    fn close(&mut self) {
        if self.revoking.is_some() && (self.is_lost || self.is_fenced()) {
            // The name may be another's: it must not join again in the moment between giving up and being closed.
            self.consumer.unsubscribe();
        }
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
