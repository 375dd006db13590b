//! What a value must look like, one function for each kind. Each reads whatever TOML holds there and answers with its own words,
//! because serde's would repeat the value. Nothing here knows a key.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serializer, de::Error};
use toml::Value;

use crate::rest::{self, Rest};
use crate::{LogFormat, LogKind};

/// Most characters of a name: a topic has at most 249 (Kafka), the longest suffix included.
const NAME_CHARS_MAX: usize = 200;

/// A whole number from `MIN` to `MAX`.
pub(crate) fn whole<'de, D: Deserializer<'de>, const MIN: u32, const MAX: u32>(source: D) -> Result<u32, D::Error> {
    let value = Value::deserialize(source)?;
    let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
    number
        .filter(|number| (MIN..=MAX).contains(number))
        .ok_or_else(|| D::Error::custom(format!("must be a whole number from {MIN} to {MAX}")))
}

/// `true` or `false`.
pub(crate) fn truth<'de, D: Deserializer<'de>>(source: D) -> Result<bool, D::Error> {
    Value::deserialize(source)?.as_bool().ok_or_else(|| D::Error::custom("must be true or false"))
}

/// A name that can be part of the name of a Kafka topic.
pub(crate) fn name<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    let fits = |text: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        text.len() <= NAME_CHARS_MAX
            && text.bytes().all(inner)
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.ends_with(|last: char| last.is_ascii_alphanumeric())
    };
    text(
        source,
        |text| fits(text).then(|| text.to_owned()),
        "must be 1 to 200 letters, digits, `.`, `_` or `-`, with a letter or digit at both ends",
    )
}

/// An IP address and a port.
pub(crate) fn address<'de, D: Deserializer<'de>>(source: D) -> Result<SocketAddr, D::Error> {
    text(source, |text| text.parse().ok(), "must be an IP address and a port, as in \"127.0.0.1:9464\"")
}

/// The same, for other processes.
pub(crate) fn internal_address<'de, D: Deserializer<'de>>(source: D) -> Result<SocketAddr, D::Error> {
    text(source, |text| text.parse().ok(), "must be an IP address and a port, as in \"10.0.0.7:9465\"")
}

/// A host and a port, or nothing.
pub(crate) fn advertised<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    let fits = |text: &str| (text.is_empty() || is_host_and_port(text)).then(|| text.to_owned());
    text(source, fits, "must be host:port, as in \"finflow-1.internal:9465\"")
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    // Others read it out of a name in which `@` has its meaning.
    let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'@');
    is_host && port.parse::<u16>().is_ok_and(|port| 0 < port)
}

/// What is shown instead of a secret.
pub(crate) const HIDDEN: &str = "(hidden)";

/// A secret, or nothing.
pub(crate) fn secret<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    let rule = "must be a string, and the secret itself: what is shown of a configuration hides it";
    text(source, |text| (text != HIDDEN).then(|| text.to_owned()), rule)
}

/// Hides a secret.
pub(crate) fn hidden<S: Serializer>(secret: &str, sink: S) -> Result<S::Ok, S::Error> {
    sink.serialize_str(if secret.is_empty() { "" } else { HIDDEN })
}

/// Where the topics are.
pub(crate) fn log_kind<'de, D: Deserializer<'de>>(source: D) -> Result<LogKind, D::Error> {
    let kind = |text: &str| match text {
        "embedded" => Some(LogKind::Embedded),
        "kafka" => Some(LogKind::Kafka),
        _ => None,
    };
    text(source, kind, "must be \"embedded\" or \"kafka\"")
}

/// The addresses of brokers, with commas.
pub(crate) fn brokers<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    let is_broker = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
        port.parse::<u16>().ok().filter(|port| is_host && 0 < *port)
    };
    let all = |text: &str| text.split(',').all(|broker| is_broker(broker).is_some()).then(|| text.to_owned());
    text(source, all, "must be host:port, several with commas, as in \"kafka-1:9092,kafka-2:9092\"")
}

/// The value of a property of the client library, which takes them all as text.
pub(crate) fn property<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    let text = match Value::deserialize(source)? {
        Value::String(text) => Some(text),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    };
    let rule =
        "must be a string, a whole number, true or false, and the value itself: what is shown of a configuration hides secrets";
    text.filter(|text| text != HIDDEN && !text.contains(char::from(0))).ok_or_else(|| D::Error::custom(rule))
}

/// Whether a property of the client library holds a password, a private key or a token; rather one too many.
pub(crate) fn is_secret(name: &str) -> bool {
    const SIGNS: [&str; 8] =
        ["password", "passphrase", "secret", "private.key", "key.pem", "credential", "token", "oauthbearer.config"];
    let name = name.to_ascii_lowercase();
    SIGNS.iter().any(|sign| name.contains(sign))
}

/// The format of the process's log.
pub(crate) fn log_format<'de, D: Deserializer<'de>>(source: D) -> Result<LogFormat, D::Error> {
    let format = |text: &str| match text {
        "human" => Some(LogFormat::Human),
        "json" => Some(LogFormat::Json),
        _ => None,
    };
    text(source, format, "must be \"human\" or \"json\"")
}

/// Where snapshots rest, or nothing.
pub(crate) fn snapshots_url<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    text(source, |text| Rest::parse(text).map(|_| text.to_owned()), rest::RULE)
}

/// The URL of a server, or nothing.
pub(crate) fn endpoint<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    text(source, |text| (text.is_empty() || rest::is_endpoint(text)).then(|| text.to_owned()), rest::ENDPOINT_RULE)
}

/// Who asks an object store, or nothing.
pub(crate) fn access_key_id<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    let fits = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic()).then(|| text.to_owned());
    text(source, fits, "must be the id of a key, without spaces")
}

fn text<'de, D: Deserializer<'de>, T>(source: D, read: impl Fn(&str) -> Option<T>, rule: &str) -> Result<T, D::Error> {
    Value::deserialize(source)?.as_str().and_then(read).ok_or_else(|| D::Error::custom(rule))
}

/// A time, more than zero, with its unit.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    const NANOSECONDS: super::Units = &[
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<Duration, D::Error> {
        super::quantity(source, NANOSECONDS, "a string such as \"15ms\"").map(Duration::from_nanos)
    }

    pub(crate) fn serialize<S: Serializer>(time: &Duration, sink: S) -> Result<S::Ok, S::Error> {
        // What was read fits, see above; what a caller made longer is written as the longest there is.
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        sink.serialize_str(&super::written(nanoseconds, NANOSECONDS))
    }
}

/// A time like [`duration`], or `"off"`, which is none.
pub(crate) mod duration_or_off {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};
    use toml::Value;

    const OFF: &str = "off";

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Duration>, D::Error> {
        match Value::deserialize(source)? {
            Value::String(text) if text == OFF || text == "0" => Ok(None),
            Value::Integer(0) => Ok(None),
            other => super::duration::deserialize(other).map(Some).map_err(serde::de::Error::custom),
        }
    }

    pub(crate) fn serialize<S: Serializer>(time: &Option<Duration>, sink: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::duration::serialize(time, sink),
            None => sink.serialize_str(OFF),
        }
    }
}

/// A number of bytes, more than zero, with its unit.
pub(crate) mod size {
    use serde::{Deserializer, Serializer};

    const BYTES: super::Units = &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<u64, D::Error> {
        super::quantity(source, BYTES, "a string such as \"64MiB\"")
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &u64, sink: S) -> Result<S::Ok, S::Error> {
        sink.serialize_str(&super::written(*bytes, BYTES))
    }
}

/// Units and how many of the smallest each is, the largest first; the smallest is 1.
type Units = &'static [(&'static str, u64)];

/// A whole number directly followed by its unit, counted in the smallest unit.
fn quantity<'de, D: Deserializer<'de>>(source: D, units: Units, example: &str) -> Result<u64, D::Error> {
    let value = Value::deserialize(source)?;
    let names = units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let Some(text) = value.as_str() else {
        return Err(D::Error::custom(format!("must be a number with a unit ({names}): {example}")));
    };
    if text.starts_with('-') {
        return Err(D::Error::custom("must not be negative"));
    }

    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    if digits.is_empty() {
        return Err(D::Error::custom(format!("must be a whole number with a unit ({names}): {example}")));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let flaw = if unit.is_empty() { "has no unit" } else { "has an unknown unit" };
        return Err(D::Error::custom(format!("{flaw}; a whole number with one of {names} is needed: {example}")));
    };
    // Digits alone fail to parse only where they are too many.
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)) {
        None => Err(D::Error::custom("is too large")),
        Some(0) => Err(D::Error::custom("must be more than zero")),
        Some(amount) => Ok(amount),
    }
}

/// `amount` in the largest unit that divides it.
fn written(amount: u64, units: Units) -> String {
    let fitting = units.iter().find(|(_, factor)| amount.is_multiple_of(*factor));
    fitting.map_or_else(|| amount.to_string(), |(name, factor)| format!("{}{name}", amount / factor))
}
