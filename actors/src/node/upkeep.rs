//! What an operator asks of a node besides its data: to check every row, and to take and read back snapshots.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use finflow_state::{RocksStore, Store, store};
use tracing::warn;

use super::Node;
use crate::checking::Checked;
use crate::lane::Message;
use crate::snapshots::SnapshotError;

/// How long a snapshot that was asked for waits for the stores to follow.
const STORED_WITHIN: Duration = Duration::from_secs(2);
const STORED_LOOK: Duration = Duration::from_millis(10);

impl Node {
    /// Reads every row of every partition and checks the invariants, on a copy that stands still while the engine runs; with
    /// `snapshots`, every snapshot too. A partition that is halted or cannot be read differs; one that runs elsewhere is left out.
    pub async fn check(&self, snapshots: bool) -> Vec<Checked> {
        let mut checked = Vec::with_capacity(self.0.partitions.len());
        let here = self.0.partitions.iter().filter(|(_, committed)| !self.is_elsewhere(&committed.condition()));
        for partition in here.map(|(id, _)| *id).collect::<Vec<_>>() {
            let node = self.clone();
            let found = tokio::task::spawn_blocking(move || node.check_partition(partition, snapshots)).await;
            let lost = |error: tokio::task::JoinError| Checked {
                partition,
                differences: vec![format!("the check failed: {error}")],
                ..Checked::default()
            };
            checked.push(found.unwrap_or_else(lost));
        }
        checked
    }

    fn check_partition(&self, partition: u32, snapshots: bool) -> Checked {
        let mut checked = self.check_rows(partition).unwrap_or_else(|difference| Checked {
            partition,
            differences: vec![difference],
            ..Checked::default()
        });
        if snapshots {
            self.check_snapshots(partition, &mut checked);
        }
        checked
    }

    fn check_rows(&self, partition: u32) -> Result<Checked, String> {
        let store = self.inspect(partition, |committed| Ok(committed.store())).map_err(|error| error.to_string())?;
        let store = store.ok_or("it is not open")?;
        self.0.carrier.check(partition, &store).map_err(|error| {
            // A copy may be damaged on its way: whether the partition has to halt, its own rows say.
            let own = self.digest(partition).err().map(|own| own.to_string());
            own.unwrap_or_else(|| format!("its copy cannot be read: {error}"))
        })
    }

    /// Restores every snapshot of a partition into a scratch directory and reads its rows.
    fn check_snapshots(&self, partition: u32, checked: &mut Checked) {
        let carrier = &self.0.carrier;
        let mut whole = Vec::new();
        match carrier.snapshots.list(carrier.generation, partition) {
            Err(cause) => checked.differences.push(format!("the snapshots cannot be listed: {cause}")),
            Ok(names) => {
                for name in names {
                    match self.0.carrier.read_back(&name) {
                        Ok(found) => {
                            whole.push(name.block);
                            checked.differences.extend(found.iter().map(|what| format!("snapshot {name}: {what}")));
                        }
                        Err(cause) => checked.differences.push(format!("snapshot {name}: {cause}")),
                    }
                }
            }
        }
        checked.snapshots = Some(whole);
    }

    /// Takes a snapshot of every partition that has moved since its last one, and gives the block of the newest one of each. What is
    /// committed now is in it, unless the stores are too far behind.
    pub async fn snapshot(&self) -> Result<BTreeMap<u32, u64>, SnapshotError> {
        // Whether they followed in time or not, what they hold can be kept.
        let _ = self.stored(STORED_WITHIN).await;
        let mut blocks = BTreeMap::new();
        for partition in self.0.partitions.keys().copied() {
            let node = self.clone();
            let taken = tokio::task::spawn_blocking(move || node.snapshot_partition(partition)).await;
            let lost = |error: tokio::task::JoinError| Err(store::Error::Io(error.to_string()).into());
            blocks.extend(taken.unwrap_or_else(lost)?.map(|block| (partition, block)));
        }
        Ok(blocks)
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
        let partitions = self.0.partitions.values().filter(|committed| committed.condition().halted.is_none());
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
