//! The books of an application whose partitions change: what its system accounts become.
//!
//! Each partition's accounts sum to zero. Money on its way between partitions nets to zero in pairs when nothing is on its way, and is
//! left behind. What remains - treasury, fees, suspense - goes to partition 0, and whatever a partition's accounts then sum to, its
//! `rescale` account takes the other side of. Over all partitions these sum to zero, as those of an earlier change did.

use std::collections::BTreeMap;

use finflow_ledger::{Currency, Money, SystemAccount};

/// The balances of one partition: account and currency to minor units.
pub type Balances = BTreeMap<(SystemAccount, Currency), i128>;

/// The accounts of all partitions, being added up.
#[derive(Debug, Default)]
pub struct Books {
    system: Balances,
    /// By the pair of partitions, the lower one first.
    in_transit: BTreeMap<(u32, u32, Currency), i128>,
    /// Of earlier changes.
    rescaled: BTreeMap<Currency, i128>,
    /// By new partition, what its wallets hold.
    wallets: BTreeMap<(u32, Currency), i128>,
    has_overflowed: bool,
}

impl Books {
    /// Takes in a system account of an old partition.
    pub fn account(&mut self, partition: u32, (kind, currency): (SystemAccount, Currency), minor: i128) {
        let sum = match kind {
            SystemAccount::InTransit(other) => {
                let pair = (partition.min(other), partition.max(other), currency);
                self.in_transit.entry(pair).or_default()
            }
            SystemAccount::Rescale => self.rescaled.entry(currency).or_default(),
            SystemAccount::Treasury | SystemAccount::Suspense | SystemAccount::Fees => {
                self.system.entry((kind, currency)).or_default()
            }
        };
        self.has_overflowed |= !add(sum, minor);
    }

    /// Takes in the ledger balance of a wallet that will live in a new partition.
    pub fn wallet(&mut self, home: u32, ledger: Money) {
        let sum = self.wallets.entry((home, ledger.currency())).or_default();
        self.has_overflowed |= !add(sum, ledger.minor());
    }

    /// The accounts of every new partition that has any, or everything that does not net to zero, in words.
    pub fn open(self) -> Result<BTreeMap<u32, Balances>, Vec<String>> {
        let mut faults = Vec::new();
        for ((one, other, currency), sum) in self.in_transit.iter().filter(|(_, sum)| **sum != 0) {
            faults.push(format!("{sum} minor units of {currency} are in transit between partitions {one} and {other}"));
        }
        for (currency, sum) in self.rescaled.iter().filter(|(_, sum)| **sum != 0) {
            faults.push(format!("the rescale accounts sum to {sum} minor units of {currency}"));
        }
        let mut sums = self.wallets;
        let mut has_overflowed = self.has_overflowed;
        for ((_, currency), minor) in &self.system {
            has_overflowed |= !add(sums.entry((0, *currency)).or_default(), *minor);
        }
        let mut opened: BTreeMap<u32, Balances> = BTreeMap::new();
        let mut all: BTreeMap<Currency, i128> = BTreeMap::new();
        for ((partition, currency), sum) in sums.into_iter().filter(|(_, sum)| *sum != 0) {
            has_overflowed |= !add(all.entry(currency).or_default(), sum);
            let balance = sum.checked_neg();
            has_overflowed |= balance.is_none();
            let balances = opened.entry(partition).or_default();
            balances.insert((SystemAccount::Rescale, currency), balance.unwrap_or_default());
        }
        for (currency, sum) in all.iter().filter(|(_, sum)| **sum != 0) {
            faults.push(format!("all accounts together are off by {sum} minor units of {currency}"));
        }
        if has_overflowed {
            faults.push("a sum is beyond what money can be".to_owned());
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        if !self.system.is_empty() {
            opened.entry(0).or_default().extend(self.system);
        }
        Ok(opened)
    }
}

/// Adds, and says whether there was room.
fn add(sum: &mut i128, minor: i128) -> bool {
    let added = sum.checked_add(minor);
    *sum = added.unwrap_or(*sum);
    added.is_some()
}
