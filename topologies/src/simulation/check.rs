//! What must hold when everything has come to rest, checked against log and stores alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use finflow_ledger::{Currency, PaymentId, PaymentState, SystemAccount};
use finflow_state::{Accounts, MemoryStore, Payments, Store, Timers, Wallets, store};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::audit;
use super::fault::{Fault, Kind};
use super::workload::{Workload, asked};
use crate::log::simulated::SimulatedLog;
use crate::log::{Log, Record};
use crate::partition::Outcome;
use crate::restore::restore;
use crate::topics::{Topic, partition_of_payment};

/// A world at rest.
pub(super) struct AtRest<'a> {
    pub(super) log: &'a SimulatedLog,
    pub(super) stores: &'a [Arc<MemoryStore>],
    pub(super) workload: &'a Workload,
    /// What those who waited were told.
    pub(super) told: &'a [Outcome],
}

/// Every record of a topic, in the order of each partition.
pub(super) fn records(log: &SimulatedLog, topic: Topic) -> Vec<Record> {
    let from = |partition| log.range(topic, partition).map_or(0, |range| range.start);
    let all = (0..log.partitions()).filter_map(|partition| log.fetch(topic, partition, from(partition), usize::MAX).ok());
    all.flat_map(|fetched| fetched.records).collect()
}

/// How many payments have said that they wait for too long.
pub(super) fn reminders(log: &SimulatedLog) -> u64 {
    let is_one = |record: &Record| {
        record.value.as_ref().is_some_and(|value| value.starts_with(br#"{"event":"payment.requires_attention""#))
    };
    records(log, Topic::Events).iter().filter(|record| is_one(record)).count() as u64
}

/// Everything that was ever committed, in 256 bits.
pub(super) fn history(log: &SimulatedLog, mut digest: Sha256) -> [u8; 32] {
    for record in Topic::ALL.into_iter().flat_map(|topic| records(log, topic)) {
        digest.update(record.offset.to_le_bytes());
        digest.update(record.timestamp_ms.to_le_bytes());
        for part in [record.key, record.value, Some(record.headers.as_bytes().clone())] {
            digest.update(part.as_ref().map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            digest.update(part.unwrap_or_default());
        }
    }
    digest.finalize().into()
}

impl AtRest<'_> {
    /// Everything that is wrong.
    pub(super) fn faults(&self) -> Result<Vec<Fault>, store::Error> {
        let mut faults = Vec::new();
        let events: Vec<_> = records(self.log, Topic::Events).into_iter().filter_map(|record| record.value).collect();
        let mut audited = audit(events.iter().map(|event| &event[..]));
        faults.append(&mut audited.faults);
        faults.extend(events.iter().filter_map(|event| self.not_asked(event)));
        let dead_letters = records(self.log, Topic::Dlq).len();
        if dead_letters != self.workload.poison {
            let text = format!("{dead_letters} dead letters of {} records that are not commands", self.workload.poison);
            faults.push(Fault::new(Kind::DeadLetters, text));
        }

        let mut states: BTreeMap<[u8; 16], PaymentState> = BTreeMap::new();
        let mut transit: BTreeMap<(u32, u32, Currency), i128> = BTreeMap::new();
        let mut balances: BTreeMap<String, i128> = BTreeMap::new();
        for (partition, held) in (0..).zip(self.stores) {
            let verified = store::verify(&**held)?;
            let differences = verified.differences.into_iter();
            faults.extend(differences.map(|found| Fault::new(Kind::RowsWrong, format!("partition {partition}: {found}"))));
            if verified.holds != 0 {
                let text = format!("partition {partition}: {} holds are left", verified.holds);
                faults.push(Fault::new(Kind::HoldLeft, text));
            }
            let mut timers = 0_u64;
            store::visit_rows::<Timers>(&**held, |_, _| timers += 1)?;
            if timers != 0 {
                faults.push(Fault::new(Kind::TimerLeft, format!("partition {partition}: {timers} timers are left")));
            }
            self.read(partition, &**held, &mut states, &mut transit, &mut balances)?;
            faults.extend(self.rebuilt(partition, &**held).err());
        }
        for ((low, high, currency), sum) in transit.into_iter().filter(|(_, sum)| *sum != 0) {
            let text = format!("in transit between {low} and {high}: {sum} minor units of {currency}");
            faults.push(Fault::new(Kind::InTransit, text));
        }
        faults.extend(self.payments(&states));
        let audited: BTreeMap<String, i128> =
            audited.balances.into_iter().map(|(wallet, (_, balance))| (wallet, balance)).collect();
        if audited != balances {
            let text = format!("the events say {audited:?}, the stores hold {balances:?}");
            faults.push(Fault::new(Kind::EventsDiffer, text));
        }
        Ok(faults)
    }

    /// A payment that was settled and that nobody has asked for in this way.
    fn not_asked(&self, event: &[u8]) -> Option<Fault> {
        let event: Value = serde_json::from_slice(event).ok()?;
        if event.get("event")? != "payment.settled" {
            return None;
        }
        let done = asked(event.get("payment")?.as_str()?.to_owned(), &event);
        let is_asked = self.workload.asked.contains(&done);
        (!is_asked).then(|| Fault::new(Kind::NotAsked, format!("nobody has asked for {}", done.join(" "))))
    }

    fn read(
        &self,
        partition: u32,
        held: &dyn Store,
        states: &mut BTreeMap<[u8; 16], PaymentState>,
        transit: &mut BTreeMap<(u32, u32, Currency), i128>,
        balances: &mut BTreeMap<String, i128>,
    ) -> Result<(), store::Error> {
        store::visit_rows::<Payments>(held, |id, payment| {
            if partition_of_payment(id, self.log.partitions()) == partition {
                states.insert(*id.as_bytes(), payment.state);
            }
        })?;
        store::visit_rows::<Wallets>(held, |id, wallet| {
            balances.insert(id.as_str().to_owned(), wallet.ledger().minor());
        })?;
        store::visit_rows::<Accounts>(held, |(kind, currency), balance| {
            if let SystemAccount::InTransit(other) = kind {
                *transit.entry((partition.min(other), partition.max(other), currency)).or_default() += balance;
            }
        })
    }

    /// The store is what the journal says.
    fn rebuilt(&self, partition: u32, held: &dyn Store) -> Result<(), Fault> {
        let failed = |error: &dyn std::fmt::Display| Fault::new(Kind::NotRestored, format!("partition {partition}: {error}"));
        let mut session = self.log.session("check").map_err(|error| failed(&error))?;
        let claim = session.claim(partition).map_err(|error| failed(&error))?;
        let fresh = MemoryStore::default();
        let head = restore(self.log, &fresh, partition, claim.position.as_ref()).map_err(|error| failed(&error))?;
        let digest = |store: &dyn Store| store::digest(store).map_err(|error| failed(&error));
        let end = self.log.range(Topic::Commands, partition).map_err(|error| failed(&error))?.end;
        if head.positions.commands != end {
            let text = format!("partition {partition}: commands end at {end}, {} is committed", head.positions.commands);
            return Err(Fault::new(Kind::PositionBehind, text));
        }
        if held.head() != Some(head) || digest(&fresh)? != digest(held)? {
            return Err(Fault::new(Kind::StoreDiffers, format!("partition {partition}: the store is not what the journal says")));
        }
        Ok(())
    }

    fn payments(&self, states: &BTreeMap<[u8; 16], PaymentState>) -> Vec<Fault> {
        let mut faults = Vec::new();
        for id in &self.workload.payments {
            let state = states.get(id);
            if !state.is_some_and(|state| state.is_terminal()) {
                let text = format!("payment {} is {state:?} at the end", PaymentId::from_bytes(*id));
                faults.push(Fault::new(Kind::PaymentLost, text));
            }
        }
        if states.len() != self.workload.payments.len() {
            let text = format!("{} payments were asked for, {} are held", self.workload.payments.len(), states.len());
            faults.push(Fault::new(Kind::PaymentLost, text));
        }
        for Outcome { payment, state } in self.told.iter().filter(|told| told.state.is_terminal()) {
            let held = states.get(payment.as_bytes());
            if held != Some(state) {
                faults.push(Fault::new(Kind::ToldWrong, format!("payment {payment} was told to be {state:?} and is {held:?}")));
            }
        }
        faults
    }
}
