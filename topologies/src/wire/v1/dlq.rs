//! Dead letters: the original record, its time included, with headers that say what is wrong, where it stood and when it was
//! given up.
//!
//! The names are those that Kafka Streams uses since 4.2 (KIP-1034), and `x-error-code`. What the log takes as a command fits
//! whole. Only a record that was compressed below the broker's limit can be longer: then it is cut, and its length and SHA-256 are told.
//!
//! What is sent again is the original, with two headers behind its own that say where it comes from and how old it is.

use bytes::Bytes;
use finflow_ledger::Coordinates;
use sha2::{Digest, Sha256};

use super::command::{HEADER_BYTES_MAX, HEADERS_MAX, Malformed};
use crate::log::{Headers, HeadersBuilder, Outgoing, Record};
use crate::topics::{RECORD_BYTES_MAX, Topic};

/// The first of the headers that a dead letter has behind those of its producer.
const EXCEPTION: &str = "__streams.errors.exception";
const PARTITION: &str = "__streams.errors.partition";
const OFFSET: &str = "__streams.errors.offset";
/// When the command became a dead letter, in milliseconds since 1970-01-01 UTC.
const DEAD_LETTERED_AT: &str = "x-dead-lettered-at";
/// Told of a record that was cut.
const ORIGINAL_BYTES: &str = "x-original-bytes";
/// The dead letter that a command was sent again from: topic, partition and offset.
const REPLAYED_FROM: &str = "x-replayed-from";
/// When the log took the command for the first time, in milliseconds since 1970-01-01 UTC.
const REPLAYED_TIMESTAMP: &str = "x-replayed-timestamp";
/// Of a key that is cut, this much stays.
const KEY_BYTES_MAX: usize = 1024;

/// The dead letter of a command record that was read at `origin` and given up at `now_ms`.
pub fn dead_letter(record: &Record, origin: Coordinates, malformed: &Malformed, prefix: &str, now_ms: i64) -> Outgoing {
    let value_bytes = record.value.as_ref().map_or(0, Bytes::len);
    let is_whole = record.bytes() <= RECORD_BYTES_MAX;

    let mut headers = HeadersBuilder::default();
    let kept = if is_whole { usize::MAX } else { HEADERS_MAX };
    let mut header_bytes = 0_usize;
    for (name, value) in record.headers.iter().take(kept) {
        header_bytes = header_bytes.saturating_add(name.len()).saturating_add(value.len()).saturating_add(6);
        if !is_whole && HEADER_BYTES_MAX < header_bytes {
            break;
        }
        headers.push(name, value);
    }
    headers.push(EXCEPTION, b"finflow.Malformed");
    headers.push("__streams.errors.message", malformed.message.as_bytes());
    headers.push("__streams.errors.topic", Topic::Commands.name(prefix).as_bytes());
    headers.push(PARTITION, origin.partition.to_string().as_bytes());
    headers.push(OFFSET, origin.offset.to_string().as_bytes());
    headers.push("x-error-code", malformed.code.as_str().as_bytes());
    headers.push(DEAD_LETTERED_AT, now_ms.to_string().as_bytes());
    let (mut key, mut value) = (record.key.clone(), record.value.clone());
    if !is_whole {
        headers.push(ORIGINAL_BYTES, value_bytes.to_string().as_bytes());
        headers.push("x-original-sha256", hex(&Sha256::digest(value.as_deref().unwrap_or_default())).as_bytes());
        key = key.map(|key| key.slice(..key.len().min(KEY_BYTES_MAX)));
        let rest = RECORD_BYTES_MAX.saturating_sub(KEY_BYTES_MAX).saturating_sub(HEADER_BYTES_MAX);
        value = value.map(|value| value.slice(..value.len().min(rest)));
    }
    Outgoing { key, value, headers: headers.build(), timestamp_ms: Some(record.timestamp_ms) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where the record of a dead letter was read.
pub fn origin_of(headers: &Headers) -> Option<Coordinates> {
    let number = |name: &str| std::str::from_utf8(headers.get(name)?).ok();
    Some(Coordinates { partition: number(PARTITION)?.parse().ok()?, offset: number(OFFSET)?.parse().ok()? })
}

/// When a dead letter was written, in milliseconds since 1970-01-01 UTC; its own time is that of the original.
pub fn dead_lettered_ms(letter: &Record) -> i64 {
    let told = letter.headers.get(DEAD_LETTERED_AT).and_then(millis);
    // Before it was told, a dead letter had the log's own time.
    told.unwrap_or(letter.timestamp_ms)
}

/// The command of a dead letter that lies at `place`, as its producer sent it, to be sent again; with where it comes from, and when the
/// log took it for the first time.
///
/// # Errors
/// The engine has not written the letter, or only a part of the command is in it.
pub fn replayed(letter: &Record, place: Coordinates, prefix: &str) -> Result<Outgoing, &'static str> {
    let pairs: Vec<(&str, &[u8])> = letter.headers.iter().collect();
    // A producer may use any name: the engine's own are those behind the last of these.
    let end = pairs.iter().rposition(|(name, _)| *name == EXCEPTION).ok_or("the engine has not written it")?;
    let (mut own, told) = pairs.split_at(end);
    if told.iter().any(|(name, _)| *name == ORIGINAL_BYTES) {
        return Err("it was too long, and only a part of it is here");
    }
    let mut sent_ms = letter.timestamp_ms;
    if let [rest @ .., (REPLAYED_FROM, _), (REPLAYED_TIMESTAMP, first)] = own {
        sent_ms = millis(first).map_or(sent_ms, |first_ms| first_ms.min(sent_ms));
        own = rest;
    }
    let mut headers = HeadersBuilder::default();
    own.iter().for_each(|(name, value)| headers.push(name, value));
    let Coordinates { partition, offset } = place;
    headers.push(REPLAYED_FROM, format!("{}:{partition}:{offset}", Topic::Dlq.name(prefix)).as_bytes());
    headers.push(REPLAYED_TIMESTAMP, sent_ms.to_string().as_bytes());
    Ok(Outgoing { key: letter.key.clone(), value: letter.value.clone(), headers: headers.build(), timestamp_ms: None })
}

/// When the log took a command, in milliseconds since 1970-01-01 UTC; for one that was sent again, the first time.
pub fn first_sent_ms(headers: &Headers, timestamp_ms: i64) -> i64 {
    headers.get(REPLAYED_TIMESTAMP).and_then(millis).map_or(timestamp_ms, |first_ms| first_ms.min(timestamp_ms))
}

fn millis(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::command::Code;
    use super::*;
    use crate::topics::DEAD_LETTER_BYTES_MAX;

    fn letter(key: usize, value: usize, headers: &[(&str, usize)]) -> (Record, Outgoing) {
        let pairs: Vec<(&str, Vec<u8>)> = headers.iter().map(|(name, length)| (*name, vec![b'h'; *length])).collect();
        let record = Record {
            offset: 9,
            timestamp_ms: 1_700_000_000_123,
            key: Some(vec![b'k'; key].into()),
            value: Some(vec![b'v'; value].into()),
            headers: Headers::from_pairs(pairs.iter().map(|(name, value)| (*name, &value[..]))),
        };
        let malformed = Malformed { code: Code::TooLarge, message: "m".repeat(300) };
        let letter = dead_letter(&record, Coordinates { partition: 3, offset: 9 }, &malformed, "finflow", 1_700_000_009_000);
        (record, letter)
    }

    fn bytes(letter: &Outgoing) -> usize {
        letter.key.as_ref().map_or(0, Bytes::len) + letter.value.as_ref().map_or(0, Bytes::len) + letter.headers.as_bytes().len()
    }

    #[test]
    fn what_the_log_takes_is_kept_whole() {
        let many: Vec<(&str, usize)> = vec![("h", 2); 10_000];
        for (key, value, headers) in [
            (5, 65 * 1024, vec![("correlation-id", 3)]),
            (5, 0, many),
            (0, 10, vec![("h", 200 * 1024)]),
            // To the last byte: each header takes 6 more than its name and value.
            (5, RECORD_BYTES_MAX - 5 - 100 - 7, vec![("h", 100)]),
        ] {
            let (record, letter) = letter(key, value, &headers);
            assert_eq!((&letter.key, &letter.value), (&record.key, &record.value));
            let kept: Vec<_> = letter.headers.iter().take(headers.len()).collect();
            assert!(kept.into_iter().eq(record.headers.iter()), "every header, in order");
            assert_eq!(letter.timestamp_ms, Some(record.timestamp_ms));
            assert_eq!(letter.headers.get(DEAD_LETTERED_AT), Some(&b"1700000009000"[..]));
            assert_eq!(letter.headers.get("x-original-bytes"), None);
            assert_eq!(origin_of(&letter.headers), Some(Coordinates { partition: 3, offset: 9 }));
            assert!(bytes(&letter) <= DEAD_LETTER_BYTES_MAX, "{}", bytes(&letter));
        }
    }

    #[test]
    fn what_was_compressed_below_the_limit_is_cut_and_named() {
        for (key, value, headers) in [(5, RECORD_BYTES_MAX, vec![]), (1 << 20, 10 << 20, vec![("h", 1 << 20), ("i", 1)])] {
            let (record, letter) = letter(key, value, &headers);
            assert!(bytes(&letter) <= DEAD_LETTER_BYTES_MAX, "{}", bytes(&letter));
            assert_eq!(letter.headers.get("x-original-bytes"), Some(value.to_string().as_bytes()));
            let digest = hex(&Sha256::digest(record.value.as_deref().unwrap_or_default()));
            assert_eq!(letter.headers.get("x-original-sha256"), Some(digest.as_bytes()));
            assert_eq!(letter.headers.get("x-error-code"), Some(&b"too_large"[..]));
        }
    }

    #[test]
    fn what_is_sent_again_is_the_producers_and_says_where_it_comes_from() {
        let place = Coordinates { partition: 3, offset: 17 };
        let again = |letter: Outgoing, timestamp_ms| {
            let Outgoing { key, value, headers, .. } = letter;
            replayed(&Record { offset: 17, timestamp_ms, key, value, headers }, place, "pay")
        };
        // A producer's names may be anybody's.
        let (record, first) = letter(5, 9, &[("correlation-id", 3), (EXCEPTION, 1), (REPLAYED_FROM, 2)]);
        let sent = again(first, record.timestamp_ms).expect("it is whole");
        assert_eq!((&sent.key, &sent.value, sent.timestamp_ms), (&record.key, &record.value, None));
        let told = |sent: &Outgoing| sent.headers.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        let names = ["correlation-id", EXCEPTION, REPLAYED_FROM, REPLAYED_FROM, REPLAYED_TIMESTAMP];
        assert_eq!(told(&sent), names);
        assert_eq!(sent.headers.get(REPLAYED_FROM), Some(&b"pay.dlq.v1:3:17"[..]));
        assert_eq!(first_sent_ms(&sent.headers, i64::MAX), record.timestamp_ms);

        // It comes back, and goes out once more: still as old as it was.
        let malformed = Malformed { code: Code::Panicked, message: String::new() };
        let Outgoing { key, value, headers, .. } = sent;
        let taken = Record { offset: 40, timestamp_ms: record.timestamp_ms + 5_000, key, value, headers };
        let origin = Coordinates { partition: 3, offset: 40 };
        let back = dead_letter(&taken, origin, &malformed, "pay", taken.timestamp_ms + 1);
        let sent = again(back, taken.timestamp_ms).expect("it is whole");
        assert_eq!(told(&sent), names);
        assert_eq!(first_sent_ms(&sent.headers, i64::MAX), record.timestamp_ms);

        let (record, cut) = letter(5, RECORD_BYTES_MAX, &[]);
        assert!(again(cut, record.timestamp_ms).is_err_and(|cause| cause.contains("only a part")));
        let foreign = Outgoing { headers: record.headers.clone(), ..Outgoing::default() };
        assert!(again(foreign, 0).is_err_and(|cause| cause.contains("has not written it")));
    }

    #[test]
    fn a_command_is_as_old_as_the_log_says_or_older() {
        let with = |value: &[u8]| Headers::from_pairs([(REPLAYED_TIMESTAMP, value)]);
        for (headers, expected) in [
            (Headers::default(), 1_000),
            (with(b"400"), 400),
            (with(b"1001"), 1_000),
            (with(b"x"), 1_000),
            (with(b"99999999999999999999"), 1_000),
        ] {
            assert_eq!(first_sent_ms(&headers, 1_000), expected);
        }
    }
}
