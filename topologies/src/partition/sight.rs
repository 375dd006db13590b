//! What a decision can see: the open epoch, the epochs that are not yet in the store, the hot rows, the store. Newest first.

use std::borrow::Cow;
use std::sync::Arc;

use finflow_ledger::{Account, Currency, Hold, Payment, PaymentId, SystemAccount, Wallet, WalletId};
use finflow_state::{Accounts, Holds, Overlay, Payments, Store, Table, TimerKind, Timers, Wallets};

use super::hot::Hot;
use super::prefetch::Prefetch;
use crate::failure::Failure;
use crate::halt::Halt;

/// The overlays below the open one, newest first: committing, then committed but not yet in the store.
pub type Layers = Arc<[Arc<Overlay>]>;

pub(crate) struct Sight<'a> {
    pub(crate) open: &'a Overlay,
    pub(crate) layers: &'a [Arc<Overlay>],
    pub(crate) hot: &'a mut Hot,
    pub(crate) store: &'a dyn Store,
    /// What the store was asked already.
    pub(crate) prefetch: &'a Prefetch,
    pub(crate) key: &'a mut Vec<u8>,
}

impl Sight<'_> {
    pub(crate) fn wallet(&mut self, id: &WalletId) -> Result<Option<Wallet>, Failure> {
        let layered = std::iter::once(self.open).chain(self.layers.iter().map(Arc::as_ref));
        if let Some(row) = layered.map(|overlay| overlay.wallets.get(id)).find_map(|row| row) {
            return Ok(row.cloned());
        }
        self.key.clear();
        Wallets::encode_key(id, self.key);
        if let Some(wallet) = self.hot.wallet(id, self.key)? {
            return Ok(Some(wallet));
        }
        let Some(value) = row(self.store, self.prefetch, self.key)? else { return Ok(None) };
        Ok(Some(self.hot.keep_stored(id, self.key, &value)?))
    }

    pub(crate) fn payment(&mut self, id: PaymentId) -> Result<Option<Payment>, Failure> {
        let layered = std::iter::once(self.open).chain(self.layers.iter().map(Arc::as_ref));
        if let Some(row) = layered.map(|overlay| overlay.payments.get(&id)).find_map(|row| row) {
            return Ok(row.cloned());
        }
        stored::<Payments>(self.store, self.prefetch, self.key, &id)
    }

    pub(crate) fn hold(&mut self, id: PaymentId) -> Result<Option<Hold>, Failure> {
        let layered = std::iter::once(self.open).chain(self.layers.iter().map(Arc::as_ref));
        if let Some(row) = layered.map(|overlay| overlay.holds.get(&id)).find_map(|row| row) {
            return Ok(row.cloned());
        }
        stored::<Holds>(self.store, self.prefetch, self.key, &id)
    }

    /// What is due then for a payment; `None` where nothing is any more.
    pub(crate) fn timer(&mut self, due_ms: i64, payment: PaymentId) -> Result<Option<TimerKind>, Failure> {
        let key = (due_ms, payment);
        let layered = std::iter::once(self.open).chain(self.layers.iter().map(Arc::as_ref));
        if let Some(row) = layered.map(|overlay| overlay.timers.get(&key)).find_map(|row| row) {
            return Ok(row.copied());
        }
        stored::<Timers>(self.store, self.prefetch, self.key, &key)
    }

    /// A system account; one that was never posted to is empty.
    pub(crate) fn account(&mut self, kind: SystemAccount, currency: Currency) -> Result<Account, Failure> {
        let key = (kind, currency);
        let layered = std::iter::once(self.open).chain(self.layers.iter().map(Arc::as_ref));
        if let Some(row) = layered.map(|overlay| overlay.accounts.get(&key)).find_map(|row| row) {
            return Ok(Account::new(kind, currency, row.copied().unwrap_or_default()));
        }
        if let Some(balance) = self.hot.accounts.get(&key) {
            return Ok(Account::new(kind, currency, *balance));
        }
        let balance = stored::<Accounts>(self.store, self.prefetch, self.key, &key)?.unwrap_or_default();
        self.hot.accounts.insert(key, balance);
        Ok(Account::new(kind, currency, balance))
    }
}

fn stored<T: Table>(
    store: &dyn Store,
    prefetch: &Prefetch,
    buffer: &mut Vec<u8>,
    key: &T::Key,
) -> Result<Option<T::Value>, Failure> {
    buffer.clear();
    T::encode_key(key, buffer);
    let Some(bytes) = row(store, prefetch, buffer)? else { return Ok(None) };
    let value = T::decode(key, &bytes).map_err(|error| Halt::State(error.to_string()))?;
    Ok(Some(value))
}

/// A row of the store, which may have been asked for it already.
fn row<'a>(store: &dyn Store, prefetch: &'a Prefetch, key: &[u8]) -> Result<Option<Cow<'a, [u8]>>, Failure> {
    match prefetch.get(key) {
        Some(answer) => Ok(answer.map(Cow::Borrowed)),
        None => Ok(store.get(key)?.map(Cow::Owned)),
    }
}
