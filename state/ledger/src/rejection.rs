//! Rejections: business answers, recorded and returned. Neither an error nor a reason to retry.

use std::fmt;

macro_rules! rejections {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why a request was not carried out. The order of the variants is the order of precedence: of several reasons that
        /// apply, the first is given, and all that concerns the home wallet stands before all that concerns the other side.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rejection {
            $($(#[$doc])* $name,)*
        }

        impl Rejection {
            /// Every rejection, in order of precedence.
            pub const ALL: &[Rejection] = &[$(Rejection::$name,)*];

            /// The contract's word.
            pub fn code(self) -> &'static str {
                match self {
                    $(Rejection::$name => $code,)*
                }
            }
        }
    };
}

rejections! {
    /// Zero, too many decimals, or more than 10^15 minor units.
    AmountInvalid = "amount_invalid",
    /// No currency of ISO 4217 that can be held.
    CurrencyUnknown = "currency_unknown",
    /// No country of ISO 3166-1.
    CountryUnknown = "country_unknown",
    /// No such wallet, or another tenant's.
    WalletUnknown = "wallet_unknown",
    /// The wallet was opened before.
    WalletExists = "wallet_exists",
    /// The wallet is closed.
    WalletClosed = "wallet_closed",
    /// The wallet is frozen.
    WalletFrozen = "wallet_frozen",
    /// Only a frozen wallet can be unfrozen.
    WalletNotFrozen = "wallet_not_frozen",
    /// Only an empty wallet can be closed.
    BalanceNotZero = "balance_not_zero",
    /// The wallet holds another currency.
    CurrencyMismatch = "currency_mismatch",
    /// Payer and receiver are one.
    SameWallet = "same_wallet",
    /// A limit would be passed.
    LimitExceeded = "limit_exceeded",
    /// The quote has expired.
    QuoteExpired = "quote_expired",
    /// The quote was used before.
    QuoteUsed = "quote_used",
    /// The invoice is closed.
    InvoiceClosed = "invoice_closed",
    /// More than the rest of the invoice.
    OverPayment = "over_payment",
    /// The card is blocked.
    CardBlocked = "card_blocked",
    /// The authorization is closed.
    AuthorizationClosed = "authorization_closed",
    /// More than the refundable rest.
    RefundExceeds = "refund_exceeds",
    /// Too late to cancel.
    NotCancellable = "not_cancellable",
    /// Less is available than asked for.
    InsufficientFunds = "insufficient_funds",
    /// The other side's wallet is unknown.
    CounterpartyUnknown = "counterparty_unknown",
    /// The other side's wallet is closed.
    CounterpartyClosed = "counterparty_closed",
    /// The other side's wallet is frozen.
    CounterpartyFrozen = "counterparty_frozen",
    /// The other side's wallet holds another currency.
    CounterpartyCurrencyMismatch = "counterparty_currency_mismatch",
    /// No partner can carry it out.
    NoRoute = "no_route",
    /// The partner declined.
    PartnerDeclined = "partner_declined",
}

impl Rejection {
    /// The rejection with this word.
    pub fn from_code(code: &str) -> Option<Rejection> {
        Rejection::ALL.iter().copied().find(|rejection| rejection.code() == code)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_and_the_words_are_the_contracts() {
        let contract = "amount_invalid, currency_unknown, country_unknown, wallet_unknown, wallet_exists, wallet_closed, wallet_frozen, \
            wallet_not_frozen, balance_not_zero, currency_mismatch, same_wallet, limit_exceeded, quote_expired, quote_used, \
            invoice_closed, over_payment, card_blocked, authorization_closed, refund_exceeds, not_cancellable, insufficient_funds, \
            counterparty_unknown, counterparty_closed, counterparty_frozen, counterparty_currency_mismatch, no_route, partner_declined";
        let words: Vec<&str> = Rejection::ALL.iter().map(|rejection| rejection.code()).collect();
        assert_eq!(words.join(", "), contract);
        assert!(Rejection::ALL.is_sorted());
        for rejection in Rejection::ALL {
            assert_eq!(Rejection::from_code(rejection.code()), Some(*rejection));
        }
    }
}
