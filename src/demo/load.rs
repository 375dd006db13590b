//! The generated load: transfers in three currencies, and among them duplicates, overdrafts, frozen wallets,
//! misrouted records and poison. The same seed gives the same load.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use finflow_actors::Publish;
use finflow_topologies::log::Headers;

/// Currencies with 2, 0 and 3 decimals; what each wallet begins with and what is moved, in major units.
const CURRENCIES: [(&str, &str); 3] = [("AED", "1000.00"), ("VND", "1000000"), ("KWD", "1000.000")];
/// One wallet in so many is frozen from the start.
const FROZEN_EVERY: u64 = 97;

pub(super) struct Load {
    random: fastrand::Rng,
    wallets: u64,
    partitions: u32,
    last: Option<Publish>,
    /// All that was generated.
    pub(super) sent: u64,
    pub(super) transfers: u64,
    pub(super) duplicates: u64,
    pub(super) misrouted: u64,
}

impl Load {
    pub(super) fn new(seed: u64, wallets: u64, partitions: u32) -> Load {
        let random = fastrand::Rng::with_seed(seed);
        Load { random, wallets, partitions, last: None, sent: 0, transfers: 0, duplicates: 0, misrouted: 0 }
    }

    /// Opens every wallet, brings money in, and freezes some.
    pub(super) fn opening(&self) -> Vec<Publish> {
        let mut commands = Vec::new();
        for n in 0..self.wallets {
            let (currency, amount) = CURRENCIES[(n % 3) as usize];
            let open =
                format!(r#""type":"open_wallet","currency":"{currency}","country":"AE","kind":"personal","holder":"Holder {n}""#);
            let top_up = format!(r#""type":"top_up","amount":"{amount}","currency":"{currency}","source":{{"account":"demo"}}"#);
            commands.push(command(n, "open", &open));
            commands.push(command(n, "top-up", &top_up));
            if n % FROZEN_EVERY == FROZEN_EVERY - 1 {
                commands.push(command(n, "freeze", r#""type":"freeze_wallet","reason":"demo""#));
            }
        }
        commands
    }

    /// The commands of these places in the schedule, noting when each new transfer is due.
    pub(super) fn next(
        &mut self,
        places: Range<u64>,
        due_at: impl Fn(u64) -> Instant,
        due: &mut HashMap<String, Instant>,
    ) -> Vec<Publish> {
        let mut batch = Vec::new();
        for place in places {
            self.sent += 1;
            let draw = self.random.u32(..1_000);
            let next = match (draw, self.last.clone()) {
                (0..50, Some(last)) => {
                    self.duplicates += 1;
                    self.misrouted += u64::from(last.partition.is_some());
                    last
                }
                (50..55, _) => {
                    let key = Some(Bytes::from_static(b"poison"));
                    Publish {
                        partition: None,
                        key,
                        value: Some(Bytes::from_static(b"{\"type\":\"transfer\",")),
                        headers: Headers::default(),
                    }
                }
                _ => {
                    let (key, transfer) = self.transfer(draw);
                    due.insert(key, due_at(place));
                    self.last = Some(transfer.clone());
                    transfer
                }
            };
            batch.push(next);
        }
        batch
    }

    fn transfer(&mut self, draw: u32) -> (String, Publish) {
        self.transfers += 1;
        let from = self.random.u64(..self.wallets / 3 * 3);
        // Wallets n and n + 3 hold the same currency; the last one or two wallets are left out of the ring.
        let ring = self.wallets / 3 * 3;
        let to = (from + 3 * self.random.u64(1..ring / 3)) % ring;
        let (currency, _) = CURRENCIES[(from % 3) as usize];
        let amount = if draw < 75 { "900000000".to_owned() } else { self.random.u64(1..=20).to_string() };
        let key = format!("t{}", self.sent);
        let rest = format!(r#""type":"transfer","to":"wallet-{to}","amount":"{amount}","currency":"{currency}""#);
        let mut transfer = command(from, &key, &rest);
        if (75..85).contains(&draw) {
            self.misrouted += 1;
            transfer.partition = Some(self.random.u32(..self.partitions));
            transfer.key = Some(Bytes::from_static(b"elsewhere"));
        }
        (key, transfer)
    }
}

/// The id of the n-th wallet.
pub(super) fn wallet(n: u64) -> String {
    format!("wallet-{n}")
}

fn command(wallet: u64, key: &str, rest: &str) -> Publish {
    let wallet = self::wallet(wallet);
    let value = format!(r#"{{"tenant":"demo","idempotency_key":"{key}","wallet":"{wallet}",{rest}}}"#);
    Publish { partition: None, key: Some(Bytes::from(wallet)), value: Some(Bytes::from(value)), headers: Headers::default() }
}
