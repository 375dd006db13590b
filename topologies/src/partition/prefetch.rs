//! What a batch of inputs will ask for, fetched at once. Many keys together cost the store less than each by itself, and what rests in
//! memory at random places is waited for together.
//!
//! The store is asked when the batch begins, after its layers were taken: what reaches the store later is in these. So an answer is as good
//! as one that is asked for at the moment of the decision.

use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};

use finflow_ledger::PaymentId;
use finflow_state::{Payments, Store, Table, Wallets};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::Input;
use super::hot::Hot;
use crate::log::Record;
use crate::topics::{partition_of_wallet, payment_id};
use crate::wire::v1::{Command, Malformed, PostingBody, decode};

/// A command as it was understood, its id, and the partition where it is at home.
pub(crate) struct Understood {
    pub(crate) command: Command,
    pub(crate) id: PaymentId,
    pub(crate) home: u32,
}

/// Reads the record of a command to an application of so many partitions.
pub(crate) fn understand(record: &Record, partitions: u32) -> Result<Understood, Malformed> {
    let command = decode(record.value.as_deref(), &record.headers)?;
    let id = payment_id(&command.tenant, &command.wallet, &command.key);
    let home = partition_of_wallet(&command.wallet, partitions);
    Ok(Understood { command, id, home })
}

/// Answers of the store, for the keys of one batch: the payments and wallets of its commands, and the wallets that are credited. What else
/// is asked for is seldom in the store alone.
#[derive(Default)]
pub(crate) struct Prefetch {
    /// Wallets that are needed, in memory or not.
    wallets: Keys,
    keys: Keys,
    values: Vec<Option<Vec<u8>>>,
    /// Keys by their hash, as places in `keys`.
    places: HashTable<usize>,
    hash: RandomState,
}

/// One key behind the other, and where each ends.
#[derive(Default)]
struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Prefetch {
    /// Asks for what the inputs will need; gives the commands among them as they were understood, `None` for everything else. What
    /// cannot be read just now, or only with a panic, is left to the decision that needs it.
    pub(crate) fn fetch(
        &mut self,
        inputs: &[Input],
        (here, partitions): (u32, u32),
        hot: &Hot,
        store: &dyn Store,
    ) -> Vec<Option<Result<Understood, Malformed>>> {
        self.clear();
        let understood = inputs.iter().map(|input| {
            let Input::Command(record) = input else { return None };
            catch_unwind(AssertUnwindSafe(|| understand(record, partitions))).ok()
        });
        let understood: Vec<_> = understood.collect();
        for (input, understood) in inputs.iter().zip(&understood) {
            match (input, understood) {
                (_, Some(Ok(Understood { command, id, home }))) if *home == here => {
                    self.keys.push::<Payments>(id);
                    self.wallets.push::<Wallets>(&command.wallet);
                    let to = command.to().filter(|to| partition_of_wallet(to, partitions) == here);
                    to.into_iter().for_each(|to| self.wallets.push::<Wallets>(to));
                }
                (Input::Posting { posting, .. }, _) => {
                    if let PostingBody::Credit(credit) = &posting.body {
                        self.wallets.push::<Wallets>(&credit.to);
                    }
                }
                _ => {}
            }
        }
        // A hot row is only met: it is in a cache when it is needed.
        for place in hot.lacks((0..self.wallets.len()).map(|place| self.wallets.get(place))) {
            self.keys.copy(self.wallets.get(place));
        }
        self.ask(store);
        understood
    }

    /// What the store has said of this key; `None` where it was not asked.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let place = self.places.find(self.hash.hash_one(key), |place| self.keys.get(*place) == key)?;
        self.values.get(*place).map(Option::as_deref)
    }

    fn clear(&mut self) {
        self.wallets.clear();
        self.keys.clear();
        self.values.clear();
        self.places.clear();
    }

    fn ask(&mut self, store: &dyn Store) {
        let Prefetch { keys, values, places, hash, .. } = self;
        let asked: Vec<&[u8]> = (0..keys.len()).map(|place| keys.get(place)).collect();
        if asked.is_empty() {
            return;
        }
        let Ok(Ok(answers)) = catch_unwind(AssertUnwindSafe(|| store.get_many(&asked))) else { return };
        debug_assert_eq!(answers.len(), asked.len(), "an answer for each key");
        *values = answers;
        for (place, key) in asked.into_iter().enumerate() {
            // Two of the same have the same answer.
            places.insert_unique(hash.hash_one(key), place, |place| hash.hash_one(keys.get(*place)));
        }
    }
}

impl Keys {
    fn push<T: Table>(&mut self, key: &T::Key) {
        T::encode_key(key, &mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    fn copy(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, place: usize) -> &[u8] {
        let from = place.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        self.ends.get(place).and_then(|end| self.bytes.get(from..*end)).unwrap_or_default()
    }
}
