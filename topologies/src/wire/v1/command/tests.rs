//! What producers may send, what they may not, and which code they are told.

use super::{COMMAND_BYTES_MAX, Code, HEADERS_MAX, Unsendable, decode, home_of};
use crate::log::Headers;

const TRANSFER: &str = r#"{"type":"transfer","tenant":"acme","idempotency_key":"order-1","wallet":"alice","to":"bob","amount":"12.50","currency":"AED"}"#;

fn code(value: &[u8]) -> Option<&'static str> {
    decode(Some(value), &Headers::default()).err().map(|malformed| malformed.code.as_str())
}

/// The transfer with one piece of text replaced.
fn with(from: &str, to: &str) -> Vec<u8> {
    assert!(TRANSFER.contains(from), "{from}");
    TRANSFER.replacen(from, to, 1).into_bytes()
}

#[test]
fn every_kind_of_garbage_has_its_code() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_field = format!(r#"{{"type":{deep}}}"#);
    let long_id = "a".repeat(10_000);
    let million = format!("[{}0]", "0,".repeat(20_000));
    let big = format!(r#"{{"type":"{}"}}"#, "a".repeat(COMMAND_BYTES_MAX));
    let rows: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "value_missing"),
        (b"\x00\xff\xfe garbage".to_vec(), "not_json"),
        (b"{".to_vec(), "not_json"),
        (with("}", ""), "not_json"),
        (with("}", "} trailing"), "not_json"),
        (with("}", "}}"), "not_json"),
        (with("acme", "\u{0}"), "not_json"),
        ([b"\xef\xbb\xbf", TRANSFER.as_bytes()].concat(), "not_json"),
        (TRANSFER.encode_utf16().flat_map(u16::to_le_bytes).collect(), "not_json"),
        ([&b"{\"type\":\""[..], &[0xff], &b"\"}"[..]].concat(), "not_json"),
        (big.into_bytes(), "too_large"),
        (b"[]".to_vec(), "not_an_object"),
        (br#"["transfer","acme"]"#.to_vec(), "not_an_object"),
        (b"\"transfer\"".to_vec(), "not_an_object"),
        (b"17".to_vec(), "not_an_object"),
        (b"null".to_vec(), "not_an_object"),
        (deep.into_bytes(), "not_an_object"),
        (million.into_bytes(), "not_an_object"),
        (deep_field.into_bytes(), "field_invalid"),
        (b"{}".to_vec(), "field_missing"),
        (with(r#""type":"transfer","#, ""), "field_missing"),
        (with(r#","to":"bob""#, ""), "field_missing"),
        (with(r#","amount":"12.50""#, ""), "field_missing"),
        (with("transfer", "payout"), "type_unknown"),
        (with("transfer", "Transfer"), "type_unknown"),
        (with("}", r#","colour":"red"}"#), "field_unknown"),
        (with("}", r#","holder":"x"}"#), "field_unknown"),
        (with("}", r#","amount":"1"}"#), "field_duplicate"),
        (with("}", r#","metadata":{"a":"1","a":"2"}}"#), "field_duplicate"),
        (with("}", r#","metadata":{"a":1}}"#), "field_invalid"),
        (with("}", r#","metadata":{"":"1"}}"#), "field_invalid"),
        (with("}", r#","requested_at":"yesterday"}"#), "field_invalid"),
        (with("}", &format!(r#","reference":"{}"}}"#, "x".repeat(141))), "field_invalid"),
        (with(r#""12.50""#, "12.50"), "field_invalid"),
        (with(r#""12.50""#, "true"), "field_invalid"),
        (with("12.50", "1e5"), "field_invalid"),
        (with("12.50", "NaN"), "field_invalid"),
        (with("12.50", "+1"), "field_invalid"),
        (with("12.50", "-1"), "field_invalid"),
        (with("12.50", "0001"), "field_invalid"),
        (with("12.50", " 1"), "field_invalid"),
        (with("12.50", "１"), "field_invalid"),
        (with("12.50", "1."), "field_invalid"),
        (with("12.50", ""), "field_invalid"),
        (with("alice", "../etc"), "field_invalid"),
        (with("alice", "a\\u0000b"), "field_invalid"),
        (with("alice", "a\\nb"), "field_invalid"),
        (with("alice", &long_id), "field_invalid"),
        (with("order-1", ""), "field_invalid"),
        (with("order-1", "ü"), "field_invalid"),
        (with("acme", "a b"), "field_invalid"),
    ];
    for (value, expected) in rows {
        let shown: String = String::from_utf8_lossy(&value).chars().take(150).collect();
        assert_eq!(code(&value), Some(expected), "{shown}");
    }
    assert_eq!(decode(None, &Headers::default()).err().map(|malformed| malformed.code), Some(Code::ValueMissing));
}

#[test]
fn what_parses_gets_a_business_answer() {
    for (from, to) in [
        ("12.50", "0"),
        ("12.50", "1.23456789"),
        ("12.50", &"9".repeat(5_000)[..]),
        ("AED", "XXX"),
        ("AED", "usd"),
        ("bob", "alice"),
        ("}", r#","requested_at":"1970-01-01T00:00:00Z","reference":"r","metadata":{"a":"1"}}"#),
        ("}", r#","reference":null}"#),
        ("{", " \n {"),
    ] {
        assert_eq!(code(&with(from, to)), None, "{to}");
    }
}

#[test]
fn equal_requests_have_equal_fingerprints() {
    let print = |value: &[u8]| decode(Some(value), &Headers::default()).map(|command| command.fingerprint);
    let first = print(TRANSFER.as_bytes());
    assert!(first.is_ok());
    let swapped = r#"{"amount" : "12.5", "currency":"AED","to":"bob","wallet":"alice","idempotency_key":"k-2","tenant":"acme","type":"transfer"}"#;
    for same in [with("12.50", "12.5"), with("}", r#","requested_at":"2026-01-01T00:00:00Z"}"#), swapped.as_bytes().to_vec()] {
        assert_eq!(print(&same), first, "{}", String::from_utf8_lossy(&same));
    }
    for other in [
        with("12.50", "12.51"),
        with("12.50", "125"),
        with("AED", "KWD"),
        with("bob", "carol"),
        with("acme", "other"),
        with("}", r#","reference":"r"}"#),
        with("}", r#","metadata":{"a":"b"}}"#),
    ] {
        assert_ne!(print(&other), first, "{}", String::from_utf8_lossy(&other));
    }
}

#[test]
fn headers_are_bounded_and_never_trusted() {
    let decoded = |pairs: &[(&str, &[u8])]| decode(Some(TRANSFER.as_bytes()), &Headers::from_pairs(pairs.iter().copied()));
    let flood: Vec<(&str, &[u8])> = vec![("h", b"v"); HEADERS_MAX + 1];
    let huge = vec![b'x'; 1 << 20];
    assert_eq!(decoded(&flood).map_err(|malformed| malformed.code), Err(Code::HeadersTooLarge));
    assert_eq!(decoded(&[("h", &huge)]).map_err(|malformed| malformed.code), Err(Code::HeadersTooLarge));
    assert_eq!(decoded(&[("schema-version", b"2")]).map_err(|malformed| malformed.code), Err(Code::SchemaVersionUnsupported));
    assert!(decoded(&[("schema-version", b"1")]).is_ok());
    let trace: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (value, kept) in [(trace, true), (b"00-zz-00f067aa0ba902b7-01", false), (b"", false), (b"\xff", false)] {
        assert_eq!(decoded(&[("traceparent", value)]).is_ok_and(|command| command.traceparent.is_some()), kept);
    }
    for (value, kept) in [(&b"c-1"[..], true), (b"a\nlevel=error", false), (&[b'x'; 129], false)] {
        assert_eq!(decoded(&[("correlation-id", value)]).is_ok_and(|command| command.correlation.is_some()), kept);
    }
}

#[test]
fn publish_refuses_what_has_no_home() {
    assert_eq!(home_of(TRANSFER.as_bytes()).map(|wallet| wallet.to_string()), Ok("alice".to_owned()));
    for (value, expected) in [
        ("[]", Unsendable::NotAnObject),
        ("x", Unsendable::NotAnObject),
        ("{}", Unsendable::NoWallet),
        (r#"{"wallet":7}"#, Unsendable::NoWallet),
        (r#"{"wallet":"a b"}"#, Unsendable::NoWallet),
        (&"x".repeat(COMMAND_BYTES_MAX + 1), Unsendable::TooLarge),
    ] {
        assert_eq!(home_of(value.as_bytes()), Err(expected));
    }
}
