//! From a command record to a decision: decode, find its home, look for its record, then execute.
//!
//! The order is fixed: what cannot be read is dead-lettered, what is not at home is forwarded, what was seen is a duplicate,
//! and only then is anything decided about money.

use std::sync::Arc;

use finflow_ledger::{
    Account, AmountText, Coordinates, Currency, Money, Payment, PaymentId, PaymentState, Rejection, Step, SystemAccount, Wallet,
};
use tracing::debug;

use super::effects::{Change, Effects, Outcome};
use super::prefetch::Understood;
use super::rules::Rules;
use super::sight::Sight;
use super::verdict::{EXPIRED, KEY_REUSED, Verdict};
use crate::failure::Failure;
use crate::halt::Halt;
use crate::log::Record;
use crate::topics::RECORD_BYTES_MAX;
use crate::wire::v1::{
    AmountEcho, Body, Code, Command, Event, EventName, Malformed, PostingBody, Snapshot, TimeText, dead_letter, first_sent_ms,
};

/// One input being decided.
pub(crate) struct Deciding<'a> {
    pub(crate) partition: u32,
    pub(crate) rules: &'a Rules,
    pub(crate) now_ms: i64,
    /// The same as text.
    pub(crate) at: TimeText,
    pub(crate) sight: Sight<'a>,
    pub(crate) effects: &'a mut Effects,
}

/// A command at its home, with what identifies it.
pub(crate) struct Request<'a> {
    pub(crate) id: PaymentId,
    pub(crate) command: &'a Command,
    pub(crate) source: Coordinates,
    pub(crate) received_ms: i64,
}

impl Deciding<'_> {
    /// Decides a command. `forwarded` says that it came as a posting and is at home here or nowhere.
    pub(crate) fn command(
        &mut self,
        record: &Record,
        understood: Result<Understood, Malformed>,
        source: Coordinates,
        forwarded: bool,
    ) -> Result<(), Failure> {
        let Understood { command, id, home } = match understood {
            Ok(understood) => understood,
            Err(malformed) => {
                debug!(partition = source.partition, offset = source.offset, code = malformed.code.as_str(), "dead-lettered");
                self.dead_letter(record, source, &malformed);
                return Ok(());
            }
        };
        let keyed = record.key.as_deref() == Some(command.wallet.as_str().as_bytes());
        if !forwarded && (home != self.partition || !keyed) {
            // Only a key can be so long, and only where records were compressed: no posting could carry it.
            if RECORD_BYTES_MAX < record.bytes() {
                let message = format!("a record longer than {RECORD_BYTES_MAX} bytes is not forwarded");
                self.dead_letter(record, source, &Malformed { code: Code::TooLarge, message });
                return Ok(());
            }
            debug!(partition = source.partition, offset = source.offset, home, "forwarded");
            self.forward(home, record, source);
            return Ok(());
        }
        if home != self.partition {
            return Err(Halt::Misdelivered { here: self.partition, found: home }.into());
        }
        let span = tracing::debug_span!(
            "command",
            partition = source.partition,
            offset = source.offset,
            payment = %id,
            wallet = %command.wallet,
            correlation_id = command.correlation.as_deref(),
        );
        let _entered = span.enter();
        let request = Request { id, command: &command, source, received_ms: record.timestamp_ms };
        match self.sight.payment(id)? {
            Some(known) if known.fingerprint == command.fingerprint => {
                debug!(state = known.state.as_str(), "duplicate");
                self.effects.outcomes.push(Outcome { payment: id, state: known.state });
                self.effects.verdict = Some(Verdict::Duplicate);
                Ok(())
            }
            Some(_) => self.refuse(&request, KEY_REUSED),
            // What was sent again is as old as its first sending: the record that would answer for it may be gone.
            None if self.rules.is_expired(first_sent_ms(&record.headers, record.timestamp_ms), self.now_ms) => {
                self.refuse(&request, EXPIRED)
            }
            None => self.execute(&request),
        }
    }

    fn execute(&mut self, request: &Request) -> Result<(), Failure> {
        match &request.command.body {
            Body::OpenWallet { currency, country, kind, holder } => self.open_wallet(request, currency, country, *kind, holder),
            Body::FreezeWallet { reason } => self.change_wallet(request, reason, EventName::WalletFrozen, Wallet::freeze),
            Body::UnfreezeWallet { reason } => self.change_wallet(request, reason, EventName::WalletUnfrozen, Wallet::unfreeze),
            Body::CloseWallet { reason } => self.change_wallet(request, reason, EventName::WalletClosed, Wallet::close),
            Body::Transfer { to, amount, currency } => self.transfer(request, to, amount, currency),
            Body::TopUp { amount, currency, source } => self.top_up(request, amount, currency, source),
        }
    }

    fn forward(&mut self, home: u32, record: &Record, source: Coordinates) {
        let body = PostingBody::Forward {
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
            timestamp_ms: record.timestamp_ms,
            source,
        };
        self.effects.postings.push((home, body));
        self.effects.verdict = Some(Verdict::Forwarded);
    }

    fn dead_letter(&mut self, record: &Record, source: Coordinates, malformed: &Malformed) {
        self.effects.give_up(dead_letter(record, source, malformed, &self.rules.prefix, self.now_ms), malformed.code);
    }

    /// The home wallet, if it exists and belongs to the tenant who asks.
    pub(crate) fn own_wallet(&mut self, request: &Request) -> Result<Option<Wallet>, Failure> {
        let wallet = self.sight.wallet(&request.command.wallet)?;
        Ok(wallet.filter(|wallet| *wallet.tenant() == request.command.tenant))
    }

    /// Answers without leaving a record: the key stands for another request, or the command is too old to be safe.
    fn refuse(&mut self, request: &Request, reason: &'static str) -> Result<(), Failure> {
        self.effects.verdict = Some(Verdict::Rejected(reason));
        let wallet = self.own_wallet(request)?;
        let event = Event { reason: Some(reason), ..self.event(request, EventName::CommandRejected) };
        self.tell(event, wallet)
    }

    /// Rejects a command for good: a record, and one event on the home wallet if the tenant owns it, else beside it.
    pub(crate) fn reject(&mut self, request: &Request, wallet: Option<Wallet>, reason: Rejection) -> Result<(), Failure> {
        let kind = request.command.kind();
        let name = if kind.is_payment() { EventName::PaymentRejected } else { EventName::CommandRejected };
        let mut payment = self.new_payment(request);
        payment.reason = Some(reason);
        self.finish(payment, Step::Reject)?;
        let event = Event { reason: Some(reason.code()), ..self.event(request, name) };
        self.tell(event, wallet)
    }

    /// The record of a command as it is received.
    pub(crate) fn new_payment(&self, request: &Request) -> Payment {
        let command = request.command;
        let amount = command
            .amount()
            .and_then(|(amount, currency)| Money::parse(AmountText::parse(amount)?, Currency::parse(currency)?).ok());
        Payment {
            id: request.id,
            kind: command.kind(),
            tenant: command.tenant.clone(),
            wallet: command.wallet.clone(),
            key: command.key.clone(),
            fingerprint: command.fingerprint,
            state: PaymentState::Received,
            reason: None,
            amount_given: command.amount().and_then(|(given, _)| given_otherwise(given, amount)),
            amount,
            to: command.to().cloned(),
            reference: command.reference.clone(),
            metadata: command.metadata.clone(),
            correlation: command.correlation.clone(),
            traceparent: command.traceparent.clone(),
            source: request.source,
            created_ms: self.now_ms,
            updated_ms: self.now_ms,
            received_ms: request.received_ms,
        }
    }

    /// Takes a new record's only step and writes it.
    pub(crate) fn finish(&mut self, payment: Payment, step: Step) -> Result<(), Failure> {
        self.step(payment, step, true)
    }

    /// Takes a further step of a record that exists.
    pub(crate) fn advance(&mut self, payment: Payment, step: Step) -> Result<(), Failure> {
        self.step(payment, step, false)
    }

    fn step(&mut self, mut payment: Payment, step: Step, born: bool) -> Result<(), Failure> {
        payment.advance(step, self.now_ms).map_err(|error| Halt::Transition(payment.id, error))?;
        debug!(state = payment.state.as_str(), reason = payment.reason.map(Rejection::code), "decided");
        self.effects.outcomes.push(Outcome { payment: payment.id, state: payment.state });
        self.effects.verdict = Verdict::of(&payment);
        self.effects.changes.push(Change::Payment { payment: Box::new(payment), born });
        Ok(())
    }

    /// An event of the request, with nothing said yet about its outcome.
    pub(crate) fn event<'e>(&self, request: &Request<'e>, name: EventName) -> Event<'e> {
        let command = request.command;
        Event {
            name,
            payment: request.id,
            tenant: &command.tenant,
            wallet: &command.wallet,
            snapshot: None,
            kind: command.kind(),
            amount: command.amount().map_or(AmountEcho::None, |(amount, currency)| AmountEcho::Text { amount, currency }),
            at: self.at,
            key: &command.key,
            correlation: command.correlation.as_deref(),
            traceparent: command.traceparent.as_deref(),
            to: command.to(),
            from: None,
            reason: None,
            reference: command.reference.as_deref(),
            metadata: &command.metadata,
            source: request.source,
        }
    }

    /// Emits an event, as the next one of `wallet` if there is one, and writes the wallet.
    pub(crate) fn tell(&mut self, mut event: Event, wallet: Option<Wallet>) -> Result<(), Failure> {
        if let Some(mut wallet) = wallet {
            let wallet_seq = wallet.next_seq();
            event.snapshot =
                Some(Snapshot { wallet_seq, available: wallet.available(), held: wallet.held(), ledger: wallet.ledger() });
            self.effects.changes.push(Change::Wallet { wallet, born: event.name == EventName::WalletOpened });
        }
        self.effects.events.push(event.encode(&self.rules.prefix));
        Ok(())
    }

    /// Moves the balance of a system account of this partition.
    pub(crate) fn book(&mut self, kind: SystemAccount, by: Money) -> Result<(), Failure> {
        let mut account: Account = self.sight.account(kind, by.currency())?;
        let before = account.balance();
        account.post(by)?;
        self.effects.moved(before, account.balance())?;
        self.effects.changes.push(Change::Account(account));
        Ok(())
    }
}

/// The amount of a payment command, or the first of the two reasons that concern the amount alone.
///
/// With an unknown currency the exponent is unknown too; what is wrong under every exponent is still `amount_invalid`.
pub(crate) fn amount_of(amount: &str, currency: &str) -> Result<Money, Rejection> {
    let text = AmountText::parse(amount).ok_or(Rejection::AmountInvalid)?;
    if text.is_zero() {
        return Err(Rejection::AmountInvalid);
    }
    let Some(currency) = Currency::parse(currency) else {
        let is_some = |currency| AmountText::parse(amount).is_some_and(|text| Money::parse(text, currency).is_ok());
        return Err(if Currency::all().any(is_some) { Rejection::CurrencyUnknown } else { Rejection::AmountInvalid });
    };
    Money::parse(text, currency).map_err(|_| Rejection::AmountInvalid)
}

/// The amount as given, where FinFlow would print it otherwise: a rejection echoes it.
fn given_otherwise(given: &str, amount: Option<Money>) -> Option<Arc<str>> {
    let is_printed_so = amount.is_some_and(|amount| amount.text().as_str() == given);
    (!is_printed_so).then(|| Arc::from(given))
}
