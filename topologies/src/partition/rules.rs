//! The application's constants that decisions depend on, the same for every partition.

use std::sync::Arc;

use finflow_ledger::Payment;

/// What decisions depend on besides the state: the application's constants.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The partition count of the application.
    pub partitions: u32,
    /// The prefix of the topic names.
    pub prefix: Arc<str>,
    /// Whether a `top_up` from the treasury is allowed.
    pub treasury_enabled: bool,
    /// How long the record of a finished command answers for its duplicates, in milliseconds.
    pub dedup_retention_ms: i64,
    /// A command this much younger than the retention is refused as `expired` already, so that clocks may disagree.
    pub dedup_margin_ms: i64,
    /// How long a transfer waits for the receiver's partition before it says that it does, in milliseconds.
    pub attention_after_ms: i64,
    /// How many wallets a partition keeps in memory.
    pub hot_wallets_max: usize,
}

impl Rules {
    /// Those of an application for development, with a few wallets in memory: for drivers and tests.
    pub fn development(partitions: u32) -> Rules {
        Rules {
            partitions,
            prefix: "finflow".into(),
            treasury_enabled: true,
            dedup_retention_ms: 35 * 86_400_000,
            dedup_margin_ms: 3_600_000,
            attention_after_ms: 60_000,
            hot_wallets_max: 100,
        }
    }

    /// Whether a command that was sent at `sent_ms` is too old to be carried out: the record that would answer for it may be gone.
    pub fn is_expired(&self, sent_ms: i64, now_ms: i64) -> bool {
        let answers_for_ms = self.dedup_retention_ms.saturating_sub(self.dedup_margin_ms);
        sent_ms < now_ms.saturating_sub(answers_for_ms)
    }

    /// When a transfer that is still in transit says so. Its timer stands at this time; one that stands at another, because the
    /// setting was another, finds the payment ended and goes.
    pub(crate) fn attention_at(&self, payment: &Payment) -> i64 {
        payment.created_ms.saturating_add(self.attention_after_ms)
    }

    /// Whether the record of a command may be forgotten: it has ended, and its retention has passed since then and since the log
    /// took the command.
    pub fn may_forget(&self, payment: &Payment, now_ms: i64) -> bool {
        let before_ms = now_ms.saturating_sub(self.dedup_retention_ms);
        payment.state.is_terminal() && payment.updated_ms < before_ms && payment.received_ms < before_ms
    }
}
