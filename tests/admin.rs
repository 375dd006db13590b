//! The admin listener of a running service: what `/metrics` says is what the catalogues say, metric by metric, and each decision is
//! counted once.

use std::collections::BTreeMap;

use finflow_actors::{Publish, metrics};
use finflow_topologies::topics::partition_of_key;

use self::commands::{command, open, top_up, transfer};
use self::http::get;
use self::service::{DEADLINE, Service, json};

#[path = "../actors/tests/support/commands.rs"]
mod commands;
#[path = "support/http.rs"]
mod http;
#[path = "process/service.rs"]
mod service;

/// As it is configured where nothing else is said.
const PARTITIONS: u32 = 8;

/// What the lines of one kind (`HELP`, `TYPE`) say of each of our metrics.
fn told(exposed: &str, kind: &str) -> BTreeMap<String, String> {
    let lines = exposed.lines().filter_map(|line| line.strip_prefix(&format!("# {kind} ")));
    let words = lines.filter_map(|line| line.split_once(' ').map(|(name, rest)| (name.to_owned(), rest.to_owned())));
    words.filter(|(name, _)| name.starts_with("finflow_")).collect()
}

/// What is told of one metric, by its labels; of a histogram, how often it was observed.
fn series<'a>(exposed: &'a str, name: &str) -> Vec<(BTreeMap<&'a str, &'a str>, u64)> {
    let labels = |words: &'a str| {
        let pairs = words.split(',').filter_map(|pair| pair.split_once('='));
        pairs.map(|(label, value)| (label, value.trim_matches('"'))).collect::<BTreeMap<_, _>>()
    };
    let row = |line: &'a str| {
        let (key, value) = line.rsplit_once(' ')?;
        let (found, words) = key.split_once('{').map_or((key, ""), |(found, words)| (found, words.trim_end_matches('}')));
        let is_meant = found == name || found.strip_suffix("_count") == Some(name);
        is_meant.then(|| (labels(words), value.parse::<f64>().expect("a number") as u64))
    };
    exposed.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect()
}

/// What each count of commands and payments is that is not 0, by name and what its one label says.
fn counted(exposed: &str) -> BTreeMap<String, u64> {
    let names = [
        metrics::SETTLED,
        metrics::APPLIED,
        metrics::REJECTED,
        metrics::DUPLICATES,
        metrics::FORWARDED,
        metrics::DEAD_LETTERS,
        metrics::ESCALATED,
    ];
    let rows = names.into_iter().flat_map(|name| {
        let rows = series(exposed, name);
        assert!(!rows.is_empty(), "{name} is there from the start");
        rows.into_iter().map(move |(labels, count)| {
            let label = labels.values().next().map_or(String::new(), |value| format!(" {value}"));
            (format!("{}{label}", name.trim_start_matches("finflow_").trim_end_matches("_total")), count)
        })
    });
    rows.filter(|(_, count)| 0 < *count).collect()
}

/// Sends a record to another partition than its key's.
fn misrouted(record: Publish) -> Publish {
    let home = partition_of_key(record.key.as_deref().unwrap_or_default(), PARTITIONS);
    Publish { partition: Some((home + 1) % PARTITIONS), ..record }
}

/// Commands, in this order, each with what it adds to the counts.
fn rows() -> Vec<(Publish, &'static [&'static str])> {
    let home = |name: &str| partition_of_key(name.as_bytes(), PARTITIONS);
    let wallet = |is_near: bool| (1..).map(|n| format!("w{n}")).find(|name| (home(name) == home("w0")) == is_near);
    let (near, far) = (wallet(true).expect("a name"), wallet(false).expect("a name"));
    vec![
        (open("w0"), &["wallet_commands_applied"]),
        (open(&near), &["wallet_commands_applied"]),
        (misrouted(open(&far)), &["commands_forwarded", "wallet_commands_applied"]),
        (top_up("w0", "top", "100"), &["payments_settled"]),
        (transfer("w0", "near", &near, "1"), &["payments_settled"]),
        (transfer("w0", "far", &far, "2"), &["payments_settled"]),
        (transfer("w0", "far", &far, "2"), &["commands_duplicate"]),
        (misrouted(transfer("w0", "far", &far, "2")), &["commands_forwarded", "commands_duplicate"]),
        (transfer("w0", "far", &far, "3"), &["commands_rejected key_reused"]),
        (transfer("w0", "much", &near, "1000"), &["commands_rejected insufficient_funds"]),
        (transfer("w0", "nobody", "nobody", "1"), &["commands_rejected counterparty_unknown"]),
        (command("w0", "poison", r#""type":"lend""#), &["dead_letters type_unknown"]),
        (misrouted(command("w0", "poison", r#""type":"lend""#)), &["dead_letters type_unknown"]),
        (Publish { value: None, ..open("w0") }, &["dead_letters value_missing"]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_command_is_counted_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut service = Service::start(dir.path(), &[]);
    let client = service.expect_client().await;
    let address = service.admin_address().await;
    assert_eq!(counted(&get(&address, "/metrics")), BTreeMap::new(), "all are there, and none has counted");
    let mut expected = BTreeMap::<String, u64>::new();
    for (record, adds) in rows() {
        client.publish(vec![record]).await.expect("accepted");
        assert_eq!(client.idle(DEADLINE).await, Ok(true), "{}", service.logs());
        adds.iter().for_each(|name| *expected.entry((*name).to_owned()).or_default() += 1);
        assert_eq!(counted(&get(&address, "/metrics")), expected, "after {adds:?}");
    }
    let logs = service.logs();
    assert!(logs.contains("dead-lettered") && logs.contains("forwarded, as"), "an operator is told in the log too: {logs}");
    service.kill();

    let mut service = Service::start(dir.path(), &[]);
    let client = service.expect_client().await;
    let address = service.admin_address().await;
    assert_eq!(client.idle(DEADLINE).await, Ok(true), "{}", service.logs());
    let exposed = get(&address, "/metrics");
    let replayed = series(&exposed, metrics::REPLAYED);
    assert!(replayed.iter().all(|(_, count)| 0 < *count), "blocks are replayed after a kill: {replayed:?}");
    assert_eq!(counted(&exposed), BTreeMap::new(), "what is replayed was counted before");
    let halts = series(&exposed, metrics::HALTS);
    assert!(halts.len() == PARTITIONS as usize && halts.iter().all(|(_, count)| *count == 0), "{halts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_what_the_catalogues_say() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut service = Service::start(dir.path(), &[]);
    let client = service.expect_client().await;
    let address = service.admin_address().await;
    client.publish(vec![open("w")]).await.expect("accepted");
    assert_eq!(client.idle(DEADLINE).await, Ok(true), "{}", service.logs());
    json(dir.path(), &["state", "snapshot"]);
    let exposed = get(&address, "/metrics");
    let (types, helps) = (told(&exposed, "TYPE"), told(&exposed, "HELP"));
    let catalogues = finflow_actors::metrics::CATALOGUE.into_iter().chain(finflow_state::metrics::CATALOGUE);
    let catalogue: BTreeMap<&str, (&[&str], &str)> = catalogues.map(|(name, labels, help)| (name, (labels, help))).collect();
    for (name, kind) in &types {
        let (labels, help) = catalogue.get(name.as_str()).unwrap_or_else(|| panic!("{name} is in no catalogue"));
        let rows = series(&exposed, name);
        assert!(
            !rows.is_empty() && rows.iter().all(|(found, _)| found.keys().copied().eq(labels.iter().copied())),
            "{name}: {rows:?}"
        );
        assert_eq!(helps.get(name).map(String::as_str), Some(*help), "{name}");
        let expected = match name {
            _ if name.ends_with("_total") => "counter",
            _ if name.ends_with("_duration_seconds") => "histogram",
            _ => "gauge",
        };
        assert_eq!(kind, expected, "{name}");
    }
    let of_kind = |kind: &str| types.values().filter(|found| *found == kind).count();
    let seen = [of_kind("counter"), of_kind("gauge"), of_kind("histogram")];
    assert!(seen.iter().all(|count| 2 <= *count), "counters, gauges, histograms: {seen:?} in {types:?}");
}
