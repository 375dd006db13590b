//! What an operator asks of a node besides its data: to check every row, and to take and read back snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use finflow_state::{RocksStore, Store, store};
use tracing::warn;

use super::{Node, ReadError};
use crate::checking::Checked;
use crate::committed::Committed;
use crate::lane::Message;
use crate::snapshots::SnapshotError;

/// How long a snapshot that was asked for waits for the stores to follow.
const STORED_WITHIN: Duration = Duration::from_secs(2);
const STORED_LOOK: Duration = Duration::from_millis(10);

impl Node {
    /// Reads every row of every partition that is here and checks the invariants; see [`Node::check_one`].
    pub async fn check(&self, snapshots: bool) -> Vec<Checked> {
        let mut checked = Vec::with_capacity(self.0.partitions.len());
        for partition in self.0.partitions.keys() {
            // One that runs elsewhere is left out.
            checked.extend(self.check_one(*partition, snapshots).await.ok());
        }
        checked
    }

    /// Reads every row of a partition and checks the invariants, on a copy that stands still while the engine runs; with `snapshots`,
    /// every snapshot of it too. A partition that is halted or cannot be read differs.
    ///
    /// # Errors
    /// It is elsewhere.
    pub async fn check_one(&self, partition: u32, snapshots: bool) -> Result<Checked, ReadError> {
        let node = self.clone();
        let found = tokio::task::spawn_blocking(move || node.check_partition(partition, snapshots)).await;
        found.unwrap_or_else(|error| Ok(differing(partition, format!("the check failed: {error}"))))
    }

    fn check_partition(&self, partition: u32, snapshots: bool) -> Result<Checked, ReadError> {
        let rows = match self.inspect(partition, |committed| Ok(committed.store())) {
            Err(elsewhere @ ReadError::Elsewhere(_)) => return Err(elsewhere),
            Err(cause) => Err(cause.to_string()),
            Ok(None) => Err("it is not open".to_owned()),
            Ok(Some(store)) => self.check_rows(partition, &store),
        };
        let mut checked = rows.unwrap_or_else(|difference| differing(partition, difference));
        if snapshots {
            self.check_snapshots(partition, &mut checked);
        }
        Ok(checked)
    }

    fn check_rows(&self, partition: u32, store: &RocksStore) -> Result<Checked, String> {
        self.0.carrier.check(partition, store).map_err(|error| {
            // A copy may be damaged on its way: whether the partition has to halt, its own rows say.
            let own = self.digest(partition).err().map(|own| own.to_string());
            own.unwrap_or_else(|| format!("its copy cannot be read: {error}"))
        })
    }

    /// Restores every snapshot of a partition into a scratch directory and reads its rows.
    fn check_snapshots(&self, partition: u32, checked: &mut Checked) {
        let mut whole = Vec::new();
        let carrier = &self.0.carrier;
        let names = carrier.snapshots.list(carrier.generation, partition).unwrap_or_else(|cause| {
            checked.differences.push(format!("the snapshots cannot be listed: {cause}"));
            Vec::new()
        });
        for name in names {
            match carrier.read_back(&name, &|| true) {
                Ok((_, found)) => {
                    whole.push(name.block);
                    checked.differences.extend(found.iter().map(|what| format!("snapshot {name}: {what}")));
                }
                Err(cause) => checked.differences.push(format!("snapshot {name}: {cause}")),
            }
        }
        checked.snapshots = Some(whole);
    }

    /// Takes a snapshot of every partition that is here and has moved since its last one; see [`Node::snapshot_one`].
    pub async fn snapshot(&self) -> Result<BTreeMap<u32, u64>, SnapshotError> {
        let mut blocks = BTreeMap::new();
        for partition in self.0.partitions.keys() {
            match self.snapshot_one(*partition).await {
                Err(SnapshotError::Elsewhere(_)) => {}
                taken => blocks.extend(taken?.map(|block| (*partition, block))),
            }
        }
        Ok(blocks)
    }

    /// Takes a snapshot of a partition if it has moved since its last one, and gives the block of its newest one. What is committed now
    /// is in it, unless the store is too far behind.
    pub async fn snapshot_one(&self, partition: u32) -> Result<Option<u64>, SnapshotError> {
        if self.0.partitions.get(&partition).is_some_and(|committed| self.is_elsewhere(&committed.condition())) {
            return Err(SnapshotError::Elsewhere(partition));
        }
        // Whether it followed in time or not, what it holds can be kept.
        let _ = stored(self.0.partitions.get(&partition), STORED_WITHIN).await;
        let node = self.clone();
        let taken = tokio::task::spawn_blocking(move || node.snapshot_partition(partition)).await;
        taken.unwrap_or_else(|error| Err(store::Error::Io(error.to_string()).into()))
    }

    fn snapshot_partition(&self, partition: u32) -> Result<Option<u64>, SnapshotError> {
        let carrier = &self.0.carrier;
        if let Some(store) = self
            .0
            .partitions
            .get(&partition)
            .filter(|committed| !self.is_elsewhere(&committed.condition()))
            .and_then(|committed| committed.store())
        {
            let taken = carrier.take(partition, &store, &self.0.log);
            if let Err(SnapshotError::Store(store::Error::Corrupt(cause))) = &taken {
                self.tell(partition, Message::Corrupt(partition, cause.clone()));
            }
            taken?;
        }
        carrier.newest(partition)
    }

    /// Waits until the stores hold what is committed now, which they follow a little behind; `false` at the deadline.
    pub async fn stored(&self, deadline: Duration) -> bool {
        stored(self.0.partitions.values(), deadline).await
    }

    /// The block of the newest snapshot of each partition that has one.
    pub fn newest_snapshots(&self) -> Result<BTreeMap<u32, u64>, SnapshotError> {
        let mut blocks = BTreeMap::new();
        for partition in self.0.partitions.keys() {
            blocks.extend(self.0.carrier.newest(*partition)?.map(|block| (*partition, block)));
        }
        Ok(blocks)
    }

    /// Takes the snapshots that are older than the interval, or missing after so long, until the carrier's end.
    pub(super) fn last_snapshots(&self) {
        let (settings, carrier) = (&self.0.settings, &self.0.carrier);
        let interval_ms = i64::try_from(settings.housekeeping.snapshot_interval.as_millis()).unwrap_or(i64::MAX);
        for (id, committed) in &self.0.partitions {
            let since_ms = carrier.newest_taken_ms(*id).unwrap_or(self.0.started_ms);
            let is_old = interval_ms <= settings.clock.now_ms().saturating_sub(since_ms);
            if !is_old || committed.running().is_none() || !carrier.goes_on() {
                continue;
            }
            if let Err(cause) = self.snapshot_partition(*id) {
                warn!(partition = *id, %cause, "no snapshot was taken");
            }
        }
    }
}

fn differing(partition: u32, difference: String) -> Checked {
    Checked { partition, differences: vec![difference], ..Checked::default() }
}

/// Waits until the stores of these partitions hold what is committed now; `false` at the deadline.
async fn stored(partitions: impl IntoIterator<Item = &Arc<Committed>>, deadline: Duration) -> bool {
    let partitions = partitions.into_iter().filter(|committed| committed.condition().halted.is_none());
    let wanted: Vec<_> = partitions.filter_map(|held| Some((held.store()?, held.condition().block))).collect();
    let holds = |store: &RocksStore, block: u64| store.head().is_some_and(|head| block <= head.number);
    let begun = Instant::now();
    while !wanted.iter().all(|(store, block)| holds(store, *block)) {
        if deadline <= begun.elapsed() {
            return false;
        }
        tokio::time::sleep(STORED_LOOK).await;
    }
    true
}
