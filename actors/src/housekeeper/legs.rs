//! The oldest leg in transit of a partition, looked for some thousand holds at a time: there may be more than one look should read.

use finflow_ledger::{CommandKind, PaymentId};
use finflow_state::store;

use crate::committed::Committed;

/// How far the search has come. Holds are read in the order of their ids, which are hashes, and the oldest that was found so far is
/// looked at in each step: after as many steps as all holds take, it is the oldest there is.
#[derive(Default)]
pub(crate) struct Legs {
    after: Option<PaymentId>,
    oldest: Option<PaymentId>,
}

impl Legs {
    /// For how long the oldest transfer that was found has been held for a wallet of another partition, in ms; `None` where none is. Of the
    /// store at most `limit` holds are read. A partition that is halted is asked too: its epochs are in its store or above it, unless it
    /// could not be restored.
    pub(crate) fn oldest_ms(&mut self, committed: &Committed, limit: usize, now_ms: i64) -> Result<Option<u64>, store::Error> {
        let (mut held, last) = committed.held(self.after.as_ref(), limit)?;
        if let Some(known) = self.oldest.take().filter(|known| !held.contains(known))
            && committed.holds(&known)?
        {
            held.insert(known);
        }
        self.after = last;
        let mut oldest: Option<(i64, PaymentId)> = None;
        for id in held {
            let Some(payment) = committed.payment(id)? else { continue };
            let found = (payment.created_ms, id);
            if payment.kind == CommandKind::Transfer && oldest.is_none_or(|oldest| found < oldest) {
                oldest = Some(found);
            }
        }
        self.oldest = oldest.map(|(_, id)| id);
        Ok(oldest.map(|(created_ms, _)| u64::try_from(now_ms.saturating_sub(created_ms)).unwrap_or_default()))
    }
}
