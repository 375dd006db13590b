//! Postings as they are written, and bytes that are none.

use bytes::Bytes;
use finflow_ledger::{CommandKind, Coordinates, Currency, IdempotencyKey, Money, PaymentId, Rejection, Tenant, WalletId};
use proptest::prelude::*;

use super::{Credit, Posting, PostingBody};
use crate::log::{Headers, Record};

fn record(value: Vec<u8>) -> Record {
    Record { offset: 0, timestamp_ms: 0, key: None, value: Some(value.into()), headers: Headers::default() }
}

fn bodies() -> Vec<PostingBody> {
    let source = Coordinates { partition: 1, offset: 2 };
    let payment = PaymentId::from_bytes([7; 16]);
    vec![
        PostingBody::Credit(Box::new(Credit {
            payment,
            from: WalletId::parse("alice").expect("valid"),
            to: WalletId::parse("bob").expect("valid"),
            amount: Money::from_minor(1_250, Currency::parse("AED").expect("known")),
            tenant: Tenant::parse("acme").expect("valid"),
            key: IdempotencyKey::parse("order-1").expect("valid"),
            reference: Some("r".into()),
            metadata: vec![("a".into(), "b".into())],
            correlation: None,
            traceparent: None,
            source,
            kind: CommandKind::Transfer,
        })),
        PostingBody::Acknowledge { payment, outcome: Ok(()) },
        PostingBody::Acknowledge { payment, outcome: Err(Rejection::CounterpartyFrozen) },
        PostingBody::Forward {
            key: None,
            value: Some(Bytes::from_static(b"{}")),
            headers: Headers::from_pairs([("a", &b"b"[..])]),
            timestamp_ms: -1,
            source,
        },
    ]
}

#[test]
fn postings_come_back_as_they_were_sent() {
    for body in bodies() {
        let posting = Posting { source: 1, destination: 2, sequence: 3, body };
        let value = posting.encode().value.expect("a value").to_vec();
        assert_eq!(Posting::decode(&record(value.clone())), Ok(posting));
        for length in 0..value.len() {
            assert!(Posting::decode(&record(value[..length].to_vec())).is_err(), "cut to {length} bytes");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Posting::decode(&record(bytes.clone()));
        let _ = Posting::decode(&record([vec![1], bytes].concat()));
    }
}
