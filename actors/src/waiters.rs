//! Callers who wait until a command is consumed and its payment has ended. The lane wakes them once the outcome is durable and shown to
//! readers; they read the rest themselves. Whoever goes away, at a deadline or with a connection, leaves nothing behind.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use finflow_ledger::{PaymentId, PaymentState};
use finflow_topologies::Outcome;
use tokio::sync::{oneshot, watch};

/// Callers who wait for epochs to be shown, and for payments to end.
#[derive(Default)]
pub(crate) struct Waiters {
    waiting: Mutex<Waiting>,
    shown: watch::Sender<()>,
}

#[derive(Default)]
struct Waiting {
    /// By payment, each with the ticket of its caller.
    callers: HashMap<PaymentId, Vec<(u64, oneshot::Sender<PaymentState>)>>,
    tickets_given: u64,
}

/// One caller's place among the waiters, given up when it is dropped.
pub(crate) struct Waiter<'a> {
    waiters: &'a Waiters,
    payment: PaymentId,
    ticket: u64,
    ended: oneshot::Receiver<PaymentState>,
}

impl Waiters {
    /// An epoch with these outcomes is shown to readers: wakes those who wait for epochs, and those whose payment has ended.
    pub(crate) fn wake(&self, outcomes: &[Outcome]) {
        self.shown.send_replace(());
        let mut waiting = self.lock();
        if waiting.callers.is_empty() {
            return;
        }
        for outcome in outcomes.iter().filter(|outcome| outcome.state.is_terminal()) {
            for (_, caller) in waiting.callers.remove(&outcome.payment).into_iter().flatten() {
                // Who has gone needs no answer.
                let _ = caller.send(outcome.state);
            }
        }
    }

    /// Tells of every epoch that is shown from now on.
    pub(crate) fn shown(&self) -> watch::Receiver<()> {
        self.shown.subscribe()
    }

    /// The end of a payment, when it comes.
    pub(crate) fn wait(&self, payment: PaymentId) -> Waiter<'_> {
        let (sender, ended) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.tickets_given = waiting.tickets_given.wrapping_add(1);
        let ticket = waiting.tickets_given;
        waiting.callers.entry(payment).or_default().push((ticket, sender));
        Waiter { waiters: self, payment, ticket, ended }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter<'_> {
    /// The state in which the payment has ended; `None` if nobody will tell.
    pub(crate) async fn ended(&mut self) -> Option<PaymentState> {
        (&mut self.ended).await.ok()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.lock();
        let Some(callers) = waiting.callers.get_mut(&self.payment) else { return };
        callers.retain(|(ticket, _)| *ticket != self.ticket);
        if callers.is_empty() {
            waiting.callers.remove(&self.payment);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn payment(number: u8) -> PaymentId {
        PaymentId::from_bytes([number; 16])
    }

    fn waiting(waiters: &Waiters) -> usize {
        waiters.lock().callers.values().map(Vec::len).sum()
    }

    #[tokio::test]
    async fn who_goes_away_leaves_nothing_behind_and_the_others_are_woken() {
        let waiters = Waiters::default();
        let mut first = waiters.wait(payment(1));
        let second = waiters.wait(payment(1));
        let mut other = waiters.wait(payment(2));
        assert_eq!(waiting(&waiters), 3);
        drop(second);
        assert_eq!(waiting(&waiters), 2);
        let late = tokio::time::timeout(Duration::from_millis(1), waiters.wait(payment(3)).ended()).await;
        assert!(late.is_err());
        assert_eq!(waiting(&waiters), 2, "a deadline takes its waiter along");

        let outcome = |number, state| Outcome { payment: payment(number), state };
        waiters.wake(&[outcome(1, PaymentState::Settled), outcome(2, PaymentState::Reserved)]);
        assert_eq!(first.ended().await, Some(PaymentState::Settled));
        drop(first);
        assert_eq!(waiting(&waiters), 1, "what has not ended is waited for");
        waiters.wake(&[outcome(2, PaymentState::Rejected)]);
        assert_eq!(other.ended().await, Some(PaymentState::Rejected));
        drop(other);
        assert!(waiters.lock().callers.is_empty());
    }
}
