//! A wallet: one currency of one holder. `ledger = available + held`, and none of the three is ever below zero.
//!
//! Every operation checks its guards in the order of [`Rejection`], then changes; on a refusal the wallet is as it was.

use crate::{Country, Currency, Money, Private, Rejection, Tenant, WalletId};

/// No balance grows past this many minor units, so that sums of balances always fit.
pub const BALANCE_MAX_MINOR: i128 = 1_000_000_000_000_000_000_000_000_000_000;

/// What a wallet may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalletStatus {
    /// Everything.
    Open,
    /// Neither pay nor be credited; what was held before may still be captured or released.
    Frozen,
    /// Nothing, for ever.
    Closed,
}

impl WalletStatus {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            WalletStatus::Open => "open",
            WalletStatus::Frozen => "frozen",
            WalletStatus::Closed => "closed",
        }
    }
}

/// Whose wallet it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalletKind {
    /// A person's.
    Personal,
    /// A merchant's.
    Merchant,
}

impl WalletKind {
    /// The kind with the contract's word.
    pub fn parse(text: &str) -> Option<WalletKind> {
        [WalletKind::Personal, WalletKind::Merchant].into_iter().find(|kind| kind.as_str() == text)
    }

    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            WalletKind::Personal => "personal",
            WalletKind::Merchant => "merchant",
        }
    }
}

/// Money reserved on a wallet: still in its ledger balance, no longer available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The wallet.
    pub wallet: WalletId,
    /// How much.
    pub amount: Money,
}

/// A hold that does not fit its wallet: an invariant is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// Another wallet's.
    #[error("the hold is of another wallet")]
    OtherWallet,
    /// More than the wallet holds.
    #[error("the hold is larger than what the wallet holds")]
    ExceedsHeld,
}

/// Stored balances that no sequence of operations gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("balances of wallet {0} are inconsistent")]
pub struct Inconsistent(pub WalletId);

/// What opens a wallet.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The wallet's id.
    pub id: WalletId,
    /// The tenant it belongs to.
    pub tenant: Tenant,
    /// Its currency, for ever.
    pub currency: Currency,
    /// The country of the holder.
    pub country: Country,
    /// Whose it is.
    pub kind: WalletKind,
    /// The holder.
    pub holder: Private,
}

/// A wallet taken apart, as stores and tests see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletParts {
    /// The wallet's id.
    pub id: WalletId,
    /// The tenant it belongs to.
    pub tenant: Tenant,
    /// Its currency.
    pub currency: Currency,
    /// The country of the holder.
    pub country: Country,
    /// Whose it is.
    pub kind: WalletKind,
    /// The holder.
    pub holder: Private,
    /// What it may do.
    pub status: WalletStatus,
    /// Minor units that can be spent.
    pub available: i128,
    /// Minor units held.
    pub held: i128,
    /// The number of its last event.
    pub seq: u64,
}

/// A wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wallet(WalletParts);

impl Wallet {
    /// A new, empty wallet that has told no event yet.
    pub fn open(opening: Opening) -> Wallet {
        let Opening { id, tenant, currency, country, kind, holder } = opening;
        let status = WalletStatus::Open;
        Wallet(WalletParts { id, tenant, currency, country, kind, holder, status, available: 0, held: 0, seq: 0 })
    }

    /// A stored wallet; refused where a balance is below zero or past its bound.
    pub fn from_parts(parts: WalletParts) -> Result<Wallet, Inconsistent> {
        let bounds = 0..=BALANCE_MAX_MINOR;
        let ledger = parts.available.checked_add(parts.held);
        let is_consistent = bounds.contains(&parts.available) && bounds.contains(&parts.held);
        if is_consistent && ledger.is_some_and(|ledger| bounds.contains(&ledger)) {
            return Ok(Wallet(parts));
        }
        Err(Inconsistent(parts.id))
    }

    /// Its parts.
    pub fn parts(&self) -> &WalletParts {
        &self.0
    }

    /// The wallet's id.
    pub fn id(&self) -> &WalletId {
        &self.0.id
    }

    /// The tenant it belongs to.
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }

    /// Its currency.
    pub fn currency(&self) -> Currency {
        self.0.currency
    }

    /// What it may do.
    pub fn status(&self) -> WalletStatus {
        self.0.status
    }

    /// What can be spent.
    pub fn available(&self) -> Money {
        self.money(self.0.available)
    }

    /// What is held.
    pub fn held(&self) -> Money {
        self.money(self.0.held)
    }

    /// Available and held together.
    pub fn ledger(&self) -> Money {
        // Both are bounded by BALANCE_MAX_MINOR, so the sum always fits.
        self.money(self.0.available.saturating_add(self.0.held))
    }

    /// The number of its last event; 0 before `wallet.opened`.
    pub fn seq(&self) -> u64 {
        self.0.seq
    }

    /// Counts one more event and gives its number. At 10^9 events a second it would take 584 years to run out.
    pub fn next_seq(&mut self) -> u64 {
        self.0.seq = self.0.seq.saturating_add(1);
        self.0.seq
    }

    /// Whether it may pay in `currency` at all.
    pub fn may_pay(&self, currency: Currency) -> Result<(), Rejection> {
        match self.0.status {
            WalletStatus::Closed => Err(Rejection::WalletClosed),
            WalletStatus::Frozen => Err(Rejection::WalletFrozen),
            WalletStatus::Open if self.0.currency != currency => Err(Rejection::CurrencyMismatch),
            WalletStatus::Open => Ok(()),
        }
    }

    /// Takes `amount` out of what is available.
    pub fn debit(&mut self, amount: Money) -> Result<(), Rejection> {
        let rest = self.rest_after(amount)?;
        self.0.available = rest;
        Ok(())
    }

    /// Holds `amount` until the other side has answered.
    pub fn hold(&mut self, amount: Money) -> Result<Hold, Rejection> {
        let rest = self.rest_after(amount)?;
        // What moves from available to held leaves the sum as it is, and the sum is bounded.
        self.0.available = rest;
        self.0.held = self.0.held.saturating_add(amount.minor());
        Ok(Hold { wallet: self.0.id.clone(), amount })
    }

    /// Credits the wallet as the home of a payment, as a top-up does.
    pub fn top_up(&mut self, amount: Money) -> Result<(), Rejection> {
        if !is_amount(amount) {
            return Err(Rejection::AmountInvalid);
        }
        self.may_pay(amount.currency())?;
        self.0.available = self.grown_by(amount).ok_or(Rejection::LimitExceeded)?;
        Ok(())
    }

    /// Credits the wallet as the other side of a payment.
    pub fn credit_from(&mut self, amount: Money) -> Result<(), Rejection> {
        if !is_amount(amount) {
            return Err(Rejection::AmountInvalid);
        }
        match self.0.status {
            WalletStatus::Closed => return Err(Rejection::CounterpartyClosed),
            WalletStatus::Frozen => return Err(Rejection::CounterpartyFrozen),
            WalletStatus::Open => {}
        }
        if self.0.currency != amount.currency() {
            return Err(Rejection::CounterpartyCurrencyMismatch);
        }
        self.0.available = self.grown_by(amount).ok_or(Rejection::LimitExceeded)?;
        Ok(())
    }

    /// Takes a hold out of the wallet for good; also when it is frozen.
    pub fn capture(&mut self, hold: &Hold) -> Result<(), HoldError> {
        self.0.held = self.held_after(hold)?;
        Ok(())
    }

    /// Makes a hold available again; also when the wallet is frozen.
    pub fn release(&mut self, hold: &Hold) -> Result<(), HoldError> {
        let rest = self.held_after(hold)?;
        self.0.held = rest;
        self.0.available = self.0.available.saturating_add(hold.amount.minor());
        Ok(())
    }

    /// Stops it from paying and being credited.
    pub fn freeze(&mut self) -> Result<(), Rejection> {
        match self.0.status {
            WalletStatus::Closed => return Err(Rejection::WalletClosed),
            WalletStatus::Frozen => return Err(Rejection::WalletFrozen),
            WalletStatus::Open => {}
        }
        self.0.status = WalletStatus::Frozen;
        Ok(())
    }

    /// Lets it pay and be credited again.
    pub fn unfreeze(&mut self) -> Result<(), Rejection> {
        match self.0.status {
            WalletStatus::Closed => return Err(Rejection::WalletClosed),
            WalletStatus::Open => return Err(Rejection::WalletNotFrozen),
            WalletStatus::Frozen => {}
        }
        self.0.status = WalletStatus::Open;
        Ok(())
    }

    /// Closes it for ever; only when nothing is held and nothing is left.
    pub fn close(&mut self) -> Result<(), Rejection> {
        match self.0.status {
            WalletStatus::Closed => return Err(Rejection::WalletClosed),
            WalletStatus::Frozen => return Err(Rejection::WalletFrozen),
            WalletStatus::Open => {}
        }
        if self.0.available != 0 || self.0.held != 0 {
            return Err(Rejection::BalanceNotZero);
        }
        self.0.status = WalletStatus::Closed;
        Ok(())
    }

    fn rest_after(&self, amount: Money) -> Result<i128, Rejection> {
        if !is_amount(amount) {
            return Err(Rejection::AmountInvalid);
        }
        self.may_pay(amount.currency())?;
        let rest = self.0.available.checked_sub(amount.minor()).filter(|rest| 0 <= *rest);
        rest.ok_or(Rejection::InsufficientFunds)
    }

    fn grown_by(&self, amount: Money) -> Option<i128> {
        let available = self.0.available.checked_add(amount.minor())?;
        let ledger = available.checked_add(self.0.held)?;
        (ledger <= BALANCE_MAX_MINOR).then_some(available)
    }

    fn held_after(&self, hold: &Hold) -> Result<i128, HoldError> {
        if hold.wallet != self.0.id || hold.amount.currency() != self.0.currency {
            return Err(HoldError::OtherWallet);
        }
        let rest = self.0.held.checked_sub(hold.amount.minor()).filter(|rest| 0 <= *rest && *rest < self.0.held);
        rest.ok_or(HoldError::ExceedsHeld)
    }

    fn money(&self, minor: i128) -> Money {
        Money::from_minor(minor, self.0.currency)
    }
}

fn is_amount(amount: Money) -> bool {
    !amount.is_zero() && !amount.is_negative()
}
