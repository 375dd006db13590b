//! Wallets by id.

use finflow_ledger::{Country, Currency, Tenant, Wallet, WalletId, WalletKind, WalletParts, WalletStatus};
use serde::{Deserialize, Serialize};

use super::{Table, Tag, untagged};
use crate::codec::{self, Error};

/// Wallet id -> wallet.
#[derive(Debug)]
pub struct Wallets;

const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct WalletV1<'a> {
    tenant: &'a str,
    currency: u16,
    country: &'a str,
    is_merchant: bool,
    holder: &'a str,
    status: u8,
    available: i128,
    held: i128,
    seq: u64,
}

impl Table for Wallets {
    const TAG: Tag = Tag::Wallets;
    type Key = WalletId;
    type Value = Wallet;

    fn encode_key(key: &WalletId, out: &mut Vec<u8>) {
        out.push(Tag::Wallets as u8);
        out.extend_from_slice(key.as_str().as_bytes());
    }

    fn decode_key(bytes: &[u8]) -> Result<WalletId, Error> {
        let text = std::str::from_utf8(untagged(Tag::Wallets, bytes)?).map_err(|_| Error::Value("a wallet id"))?;
        WalletId::parse(text).ok_or(Error::Value("a wallet id"))
    }

    fn encode(wallet: &Wallet, out: &mut Vec<u8>) {
        let parts = wallet.parts();
        let row = WalletV1 {
            tenant: parts.tenant.as_str(),
            currency: parts.currency.numeric(),
            country: parts.country.code(),
            is_merchant: parts.kind == WalletKind::Merchant,
            holder: &parts.holder,
            status: match parts.status {
                WalletStatus::Open => 0,
                WalletStatus::Frozen => 1,
                WalletStatus::Closed => 2,
            },
            available: parts.available,
            held: parts.held,
            seq: parts.seq,
        };
        codec::write(FORMAT, &row, out);
    }

    fn decode(key: &WalletId, bytes: &[u8]) -> Result<Wallet, Error> {
        let row: WalletV1<'_> = codec::read(FORMAT, bytes)?;
        let parts = WalletParts {
            id: key.clone(),
            tenant: Tenant::parse(row.tenant).ok_or(Error::Value("a tenant"))?,
            currency: Currency::from_numeric(row.currency).ok_or(Error::Value("a currency"))?,
            country: Country::parse(row.country).ok_or(Error::Value("a country"))?,
            kind: if row.is_merchant { WalletKind::Merchant } else { WalletKind::Personal },
            holder: row.holder.into(),
            status: match row.status {
                0 => WalletStatus::Open,
                1 => WalletStatus::Frozen,
                2 => WalletStatus::Closed,
                _ => return Err(Error::Value("a wallet status")),
            },
            available: row.available,
            held: row.held,
            seq: row.seq,
        };
        Wallet::from_parts(parts).map_err(|_| Error::Value("consistent balances"))
    }

    fn size(key: &WalletId, wallet: &Wallet) -> usize {
        let parts = wallet.parts();
        72 + key.as_str().len() + parts.tenant.as_str().len() + parts.holder.len()
    }
}
