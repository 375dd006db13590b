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
        }
    }
}

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
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
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
    /// The record of the event.
    pub fn encode(&self) -> Outgoing {
        let payment = self.payment.to_string();
        let id = self.id();
        let at = time_text(self.at_ms);
        let correlation = self.correlation.unwrap_or(&payment);
        let value = self.json(&id, &payment, &at, correlation);
        let mut headers = HeadersBuilder::default();
        headers.push("ce_specversion", b"1.0");
        headers.push("ce_id", id.as_bytes());
        headers.push("ce_source", b"finflow");
        headers.push("ce_type", ["finflow.", self.name.as_str(), ".v1"].concat().as_bytes());
        headers.push("ce_time", at.as_bytes());
        headers.push("ce_subject", self.wallet.as_str().as_bytes());
        headers.push("content-type", b"application/json");
        headers.push("correlation-id", correlation.as_bytes());
        if let Some(traceparent) = self.traceparent {
            headers.push("traceparent", traceparent.as_bytes());
        }
        let key = Bytes::copy_from_slice(self.wallet.as_str().as_bytes());
        Outgoing { key: Some(key), value: Some(Bytes::from(value)), headers: headers.build() }
    }

    /// A function of payment, event name and the command's coordinates: the same at every replay.
    fn id(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(self.payment.as_bytes());
        digest.update(self.name.as_str());
        digest.update(Topic::Commands.word());
        digest.update(self.source.partition.to_be_bytes());
        digest.update(self.source.offset.to_be_bytes());
        let digest: [u8; 32] = digest.finalize().into();
        let mut bits = [0; 16];
        bits.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        let digits = PaymentId::base32(&bits);
        ["evt_", std::str::from_utf8(&digits).unwrap_or_default()].concat()
    }

    fn json(&self, id: &str, payment: &str, at: &str, correlation: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(b"{\"event\":");
        json::string(&mut out, self.name.as_str());
        json::field(&mut out, "id", id);
        json::field(&mut out, "payment", payment);
        json::field(&mut out, "tenant", self.tenant.as_str());
        json::field(&mut out, "wallet", self.wallet.as_str());
        json::name(&mut out, "wallet_seq");
        // Writing into a vector cannot fail.
        let _ = match self.snapshot {
            Some(snapshot) => write!(out, "{}", snapshot.wallet_seq),
            None => write!(out, "null"),
        };
        json::field(&mut out, "type", self.kind.as_str());
        self.amount_json(&mut out);
        json::field(&mut out, "at", at);
        json::field(&mut out, "idempotency_key", self.key.as_str());
        json::field(&mut out, "correlation_id", correlation);
        let _ = match self.snapshot {
            Some(Snapshot { available, held, ledger, .. }) => {
                write!(out, r#","balance":{{"available":"{available}","held":"{held}","ledger":"{ledger}"}}"#)
            }
            None => write!(out, r#","balance":null"#),
        };
        json::optional(&mut out, "to", self.to.map(WalletId::as_str));
        json::optional(&mut out, "from", self.from.map(WalletId::as_str));
        json::optional(&mut out, "reason", self.reason);
        json::optional(&mut out, "reference", self.reference);
        self.metadata_json(&mut out);
        out.push(b'}');
        out
    }

    fn amount_json(&self, out: &mut Vec<u8>) {
        match self.amount {
            AmountEcho::Money(money) => {
                let _ = write!(out, r#","amount":"{money}""#);
                json::field(out, "currency", money.currency().code());
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

/// RFC 3339 in UTC with milliseconds.
pub fn time_text(at_ms: i64) -> String {
    const PRINTER: jiff::fmt::temporal::DateTimePrinter = jiff::fmt::temporal::DateTimePrinter::new().precision(Some(3));
    let timestamp = jiff::Timestamp::from_millisecond(at_ms).unwrap_or(jiff::Timestamp::MAX);
    PRINTER.timestamp_to_string(&timestamp)
}

#[cfg(test)]
mod tests;
