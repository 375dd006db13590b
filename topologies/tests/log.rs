//! The contract of the log, on the simulated one: with offsets that follow each other, and with gaps as on Kafka.

use std::sync::Arc;

use finflow_topologies::log::conformance::{Faulty, Harness, PARTITIONS, check, check_faults};
use finflow_topologies::log::simulated::{Fault, SimulatedLog};
use finflow_topologies::log::{Headers, Log};

struct Simulated(SimulatedLog);

impl Harness for Simulated {
    /// A process that starts finds the log as it is.
    fn open(&mut self) -> Arc<dyn Log> {
        Arc::new(self.0.clone())
    }
}

impl Faulty for Simulated {
    fn fail_next(&mut self, fault: Fault) {
        self.0.fail_next(Some(fault));
    }
}

#[test]
fn the_simulated_log_keeps_the_contract() {
    check(|| Simulated(SimulatedLog::new(PARTITIONS)));
    check(|| Simulated(SimulatedLog::new(PARTITIONS).with_gaps()));
}

#[test]
fn the_simulated_log_keeps_the_contract_when_it_fails() {
    check_faults(|| Simulated(SimulatedLog::new(PARTITIONS)));
    check_faults(|| Simulated(SimulatedLog::new(PARTITIONS).with_gaps()));
}

/// A name that was cut inside a character would make the records beside it unreadable.
#[test]
fn headers_that_are_cut_can_be_read_back() {
    for (name, kept) in [("é".repeat(40_000), 65_534), ("a".repeat(70_000), 65_535), ("a".repeat(10), 10)] {
        let headers = Headers::from_pairs([(&*name, &b"value"[..])]);
        let read = Headers::from_bytes(headers.as_bytes().clone()).expect("headers that are well formed");
        let names: Vec<usize> = read.iter().map(|(name, _)| name.len()).collect();
        assert_eq!((names, read.iter().next().map(|(_, value)| value)), (vec![kept], Some(&b"value"[..])));
    }
}
