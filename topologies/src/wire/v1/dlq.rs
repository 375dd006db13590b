//! Dead letters: the original record, unchanged, with headers that say what is wrong and where it stood.
//!
//! The names are those that Kafka Streams uses since 4.2 (KIP-1034), and `x-error-code`.

use finflow_ledger::Coordinates;

use super::command::{HEADER_BYTES_MAX, HEADERS_MAX, Malformed};
use crate::log::{Headers, HeadersBuilder, Outgoing, Record};
use crate::topics::Topic;

const PARTITION: &str = "__streams.errors.partition";
const OFFSET: &str = "__streams.errors.offset";

/// The dead letter of a command record that was read at `origin`. Of a flood of headers only the first are kept.
pub fn dead_letter(record: &Record, origin: Coordinates, malformed: &Malformed, prefix: &str) -> Outgoing {
    let mut headers = HeadersBuilder::default();
    let mut bytes = 0_usize;
    for (name, value) in record.headers.iter().take(HEADERS_MAX) {
        bytes = bytes.saturating_add(name.len()).saturating_add(value.len()).saturating_add(6);
        if HEADER_BYTES_MAX < bytes {
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
    headers.push("x-original-timestamp", record.timestamp_ms.to_string().as_bytes());
    Outgoing { key: record.key.clone(), value: record.value.clone(), headers: headers.build() }
}

/// Where the record of a dead letter was read.
pub fn origin_of(headers: &Headers) -> Option<Coordinates> {
    let number = |name: &str| std::str::from_utf8(headers.get(name)?).ok();
    Some(Coordinates { partition: number(PARTITION)?.parse().ok()?, offset: number(OFFSET)?.parse().ok()? })
}
