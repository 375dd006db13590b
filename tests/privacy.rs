//! Nothing about a person leaves the service by accident: at the loudest level of logging, with everything going wrong, no log line,
//! metric or error quotes what a command says.

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
    let logs = std::thread::spawn(move || {
        let mut logs = Vec::new();
        // Its end comes with the service's.
        for line in stderr.lines().map_while(Result::ok) {
            let told: Value = serde_json::from_str(&line).expect("every log line is JSON");
            if let Some(address) = told["fields"]["address"].as_str() {
                found.send(address.to_owned()).expect("somebody waits for it");
            }
            logs.push(line);
        }
        logs
    });
    service.until_it_answers(dir.path());

    let published =
        command(dir.path(), &["publish", "-", "--wait", "--format", "json", "--header", &format!("x-secret={CANARY}")]);
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
    drop(service);
    let logs = logs.join().expect("the logs end with the service");
    assert!(5 < logs.len() && logs.iter().any(|line| line.contains("\"level\":\"INFO\"")), "it logged: {logs:?}");
    assert_eq!(logs.into_iter().filter(|line| line.contains(CANARY)).collect::<Vec<_>>(), Vec::<String>::new());
}
