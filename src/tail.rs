//! `finflow tail`: committed records of a topic, one JSON object a line.

use std::io::{BufWriter, Write};
use std::time::Duration;

use finflow_topologies::Topic;
use finflow_topologies::log::Record;
use finflow_topologies::wire::v1::time_text;
use serde_json::{Map, Value, json};

use crate::access::Access;
use crate::cli::{self, Common, TailTopic};
use crate::failure::Failure;

const FETCH_BYTES: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn tail(common: &Common, options: &cli::Tail) -> Result<(), Failure> {
    let topic = match options.topic {
        TailTopic::Events => Topic::Events,
        TailTopic::Commands => Topic::Commands,
        TailTopic::Dlq => Topic::Dlq,
    };
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
        let printed = print_all(&access, topic, &mut next).await?;
        if options.exit_at_end && !printed {
            return Ok(());
        }
        if !printed {
            access.changed(PAUSE).await?;
        }
    }
}

async fn print_all(access: &Access, topic: Topic, next: &mut [u64]) -> Result<bool, Failure> {
    let mut printed = false;
    for (partition, from) in (0_u32..).zip(next.iter_mut()) {
        let fetched = access.fetch(topic, partition, *from, FETCH_BYTES).await?;
        let mut out = BufWriter::new(std::io::stdout().lock());
        for record in &fetched.records {
            writeln!(out, "{}", record_json(topic, partition, record))?;
            printed = true;
        }
        out.flush()?;
        *from = fetched.next;
    }
    Ok(printed)
}

/// The contract's form of a record: `value_base64` where the value is not JSON.
pub(crate) fn record_json(topic: Topic, partition: u32, record: &Record) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Map<String, Value> =
        record.headers.iter().map(|(name, value)| (name.to_owned(), Value::from(text(value)))).collect();
    let mut line = json!({
        "topic": topic.name("finflow"),
        "partition": partition,
        "offset": record.offset,
        "timestamp": time_text(record.timestamp_ms),
        "key": record.key.as_deref().map(text),
        "headers": headers,
    });
    let (name, value) = match record.value.as_deref() {
        None => ("value", Value::Null),
        Some(bytes) => match serde_json::from_slice(bytes) {
            Ok(value) => ("value", value),
            Err(_) => ("value_base64", Value::from(base64(bytes))),
        },
    };
    line[name] = value;
    line
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
    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(super::base64(bytes.as_bytes()), text);
        }
    }
}
