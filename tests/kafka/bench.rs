//! The benchmark on Kafka, as short as it gets: it tells what `benches/peers/compare` reads of it, and leaves no topic behind.

use serde_json::Value;

use crate::broker::Broker;
use crate::process::Process;

const FIGURES: [(&str, &[&str]); 4] = [
    (
        "throughput",
        &[
            "transfers_per_cpu_second",
            "transfers_per_second",
            "records_per_transfer",
            "bytes_per_transfer",
            "transactions_per_transfer",
            "rss_mib_max",
            "broker_cpu_seconds",
        ],
    ),
    ("latency", &["p50_ms", "p99_ms", "cpu_percent", "broker_cpu_percent"]),
    ("takeover", &["state_mib", "seconds_from_start"]),
    ("restore", &["rows_per_second"]),
];
/// As short as it gets with several transactions in what is measured.
const RUN: [&str; 13] = [
    "bench",
    "--wallets",
    "2000",
    "--warm",
    "200",
    "--transfers",
    "40000",
    "--rate",
    "200",
    "--seconds",
    "1",
    "--seed=7",
    "--processes=3",
];

pub(crate) fn it_is_measured(broker: &Broker) {
    let dir = tempfile::tempdir().expect("a directory");
    let brokers = broker.address();
    let process = Process::new(dir.path(), "bench", &brokers, "bench");
    let told = process.json(&[&RUN[..], &["--broker-pid", &broker.pid(1)]].concat());
    let phase = |name: &str| told.iter().find(|line| line["phase"] == name).unwrap_or_else(|| panic!("no {name}: {told:?}"));
    for (name, figures) in FIGURES {
        let found = phase(name);
        let missing: Vec<_> =
            figures.iter().filter(|figure| found[**figure].as_f64().is_none_or(|figure| figure <= 0.0)).collect();
        assert!(missing.is_empty(), "{missing:?} of {found}");
    }
    let steps = &phase("latency")["transaction_ms_mean"];
    assert!(["offsets", "records", "end"].iter().all(|step| steps[*step].as_f64().is_some_and(|ms| 0.0 < ms)), "{steps}");
    assert_eq!(phase("latency")["processes"], 3);
    assert_eq!(phase("latency")["measured"], 200, "a second at 200/s, and none is left out");
    assert_eq!(phase("audit")["faults"], Value::from(0), "{told:?}");
    let topics = broker.tool(&["org.apache.kafka.tools.TopicCommand", "--bootstrap-server", &brokers, "--list"], "");
    assert!(!topics.contains("bench-"), "{topics}");
}
