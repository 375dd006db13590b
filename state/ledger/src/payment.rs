//! Payments: the record of a command, and the one table of its legal steps.
//!
//! The record is the dedup entry too: every command leaves one, whether it is a payment or a wallet command.

use std::sync::Arc;

use crate::{IdempotencyKey, Money, PaymentId, Private, Rejection, Tenant, WalletId};

/// The commands, by the contract's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandKind {
    /// Opens a wallet.
    OpenWallet,
    /// Freezes a wallet.
    FreezeWallet,
    /// Unfreezes a wallet.
    UnfreezeWallet,
    /// Closes a wallet.
    CloseWallet,
    /// From wallet to wallet.
    Transfer,
    /// From a partner to a wallet.
    TopUp,
}

impl CommandKind {
    /// Every kind.
    pub const ALL: [CommandKind; 6] = [
        CommandKind::OpenWallet,
        CommandKind::FreezeWallet,
        CommandKind::UnfreezeWallet,
        CommandKind::CloseWallet,
        CommandKind::Transfer,
        CommandKind::TopUp,
    ];

    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            CommandKind::OpenWallet => "open_wallet",
            CommandKind::FreezeWallet => "freeze_wallet",
            CommandKind::UnfreezeWallet => "unfreeze_wallet",
            CommandKind::CloseWallet => "close_wallet",
            CommandKind::Transfer => "transfer",
            CommandKind::TopUp => "top_up",
        }
    }

    /// Whether it is an intent to move money.
    pub fn is_payment(self) -> bool {
        matches!(self, CommandKind::Transfer | CommandKind::TopUp)
    }
}

/// Where a command was read: stable over replays, the root of event ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Coordinates {
    /// The partition of `commands`.
    pub partition: u32,
    /// The offset in it.
    pub offset: u64,
}

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaymentState {
    /// Read, nothing decided.
    Received,
    /// Money is held for it.
    Reserved,
    /// Given to a partner.
    Submitted,
    /// The partner may or may not have executed it.
    Unknown,
    /// Needs a human.
    RequiresAttention,
    /// Money has moved.
    Settled,
    /// Refused by a rule.
    Rejected,
    /// Refused by a partner.
    Failed,
    /// Called back in time.
    Cancelled,
    /// Too late.
    Expired,
    /// Settled, then sent back by the other side.
    Returned,
    /// Settled, then taken back.
    Reversed,
    /// Settled, then paid back.
    Refunded,
    /// A wallet command that was carried out.
    Applied,
}

impl PaymentState {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            PaymentState::Received => "received",
            PaymentState::Reserved => "reserved",
            PaymentState::Submitted => "submitted",
            PaymentState::Unknown => "unknown",
            PaymentState::RequiresAttention => "requires_attention",
            PaymentState::Settled => "settled",
            PaymentState::Rejected => "rejected",
            PaymentState::Failed => "failed",
            PaymentState::Cancelled => "cancelled",
            PaymentState::Expired => "expired",
            PaymentState::Returned => "returned",
            PaymentState::Reversed => "reversed",
            PaymentState::Refunded => "refunded",
            PaymentState::Applied => "applied",
        }
    }

    /// Whether its outcome is known; a settled payment may still be returned, reversed or refunded.
    pub fn is_terminal(self) -> bool {
        !matches!(
            self,
            PaymentState::Received
                | PaymentState::Reserved
                | PaymentState::Submitted
                | PaymentState::Unknown
                | PaymentState::RequiresAttention
        )
    }
}

/// What can happen to a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// A wallet command was carried out.
    Apply,
    /// Money was held.
    Hold,
    /// It was given to a partner.
    Submit,
    /// No valid final answer came.
    Doubt,
    /// Money moved.
    Settle,
    /// A rule or the other side's wallet refused.
    Reject,
    /// The partner refused.
    Decline,
    /// It was called back.
    Cancel,
    /// Its time ran out before it was given away.
    Expire,
    /// Only a human can go on.
    Escalate,
    /// The other side sent it back.
    Return,
    /// It was taken back.
    Reverse,
    /// It was paid back.
    Refund,
}

/// A step that the state machine does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no step {step:?} from {}", from.as_str())]
pub struct IllegalTransition {
    /// Where the payment stood.
    pub from: PaymentState,
    /// What should have happened.
    pub step: Step,
}

impl PaymentState {
    /// The state after `step`: all legal transitions, and no other.
    pub fn after(self, step: Step) -> Result<PaymentState, IllegalTransition> {
        use PaymentState::{
            Applied, Cancelled, Expired, Failed, Received, Refunded, Rejected, RequiresAttention, Reserved, Returned, Reversed,
            Settled, Submitted, Unknown,
        };
        match (self, step) {
            (Received, Step::Apply) => Ok(Applied),
            (Received, Step::Hold) => Ok(Reserved),
            (Received | Reserved | RequiresAttention, Step::Reject) => Ok(Rejected),
            (Reserved, Step::Submit) => Ok(Submitted),
            (Reserved, Step::Cancel) => Ok(Cancelled),
            (Reserved, Step::Expire) => Ok(Expired),
            (Received | Reserved | Submitted | Unknown | RequiresAttention, Step::Settle) => Ok(Settled),
            (Submitted, Step::Doubt) => Ok(Unknown),
            (Submitted | Unknown, Step::Cancel) => Ok(Cancelled),
            (Submitted | Unknown | RequiresAttention, Step::Decline) => Ok(Failed),
            (Reserved | Submitted | Unknown, Step::Escalate) => Ok(RequiresAttention),
            (Settled, Step::Return) => Ok(Returned),
            (Settled, Step::Reverse) => Ok(Reversed),
            (Settled | Refunded, Step::Refund) => Ok(Refunded),
            (from, step) => Err(IllegalTransition { from, step }),
        }
    }
}

/// The record of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Its id.
    pub id: PaymentId,
    /// What was asked.
    pub kind: CommandKind,
    /// Who asked.
    pub tenant: Tenant,
    /// The home wallet.
    pub wallet: WalletId,
    /// The key under which it was asked.
    pub key: IdempotencyKey,
    /// What the request said, in 128 bits of SHA-256.
    pub fingerprint: [u8; 16],
    /// Where it stands.
    pub state: PaymentState,
    /// Why it was rejected.
    pub reason: Option<Rejection>,
    /// How much, if the request named a possible amount.
    pub amount: Option<Money>,
    /// The amount as it was given, where it is not written as FinFlow prints it.
    pub amount_given: Option<Arc<str>>,
    /// The receiving wallet.
    pub to: Option<WalletId>,
    /// The client's reference.
    pub reference: Option<Private>,
    /// The client's metadata, sorted by name.
    pub metadata: Vec<(Arc<str>, Private)>,
    /// The correlation id that came with it.
    pub correlation: Option<Arc<str>>,
    /// The W3C trace context that came with it.
    pub traceparent: Option<Arc<str>>,
    /// Where it was read.
    pub source: Coordinates,
    /// When it was decided first, in milliseconds since 1970-01-01 UTC.
    pub created_ms: i64,
    /// When it was changed last.
    pub updated_ms: i64,
    /// When the log took the command.
    pub received_ms: i64,
}

impl Payment {
    /// Takes a step at `now_ms`.
    pub fn advance(&mut self, step: Step, now_ms: i64) -> Result<(), IllegalTransition> {
        self.state = self.state.after(step)?;
        self.updated_ms = now_ms;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [PaymentState; 14] = [
        PaymentState::Received,
        PaymentState::Reserved,
        PaymentState::Submitted,
        PaymentState::Unknown,
        PaymentState::RequiresAttention,
        PaymentState::Settled,
        PaymentState::Rejected,
        PaymentState::Failed,
        PaymentState::Cancelled,
        PaymentState::Expired,
        PaymentState::Returned,
        PaymentState::Reversed,
        PaymentState::Refunded,
        PaymentState::Applied,
    ];
    const STEPS: [Step; 13] = [
        Step::Apply,
        Step::Hold,
        Step::Submit,
        Step::Doubt,
        Step::Settle,
        Step::Reject,
        Step::Decline,
        Step::Cancel,
        Step::Expire,
        Step::Escalate,
        Step::Return,
        Step::Reverse,
        Step::Refund,
    ];

    #[test]
    fn the_legal_transitions_are_exactly_these() {
        let mut table = String::new();
        for from in STATES {
            for step in STEPS {
                if let Ok(to) = from.after(step) {
                    table.push_str(&format!("{} {step:?} {}\n", from.as_str(), to.as_str()));
                }
            }
        }
        let expected = "received Hold reserved|received Settle settled|received Reject rejected|received Apply applied|\
            reserved Submit submitted|reserved Settle settled|reserved Reject rejected|reserved Cancel cancelled|\
            reserved Expire expired|reserved Escalate requires_attention|submitted Doubt unknown|submitted Settle settled|\
            submitted Decline failed|submitted Cancel cancelled|submitted Escalate requires_attention|unknown Settle settled|\
            unknown Decline failed|unknown Cancel cancelled|unknown Escalate requires_attention|requires_attention Settle settled|\
            requires_attention Decline failed|requires_attention Reject rejected|settled Return returned|settled Reverse reversed|\
            settled Refund refunded|refunded Refund refunded";
        let sorted = |text: &str, by: char| {
            let mut rows: Vec<String> = text.split(by).filter(|row| !row.is_empty()).map(str::to_owned).collect();
            rows.sort();
            rows
        };
        assert_eq!(sorted(&table, '\n'), sorted(expected, '|'));
    }

    #[test]
    fn only_settled_payments_leave_a_terminal_state() {
        for from in STATES.into_iter().filter(|state| state.is_terminal()) {
            for step in STEPS {
                let may = matches!(from, PaymentState::Settled | PaymentState::Refunded);
                assert!(may || from.after(step).is_err(), "{from:?} {step:?}");
            }
        }
    }
}
