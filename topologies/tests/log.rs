//! The contract of the log, on the simulated one: with offsets that follow each other, and with gaps as on Kafka.

use std::sync::Arc;

use finflow_topologies::log::Log;
use finflow_topologies::log::conformance::{Faulty, Harness, PARTITIONS, check, check_faults};
use finflow_topologies::log::simulated::{Fault, SimulatedLog};

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
