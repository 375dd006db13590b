//! Nothing about a person leaves the service by accident: at the loudest level of logging, with everything going wrong, no log line,
//! metric or error quotes what a command says. What the spans of those lines do tell is enough to follow a payment.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use self::http::get;
use self::program::{Service, command, fed, json};

#[path = "support/http.rs"]
mod http;
#[path = "support/program.rs"]
mod program;

/// In holders, accounts, references, metadata, reasons, beneficiaries, headers and in what cannot be understood.
const CANARY: &str = "canary-7f3a";

/// Of the commands; it is no secret.
const CORRELATION: &str = "order-4711";
/// Spans along the data path, with what at least one of their name tells; an empty value stands for any.
const SPANS: [(&str, &[(&str, &str)]); 6] = [
    ("fetch", &[("partition", ""), ("topic", "commands"), ("offset", "")]),
    ("command", &[("partition", ""), ("offset", ""), ("payment", ""), ("wallet", "alice"), ("correlation_id", CORRELATION)]),
    // The credit, at the receiver's, and the answer, at home.
    ("posting", &[("partition", ""), ("offset", ""), ("payment", ""), ("wallet", "bob"), ("correlation_id", CORRELATION)]),
    ("posting", &[("partition", ""), ("offset", ""), ("payment", ""), ("wallet", "alice"), ("correlation_id", CORRELATION)]),
    ("commit", &[("lane", ""), ("epoch", "")]),
    ("store", &[("partition", ""), ("block", ""), ("offset", "")]),
];

/// The spans of a name in which something was logged.
fn spans(logs: &[String], name: &str) -> Vec<Value> {
    let lines = logs.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let spans = lines.flat_map(|mut line| line["spans"].as_array_mut().map(std::mem::take).unwrap_or_default());
    spans.filter(|span| span["name"] == name).collect()
}

fn tells(found: &Value, expected: &str) -> bool {
    if expected.is_empty() { !found.is_null() } else { found == expected }
}

fn commands() -> String {
    let lines = [
        r#"{"type":"open_wallet","tenant":"acme","idempotency_key":"o-1","wallet":"alice","currency":"AED","country":"AE","kind":"personal","holder":"CANARY holder","reference":"CANARY reference","metadata":{"note":"CANARY metadata"}}"#,
        r#"{"type":"open_wallet","tenant":"acme","idempotency_key":"o-2","wallet":"bob","currency":"AED","country":"AE","kind":"merchant","holder":"CANARY other"}"#,
        r#"{"type":"top_up","tenant":"acme","idempotency_key":"t-1","wallet":"alice","amount":"100","currency":"AED","source":{"account":"CANARY account"}}"#,
        r#"{"type":"top_up","tenant":"acme","idempotency_key":"t-2","wallet":"alice","amount":"100","currency":"AED","source":{"partner":"CANARY partner","account":"CANARY"}}"#,
        r#"{"type":"transfer","tenant":"acme","idempotency_key":"p-1","wallet":"alice","to":"bob","amount":"1","currency":"AED","reference":"CANARY","metadata":{"CANARY":"CANARY"}}"#,
        r#"{"type":"transfer","tenant":"acme","idempotency_key":"p-1","wallet":"alice","to":"bob","amount":"2","currency":"AED","reference":"CANARY again"}"#,
        r#"{"type":"transfer","tenant":"acme","idempotency_key":"p-2","wallet":"alice","to":"bob","amount":"1","currency":"CANARY"}"#,
        r#"{"type":"freeze_wallet","tenant":"acme","idempotency_key":"f-1","wallet":"alice","reason":"CANARY reason"}"#,
        r#"{"type":"payout","tenant":"acme","idempotency_key":"b-1","wallet":"alice","beneficiary":{"name":"CANARY beneficiary"}}"#,
        r#"{"type":"CANARY","wallet":"alice"}"#,
        r#"{"wallet":"alice","CANARY":"CANARY"}"#,
        r#"{"type":"transfer","tenant":"acme","idempotency_key":"p-3","wallet":"alice","to":"CANARY to","amount":"CANARY","currency":"AED"}"#,
        "CANARY is no JSON",
    ];
    lines.join("\n").replace("CANARY", CANARY)
}

#[test]
fn no_log_metric_or_error_quotes_a_person() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("data")).expect("a directory");
    let mut run = command(dir.path(), &["run", "--log-format", "json", "--admin", "127.0.0.1:0", "--set", "lanes=2"]);
    let mut service = Service::of(run.env("RUST_LOG", "trace").stderr(Stdio::piped()).spawn().expect("the program runs"));
    let stderr = BufReader::new(service.child.stderr.take().expect("a pipe"));
    let (found, address) = mpsc::channel();
    let (seen, is_stored) = mpsc::channel();
    let logs = std::thread::spawn(move || {
        let mut logs = Vec::new();
        // Its end comes with the service's.
        for line in stderr.lines().map_while(Result::ok) {
            let told: Value = serde_json::from_str(&line).expect("every log line is JSON");
            if let Some(address) = told["fields"]["address"].as_str() {
                found.send(address.to_owned()).expect("somebody waits for it");
            }
            if told["fields"]["message"] == "stored" {
                // Once is enough.
                let _ = seen.send(());
            }
            logs.push(line);
        }
        logs
    });
    service.until_it_answers(dir.path());

    let (secret, correlation) = (format!("x-secret={CANARY}"), format!("correlation-id={CORRELATION}"));
    let published =
        command(dir.path(), &["publish", "-", "--wait", "--format", "json", "--header", &secret, "--header", &correlation]);
    let output = fed(published, commands().as_bytes());
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let counts =
        ["settled", "rejected", "applied", "dead_lettered", "refused"].map(|name| told[name].as_u64().unwrap_or_default());
    assert_eq!(counts, [2, 3, 3, 4, 1], "everything happened that should: {told}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains(CANARY), "a refused line is named by its number");
    let raw = command(dir.path(), &["publish", "-", "--raw", "--key", CANARY, "--wait"]);
    assert!(fed(raw, format!("{{\"{CANARY}").as_bytes()).status.success());
    let dead = json(dir.path(), &["dlq", "list"]);
    assert_eq!(dead.len(), 5);
    assert!(dead.iter().all(|line| !line.to_string().contains(CANARY)), "messages name places and rules: {dead:?}");

    let address = address.recv_timeout(Duration::from_secs(60)).expect("the listener is logged");
    let metrics = get(&address, "/metrics") + &get(&address, "/readyz?verbose") + &get(&address, "/version");
    assert!(metrics.contains("finflow_epochs_total") && !metrics.contains(CANARY), "{metrics}");
    is_stored.recv_timeout(Duration::from_secs(60)).expect("what is committed reaches a store");
    drop(service);
    let logs = logs.join().expect("the logs end with the service");
    assert!(5 < logs.len() && logs.iter().any(|line| line.contains("\"level\":\"INFO\"")), "it logged: {logs:?}");
    for (name, told) in SPANS {
        let spans = spans(&logs, name);
        let tells_all = |span: &Value| told.iter().all(|(field, value)| tells(&span[*field], value));
        assert!(spans.iter().any(tells_all), "no span {name} tells {told:?}: {spans:?}");
    }
    assert_eq!(logs.into_iter().filter(|line| line.contains(CANARY)).collect::<Vec<_>>(), Vec::<String>::new());
}
