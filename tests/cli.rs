//! The command line as a user types it: publish, tail, show, verify, demo, mistakes.

use std::path::Path;
use std::process::{Output, Stdio};

use bytes::Bytes;
use finflow_actors::Clock;
use finflow_actors::log::embedded::EmbeddedLog;
use finflow_ledger::Coordinates;
use finflow_topologies::Topic;
use finflow_topologies::log::{Headers, Log, Outgoing, Record};
use finflow_topologies::topics::RECORD_BYTES_MAX;
use finflow_topologies::wire::v1::{Code, Malformed, dead_letter};
use serde_json::{Value, json};

use self::contract::COMMANDS;
use self::program::{Service, command, command_with_files, finflow, json};

#[path = "support/contract.rs"]
mod contract;
#[path = "support/program.rs"]
mod program;

#[test]
fn the_contracts_file_gives_the_contracts_events_and_balances_once() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("payments.jsonl"), COMMANDS).expect("a file");
    for duplicates in [0, 5] {
        let told = json(dir.path(), &["publish", "payments.jsonl", "--wait"]);
        let expected = r#"{"published":6,"refused":0,"settled":2,"rejected":1,"dead_lettered":1,"applied":2,"#;
        let expected = format!(r#"{expected}"duplicates":{duplicates},"unanswered":0}}"#);
        assert_eq!(told, vec![serde_json::from_str::<Value>(&expected).expect("JSON")]);
        let events = json(dir.path(), &["tail", "events", "--from", "beginning", "--exit-at-end"]);
        let mut told: Vec<String> = events
            .iter()
            .map(|line| {
                let event = &line["value"];
                let text = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
                let ledger = event["balance"]["ledger"].as_str().unwrap_or("-").to_owned();
                format!(
                    "{} {} {} {} {} {ledger}",
                    text("wallet"),
                    event["wallet_seq"],
                    text("event"),
                    text("amount"),
                    text("reason")
                )
            })
            .collect();
        told.sort();
        let expected = [
            "alice 1 wallet.opened - - 0.00",
            "alice 2 payment.settled 100.00 - 100.00",
            // Bob lives in another partition: while he has not answered, the 12.50 are held and still in the ledger balance.
            "alice 3 payment.rejected 1000.00 insufficient_funds 100.00",
            "alice 4 payment.settled 12.50 - 87.50",
            "bob 1 wallet.opened - - 0.00",
            "bob 2 wallet.credited 12.50 - 12.50",
        ];
        assert_eq!(told, expected);
        let wallet = json(dir.path(), &["wallet", "show", "alice"]);
        let expected = r#"[{"wallet":"alice","currency":"AED","status":"open","available":"87.50","held":"0.00","ledger":"87.50","wallet_seq":4}]"#;
        assert_eq!(Value::from(wallet), serde_json::from_str::<Value>(expected).expect("JSON"));
        assert_eq!(json(dir.path(), &["wallet", "list"]).len(), 2);
        let settled = events.iter().find(|line| line["value"]["idempotency_key"] == "order-1").expect("an event");
        let payment = settled["value"]["payment"].as_str().expect("an id").to_owned();
        let shown = json(dir.path(), &["payment", "show", &payment]);
        assert_eq!(
            (&shown[0]["status"], &shown[0]["to"], &shown[0]["amount"]),
            (&"settled".into(), &"bob".into(), &"12.50".into())
        );
        let verified = json(dir.path(), &["state", "verify"]);
        assert!(verified.iter().all(|partition| partition["differences"] == Value::Array(vec![])));
    }
    let partitions = json(dir.path(), &["partitions"]);
    assert!(
        partitions.iter().all(|partition| partition["commands_lag"] == 0 && partition["postings_lag"] == 0),
        "{partitions:?}"
    );
    let dead = json(dir.path(), &["tail", "dlq", "--from", "beginning", "--exit-at-end"]);
    let codes: Vec<&Value> = dead.iter().map(|line| &line["headers"]["x-error-code"]).collect();
    assert_eq!(codes, vec!["field_invalid", "field_invalid"], "each copy of what cannot be understood is kept");
}

#[test]
fn mistakes_have_their_exit_codes() {
    let dir = tempfile::tempdir().expect("a directory");
    let bad = "nonsense\n{\"wallet\":\"a b\"}\n{\"type\":\"transfer\"}\n";
    std::fs::write(dir.path().join("bad.jsonl"), bad).expect("a file");
    for (arguments, code, told) in [
        (&["frobnicate"][..], 2, "unrecognized"),
        (&["wallet", "list", "--format", "mermaid"], 2, "topology"),
        (&["wallet", "show", "alice"], 1, "holds no finflow data"),
        (&["payment", "show", "pay_x"], 2, "a payment id is pay_ and 26"),
        (&["publish", "missing.jsonl"], 1, "missing.jsonl"),
        (&["publish", "bad.jsonl"], 1, "line 2: no valid wallet"),
        (&["wallet", "show", "alice"], 1, "there is no wallet alice"),
        (&["wallet", "list", "--set", "topics.partitions=4"], 78, "8 partitions, 4 are configured"),
        (&["publish", "bad.jsonl", "--set", "lanes=9"], 78, "lanes"),
        (&["publish", "bad.jsonl", "--set", "lanse=9"], 78, "lanse"),
        (&["config", "check", "--set", "epoch.interval=10", "--set", "topics.partitions=0"], 78, "epoch.interval"),
    ] {
        let output = finflow(dir.path(), arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(told), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_service_that_has_nobody_to_hand_over_to_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let _service = Service::start(dir.path());
    let refused = finflow(dir.path(), &["leave"]);
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{errors}");
    assert!(errors.contains("nobody to hand over to"), "{errors}");
    assert_eq!(finflow(dir.path(), &["run", "--admin", "127.0.0.1:0"]).status.code(), Some(75), "it has the directory");
    assert_eq!(json(dir.path(), &["partitions"]).iter().filter(|of| of["state"] == "running").count(), 8);
}

#[test]
fn simulated_worlds_are_told_and_a_faulty_one_is_replayed() {
    let dir = tempfile::tempdir().expect("a directory");
    let told = json(dir.path(), &["simulate", "--seeds", "20", "--from", "5"]);
    assert_eq!((&told[0]["seeds"], &told[0]["failed"], &told[0]["faults"]), (&20.into(), &Value::Null, &Value::Array(vec![])));
    assert!(told[0]["counts"]["epochs"].as_u64().is_some_and(|epochs| 20 < epochs) && told[0]["counts"]["crashes"] != 0);

    // A bug on purpose is found by the first seeds, and by the seed that is named alone.
    let found = finflow(dir.path(), &["simulate", "--seeds", "200", "--planted", "event-twice"]);
    let (out, errors) = (String::from_utf8_lossy(&found.stdout), String::from_utf8_lossy(&found.stderr));
    assert_eq!(found.status.code(), Some(3), "{out}{errors}");
    assert!(out.contains("EventTwice: event evt_") && errors.contains("the same way again"), "{out}{errors}");
    let replay: Vec<&str> =
        errors.rsplit_once("`finflow ").map_or("", |(_, line)| line).trim_end().trim_end_matches('`').split(' ').collect();
    assert_eq!((replay.first(), replay.last()), (Some(&"simulate"), Some(&"event-twice")));
    let again = finflow(dir.path(), &replay);
    assert_eq!(again.status.code(), Some(3));
    let faults = |text: &str| text.lines().filter(|line| line.contains("Twice: ")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(faults(&String::from_utf8_lossy(&again.stdout)), faults(&out));

    for (arguments, told) in [
        (&["simulate", "--planted", "nothing"][..], "the bugs are dedup-skipped-on-replay"),
        (&["simulate", "--seeds", "0"], "0 is not in 1.."),
        (&["simulate", "--seed", "1", "--from", "2"], "cannot be used with"),
    ] {
        let output = finflow(dir.path(), arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && errors.contains(told), "{arguments:?}: {errors}");
    }
}

#[test]
fn the_demo_accounts_for_every_cent() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = finflow(dir.path(), &["demo", "--seconds", "2", "--rate", "1000", "--wallets", "300"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("every cent is accounted for (300 wallets"), "{told}");
}

#[test]
fn a_running_service_answers_and_survives_kills() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("data")).expect("a directory");
    std::fs::write(dir.path().join("payments.jsonl"), COMMANDS).expect("a file");
    for round in 1..=4_usize {
        let service = Service::start(dir.path());
        let told = json(dir.path(), &["publish", "payments.jsonl", "--wait"]);
        assert_eq!((&told[0]["settled"], &told[0]["dead_lettered"]), (&2.into(), &1.into()), "round {round}");
        assert_eq!(json(dir.path(), &["wallet", "show", "alice"])[0]["ledger"], "87.50");
        assert_eq!(json(dir.path(), &["tail", "events", "--from", "beginning", "--exit-at-end"]).len(), 6);
        assert_eq!(json(dir.path(), &["dlq", "list"]).len(), round);
        let verified = json(dir.path(), &["state", "verify"]);
        assert!(verified.iter().all(|partition| partition["differences"] == Value::Array(vec![])));
        drop(service);
    }
}

#[test]
fn operators_read_health_and_metrics() {
    use std::io::{BufRead, BufReader, Read, Write};
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = command(dir.path(), &["run", "--log-format", "json", "--set", "admin.listen=127.0.0.1:0"]);
    let mut service = Service::of(child.stderr(Stdio::piped()).spawn().expect("the program runs"));
    let mut logs = BufReader::new(service.child.stderr.take().expect("a pipe")).lines();
    let address = logs.find_map(|line| {
        let line: Value = serde_json::from_str(&line.expect("a line")).expect("every log line is JSON");
        line["fields"]["address"].as_str().map(str::to_owned)
    });
    let address = address.expect("the listener is logged");
    let get = |path: &str| {
        let mut stream = std::net::TcpStream::connect(&address).expect("a listener");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: finflow\r\nConnection: close\r\n\r\n").expect("a connection");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    assert!(get("/livez").starts_with("HTTP/1.1 200"), "also while it starts");
    assert!(logs.any(|line| line.expect("a line").contains("\"running\"")), "it runs");
    assert!(get("/readyz?verbose").contains("[+]partition 7 ok"));
    assert!(get("/version").contains(env!("CARGO_PKG_VERSION")));
    std::fs::write(dir.path().join("payments.jsonl"), COMMANDS).expect("a file");
    json(dir.path(), &["publish", "payments.jsonl", "--wait"]);
    let metrics = get("/metrics");
    assert!(
        metrics.contains("finflow_epochs_total{outcome=\"committed\"}")
            && metrics.contains("# HELP finflow_inputs_committed_total")
    );
    assert!(metrics.contains("finflow_commit_duration_seconds_bucket"));
}

/// Dead letters of an engine that could not understand what this one can: key, value, and how many days ago each was sent.
fn leave_letters(dir: &Path, partition: u32, rows: &[(&str, String, i64)]) {
    let log = EmbeddedLog::open(&dir.join("data/log"), 8).expect("nobody else has it");
    let malformed = Malformed { code: Code::Panicked, message: "it panicked".to_owned() };
    let now_ms = Clock::system().now_ms();
    let letters = (0_u64..).zip(rows).map(|(offset, (key, value, days))| {
        let bytes = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
        let headers = Headers::from_pairs([("correlation-id", &b"batch-7"[..])]);
        let timestamp_ms = now_ms - days * 86_400_000;
        let record = Record { offset, timestamp_ms, key: bytes(key), value: bytes(value), headers };
        dead_letter(&record, Coordinates { partition, offset }, &malformed, "finflow", now_ms)
    });
    let foreign = Outgoing { value: Some(Bytes::from_static(b"{}")), ..Outgoing::default() };
    log.append(Topic::Dlq, partition, letters.chain([foreign]).collect()).expect("a log");
}

#[test]
fn dead_letters_are_sent_again_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    std::fs::write(dir.join("payments.jsonl"), COMMANDS).expect("a file");
    json(dir, &["publish", "payments.jsonl", "--wait"]);
    let own = json(dir, &["dlq", "list"])[0]["place"].as_str().expect("a place").to_owned();
    let transfer = |key: &str, amount: &str| {
        format!(
            r#"{{"type":"transfer","tenant":"acme","idempotency_key":"{key}","wallet":"alice","to":"bob","amount":"{amount}","currency":"AED"}}"#
        )
    };
    // One partition holds nothing else: places are offsets there.
    let partition = (0..8).find(|partition| !own.starts_with(&format!("{partition}:"))).expect("another one");
    leave_letters(
        dir,
        partition,
        &[
            ("alice", transfer("order-9", "5.00"), 0),
            ("alice", transfer("order-9", "5.00"), 0),
            ("alice", transfer("order-1", "12.50"), 0),
            ("alice", transfer("order-1", "13"), 0),
            ("alice", transfer("order-8", "1"), 40),
            ("nobody", transfer("order-10", "2.5"), 30),
            ("alice", transfer("order-11", "900"), 0),
            ("alice", "x".repeat(RECORD_BYTES_MAX), 0),
        ],
    );
    let place = |offset: u64| format!("{partition}:{offset}");
    let verdicts = |told: &[Value]| -> Vec<String> {
        let letters = told.iter().filter(|line| line["place"].as_str().is_some_and(|at| at.starts_with(&place(0)[..2])));
        letters.map(|line| line["verdict"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let expected =
        ["accepted", "duplicate", "duplicate", "key_reused", "expired", "accepted", "accepted", "unsendable", "unsendable"];
    let alice = || json(dir, &["wallet", "show", "alice"])[0]["ledger"].clone();
    let events = || json(dir, &["tail", "events", "--from", "beginning", "--exit-at-end"]).len();

    let told = json(dir, &["dlq", "replay"]);
    assert_eq!(verdicts(&told), expected);
    assert_eq!(told.last(), Some(&json!({ "selected": 10, "accepted": 3, "duplicates": 2, "refused": 5 })));
    let own_letter = told.iter().find(|line| line["place"] == own.as_str()).expect("the letter of the contract's file");
    assert_eq!((&own_letter["verdict"], &own_letter["sent"]), (&"field_invalid".into(), &Value::Null));
    assert_eq!((alice(), events()), ("87.50".into(), 6), "nothing was sent");
    let of = |arguments: &[&str]| json(dir, &[&["dlq", "replay"], arguments].concat()).len() - 1;
    let number = partition.to_string();
    assert_eq!(of(&["--partition", &number, "--from", "2", "--to", "4"]), 3);
    assert_eq!((of(&["--code", "panicked"]), of(&["--code", "field_invalid"])), (8, 1));
    assert_eq!(of(&[&place(4), &own]), 2);

    // Through a service, those that are named; then, without one, all.
    let service = Service::start(dir);
    let told = json(dir, &["dlq", "replay", &place(0), &place(5), "--yes"]);
    let sent = told[0]["sent"].as_str().expect("a place").to_owned();
    assert_eq!((&told[2]["settled"], &told[2]["unanswered"]), (&2.into(), &0.into()), "{told:?}");
    assert_eq!((alice(), events()), ("80.00".into(), 10));
    let commands = json(dir, &["tail", "commands", "--from", "beginning", "--exit-at-end"]);
    let command = commands.iter().find(|line| format!("{}:{}", line["partition"], line["offset"]) == sent).expect("it is there");
    assert_eq!((&command["key"], &command["value"]["amount"]), (&"alice".into(), &"5.00".into()));
    let headers: Vec<&String> = command["headers"].as_object().expect("headers").keys().collect();
    assert_eq!(headers, ["correlation-id", "x-replayed-from", "x-replayed-timestamp"]);
    assert_eq!(command["headers"]["x-replayed-from"], format!("finflow.dlq.v1:{}", place(0)));
    drop(service);
    for (accepted, rejected) in [(1, 1), (0, 0)] {
        let output = finflow(dir, &["dlq", "replay", "--yes", "--format", "json"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && errors.contains("5 dead letters"), "{errors}");
        let last = program::lines(&output).pop().expect("a sum");
        assert_eq!((&last["accepted"], &last["rejected"], &last["settled"]), (&accepted.into(), &rejected.into(), &0.into()));
        assert_eq!((alice(), events()), ("80.00".into(), 11), "what has been sent has no second effect");
    }
    for (arguments, code, told) in [
        (&["dlq", "replay", "7:99"][..], 1, "there is no dead letter at 7:99"),
        (&["dlq", "replay", "--partition", "8"], 1, "there is no partition 8: they are 0 to 7"),
        (&["dlq", "replay", "--from", "8"], 2, "--partition"),
        (&["dlq", "replay", "1:1", "--partition", "1"], 2, "cannot be used with"),
    ] {
        let output = finflow(dir, arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && errors.contains(told), "{arguments:?}: {errors}");
    }
}

/// The lines of a check that ends with this code: status, what was looked at, and what was seen or is wrong.
fn checked(dir: &Path, arguments: &[&str], code: i32) -> Vec<String> {
    checked_of(&finflow(dir, &[&["check", "--format", "json"], arguments].concat()), code)
}

fn checked_of(output: &Output, code: i32) -> Vec<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    let told = program::lines(output);
    assert_eq!(output.status.code(), Some(code), "{told:?} {errors}");
    assert!(told.iter().all(|line| (line["status"] == "failed") == line["remedy"].is_string()), "{told:?}");
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    told.iter().map(|line| ["status", "check", "seen", "cause"].map(|name| text(line, name)).join(" ")).collect()
}

#[test]
fn check_says_what_is_not_ready_and_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let has = |told: &[String], what: &str| assert!(told.iter().any(|line| line.contains(what)), "{what}: {told:?}");
    let free = ["--admin", "127.0.0.1:0"];
    let told = checked(dir, &free, 0);
    has(&told, "ok data directory");
    has(&told, "is not there yet, and can be made");
    has(&told, "ok disk");
    has(&told, "ok open files");
    assert!(!dir.join("data").exists(), "it makes nothing");

    for (limit, code, told) in [(2_815, 78, "failed open files  2815 are allowed"), (2_816, 0, "ok open files 2816 are allowed")]
    {
        let mut few = command_with_files(limit, dir, &["check", "--format", "json", "--admin", "127.0.0.1:0"]);
        has(&checked_of(&few.output().expect("a shell"), code), told);
    }

    std::fs::write(dir.join("data"), "x").expect("a file");
    has(&checked(dir, &free, 78), "is no directory");
    std::fs::remove_file(dir.join("data")).expect("a file");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    has(&checked(dir, &["--admin", &address], 78), "in use");

    // Nobody listens at port 1.
    let bucket = ["url=s3://payments", "endpoint=http://127.0.0.1:1", "access_key_id=id", "secret_access_key=CANARY"];
    let bucket: Vec<String> = bucket.iter().map(|setting| format!("--set=snapshots.{setting}")).collect();
    let told = checked(dir, &[&free[..], &bucket.iter().map(String::as_str).collect::<Vec<_>>()].concat(), 75);
    has(&told, "failed snapshot bucket");
    assert!(!told.concat().contains("CANARY"), "{told:?}");
    let url = format!("--set=snapshots.url=file://{}", dir.join("snapshots").display());
    has(&checked(dir, &[&free[..], &[&url]].concat(), 0), "ok snapshot directory");

    std::fs::create_dir(dir.join("data")).expect("a directory");
    let service = Service::start(dir);
    has(&checked(dir, &["--admin", &address], 0), "ok service it runs, and 8 partitions");
    drop(service);
    let written = std::fs::read_dir(dir.join("data/log")).expect("a log").next().expect("a file").expect("an entry").path();
    let ahead = std::time::SystemTime::now() + std::time::Duration::from_secs(600);
    std::fs::File::options().append(true).open(written).and_then(|file| file.set_modified(ahead)).expect("a time");
    has(&checked(dir, &free, 75), "behind what the log has written");
}
