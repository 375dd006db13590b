//! The ledger alone: what a transfer does to two wallets, and what parsing and printing an amount costs.

use finflow_ledger::{AmountText, Country, Currency, Money, Opening, Tenant, Wallet, WalletId, WalletKind};

use crate::measure;

fn wallet(id: &str) -> Wallet {
    let mut wallet = Wallet::open(Opening {
        id: WalletId::parse(id).expect("an id"),
        tenant: Tenant::parse("bench").expect("a tenant"),
        currency: aed(),
        country: Country::parse("AE").expect("a country"),
        kind: WalletKind::Personal,
        holder: "Holder".into(),
    });
    wallet.top_up(Money::from_minor(1_000_000_000, aed())).expect("an open wallet");
    wallet
}

fn aed() -> Currency {
    Currency::parse("AED").expect("a currency")
}

pub(crate) fn all() {
    let (mut payer, mut receiver) = (wallet("alice"), wallet("bob"));
    let amount = Money::from_minor(1, aed());
    measure("ledger: hold, credit, capture", 1, || {
        let hold = payer.hold(amount).expect("enough money");
        receiver.credit_from(amount).expect("an open wallet");
        payer.capture(&hold).expect("a hold of this wallet");
        // Back again, so that the benchmark can go on for ever.
        receiver.debit(amount).expect("enough money");
        payer.credit_from(amount).expect("an open wallet");
    });
    measure("ledger: parse an amount", 1, || AmountText::parse("1234.50").map(|text| Money::parse(text, aed())));
    let money = Money::from_minor(123_450, aed());
    measure("ledger: print an amount", 1, || money.to_string());
}
