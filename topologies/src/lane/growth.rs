//! How much a hand-over adds to the open epoch of its destination, before it is decided there: never less than it will.

use finflow_state::{Payments, Table};

use crate::partition::OpenEpoch;
use crate::wire::v1::PostingBody;

/// The longest row of a wallet in a block, in bytes: two ids and a holder of 140 characters.
const WALLET_BYTES: usize = 1024;
/// The longest row of a payment: five ids, a reference of 140 characters, and metadata of 16 pairs.
const PAYMENT_BYTES: usize = 24 * 1024;
/// Rows of fixed size that a posting changes, an account and a hold.
const ROWS_BYTES: usize = 256;
/// An event without its texts, or what a dead letter has besides its original.
const RECORD_BYTES: usize = 2 * 1024;

/// What is added to a block, and to events, postings and dead letters, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Growth {
    pub(super) block: usize,
    pub(super) records: usize,
}

impl Growth {
    /// What a posting adds to its destination's open epoch.
    pub(super) fn of(open: Option<&OpenEpoch>, body: &PostingBody) -> Growth {
        match body {
            PostingBody::Credit(credit) => {
                let is_changed = open.is_some_and(|open| open.overlay.wallets.get(&credit.to).is_some());
                let wallet = if is_changed { 0 } else { WALLET_BYTES };
                Growth { block: ROWS_BYTES + wallet, records: event(body.bytes()) }
            }
            PostingBody::Acknowledge { payment, .. } => {
                match open.and_then(|open| open.overlay.payments.get(payment)).flatten() {
                    Some(known) => Growth { block: ROWS_BYTES, records: event(Payments::size(payment, known)) },
                    None => Growth { block: PAYMENT_BYTES + WALLET_BYTES + ROWS_BYTES, records: event(PAYMENT_BYTES) },
                }
            }
            // A command: a payment's row, two wallets and two events, or a posting; else a dead letter.
            PostingBody::Forward { .. } => {
                let bytes = body.bytes();
                let block = bytes.saturating_add(2 * WALLET_BYTES).saturating_add(ROWS_BYTES);
                Growth { block, records: event(bytes).saturating_mul(2) }
            }
        }
    }

    pub(super) fn with(self, other: Growth) -> Growth {
        Growth { block: self.block.saturating_add(other.block), records: self.records.saturating_add(other.records) }
    }
}

/// An event that tells texts of so many bytes; in JSON a quotation mark takes two.
fn event(texts: usize) -> usize {
    texts.saturating_mul(2).saturating_add(RECORD_BYTES)
}
