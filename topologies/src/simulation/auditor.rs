//! The auditor: recomputes every balance from the committed events alone, with a few lines of its own.
//!
//! It shares nothing with the engine but the JSON: if both are wrong, they are wrong independently.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::fault::{Fault, Kind};

/// What the events say.
#[derive(Debug, Default)]
pub struct Audit {
    /// Wallet -> (currency, ledger balance as the events' movements sum up, as text of minor units).
    pub balances: BTreeMap<String, (String, i128)>,
    /// Payments that ended, by event name.
    pub outcomes: BTreeMap<String, u64>,
    /// Rejections of payments and of other commands, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Sum of all wallets per currency.
    pub sums: BTreeMap<String, i128>,
    /// Sum of all top-ups per currency: what the wallets must sum to.
    pub brought_in: BTreeMap<String, i128>,
    /// Everything that is wrong.
    pub faults: Vec<Fault>,
    seqs: BTreeMap<String, u64>,
    ids: BTreeSet<String>,
    ended: BTreeMap<String, String>,
    /// Payments that were left to a human.
    left: BTreeSet<String>,
    /// Transfers that settled, and those that were credited: to whom, and how much of what.
    settled: BTreeMap<String, Moved>,
    credits: BTreeMap<String, Moved>,
}

/// A wallet, and what it got or is to get: minor units of a currency.
type Moved = (String, i128, String);

/// Audits events in the order of each partition.
pub fn audit(events: impl IntoIterator<Item: AsRef<[u8]>>) -> Audit {
    let mut audit = Audit::default();
    for event in events {
        match serde_json::from_slice(event.as_ref()) {
            Ok(event) => audit.event(&event),
            Err(error) => audit.fault(Kind::EventUnreadable, format!("an event is not JSON: {error}")),
        }
    }
    audit.finish();
    audit
}

impl Audit {
    fn event(&mut self, event: &Value) {
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (name, wallet, payment, kind) = (text("event"), text("wallet"), text("payment"), text("type"));
        if !self.ids.insert(text("id")) {
            self.fault(Kind::EventTwice, format!("event {} stands twice", text("id")));
        }
        *self.outcomes.entry(name.clone()).or_default() += 1;
        if name.ends_with(".rejected") {
            *self.reasons.entry(text("reason")).or_default() += 1;
        }
        let minor = minor_units(&text("amount"), &text("currency"));
        let moved = match (name.as_str(), kind.as_str()) {
            ("payment.settled", "transfer") => minor.map(|minor| -minor),
            ("payment.settled", "top_up") | ("wallet.credited", _) => minor,
            _ => Some(0),
        };
        let Some(moved) = moved else {
            self.fault(Kind::EventUnreadable, format!("{name} of {wallet} has no amount"));
            return;
        };
        if name == "payment.settled" && kind == "top_up" {
            *self.brought_in.entry(text("currency")).or_default() += moved;
        }
        if name == "payment.requires_attention" {
            if self.ended.contains_key(&payment) || !self.left.insert(payment.clone()) {
                self.fault(Kind::LeftTwice, format!("payment {payment} requires attention again, or after its end"));
            }
        } else if name.starts_with("payment.")
            && let Some(before) = self.ended.insert(payment.clone(), name.clone())
        {
            let is_settled = before == name && name == "payment.settled";
            let kind = if is_settled { Kind::SettledTwice } else { Kind::EndedTwice };
            self.fault(kind, format!("payment {payment} ended twice: {before}, {name}"));
        }
        let whole = minor.unwrap_or_default();
        if name == "payment.settled" && kind == "transfer" {
            self.settled.insert(payment.clone(), (text("to"), whole, text("currency")));
        }
        if name == "wallet.credited" && self.credits.insert(payment.clone(), (wallet.clone(), whole, text("currency"))).is_some()
        {
            self.fault(Kind::CreditedTwice, format!("payment {payment} credited twice"));
        }
        self.wallet(event, &wallet, moved);
    }

    fn wallet(&mut self, event: &Value, wallet: &str, moved: i128) {
        let Some(seq) = event.get("wallet_seq").and_then(Value::as_u64) else { return };
        let last = self.seqs.insert(wallet.to_owned(), seq).unwrap_or_default();
        if seq != last + 1 {
            self.fault(Kind::EventMissing, format!("wallet {wallet}: event {seq} follows event {last}"));
        }
        let currency = event.get("currency").and_then(Value::as_str).unwrap_or_default();
        let entry = self.balances.entry(wallet.to_owned()).or_insert_with(|| (currency.to_owned(), 0));
        entry.1 += moved;
        let (currency, ledger) = entry.clone();
        let told = |name: &str| {
            let text = event.get("balance").and_then(|balance| balance.get(name)).and_then(Value::as_str);
            minor_units(text.unwrap_or_default(), &currency)
        };
        let (available, held) = (told("available"), told("held"));
        if told("ledger") != Some(ledger) {
            self.fault(
                Kind::BalanceWrong,
                format!("wallet {wallet}: event {seq} tells {:?}, its movements sum to {ledger}", told("ledger")),
            );
        }
        let sum = available.zip(held).map(|(available, held)| available + held);
        if sum != Some(ledger) || available.is_none_or(|sum| sum < 0) || held.is_none_or(|sum| sum < 0) {
            self.fault(Kind::BalanceWrong, format!("wallet {wallet}: event {seq} does not add up"));
        }
    }

    fn finish(&mut self) {
        for (currency, balance) in self.balances.values() {
            *self.sums.entry(currency.clone()).or_default() += balance;
        }
        let of = |sums: &BTreeMap<String, i128>, currency: &str| sums.get(currency).copied().unwrap_or_default();
        let currencies: BTreeSet<String> = self.sums.keys().chain(self.brought_in.keys()).cloned().collect();
        for currency in currencies {
            let (sum, expected) = (of(&self.sums, &currency), of(&self.brought_in, &currency));
            if sum != expected {
                self.fault(Kind::SumWrong, format!("{currency}: wallets sum to {sum}, {expected} was brought in"));
            }
        }
        let all: BTreeSet<&String> = self.settled.keys().chain(self.credits.keys()).collect();
        let found: Vec<Fault> = all.into_iter().filter_map(|payment| self.transfer(payment)).collect();
        self.faults.extend(found);
    }

    /// What is wrong with where a transfer's money went.
    fn transfer(&self, payment: &str) -> Option<Fault> {
        let (kind, text) = match (self.settled.get(payment), self.credits.get(payment)) {
            (Some(settled), Some(credited)) if settled == credited => return None,
            (None, None) => return None,
            (Some((to, minor, currency)), Some((wallet, got, of))) => {
                (Kind::CreditedElsewhere, format!("settled {minor} {currency} to {to}, credited {got} {of} to {wallet}"))
            }
            (None, Some(_)) => (Kind::CreditedUnsettled, "credited but not settled".to_owned()),
            (Some(_), None) => (Kind::SettledUncredited, "settled but not credited".to_owned()),
        };
        Some(Fault::new(kind, format!("payment {payment} {text}")))
    }

    fn fault(&mut self, kind: Kind, text: String) {
        self.faults.push(Fault { kind, text });
    }
}

/// Minor units of a decimal text; `None` where the text is not one of that currency.
fn minor_units(text: &str, currency: &str) -> Option<i128> {
    let decimals = match currency {
        "VND" | "JPY" | "KRW" => 0,
        "KWD" | "BHD" | "OMR" | "JOD" | "IQD" => 3,
        _ => 2,
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let padded = format!("{whole}{fraction:0<decimals$}");
    (fraction.len() <= decimals).then(|| padded.parse().ok()).flatten()
}
