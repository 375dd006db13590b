//! Where a row lives when there is another number of partitions: with its home wallet.
//!
//! Payments, and what hangs on them, carry the hash of their home wallet in their id; so it takes no look at any other row.

use finflow_ledger::Money;
use finflow_state::{Accounts, Holds, Payments, Table, Tag, Timers, Wallets, codec};

use crate::topics::{partition_of_payment, partition_of_wallet};

/// Where a row goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// To this partition, as it stands; a wallet with its ledger balance.
    Partition(u32, Option<Money>),
    /// Into the books, which are opened anew.
    Books((finflow_ledger::SystemAccount, finflow_ledger::Currency), i128),
    /// To partition 0, where it is known where the application came from.
    Origins,
}

/// The home of a row among so many partitions.
///
/// # Errors
/// It is no row, or a hold of another wallet than its payment's.
pub fn home(key: &[u8], value: &[u8], partitions: u32) -> Result<Home, codec::Error> {
    match Tag::of(key).ok_or(codec::Error::Value("a row of a known table"))? {
        Tag::Wallets => {
            let id = Wallets::decode_key(key)?;
            let wallet = Wallets::decode(&id, value)?;
            Ok(Home::Partition(partition_of_wallet(&id, partitions), Some(wallet.ledger())))
        }
        Tag::Payments => Ok(Home::Partition(partition_of_payment(Payments::decode_key(key)?, partitions), None)),
        Tag::Holds => {
            let id = Holds::decode_key(key)?;
            let home = partition_of_payment(id, partitions);
            let wallet = Holds::decode(&id, value)?.wallet;
            let is_at_home = partition_of_wallet(&wallet, partitions) == home;
            is_at_home.then_some(Home::Partition(home, None)).ok_or(codec::Error::Value("a hold of its payment's home wallet"))
        }
        Tag::Timers => Ok(Home::Partition(partition_of_payment(Timers::decode_key(key)?.1, partitions), None)),
        Tag::Accounts => {
            let account = Accounts::decode_key(key)?;
            Ok(Home::Books(account, Accounts::decode(&account, value)?))
        }
        Tag::Origins => Ok(Home::Origins),
        Tag::Store => Err(codec::Error::Value("a row of the state")),
    }
}
