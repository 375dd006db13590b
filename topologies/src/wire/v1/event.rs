//! Events: what happened, in the contract's JSON with CloudEvents headers in binary mode.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use finflow_ledger::{CommandKind, Coordinates, Currency, IdempotencyKey, Money, PaymentId, Private, Tenant, WalletId};
use sha2::{Digest, Sha256};

use super::json;
use crate::log::{HeadersBuilder, Outgoing};
use crate::topics::Topic;

/// The events, by the contract's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EventName {
    CommandRejected,
    WalletOpened,
    WalletFrozen,
    WalletUnfrozen,
    WalletClosed,
    WalletCredited,
    PaymentSettled,
    PaymentRejected,
    PaymentRequiresAttention,
}

impl EventName {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            EventName::CommandRejected => "command.rejected",
            EventName::WalletOpened => "wallet.opened",
            EventName::WalletFrozen => "wallet.frozen",
            EventName::WalletUnfrozen => "wallet.unfrozen",
            EventName::WalletClosed => "wallet.closed",
            EventName::WalletCredited => "wallet.credited",
            EventName::PaymentSettled => "payment.settled",
            EventName::PaymentRejected => "payment.rejected",
            EventName::PaymentRequiresAttention => "payment.requires_attention",
        }
    }

    /// The word as a CloudEvents type, with its version.
    fn cloud_event_type(self) -> &'static str {
        match self {
            EventName::CommandRejected => "finflow.command.rejected.v1",
            EventName::WalletOpened => "finflow.wallet.opened.v1",
            EventName::WalletFrozen => "finflow.wallet.frozen.v1",
            EventName::WalletUnfrozen => "finflow.wallet.unfrozen.v1",
            EventName::WalletClosed => "finflow.wallet.closed.v1",
            EventName::WalletCredited => "finflow.wallet.credited.v1",
            EventName::PaymentSettled => "finflow.payment.settled.v1",
            EventName::PaymentRejected => "finflow.payment.rejected.v1",
            EventName::PaymentRequiresAttention => "finflow.payment.requires_attention.v1",
        }
    }
}

/// About how long an event's JSON is, in bytes: what is usual fits without growing.
const JSON_BYTES: usize = 640;
/// About how long its headers are.
const HEADER_BYTES: usize = 352;

/// A wallet as an event leaves it.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// The event's number in the wallet's life.
    pub wallet_seq: u64,
    /// What can be spent.
    pub available: Money,
    /// What is held.
    pub held: Money,
    /// Both together.
    pub ledger: Money,
}

/// The amount that an event tells.
#[derive(Debug, Clone, Copy)]
pub enum AmountEcho<'a> {
    /// None.
    None,
    /// No amount, but the wallet's currency.
    Currency(Currency),
    /// Money.
    Money(Money),
    /// What the request said, as given.
    Text {
        /// The amount.
        amount: &'a str,
        /// The currency.
        currency: &'a str,
    },
}

/// One event of one wallet. It cannot be printed by accident: it quotes what clients wrote.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// What happened.
    pub name: EventName,
    /// To which payment or command.
    pub payment: PaymentId,
    /// Of which tenant.
    pub tenant: &'a Tenant,
    /// The wallet whose event it is.
    pub wallet: &'a WalletId,
    /// The wallet after it; none while the wallet does not exist, or to another tenant.
    pub snapshot: Option<Snapshot>,
    /// The kind of the command.
    pub kind: CommandKind,
    /// How much.
    pub amount: AmountEcho<'a>,
    /// When.
    pub at: TimeText,
    /// The command's key.
    pub key: &'a IdempotencyKey,
    /// The correlation id; without one, the payment id is it.
    pub correlation: Option<&'a str>,
    /// The W3C trace context of the command.
    pub traceparent: Option<&'a str>,
    /// The receiving wallet.
    pub to: Option<&'a WalletId>,
    /// The paying wallet.
    pub from: Option<&'a WalletId>,
    /// Why.
    pub reason: Option<&'a str>,
    /// The client's reference.
    pub reference: Option<&'a str>,
    /// The client's metadata.
    pub metadata: &'a [(Arc<str>, Private)],
    /// Where the command was read.
    pub source: Coordinates,
}

impl Event<'_> {
    /// The record of the event, of the application whose topics have this prefix.
    pub fn encode(&self, prefix: &str) -> Outgoing {
        let payment = IdText::new("pay_", self.payment.as_bytes());
        let id = IdText::new("evt_", &self.id(prefix));
        let (id, payment) = (id.as_str(), payment.as_str());
        let correlation = self.correlation.unwrap_or(payment);
        let value = self.json(id, payment, correlation);
        let mut headers = HeadersBuilder::with_capacity(HEADER_BYTES);
        headers.push("ce_specversion", b"1.0");
        headers.push("ce_id", id.as_bytes());
        headers.push("ce_source", b"finflow");
        headers.push("ce_type", self.name.cloud_event_type().as_bytes());
        headers.push("ce_time", self.at.as_str().as_bytes());
        headers.push("ce_subject", self.wallet.as_str().as_bytes());
        headers.push("content-type", b"application/json");
        headers.push("correlation-id", correlation.as_bytes());
        if let Some(traceparent) = self.traceparent {
            headers.push("traceparent", traceparent.as_bytes());
        }
        let key = Bytes::copy_from_slice(self.wallet.as_str().as_bytes());
        Outgoing { key: Some(key), value: Some(Bytes::from(value)), headers: headers.build(), timestamp_ms: None }
    }

    /// A function of payment, event name and the command's topic, partition and offset: the same at every replay, and another one after
    /// a move to other topics.
    fn id(&self, prefix: &str) -> [u8; 16] {
        let mut digest = Sha256::new();
        digest.update(self.payment.as_bytes());
        digest.update(self.name.as_str());
        Topic::Commands.name_parts(prefix).into_iter().for_each(|part| digest.update(part));
        digest.update(self.source.partition.to_be_bytes());
        digest.update(self.source.offset.to_be_bytes());
        let digest: [u8; 32] = digest.finalize().into();
        let mut bits = [0; 16];
        bits.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        bits
    }

    fn json(&self, id: &str, payment: &str, correlation: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(JSON_BYTES);
        out.extend_from_slice(b"{\"event\":\"");
        out.extend_from_slice(self.name.as_str().as_bytes());
        out.push(b'"');
        json::plain(&mut out, "id", id);
        json::plain(&mut out, "payment", payment);
        json::plain(&mut out, "tenant", self.tenant.as_str());
        json::plain(&mut out, "wallet", self.wallet.as_str());
        json::name(&mut out, "wallet_seq");
        // Writing into a vector cannot fail.
        let _ = match self.snapshot {
            Some(snapshot) => write!(out, "{}", snapshot.wallet_seq),
            None => out.write_all(b"null"),
        };
        json::plain(&mut out, "type", self.kind.as_str());
        self.amount_json(&mut out);
        json::plain(&mut out, "at", self.at.as_str());
        json::field(&mut out, "idempotency_key", self.key.as_str());
        json::field(&mut out, "correlation_id", correlation);
        match self.snapshot {
            Some(Snapshot { available, held, ledger, .. }) => {
                let [available, held, ledger] = [available.text(), held.text(), ledger.text()];
                for part in [
                    r#","balance":{"available":""#,
                    available.as_str(),
                    r#"","held":""#,
                    held.as_str(),
                    r#"","ledger":""#,
                    ledger.as_str(),
                    r#""}"#,
                ] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
            None => out.extend_from_slice(br#","balance":null"#),
        }
        for (name, wallet) in [("to", self.to), ("from", self.from)] {
            if let Some(wallet) = wallet {
                json::plain(&mut out, name, wallet.as_str());
            }
        }
        json::optional(&mut out, "reason", self.reason);
        json::optional(&mut out, "reference", self.reference);
        self.metadata_json(&mut out);
        out.push(b'}');
        out
    }

    fn amount_json(&self, out: &mut Vec<u8>) {
        match self.amount {
            AmountEcho::Money(money) => {
                json::plain(out, "amount", money.text().as_str());
                json::plain(out, "currency", money.currency().code());
            }
            AmountEcho::Text { amount, currency } => {
                json::field(out, "amount", amount);
                json::field(out, "currency", currency);
            }
            AmountEcho::Currency(currency) => {
                json::nullable(out, "amount", None);
                json::field(out, "currency", currency.code());
            }
            AmountEcho::None => {
                json::nullable(out, "amount", None);
                json::nullable(out, "currency", None);
            }
        }
    }

    fn metadata_json(&self, out: &mut Vec<u8>) {
        if self.metadata.is_empty() {
            return;
        }
        json::name(out, "metadata");
        for (index, (name, value)) in self.metadata.iter().enumerate() {
            out.push(if index == 0 { b'{' } else { b',' });
            json::string(out, name);
            out.push(b':');
            json::string(out, value);
        }
        out.push(b'}');
    }
}

/// A time as text: RFC 3339 in UTC with milliseconds. Written once for all events of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeText {
    bytes: [u8; TimeText::LENGTH_MAX],
    length: usize,
}

impl TimeText {
    /// `-009999-01-01T00:00:00.000Z`.
    const LENGTH_MAX: usize = 27;

    /// The text of a time in milliseconds since 1970-01-01 UTC; the last one that can be written stands for all after it.
    pub fn new(at_ms: i64) -> TimeText {
        const PRINTER: jiff::fmt::temporal::DateTimePrinter = jiff::fmt::temporal::DateTimePrinter::new().precision(Some(3));
        let text = PRINTER.timestamp_to_string(&jiff::Timestamp::from_millisecond(at_ms).unwrap_or(jiff::Timestamp::MAX));
        let mut bytes = [0; TimeText::LENGTH_MAX];
        bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        TimeText { bytes, length: text.len().min(TimeText::LENGTH_MAX) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

/// RFC 3339 in UTC with milliseconds.
pub fn time_text(at_ms: i64) -> String {
    TimeText::new(at_ms).as_str().to_owned()
}

/// A prefix and 128 bits as 26 characters of Crockford's base 32.
struct IdText([u8; 30]);

impl IdText {
    fn new(prefix: &str, bits: &[u8; 16]) -> IdText {
        let mut text = [0; 30];
        let from = prefix.bytes().chain(PaymentId::base32(bits));
        text.iter_mut().zip(from).for_each(|(to, from)| *to = from);
        IdText(text)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
