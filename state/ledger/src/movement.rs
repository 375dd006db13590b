//! Double entry: entries that sum to zero, and the trial balance over any set of accounts.

use std::collections::BTreeMap;

use crate::{AccountRef, Currency, Money, MoneyError};

/// One side of a movement: positive adds to the account's balance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The account.
    pub account: AccountRef,
    /// By how much its balance changes.
    pub amount: Money,
}

/// Entries that sum to zero per currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement(Vec<Entry>);

/// Entries that leave something over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entries do not sum to zero")]
pub struct Unbalanced;

impl Movement {
    /// The movement, or what is wrong with it.
    pub fn new(entries: Vec<Entry>) -> Result<Movement, Unbalanced> {
        is_conserved(entries.iter().map(|entry| entry.amount)).then_some(Movement(entries)).ok_or(Unbalanced)
    }

    /// The entries.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }
}

/// The sum per currency, in minor units.
pub fn trial_balance(sums: impl IntoIterator<Item = Money>) -> Result<BTreeMap<Currency, i128>, MoneyError> {
    let mut balance = BTreeMap::new();
    for money in sums {
        let sum: &mut i128 = balance.entry(money.currency()).or_default();
        *sum = sum.checked_add(money.minor()).ok_or(MoneyError::Overflow)?;
    }
    Ok(balance)
}

/// Whether everything sums to zero in every currency.
pub fn is_conserved(sums: impl IntoIterator<Item = Money>) -> bool {
    trial_balance(sums).is_ok_and(|balance| balance.values().all(|sum| *sum == 0))
}
