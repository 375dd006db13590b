//! Commands: from the bytes of a record to what is proven of them, or to why they cannot be understood.
//!
//! What does not parse goes to the DLQ. What parses but asks for something impossible is not this module's business: it gets a
//! business answer later.

use std::fmt;
use std::sync::Arc;

use finflow_ledger::{AmountText, CommandKind, IdempotencyKey, Private, Tenant, WalletId, WalletKind};
use sha2::{Digest, Sha256};

use super::fields::{Fields, Pairs, Text};
use crate::log::Headers;

/// The longest command, in bytes.
pub const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// The most headers of a command.
pub const HEADERS_MAX: usize = 64;
/// The longest headers of a command together, in bytes.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

const FREE_TEXT_CHARACTERS_MAX: usize = 140;
const METADATA_NAME_CHARACTERS_MAX: usize = 64;
const METADATA_VALUE_CHARACTERS_MAX: usize = 256;
const CORRELATION_BYTES_MAX: usize = 128;
const SCHEMA_VERSION: &[u8] = b"1";

/// A command as it was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Who asks.
    pub tenant: Tenant,
    /// The key under which it asks.
    pub key: IdempotencyKey,
    /// The home wallet.
    pub wallet: WalletId,
    /// The client's reference.
    pub reference: Option<Private>,
    /// The client's metadata, sorted by name.
    pub metadata: Vec<(Arc<str>, Private)>,
    /// What is asked.
    pub body: Body,
    /// What the request says, in 128 bits: equal requests have equal fingerprints.
    pub fingerprint: [u8; 16],
    /// The correlation id that came in a header.
    pub correlation: Option<Arc<str>>,
    /// The W3C trace context that came in a header.
    pub traceparent: Option<Arc<str>>,
}

/// What a command asks for. Amounts match the contract's grammar; currencies and countries are texts as given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Body {
    OpenWallet { currency: Arc<str>, country: Arc<str>, kind: WalletKind, holder: Private },
    FreezeWallet { reason: Private },
    UnfreezeWallet { reason: Private },
    CloseWallet { reason: Private },
    Transfer { to: WalletId, amount: Arc<str>, currency: Arc<str> },
    TopUp { amount: Arc<str>, currency: Arc<str>, source: Source },
}

/// Where a top-up comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The partner; none means the treasury.
    pub partner: Option<Arc<str>>,
    /// The account there.
    pub account: Private,
}

impl Command {
    /// The kind of the command.
    pub fn kind(&self) -> CommandKind {
        match &self.body {
            Body::OpenWallet { .. } => CommandKind::OpenWallet,
            Body::FreezeWallet { .. } => CommandKind::FreezeWallet,
            Body::UnfreezeWallet { .. } => CommandKind::UnfreezeWallet,
            Body::CloseWallet { .. } => CommandKind::CloseWallet,
            Body::Transfer { .. } => CommandKind::Transfer,
            Body::TopUp { .. } => CommandKind::TopUp,
        }
    }

    /// Amount and currency as given.
    pub fn amount(&self) -> Option<(&str, &str)> {
        match &self.body {
            Body::Transfer { amount, currency, .. } | Body::TopUp { amount, currency, .. } => Some((amount, currency)),
            _ => None,
        }
    }

    /// The receiving wallet.
    pub fn to(&self) -> Option<&WalletId> {
        match &self.body {
            Body::Transfer { to, .. } => Some(to),
            _ => None,
        }
    }
}

/// What is wrong with a record; the header `x-error-code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Code {
    ValueMissing,
    TooLarge,
    HeadersTooLarge,
    NotJson,
    NotAnObject,
    TypeUnknown,
    FieldMissing,
    FieldUnknown,
    FieldDuplicate,
    FieldInvalid,
    SchemaVersionUnsupported,
    /// The decision itself panicked.
    Panicked,
}

impl Code {
    /// Every one of them.
    pub const ALL: [Code; 12] = [
        Code::ValueMissing,
        Code::TooLarge,
        Code::HeadersTooLarge,
        Code::NotJson,
        Code::NotAnObject,
        Code::TypeUnknown,
        Code::FieldMissing,
        Code::FieldUnknown,
        Code::FieldDuplicate,
        Code::FieldInvalid,
        Code::SchemaVersionUnsupported,
        Code::Panicked,
    ];

    /// The word in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::ValueMissing => "value_missing",
            Code::TooLarge => "too_large",
            Code::HeadersTooLarge => "headers_too_large",
            Code::NotJson => "not_json",
            Code::NotAnObject => "not_an_object",
            Code::TypeUnknown => "type_unknown",
            Code::FieldMissing => "field_missing",
            Code::FieldUnknown => "field_unknown",
            Code::FieldDuplicate => "field_duplicate",
            Code::FieldInvalid => "field_invalid",
            Code::SchemaVersionUnsupported => "schema_version_unsupported",
            Code::Panicked => "panicked",
        }
    }
}

/// Why a record cannot be understood. The message names places and rules, never what the record says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Malformed {
    /// The kind of fault.
    pub code: Code,
    /// Where and which rule.
    pub message: String,
}

fn malformed(code: Code, message: impl Into<String>) -> Malformed {
    Malformed { code, message: message.into() }
}

/// Understands the record of a command.
pub fn decode(value: Option<&[u8]>, headers: &Headers) -> Result<Command, Malformed> {
    check_headers(headers)?;
    let value =
        value.filter(|value| !value.is_empty()).ok_or_else(|| malformed(Code::ValueMissing, "the record has no value"))?;
    if COMMAND_BYTES_MAX < value.len() {
        return Err(malformed(Code::TooLarge, format!("longer than {COMMAND_BYTES_MAX} bytes")));
    }
    let fields = parse(value)?;
    let mut command = prove(fields)?;
    command.fingerprint = fingerprint(&command);
    command.correlation = headers.get("correlation-id").and_then(correlation_text).map(Arc::from);
    command.traceparent = headers.get("traceparent").and_then(traceparent_text).map(Arc::from);
    Ok(command)
}

fn check_headers(headers: &Headers) -> Result<(), Malformed> {
    if headers.is_empty() {
        return Ok(());
    }
    if HEADER_BYTES_MAX < headers.as_bytes().len() || HEADERS_MAX < headers.iter().count() {
        let message = format!("more than {HEADERS_MAX} headers or {HEADER_BYTES_MAX} bytes of them");
        return Err(malformed(Code::HeadersTooLarge, message));
    }
    match headers.get("schema-version") {
        Some(version) if version != SCHEMA_VERSION => {
            Err(malformed(Code::SchemaVersionUnsupported, "the header schema-version is not 1: the producer is newer or broken"))
        }
        _ => Ok(()),
    }
}

fn parse(value: &[u8]) -> Result<Fields<'_>, Malformed> {
    let first = value.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|byte| *byte != b'{') {
        // Skipping a value needs no stack, however deep it is.
        let skipped: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(value);
        return Err(match skipped {
            Ok(_) => malformed(Code::NotAnObject, "the value is not a JSON object"),
            Err(error) => malformed(Code::NotJson, format!("not JSON at line {} column {}", error.line(), error.column())),
        });
    }
    serde_json::from_slice(value).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        if !error.is_data() {
            return malformed(Code::NotJson, format!("not JSON at {place}"));
        }
        let text = error.to_string();
        let code = [("duplicate field", Code::FieldDuplicate), ("unknown field", Code::FieldUnknown)];
        let code = code.into_iter().find(|(start, _)| text.starts_with(start)).map_or(Code::FieldInvalid, |(_, code)| code);
        malformed(code, format!("at {place}"))
    })
}

fn prove(fields: Fields<'_>) -> Result<Command, Malformed> {
    let kind = required(&fields.kind, "type")?;
    let kind = CommandKind::ALL.into_iter().find(|known| known.as_str() == kind);
    let kind = kind.ok_or_else(|| malformed(Code::TypeUnknown, "the type is not one that is carried out"))?;
    check_fields(kind, &fields)?;
    let body = body(kind, &fields)?;
    if let Some(requested_at) = &fields.requested_at {
        let is_time = requested_at.0.parse::<jiff::Timestamp>().is_ok();
        is_time.then_some(()).ok_or_else(|| invalid("requested_at"))?;
    }
    Ok(Command {
        tenant: Tenant::parse(required(&fields.tenant, "tenant")?).ok_or_else(|| invalid("tenant"))?,
        key: IdempotencyKey::parse(required(&fields.idempotency_key, "idempotency_key")?)
            .ok_or_else(|| invalid("idempotency_key"))?,
        wallet: WalletId::parse(required(&fields.wallet, "wallet")?).ok_or_else(|| invalid("wallet"))?,
        reference: fields.reference.as_ref().map(|text| free_text(&text.0, "reference")).transpose()?,
        metadata: fields.metadata.as_ref().map(metadata).transpose()?.unwrap_or_default(),
        body,
        fingerprint: [0; 16],
        correlation: None,
        traceparent: None,
    })
}

fn body(kind: CommandKind, fields: &Fields<'_>) -> Result<Body, Malformed> {
    let currency = || required(&fields.currency, "currency").map(Arc::from);
    let reason = || free_text(required(&fields.reason, "reason")?, "reason");
    Ok(match kind {
        CommandKind::OpenWallet => Body::OpenWallet {
            currency: currency()?,
            country: required(&fields.country, "country")?.into(),
            kind: WalletKind::parse(required(&fields.wallet_kind, "kind")?).ok_or_else(|| invalid("kind"))?,
            holder: free_text(required(&fields.holder, "holder")?, "holder")?,
        },
        CommandKind::FreezeWallet => Body::FreezeWallet { reason: reason()? },
        CommandKind::UnfreezeWallet => Body::UnfreezeWallet { reason: reason()? },
        CommandKind::CloseWallet => Body::CloseWallet { reason: reason()? },
        CommandKind::Transfer => Body::Transfer {
            to: WalletId::parse(required(&fields.to, "to")?).ok_or_else(|| invalid("to"))?,
            amount: amount(fields)?,
            currency: currency()?,
        },
        CommandKind::TopUp => {
            Body::TopUp { amount: amount(fields)?, currency: currency()?, source: source(fields.source.as_ref())? }
        }
    })
}

fn amount(fields: &Fields<'_>) -> Result<Arc<str>, Malformed> {
    let text = required(&fields.amount, "amount")?;
    AmountText::parse(text).map(|_| Arc::from(text)).ok_or_else(|| invalid("amount"))
}

fn source(pairs: Option<&Pairs<'_>>) -> Result<Source, Malformed> {
    let pairs = pairs.ok_or_else(|| missing("source"))?;
    if pairs.0.iter().any(|(name, _)| !matches!(&*name.0, "partner" | "account")) {
        return Err(malformed(Code::FieldUnknown, "in source"));
    }
    let field = |wanted: &str| pairs.0.iter().find(|(name, _)| name.0 == wanted).map(|(_, value)| &*value.0);
    let account = field("account").ok_or_else(|| missing("source.account"))?;
    Ok(Source {
        partner: field("partner").map(|partner| free_text(partner, "source.partner")).transpose()?.map(|name| Arc::from(&*name)),
        account: free_text(account, "source.account")?,
    })
}

/// Names and values, sorted by name.
type Metadata = Vec<(Arc<str>, Private)>;

fn metadata(pairs: &Pairs<'_>) -> Result<Metadata, Malformed> {
    let mut metadata = Vec::with_capacity(pairs.0.len());
    for (name, value) in &pairs.0 {
        let is_name = !name.0.is_empty() && is_text(&name.0, METADATA_NAME_CHARACTERS_MAX);
        if !is_name || !is_text(&value.0, METADATA_VALUE_CHARACTERS_MAX) {
            return Err(invalid("metadata"));
        }
        metadata.push((Arc::from(&*name.0), Private::from(&*value.0)));
    }
    metadata.sort();
    Ok(metadata)
}

/// Refuses fields that other commands have and this one has not.
fn check_fields(kind: CommandKind, fields: &Fields<'_>) -> Result<(), Malformed> {
    let is_open = kind == CommandKind::OpenWallet;
    let is_change = matches!(kind, CommandKind::FreezeWallet | CommandKind::UnfreezeWallet | CommandKind::CloseWallet);
    let rows = [
        ("currency", fields.currency.is_some(), is_open || kind.is_payment()),
        ("country", fields.country.is_some(), is_open),
        ("kind", fields.wallet_kind.is_some(), is_open),
        ("holder", fields.holder.is_some(), is_open),
        ("reason", fields.reason.is_some(), is_change),
        ("to", fields.to.is_some(), kind == CommandKind::Transfer),
        ("amount", fields.amount.is_some(), kind.is_payment()),
        ("source", fields.source.is_some(), kind == CommandKind::TopUp),
    ];
    match rows.into_iter().find(|(_, is_given, is_allowed)| *is_given && !is_allowed) {
        Some((name, ..)) => Err(malformed(Code::FieldUnknown, format!("{} has no field {name}", kind.as_str()))),
        None => Ok(()),
    }
}

fn required<'f>(field: &'f Option<Text<'_>>, name: &str) -> Result<&'f str, Malformed> {
    field.as_ref().map(|text| &*text.0).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Malformed {
    malformed(Code::FieldMissing, format!("{name} is missing"))
}

fn invalid(name: &str) -> Malformed {
    malformed(Code::FieldInvalid, format!("{name} does not have its form"))
}

fn free_text(text: &str, name: &str) -> Result<Private, Malformed> {
    let is_valid = !text.is_empty() && is_text(text, FREE_TEXT_CHARACTERS_MAX);
    is_valid.then(|| Private::from(text)).ok_or_else(|| invalid(name))
}

fn is_text(text: &str, characters_max: usize) -> bool {
    text.chars().count() <= characters_max && !text.chars().any(char::is_control)
}

fn correlation_text(value: &[u8]) -> Option<&str> {
    let is_valid =
        !value.is_empty() && value.len() <= CORRELATION_BYTES_MAX && value.iter().all(|byte| (0x21..=0x7e).contains(byte));
    std::str::from_utf8(value).ok().filter(|_| is_valid)
}

/// A trace context of W3C version 00: `00-{32 hex}-{16 hex}-{2 hex}`, ids not all zero.
fn traceparent_text(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else { return None };
    let is_hex =
        |part: &str, length: usize| part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |part: &str, length: usize| is_hex(part, length) && part.bytes().any(|byte| byte != b'0');
    (*version == "00" && is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2)).then_some(text)
}

/// SHA-256 over length-prefixed canonical fields, cut to 128 bits. Amounts lose trailing zeros; the time of the request, the
/// headers and the key are not part of what is asked.
fn fingerprint(command: &Command) -> [u8; 16] {
    let mut bytes = Vec::with_capacity(192);
    let mut field = |text: &str| {
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    field(command.kind().as_str());
    field(command.tenant.as_str());
    field(command.wallet.as_str());
    match &command.body {
        Body::OpenWallet { currency, country, kind, holder } => [currency, country, kind.as_str(), &**holder].map(&mut field),
        Body::FreezeWallet { reason } | Body::UnfreezeWallet { reason } | Body::CloseWallet { reason } => {
            [reason, "", "", ""].map(&mut field)
        }
        Body::Transfer { to, amount, currency } => [to.as_str(), shortest(amount), currency, ""].map(&mut field),
        Body::TopUp { amount, currency, source } => {
            [source.partner.as_deref().unwrap_or(""), &source.account, shortest(amount), currency].map(&mut field)
        }
    };
    field(if command.reference.is_some() { "reference" } else { "" });
    field(command.reference.as_deref().unwrap_or(""));
    for (name, value) in &command.metadata {
        field(name);
        field(value);
    }
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    let mut short = [0; 16];
    short.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    short
}

fn shortest(amount: &str) -> &str {
    if amount.contains('.') { amount.trim_end_matches('0').trim_end_matches('.') } else { amount }
}

/// Why `publish` does not send a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsendable {
    /// Longer than [`COMMAND_BYTES_MAX`].
    TooLarge,
    /// No JSON object.
    NotAnObject,
    /// No valid field `wallet`.
    NoWallet,
}

impl fmt::Display for Unsendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsendable::TooLarge => write!(f, "longer than {COMMAND_BYTES_MAX} bytes"),
            Unsendable::NotAnObject => f.write_str("not a JSON object"),
            Unsendable::NoWallet => f.write_str("no valid wallet"),
        }
    }
}

/// The home wallet of a command that a producer is about to send, and nothing else proven of it.
pub fn home_of(value: &[u8]) -> Result<WalletId, Unsendable> {
    if COMMAND_BYTES_MAX < value.len() {
        return Err(Unsendable::TooLarge);
    }
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(value).map_err(|_| Unsendable::NotAnObject)?;
    let wallet = object.get("wallet").and_then(serde_json::Value::as_str);
    wallet.and_then(WalletId::parse).ok_or(Unsendable::NoWallet)
}

#[cfg(test)]
mod tests;
