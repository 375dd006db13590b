//! A service whose clock is wrong when it starts: it says so where operators look, decides nothing, and goes on when it is told to.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use finflow_actors::{Clock, Node, Publish, Reading, Settings};

use self::http::get;
use self::service::{DEADLINE, Service, finflow, json};

#[path = "../actors/tests/support/engine.rs"]
mod engine;
#[path = "support/http.rs"]
mod http;
#[path = "process/service.rs"]
mod service;

/// How far the first node's clock is ahead of everybody's.
const AHEAD_MS: i64 = 3_600_000;

/// What `run` has by default, but for the clock.
fn settings(dir: &Path, clock: Clock) -> Settings {
    Settings { partitions: 8, lanes: 1, node_id: "finflow-1".to_owned(), clock, ..engine::settings(&dir.join("data")) }
}

fn ahead() -> Clock {
    let begun = Instant::now();
    let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as i64;
    Clock::new(move || {
        let monotonic_ms = begun.elapsed().as_millis() as i64;
        Reading { wall_ms: wall_ms + AHEAD_MS + monotonic_ms, monotonic_ms }
    })
}

fn open(wallet: &str) -> Publish {
    let rest = r#""type":"open_wallet","currency":"AED","country":"AE","kind":"personal","holder":"H""#;
    let value = format!(r#"{{"tenant":"acme","wallet":"{wallet}","idempotency_key":"open",{rest}}}"#);
    Publish { partition: None, key: Some(wallet.to_owned().into()), value: Some(value.into()), ..Publish::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_behind_the_log_is_told_and_nothing_is_decided_by_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = Node::start(settings(dir.path(), ahead())).await.expect("a node");
    node.publish(vec![open("before")]).await.expect("accepted");
    assert!(node.idle(DEADLINE).await);
    assert!(node.stop().await);
    drop(node);

    let mut service = Service::start(dir.path(), &[]);
    let client = service.expect_client().await;
    let address = service.admin_address().await;
    client.publish(vec![open("after")]).await.expect("accepted");
    assert_eq!(client.idle(Duration::from_millis(300)).await, Ok(false), "it waits");
    for path in ["/readyz", "/readyz?verbose"] {
        let answer = get(&address, path);
        let line = answer.lines().find(|line| line.starts_with("[-]clock ")).unwrap_or_default();
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("not ready\n"), "{answer}");
        assert!(line.contains("behind the newest committed block") && line.contains("clock.behind_max"), "{answer}");
    }
    assert!(get(&address, "/readyz?verbose").contains("[+]partition 0 ok"), "the partitions are not to blame");
    service.terminate();
    assert!(service.ended(DEADLINE).await.success(), "{}", service.logs());

    // Without a service nobody would wait for the clock.
    let line = open("refused").value.expect("a command");
    std::fs::write(dir.path().join("one.jsonl"), line).expect("a file");
    let refused = finflow(dir.path(), &["publish", "one.jsonl"]);
    assert_eq!(refused.status.code(), Some(75), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("wall clock"));

    // An operator knows better: it was the other clock that was wrong.
    let mut service = Service::start(dir.path(), &["clock.behind_max=2h"]);
    let client = service.expect_client().await;
    assert_eq!(client.idle(DEADLINE).await, Ok(true), "{}", service.logs());
    assert!(get(&service.admin_address().await, "/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(json(dir.path(), &["wallet", "list"]).len(), 2);
}
