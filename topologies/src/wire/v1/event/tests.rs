//! The contract's JSON and headers, to the byte.

use finflow_ledger::{CommandKind, Coordinates, Currency, IdempotencyKey, Money, PaymentId, Tenant, WalletId};

use super::{AmountEcho, Event, EventName, Snapshot, TimeText, time_text};

#[test]
fn an_event_is_the_contracts_json_with_cloudevents_headers() {
    let aed = |minor| Money::from_minor(minor, Currency::parse("AED").expect("known"));
    let (tenant, alice, bob) = (Tenant::parse("acme").expect("valid"), WalletId::parse("alice"), WalletId::parse("bob"));
    let key = IdempotencyKey::parse("say \"1\"").expect("valid");
    let event = Event {
        name: EventName::PaymentSettled,
        payment: PaymentId::from_bytes([0; 16]),
        tenant: &tenant,
        wallet: alice.as_ref().expect("valid"),
        snapshot: Some(Snapshot { wallet_seq: 3, available: aed(8_750), held: aed(0), ledger: aed(8_750) }),
        kind: CommandKind::Transfer,
        amount: AmountEcho::Money(aed(1_250)),
        at: TimeText::new(1_700_000_000_123),
        key: &key,
        correlation: None,
        traceparent: None,
        to: bob.as_ref(),
        from: None,
        reason: None,
        reference: Some("r\n1"),
        metadata: &[("a".into(), "b".into())],
        source: Coordinates { partition: 1, offset: 2 },
    };
    let record = event.encode("finflow");
    let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("UTF-8");
    let id = serde_json::from_str::<serde_json::Value>(&value).expect("JSON")["id"].as_str().expect("an id").to_owned();
    let payment = "pay_00000000000000000000000000";
    let expected = format!(
        r#"{{"event":"payment.settled","id":"{id}","payment":"{payment}","tenant":"acme","wallet":"alice","wallet_seq":3,"type":"transfer","amount":"12.50","currency":"AED","at":"2023-11-14T22:13:20.123Z","idempotency_key":"say \"1\"","correlation_id":"{payment}","balance":{{"available":"87.50","held":"0.00","ledger":"87.50"}},"to":"bob","reference":"r\n1","metadata":{{"a":"b"}}}}"#,
    );
    assert_eq!(value, expected);
    assert_eq!(id.len(), 30);
    let header = |name: &str| record.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
    for (name, expected) in [
        ("ce_specversion", "1.0"),
        ("ce_id", &*id),
        ("ce_source", "finflow"),
        ("ce_type", "finflow.payment.settled.v1"),
        ("ce_time", "2023-11-14T22:13:20.123Z"),
        ("ce_subject", "alice"),
        ("content-type", "application/json"),
        ("correlation-id", payment),
    ] {
        assert_eq!(header(name).as_deref(), Some(expected), "{name}");
    }
    let other = Event { name: EventName::PaymentRejected, snapshot: None, amount: AmountEcho::None, ..event };
    let other: serde_json::Value = serde_json::from_slice(&other.encode("finflow").value.expect("a value")).expect("JSON");
    assert!(other["balance"].is_null() && other["wallet_seq"].is_null() && other["amount"].is_null());
    assert_ne!(other["id"], id.as_str());
    let moved = event.encode("finflow2");
    assert!(moved.headers.get("ce_id").is_some_and(|moved| moved != id.as_bytes()), "its topic is another one");
}

#[test]
fn times_are_rfc_3339_with_milliseconds() {
    for (at_ms, expected) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
        (253_402_300_799_000, "9999-12-30T22:00:00.000Z"),
    ] {
        assert_eq!(time_text(at_ms).len(), expected.len());
        if at_ms < 253_402_000_000_000 {
            assert_eq!(time_text(at_ms), expected);
        }
    }
}
