//! The catalogue of bad input (reliability notes, 4.1; the numbers in comments are its rows), and what the contract makes of each.
//! It is run against the topology in memory and, with `publish --raw`, against the program.

/// A record, and what becomes of it.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(&'static str, Vec<u8>)>,
    /// Where it is sent, counted from its home; 0 is right.
    pub(crate) astray: u32,
    pub(crate) outcome: Outcome,
}

/// What the contract says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A dead letter with this code.
    Dead(&'static str),
    /// One event with this reason.
    Refused(&'static str, &'static str),
    /// One event, and one more of this wallet where money came to another.
    Done(&'static str),
    /// Nothing at all: it was carried out before.
    Duplicate,
}

use Outcome::{Dead, Done, Duplicate, Refused};

const HEADER_BYTES: usize = 16 * 1024;
const COMMAND_BYTES: usize = 64 * 1024;

/// Pieces of a command's text, and what stands there instead.
type Changes<'a> = Vec<(&'a str, &'a str)>;

/// What there is before: `payer` 100 AED, `receiver`, `frozen` with 10 AED, `closed`, `dinar` 5 KWD, `rivals` of another tenant.
pub(crate) fn opening() -> Vec<(&'static str, String)> {
    let open = |wallet: &'static str, currency: &str, tenant: &str| {
        let rest = format!(r#""currency":"{currency}","country":"AE","kind":"personal","holder":"H""#);
        (wallet, format!(r#"{{"type":"open_wallet","tenant":"{tenant}","idempotency_key":"open","wallet":"{wallet}",{rest}}}"#))
    };
    let top_up = |wallet: &'static str, amount: &str, currency: &str| {
        let rest = format!(r#""amount":"{amount}","currency":"{currency}","source":{{"account":"till"}}"#);
        (wallet, format!(r#"{{"type":"top_up","tenant":"acme","idempotency_key":"top-up","wallet":"{wallet}",{rest}}}"#))
    };
    let change = |wallet: &'static str, kind: &str| {
        let start = format!(r#"{{"type":"{kind}","tenant":"acme","idempotency_key":"{kind}","wallet":"{wallet}""#);
        (wallet, format!(r#"{start},"reason":"because"}}"#))
    };
    vec![
        open("payer", "AED", "acme"),
        open("receiver", "AED", "acme"),
        open("frozen", "AED", "acme"),
        open("closed", "AED", "acme"),
        open("dinar", "KWD", "acme"),
        open("rivals", "AED", "rival"),
        top_up("payer", "100", "AED"),
        top_up("frozen", "10", "AED"),
        top_up("dinar", "5", "KWD"),
        change("frozen", "freeze_wallet"),
        change("closed", "close_wallet"),
    ]
}

/// A transfer that settles, with pieces of its text replaced.
fn transfer(key: &str, changes: &[(&str, &str)]) -> String {
    let start = r#"{"type":"transfer","tenant":"acme","wallet":"payer","to":"receiver","amount":"1.00","currency":"AED","#;
    // Last, so that what is replaced is not found in it.
    let text = format!(r#"{start}"idempotency_key":"{key}"}}"#);
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from} is in {text}");
        text.replacen(from, to, 1)
    })
}

fn row(name: &str, key: Option<&str>, value: impl Into<Vec<u8>>, outcome: Outcome) -> Row {
    let key = key.map(|key| key.as_bytes().to_vec());
    Row { name: name.to_owned(), key, value: Some(value.into()), headers: vec![], astray: 0, outcome }
}

/// Bytes that are no command at all.
fn garbage() -> Vec<Row> {
    let valid = transfer("garbage", &[]);
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let wide = format!("[{}0]", "0,".repeat(30_000));
    let padded = |bytes: usize| {
        let mut text = valid.clone().into_bytes();
        text.resize(bytes, b' ');
        text
    };
    let of = |name: &str, value: Vec<u8>, code: &'static str| row(name, Some("payer"), value, Dead(code));
    let mut rows = vec![
        of("3 empty", vec![], "value_missing"),
        of("4 bytes", b"\x00\xff\xfe\x80 garbage".to_vec(), "not_json"),
        of("4 text", b"transfer 1 AED".to_vec(), "not_json"),
        of("4 one NUL", vec![0], "not_json"),
        of("4 blanks", b"  \r\n\t ".to_vec(), "not_json"),
        of("5 truncated", valid.as_bytes()[..valid.len() - 1].to_vec(), "not_json"),
        of("6 trailing garbage", format!("{valid} x").into_bytes(), "not_json"),
        of("6 a second object", format!("{valid}{valid}").into_bytes(), "not_json"),
        of("7 one byte too long", padded(COMMAND_BYTES + 1), "too_large"),
        of("7 as long as the log takes", padded(200 * 1024), "too_large"),
        of("9 invalid UTF-8", replaced(&valid, b"acme", b"ac\xffme"), "not_json"),
        of("9 overlong UTF-8", replaced(&valid, b"acme", b"ac\xc0\xafme"), "not_json"),
        of("9 a surrogate in UTF-8", replaced(&valid, b"acme", b"ac\xed\xa0\x80me"), "not_json"),
        of("10 byte order mark", [b"\xef\xbb\xbf", valid.as_bytes()].concat(), "not_json"),
        of("10 UTF-16", valid.encode_utf16().flat_map(u16::to_le_bytes).collect(), "not_json"),
        of("14 depth 10,000", deep.clone().into_bytes(), "not_an_object"),
        of("14 depth 10,000 in a field", format!(r#"{{"metadata":{deep}}}"#).into_bytes(), "field_invalid"),
        of("14 depth 10,000 in an unknown field", format!(r#"{{"x":{deep}}}"#).into_bytes(), "field_unknown"),
        of("14 open brackets", vec![b'['; 60_000], "not_json"),
        of("14 open braces", br#"{"a":"#.repeat(10_000), "field_unknown"),
        of("15 an array of many", wide.into_bytes(), "not_an_object"),
        of("4 null", b"null".to_vec(), "not_an_object"),
        of("4 a number", b"17".to_vec(), "not_an_object"),
        of("4 a string", b"\"transfer\"".to_vec(), "not_an_object"),
        of("13 an empty object", b"{}".to_vec(), "field_missing"),
    ];
    rows.push(Row { value: None, ..of("2 null value", vec![], "value_missing") });
    rows.push(Row { key: None, ..of("1 null key, and bytes", b"bytes".to_vec(), "not_json") });
    rows.push(Row { key: Some(vec![0xff, 0, 0xfe]), ..of("1 a key of bytes", b"{".to_vec(), "not_json") });
    rows.push(Row { key: Some(vec![b'k'; 100_000]), ..of("33 a key of 100 kB", b"{".to_vec(), "not_json") });
    rows.push(Row { astray: 1, ..of("34 garbage in another partition", b"{".to_vec(), "not_json") });
    rows
}

fn replaced(text: &str, from: &[u8], to: &[u8]) -> Vec<u8> {
    let place = text.as_bytes().windows(from.len()).position(|window| window == from).expect("it is there");
    [&text.as_bytes()[..place], to, &text.as_bytes()[place + from.len()..]].concat()
}

/// JSON objects that are no command.
fn malformed() -> Vec<Row> {
    let long = "a".repeat(10_000);
    let flood: Vec<String> = (0..17).map(|n| format!(r#""k{n}":"v""#)).collect();
    let too_many = format!(r#","metadata":{{{}}}}}"#, flood.join(","));
    let one = "\"1.00\"";
    let rows: Vec<(&str, Changes, &'static str)> = vec![
        ("11 duplicate field", vec![("}", r#","amount":"2.00"}"#)], "field_duplicate"),
        ("11 duplicate wallet", vec![("}", r#","wallet":"rivals"}"#)], "field_duplicate"),
        ("12 unknown field", vec![("}", r#","colour":"red"}"#)], "field_unknown"),
        ("12 a field of the inside", vec![("}", r#","balance":"1000000"}"#)], "field_unknown"),
        ("12 another command's field", vec![("}", r#","holder":"H"}"#)], "field_unknown"),
        ("12 the wrong case", vec![("\"amount\"", "\"Amount\"")], "field_unknown"),
        ("13 no type", vec![(r#""type":"transfer","#, "")], "field_missing"),
        ("13 no tenant", vec![(r#""tenant":"acme","#, "")], "field_missing"),
        ("13 no wallet", vec![(r#""wallet":"payer","#, "")], "field_missing"),
        ("13 no receiver", vec![(r#""to":"receiver","#, "")], "field_missing"),
        ("13 no amount", vec![(r#""amount":"1.00","#, "")], "field_missing"),
        ("13 no currency", vec![(r#""currency":"AED","#, "")], "field_missing"),
        ("13 null amount", vec![(one, "null")], "field_missing"),
        ("35 no key", vec![(r#","idempotency_key":"malformed""#, "")], "field_missing"),
        ("35 an empty key", vec![(r#""malformed""#, r#""""#)], "field_invalid"),
        ("35 a key that is no ASCII", vec![(r#""malformed""#, r#""schlüssel""#)], "field_invalid"),
        ("35 a key with a line end", vec![(r#""malformed""#, r#""a\nb""#)], "field_invalid"),
        ("16 unknown type", vec![("transfer", "teleport")], "type_unknown"),
        ("16 a type of a later version", vec![("transfer", "payout")], "type_unknown"),
        ("16 the wrong case of a type", vec![("transfer", "Transfer")], "type_unknown"),
        ("16 a type that is a number", vec![("\"transfer\"", "7")], "field_invalid"),
        ("20 a float", vec![(one, "0.1")], "field_invalid"),
        ("20 a whole number", vec![(one, "1")], "field_invalid"),
        ("20 a huge number", vec![(one, "1e400")], "not_json"),
        ("20 a truth value", vec![(one, "true")], "field_invalid"),
        ("20 an array", vec![(one, "[\"1.00\"]")], "field_invalid"),
        ("20 an object", vec![(one, r#"{"value":"1.00"}"#)], "field_invalid"),
        ("21 an exponent", vec![("1.00", "1e5")], "field_invalid"),
        ("22 NaN", vec![(one, "NaN")], "not_json"),
        ("22 NaN in a string", vec![("1.00", "NaN")], "field_invalid"),
        ("22 Infinity", vec![("1.00", "Infinity")], "field_invalid"),
        ("24 negative", vec![("1.00", "-1.00")], "field_invalid"),
        ("27 leading zeros", vec![("1.00", "0001")], "field_invalid"),
        ("27 plus", vec![("1.00", "+1")], "field_invalid"),
        ("27 a blank", vec![("1.00", " 1")], "field_invalid"),
        ("27 full width", vec![("1.00", "１")], "field_invalid"),
        ("27 Arabic digits", vec![("1.00", "١")], "field_invalid"),
        ("27 a comma", vec![("1.00", "1,00")], "field_invalid"),
        ("27 a point too many", vec![("1.00", "1.0.0")], "field_invalid"),
        ("27 nothing behind the point", vec![("1.00", "1.")], "field_invalid"),
        ("27 nothing", vec![("1.00", "")], "field_invalid"),
        ("27 hexadecimal", vec![("1.00", "0x10")], "field_invalid"),
        ("9 a lone surrogate", vec![("acme", r"ac\ud800me")], "not_json"),
        ("9 surrogates in the wrong order", vec![("acme", r"\udc00\ud800")], "not_json"),
        ("33 a wallet of 10 kB", vec![("receiver", &long)], "field_invalid"),
        ("33 a wallet with NUL", vec![("receiver", r"a\u0000b")], "field_invalid"),
        ("33 a wallet with a line end", vec![("receiver", r"a\nb")], "field_invalid"),
        ("33 a path", vec![("receiver", "../../etc/passwd")], "field_invalid"),
        ("33 an empty wallet", vec![("receiver", "")], "field_invalid"),
        ("33 a wallet that is no ASCII", vec![("receiver", "пётр")], "field_invalid"),
        ("a tenant of 33", vec![("acme", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")], "field_invalid"),
        ("39 no time", vec![("}", r#","requested_at":"yesterday"}"#)], "field_invalid"),
        ("39 the year 99999", vec![("}", r#","requested_at":"99999-01-01T00:00:00Z"}"#)], "field_invalid"),
        ("39 a time without a zone", vec![("}", r#","requested_at":"2026-01-01T00:00:00"}"#)], "field_invalid"),
        ("metadata of 17", vec![("}", &too_many)], "field_invalid"),
        ("metadata of numbers", vec![("}", r#","metadata":{"a":1}}"#)], "field_invalid"),
        ("metadata in metadata", vec![("}", r#","metadata":{"a":{"b":"c"}}}"#)], "field_invalid"),
        ("metadata twice", vec![("}", r#","metadata":{"a":"1","a":"2"}}"#)], "field_duplicate"),
        ("metadata as an array", vec![("}", r#","metadata":["a"]}"#)], "field_invalid"),
        ("a reference with an escape", vec![("}", r#","reference":"\u001b[31m"}"#)], "field_invalid"),
        ("a source where there is none", vec![("}", r#","source":{"account":"x"}}"#)], "field_unknown"),
    ];
    let rows =
        rows.into_iter().map(|(name, changes, code)| row(name, Some("payer"), transfer("malformed", &changes), Dead(code)));
    let mut rows: Vec<Row> = rows.collect();
    let command = |kind: &str, rest: &str| {
        format!(r#"{{"type":"{kind}","tenant":"acme","idempotency_key":"malformed","wallet":"payer",{rest}}}"#)
    };
    let top_up = |source: &str| command("top_up", &format!(r#""amount":"1","currency":"AED","source":{source}"#));
    let opening = |kind: &str| command("open_wallet", &format!(r#""currency":"AED","country":"AE","kind":{kind},"holder":"H""#));
    for (name, value, code) in [
        ("a source that is a string", top_up("\"till\""), "field_invalid"),
        ("a source without an account", top_up(r#"{"partner":"treasury"}"#), "field_missing"),
        ("a source with more", top_up(r#"{"account":"x","iban":"y"}"#), "field_unknown"),
        ("a kind that is none", opening("\"corporate\""), "field_invalid"),
        ("a kind that is a number", opening("1"), "field_invalid"),
        ("an empty reason", command("freeze_wallet", r#""reason":"""#), "field_invalid"),
        ("no reason", command("close_wallet", r#""reference":"r""#), "field_missing"),
        ("a wallet command with an amount", command("freeze_wallet", r#""reason":"r","amount":"1""#), "field_unknown"),
    ] {
        rows.push(row(name, Some("payer"), value, Dead(code)));
    }
    rows
}

/// Headers that are refused, and headers that are not trusted but do no harm.
fn headers() -> Vec<Row> {
    let flood: Vec<(&'static str, Vec<u8>)> = vec![("h", b"v".to_vec()); 10_000];
    let of = |name: &str, headers: Vec<(&'static str, Vec<u8>)>, outcome| Row {
        headers,
        ..row(name, Some("payer"), transfer(name, &[]), outcome)
    };
    vec![
        of("17 a future schema version", vec![("schema-version", b"2".to_vec())], Dead("schema_version_unsupported")),
        of("18 schema version 0", vec![("schema-version", b"0".to_vec())], Dead("schema_version_unsupported")),
        of("18 a negative schema version", vec![("schema-version", b"-1".to_vec())], Dead("schema_version_unsupported")),
        of("18 an empty schema version", vec![("schema-version", vec![])], Dead("schema_version_unsupported")),
        of("41 10,000 headers", flood, Dead("headers_too_large")),
        of("41 headers of 128 KiB", vec![("h", vec![b'x'; 128 * 1024])], Dead("headers_too_large")),
        of("41 one byte too many", vec![("h", vec![b'x'; HEADER_BYTES - 6])], Dead("headers_too_large")),
        of("41 as many as may be", vec![("h", vec![b'x'; HEADER_BYTES - 7])], Done("payment.settled")),
        of("19 the schema version that is", vec![("schema-version", b"1".to_vec())], Done("payment.settled")),
        of("42 a malformed traceparent", vec![("traceparent", b"00-zz-1".to_vec())], Done("payment.settled")),
        of("42 a traceparent of bytes", vec![("traceparent", vec![0xff; 100])], Done("payment.settled")),
        of("a correlation id with a line end", vec![("correlation-id", b"a\nlevel=error".to_vec())], Done("payment.settled")),
        of("headers of bytes", vec![("h", vec![0, 0xff])], Done("payment.settled")),
    ]
}

/// Commands that are understood and refused; where several reasons apply, the first of the contract's order.
fn refused() -> Vec<Row> {
    let nines = "9".repeat(5_000);
    let pay = |reason| Refused("payment.rejected", reason);
    let rows: Vec<(&str, &str, Changes, Outcome)> = vec![
        ("23 zero", "payer", vec![("1.00", "0")], pay("amount_invalid")),
        ("23 zero with decimals", "payer", vec![("1.00", "0.00")], pay("amount_invalid")),
        ("25 too many decimals", "payer", vec![("1.00", "1.001")], pay("amount_invalid")),
        ("25 too many zeros", "payer", vec![("1.00", "1.000")], pay("amount_invalid")),
        ("25 decimals of a yen", "payer", vec![("1.00", "1.5"), ("AED", "JPY")], pay("amount_invalid")),
        ("26 i64::MAX", "payer", vec![("1.00", "9223372036854775807")], pay("amount_invalid")),
        ("26 i128::MAX and one", "payer", vec![("1.00", "170141183460469231731687303715884105728")], pay("amount_invalid")),
        ("26 5,000 digits", "payer", vec![("1.00", &nines)], pay("amount_invalid")),
        ("26 one more than 10^15", "payer", vec![("1.00", "10000000000000.01")], pay("amount_invalid")),
        ("26 10^15", "payer", vec![("1.00", "10000000000000.00")], pay("insufficient_funds")),
        ("28 XXX", "payer", vec![("AED", "XXX")], pay("currency_unknown")),
        ("28 lower case", "payer", vec![("AED", "aed")], pay("currency_unknown")),
        ("28 nothing", "payer", vec![("AED", "")], pay("currency_unknown")),
        ("28 a currency of 50 kB", "payer", vec![("AED", &nines)], pay("currency_unknown")),
        ("29 another currency", "payer", vec![("AED", "KWD")], pay("currency_mismatch")),
        ("30 from itself to itself", "payer", vec![("receiver", "payer")], pay("same_wallet")),
        ("31 unknown wallet", "nobody", vec![("payer", "nobody")], pay("wallet_unknown")),
        ("31 another tenant's wallet", "rivals", vec![("payer", "rivals")], pay("wallet_unknown")),
        ("31 unknown receiver", "payer", vec![("receiver", "nobody")], pay("counterparty_unknown")),
        ("32 closed", "closed", vec![("payer", "closed")], pay("wallet_closed")),
        ("32 frozen", "frozen", vec![("payer", "frozen")], pay("wallet_frozen")),
        ("32 to closed", "payer", vec![("receiver", "closed")], pay("counterparty_closed")),
        ("32 to frozen", "payer", vec![("receiver", "frozen")], pay("counterparty_frozen")),
        ("29 to another currency", "payer", vec![("receiver", "dinar")], pay("counterparty_currency_mismatch")),
        ("more than there is", "payer", vec![("1.00", "100000.00")], pay("insufficient_funds")),
        (
            "first amount, then currency",
            "nobody",
            vec![("1.00", "0"), ("AED", "XXX"), ("payer", "nobody")],
            pay("amount_invalid"),
        ),
        ("first currency, then wallet", "nobody", vec![("AED", "XXX"), ("payer", "nobody")], pay("currency_unknown")),
        ("first closed, then currency", "closed", vec![("AED", "KWD"), ("payer", "closed")], pay("wallet_closed")),
        ("first frozen, then itself", "frozen", vec![("payer", "frozen"), ("receiver", "frozen")], pay("wallet_frozen")),
        ("first currency, then itself", "payer", vec![("AED", "KWD"), ("receiver", "payer")], pay("currency_mismatch")),
        ("first itself, then funds", "payer", vec![("1.00", "100000"), ("receiver", "payer")], pay("same_wallet")),
        (
            "first funds, then the other side",
            "payer",
            vec![("1.00", "100000"), ("receiver", "nobody")],
            pay("insufficient_funds"),
        ),
        (
            "first frozen, then its currency",
            "dinar",
            vec![("payer", "dinar"), ("1.00", "1"), ("AED", "KWD"), ("receiver", "frozen")],
            pay("counterparty_frozen"),
        ),
        (
            "first closed, then its currency",
            "dinar",
            vec![("payer", "dinar"), ("1.00", "1"), ("AED", "KWD"), ("receiver", "closed")],
            pay("counterparty_closed"),
        ),
    ];
    let mut rows: Vec<Row> =
        rows.into_iter().map(|(name, key, changes, outcome)| row(name, Some(key), transfer(name, &changes), outcome)).collect();
    let no = |reason| Refused("command.rejected", reason);
    let command = |name: &str, kind: &str, wallet: &str, rest: &str| {
        format!(r#"{{"type":"{kind}","tenant":"acme","idempotency_key":"{name}","wallet":"{wallet}",{rest}}}"#)
    };
    let open = |currency: &str, country: &str| {
        format!(r#""currency":"{currency}","country":"{country}","kind":"personal","holder":"H""#)
    };
    let top_up =
        |amount: &str, currency: &str, source: &str| format!(r#""amount":"{amount}","currency":"{currency}","source":{source}"#);
    let (reason, bank) = (r#""reason":"r""#, r#"{"partner":"bank","account":"x"}"#);
    for (name, kind, wallet, rest, outcome) in [
        ("open: currency", "open_wallet", "new", open("XXX", "AE"), no("currency_unknown")),
        ("open: country", "open_wallet", "new", open("AED", "ZZ"), no("country_unknown")),
        ("open: country in lower case", "open_wallet", "new", open("AED", "ae"), no("country_unknown")),
        ("open: it exists", "open_wallet", "payer", open("AED", "AE"), no("wallet_exists")),
        ("open: it is another tenant's", "open_wallet", "rivals", open("AED", "AE"), no("wallet_exists")),
        ("open: it was closed", "open_wallet", "closed", open("AED", "AE"), no("wallet_exists")),
        ("open: first currency, then country", "open_wallet", "payer", open("XXX", "ZZ"), no("currency_unknown")),
        ("open: first country, then wallet", "open_wallet", "payer", open("AED", "ZZ"), no("country_unknown")),
        ("freeze: unknown", "freeze_wallet", "nobody", reason.to_owned(), no("wallet_unknown")),
        ("freeze: another tenant's", "freeze_wallet", "rivals", reason.to_owned(), no("wallet_unknown")),
        ("freeze: frozen", "freeze_wallet", "frozen", reason.to_owned(), no("wallet_frozen")),
        ("freeze: closed", "freeze_wallet", "closed", reason.to_owned(), no("wallet_closed")),
        ("unfreeze: not frozen", "unfreeze_wallet", "payer", reason.to_owned(), no("wallet_not_frozen")),
        ("unfreeze: closed", "unfreeze_wallet", "closed", reason.to_owned(), no("wallet_closed")),
        ("close: not empty", "close_wallet", "dinar", reason.to_owned(), no("balance_not_zero")),
        ("close: first frozen, then not empty", "close_wallet", "frozen", reason.to_owned(), no("wallet_frozen")),
        ("close: closed", "close_wallet", "closed", reason.to_owned(), no("wallet_closed")),
        ("top-up: zero", "top_up", "payer", top_up("0", "AED", bank), pay("amount_invalid")),
        ("top-up: currency", "top_up", "payer", top_up("1", "XTS", bank), pay("currency_unknown")),
        ("top-up: unknown", "top_up", "nobody", top_up("1", "AED", bank), pay("wallet_unknown")),
        ("top-up: first closed, then route", "top_up", "closed", top_up("1", "AED", bank), pay("wallet_closed")),
        ("top-up: first frozen, then route", "top_up", "frozen", top_up("1", "AED", bank), pay("wallet_frozen")),
        ("top-up: first mismatch, then route", "top_up", "payer", top_up("1", "KWD", bank), pay("currency_mismatch")),
        ("top-up: no such partner", "top_up", "payer", top_up("1", "AED", bank), pay("no_route")),
        (
            "37 open with other content",
            "open_wallet",
            "payer",
            open("KWD", "AE").replace("KWD", "AED").replace("\"H\"", "\"Other\""),
            no("wallet_exists"),
        ),
    ] {
        rows.push(row(name, Some(wallet), command(name, kind, wallet, &rest), outcome));
    }
    rows
}

/// Keys that were seen, and records that stand in the wrong place.
fn repeated() -> Vec<Row> {
    let again = transfer("36 again", &[]);
    let (settled, reused) = (Done("payment.settled"), Refused("command.rejected", "key_reused"));
    vec![
        row("36 the first", Some("payer"), again.clone(), settled),
        row("36 the same again", Some("payer"), again.clone(), Duplicate),
        row("36 the same, written otherwise", Some("payer"), transfer("36 again", &[("1.00", "1"), ("{", "{ \n ")]), Duplicate),
        row(
            "36 the same, asked at another time",
            Some("payer"),
            transfer("36 again", &[("}", r#","requested_at":"1970-01-01T00:00:00Z"}"#)]),
            Duplicate,
        ),
        row("37 another amount", Some("payer"), transfer("36 again", &[("1.00", "2.00")]), reused),
        row("37 another amount, again", Some("payer"), transfer("36 again", &[("1.00", "2.00")]), reused),
        row("37 another receiver", Some("payer"), transfer("36 again", &[("receiver", "dinar")]), reused),
        row("37 another reference", Some("payer"), transfer("36 again", &[("}", r#","reference":"r"}"#)]), reused),
        row("37 a key of a wallet command", Some("frozen"), transfer("freeze_wallet", &[("payer", "frozen")]), reused),
        row(
            "36 another tenant's key is its own",
            Some("payer"),
            transfer("36 again", &[("acme", "rival")]),
            Refused("payment.rejected", "wallet_unknown"),
        ),
        Row { astray: 1, ..row("34 wrong partition", Some("payer"), transfer("34 wrong partition", &[]), settled) },
        Row { astray: 1, ..row("34 wrong partition, again", Some("payer"), transfer("34 wrong partition", &[]), Duplicate) },
        row("34 at home after all", Some("payer"), transfer("34 wrong partition", &[]), Duplicate),
        row("34 wrong key", Some("receiver"), transfer("34 wrong key", &[]), settled),
        Row { key: None, ..row("1 null key, and a command", None, transfer("1 null key", &[]), settled) },
        Row { key: Some(vec![]), ..row("1 empty key", None, transfer("1 empty key", &[]), settled) },
        Row { key: Some(vec![0xff]), ..row("1 a key of bytes, and a command", None, transfer("1 bytes", &[]), settled) },
        Row {
            astray: 2,
            ..row(
                "34 wrong partition, refused",
                Some("payer"),
                transfer("34 refused", &[("1.00", "0")]),
                Refused("payment.rejected", "amount_invalid"),
            )
        },
        Row {
            astray: 3,
            ..row(
                "34 wrong partition, another tenant's",
                Some("rivals"),
                transfer("34 rivals", &[("payer", "rivals")]),
                Refused("payment.rejected", "wallet_unknown"),
            )
        },
    ]
}

/// What looks dangerous and is only text.
fn harmless() -> Vec<Row> {
    let settled = Done("payment.settled");
    let padded = |text: String| {
        let mut bytes = text.into_bytes();
        bytes.resize(COMMAND_BYTES, b' ');
        bytes
    };
    let reference = |text: &str| format!(r#","reference":"{text}"}}"#);
    let pairs: Vec<String> = (0..16).map(|n| format!(r#""k{n}":"{}""#, "v".repeat(256))).collect();
    let mut rows = vec![row("7 exactly as long as may be", Some("payer"), padded(transfer("7 exactly", &[])), settled)];
    let long = "é".repeat(140);
    for (name, text) in [
        ("text: SQL", "'; DROP TABLE wallets; --"),
        ("text: template", "{{7*7}} ${jndi:ldap://x}"),
        ("text: right to left", "\u{202e}gnirts"),
        ("text: emoji", "👩‍👩‍👧‍👦"),
        ("text: an escaped emoji", r"\ud83d\ude00"),
        ("text: formula", "=HYPERLINK(1)"),
        ("text: 140 characters", &*long),
    ] {
        rows.push(row(name, Some("payer"), transfer(name, &[("}", &reference(text))]), settled));
    }
    let metadata = format!(r#","metadata":{{{}}}}}"#, pairs.join(","));
    rows.push(row("metadata of 16", Some("payer"), transfer("metadata of 16", &[("}", &metadata)]), settled));
    rows.push(row(
        "39 long ago",
        Some("payer"),
        transfer("39 old", &[("}", r#","requested_at":"1970-01-01T00:00:00Z"}"#)]),
        settled,
    ));
    rows.push(row("null reference", Some("payer"), transfer("null", &[("}", r#","reference":null}"#)]), settled));
    rows.push(row("escapes in names", Some("payer"), transfer("escaped", &[("\"amount\"", r#""\u0061mount""#)]), settled));
    rows
}

/// Every row, in an order in which each finds what it needs.
pub(crate) fn catalogue() -> Vec<Row> {
    [garbage(), malformed(), headers(), refused(), repeated(), harmless()].concat()
}
