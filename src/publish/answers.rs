//! What became of the lines that were published: by the command's record, or by its dead letter.
//!
//! A line is answered once its partition has committed past its offset and, for a payment, once the payment has ended. The dead
//! letters are followed from where they ended when publishing began, so that waiting costs what was published and no more.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use finflow_actors::Awaited;
use finflow_ledger::{Coordinates, Payment, PaymentId, PaymentState};
use finflow_topologies::Topic;
use finflow_topologies::wire::v1::origin_of;

use crate::access::Access;
use crate::failure::Failure;

/// Records asked for at a time.
const RECORDS: usize = 2_000;
const FETCH_BYTES: usize = 1 << 20;
/// How long to wait to be woken before looking again: for what leaves no record, or moves from one process to another.
const PAUSE: Duration = Duration::from_millis(100);

/// A line that was sent.
pub(super) struct Sent {
    pub(super) at: Coordinates,
    /// The record that it will leave and its fingerprint; `None` = it cannot be understood, and will be dead-lettered.
    pub(super) record: Option<(PaymentId, [u8; 16])>,
    /// Whether it was sent where it belongs, and so is decided where it stands.
    pub(super) is_at_home: bool,
}

/// How lines ended.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    pub(crate) settled: u64,
    pub(crate) rejected: u64,
    pub(crate) applied: u64,
    pub(crate) dead_lettered: u64,
    /// Lines whose command had been carried out before, counted among the others too.
    pub(crate) duplicates: u64,
}

/// Follows what was sent until it is answered.
pub(super) struct Answers {
    waiting: BTreeMap<u32, VecDeque<Sent>>,
    dead: BTreeMap<u32, BTreeSet<u64>>,
    dead_next: Vec<u64>,
    pub(super) counts: Counts,
}

impl Answers {
    /// To be made before the first line is sent.
    pub(super) async fn new(access: &Access) -> Result<Answers, Failure> {
        let mut dead_next = Vec::new();
        for partition in 0..access.partitions_count().await? {
            dead_next.push(access.range(Topic::Dlq, partition).await?.end);
        }
        Ok(Answers { waiting: BTreeMap::new(), dead: BTreeMap::new(), dead_next, counts: Counts::default() })
    }

    pub(super) fn expect(&mut self, sent: impl IntoIterator<Item = Sent>) {
        for line in sent {
            self.waiting.entry(line.at.partition).or_default().push_back(line);
        }
    }

    /// Lines that are not answered yet.
    pub(super) fn unanswered(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// Waits until at most `rest` lines are unanswered; `false` if that takes longer than `patience`.
    pub(super) async fn wait_until(&mut self, access: &Access, rest: usize, patience: Duration) -> Result<bool, Failure> {
        let begun = Instant::now();
        loop {
            match self.look(access).await {
                // Somebody else's partition is on its way from one process to another.
                Err(Failure::Temporary(_)) => {}
                looked => looked?,
            }
            if self.unanswered() <= rest {
                return Ok(true);
            }
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            let awaited = self.awaited(self.unanswered() - rest);
            access.answered(&awaited, PAUSE.min(left)).await?;
        }
    }

    /// Some of the lines that are not answered yet, at most so many.
    fn awaited(&self, count: usize) -> Vec<Awaited> {
        let lines = self.waiting.values().flatten().take(count.min(RECORDS));
        lines.map(|line| Awaited { at: line.at, record: line.record.map(|(id, _)| id) }).collect()
    }

    async fn look(&mut self, access: &Access) -> Result<(), Failure> {
        // Positions first: whatever was committed up to them, dead letters too, can be read from then on.
        let mut consumed = BTreeMap::new();
        for status in access.status().await? {
            let is_expected = self.waiting.get(&status.partition).is_some_and(|waiting| !waiting.is_empty());
            if let Some(cause) = status.cause.filter(|_| is_expected) {
                return Err(Failure::Failed(format!("partition {} is halted: {cause}", status.partition)));
            }
            consumed.insert(status.partition, status.commands_next);
        }
        self.read_dead_letters(access).await?;
        for (partition, next) in consumed {
            let Some(waiting) = self.waiting.get_mut(&partition) else { continue };
            let decided = waiting.iter().take_while(|line| line.at.offset < next).count();
            let decided: Vec<Sent> = waiting.drain(..decided).collect();
            let mut unfinished = Vec::new();
            let answered = self.answer(access, decided, &mut unfinished).await;
            let waiting = self.waiting.entry(partition).or_default();
            unfinished.into_iter().rev().for_each(|line| waiting.push_front(line));
            answered?;
            let waiting = self.waiting.entry(partition).or_default();
            let first = waiting.front().map_or(next, |line| line.at.offset.min(next));
            if let Some(dead) = self.dead.get_mut(&partition) {
                *dead = dead.split_off(&first);
            }
        }
        Ok(())
    }

    async fn read_dead_letters(&mut self, access: &Access) -> Result<(), Failure> {
        for (partition, next) in (0_u32..).zip(self.dead_next.iter_mut()) {
            let end = access.range(Topic::Dlq, partition).await?.end;
            while *next < end {
                let fetched = access.fetch(Topic::Dlq, partition, *next, FETCH_BYTES).await?;
                for origin in fetched.records.iter().filter_map(|record| origin_of(&record.headers)) {
                    self.dead.entry(origin.partition).or_default().insert(origin.offset);
                }
                *next = fetched.next;
            }
        }
        Ok(())
    }

    /// Counts what has ended and puts aside what has not, all of it that could not be asked for included.
    async fn answer(&mut self, access: &Access, decided: Vec<Sent>, unfinished: &mut Vec<Sent>) -> Result<(), Failure> {
        let mut decided = decided.into_iter().peekable();
        while decided.peek().is_some() {
            let some: Vec<Sent> = decided.by_ref().take(RECORDS).collect();
            let ids = some.iter().filter_map(|line| line.record.map(|(id, _)| id)).collect();
            let records = match access.payments(ids).await {
                Ok(records) => records,
                Err(failure) => {
                    unfinished.extend(some.into_iter().chain(decided));
                    return Err(failure);
                }
            };
            for line in some {
                let is_dead = self.dead.get(&line.at.partition).is_some_and(|dead| dead.contains(&line.at.offset));
                if !self.counts.count(&line, is_dead, &records) {
                    unfinished.push(line);
                }
            }
        }
        Ok(())
    }
}

impl Counts {
    /// Counts a line that its partition has decided; `false` if its payment has not ended yet.
    fn count(&mut self, line: &Sent, is_dead: bool, records: &HashMap<PaymentId, Payment>) -> bool {
        if is_dead {
            self.dead_lettered += 1;
            return true;
        }
        let Some((id, fingerprint)) = line.record else { return false };
        match records.get(&id) {
            // A key that stands for another request.
            Some(payment) if payment.fingerprint != fingerprint => self.rejected += 1,
            Some(payment) => {
                match payment.state {
                    PaymentState::Settled => self.settled += 1,
                    PaymentState::Applied => self.applied += 1,
                    PaymentState::Rejected => self.rejected += 1,
                    _ => return false,
                }
                self.duplicates += u64::from(payment.source != line.at);
            }
            // Too old to be safe: refused, and no record left.
            None if line.is_at_home => self.rejected += 1,
            // It is on its way to where it belongs.
            None => return false,
        }
        true
    }
}
