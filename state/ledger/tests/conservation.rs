//! Any sequence of operations, also senseless ones: no minor unit is made or lost, no balance is below zero, a refusal changes
//! nothing, and nothing panics. Two partitions with wallets and system accounts are moved as the engine moves them.

use std::collections::BTreeMap;

use finflow_ledger::{
    Account, AccountRef, BALANCE_MAX_MINOR, Country, Currency, Entry, Hold, Money, Movement, Opening, SystemAccount, Tenant,
    Wallet, WalletId, WalletKind, is_conserved,
};
use proptest::prelude::*;

/// Wallets, alternately in two currencies; the first half lives in partition 0, the rest in partition 1.
const WALLETS: usize = 6;
const CURRENCIES: [&str; 2] = ["AED", "VND"];

/// What may be asked of the ledger. Amounts are whatever an `i128` can be, wallets may be the same.
#[derive(Debug, Clone)]
enum Operation {
    TopUp(usize, i128, usize),
    Transfer(usize, usize, i128, usize),
    Hold(usize, usize, i128, usize),
    Capture(usize),
    Release(usize),
    CaptureElsewhere(usize, usize),
    Freeze(usize),
    Unfreeze(usize),
    Close(usize),
}

/// Both partitions with all that they hold, and the holds that wait for an answer.
#[derive(Clone)]
struct Ledger {
    wallets: Vec<Wallet>,
    system: BTreeMap<(usize, SystemAccount, Currency), Account>,
    holds: Vec<(Hold, usize)>,
}

fn currency(index: usize) -> Currency {
    Currency::parse(CURRENCIES[index % CURRENCIES.len()]).expect("a known currency")
}

fn partition(wallet: usize) -> usize {
    usize::from(WALLETS / 2 <= wallet)
}

impl Ledger {
    fn new() -> Ledger {
        let wallets = (0..WALLETS).map(|index| {
            Wallet::open(Opening {
                id: WalletId::parse(&format!("wallet-{index}")).expect("a wallet id"),
                tenant: Tenant::parse("acme").expect("a tenant"),
                currency: currency(index),
                country: Country::parse("AE").expect("a country"),
                kind: WalletKind::Personal,
                holder: "H".into(),
            })
        });
        Ledger { wallets: wallets.collect(), system: BTreeMap::new(), holds: Vec::new() }
    }

    fn post(&mut self, partition: usize, kind: SystemAccount, by: Money) {
        let account = self.system.entry((partition, kind, by.currency()));
        let account = account.or_insert_with(|| Account::new(kind, by.currency(), 0));
        account.post(by).expect("what wallets were credited fits");
    }

    /// Does what is asked, if the wallets allow it; tells whether they did.
    fn apply(&mut self, operation: &Operation) -> bool {
        match *operation {
            Operation::TopUp(to, minor, in_currency) => {
                let amount = Money::from_minor(minor, currency(in_currency));
                let is_done = self.wallets[to].top_up(amount).is_ok();
                if is_done {
                    self.post(partition(to), SystemAccount::Treasury, amount.negated().expect("an amount"));
                }
                is_done
            }
            Operation::Transfer(from, to, minor, in_currency) => {
                let amount = Money::from_minor(minor, currency(in_currency));
                if from == to || partition(from) != partition(to) || self.wallets[to].clone().credit_from(amount).is_err() {
                    return false;
                }
                let is_done = self.wallets[from].debit(amount).is_ok();
                if is_done {
                    self.wallets[to].credit_from(amount).expect("it could be credited a moment ago");
                }
                is_done
            }
            Operation::Hold(from, to, minor, in_currency) => {
                let held = self.wallets[from].hold(Money::from_minor(minor, currency(in_currency)));
                let is_done = held.is_ok();
                self.holds.extend(held.into_iter().map(|hold| (hold, to)));
                is_done
            }
            Operation::Capture(index) => self.answer(index, true),
            Operation::Release(index) => self.answer(index, false),
            Operation::CaptureElsewhere(index, wallet) => {
                let Some((hold, _)) = self.holds.get(index) else { return false };
                hold.wallet != *self.wallets[wallet].id() && self.wallets[wallet].capture(hold).is_ok()
            }
            Operation::Freeze(wallet) => self.wallets[wallet].freeze().is_ok(),
            Operation::Unfreeze(wallet) => self.wallets[wallet].unfreeze().is_ok(),
            Operation::Close(wallet) => self.wallets[wallet].close().is_ok(),
        }
    }

    /// The receiver answers a hold: it is credited against its in-transit account and the hold is captured into the home's, or
    /// the hold is released.
    fn answer(&mut self, index: usize, is_willing: bool) -> bool {
        if self.holds.len() <= index {
            return false;
        }
        let (hold, to) = self.holds.swap_remove(index);
        let home = self.wallets.iter().position(|wallet| *wallet.id() == hold.wallet).expect("the wallet that holds");
        if is_willing && self.wallets[to].credit_from(hold.amount).is_ok() {
            let toll = hold.amount.negated().expect("an amount");
            self.post(partition(to), SystemAccount::InTransit(partition(home) as u32), toll);
            self.wallets[home].capture(&hold).expect("a hold is captured also when its wallet is frozen");
            self.post(partition(home), SystemAccount::InTransit(partition(to) as u32), hold.amount);
        } else {
            self.wallets[home].release(&hold).expect("a hold is released also when its wallet is frozen");
        }
        true
    }

    fn verify(&self) {
        for id in [0, 1] {
            let wallets = self.wallets.iter().enumerate().filter(|(index, _)| partition(*index) == id);
            let wallets = wallets.map(|(_, wallet)| (AccountRef::Wallet(wallet.id().clone()), wallet.ledger()));
            let system = self.system.iter().filter(|((of, ..), _)| *of == id);
            let system = system.map(|((_, kind, _), account)| (AccountRef::System(*kind), account.balance()));
            let entries: Vec<Entry> = wallets.chain(system).map(|(account, amount)| Entry { account, amount }).collect();
            assert!(is_conserved(entries.iter().map(|entry| entry.amount)), "partition {id} sums to zero: {entries:?}");
            assert!(Movement::new(entries).is_ok());
        }
        for wallet in &self.wallets {
            let (available, held, ledger) = (wallet.available().minor(), wallet.held().minor(), wallet.ledger().minor());
            assert_eq!(available.checked_add(held), Some(ledger));
            assert!(0 <= available && 0 <= held && ledger <= BALANCE_MAX_MINOR, "{available} {held}");
            let holds = self.holds.iter().filter(|(hold, _)| hold.wallet == *wallet.id());
            assert_eq!(holds.map(|(hold, _)| hold.amount.minor()).sum::<i128>(), held, "what is held is what holds say");
            assert!(Wallet::from_parts(wallet.parts().clone()).is_ok(), "what was stored is read back");
        }
    }

    /// Everything that a refusal may not change.
    fn shape(&self) -> (Vec<Wallet>, Vec<(Hold, usize)>, Vec<Money>) {
        (self.wallets.clone(), self.holds.clone(), self.system.values().map(Account::balance).collect())
    }
}

/// Mostly what a wallet can have, sometimes anything.
fn amounts() -> impl Strategy<Value = i128> {
    prop_oneof![
        8 => 0_i128..=1_000,
        2 => 0..=Money::AMOUNT_MAX_MINOR,
        1 => any::<i128>(),
        1 => prop::sample::select(vec![i128::MIN, -1, BALANCE_MAX_MINOR - 1, BALANCE_MAX_MINOR, BALANCE_MAX_MINOR + 1, i128::MAX]),
    ]
}

fn operations() -> impl Strategy<Value = Operation> {
    let (wallet, hold, coin) = (0..WALLETS, 0..4_usize, 0..CURRENCIES.len());
    prop_oneof![
        4 => (wallet.clone(), amounts(), coin.clone()).prop_map(|(to, minor, coin)| Operation::TopUp(to, minor, coin)),
        6 => (wallet.clone(), wallet.clone(), amounts(), coin.clone())
            .prop_map(|(from, to, minor, coin)| Operation::Transfer(from, to, minor, coin)),
        6 => (wallet.clone(), wallet.clone(), amounts(), coin)
            .prop_map(|(from, to, minor, coin)| Operation::Hold(from, to, minor, coin)),
        4 => hold.clone().prop_map(Operation::Capture),
        2 => hold.clone().prop_map(Operation::Release),
        1 => (hold, wallet.clone()).prop_map(|(hold, wallet)| Operation::CaptureElsewhere(hold, wallet)),
        1 => wallet.clone().prop_map(Operation::Freeze),
        1 => wallet.clone().prop_map(Operation::Unfreeze),
        1 => wallet.prop_map(Operation::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_makes_or_loses_a_minor_unit(operations in prop::collection::vec(operations(), 1..120)) {
        let mut ledger = Ledger::new();
        for operation in &operations {
            let before = ledger.shape();
            if !ledger.apply(operation) {
                prop_assert!(ledger.shape() == before, "a refusal changed something: {:?}", operation);
            }
            ledger.verify();
        }
    }
}

#[test]
fn the_check_sees_a_lost_unit() {
    let mut ledger = Ledger::new();
    assert!(ledger.apply(&Operation::TopUp(0, 100, 0)));
    ledger.verify();
    ledger.post(0, SystemAccount::Treasury, Money::from_minor(1, currency(0)));
    assert!(std::panic::catch_unwind(|| ledger.verify()).is_err());
}
