//! `finflow tail`: committed records of a topic, one JSON object a line.

use std::time::Duration;

use finflow_topologies::Topic;
use finflow_topologies::log::Record;
use finflow_topologies::wire::v1::time_text;
use serde_json::{Map, Value, json};

use crate::access::{Access, configuration};
use crate::cli::{self, Common, TailTopic};
use crate::failure::Failure;
use crate::output::Output;

const FETCH_BYTES: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn tail(common: &Common, options: &cli::Tail) -> Result<(), Failure> {
    let topic = match options.topic {
        TailTopic::Events => Topic::Events,
        TailTopic::Commands => Topic::Commands,
        TailTopic::Dlq => Topic::Dlq,
    };
    let prefix = configuration(common)?.topics.prefix;
    let access = Access::open(common).await?;
    let mut next = Vec::new();
    for partition in 0..access.partitions_count().await? {
        let range = access.range(topic, partition).await?;
        next.push(match options.from {
            cli::From::Beginning => range.start,
            cli::From::End => range.end,
        });
    }
    loop {
        let printed = print_all(&access, &prefix, topic, &mut next).await?;
        if options.exit_at_end && !printed {
            return Ok(());
        }
        if !printed {
            access.changed(PAUSE).await?;
        }
    }
}

async fn print_all(access: &Access, prefix: &str, topic: Topic, next: &mut [u64]) -> Result<bool, Failure> {
    let mut printed = false;
    for (partition, from) in (0_u32..).zip(next.iter_mut()) {
        let fetched = access.fetch(topic, partition, *from, FETCH_BYTES).await?;
        let mut out = Output::new();
        for record in &fetched.records {
            out.line(record_line(prefix, topic, partition, record))?;
            printed = true;
        }
        out.flush()?;
        *from = fetched.next;
    }
    Ok(printed)
}

/// The contract's form of a record in one line. A value that is JSON stands there as it was written, digit for digit;
/// `value_base64`, and `key_base64`, where it is no JSON and no text.
pub(crate) fn record_line(prefix: &str, topic: Topic, partition: u32, record: &Record) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Map<String, Value> =
        record.headers.iter().map(|(name, value)| (name.to_owned(), Value::from(text(value)))).collect();
    let mut line = json!({
        "topic": topic.name(prefix),
        "partition": partition,
        "offset": record.offset,
        "timestamp": time_text(record.timestamp_ms),
        "key": record.key.as_deref().map(text),
        "headers": headers,
    });
    if let Some(key) = record.key.as_deref().filter(|key| std::str::from_utf8(key).is_err()) {
        line["key_base64"] = base64(key).into();
    }
    match record.value.as_deref() {
        None => line["value"] = Value::Null,
        Some(bytes) => match json_line(bytes) {
            Some(value) => return with_value(&line, &value),
            None => line["value_base64"] = base64(bytes).into(),
        },
    }
    line.to_string()
}

/// The bytes as they are, if they are JSON that any reader takes; line ends, which JSON has only between its parts, become spaces.
fn json_line(bytes: &[u8]) -> Option<String> {
    serde_json::from_slice::<Value>(bytes).ok()?;
    Some(std::str::from_utf8(bytes).ok()?.trim().replace(['\n', '\r'], " "))
}

fn with_value(line: &Value, value: &str) -> String {
    let mut text = line.to_string();
    text.pop();
    text + ",\"value\":" + value + "}"
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().chain([&0, &0]).take(3).fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte));
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place)) & 63;
            let is_data = place <= chunk.len();
            text.push(if is_data { char::from(ALPHABET[digit as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use finflow_topologies::log::Headers;

    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_record_is_one_line_and_loses_nothing() {
        let deep = "[".repeat(500) + &"]".repeat(500);
        type Part<'a> = Option<&'a [u8]>;
        let rows: [(Part, Part, String); 9] = [
            (
                Some(b"alice"),
                Some(b"{\"a\":12.50,\"a\":1}"),
                r#""key":"alice","headers":{"h":"v"},"value":{"a":12.50,"a":1}}"#.to_owned(),
            ),
            (
                Some(b"alice"),
                Some(b" {\"a\":\r\n 1e5}\n"),
                r#""key":"alice","headers":{"h":"v"},"value":{"a":   1e5}}"#.to_owned(),
            ),
            (None, None, r#""key":null,"headers":{"h":"v"},"value":null}"#.to_owned()),
            (None, Some(b""), r#""key":null,"headers":{"h":"v"},"value_base64":""}"#.to_owned()),
            (None, Some(b"null"), r#""key":null,"headers":{"h":"v"},"value":null}"#.to_owned()),
            (None, Some(b"\"\xff\""), r#""key":null,"headers":{"h":"v"},"value_base64":"Iv8i"}"#.to_owned()),
            (None, Some(b"\"\\ud800\""), r#""key":null,"headers":{"h":"v"},"value_base64":"Ilx1ZDgwMCI="}"#.to_owned()),
            (
                None,
                Some(deep.as_bytes()),
                format!(r#""key":null,"headers":{{"h":"v"}},"value_base64":"{}"}}"#, base64(deep.as_bytes())),
            ),
            (
                Some(b"\xff"),
                Some(b"1"),
                "\"key\":\"\u{fffd}\",\"headers\":{\"h\":\"v\"},\"key_base64\":\"/w==\",\"value\":1}".to_owned(),
            ),
        ];
        for (key, value, expected) in rows {
            let bytes = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
            let headers = Headers::from_pairs([("h", &b"v"[..])]);
            let record = Record { offset: 7, timestamp_ms: 0, key: bytes(key), value: bytes(value), headers };
            let line = record_line("pay", Topic::Dlq, 3, &record);
            let start = r#"{"topic":"pay.dlq.v1","partition":3,"offset":7,"timestamp":"1970-01-01T00:00:00.000Z","#;
            assert_eq!(line.strip_prefix(start), Some(&*expected));
            assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
        }
    }
}
