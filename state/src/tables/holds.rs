//! Holds by the payment for which money is held.

use finflow_ledger::{Currency, Hold, Money, PaymentId, WalletId};
use serde::{Deserialize, Serialize};

use super::{Table, Tag, untagged};
use crate::codec::{self, Error};

/// Payment id -> hold.
#[derive(Debug)]
pub struct Holds;

const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct HoldV1<'a> {
    wallet: &'a str,
    currency: u16,
    minor: i128,
}

impl Table for Holds {
    const TAG: Tag = Tag::Holds;
    type Key = PaymentId;
    type Value = Hold;

    fn encode_key(key: &PaymentId, out: &mut Vec<u8>) {
        out.push(Tag::Holds as u8);
        out.extend_from_slice(key.as_bytes());
    }

    fn decode_key(bytes: &[u8]) -> Result<PaymentId, Error> {
        let bytes = untagged(Tag::Holds, bytes)?.try_into().map_err(|_| Error::Value("a payment id"))?;
        Ok(PaymentId::from_bytes(bytes))
    }

    fn encode(hold: &Hold, out: &mut Vec<u8>) {
        let row = HoldV1 { wallet: hold.wallet.as_str(), currency: hold.amount.currency().numeric(), minor: hold.amount.minor() };
        codec::write(FORMAT, &row, out);
    }

    fn decode(_key: &PaymentId, bytes: &[u8]) -> Result<Hold, Error> {
        let row: HoldV1<'_> = codec::read(FORMAT, bytes)?;
        let currency = Currency::from_numeric(row.currency).ok_or(Error::Value("a currency"))?;
        let wallet = WalletId::parse(row.wallet).ok_or(Error::Value("a wallet id"))?;
        Ok(Hold { wallet, amount: Money::from_minor(row.minor, currency) })
    }

    fn size(_key: &PaymentId, hold: &Hold) -> usize {
        64 + hold.wallet.as_str().len()
    }
}
