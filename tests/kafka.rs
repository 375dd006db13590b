//! The engine on a real broker, as its users see it: topics, foreign producers and consumers, and processes that come and go.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use self::broker::Broker;

#[path = "../actors/tests/kafka_log/broker.rs"]
mod broker;

const COMMANDS: &str = r#"{"type":"open_wallet","tenant":"acme","idempotency_key":"o-1","wallet":"alice","currency":"AED","country":"AE","kind":"personal","holder":"Alice"}
{"type":"open_wallet","tenant":"acme","idempotency_key":"o-2","wallet":"bob","currency":"AED","country":"AE","kind":"merchant","holder":"Bob"}
{"type":"top_up","tenant":"acme","idempotency_key":"t-1","wallet":"alice","amount":"100","currency":"AED","source":{"account":"till"}}
{"type":"transfer","tenant":"acme","idempotency_key":"order-1","wallet":"alice","to":"bob","amount":"12.50","currency":"AED"}
{"type":"transfer","tenant":"acme","idempotency_key":"order-2","wallet":"alice","to":"bob","amount":"1000.00","currency":"AED"}
{"type":"transfer","tenant":"acme","idempotency_key":"order-3","wallet":"alice","to":"bob","amount":12.5,"currency":"AED"}
"#;
/// What the contract says of them: wallet, event, amount and reason.
const EVENTS: [&str; 6] = [
    "alice payment.rejected 1000.00 insufficient_funds",
    "alice payment.settled 100.00 -",
    "alice payment.settled 12.50 -",
    "alice wallet.opened - -",
    "bob wallet.credited 12.50 -",
    "bob wallet.opened - -",
];
const DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// One process of an application: a directory, a name, and the broker.
struct Process<'a> {
    dir: &'a Path,
    name: &'a str,
    brokers: &'a str,
}

impl Process<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_finflow"));
        command.args(arguments).arg("--data-dir").arg(self.dir.join(self.name)).current_dir(self.dir);
        command.args(["--log", "kafka", "--brokers", self.brokers, "--set", &format!("node.id={}", self.name)]);
        command.stdin(Stdio::null());
        command
    }

    fn finflow(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.finflow(&[arguments, &["--format", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
    }

    /// Starts a service and waits until it answers.
    fn run(&self, lanes: u32) -> Service {
        std::fs::create_dir_all(self.dir.join(self.name)).expect("a directory");
        let log = std::fs::File::create(self.dir.join(self.name).join("stderr.txt")).expect("a file");
        let lanes = format!("lanes={lanes}");
        let arguments = ["run", "--set", &lanes, "--set", "admin.listen=127.0.0.1:0"];
        let service = Service(self.command(&arguments).stderr(log).spawn().expect("the program runs"));
        let socket = self.dir.join(self.name).join("finflow.sock");
        eventually(|| match std::os::unix::net::UnixStream::connect(&socket) {
            Ok(_) => Ok(()),
            Err(error) => {
                let log = std::fs::read_to_string(self.dir.join(self.name).join("stderr.txt")).unwrap_or_default();
                Err(format!("{} does not answer: {error}\n{log}", self.name))
            }
        });
        service
    }

    fn events(&self) -> Vec<Value> {
        self.json(&["tail", "events", "--from", "beginning", "--exit-at-end"])
    }
}

/// A service that is killed when the test ends, however it ends.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks again until it is so, and says what was not at the deadline.
fn eventually<T>(mut ask: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(found) => return found,
            Err(cause) => assert!(begun.elapsed() < DEADLINE, "{cause}"),
        }
        std::thread::park_timeout(PAUSE);
    }
}

fn told(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
    format!("{} {} {} {}", text("wallet"), text("event"), text("amount"), text("reason"))
}

/// Publishes commands with the Java tool, keyed by their home wallet.
fn foreign_producer(broker: &Broker, lines: &[&str]) {
    let wallet = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["wallet"].as_str().expect("a wallet").to_owned();
    let keyed: String = lines.iter().map(|line| format!("{}|{line}\n", wallet(line))).collect();
    let address = broker.address();
    let producer = ["org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", &address, "--topic", "finflow.commands.v1"];
    broker.tool(&[&producer[..], &["--property", "parse.key=true", "--property", "key.separator=|"]].concat(), &keyed);
}

#[test]
fn the_contracts_file_gives_the_contracts_events_on_kafka() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(|_| vec![]);
    let address = broker.address();
    let process = Process { dir: dir.path(), name: "one", brokers: &address };
    let missing = process.finflow(&["topics", "check"]);
    assert_eq!(missing.status.code(), Some(1), "no topics yet");
    for made in [5, 0] {
        let output = process.finflow(&["topics", "create"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), made);
    }
    assert!(process.finflow(&["topics", "check"]).status.success());
    let refused = process.finflow(&["run", "-X", "isolation.level=read_uncommitted"]);
    assert_eq!(refused.status.code(), Some(78), "{}", String::from_utf8_lossy(&refused.stderr));

    let service = process.run(2);
    let lines: Vec<&str> = COMMANDS.lines().collect();
    let (first, second) = lines.split_at(3);
    foreign_producer(&broker, first);
    // Two wallets are two keys: only who has seen the one opened may count on it.
    eventually(|| match process.finflow(&["wallet", "show", "bob"]).status.success() {
        true => Ok(()),
        false => Err(format!("bob has no wallet: {:?}", process.json(&["partitions"]))),
    });
    foreign_producer(&broker, second);
    let consumer =
        ["org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", &address, "--topic", "finflow.events.v1"];
    let committed = ["--isolation-level", "read_committed", "--from-beginning", "--max-messages", "6", "--timeout-ms", "60000"];
    let seen = broker.tool(&[&consumer[..], &committed].concat(), "");
    let mut seen: Vec<String> = seen.lines().map(|line| told(&serde_json::from_str(line).expect("JSON"))).collect();
    seen.sort();
    assert_eq!(seen, EVENTS);

    // The same commands again, by our own producer, through the running service and then without one.
    let check = || {
        let published = process.json(&["publish", COMMANDS_FILE, "--wait"]);
        assert_eq!((&published[0]["settled"], &published[0]["rejected"]), (&2.into(), &1.into()), "{published:?}");
        assert_eq!(process.events().len(), 6, "nothing is told twice");
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
    check();
    drop(service);
    check();
}

const COMMANDS_FILE: &str = "payments.jsonl";

/// Wallets, transfers between them, and what each wallet begins with.
const WALLETS: usize = 40;
const TRANSFERS: usize = 4_000;

fn opened() -> String {
    let wallet = |n: usize| {
        let open = format!(
            r#"{{"type":"open_wallet","tenant":"acme","idempotency_key":"o","wallet":"w{n}","currency":"AED","country":"AE","kind":"personal","holder":"H"}}"#
        );
        let top_up = format!(
            r#"{{"type":"top_up","tenant":"acme","idempotency_key":"t","wallet":"w{n}","amount":"100","currency":"AED","source":{{"account":"till"}}}}"#
        );
        format!("{open}\n{top_up}\n")
    };
    (0..WALLETS).map(wallet).collect()
}

fn transfers() -> String {
    let transfer = |n: usize| {
        let (from, to) = (n % WALLETS, (n * 7 + 1) % WALLETS);
        format!(
            r#"{{"type":"transfer","tenant":"acme","idempotency_key":"k{n}","wallet":"w{from}","to":"w{to}","amount":"1.25","currency":"AED"}}"#
        ) + "\n"
    };
    (0..TRANSFERS).map(transfer).collect()
}

/// The partitions that a process runs.
fn running(process: &Process<'_>) -> Vec<u64> {
    let all = process.json(&["partitions"]);
    all.iter().filter(|of| of["state"] == "running").filter_map(|of| of["partition"].as_u64()).collect()
}

/// Waits until these processes together run every partition, each at least one.
fn all_run(processes: &[&Process<'_>]) {
    eventually(|| {
        let held: Vec<Vec<u64>> = processes.iter().map(|process| running(process)).collect();
        let mut all: Vec<u64> = held.iter().flatten().copied().collect();
        all.sort();
        let is_so = all == (0..8).collect::<Vec<u64>>() && held.iter().all(|held| !held.is_empty());
        if is_so { Ok(()) } else { Err(format!("the partitions run at {held:?}")) }
    });
}

#[test]
fn one_of_three_processes_is_killed_under_load_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(|_| vec![]);
    let address = broker.address();
    let process = |name| Process { dir: dir.path(), name, brokers: &address };
    let (one, two, three) = (process("one"), process("two"), process("three"));
    assert!(one.finflow(&["topics", "create"]).status.success());
    let services = [one.run(1), three.run(1)];
    let mut killed = two.run(1);
    all_run(&[&one, &two, &three]);
    std::fs::write(dir.path().join("opened.jsonl"), opened()).expect("a file");
    std::fs::write(dir.path().join("transfers.jsonl"), transfers()).expect("a file");
    one.json(&["publish", "opened.jsonl"]);
    let until = |count: usize| {
        eventually(|| match one.events().len() {
            found if count <= found => Ok(found),
            found => Err(format!("{found} of {count} events")),
        })
    };
    until(WALLETS * 2);
    one.json(&["publish", "transfers.jsonl"]);
    until(WALLETS * 2 + TRANSFERS / 10);
    let begun = Instant::now();
    killed.0.kill().expect("a process");
    all_run(&[&one, &three]);
    println!("taken over after {:.1} s", begun.elapsed().as_secs_f64());
    // A transfer ends in one event, and one more where it is settled: the auditor counts them, this waits for the last.
    let ended = |events: &[Value]| {
        events
            .iter()
            .filter(|line| {
                line["value"]["type"] == "transfer"
                    && line["value"]["event"].as_str().is_some_and(|event| event.starts_with("payment."))
            })
            .count()
    };
    eventually(|| match ended(&one.events()) {
        TRANSFERS => Ok(()),
        found => Err(format!("{found} of {TRANSFERS} transfers have ended")),
    });
    println!("all settled after {:.1} s", begun.elapsed().as_secs_f64());
    drop(killed);
    let again = two.run(1);
    all_run(&[&one, &two, &three]);
    one.json(&["publish", "transfers.jsonl"]);
    // Every partition has answered what came after the copies, and so the copies.
    let late = transfers().replace("\"k", "\"late-");
    let late: String = late.lines().take(WALLETS).map(|line| format!("{line}\n")).collect();
    std::fs::write(dir.path().join("late.jsonl"), late).expect("a file");
    one.json(&["publish", "late.jsonl"]);
    eventually(|| match ended(&one.events()) {
        found if found == TRANSFERS + WALLETS => Ok(()),
        found => Err(format!("{found} transfers have ended")),
    });
    let values =
        |events: Vec<Value>| -> Vec<Vec<u8>> { events.iter().map(|line| line["value"].to_string().into_bytes()).collect() };
    let is_quiet = || {
        let events = values(one.events());
        let audit = finflow_topologies::simulation::audit(events.iter().map(Vec::as_slice));
        match audit.sums.get("AED") {
            Some(sum) if *sum == WALLETS as i128 * 10_000 && audit.faults.is_empty() => Ok(()),
            _ => Err(format!("{:?}, {:?}", audit.sums, audit.faults)),
        }
    };
    eventually(is_quiet);
    let verified: Vec<Value> = [&one, &two, &three].iter().flat_map(|process| process.json(&["state", "verify"])).collect();
    assert!(verified.iter().all(|partition| partition["differences"] == Value::Array(vec![])), "{verified:?}");
    assert_eq!(verified.len(), 8, "every partition has been read where it runs");
    drop((again, services));
}
