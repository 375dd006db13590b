//! What an operator does with the state, as typed: verify, snapshot, discard - and the way from a halted partition to a healthy one.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use finflow_actors::log::embedded::EmbeddedLog;
use finflow_ledger::WalletId;
use finflow_topologies::Topic;
use finflow_topologies::log::{Log, Outgoing};
use finflow_topologies::topics::partition_of_wallet;
use serde_json::Value;

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finflow"));
    command.args(arguments).args(["--format", "json", "--set", "topics.partitions=3"]).arg("--data-dir").arg(dir.join("data"));
    command.current_dir(dir).stdin(Stdio::null());
    command
}

/// Runs a command, compares its exit code and what it says on stderr, and gives the objects it prints.
fn check(dir: &Path, arguments: &[&str], code: i32, told: &str) -> Vec<Value> {
    let Output { status, stdout, stderr } = command(dir, arguments).output().expect("the program runs");
    let errors = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(errors.contains(told), "{arguments:?}: {errors}");
    let text = String::from_utf8_lossy(&stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

/// Opens wallets in every partition and brings them money.
fn publish(dir: &Path, round: usize) {
    let mut lines = String::new();
    for n in 0..30 {
        let common = format!(r#""tenant":"acme","wallet":"w{n}""#);
        lines += &format!(
            r#"{{"type":"open_wallet",{common},"idempotency_key":"open","currency":"AED","country":"AE","kind":"personal","holder":"H"}}"#
        );
        lines += "\n";
        lines += &format!(
            r#"{{"type":"top_up",{common},"idempotency_key":"top-{round}","amount":"10","currency":"AED","source":{{"account":"x"}}}}"#
        );
        lines += "\n";
    }
    fs::write(dir.join("payments.jsonl"), lines).expect("a file");
    check(dir, &["publish", "payments.jsonl", "--wait"], 0, "");
}

fn digests(verified: &[Value]) -> Vec<String> {
    verified.iter().map(|partition| partition["digest"].as_str().expect("a digest").to_owned()).collect()
}

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
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

fn start(dir: &Path) -> Service {
    let child = command(dir, &["run", "--set", "admin.listen=127.0.0.1:0"]).stderr(Stdio::null()).spawn();
    let service = Service(child.expect("the program runs"));
    let begun = Instant::now();
    while std::os::unix::net::UnixStream::connect(dir.join("data/finflow.sock")).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the service does not answer");
        std::thread::yield_now();
    }
    service
}

#[test]
fn a_discarded_directory_is_built_again_from_its_snapshot() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    check(dir, &["state", "verify"], 1, "holds no finflow data");
    check(dir, &["state", "discard", "1", "--yes"], 1, "is not there");
    publish(dir, 0);
    let service = start(dir);
    let taken = check(dir, &["state", "snapshot"], 0, "");
    assert_eq!(taken.len(), 3);
    check(dir, &["state", "discard", "1", "--yes"], 75, "a service runs in this directory");
    let through_the_socket = check(dir, &["state", "verify", "--snapshots"], 0, "");
    assert!(through_the_socket.iter().all(|partition| partition["snapshots"].as_array().is_some_and(|kept| kept.len() == 1)));
    drop(service);

    publish(dir, 1);
    let before = check(dir, &["state", "verify"], 0, "");
    assert!(before.iter().all(|partition| partition["snapshots"].is_null()), "they were not asked for");
    check(dir, &["state", "discard", "9", "--yes"], 1, "there is no partition 9");
    check(dir, &["state", "discard", "x"], 2, "invalid value");
    check(dir, &["state", "discard", "1"], 2, "nothing was done");
    assert_eq!(listing(&dir.join("data/state")), ["0", "1", "2"]);
    let moved = check(dir, &["state", "discard", "1", "--yes"], 0, "");
    assert!(Path::new(moved[0]["moved_to"].as_str().expect("a path")).join("CURRENT").is_file(), "{moved:?}");
    assert_eq!(listing(&dir.join("data/state")).len(), 3);
    let partitions = check(dir, &["partitions"], 0, "");
    let from: Vec<&Value> = partitions.iter().map(|partition| &partition["restored_from"]).collect();
    assert_eq!(from, ["directory", "snapshot", "directory"]);
    assert_eq!(digests(&check(dir, &["state", "verify"], 0, "")), digests(&before));

    check(dir, &["state", "snapshot"], 0, "");
    let kept = check(dir, &["state", "verify", "--snapshots"], 0, "");
    assert!(kept.iter().all(|partition| partition["snapshots"].as_array().is_some_and(|kept| kept.len() == 2)), "{kept:?}");
    let files = dir.join("data/snapshots/files");
    let largest = listing(&files).into_iter().max_by_key(|name| fs::metadata(files.join(name)).expect("a file").len());
    fs::remove_file(files.join(largest.expect("a file"))).expect("a file");
    let found = check(dir, &["state", "verify", "--snapshots"], 3, "differences");
    assert_eq!(found.len(), 3);
    assert!(found.iter().any(|partition| partition["differences"].to_string().contains("is missing")), "{found:?}");
    check(dir, &["state", "verify"], 0, "");
}

/// The directories of the first two partitions in each other's place.
fn swap(state: &Path) {
    for (from, to) in [("0", "x"), ("1", "0"), ("x", "1")] {
        fs::rename(state.join(from), state.join(to)).expect("a directory");
    }
}

#[test]
fn a_halted_partition_goes_on_once_its_cause_is_gone() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    publish(dir, 0);
    let before = check(dir, &["state", "verify"], 0, "");
    let state = dir.join("data/state");
    check(dir, &["partitions", "resume", "0"], 1, "no service runs");
    swap(&state);
    let _service = start(dir);
    check(dir, &["partitions", "resume", "3"], 1, "there is no partition 3: they are 0 to 2");
    check(dir, &["partitions", "resume", "2"], 1, "partition 2 is not halted");
    check(dir, &["partitions", "resume", "2", "--from-journal"], 1, "partition 2 is not halted");
    check(dir, &["partitions", "resume", "0", "--from-journal"], 1, "partition 0 has a position, at block");
    let both = check(dir, &["partitions", "resume", "--from-journal"], 1, "partition 1 has a position, at block");
    assert!(both.is_empty(), "nothing goes on: {both:?}");
    check(dir, &["partitions", "resume"], 2, "required arguments were not provided");
    check(dir, &["partitions", "resume", "2", "--skip-expired"], 1, "partition 2 is not halted");
    check(
        dir,
        &["partitions", "resume", "0", "--skip-expired"],
        1,
        "partition 0 could not be restored: `finflow partitions resume 0`",
    );
    check(dir, &["partitions", "resume", "0", "--skip-expired", "--dry-run"], 1, "partition 0 could not be restored");
    check(dir, &["partitions", "resume", "0", "--skip-expired", "--from-journal"], 2, "cannot be used with");
    check(dir, &["partitions", "resume", "0", "--dry-run"], 2, "required arguments were not provided");
    check(dir, &["partitions", "resume", "0"], 1, "partition 0 is halted again: the store holds block");
    swap(&state);
    for partition in ["0", "1"] {
        let told = check(dir, &["partitions", "resume", partition], 0, "");
        assert_eq!(told[0]["status"], "resumed");
    }
    assert_eq!(digests(&check(dir, &["state", "verify"], 0, "")), digests(&before));
}

#[test]
fn a_partition_goes_on_past_commands_that_have_expired_where_an_operator_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    publish(dir, 0);
    let before = check(dir, &["state", "verify"], 0, "");
    let log = EmbeddedLog::open(&dir.join("data/log"), 3).expect("a log");
    let from = log.append(Topic::Commands, 1, vec![Outgoing::default(); 5]).expect("a log");
    log.trim(Topic::Commands, 1, from + 5).expect("a log");
    drop(log);
    let service = start(dir);
    let resume = ["partitions", "resume", "1", "--skip-expired"];
    let begun = Instant::now();
    while !command(dir, &[&resume[..], &["--dry-run"]].concat()).output().expect("the program runs").status.success() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is halted");
    }
    check(dir, &["partitions", "resume", "1"], 1, "partition 1 is halted again: inputs are lost");
    let place = |line: &Value| (line["expired_from"].as_u64(), line["expired_to"].as_u64());
    for (arguments, status) in [(&["--dry-run"][..], "would go on"), (&[][..], "goes on")] {
        let told = check(dir, &[&resume[..], arguments].concat(), 0, "");
        assert_eq!((told[0]["status"].as_str(), place(&told[0])), (Some(status), (Some(from), Some(from + 5))), "{told:?}");
        assert_eq!(told.get(1).map(|line| &line["status"]), arguments.is_empty().then_some(&"resumed".into()), "{told:?}");
    }
    check(dir, &resume, 1, "partition 1 is not halted");
    drop(service);
    // It was committed before it was told.
    let _service = start(dir);
    publish(dir, 0);
    assert_eq!(digests(&check(dir, &["state", "verify"], 0, "")), digests(&before), "everything was carried out before");
}

#[test]
fn a_halted_partition_is_named_by_every_command_until_it_is_discarded() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    publish(dir, 0);
    let before = check(dir, &["state", "verify"], 0, "");
    let state = dir.join("data/state");
    swap(&state);
    let found = check(dir, &["state", "verify"], 3, "differences");
    let halted: Vec<bool> = found.iter().map(|partition| partition["differences"].to_string().contains("is halted")).collect();
    assert_eq!(halted, [true, true, false]);
    check(dir, &["wallet", "list"], 1, "partition 0 is halted: the store holds block");
    check(dir, &["partitions"], 1, "partition 1 is halted: the store holds block");
    let service = start(dir);
    let told = check(dir, &["check"], 75, "not ready now: service");
    assert!(told.iter().any(|line| line["remedy"].to_string().contains("finflow partitions resume 1")), "{told:?}");
    drop(service);
    assert_eq!(listing(&state), ["0", "1", "2"], "the evidence stays");
    check(dir, &["state", "discard", "0", "--yes"], 0, "");
    check(dir, &["wallet", "list"], 1, "partition 1 is halted");
    check(dir, &["state", "discard", "1", "--yes"], 0, "");
    assert_eq!(check(dir, &["wallet", "list"], 0, "").len(), 30);
    assert_eq!(digests(&check(dir, &["state", "verify"], 0, "")), digests(&before));
}

#[test]
fn what_a_partition_sends_to_a_halted_one_is_seen_to_wait() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    publish(dir, 0);
    let state = dir.join("data/state");
    swap(&state);
    let _service = start(dir);
    let home = |wallet: usize| partition_of_wallet(&WalletId::parse(&format!("w{wallet}")).expect("an id"), 3);
    let of = |is: fn(u32) -> bool| (0..30).find(|wallet| is(home(*wallet))).expect("a wallet");
    let (from, to) = (of(|home| home == 2), of(|home| home < 2));
    let transfer = format!(
        r#"{{"type":"transfer","tenant":"acme","idempotency_key":"leg","wallet":"w{from}","to":"w{to}","amount":"1","currency":"AED"}}"#
    );
    fs::write(dir.join("leg.jsonl"), transfer).expect("a file");
    check(dir, &["publish", "leg.jsonl"], 0, "");
    let begun = Instant::now();
    loop {
        let told = check(dir, &["partitions"], 1, "is halted");
        let text = |of: &Value, name: &str| of[name].as_str().unwrap_or("-").to_owned();
        assert_eq!(["owner", "role", "state"].map(|name| text(&told[2], name)), ["finflow-1", "owner", "running"]);
        assert_eq!((text(&told[0], "state"), &told[0]["leg_oldest_ms"]), ("halted".to_owned(), &Value::Null));
        if told[2]["leg_oldest_ms"].is_u64() {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{told:?}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}
