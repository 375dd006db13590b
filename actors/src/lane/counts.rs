//! What the epochs of a lane are counted as, once their outcome is certain: an epoch that was aborted counts as that and no more.
//! Owns the handles of its metrics, so that an epoch looks nothing up, and knows what an operator has not been told in the log yet.
//!
//! What a lane has not heard of before it dies is not counted, although the log has it: a metric may say less than there is, never more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ::metrics::{Counter, Histogram};
use finflow_topologies::Verdict;
use finflow_topologies::lane::Settled;
use tracing::warn;

use crate::metrics;

/// Between two reports of one kind of commands that were given up or sent on: a flood of them is none of lines.
const REPORT_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Counts {
    committed: Counter,
    aborted: Counter,
    inputs: Counter,
    commit_seconds: Histogram,
    verdicts: BTreeMap<Verdict, Counter>,
    /// By kind: when it was reported, and how many there have been since.
    reports: BTreeMap<Verdict, (Option<Instant>, u64)>,
}

impl Counts {
    /// Every count of a lane, so that each is there before it first counts.
    pub(super) fn new() -> Counts {
        Counts {
            committed: ::metrics::counter!(metrics::EPOCHS, "outcome" => "committed"),
            aborted: ::metrics::counter!(metrics::EPOCHS, "outcome" => "aborted"),
            inputs: ::metrics::counter!(metrics::INPUTS),
            commit_seconds: ::metrics::histogram!(metrics::COMMIT_SECONDS),
            verdicts: Verdict::all().map(|verdict| (verdict, counter(verdict))).collect(),
            reports: BTreeMap::new(),
        }
    }

    /// Counts an epoch that took so long from its close to its outcome.
    pub(super) fn take(&mut self, settled: &Settled, took: Duration) {
        let epochs = if settled.committed { &self.committed } else { &self.aborted };
        epochs.increment(1);
        self.inputs.increment(settled.inputs);
        self.commit_seconds.record(took);
        for (verdict, count) in &settled.verdicts {
            self.verdicts.entry(*verdict).or_insert_with(|| counter(*verdict)).increment(*count);
            if matches!(verdict, Verdict::Forwarded | Verdict::DeadLettered(_)) {
                let (_, since) = self.reports.entry(*verdict).or_default();
                *since = since.saturating_add(*count);
            }
        }
        for (verdict, (at, since)) in &mut self.reports {
            if 0 < *since && at.is_none_or(|at| REPORT_EVERY <= at.elapsed()) {
                report(*verdict, std::mem::take(since));
                *at = Some(Instant::now());
            }
        }
    }
}

/// Tells the operator what a producer should mend; which records they are, only the topics tell.
fn report(verdict: Verdict, count: u64) {
    match verdict {
        Verdict::Forwarded => warn!(count, "forwarded, as key or partition is not the home wallet's"),
        Verdict::DeadLettered(code) => warn!(count, code = code.as_str(), "dead-lettered"),
        _ => {}
    }
}

fn counter(verdict: Verdict) -> Counter {
    match verdict {
        Verdict::Settled => ::metrics::counter!(metrics::SETTLED),
        Verdict::Applied => ::metrics::counter!(metrics::APPLIED),
        Verdict::Rejected(reason) => ::metrics::counter!(metrics::REJECTED, "reason" => reason),
        Verdict::Duplicate => ::metrics::counter!(metrics::DUPLICATES),
        Verdict::Forwarded => ::metrics::counter!(metrics::FORWARDED),
        Verdict::DeadLettered(code) => ::metrics::counter!(metrics::DEAD_LETTERS, "code" => code.as_str()),
        Verdict::Escalated => ::metrics::counter!(metrics::ESCALATED),
    }
}
