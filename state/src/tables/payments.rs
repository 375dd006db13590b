//! Payments by id: the record of every command, and so its dedup entry.

use std::sync::Arc;

use finflow_ledger::{
    CommandKind, Coordinates, Currency, IdempotencyKey, Money, Payment, PaymentId, PaymentState, Private, Rejection, Tenant,
    WalletId,
};
use serde::{Deserialize, Serialize};

use super::{Table, Tag, untagged};
use crate::codec::{self, Error};

/// Payment id -> payment.
#[derive(Debug)]
pub struct Payments;

const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct PaymentV1<'a> {
    kind: u8,
    tenant: &'a str,
    wallet: &'a str,
    key: &'a str,
    fingerprint: [u8; 16],
    state: u8,
    /// 0 = none, else the rejection's place in [`Rejection::ALL`] plus one.
    reason: u8,
    amount: Option<(u16, i128)>,
    amount_given: Option<&'a str>,
    to: Option<&'a str>,
    reference: Option<&'a str>,
    #[serde(borrow)]
    metadata: Vec<(&'a str, &'a str)>,
    correlation: Option<&'a str>,
    traceparent: Option<&'a str>,
    partition: u32,
    offset: u64,
    created_ms: i64,
    updated_after_ms: i64,
    received_before_ms: i64,
}

/// The numbers of the kinds and states are frozen; new ones are appended.
const KINDS: [CommandKind; 6] = [
    CommandKind::OpenWallet,
    CommandKind::FreezeWallet,
    CommandKind::UnfreezeWallet,
    CommandKind::CloseWallet,
    CommandKind::Transfer,
    CommandKind::TopUp,
];
const STATES: [PaymentState; 14] = [
    PaymentState::Received,
    PaymentState::Reserved,
    PaymentState::Submitted,
    PaymentState::Unknown,
    PaymentState::RequiresAttention,
    PaymentState::Settled,
    PaymentState::Rejected,
    PaymentState::Failed,
    PaymentState::Cancelled,
    PaymentState::Expired,
    PaymentState::Returned,
    PaymentState::Reversed,
    PaymentState::Refunded,
    PaymentState::Applied,
];

fn number<T: PartialEq>(all: &[T], value: &T) -> u8 {
    all.iter().position(|known| known == value).map_or(u8::MAX, |place| place as u8)
}

impl Table for Payments {
    const TAG: Tag = Tag::Payments;
    type Key = PaymentId;
    type Value = Payment;

    fn encode_key(key: &PaymentId, out: &mut Vec<u8>) {
        out.push(Tag::Payments as u8);
        out.extend_from_slice(key.as_bytes());
    }

    fn decode_key(bytes: &[u8]) -> Result<PaymentId, Error> {
        let bytes = untagged(Tag::Payments, bytes)?.try_into().map_err(|_| Error::Value("a payment id"))?;
        Ok(PaymentId::from_bytes(bytes))
    }

    fn encode(payment: &Payment, out: &mut Vec<u8>) {
        let row = PaymentV1 {
            kind: number(&KINDS, &payment.kind),
            tenant: payment.tenant.as_str(),
            wallet: payment.wallet.as_str(),
            key: payment.key.as_str(),
            fingerprint: payment.fingerprint,
            state: number(&STATES, &payment.state),
            reason: payment.reason.map_or(0, |reason| number(Rejection::ALL, &reason).saturating_add(1)),
            amount: payment.amount.map(|amount| (amount.currency().numeric(), amount.minor())),
            amount_given: payment.amount_given.as_deref(),
            to: payment.to.as_ref().map(WalletId::as_str),
            reference: payment.reference.as_deref(),
            metadata: payment.metadata.iter().map(|(name, value)| (&**name, &**value)).collect(),
            correlation: payment.correlation.as_deref(),
            traceparent: payment.traceparent.as_deref(),
            partition: payment.source.partition,
            offset: payment.source.offset,
            created_ms: payment.created_ms,
            updated_after_ms: payment.updated_ms.saturating_sub(payment.created_ms),
            received_before_ms: payment.created_ms.saturating_sub(payment.received_ms),
        };
        codec::write(FORMAT, &row, out);
    }

    fn decode(key: &PaymentId, bytes: &[u8]) -> Result<Payment, Error> {
        let row: PaymentV1<'_> = codec::read(FORMAT, bytes)?;
        let owned = |text: Option<&str>| text.map(Arc::<str>::from);
        Ok(Payment {
            id: *key,
            kind: *KINDS.get(usize::from(row.kind)).ok_or(Error::Value("a command"))?,
            tenant: Tenant::parse(row.tenant).ok_or(Error::Value("a tenant"))?,
            wallet: WalletId::parse(row.wallet).ok_or(Error::Value("a wallet id"))?,
            key: IdempotencyKey::parse(row.key).ok_or(Error::Value("an idempotency key"))?,
            fingerprint: row.fingerprint,
            state: *STATES.get(usize::from(row.state)).ok_or(Error::Value("a payment state"))?,
            reason: match row.reason.checked_sub(1) {
                None => None,
                Some(place) => Some(*Rejection::ALL.get(usize::from(place)).ok_or(Error::Value("a rejection"))?),
            },
            amount: match row.amount {
                None => None,
                Some((currency, minor)) => {
                    let currency = Currency::from_numeric(currency).ok_or(Error::Value("a currency"))?;
                    Some(Money::from_minor(minor, currency))
                }
            },
            amount_given: owned(row.amount_given),
            to: match row.to {
                None => None,
                Some(to) => Some(WalletId::parse(to).ok_or(Error::Value("a wallet id"))?),
            },
            reference: row.reference.map(Private::from),
            metadata: row.metadata.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            correlation: owned(row.correlation),
            traceparent: owned(row.traceparent),
            source: Coordinates { partition: row.partition, offset: row.offset },
            created_ms: row.created_ms,
            updated_ms: row.created_ms.saturating_add(row.updated_after_ms),
            received_ms: row.created_ms.saturating_sub(row.received_before_ms),
        })
    }

    fn size(_key: &PaymentId, payment: &Payment) -> usize {
        let optional = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
        let metadata: usize = payment.metadata.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        136 + payment.tenant.as_str().len()
            + payment.wallet.as_str().len()
            + payment.key.as_str().len()
            + payment.to.as_ref().map_or(0, |to| to.as_str().len())
            + optional(&payment.amount_given)
            + payment.reference.as_ref().map_or(0, |text| text.len())
            + optional(&payment.correlation)
            + optional(&payment.traceparent)
            + metadata
    }
}
