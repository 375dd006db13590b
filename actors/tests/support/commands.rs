//! The commands that tests publish: wallets that are opened and get their money from the treasury, and transfers between them.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use finflow_actors::Publish;

/// A command of the tenant `acme`, with the fields that are its own in `rest`.
pub(crate) fn command(wallet: &str, key: &str, rest: &str) -> Publish {
    let value = format!(r#"{{"tenant":"acme","wallet":"{wallet}","idempotency_key":"{key}",{rest}}}"#);
    Publish { partition: None, key: Some(wallet.to_owned().into()), value: Some(value.into()), ..Publish::default() }
}

pub(crate) fn open(wallet: &str) -> Publish {
    command(wallet, "open", r#""type":"open_wallet","currency":"AED","country":"AE","kind":"personal","holder":"H""#)
}

pub(crate) fn top_up(wallet: &str, key: &str, amount: &str) -> Publish {
    let rest = format!(r#""type":"top_up","amount":"{amount}","currency":"AED","source":{{"account":"till"}}"#);
    command(wallet, key, &rest)
}

pub(crate) fn transfer(from: &str, key: &str, to: &str, amount: &str) -> Publish {
    command(from, key, &format!(r#""type":"transfer","to":"{to}","amount":"{amount}","currency":"AED""#))
}

/// The wallets `w0`, `w1`, ..., each with `amount`.
pub(crate) fn opened(wallets: usize, amount: &str) -> Vec<Publish> {
    let names = (0..wallets).map(|n| format!("w{n}"));
    names.flat_map(|name| [open(&name), top_up(&name, "top", amount)]).collect()
}

/// Transfers `t{n}` of 0.05 between them, each from another wallet than the one before.
pub(crate) fn transfers(wallets: usize, numbers: std::ops::Range<usize>) -> Vec<Publish> {
    let one = |n: usize| transfer(&format!("w{}", n % wallets), &format!("t{n}"), &format!("w{}", (n * 7 + 1) % wallets), "0.05");
    numbers.map(one).collect()
}
