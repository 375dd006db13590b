//! Top-up from the treasury: the built-in partner that brings money in before a card or a bank exists.
//!
//! Entries: treasury of this partition -amount, wallet +amount. It settles at once; production profiles switch it off.

use finflow_ledger::{Rejection, Step, SystemAccount};

use super::command::{Deciding, Request, amount_of};
use crate::failure::Failure;
use crate::wire::v1::{AmountEcho, Event, EventName, Source};

/// The name of the built-in partner; a source without a partner means it too.
const TREASURY: &str = "treasury";

impl Deciding<'_> {
    pub(crate) fn top_up(&mut self, request: &Request, amount: &str, currency: &str, source: &Source) -> Result<(), Failure> {
        let own = self.own_wallet(request)?;
        let amount = match amount_of(amount, currency) {
            Ok(amount) => amount,
            Err(rejection) => return self.reject(request, own, rejection),
        };
        let Some(mut wallet) = own else { return self.reject(request, None, Rejection::WalletUnknown) };
        let before = wallet.ledger();
        let mut credited = wallet.clone();
        if let Err(rejection) = credited.top_up(amount) {
            return self.reject(request, Some(wallet), rejection);
        }
        let is_treasury = source.partner.as_deref().is_none_or(|partner| partner == TREASURY);
        if !is_treasury || !self.rules.treasury_enabled {
            return self.reject(request, Some(wallet), Rejection::NoRoute);
        }

        wallet = credited;
        self.effects.moved(before, wallet.ledger())?;
        self.book(SystemAccount::Treasury, amount.negated()?)?;
        self.finish(self.new_payment(request), Step::Settle)?;
        let event = Event { amount: AmountEcho::Money(amount), ..self.event(request, EventName::PaymentSettled) };
        self.tell(event, Some(wallet))
    }
}
