//! Waiting for what becomes of commands, woken by the lanes rather than by asking again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use finflow_ledger::{Coordinates, PaymentId};

use super::Node;

/// A command that was published, for whoever waits until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Awaited {
    /// Where it stands in `commands`.
    pub at: Coordinates,
    /// The payment, or other command, whose record answers it; `None` = it leaves none.
    pub record: Option<PaymentId>,
}

impl Node {
    /// Waits until all of these commands are consumed and their payments have ended; `false` at the deadline. One that leaves no record
    /// after all, and one that another node decides, wakes nobody: whoever waits for such looks once in a while.
    pub async fn answered(&self, awaited: &[Awaited], deadline: Duration) -> bool {
        // Before the first look: what happens between a look and the wait behind it is not missed.
        let mut shown = self.0.waiters.shown();
        let waiting: Vec<_> =
            awaited.iter().filter_map(|command| command.record.map(|id| (id, self.0.waiters.wait(id)))).collect();
        let answered = async {
            let last = last_of(awaited);
            while !last.iter().all(|(partition, offset)| self.is_consumed(*partition, *offset)) {
                // The sender lives as long as the node.
                let _ = shown.changed().await;
            }
            for (id, mut waiter) in waiting {
                if !self.has_ended(id) {
                    waiter.ended().await;
                }
            }
        };
        tokio::time::timeout(deadline, answered).await.is_ok()
    }

    fn is_consumed(&self, partition: u32, offset: u64) -> bool {
        self.0.partitions.get(&partition).is_some_and(|committed| offset < committed.condition().commands_next)
    }

    /// Whether a payment is known to have ended. What cannot be read is waited for like what goes on.
    fn has_ended(&self, id: PaymentId) -> bool {
        self.payment(id).is_ok_and(|payment| payment.is_some_and(|payment| payment.state.is_terminal()))
    }
}

/// The last offset that is awaited in each partition.
fn last_of(awaited: &[Awaited]) -> BTreeMap<u32, u64> {
    let mut last = BTreeMap::new();
    for Awaited { at, .. } in awaited {
        let offset = last.entry(at.partition).or_insert(at.offset);
        *offset = at.offset.max(*offset);
    }
    last
}
