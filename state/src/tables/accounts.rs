//! System accounts by kind and currency.

use finflow_ledger::{Currency, SystemAccount};
use serde::{Deserialize, Serialize};

use super::{Table, Tag, untagged};
use crate::codec::{self, Error};

/// (kind, currency) -> balance in minor units.
#[derive(Debug)]
pub struct Accounts;

const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct AccountV1 {
    balance: i128,
}

impl Table for Accounts {
    const TAG: Tag = Tag::Accounts;
    type Key = (SystemAccount, Currency);
    type Value = i128;

    fn encode_key((kind, currency): &Self::Key, out: &mut Vec<u8>) {
        let (kind, partition) = match kind {
            SystemAccount::Treasury => (0, 0),
            SystemAccount::InTransit(partition) => (1, *partition),
            SystemAccount::Suspense => (2, 0),
            SystemAccount::Fees => (3, 0),
            SystemAccount::Rescale => (4, 0),
        };
        out.push(Tag::Accounts as u8);
        out.push(kind);
        out.extend_from_slice(&partition.to_be_bytes());
        out.extend_from_slice(&currency.numeric().to_be_bytes());
    }

    fn decode_key(bytes: &[u8]) -> Result<Self::Key, Error> {
        let Ok([kind, a, b, c, d, e, f]) = <[u8; 7]>::try_from(untagged(Tag::Accounts, bytes)?) else {
            return Err(Error::Value("an account key"));
        };
        let kind = match (kind, u32::from_be_bytes([a, b, c, d])) {
            (0, 0) => SystemAccount::Treasury,
            (1, partition) => SystemAccount::InTransit(partition),
            (2, 0) => SystemAccount::Suspense,
            (3, 0) => SystemAccount::Fees,
            (4, 0) => SystemAccount::Rescale,
            _ => return Err(Error::Value("an account")),
        };
        let currency = Currency::from_numeric(u16::from_be_bytes([e, f])).ok_or(Error::Value("a currency"))?;
        Ok((kind, currency))
    }

    fn encode(balance: &i128, out: &mut Vec<u8>) {
        codec::write(FORMAT, &AccountV1 { balance: *balance }, out);
    }

    fn decode(_key: &Self::Key, bytes: &[u8]) -> Result<i128, Error> {
        codec::read::<AccountV1>(FORMAT, bytes).map(|row| row.balance)
    }

    fn size(_key: &Self::Key, _balance: &i128) -> usize {
        48
    }
}
