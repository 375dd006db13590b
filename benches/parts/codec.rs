//! The codecs: a command read, an event written, a payment's row and a block of a hundred transfers written and read.

use bytes::Bytes;
use finflow_ledger::{
    CommandKind, Coordinates, Country, Currency, IdempotencyKey, Money, Payment, PaymentId, PaymentState, Tenant, Wallet,
    WalletId, WalletKind, WalletParts, WalletStatus,
};
use finflow_state::{EncodedBlock, Generation, Header, Overlay, Payments, Positions, Stamp, Table};
use finflow_topologies::log::Headers;
use finflow_topologies::topics::payment_id;
use finflow_topologies::wire::v1::{AmountEcho, Event, EventName, Snapshot, TimeText, decode};

use crate::measure;

/// Transfers of one block.
const TRANSFERS: u32 = 100;

const COMMAND: &str = concat!(
    r#"{"type":"transfer","tenant":"acme","idempotency_key":"order-000001","wallet":"wallet-4711","#,
    r#""to":"wallet-815","amount":"12.50","currency":"AED"}"#,
);

pub(crate) fn payment(number: u64) -> Payment {
    let (tenant, wallet) = (Tenant::parse("acme"), WalletId::parse(&format!("wallet-{number}")));
    let (tenant, wallet) = (tenant.expect("a tenant"), wallet.expect("an id"));
    let key = IdempotencyKey::parse(&format!("order-{number}")).expect("a key");
    Payment {
        id: payment_id(&tenant, &wallet, &key),
        kind: CommandKind::Transfer,
        tenant,
        wallet,
        key,
        fingerprint: [9; 16],
        state: PaymentState::Settled,
        reason: None,
        amount: Some(Money::from_minor(1_250, currency())),
        amount_given: None,
        to: WalletId::parse("wallet-815"),
        reference: None,
        metadata: vec![],
        correlation: None,
        traceparent: None,
        source: Coordinates { partition: 3, offset: number },
        created_ms: 1_700_000_000_000,
        updated_ms: 1_700_000_000_005,
        received_ms: 1_699_999_999_990,
    }
}

pub(crate) fn wallet(number: u64) -> Wallet {
    Wallet::from_parts(WalletParts {
        id: WalletId::parse(&format!("wallet-{number}")).expect("an id"),
        tenant: Tenant::parse("acme").expect("a tenant"),
        currency: currency(),
        country: Country::parse("AE").expect("a country"),
        kind: WalletKind::Personal,
        holder: "A holder".into(),
        status: WalletStatus::Open,
        available: 123_456,
        held: 0,
        seq: number,
    })
    .expect("consistent balances")
}

fn currency() -> Currency {
    Currency::parse("AED").expect("a currency")
}

/// What `count` transfers from number `from` on leave behind in one partition.
pub(crate) fn overlay(from: u64, count: u32) -> Overlay {
    let mut overlay = Overlay::default();
    for number in from..from + u64::from(count) {
        let payment = payment(number);
        overlay.payments.insert_new(payment.id, payment);
        for wallet in [wallet(number * 7 % 100_000), wallet(number * 13 % 100_000)] {
            overlay.wallets.put(wallet.id().clone(), wallet);
        }
    }
    overlay
}

pub(crate) fn header(number: u64) -> Header {
    let stamp = |counter| Stamp { lane: "finflow-1-lane-0".into(), incarnation: 7, counter };
    Header {
        generation: Generation([1; 16]),
        partition: 0,
        number,
        stamp: if number == 0 { Stamp::genesis() } else { stamp(number) },
        previous: if number <= 1 { Stamp::genesis() } else { stamp(number - 1) },
        at_ms: 1_700_000_000_000,
        positions: Positions { commands: number, postings: number },
        sent: vec![],
        received: vec![],
    }
}

pub(crate) fn all() {
    measure("codec: decode a transfer", 1, || decode(Some(COMMAND.as_bytes()), &Headers::default()).expect("a command"));
    let payment = payment(1);
    let wallet = wallet(1);
    let event = Event {
        name: EventName::PaymentSettled,
        payment: payment.id,
        tenant: &payment.tenant,
        wallet: &payment.wallet,
        snapshot: Some(Snapshot { wallet_seq: 7, available: wallet.available(), held: wallet.held(), ledger: wallet.ledger() }),
        kind: payment.kind,
        amount: AmountEcho::Money(Money::from_minor(1_250, currency())),
        at: TimeText::new(payment.created_ms),
        key: &payment.key,
        correlation: None,
        traceparent: None,
        to: payment.to.as_ref(),
        from: None,
        reason: None,
        reference: None,
        metadata: &[],
        source: payment.source,
    };
    measure("codec: encode an event", 1, || event.encode("finflow"));
    measure("codec: a payment's id", 1, || -> PaymentId { payment_id(&payment.tenant, &payment.wallet, &payment.key) });
    let mut row = Vec::new();
    measure("codec: encode a payment's row", 1, || {
        row.clear();
        Payments::encode(&payment, &mut row);
    });
    measure("codec: decode a payment's row", 1, || Payments::decode(&payment.id, &row).expect("a row"));
    let (overlay, header) = (overlay(0, TRANSFERS), header(1));
    measure("codec: encode a block, per transfer", TRANSFERS, || EncodedBlock::encode(&header, &overlay));
    let bytes: Bytes = EncodedBlock::encode(&header, &overlay).bytes().clone();
    measure("codec: parse a block, per transfer", TRANSFERS, || EncodedBlock::parse(bytes.clone()).expect("a block"));
}
