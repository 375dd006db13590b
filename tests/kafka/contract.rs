//! The contract's file on Kafka: published and read with foreign clients, and again with our own, with a service and without.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;

use crate::broker::Broker;
use crate::commands::COMMANDS;
use crate::process::{Process, Service, eventually};

/// What the contract says of them: wallet, event, amount and reason.
const EVENTS: [&str; 6] = [
    "alice payment.rejected 1000.00 insufficient_funds",
    "alice payment.settled 100.00 -",
    "alice payment.settled 12.50 -",
    "alice wallet.opened - -",
    "bob wallet.credited 12.50 -",
    "bob wallet.opened - -",
];
fn told(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
    format!("{} {} {} {}", text("wallet"), text("event"), text("amount"), text("reason"))
}

fn home(line: &str) -> String {
    serde_json::from_str::<Value>(line).expect("JSON")["wallet"].as_str().expect("a wallet").to_owned()
}

/// Publishes commands with the Java tool, keyed by their home wallet.
fn foreign_producer(broker: &Broker, lines: &[&str]) {
    let keyed: String = lines.iter().map(|line| format!("{}|{line}\n", home(line))).collect();
    let address = broker.address();
    let producer = ["org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", &address, "--topic", "finflow.commands.v1"];
    broker.tool(&[&producer[..], &["--property", "parse.key=true", "--property", "key.separator=|"]].concat(), &keyed);
}

/// The same with kcat, whose library is not Java's and has to be told how Java partitions.
fn other_foreign_producer(broker: &Broker, lines: &[&str]) {
    let keyed: String = lines.iter().map(|line| format!("{}|{line}\n", home(line))).collect();
    kcat(broker, &["-P", "-t", "finflow.commands.v1", "-K", "|", "-X", "topic.partitioner=murmur2_random"], &keyed);
}

/// What kcat prints.
fn kcat(broker: &Broker, arguments: &[&str], input: &str) -> String {
    let output = run_kcat(broker, arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn run_kcat(broker: &Broker, arguments: &[impl AsRef<OsStr>], input: &str) -> Output {
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", &broker.address()]).args(arguments);
    let kcat = kcat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut kcat = kcat.expect("kcat, which `make setup` installs");
    kcat.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("a reader");
    kcat.wait_with_output().expect("an end")
}

/// Everything committed in a topic, as kcat shows it: key, headers, value, partition, and of what kind its time is.
fn shown(broker: &Broker, topic: &str) -> Vec<Value> {
    let whole = ["-C", "-t", topic, "-o", "beginning", "-e", "-J", "-X", "isolation.level=read_committed"];
    kcat(broker, &whole, "").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Headers by name.
fn headers(record: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = record["headers"].as_array().cloned().unwrap_or_default();
    all.chunks(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

fn value(record: &Value) -> Value {
    serde_json::from_str(record["payload"].as_str().expect("a value")).expect("JSON")
}

/// Every event is keyed by its wallet and has the headers of CloudEvents, and a wallet's are numbered without a gap.
fn events_are_as_the_contract_says(broker: &Broker) {
    let records = shown(broker, "finflow.events.v1");
    assert_eq!(records.len(), EVENTS.len(), "{records:?}");
    let mut last = BTreeMap::new();
    for record in &records {
        let (event, headers) = (value(record), headers(record));
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        assert_eq!((record["key"].as_str(), &record["tstype"]), (Some(text("wallet")), &"logappend".into()), "{record}");
        for (name, expected) in [
            ("ce_specversion", "1.0"),
            ("ce_id", text("id")),
            ("ce_source", "finflow"),
            ("ce_type", &format!("finflow.{}.v1", text("event"))),
            ("ce_time", text("at")),
            ("ce_subject", text("wallet")),
            ("content-type", "application/json"),
            ("correlation-id", text("correlation_id")),
        ] {
            assert_eq!(headers.get(name).map(String::as_str), Some(expected), "{name} of {record}");
        }
        assert_eq!((text("tenant"), text("correlation_id")), ("acme", text("payment")), "{event}");
        let due = last.get(text("wallet")).map_or(0, |before: &Value| before["wallet_seq"].as_u64().expect("a number")) + 1;
        assert_eq!(event["wallet_seq"], due, "{event}");
        last.insert(text("wallet").to_owned(), event);
    }
    // What is told last of a wallet is what it has, or still holds.
    let balance = |wallet: &str| last[wallet]["balance"].clone();
    assert_eq!(balance("bob"), serde_json::json!({ "available": "12.50", "held": "0.00", "ledger": "12.50" }));
    assert_eq!(balance("alice")["available"], "87.50");
}

/// What cannot be understood is there as it came, with where it came from and why.
fn dead_letters_are_as_the_contract_says(broker: &Broker) {
    let records = shown(broker, "finflow.dlq.v1");
    let [record] = &records[..] else { panic!("one dead letter: {records:?}") };
    let line = COMMANDS.lines().last().expect("a line");
    assert_eq!((record["key"].as_str(), record["payload"].as_str()), (Some("alice"), Some(line)));
    let origin = shown(broker, "finflow.commands.v1").into_iter().find(|record| record["payload"] == line).expect("a command");
    let headers = headers(record);
    for (name, expected) in [
        ("x-error-code", "field_invalid".to_owned()),
        ("__streams.errors.topic", "finflow.commands.v1".to_owned()),
        ("__streams.errors.partition", origin["partition"].to_string()),
        ("__streams.errors.offset", origin["offset"].to_string()),
    ] {
        assert_eq!(headers.get(name), Some(&expected), "{name} of {record}");
    }
    for name in ["__streams.errors.exception", "__streams.errors.message"] {
        assert!(headers.get(name).is_some_and(|text| !text.is_empty()), "{name} of {record}");
    }
    assert_eq!((&record["ts"], &record["tstype"]), (&origin["ts"], &"create".into()), "it keeps its time");

    // Longer than a command may be, and longer than the topic takes.
    // With a header whose name is no text, which must stop nobody who reads it.
    let produce = |length: usize| {
        let long = "x".repeat(length);
        let arguments = ["-P", "-t", "finflow.commands.v1", "-K", "|", "-H"].map(OsStr::new).into_iter();
        let arguments: Vec<&OsStr> = arguments.chain([OsStr::from_bytes(b"\xffname=value")]).collect();
        let output = run_kcat(broker, &arguments, &format!("alice|{long}\n"));
        (long, output)
    };
    let (whole, taken) = produce(200 * 1024);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let (_, refused) = produce(300 * 1024);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Message size too large"), "{refused:?}");
    eventually(|| {
        let letters = shown(broker, "finflow.dlq.v1");
        let is_named = |letter: &Value| self::headers(letter).get("\u{fffd}name").is_some_and(|value| value == "value");
        let is_whole = letters.iter().any(|letter| letter["payload"].as_str() == Some(whole.as_str()) && is_named(letter));
        if is_whole && letters.len() == 2 { Ok(()) } else { Err(format!("{} dead letters", letters.len())) }
    });
}

pub(crate) fn the_contracts_file_gives_the_contracts_events(broker: &Broker) {
    let dir = tempfile::tempdir().expect("a directory");
    let address = broker.address();
    let process = Process::new(dir.path(), "one", &address, "finflow");
    let missing = process.finflow(&["topics", "check"]);
    assert_eq!(missing.status.code(), Some(1), "no topics yet");
    // Nobody listens there, and a client looks for a while.
    let nowhere = Process { brokers: "127.0.0.1:1", ..process };
    let unanswered = nowhere.command(&["check"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program runs");
    let mut unanswered = Service(unanswered);
    let unready = checked(&process, 78);
    assert!(unready.iter().any(|line| line.contains("failed topics") && line.contains("topics create")), "{unready:?}");
    for made in [5, 0] {
        let output = process.finflow(&["topics", "create"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), made);
    }
    assert!(process.finflow(&["topics", "check"]).status.success());
    let refused = process.finflow(&["run", "-X", "isolation.level=read_uncommitted"]);
    assert_eq!(refused.status.code(), Some(78), "{}", String::from_utf8_lossy(&refused.stderr));

    assert_eq!(unanswered.ended(), Some(75));
    let mut answer = String::new();
    unanswered.0.stdout.take().expect("a pipe").read_to_string(&mut answer).expect("text");
    assert!(answer.contains("check brokers") && answer.contains("start the brokers"), "{answer}");

    let service = process.run(2);
    // Until it has taken its partitions it says that it has not.
    eventually(|| match process.finflow(&["check"]) {
        found if found.status.success() => Ok(()),
        found => Err(String::from_utf8_lossy(&found.stdout).into_owned()),
    });
    let ready = checked(&process, 0);
    for what in ["data directory", "service", "brokers", "topics", "rights", "groups", "journal", "transactions", "clock"] {
        assert!(ready.iter().any(|line| line.starts_with(&format!("ok {what} "))), "{what}: {ready:?}");
    }
    let kept = ready.iter().any(|line| line.starts_with("ok positions kept for 3650 days"));
    assert!(kept, "as the script has the broker do it: {ready:?}");
    let lines: Vec<&str> = COMMANDS.lines().collect();
    let (first, second) = lines.split_at(3);
    foreign_producer(broker, first);
    // Two wallets are two keys: only who has seen the one opened may count on it.
    eventually(|| match process.finflow(&["wallet", "show", "bob"]).status.success() {
        true => Ok(()),
        false => Err(format!("bob has no wallet: {:?}", process.json(&["partitions"]))),
    });
    other_foreign_producer(broker, second);
    let consumer =
        ["org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", &address, "--topic", "finflow.events.v1"];
    let committed = ["--isolation-level", "read_committed", "--from-beginning", "--max-messages", "6", "--timeout-ms", "60000"];
    let seen = broker.tool(&[&consumer[..], &committed].concat(), "");
    let mut seen: Vec<String> = seen.lines().map(|line| told(&serde_json::from_str(line).expect("JSON"))).collect();
    seen.sort();
    assert_eq!(seen, EVENTS);
    events_are_as_the_contract_says(broker);
    dead_letters_are_as_the_contract_says(broker);

    // The same commands again, by our own producer, through the running service and then without one.
    let check = |is_frozen: bool| {
        let published = process.json(&["publish", COMMANDS_FILE, "--wait"]);
        assert_eq!((&published[0]["settled"], &published[0]["rejected"]), (&2.into(), &1.into()), "{published:?}");
        assert_eq!(process.events().len(), 6 + usize::from(is_frozen), "nothing is told twice");
        let wallet = process.json(&["wallet", "show", "alice"]);
        assert_eq!(
            (&wallet[0]["available"], &wallet[0]["held"], &wallet[0]["wallet_seq"]),
            (&"87.50".into(), &"0.00".into(), &4.into())
        );
        let verified = process.json(&["state", "verify"]);
        assert!(verified.iter().all(|partition| partition["differences"] == Value::Array(vec![])), "{verified:?}");
        let partitions = process.json(&["partitions"]);
        let is_done = |of: &Value| of["commands_lag"] == 0 && of["postings_lag"] == 0;
        assert!(partitions.iter().all(is_done), "{partitions:?}");
    };
    std::fs::write(dir.path().join(COMMANDS_FILE), COMMANDS).expect("a file");
    check(false);
    dead_letters_are_sent_again(broker, &process, service);
    check(true);
    its_positions_are_forgotten(&address, &process);
    check(true);
}

/// The lines of a check that ends with this code.
fn checked(process: &Process<'_>, code: i32) -> Vec<String> {
    let output = process.finflow(&["check", "--format", "json", "--admin", "127.0.0.1:0"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(code), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let lines = told.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.map(|line| ["status", "check", "seen", "cause", "remedy"].map(|name| text(&line, name)).join(" ")).collect()
}

/// What an operator sees and does where the application has stood still for longer than the broker keeps its offsets.
fn its_positions_are_forgotten(address: &str, process: &Process<'_>) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", address).create().expect("a client");
    // Not while it has a member that has not been missed yet.
    eventually(|| {
        let deleted = runtime.block_on(admin.delete_groups(&[process.prefix], &AdminOptions::new()));
        let refused = deleted.expect("an answer").into_iter().find_map(Result::err);
        refused.map_or(Ok(()), |refused| Err(format!("{refused:?}")))
    });
    let told = |arguments: &[&str], code: i32, expected: &str| {
        let output = process.finflow(&[arguments, &["--format", "json"]].concat());
        let (lines, errors) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {lines}{errors}");
        assert!(lines.contains(expected) || errors.contains(expected), "{arguments:?}: {lines}{errors}");
        lines
    };
    let resume = ["partitions", "resume", "--from-journal"];
    told(&resume, 1, "no service runs");
    let service = process.run(2);
    let halted = eventually(|| {
        let shown = process.finflow(&["partitions", "--format", "json"]);
        let lines = String::from_utf8_lossy(&shown.stdout).into_owned();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let (halted, others): (Vec<Value>, Vec<Value>) = lines.partition(|of| of["state"] == "halted");
        let is_well = |of: &Value| of["state"] == "running" && of["block"] == 0;
        if !halted.is_empty() && others.iter().all(is_well) { Ok(halted) } else { Err(format!("{halted:?} {others:?}")) }
    });
    let names_it = |of: &Value| of["cause"].as_str().is_some_and(|cause| cause.contains("resume --from-journal"));
    assert!(halted.iter().all(names_it), "{halted:?}");
    let first = halted[0]["partition"].to_string();
    told(&["partitions", "resume", &first], 1, "is halted again: no position is committed");
    let would = told(&["partitions", "resume", &first, "--from-journal", "--dry-run"], 0, "would go on");
    assert_eq!(would.lines().count(), 1, "{would}");
    let gone_on = told(&resume, 0, "resumed");
    assert_eq!(gone_on.lines().count(), 2 * halted.len(), "{gone_on}");
    assert!(gone_on.starts_with(&would.replace("would go on", "goes on")), "{gone_on} {would}");
    told(&resume, 1, "no partition is halted");
    told(&["partitions", "resume", &first, "--from-journal"], 1, "is not halted");
    drop(service);
}

/// A dead letter of an engine that could not understand what this one can; written, as everything there, with the Java tool.
fn dead_letters_are_sent_again(broker: &Broker, process: &Process<'_>, service: Service) {
    let address = broker.address();
    let producer = ["org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", &address, "--topic", "finflow.dlq.v1"];
    let parsed = [
        "--property",
        "parse.key=true",
        "--property",
        "parse.headers=true",
        "--property",
        "key.separator=|",
        "--property",
        "headers.delimiter=|",
    ];
    let headers = "correlation-id:c-7,__streams.errors.exception:finflow.Malformed,x-error-code:panicked";
    let frozen = r#"{"type":"freeze_wallet","tenant":"acme","idempotency_key":"f-1","wallet":"bob","reason":"lost"}"#;
    broker.tool(&[&producer[..], &parsed].concat(), &format!("{headers}|bob|{frozen}\n"));

    let listed = process.json(&["dlq", "list"]);
    let letter = listed.iter().find(|letter| letter["code"] == "panicked").expect("the letter");
    let place = letter["place"].as_str().expect("a place");
    assert_eq!(process.json(&["dlq", "show", place])[0]["headers"]["x-error-code"], "panicked");
    let (partition, _) = place.split_once(':').expect("a partition and an offset");
    let nowhere = process.finflow(&["dlq", "show", &format!("{partition}:1000")]);
    assert_eq!(nowhere.status.code(), Some(1), "{}", String::from_utf8_lossy(&nowhere.stderr));
    assert_eq!(process.json(&["dlq", "replay", place])[0]["verdict"], "accepted");

    let replay = ["dlq", "replay", "--code", "panicked"];
    let status = || process.json(&["wallet", "show", "bob"])[0]["status"].clone();
    let told = process.json(&replay);
    assert_eq!((&told[0]["verdict"], &told[0]["type"], status()), (&"accepted".into(), &"freeze_wallet".into(), "open".into()));
    let told = process.json(&[&replay[..], &["--yes"]].concat());
    assert_eq!((&told[1]["applied"], status()), (&1.into(), "frozen".into()), "{told:?}");
    let last = process.events().into_iter().find(|line| line["value"]["event"] == "wallet.frozen").expect("an event");
    assert_eq!(last["value"]["correlation_id"], "c-7");
    drop(service);
    let told = process.json(&[&replay[..], &["--yes"]].concat());
    assert_eq!((&told[0]["verdict"], &told[1]["applied"]), (&"duplicate".into(), &0.into()), "{told:?}");
}

const COMMANDS_FILE: &str = "payments.jsonl";
