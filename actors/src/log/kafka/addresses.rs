//! Where owners are asked: for each partition the member that has it and its address, as the metadata of an offset that a group without
//! members commits. A static member keeps for life whatever else the group's own description could carry.
//!
//! It is not fenced and need not be: what was said counts only if the group names its speaker as the owner.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use finflow_topologies::Topic;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, warn};

use super::context::Quiet;
use super::errors::is_unauthorized;
use super::positions;
use super::settings::{Settings, addresses_group};

/// How often what was said is read again though all of it is known: offsets expire where nobody renews them.
const RENEW_AFTER: Duration = Duration::from_secs(3_600);

/// How long nothing is asked where this principal may not: every try takes as long as a look may.
const BARRED_FOR: Duration = Duration::from_secs(10);

pub(super) struct Addresses {
    client: BaseConsumer<Quiet>,
    group: String,
    topic: String,
    partitions: u32,
    advertised: Option<String>,
    /// When everything was known to be right.
    renewed_at: Instant,
    /// When it was last told that this principal may not.
    barred_at: Option<Instant>,
}

impl Addresses {
    pub(super) fn new(settings: &Settings, partitions: u32) -> Result<Addresses, KafkaError> {
        Ok(Addresses {
            client: settings.addresses().create_with_context(Quiet)?,
            group: addresses_group(&settings.prefix),
            topic: Topic::Commands.name(&settings.prefix),
            partitions,
            advertised: settings.advertised.clone(),
            renewed_at: Instant::now(),
            barred_at: None,
        })
    }

    /// Reads what was said, if an address is `wanted`, and says where this process is asked for those that are its member's.
    pub(super) fn look(
        &mut self,
        wanted: &BTreeMap<u32, Option<String>>,
        budget: Duration,
    ) -> Option<BTreeMap<u32, (String, String)>> {
        if wanted.is_empty() {
            // Forgetting all has it read and said anew.
            let is_due = RENEW_AFTER < self.renewed_at.elapsed();
            self.renewed_at = if is_due { Instant::now() } else { self.renewed_at };
            return is_due.then(BTreeMap::new);
        }
        if self.is_barred() {
            return None;
        }
        self.say(wanted);
        match self.read(budget) {
            Ok(read) => {
                self.barred_at = None;
                Some(read)
            }
            Err(cause) => {
                debug!(%cause, "the addresses of owners cannot be read");
                // The library tells of a refusal once, and then only that no answer has come in time.
                if is_unauthorized(&cause) || self.barred_at.is_some() {
                    self.bar();
                }
                None
            }
        }
    }

    /// Whether the brokers have said lately that this principal may not. Other errors are told by what does not come.
    fn is_barred(&mut self) -> bool {
        while let Some(told) = self.client.poll(Duration::ZERO) {
            if told.is_err_and(|error| is_unauthorized(&error)) {
                self.bar();
            }
        }
        self.barred_at.is_some_and(|at| at.elapsed() < BARRED_FOR)
    }

    fn bar(&mut self) {
        if self.barred_at.is_none() {
            warn!("not authorized: Read on group {}: other processes cannot be asked, nor ask this one", self.group);
        }
        self.barred_at = Some(Instant::now());
    }

    fn say(&self, wanted: &BTreeMap<u32, Option<String>>) {
        let Some(address) = &self.advertised else { return };
        let mut list = TopicPartitionList::new();
        for (partition, member) in wanted {
            let Some(member) = member else { continue };
            let mut place = list.add_partition(&self.topic, *partition as i32);
            place.set_metadata(format!("{member} {address}"));
            if let Err(cause) = place.set_offset(Offset::Offset(0)) {
                debug!(partition, %cause, "an address cannot be said");
            }
        }
        // Whether it was taken shows when it is read; until then it is said again.
        if list.count() != 0
            && let Err(cause) = self.client.commit(&list, CommitMode::Async)
        {
            debug!(%cause, "the addresses of this process cannot be said");
        }
    }

    /// Everything that was said: by which member, and its address.
    pub(super) fn read(&self, budget: Duration) -> Result<BTreeMap<u32, (String, String)>, KafkaError> {
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition(&self.topic, partition as i32);
        }
        let found = positions::seen(&self.client, list, budget)?;
        let said = |text: &str| text.rsplit_once(' ').map(|(member, address)| (member.to_owned(), address.to_owned()));
        let places = found.elements();
        Ok(places.iter().filter_map(|place| Some((place.partition() as u32, said(place.metadata())?))).collect())
    }
}
