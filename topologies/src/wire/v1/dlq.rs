//! Dead letters: the original record, its time included, with headers that say what is wrong, where it stood and when it was
//! given up.
//!
//! The names are those that Kafka Streams uses since 4.2 (KIP-1034), and `x-error-code`. What the log takes as a command fits
//! whole. Only a record that was compressed below the broker's limit can be longer: then it is cut, and its length and SHA-256 are told.

use bytes::Bytes;
use finflow_ledger::Coordinates;
use sha2::{Digest, Sha256};

use super::command::{HEADER_BYTES_MAX, HEADERS_MAX, Malformed};
use crate::log::{Headers, HeadersBuilder, Outgoing, Record};
use crate::topics::{RECORD_BYTES_MAX, Topic};

const PARTITION: &str = "__streams.errors.partition";
const OFFSET: &str = "__streams.errors.offset";
/// When the command became a dead letter, in milliseconds since 1970-01-01 UTC.
const DEAD_LETTERED_AT: &str = "x-dead-lettered-at";
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
    headers.push("__streams.errors.exception", b"finflow.Malformed");
    headers.push("__streams.errors.message", malformed.message.as_bytes());
    headers.push("__streams.errors.topic", Topic::Commands.name(prefix).as_bytes());
    headers.push(PARTITION, origin.partition.to_string().as_bytes());
    headers.push(OFFSET, origin.offset.to_string().as_bytes());
    headers.push("x-error-code", malformed.code.as_str().as_bytes());
    headers.push(DEAD_LETTERED_AT, now_ms.to_string().as_bytes());
    let (mut key, mut value) = (record.key.clone(), record.value.clone());
    if !is_whole {
        headers.push("x-original-bytes", value_bytes.to_string().as_bytes());
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
    let told = letter.headers.get(DEAD_LETTERED_AT).and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    // Before it was told, a dead letter had the log's own time.
    told.unwrap_or(letter.timestamp_ms)
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
}
