//! Reading commands: wallets, payments, partitions, and the check of the state.

use finflow_ledger::{Money, Payment, PaymentId, Rejection, Wallet, WalletId};
use finflow_topologies::wire::v1::time_text;
use serde_json::{Value, json};

use crate::access::open;
use crate::cli::{Common, Format, PaymentCommand, StateCommand, WalletCommand};
use crate::failure::Failure;

/// Wallets read at a time.
const PAGE: usize = 1_000;

pub(crate) async fn wallet(common: &Common, command: &WalletCommand) -> Result<(), Failure> {
    let node = open(common)?;
    match command {
        WalletCommand::Show { wallet } => {
            let id = WalletId::parse(wallet)
                .ok_or_else(|| Failure::Failed(format!("{wallet} is not a wallet id, for example alice")))?;
            let found = node.wallet(&id)?.ok_or_else(|| Failure::Failed(format!("there is no wallet {id}")))?;
            print(common, &wallet_json(&found));
        }
        WalletCommand::List => {
            for partition in 0..node.partitions_count() {
                let mut after = None;
                loop {
                    let page = node.wallets(partition, after.as_ref(), PAGE)?;
                    page.iter().for_each(|wallet| print(common, &wallet_json(wallet)));
                    if page.len() < PAGE {
                        break;
                    }
                    after = page.last().map(|wallet| wallet.id().clone());
                }
            }
        }
    }
    Ok(())
}

pub(crate) async fn payment(common: &Common, command: &PaymentCommand) -> Result<(), Failure> {
    let PaymentCommand::Show { payment } = command;
    let id = PaymentId::parse(payment)
        .ok_or_else(|| Failure::Failed(format!("{payment} is not a payment id, for example pay_00000000000000000000000000")))?;
    let node = open(common)?;
    let found = node.payment(id)?.ok_or_else(|| Failure::Failed(format!("there is no payment {id}")))?;
    print(common, &payment_json(&found));
    Ok(())
}

pub(crate) async fn partitions(common: &Common) -> Result<(), Failure> {
    for status in open(common)?.status() {
        print(
            common,
            &json!({
                "partition": status.partition, "lane": status.lane, "state": status.state, "cause": status.cause,
                "commands_lag": status.commands_lag, "postings_lag": status.postings_lag,
            }),
        );
    }
    Ok(())
}

pub(crate) async fn state(common: &Common, command: &StateCommand) -> Result<(), Failure> {
    let StateCommand::Verify = command;
    let node = open(common)?;
    let mut differences = 0;
    for (partition, found) in node.verify() {
        let found = found.map_err(|error| Failure::Failed(format!("partition {partition}: {error}")))?;
        differences += found.differences.len();
        let digest: String = node.digest(partition)?.iter().map(|byte| format!("{byte:02x}")).collect();
        let sums = found
            .wallet_sums
            .iter()
            .map(|(currency, minor)| (currency.code().to_owned(), Value::from(Money::from_minor(*minor, *currency).to_string())));
        let line = json!({
            "partition": partition, "wallets": found.wallets, "payments": found.payments, "holds": found.holds,
            "sums": sums.collect::<serde_json::Map<_, _>>(), "digest": digest, "differences": found.differences,
        });
        print(common, &line);
    }
    if differences == 0 { Ok(()) } else { Err(Failure::Difference(format!("{differences} differences"))) }
}

fn wallet_json(wallet: &Wallet) -> Value {
    json!({
        "wallet": wallet.id().as_str(), "currency": wallet.currency().code(), "status": wallet.status().as_str(),
        "available": wallet.available().to_string(), "held": wallet.held().to_string(), "ledger": wallet.ledger().to_string(),
        "wallet_seq": wallet.seq(),
    })
}

fn payment_json(payment: &Payment) -> Value {
    let amount = payment.amount.map(|amount| amount.to_string());
    let given = payment.amount_given.as_deref().filter(|_| payment.reason.is_some()).map(str::to_owned);
    json!({
        "payment": payment.id.to_string(), "status": payment.state.as_str(), "reason": payment.reason.map(Rejection::code),
        "type": payment.kind.as_str(), "wallet": payment.wallet.as_str(), "to": payment.to.as_ref().map(WalletId::as_str),
        "amount": given.or(amount), "currency": payment.amount.map(|amount| amount.currency().code()),
        "tenant": payment.tenant.as_str(), "idempotency_key": payment.key.as_str(), "reference": payment.reference.as_deref(),
        "created_at": time_text(payment.created_ms), "updated_at": time_text(payment.updated_ms),
        "correlation_id": payment.correlation.as_deref(),
        "command": { "partition": payment.source.partition, "offset": payment.source.offset },
    })
}

/// One JSON object a line, or `name value` pairs for people.
pub(crate) fn print(common: &Common, value: &Value) {
    if common.format == Format::Json {
        println!("{value}");
        return;
    }
    let pairs = value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let pairs: Vec<String> = pairs
        .map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name} {text}"),
            None => format!("{name} {value}"),
        })
        .collect();
    println!("{}", pairs.join("  "));
}
