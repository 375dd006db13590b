//! Holds as a table: what is held, captured and released, in which state of the wallet, and what each attempt leaves behind.

use finflow_ledger::{Country, Currency, Hold, Money, Opening, Tenant, Wallet, WalletId, WalletKind};

fn wallet(id: &str) -> Wallet {
    Wallet::open(Opening {
        id: WalletId::parse(id).expect("a wallet id"),
        tenant: Tenant::parse("acme").expect("a tenant"),
        currency: Currency::parse("AED").expect("a currency"),
        country: Country::parse("AE").expect("a country"),
        kind: WalletKind::Personal,
        holder: "H".into(),
    })
}

fn money(minor: &str, code: &str) -> Money {
    Money::from_minor(minor.parse().expect("minor units"), Currency::parse(code).expect("a currency"))
}

/// Runs rows of `verb arguments -> outcome | available held status`, each on the wallet as the rows before left it.
///
/// `hold 10` keeps the hold it is given as number 1, 2, ...; `capture 1` and `release 1` use it; `capture other` brings one of
/// another wallet, `capture 10 AED` one that nobody gave.
fn check(rows: &str) {
    let mut alice = wallet("alice");
    let mut holds: Vec<Hold> = Vec::new();
    for row in rows.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let (asked, expected) = row.split_once("->").expect("a row has an arrow");
        let (outcome, left) = expected.split_once('|').expect("a row tells what is left");
        let words: Vec<&str> = asked.split_whitespace().collect();
        let given = |words: &[&str]| match words {
            ["other"] => Hold { wallet: WalletId::parse("bob").expect("a wallet id"), amount: money("1", "AED") },
            [minor, code] => Hold { wallet: WalletId::parse("alice").expect("a wallet id"), amount: money(minor, code) },
            [number] => holds[number.parse::<usize>().expect("the number of a hold") - 1].clone(),
            _ => panic!("{row}"),
        };
        let said = match words.as_slice() {
            ["top_up", minor] => alice.top_up(money(minor, "AED")).map_err(|no| no.to_string()),
            ["debit", minor] => alice.debit(money(minor, "AED")).map_err(|no| no.to_string()),
            ["hold", minor] => alice.hold(money(minor, "AED")).map(|hold| holds.push(hold)).map_err(|no| no.to_string()),
            ["hold", minor, code] => alice.hold(money(minor, code)).map(|hold| holds.push(hold)).map_err(|no| no.to_string()),
            ["capture", rest @ ..] => alice.capture(&given(rest)).map_err(|error| error.to_string()),
            ["release", rest @ ..] => alice.release(&given(rest)).map_err(|error| error.to_string()),
            ["freeze"] => alice.freeze().map_err(|no| no.to_string()),
            ["unfreeze"] => alice.unfreeze().map_err(|no| no.to_string()),
            ["close"] => alice.close().map_err(|no| no.to_string()),
            _ => panic!("{row}"),
        };
        assert_eq!(said.err().unwrap_or("ok".to_owned()), outcome.trim(), "{row}");
        let is = format!("{} {} {}", alice.available(), alice.held(), alice.status().as_str());
        assert_eq!(is, left.trim(), "{row}");
    }
}

#[test]
fn what_is_held_is_captured_or_released_once() {
    check(
        "
        hold 1              -> insufficient_funds   | 0.00 0.00 open
        top_up 1000         -> ok                   | 10.00 0.00 open
        hold 0              -> amount_invalid       | 10.00 0.00 open
        hold -1             -> amount_invalid       | 10.00 0.00 open
        hold 1001           -> insufficient_funds   | 10.00 0.00 open
        hold 400 KWD        -> currency_mismatch    | 10.00 0.00 open
        hold 400            -> ok                   | 6.00 4.00 open
        hold 600            -> ok                   | 0.00 10.00 open
        debit 1             -> insufficient_funds   | 0.00 10.00 open
        close               -> balance_not_zero     | 0.00 10.00 open
        capture other       -> the hold is of another wallet | 0.00 10.00 open
        capture 1 KWD       -> the hold is of another wallet | 0.00 10.00 open
        capture 1001 AED    -> the hold is larger than what the wallet holds | 0.00 10.00 open
        capture 0 AED       -> the hold is larger than what the wallet holds | 0.00 10.00 open
        release -1 AED      -> the hold is larger than what the wallet holds | 0.00 10.00 open
        capture 1           -> ok                   | 0.00 6.00 open
        release 2           -> ok                   | 6.00 0.00 open
        release 2           -> the hold is larger than what the wallet holds | 6.00 0.00 open
        capture 1           -> the hold is larger than what the wallet holds | 6.00 0.00 open
        ",
    );
}

#[test]
fn a_frozen_wallet_lets_its_holds_end_and_nothing_else() {
    check(
        "
        top_up 1000         -> ok                   | 10.00 0.00 open
        hold 300            -> ok                   | 7.00 3.00 open
        hold 200            -> ok                   | 5.00 5.00 open
        freeze              -> ok                   | 5.00 5.00 frozen
        hold 1              -> wallet_frozen        | 5.00 5.00 frozen
        top_up 1            -> wallet_frozen        | 5.00 5.00 frozen
        close               -> wallet_frozen        | 5.00 5.00 frozen
        capture 1           -> ok                   | 5.00 2.00 frozen
        release 2           -> ok                   | 7.00 0.00 frozen
        unfreeze            -> ok                   | 7.00 0.00 open
        debit 700           -> ok                   | 0.00 0.00 open
        close               -> ok                   | 0.00 0.00 closed
        hold 1              -> wallet_closed        | 0.00 0.00 closed
        unfreeze            -> wallet_closed        | 0.00 0.00 closed
        ",
    );
}
