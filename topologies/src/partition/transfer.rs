//! Transfer from wallet to wallet.
//!
//! Within one partition it settles at once: payer -amount, receiver +amount. To another partition the home holds and posts a
//! credit; the receiver credits its wallet against `in_transit:{home}` and acknowledges; the acknowledgement captures the hold
//! into `in_transit:{receiver's partition}`, or releases it when the receiver refused. Nothing is ever taken back.

use finflow_ledger::{Money, Payment, PaymentId, PaymentState, Rejection, Step, SystemAccount, Wallet, WalletId};
use finflow_state::TimerKind;
use tracing::debug;

use super::command::{Deciding, Request, amount_of};
use super::effects::Change;
use super::identify;
use crate::failure::Failure;
use crate::halt::Halt;
use crate::topics::partition_of_wallet;
use crate::wire::v1::{AmountEcho, Credit, Event, EventName, PostingBody, TimeText};

impl Deciding<'_> {
    pub(crate) fn transfer(&mut self, request: &Request, to: &WalletId, amount: &str, currency: &str) -> Result<(), Failure> {
        let own = self.own_wallet(request)?;
        let amount = match amount_of(amount, currency) {
            Ok(amount) => amount,
            Err(rejection) => return self.reject(request, own, rejection),
        };
        let Some(payer) = own else { return self.reject(request, None, Rejection::WalletUnknown) };
        if let Err(rejection) = may_transfer(&payer, to, amount) {
            return self.reject(request, Some(payer), rejection);
        }
        let destination = partition_of_wallet(to, self.rules.partitions);
        if destination == self.partition {
            self.settle_here(request, payer, to, amount)
        } else {
            self.reserve(request, payer, destination, to, amount)
        }
    }

    fn settle_here(&mut self, request: &Request, mut payer: Wallet, to: &WalletId, amount: Money) -> Result<(), Failure> {
        let Some(mut receiver) = self.sight.wallet(to)? else {
            return self.reject(request, Some(payer), Rejection::CounterpartyUnknown);
        };
        let (payer_before, receiver_before) = (payer.ledger(), receiver.ledger());
        if let Err(rejection) = receiver.credit_from(amount) {
            return self.reject(request, Some(payer), rejection);
        }
        if let Err(rejection) = payer.debit(amount) {
            return self.reject(request, Some(payer), rejection);
        }

        self.effects.moved(payer_before, payer.ledger())?;
        self.effects.moved(receiver_before, receiver.ledger())?;
        self.finish(self.new_payment(request), Step::Settle)?;
        let settled = Event { amount: AmountEcho::Money(amount), ..self.event(request, EventName::PaymentSettled) };
        let credited = Event {
            name: EventName::WalletCredited,
            wallet: to,
            to: None,
            from: Some(&request.command.wallet),
            ..self.event(request, EventName::PaymentSettled)
        };
        let credited = Event { amount: AmountEcho::Money(amount), ..credited };
        self.tell(settled, Some(payer))?;
        self.tell(credited, Some(receiver))
    }

    fn reserve(
        &mut self,
        request: &Request,
        mut payer: Wallet,
        destination: u32,
        to: &WalletId,
        amount: Money,
    ) -> Result<(), Failure> {
        let before = payer.ledger();
        let hold = match payer.hold(amount) {
            Ok(hold) => hold,
            Err(rejection) => return self.reject(request, Some(payer), rejection),
        };

        self.effects.moved(before, payer.ledger())?;
        let payment = self.new_payment(request);
        let credit = Credit {
            payment: request.id,
            from: payment.wallet.clone(),
            to: to.clone(),
            amount,
            tenant: payment.tenant.clone(),
            key: payment.key.clone(),
            reference: payment.reference.clone(),
            metadata: payment.metadata.clone(),
            correlation: payment.correlation.clone(),
            traceparent: payment.traceparent.clone(),
            source: payment.source,
            kind: payment.kind,
        };
        self.effects.changes.push(Change::Wallet { wallet: payer, born: false });
        self.effects.changes.push(Change::Hold { payment: request.id, hold });
        let due_ms = self.rules.attention_at(&payment);
        self.effects.changes.push(Change::Timer { due_ms, payment: request.id, kind: TimerKind::Deadline });
        self.finish(payment, Step::Hold)?;
        self.effects.postings.push((destination, PostingBody::Credit(Box::new(credit))));
        Ok(())
    }

    /// The receiver's side: credits the wallet or says why not, and answers either way.
    pub(crate) fn credit(&mut self, home: u32, credit: &Credit) -> Result<(), Failure> {
        let outcome = match self.sight.wallet(&credit.to)? {
            None => Err(Rejection::CounterpartyUnknown),
            Some(mut receiver) => {
                let before = receiver.ledger();
                match receiver.credit_from(credit.amount) {
                    Err(rejection) => Err(rejection),
                    Ok(()) => {
                        self.effects.moved(before, receiver.ledger())?;
                        self.book(SystemAccount::InTransit(home), credit.amount.negated()?)?;
                        self.tell(self.credited(credit), Some(receiver))?;
                        Ok(())
                    }
                }
            }
        };
        debug!(reason = outcome.err().map(Rejection::code), "answered");
        let answer = PostingBody::Acknowledge { payment: credit.payment, outcome };
        self.effects.postings.push((home, answer));
        Ok(())
    }

    fn credited<'e>(&self, credit: &'e Credit) -> Event<'e> {
        Event {
            name: EventName::WalletCredited,
            payment: credit.payment,
            tenant: &credit.tenant,
            wallet: &credit.to,
            snapshot: None,
            kind: credit.kind,
            amount: AmountEcho::Money(credit.amount),
            at: self.at,
            key: &credit.key,
            correlation: credit.correlation.as_deref(),
            traceparent: credit.traceparent.as_deref(),
            to: None,
            from: Some(&credit.from),
            reason: None,
            reference: credit.reference.as_deref(),
            metadata: &credit.metadata,
            source: credit.source,
        }
    }

    /// The home's side: captures or releases the hold. An answer for which nothing is held is a broken invariant.
    pub(crate) fn acknowledged(&mut self, receiver: u32, id: PaymentId, outcome: Result<(), Rejection>) -> Result<(), Failure> {
        let is_open = |payment: &Payment| matches!(payment.state, PaymentState::Reserved | PaymentState::RequiresAttention);
        let payment = self.sight.payment(id)?.filter(is_open);
        let (Some(mut payment), Some(hold)) = (payment, self.sight.hold(id)?) else { return Err(Halt::NoHold(id).into()) };
        identify(&payment);
        let Some(mut payer) = self.sight.wallet(&hold.wallet)? else { return Err(Halt::NoHold(id).into()) };
        let before = payer.ledger();
        self.effects.changes.push(Change::HoldRemoved(id));
        if payment.state == PaymentState::Reserved {
            let due_ms = self.rules.attention_at(&payment);
            self.effects.changes.push(Change::TimerRemoved { due_ms, payment: id });
        }
        let (step, name) = match outcome {
            Ok(()) => {
                payer.capture(&hold)?;
                self.book(SystemAccount::InTransit(receiver), hold.amount)?;
                (Step::Settle, EventName::PaymentSettled)
            }
            Err(rejection) => {
                payer.release(&hold)?;
                payment.reason = Some(rejection);
                (Step::Reject, EventName::PaymentRejected)
            }
        };
        self.effects.moved(before, payer.ledger())?;
        let event = event_of(&payment, name, hold.amount, self.at);
        self.tell(event, Some(payer))?;
        self.advance(payment, step)
    }
}

/// The home wallet's event, told from the record; a rejection echoes the amount as it was given.
pub(super) fn event_of(payment: &Payment, name: EventName, amount: Money, at: TimeText) -> Event<'_> {
    let amount = match (name, &payment.amount_given) {
        (EventName::PaymentRejected, Some(given)) => AmountEcho::Text { amount: given, currency: amount.currency().code() },
        _ => AmountEcho::Money(amount),
    };
    Event {
        name,
        payment: payment.id,
        tenant: &payment.tenant,
        wallet: &payment.wallet,
        snapshot: None,
        kind: payment.kind,
        amount,
        at,
        key: &payment.key,
        correlation: payment.correlation.as_deref(),
        traceparent: payment.traceparent.as_deref(),
        to: payment.to.as_ref(),
        from: None,
        reason: payment.reason.map(Rejection::code),
        reference: payment.reference.as_deref(),
        metadata: &payment.metadata,
        source: payment.source,
    }
}

/// The guards that concern the payer, in the order of [`Rejection`].
fn may_transfer(payer: &Wallet, to: &WalletId, amount: Money) -> Result<(), Rejection> {
    payer.may_pay(amount.currency())?;
    if payer.id() == to {
        return Err(Rejection::SameWallet);
    }
    if payer.available().minor() < amount.minor() {
        return Err(Rejection::InsufficientFunds);
    }
    Ok(())
}
