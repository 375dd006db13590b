//! The engine on a cluster that knows its clients and grants them what they need and nothing else.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use finflow_actors::log::kafka::{KafkaLog, Settings};
use finflow_topologies::Topic;
use finflow_topologies::log::{Error, Log};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message};
use serde_json::Value;

use self::child::{PAUSE, Service};
use self::cluster::{Cluster, Properties, USERS};

#[path = "../../actors/tests/kafka_log/broker.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod broker;
mod certificates;
#[path = "../support/child.rs"]
mod child;
mod cluster;
mod roles;
mod taken;
mod together;

const DEADLINE: Duration = Duration::from_secs(60);
/// The engine's principal.
const ENGINE: &str = USERS[0].0;
/// How long a start that is refused may take.
const REFUSED_MAX: Duration = Duration::from_secs(20);
/// What every secret of these tests contains.
const CANARY: &str = "CANARY";

/// One process of the application: how it signs in, and where.
struct Process<'a> {
    dir: &'a Path,
    brokers: String,
    properties: Properties,
    more: Vec<String>,
}

impl Process<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_finflow"));
        command.args(arguments).args(["--log", "kafka", "--brokers", &self.brokers, "--set", "node.id=one"]);
        command.arg("--data-dir").arg(self.dir.join("data")).current_dir(self.dir).stdin(Stdio::null()).args(&self.more);
        command.args(self.properties.iter().flat_map(|(name, value)| ["-X".to_owned(), format!("{name}={value}")]));
        command
    }

    fn finflow(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// Starts a service that logs all it can, and waits until it answers.
    fn run(&self) -> Service {
        std::fs::create_dir_all(self.dir.join("data")).expect("a directory");
        let path = self.dir.join("stderr.txt");
        let log = std::fs::File::create(&path).expect("a file");
        let mut run = self.command(&["run", "--admin", "127.0.0.1:0"]);
        let child = run.env("RUST_LOG", "debug,rdkafka=trace").stderr(log).spawn().expect("the program runs");
        let service = Service(child);
        eventually(|| match std::os::unix::net::UnixStream::connect(self.dir.join("data/finflow.sock")) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("no answer: {error}\n{}", std::fs::read_to_string(&path).unwrap_or_default())),
        });
        service
    }
}

/// Asks again until it is so.
fn eventually<T>(ask: impl FnMut() -> Result<T, String>) -> T {
    child::eventually(DEADLINE, ask)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A client of somebody else's, as this user.
fn foreign(cluster: &Cluster, user: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.scram());
    for (name, value) in cluster.as_user(user) {
        config.set(name, value);
    }
    config
}

/// Sends commands as the producer of commands.
fn send(cluster: &Cluster, commands: &[&str]) {
    send_to(cluster, "finflow", commands);
}

/// The same to the application of this prefix.
fn send_to(cluster: &Cluster, prefix: &str, commands: &[&str]) {
    let topic = Topic::Commands.name(prefix);
    let mut config = foreign(cluster, "upstream");
    let producer: BaseProducer =
        config.set("enable.idempotence", "true").set("partitioner", "murmur2_random").create().expect("a client");
    for command in commands {
        let wallet = serde_json::from_str::<Value>(command).expect("JSON")["wallet"].as_str().expect("a wallet").to_owned();
        producer.send(BaseRecord::to(&topic).key(&wallet).payload(*command)).expect("a queue");
    }
    producer.flush(DEADLINE).expect("the commands are taken");
}

/// Reads events as the consumer of events until there are so many: wallet, event and amount.
fn events(cluster: &Cluster, count: usize) -> Vec<String> {
    let mut config = foreign(cluster, "downstream");
    config.set("group.id", "finflow-consumer").set("auto.offset.reset", "earliest").set("enable.auto.commit", "true");
    let consumer: BaseConsumer = config.create().expect("a client");
    consumer.subscribe(&["finflow.events.v1"]).expect("a subscription");
    let begun = Instant::now();
    let mut told = Vec::new();
    while told.len() < count {
        assert!(begun.elapsed() < DEADLINE, "{told:?}");
        let Some(record) = consumer.poll(PAUSE) else { continue };
        let record = record.expect("a record");
        let event: Value = serde_json::from_slice(record.payload().expect("a value")).expect("JSON");
        let text = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
        told.push(format!("{} {} {}", text("wallet"), text("event"), text("amount")));
    }
    told.sort();
    told
}

/// A process that signs in as this user, with these options besides.
fn signed_in<'a>(cluster: &Cluster, dir: &'a Path, user: &str, more: Vec<String>) -> Process<'a> {
    Process { dir, brokers: cluster.scram(), properties: cluster.as_user(user), more }
}

/// Who may do everything, with these options besides.
fn administrator<'a>(cluster: &Cluster, dir: &'a Path, more: Vec<String>) -> Process<'a> {
    Process { dir, brokers: cluster.plain(), properties: vec![], more }
}

/// Grants a part exactly what `finflow topics acls` prints.
fn grant(cluster: &Cluster, admin: &Process<'_>, role: &str, user: &str) {
    let printed = admin.finflow(&["topics", "acls", "--principal", &format!("User:{user}"), "--role", role]);
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    let printed = text(&printed.stdout);
    std::thread::scope(|scope| {
        for line in printed.lines().filter(|line| !line.starts_with('#')) {
            scope.spawn(|| cluster.kafka_acls(line));
        }
    });
}

/// Runs the service, which must end by itself in time with this code and one line that says this, and no secret.
fn refused(process: &Process<'_>, code: i32, says: &str) {
    let begun = Instant::now();
    let mut child = process.command(&["run", "--admin", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().expect("the program runs");
    let stderr = child.stderr.take().expect("a pipe");
    let reading = std::thread::spawn(move || std::io::read_to_string(stderr).expect("text"));
    let mut service = Service(child);
    let status = eventually(|| match service.0.try_wait().expect("a child") {
        Some(status) => Ok(status),
        None => Err(format!("still running, instead of saying {says:?}")),
    });
    let told = reading.join().expect("its end");
    let lines: Vec<&str> = told.lines().filter(|line| line.starts_with("finflow: ")).collect();
    println!("{:.1} s: {lines:?}", begun.elapsed().as_secs_f64());
    assert!(lines.len() == 1 && lines[0].contains(says), "{says:?} is not what it says: {told}");
    assert_eq!(status.code(), Some(code), "{told}");
    assert!(begun.elapsed() < REFUSED_MAX, "{:?}", begun.elapsed());
    assert!(!told.contains(CANARY), "{told}");
}

const OPENED: [&str; 3] = [
    r#"{"type":"open_wallet","tenant":"acme","idempotency_key":"o-1","wallet":"alice","currency":"AED","country":"AE","kind":"personal","holder":"Alice"}"#,
    r#"{"type":"open_wallet","tenant":"acme","idempotency_key":"o-2","wallet":"bob","currency":"AED","country":"AE","kind":"merchant","holder":"Bob"}"#,
    r#"{"type":"top_up","tenant":"acme","idempotency_key":"t-1","wallet":"alice","amount":"100","currency":"AED","source":{"account":"till"}}"#,
];
const BY_PASSWORD: &str = r#"{"type":"transfer","tenant":"acme","idempotency_key":"order-1","wallet":"alice","to":"bob","amount":"12.50","currency":"AED"}"#;
const BY_CERTIFICATE: &str = r#"{"type":"transfer","tenant":"acme","idempotency_key":"order-2","wallet":"bob","to":"alice","amount":"2.25","currency":"AED"}"#;
const BY_FILES: &str = r#"{"type":"transfer","tenant":"acme","idempotency_key":"order-3","wallet":"bob","to":"alice","amount":"0.75","currency":"AED"}"#;

#[test]
fn an_engine_with_the_least_privilege_settles_and_says_what_is_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let begun = Instant::now();
    let timed = |what: &str| println!("{:.1} s: {what}", begun.elapsed().as_secs_f64());
    let cluster = Cluster::start(dir);
    timed("the broker runs");
    let admin = administrator(&cluster, dir, vec![]);
    let made = admin.finflow(&["topics", "create"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    for (role, user) in [("engine", "finflow"), ("producer", "upstream"), ("consumer", "downstream"), ("trimmer", "trimmer")] {
        grant(&cluster, &admin, role, user);
    }
    timed("rights are granted");
    settles_through_both_listeners(&cluster, dir);
    timed("payments have settled");
    together::two_processes_are_one_application(&cluster, dir);
    timed("two processes are one application");
    taken::what_is_taken_away_is_waited_for(&cluster, dir);
    timed("what is taken away is waited for");
    the_engine_trims(&cluster, dir);
    timed("the engine trims");
    trims_by_its_own_principal(&cluster);
    timed("the journal is trimmed");
    strangers_are_refused(&cluster, dir);
    timed("strangers are refused");
    who_only_asks_is_told_what_he_lacks(&cluster, dir);
    timed("who only asks is told");
    runs_without_seeing_settings(&cluster, dir);
    timed("it runs without seeing settings");
    roles::people_work_through_it(&cluster, dir);
    timed("people work through it");
    tells_which_right_is_missing(&cluster, dir);
    timed("missing rights are told");
    roles::the_successor_watches(&cluster, dir);
    timed("the successor watches");
}

/// Writes a file that its owner alone may read.
fn keep_secret(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("a file");
}

fn settles_through_both_listeners(cluster: &Cluster, dir: &Path) {
    // The password lies in a file, as it should.
    let (user, password) = USERS[0];
    let mut properties = cluster.signs_in(user, password);
    properties.retain(|(name, _)| *name != "sasl.password");
    keep_secret(&dir.join("secret.toml"), &format!("[kafka]\n\"sasl.password\" = \"{password}\"\n"));
    let more = vec!["--config".to_owned(), "secret.toml".to_owned()];
    let by_password = Process { dir, brokers: cluster.scram(), properties, more };
    let shown = by_password.finflow(&["config", "show"]);
    assert!(text(&shown.stdout).contains("\"sasl.password\" = \"(hidden)\""), "{}", text(&shown.stdout));

    let begun = Instant::now();
    let timed = |what: &str| println!("    {:.1} s: {what}", begun.elapsed().as_secs_f64());
    let mut logs = String::new();
    let service = by_password.run();
    timed("by password, it runs");
    send(cluster, &OPENED);
    eventually(|| match by_password.finflow(&["wallet", "show", "bob"]).status.success() {
        true => Ok(()),
        false => Err("bob has no wallet".to_owned()),
    });
    timed("a wallet is there");
    send(cluster, &[BY_PASSWORD]);
    assert_eq!(
        events(cluster, 5),
        [
            "alice payment.settled 100.00",
            "alice payment.settled 12.50",
            "alice wallet.opened -",
            "bob wallet.credited 12.50",
            "bob wallet.opened -"
        ]
    );
    timed("the transfer is told");
    checks_what_it_may(cluster, &by_password);
    timed("what it may is checked");
    drop(service);
    logs += &std::fs::read_to_string(dir.join("stderr.txt")).expect("a file");

    for (properties, command, amount) in
        [(cluster.shows_certificate(), BY_CERTIFICATE, "2.25"), (cluster.shows_files(), BY_FILES, "0.75")]
    {
        let by_certificate = Process { dir, brokers: cluster.tls(), properties, more: vec![] };
        let service = by_certificate.run();
        timed("by certificate, it runs");
        send(cluster, &[command]);
        let expected = [format!("alice wallet.credited {amount}"), format!("bob payment.settled {amount}")];
        assert_eq!(events(cluster, 2), expected);
        drop(service);
        logs += &std::fs::read_to_string(dir.join("stderr.txt")).expect("a file");
    }
    assert!(logs.contains("running") && logs.contains("rdkafka"), "it logged");
    let leaks: Vec<&str> = logs.lines().filter(|line| line.contains(CANARY)).collect();
    assert!(leaks.is_empty() && !text(&shown.stdout).contains(CANARY), "{leaks:?}");
}

/// With exactly the engine's rights everything is looked at but how long positions are kept; who trims is one of its own.
fn checks_what_it_may(cluster: &Cluster, process: &Process<'_>) {
    let told = |more: &[&str], code: i32| {
        let output = process.finflow(&[&["check", "--format", "json"], more].concat());
        let (lines, errors) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{lines}{errors}");
        assert!(!lines.contains(CANARY) && !errors.contains(CANARY), "{lines}{errors}");
        lines
    };
    let lines = told(&[], 78);
    let missing = "not authorized: Delete on topic finflow.postings.v1, Delete on topic finflow.journal.v1";
    assert!(lines.contains(missing), "{lines}");
    let properties: Vec<String> =
        cluster.as_user("trimmer").iter().map(|(name, value)| format!("\"{name}\" = \"{value}\"\n")).collect();
    keep_secret(&process.dir.join("trims.toml"), &format!("[kafka.trim]\n{}", properties.concat()));
    let lines = told(&["--config", "trims.toml"], 0);
    for what in ["topics", "rights", "rights of the trimmer", "groups", "journal", "transactions", "clock"] {
        assert!(lines.contains(&format!(r#""status":"ok","check":"{what}""#)), "{what}: {lines}");
    }
    // The brokers' own settings are not the engine's to see.
    let unseen = "not authorized: DescribeConfigs on the cluster";
    let is_skipped =
        lines.lines().any(|line| line.contains(r#""status":"skipped","check":"positions""#) && line.contains(unseen));
    assert!(is_skipped, "{lines}");
}

/// The engine trims below its snapshots as the trimmer, and says what is missing where it has to do so as itself.
fn the_engine_trims(cluster: &Cluster, dir: &Path) {
    let snapshots = dir.join("shared");
    std::fs::create_dir_all(&snapshots).expect("a directory");
    let dir_setting = format!("snapshots.url=file://{}", snapshots.display());
    let settings = ["snapshots.shared=true", &dir_setting, "snapshots.interval=200ms", "snapshots.trim_interval=300ms"];
    let more: Vec<String> = settings.iter().flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()]).collect();
    let trimmer = ["--config".to_owned(), "trims.toml".to_owned()];
    let mut keys = 0;
    let missing = "not authorized: Delete on topic finflow.journal.v1";
    for (more, says) in [(more.clone(), missing), ([&more[..], &trimmer].concat(), "trimmer: trimmed topic=journal")] {
        let process = signed_in(cluster, dir, ENGINE, more);
        let service = process.run();
        eventually(|| {
            keys += 1;
            let command = OPENED[2].replace("t-1", &format!("trims-{keys}"));
            send(cluster, &[&command]);
            let logged = std::fs::read_to_string(dir.join("stderr.txt")).expect("a file");
            if logged.contains(says) { Ok(()) } else { Err(format!("{says:?} is not told: {logged}")) }
        });
        drop(service);
    }
}

/// The engine's principal may not delete what it has written; the trimmer may, and nothing else.
fn trims_by_its_own_principal(cluster: &Cluster) {
    let owned = |properties: Properties| properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let settings = Settings { properties: owned(cluster.as_user(ENGINE)), ..Settings::new(&cluster.scram(), "finflow") };
    let trims = Settings { trim_properties: owned(cluster.as_user("trimmer")), ..settings.clone() };
    let log = KafkaLog::open(settings).expect("the log");
    let refused = log.trim(Topic::Journal, 0, u64::MAX);
    assert!(
        matches!(&refused, Err(Error::Forbidden(cause)) if cause.contains("Delete on topic finflow.journal.v1")),
        "{refused:?}"
    );
    let log = KafkaLog::open(trims).expect("the log");
    // Wherever it begins by now.
    let next = log.range(Topic::Journal, 0).expect("a range").start + 1;
    log.trim(Topic::Journal, 0, next).expect("the trimmer may");
    assert_eq!(log.range(Topic::Journal, 0).expect("a range").start, next);
    // Events are their consumers': the trimmer does not even see them.
    let mut told = 0;
    for partition in 0..log.partitions() {
        let held = log.range(Topic::Events, partition).expect("a range");
        if !held.is_empty() {
            told += 1;
            assert!(log.trim(Topic::Events, partition, held.end).is_err(), "partition {partition}");
            assert_eq!(log.range(Topic::Events, partition).expect("a range").start, held.start, "partition {partition}");
        }
    }
    assert_ne!(told, 0, "there are events");
}

fn strangers_are_refused(cluster: &Cluster, dir: &Path) {
    let (user, password) = USERS[0];
    let with = |mut properties: Properties, name: &'static str, value: String| {
        properties.retain(|(known, _)| *known != name);
        properties.push((name, value));
        properties
    };
    let signs_in = || cluster.signs_in(user, password);
    let stranger = cluster.certificates.path("stranger.pem");
    let rows = [
        ("wrong password", cluster.scram(), cluster.signs_in(user, "wrong-CANARY"), "uthentication failed"),
        ("unknown user", cluster.scram(), cluster.signs_in("nobody", "wrong-CANARY"), "uthentication failed"),
        ("another mechanism", cluster.scram(), with(signs_in(), "sasl.mechanism", "SCRAM-SHA-256".to_owned()), "mechanism"),
        (
            "unknown authority",
            cluster.scram(),
            with(signs_in(), "ssl.ca.location", stranger.clone()),
            "certificate verify failed",
        ),
        ("no certificate", cluster.tls(), cluster.shows_nothing(), "certificate"),
        (
            "unknown authority, mutual",
            cluster.tls(),
            with(cluster.shows_certificate(), "ssl.ca.location", stranger),
            "certificate verify failed",
        ),
        (
            "no such property",
            cluster.scram(),
            with(signs_in(), "sasl.passwrod", "typo-CANARY".to_owned()),
            "-X: sasl.passwrod is no property of the Kafka client library",
        ),
        (
            "no such file",
            cluster.scram(),
            with(signs_in(), "ssl.ca.location", "missing.pem".to_owned()),
            "ssl.ca.location failed",
        ),
        ("an owned property", cluster.scram(), with(signs_in(), "acks", "CANARY".to_owned()), "-X: acks cannot be set"),
    ];
    std::thread::scope(|scope| {
        for (name, brokers, properties, says) in rows {
            let dir = dir.join(name);
            std::fs::create_dir(&dir).expect("a directory");
            scope.spawn(move || refused(&Process { dir: &dir, brokers, properties, more: vec![] }, 78, says));
        }
    });
}

/// The consumer of events looks at topics that are hidden from him, and at a group that is none of his: he waits for nobody.
fn who_only_asks_is_told_what_he_lacks(cluster: &Cluster, dir: &Path) {
    let dir = &dir.join("asks");
    std::fs::create_dir(dir).expect("a directory");
    let process = signed_in(cluster, dir, "downstream", vec![]);
    let rows: [(&[&str], &str); 4] = [
        (&["topics", "check"], "not authorized: Describe on topic finflow.commands.v1"),
        (&["state", "restore", "dump"], "not authorized: Describe on group finflow;"),
        (&["rescale", "--partitions", "2", "--to-prefix", "next"], "not authorized: Describe on group finflow;"),
        (&["wallet", "list"], "not authorized: Describe on group finflow;"),
    ];
    for (words, says) in rows {
        let output = process.finflow(words);
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(78) && told.contains(says), "{words:?}: {:?} {told}", output.status);
        assert!(!told.contains("no such topic") && !told.contains(CANARY), "{told}");
    }
}

/// Who may not see the topics' settings runs, and says so.
fn runs_without_seeing_settings(cluster: &Cluster, dir: &Path) {
    let process = signed_in(cluster, dir, ENGINE, vec![]);
    cluster.revoke(ENGINE, "--operation DescribeConfigs --topic finflow.events.v1");
    let _service = process.run();
    let logged = || std::fs::read_to_string(dir.join("stderr.txt")).expect("a file");
    let unseen = "not authorized: DescribeConfigs on topic finflow.events.v1";
    eventually(|| if logged().contains(unseen) { Ok(()) } else { Err(format!("it says nothing of it: {}", logged())) });
    eventually(|| match process.finflow(&["wallet", "show", "bob"]).status.success() {
        true => Ok(()),
        false => Err("it does not answer".to_owned()),
    });
    let checked = text(&process.finflow(&["check", "--format", "json"]).stdout);
    let is_skipped = checked.lines().any(|line| line.contains(r#""status":"skipped","check":"topics""#) && line.contains(unseen));
    assert!(is_skipped && checked.contains(r#""status":"ok","check":"rights""#), "{checked}");
    assert!(checked.contains(r#""status":"ok","check":"clock""#), "everything else is looked at: {checked}");
}

/// One right after the other is taken away, those that are found last first.
fn tells_which_right_is_missing(cluster: &Cluster, dir: &Path) {
    let process = signed_in(cluster, dir, ENGINE, vec![]);
    let rows = [
        (
            "--operation Write --resource-pattern-type prefixed --transactional-id finflow-",
            "not authorized: Write on transactional id finflow-one-lane-0;",
        ),
        ("--operation Read --group finflow", "not authorized: Read on group finflow;"),
        ("--operation Write --topic finflow.dlq.v1", "not authorized: Write on topic finflow.dlq.v1;"),
        (
            "--operation Read --topic finflow.journal.v1",
            "not authorized: Read on topic finflow.journal.v1, Write on topic finflow.dlq.v1;",
        ),
    ];
    for (right, says) in rows {
        cluster.revoke(ENGINE, right);
        refused(&process, 78, says);
        // What the engine lacks is told by a check as well.
        let told = process.finflow(&["check", "--admin", "127.0.0.1:0"]);
        let right =
            says.trim_start_matches("not authorized: ").trim_end_matches(';').replace("finflow-one-lane-0", "finflow-check");
        assert!(told.status.code() == Some(78) && text(&told.stdout).contains(&right), "{right}: {}", text(&told.stdout));
    }
}
