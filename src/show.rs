//! Reading commands: wallets, payments and partitions.

use finflow_actors::{PartitionStatus, Restoring, Watched};
use finflow_ledger::{Payment, Rejection, Wallet, WalletId};
use finflow_topologies::wire::v1::time_text;
use serde_json::{Value, json};

use crate::access::Access;
use crate::cli::{Common, PartitionsCommand, PaymentCommand, WalletCommand};
use crate::failure::Failure;
use crate::output::print;
use crate::resume::resume;

/// Wallets read at a time.
const PAGE: usize = 1_000;

pub(crate) async fn wallet(common: &Common, command: &WalletCommand) -> Result<(), Failure> {
    let access = Access::open(common).await?;
    match command {
        WalletCommand::Show { wallet } => {
            let found = access.wallet(wallet).await?.ok_or_else(|| Failure::Failed(format!("there is no wallet {wallet}")))?;
            print(common, &wallet_json(&found))?;
        }
        WalletCommand::List => {
            for partition in 0..access.partitions_count().await? {
                let mut after = None;
                loop {
                    let page = access.wallets(partition, after.as_ref(), PAGE).await?;
                    page.iter().try_for_each(|wallet| print(common, &wallet_json(wallet)))?;
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
    let PaymentCommand::Show { payment: id } = command;
    let access = Access::open(common).await?;
    let found = access.payment(*id).await?.ok_or_else(|| Failure::Failed(format!("there is no payment {id}")))?;
    print(common, &payment_json(&found))
}

pub(crate) async fn partitions(common: &Common, command: Option<&PartitionsCommand>) -> Result<(), Failure> {
    let access = Access::inspect(common).await?;
    if let Some(PartitionsCommand::Resume(command)) = command {
        return resume(common, &access, command).await;
    }
    let mut halted = Vec::new();
    for status in access.status().await? {
        print(common, &partition_json(&status))?;
        halted.extend(status.cause.map(|cause| format!("partition {} is halted: {cause}", status.partition)));
    }
    if halted.is_empty() { Ok(()) } else { Err(Failure::Failed(halted.join("; "))) }
}

fn partition_json(status: &PartitionStatus) -> Value {
    let Watched { leg_oldest_ms, command_oldest_ms, commands_kept_ms, .. } = status.watched;
    let restoring = status.restoring.map(|Restoring { block, target }| json!({ "block": block, "target": target }));
    let held_back = status.watched.held_back_longest();
    let held_back = held_back.map(|(topic, held)| json!({ "topic": topic.word(), "lag": held.lag, "for_ms": held.for_ms }));
    let role = match status.state.as_str() {
        "running" | "restoring" | "halted" if status.owner.is_some() => Some("owner"),
        "standby" => Some("standby"),
        _ => None,
    };
    json!({
        "partition": status.partition, "owner": status.owner, "role": role, "standbys": status.standbys,
        "lane": status.lane,
        "state": status.state, "cause": status.cause, "block": status.block, "commands_lag": status.commands_lag,
        "postings_lag": status.postings_lag, "restored_from": status.restored_from, "replayed": status.replayed,
        "restoring": restoring, "leg_oldest_ms": leg_oldest_ms, "command_oldest_ms": command_oldest_ms,
        "commands_kept_ms": commands_kept_ms, "open_transaction": held_back,
    })
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
