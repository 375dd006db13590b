//! System accounts: the other side of what wallets do. They exist once per partition, so that nothing is a hot spot.

use std::fmt;

use crate::{Currency, Money, MoneyError, WalletId};

/// What a system account is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SystemAccount {
    /// Where money comes from before a partner exists; negative by all that was topped up.
    Treasury,
    /// Money on its way to or from another partition.
    InTransit(u32),
    /// Money without an owner, for example what comes back for a closed wallet.
    Suspense,
    /// Fees earned.
    Fees,
    /// What a partition was given or had taken from it when the number of partitions changed; over all partitions it sums to zero.
    Rescale,
}

impl fmt::Display for SystemAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SystemAccount::Treasury => f.write_str("treasury"),
            SystemAccount::InTransit(partition) => write!(f, "in_transit:{partition}"),
            SystemAccount::Suspense => f.write_str("suspense"),
            SystemAccount::Fees => f.write_str("fees"),
            SystemAccount::Rescale => f.write_str("rescale"),
        }
    }
}

/// An account of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountRef {
    /// A wallet.
    Wallet(WalletId),
    /// A system account.
    System(SystemAccount),
}

/// A system account in one currency. Its balance may have either sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    kind: SystemAccount,
    balance: Money,
}

impl Account {
    /// The account with `balance_minor` minor units.
    pub fn new(kind: SystemAccount, currency: Currency, balance_minor: i128) -> Account {
        Account { kind, balance: Money::from_minor(balance_minor, currency) }
    }

    /// What it is for.
    pub fn kind(&self) -> SystemAccount {
        self.kind
    }

    /// Its currency.
    pub fn currency(&self) -> Currency {
        self.balance.currency()
    }

    /// Its balance.
    pub fn balance(&self) -> Money {
        self.balance
    }

    /// Adds `by`, which may be negative.
    pub fn post(&mut self, by: Money) -> Result<(), MoneyError> {
        self.balance = self.balance.checked_add(by)?;
        Ok(())
    }
}
