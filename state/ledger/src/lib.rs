//! The ledger: money, wallets, holds, entries and the payment state machine, as pure values and functions.
//!
//! It decides what may happen to a balance. It does no I/O, reads no clock, uses no floats and does not panic on any input.

#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::float_arithmetic,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

pub use self::account::{Account, AccountRef, SystemAccount};
pub use self::country::Country;
pub use self::currency::Currency;
pub use self::ids::{IdempotencyKey, PaymentId, Tenant, WalletId};
pub use self::money::{AmountError, AmountText, Money, MoneyError, MoneyText};
pub use self::movement::{Entry, Movement, Unbalanced, is_conserved, trial_balance};
pub use self::payment::{CommandKind, Coordinates, IllegalTransition, Payment, PaymentState, Step};
pub use self::private::Private;
pub use self::rejection::Rejection;
pub use self::wallet::{
    BALANCE_MAX_MINOR, Hold, HoldError, Inconsistent, Opening, Wallet, WalletKind, WalletParts, WalletStatus,
};

mod account;
mod country;
mod currency;
mod ids;
mod money;
mod movement;
mod payment;
mod private;
mod rejection;
mod wallet;
