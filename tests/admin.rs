//! The admin listener of a running service: what `/metrics` says is what the catalogues say, metric by metric.

use std::collections::BTreeMap;

use self::commands::open;
use self::http::get;
use self::service::{DEADLINE, Service, json};

#[path = "../actors/tests/support/commands.rs"]
mod commands;
#[path = "support/http.rs"]
mod http;
#[path = "process/service.rs"]
mod service;

/// What the lines of one kind (`HELP`, `TYPE`) say of each of our metrics.
fn told(exposed: &str, kind: &str) -> BTreeMap<String, String> {
    let lines = exposed.lines().filter_map(|line| line.strip_prefix(&format!("# {kind} ")));
    let words = lines.filter_map(|line| line.split_once(' ').map(|(name, rest)| (name.to_owned(), rest.to_owned())));
    words.filter(|(name, _)| name.starts_with("finflow_")).collect()
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
    let catalogue: BTreeMap<&str, &str> = catalogues.collect();
    for (name, kind) in &types {
        let help = catalogue.get(name.as_str()).unwrap_or_else(|| panic!("{name} is in no catalogue"));
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
