//! Callers who wait for the end of a payment. Woken by the lane once the outcome is durable; they read the rest themselves.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use finflow_ledger::{PaymentId, PaymentState};
use finflow_topologies::Outcome;
use tokio::sync::oneshot;

/// Callers who wait for a payment's terminal state.
#[derive(Default)]
pub(crate) struct Waiters(Mutex<HashMap<PaymentId, Vec<oneshot::Sender<PaymentState>>>>);

impl Waiters {
    /// Wakes those whose payment has ended.
    pub(crate) fn wake(&self, outcomes: &[Outcome]) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            return;
        }
        for outcome in outcomes.iter().filter(|outcome| outcome.state.is_terminal()) {
            for waiter in waiting.remove(&outcome.payment).into_iter().flatten() {
                // Who has gone needs no answer.
                let _ = waiter.send(outcome.state);
            }
        }
    }

    /// The end of a payment, when it comes.
    pub(super) fn wait(&self, payment: PaymentId) -> oneshot::Receiver<PaymentState> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(payment).or_default().push(sender);
        receiver
    }
}
