//! Golden rows and round trips of every table. A frozen row must read as it did when it was written, for ever.

use std::sync::Arc;

use finflow_ledger::{
    CommandKind, Coordinates, Country, Currency, Hold, IdempotencyKey, Money, Payment, PaymentId, PaymentState, Rejection,
    SystemAccount, Tenant, Wallet, WalletId, WalletKind, WalletParts, WalletStatus,
};
use proptest::prelude::*;

use super::{Accounts, End, Holds, Origin, Origins, Payments, Table, TimerKind, Timers, Wallets};
use crate::journal::Generation;

/// Writes the row, compares it with the frozen bytes, and reads both back.
fn check<T: Table>(key: &T::Key, value: &T::Value, frozen: &str)
where
    T::Key: std::fmt::Debug,
    T::Value: std::fmt::Debug + PartialEq,
{
    let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
    T::encode_key(key, &mut key_bytes);
    T::encode(value, &mut value_bytes);
    assert_eq!(T::decode_key(&key_bytes).as_ref(), Ok(key));
    assert_eq!(T::decode(key, &value_bytes).as_ref(), Ok(value));
    let written = format!("{} {}", hex(&key_bytes), hex(&value_bytes));
    assert_eq!(written, frozen, "the format of table {:?} has changed", T::TAG);
    is_sized::<T>(key, value);
    for length in 0..value_bytes.len() {
        assert!(T::decode(key, &value_bytes[..length]).is_err(), "a row cut to {length} bytes was read");
    }
}

/// What an epoch counts for a row is never less than what its block then holds: key, value and their lengths.
fn is_sized<T: Table>(key: &T::Key, value: &T::Value) {
    let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
    T::encode_key(key, &mut key_bytes);
    T::encode(value, &mut value_bytes);
    assert!(6 + key_bytes.len() + value_bytes.len() <= T::size(key, value), "a row of {:?} is larger than it counts", T::TAG);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn currency() -> Currency {
    Currency::parse("KWD").expect("a known currency")
}

fn wallet() -> Wallet {
    Wallet::from_parts(WalletParts {
        id: WalletId::parse("alice").expect("an id"),
        tenant: Tenant::parse("acme").expect("a tenant"),
        currency: currency(),
        country: Country::parse("KW").expect("a country"),
        kind: WalletKind::Merchant,
        holder: "Alice".into(),
        status: WalletStatus::Frozen,
        available: 1_234,
        held: 5,
        seq: 7,
    })
    .expect("consistent balances")
}

fn payment() -> Payment {
    Payment {
        id: PaymentId::from_bytes([7; 16]),
        kind: CommandKind::Transfer,
        tenant: Tenant::parse("acme").expect("a tenant"),
        wallet: WalletId::parse("alice").expect("an id"),
        key: IdempotencyKey::parse("order-1").expect("a key"),
        fingerprint: [9; 16],
        state: PaymentState::Rejected,
        reason: Some(Rejection::CounterpartyFrozen),
        amount: Some(Money::from_minor(12_500, currency())),
        amount_given: Some("12.5".into()),
        to: WalletId::parse("bob"),
        reference: Some("invoice 7".into()),
        metadata: vec![("a".into(), "b".into())],
        correlation: Some("c-1".into()),
        traceparent: None::<Arc<str>>,
        source: Coordinates { partition: 3, offset: 99 },
        created_ms: 1_700_000_000_000,
        updated_ms: 1_700_000_000_005,
        received_ms: 1_699_999_999_990,
    }
}

#[test]
fn rows_are_written_as_they_always_were() {
    let id = PaymentId::from_bytes([7; 16]);
    check::<Wallets>(&WalletId::parse("alice").expect("an id"), &wallet(), include_str!("../../tests/fixtures/wallet.v1").trim());
    check::<Payments>(&id, &payment(), include_str!("../../tests/fixtures/payment.v1").trim());
    let hold = Hold { wallet: WalletId::parse("alice").expect("an id"), amount: Money::from_minor(5, currency()) };
    check::<Holds>(&id, &hold, include_str!("../../tests/fixtures/hold.v1").trim());
    check::<Timers>(&(1_700_000_000_000, id), &TimerKind::Deadline, include_str!("../../tests/fixtures/timer.v1").trim());
    let key = (SystemAccount::InTransit(5), currency());
    check::<Accounts>(&key, &-1_234, include_str!("../../tests/fixtures/account.v1").trim());
    let key = (SystemAccount::Rescale, currency());
    check::<Accounts>(&key, &-1_234, include_str!("../../tests/fixtures/account.rescale.v1").trim());
    let end = End { topic: "commands".to_owned(), partition: 3, offset: 1_000 };
    let origin = Origin { prefix: "finflow".to_owned(), ends: vec![end] };
    check::<Origins>(&Generation([7; 16]), &origin, include_str!("../../tests/fixtures/origin.v1").trim());
}

#[test]
fn timers_sort_by_time() {
    let key = |due_ms: i64| {
        let mut bytes = Vec::new();
        Timers::encode_key(&(due_ms, PaymentId::from_bytes([0; 16])), &mut bytes);
        bytes
    };
    let keys: Vec<Vec<u8>> = [i64::MIN, -1, 0, 1, 1_700_000_000_000, i64::MAX].into_iter().map(key).collect();
    assert!(keys.is_sorted());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), format_is_one in any::<bool>()) {
        let mut bytes = bytes;
        if format_is_one && !bytes.is_empty() {
            bytes[0] = 1;
        }
        let id = PaymentId::from_bytes([7; 16]);
        let _ = Wallets::decode(&WalletId::parse("a").expect("an id"), &bytes);
        let _ = (Payments::decode(&id, &bytes), Holds::decode(&id, &bytes), Timers::decode(&(0, id), &bytes));
        let _ = (Origins::decode(&Generation([7; 16]), &bytes), Origins::decode_key(&bytes));
        let _ = (Wallets::decode_key(&bytes), Payments::decode_key(&bytes), Accounts::decode_key(&bytes), Timers::decode_key(&bytes));
    }
}
