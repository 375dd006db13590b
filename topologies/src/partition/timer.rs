//! Timers: what a payment has asked to be reminded of. Today that is one thing, the deadline of a transfer in transit.
//!
//! A timer moves no money and gives nothing back: while nobody knows what the receiver has done, the hold stays. It makes a payment
//! that waits for too long say so, once; the answer, when it comes, ends it as always.

use finflow_ledger::{PaymentId, PaymentState, Step};
use finflow_state::TimerKind;

use super::command::Deciding;
use super::effects::Change;
use super::identify;
use super::transfer::event_of;
use crate::failure::Failure;
use crate::halt::Halt;
use crate::wire::v1::{Event, EventName};

/// The credit is on its way, and the receiver's partition has not answered in time.
const IN_TRANSIT: &str = "in_transit";
/// Whatever should have been done at the time could not be.
pub(super) const TIMER_FAILED: &str = "timer_failed";

impl Deciding<'_> {
    /// What is due now. A timer whose row is gone, or whose time has not come, is ignored.
    pub(crate) fn timer(&mut self, due_ms: i64, id: PaymentId) -> Result<(), Failure> {
        if self.now_ms < due_ms {
            return Ok(());
        }
        match self.sight.timer(due_ms, id)? {
            None => Ok(()),
            Some(TimerKind::Deadline) => self.escalate(due_ms, id, IN_TRANSIT),
        }
    }

    /// Removes the timer and leaves its payment to a human, unless it has ended or been left to one already.
    pub(crate) fn escalate(&mut self, due_ms: i64, id: PaymentId, reason: &'static str) -> Result<(), Failure> {
        self.effects.changes.push(Change::TimerRemoved { due_ms, payment: id });
        let payment = self.sight.payment(id)?.filter(|payment| payment.state == PaymentState::Reserved);
        let Some(payment) = payment else { return Ok(()) };
        identify(&payment);
        let Some(hold) = self.sight.hold(id)? else { return Err(Halt::NoHold(id).into()) };
        let Some(payer) = self.sight.wallet(&hold.wallet)? else { return Err(Halt::NoHold(id).into()) };
        let event = event_of(&payment, EventName::PaymentRequiresAttention, hold.amount, self.at);
        self.tell(Event { reason: Some(reason), ..event }, Some(payer))?;
        self.advance(payment, Step::Escalate)
    }
}
