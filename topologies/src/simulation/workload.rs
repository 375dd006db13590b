//! What a seed's clients ask: commands of every kind, some of them twice, some wrong, some in the wrong place.

use std::collections::BTreeSet;

use bytes::Bytes;
use fastrand::Rng;
use finflow_ledger::{IdempotencyKey, PaymentId, Tenant, WalletId};
use serde_json::Value;

use crate::log::Outgoing;
use crate::topics::{partition_of_wallet, payment_id};

const COMMANDS: usize = 200;
const CURRENCIES: [&str; 3] = ["AED", "VND", "KWD"];
const POISON: [&str; 4] = ["poison", "", "{\"type\":\"transfer\"}", "[1]"];

/// The records of a seed, in the order in which they are sent, and what must become of them.
#[derive(Default)]
pub(super) struct Workload {
    /// Partition and record.
    pub(super) records: Vec<(u32, Outgoing)>,
    /// Every payment that was asked for in a way that can be understood.
    pub(super) payments: BTreeSet<[u8; 16]>,
    /// What was asked, in all ways in which it was: payment, verb, amount, currency and receiver.
    pub(super) asked: BTreeSet<[String; 5]>,
    /// How many records cannot be understood.
    pub(super) poison: usize,
}

struct Said {
    tenant: &'static str,
    wallet: String,
    key: String,
    json: String,
}

/// The workload of a seed.
pub(super) fn workload(rng: &mut Rng, partitions: u32) -> Workload {
    let wallets = rng.usize(6..16);
    let mut workload = Workload::default();
    let mut said: Vec<Said> = Vec::new();
    for wallet in 0..wallets {
        let open = say(format!("o{wallet}"), "acme", "open_wallet", wallet, &open(CURRENCIES[wallet % 3]));
        workload.send(rng, partitions, &open);
        said.push(open);
    }
    while workload.records.len() < COMMANDS {
        if rng.u8(..20) == 0 {
            workload.poison(rng, partitions);
            continue;
        }
        let earlier = rng.usize(..said.len());
        let next = match rng.u8(..10) {
            0 => {
                workload.send(rng, partitions, &said[earlier]);
                continue;
            }
            1 => {
                let Said { key, wallet, .. } = &said[earlier];
                let number = wallet.trim_start_matches("wallet-").parse().unwrap_or_default();
                any(rng, key.clone(), number, wallets)
            }
            _ => {
                let number = rng.usize(..wallets);
                any(rng, format!("k{}", workload.records.len()), number, wallets)
            }
        };
        workload.send(rng, partitions, &next);
        said.push(next);
    }
    workload
}

fn any(rng: &mut Rng, key: String, wallet: usize, wallets: usize) -> Said {
    let tenant = if rng.u8(..25) == 0 { "rival" } else { "acme" };
    let currency = if rng.u8(..20) == 0 { CURRENCIES[rng.usize(..3)] } else { CURRENCIES[wallet % 3] };
    let reason = r#""reason":"because""#;
    match rng.u8(..20) {
        0 => say(key, tenant, "freeze_wallet", wallet, reason),
        1 | 2 => say(key, tenant, "unfreeze_wallet", wallet, reason),
        3 => say(key, tenant, "open_wallet", wallet, &open(currency)),
        4..=8 => {
            let amount = amount(rng, 900, currency);
            let rest = format!(r#""amount":"{amount}","currency":"{currency}","source":{{"account":"x"}}"#);
            say(key, tenant, "top_up", wallet, &rest)
        }
        _ => {
            let to = if rng.u8(..10) == 0 { rng.usize(..wallets + 2) } else { (wallet + 3 * rng.usize(..4)) % wallets };
            let amount = amount(rng, 300, currency);
            say(key, tenant, "transfer", wallet, &format!(r#""to":"wallet-{to}","amount":"{amount}","currency":"{currency}""#))
        }
    }
}

fn amount(rng: &mut Rng, below: u32, currency: &str) -> String {
    let whole = rng.u32(1..below);
    match currency {
        "AED" => format!("{whole}.{:02}", rng.u32(..100)),
        "KWD" => format!("{whole}.{:03}", rng.u32(..1_000)),
        _ => whole.to_string(),
    }
}

fn open(currency: &str) -> String {
    format!(r#""currency":"{currency}","country":"AE","kind":"personal","holder":"H""#)
}

fn say(key: String, tenant: &'static str, verb: &str, wallet: usize, rest: &str) -> Said {
    let wallet = format!("wallet-{wallet}");
    let json = format!(r#"{{"type":"{verb}","tenant":"{tenant}","idempotency_key":"{key}","wallet":"{wallet}",{rest}}}"#);
    Said { tenant, wallet, key, json }
}

/// What a command asks for, or an event says was done.
pub(super) fn asked(payment: String, json: &Value) -> [String; 5] {
    let text = |name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    [payment, text("type"), text("amount"), text("currency"), text("to")]
}

impl Workload {
    /// Sends a command, now and then to the wrong partition or under the wrong key.
    fn send(&mut self, rng: &mut Rng, partitions: u32, said: &Said) {
        let Some((wallet, payment)) = said.payment() else { return };
        self.payments.insert(*payment.as_bytes());
        self.asked.extend(serde_json::from_str(&said.json).ok().map(|command| asked(payment.to_string(), &command)));
        let home = partition_of_wallet(&wallet, partitions);
        let (partition, key) = match rng.u8(..20) {
            0 => (rng.u32(..partitions), Some(said.wallet.clone())),
            1 => (home, Some("somebody".to_owned())),
            2 => (rng.u32(..partitions), None),
            _ => (home, Some(said.wallet.clone())),
        };
        self.push(partition, key, &said.json);
    }

    fn poison(&mut self, rng: &mut Rng, partitions: u32) {
        self.poison += 1;
        let key = rng.bool().then(|| "wallet-0".to_owned());
        self.push(rng.u32(..partitions), key, POISON[rng.usize(..POISON.len())]);
    }

    fn push(&mut self, partition: u32, key: Option<String>, value: &str) {
        let value = Some(Bytes::copy_from_slice(value.as_bytes()));
        self.records.push((partition, Outgoing { key: key.map(Bytes::from), value, ..Outgoing::default() }));
    }
}

impl Said {
    fn payment(&self) -> Option<(WalletId, PaymentId)> {
        let wallet = WalletId::parse(&self.wallet)?;
        let payment = payment_id(&Tenant::parse(self.tenant)?, &wallet, &IdempotencyKey::parse(&self.key)?);
        Some((wallet, payment))
    }
}
