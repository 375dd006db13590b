//! `finflow bench`: how many transfers a CPU-second carries out, how long one takes at a steady rate, and what it writes.
//!
//! Throughput: a backlog is published while no engine runs, then the engine is started and timed until it is idle, so that the
//! load's own cost stays outside. Latency: an open loop at a fixed rate, from the time a transfer was due to the time its end was
//! read. At the end an audit recomputes every balance from the events.

use std::time::{Duration, Instant};

use finflow_topologies::simulation::Audit;
use hdrhistogram::Histogram;
use serde_json::json;

use crate::access::configuration;
use crate::cli::{self, Common};
use crate::failure::Failure;
use crate::output::print;

mod embedded;
mod engine;
mod kafka;
mod load;
pub(crate) mod usage;

/// Commands that are published with one write.
const BATCH: usize = 5_000;
/// How often what is due is published in the latency phase.
const TICK: Duration = Duration::from_millis(1);
/// Seconds of the latency phase that are not measured: as many as Kafka Streams has to get warm (`benches/peers/compare`).
const WARM: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
const FETCH_BYTES: usize = 4 << 20;
const MIB: u64 = 1 << 20;

pub(crate) async fn bench(common: &Common, options: &cli::Bench) -> Result<(), Failure> {
    match configuration(common)?.topics.log {
        finflow_config::LogKind::Embedded => embedded::bench(common, options).await,
        finflow_config::LogKind::Kafka => kafka::bench(common, options).await,
    }
}

/// When each transfer of the latency phase is due.
#[derive(Clone, Copy)]
struct Schedule {
    /// The number of its first transfer.
    first: u64,
    begun: Instant,
    rate: u64,
}

impl Schedule {
    /// How many transfers must have been made by now, of a schedule that ends with number `last`.
    fn due_by(&self, now: Instant, last: u64) -> u64 {
        last.min(self.first + now.duration_since(self.begun).as_micros() as u64 * self.rate / 1_000_000)
    }

    /// How late `now` is for the transfer with this key, in microseconds; `None` while the engine warms up.
    fn late(&self, key: u64, now: Instant) -> Option<u64> {
        let due = Duration::from_micros(key.checked_sub(self.first)? * 1_000_000 / self.rate);
        let late = now.duration_since(self.begun).saturating_sub(due);
        (WARM <= due).then_some(u64::try_from(late.as_micros()).unwrap_or(u64::MAX))
    }
}

/// The number of the transfer that an event ends, found by text: the reader must not cost more than the engine.
fn ended(event: &[u8]) -> Option<u64> {
    const KEY: &str = "\"idempotency_key\":\"t";
    const ENDS: [&str; 2] = ["{\"event\":\"payment.settled\"", "{\"event\":\"payment.rejected\""];
    let event = std::str::from_utf8(event).ok().filter(|event| ENDS.iter().any(|end| event.starts_with(end)))?;
    let rest = event.get(event.find(KEY)? + KEY.len()..)?;
    rest.split('"').next()?.parse().ok()
}

/// Fails where fewer ends were measured than were due: it would be the slowest that the percentiles leave out.
fn have_all_ended(late: &Histogram<u64>, due: u64) -> Result<(), Failure> {
    if late.len() < due {
        return Err(Failure::Temporary(format!("only {} of {due} measured transfers have ended", late.len())));
    }
    Ok(())
}

/// What the audit of the events has found.
fn verdict(common: &Common, audit: &Audit) -> Result<(), Failure> {
    let events: u64 = audit.outcomes.values().sum();
    print(common, &json!({ "phase": "audit", "events": events, "outcomes": audit.outcomes, "faults": audit.faults.len() }))?;
    match audit.faults.first() {
        None => Ok(()),
        Some(fault) => Err(Failure::Difference(format!("the audit found {} differences: {fault}", audit.faults.len()))),
    }
}

fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_told_only_where_every_end_that_was_due_has_come() {
        for (came, due, is_told) in [(0, 0, true), (3, 3, true), (2, 3, false), (0, 3, false)] {
            let mut late = Histogram::new(3).expect("a histogram");
            late.saturating_record_n(1_000, came);
            let told = have_all_ended(&late, due).map_err(|failure| failure.to_string());
            assert_eq!(told.is_ok(), is_told, "{came} of {due}: {told:?}");
        }
        // So many are due after the warm seconds as the rate has it, whether or not a second divides by it.
        for rate in [1, 7, 1_400, 3_333] {
            let (first, begun, seconds) = (11, Instant::now(), 2);
            let schedule = Schedule { first, begun, rate };
            let all = first..first + (seconds + WARM.as_secs()) * rate;
            let measured = all.filter(|key| schedule.late(*key, begun).is_some()).count() as u64;
            assert_eq!(measured, seconds * rate, "at {rate}/s");
        }
    }
}
