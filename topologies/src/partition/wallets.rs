//! The wallet commands: open, freeze, unfreeze, close. They move no money.

use finflow_ledger::{Country, Currency, Opening, Private, Rejection, Step, Wallet, WalletKind};

use super::command::{Deciding, Request};
use crate::failure::Failure;
use crate::wire::v1::{AmountEcho, Event, EventName};

impl Deciding<'_> {
    pub(crate) fn open_wallet(
        &mut self,
        request: &Request,
        currency: &str,
        country: &str,
        kind: WalletKind,
        holder: &Private,
    ) -> Result<(), Failure> {
        let existing = self.sight.wallet(&request.command.wallet)?;
        let own = existing.clone().filter(|wallet| *wallet.tenant() == request.command.tenant);
        let Some(currency) = Currency::parse(currency) else { return self.reject(request, own, Rejection::CurrencyUnknown) };
        let Some(country) = Country::parse(country) else { return self.reject(request, own, Rejection::CountryUnknown) };
        if existing.is_some() {
            return self.reject(request, own, Rejection::WalletExists);
        }

        let wallet = Wallet::open(Opening {
            id: request.command.wallet.clone(),
            tenant: request.command.tenant.clone(),
            currency,
            country,
            kind,
            holder: holder.clone(),
        });
        self.applied(request, wallet, EventName::WalletOpened, None)
    }

    /// Applies `change` to the home wallet; its refusals come in the order of [`Rejection`].
    pub(crate) fn change_wallet(
        &mut self,
        request: &Request,
        reason: &str,
        name: EventName,
        change: fn(&mut Wallet) -> Result<(), Rejection>,
    ) -> Result<(), Failure> {
        let Some(mut wallet) = self.own_wallet(request)? else {
            return self.reject(request, None, Rejection::WalletUnknown);
        };
        match change(&mut wallet) {
            Ok(()) => self.applied(request, wallet, name, Some(reason)),
            Err(rejection) => self.reject(request, Some(wallet), rejection),
        }
    }

    fn applied(&mut self, request: &Request, wallet: Wallet, name: EventName, reason: Option<&str>) -> Result<(), Failure> {
        self.finish(self.new_payment(request), Step::Apply)?;
        let amount = AmountEcho::Currency(wallet.currency());
        let event = Event { reason, amount, ..self.event(request, name) };
        self.tell(event, Some(wallet))
    }
}
