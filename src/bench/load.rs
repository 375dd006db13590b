//! The load of the benchmark: transfers of one currency, uniform or on a few hot wallets, with some repeated. A seed repeats it.

use bytes::Bytes;
use finflow_actors::Publish;
use finflow_topologies::log::Headers;

/// Receivers that take most of the credits of a hot load.
const HOT_WALLETS: u64 = 30;
/// Of a hundred transfers of a hot load, how many credit one of [`HOT_WALLETS`].
const HOT_PERCENT: u32 = 70;
/// One command in so many repeats an earlier one.
const REPEAT_EVERY: u64 = 20;
/// How far back a repeated command may lie.
const REPEAT_WITHIN: usize = 1_000;

/// A generator of transfers.
pub(super) struct Load {
    random: fastrand::Rng,
    wallets: u64,
    is_hot: bool,
    made: u64,
    recent: Vec<Publish>,
    /// Transfers that were made once; repetitions are not counted.
    pub(super) transfers: u64,
}

impl Load {
    /// Of the commands of a long load, what share are transfers that were not made before.
    pub(super) const TRANSFERS_OF_COMMANDS: f64 = 1.0 - 1.0 / REPEAT_EVERY as f64;

    pub(super) fn new(seed: u64, wallets: u64, is_hot: bool) -> Load {
        Load { random: fastrand::Rng::with_seed(seed), wallets, is_hot, made: 0, recent: Vec::new(), transfers: 0 }
    }

    /// The commands that open wallet `number` and bring money in.
    pub(super) fn opening(number: u64) -> [Publish; 2] {
        let open =
            format!(r#""type":"open_wallet","currency":"AED","country":"AE","kind":"personal","holder":"Holder {number}""#);
        let top_up = r#""type":"top_up","amount":"10000","currency":"AED","source":{"account":"bench"}"#;
        [command(number, "open", &open), command(number, "top-up", top_up)]
    }

    /// The next commands, until `transfers` have been made. Repetitions come on top: only what is new has a place in a schedule.
    pub(super) fn until(&mut self, transfers: u64) -> Vec<Publish> {
        let mut batch = Vec::new();
        while self.transfers < transfers {
            batch.push(self.next());
        }
        batch
    }

    /// The next command of the schedule; one in twenty repeats an earlier one.
    pub(super) fn next(&mut self) -> Publish {
        self.made += 1;
        if self.made.is_multiple_of(REPEAT_EVERY)
            && let Some(earlier) = self.random.choice(&self.recent)
        {
            return earlier.clone();
        }
        let transfer = self.transfer();
        if self.recent.len() < REPEAT_WITHIN {
            self.recent.push(transfer.clone());
        } else {
            let place = self.random.usize(..REPEAT_WITHIN);
            self.recent[place] = transfer.clone();
        }
        transfer
    }

    fn transfer(&mut self) -> Publish {
        let from = self.random.u64(..self.wallets);
        let receivers =
            if self.is_hot && self.random.u32(..100) < HOT_PERCENT { HOT_WALLETS.min(self.wallets) } else { self.wallets };
        let to = match self.random.u64(..receivers) {
            to if to == from => (to + 1) % self.wallets,
            to => to,
        };
        let amount = self.random.u32(1..=99);
        let key = format!("t{}", self.transfers);
        self.transfers += 1;
        command(from, &key, &format!(r#""type":"transfer","to":"wallet-{to}","amount":"0.{amount:02}","currency":"AED""#))
    }
}

fn command(wallet: u64, key: &str, rest: &str) -> Publish {
    let wallet = format!("wallet-{wallet}");
    let value = format!(r#"{{"tenant":"bench","idempotency_key":"{key}","wallet":"{wallet}",{rest}}}"#);
    Publish { partition: None, key: Some(Bytes::from(wallet)), value: Some(Bytes::from(value)), headers: Headers::default() }
}
