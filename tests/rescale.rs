//! A whole state on its way: into a dump and out of it, and to another number of partitions, on the embedded log.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use self::service::on_a_small_disk;

#[path = "process/service.rs"]
mod service;

/// Runs finflow in `dir` on one of its data directories.
fn finflow(dir: &Path, data: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finflow"));
    command.args(arguments).arg("--data-dir").arg(data).args(["--format", "json"]);
    command.current_dir(dir).stdin(Stdio::null()).env_remove("RUST_LOG").output().expect("the program runs")
}

/// The same, with the exit code that it must end with and what it must say on standard error; gives what it printed.
fn check(dir: &Path, data: &str, arguments: &[&str], code: i32, told: &str) -> Vec<Value> {
    let output = finflow(dir, data, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(errors.contains(told), "{arguments:?}: {errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

const WALLETS: usize = 60;

/// Wallets with money, and transfers between them; some fail.
fn commands(round: usize) -> String {
    let mut lines = String::new();
    for n in 0..WALLETS {
        let common = format!(r#""tenant":"acme","wallet":"w{n}""#);
        if round == 0 {
            lines += &format!(
                r#"{{"type":"open_wallet",{common},"idempotency_key":"open","currency":"AED","country":"AE","kind":"personal","holder":"H"}}"#
            );
            lines += "\n";
            lines += &format!(
                r#"{{"type":"top_up",{common},"idempotency_key":"top","amount":"10","currency":"AED","source":{{"account":"x"}}}}"#
            );
            lines += "\n";
        }
        let (to, amount) = ((n * 7 + round + 1) % (WALLETS + 3), n % 13);
        lines += &format!(
            r#"{{"type":"transfer",{common},"idempotency_key":"{round}","to":"w{to}","amount":"{amount}.50","currency":"AED"}}"#
        );
        lines += "\n";
    }
    lines
}

fn wallets(dir: &Path, data: &str, set: &[&str]) -> Vec<String> {
    let listed = check(dir, data, &[&["wallet", "list"], set].concat(), 0, "");
    let mut wallets: Vec<String> = listed.iter().map(ToString::to_string).collect();
    wallets.sort();
    wallets
}

fn events(dir: &Path, data: &str, set: &[&str]) -> Vec<Value> {
    check(dir, data, &[&["tail", "events", "--from", "beginning", "--exit-at-end"], set].concat(), 0, "")
}

/// Every command is known where the state has been brought, and wallets go on where they were.
fn goes_on(dir: &Path, data: &str, set: &[&str], before: &[String]) {
    assert_eq!(wallets(dir, data, set), before);
    let published = check(dir, data, &[&["publish", "0.jsonl", "--wait"], set].concat(), 0, "");
    assert_eq!((&published[0]["applied"], &published[0]["unanswered"]), (&WALLETS.into(), &0.into()), "{published:?}");
    assert_eq!(events(dir, data, set), Vec::<Value>::new(), "nothing is told twice");
    assert_eq!(wallets(dir, data, set), before);
    check(dir, data, &[&["publish", "1.jsonl", "--wait"], set].concat(), 0, "");
    let seq = |wallet: &Value| (wallet["wallet"].as_str().expect("a wallet").to_owned(), wallet["wallet_seq"].as_u64());
    let mut last: std::collections::BTreeMap<String, Option<u64>> =
        before.iter().map(|wallet| seq(&serde_json::from_str(wallet).expect("JSON"))).collect();
    let events = events(dir, data, set);
    assert!(WALLETS <= events.len());
    for event in events {
        let (wallet, found) = seq(&event["value"]);
        let before = last.insert(wallet.clone(), found).flatten();
        assert_eq!(found, before.map(|before| before + 1), "wallet {wallet} goes on without a gap");
    }
    let verified = check(dir, data, &[&["state", "verify"], set].concat(), 0, "");
    assert!(verified.iter().all(|partition| partition["differences"] == Value::Array(vec![])), "{verified:?}");
}

#[test]
fn a_state_is_dumped_and_brought_into_other_directories() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    for round in 0..2 {
        fs::write(dir.join(format!("{round}.jsonl")), commands(round)).expect("a file");
    }
    check(dir, "old", &["state", "dump", "--into", "dump"], 1, "holds no finflow data");
    check(dir, "old", &["publish", "0.jsonl", "--wait"], 0, "");
    let before = wallets(dir, "old", &[]);
    let dumped = check(dir, "old", &["state", "dump", "--into", "dump"], 0, "");
    assert_eq!((&dumped[0]["wallets"], &dumped[0]["holds"]), (&WALLETS.into(), &0.into()), "{dumped:?}");
    check(dir, "old", &["state", "dump", "--into", "dump"], 1, "is not empty");
    let again = check(dir, "old", &["state", "dump", "--into", "again"], 0, "");
    assert_eq!(again, dumped, "the same state is the same dump");

    check(dir, "new", &["state", "restore", "nothing"], 1, "holds no dump that was finished");
    let brought = check(dir, "new", &["state", "restore", "dump"], 0, "");
    assert_eq!((&brought[0]["was_there"], &brought[0]["wallets"]), (&false.into(), &WALLETS.into()), "{brought:?}");
    let brought = check(dir, "new", &["state", "restore", "again"], 0, "");
    assert_eq!(brought[0]["was_there"], true);
    check(dir, "old", &["state", "restore", "dump"], 1, "the topics hold another application already");
    let three = ["--set", "topics.partitions=3"];
    check(dir, "three", &[&["state", "restore", "dump"][..], &three].concat(), 0, "");
    goes_on(dir, "new", &[], &before);
    goes_on(dir, "three", &three, &before);
    assert_eq!(wallets(dir, "old", &[]), before, "where it came from is as it was");

    // A disk that has no room for the log's own files: told as that, and done by the next attempt, over what was left.
    let output = on_a_small_disk("1").args(["state", "restore", "dump", "--data-dir", "full"]).current_dir(dir).output();
    let output = output.expect("a shell");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains("File too large"), "{:?} {told}", output.status);
    check(dir, "full", &["state", "restore", "dump"], 0, "");
    goes_on(dir, "full", &[], &before);

    let file = dir.join("dump/0.rows");
    let mut bytes = fs::read(&file).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("a file");
    check(dir, "other", &["state", "restore", "dump"], 1, "the dump is damaged");
}

#[test]
fn a_directory_is_moved_to_another_number_of_partitions() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    for round in 0..2 {
        fs::write(dir.join(format!("{round}.jsonl")), commands(round)).expect("a file");
    }
    check(dir, "old", &["publish", "0.jsonl", "--wait"], 0, "");
    let before = wallets(dir, "old", &[]);
    let rescale = ["rescale", "--partitions", "21", "--to-prefix", "wide"];
    check(dir, "old", &rescale, 2, "--to-data-dir");
    let rescale = [&rescale[..], &["--to-data-dir", "new"]].concat();
    check(dir, "old", &[&rescale[..], &["--dry-run"]].concat(), 0, "");
    assert!(!dir.join("new").exists(), "nothing was done");

    let done = check(dir, "old", &rescale, 0, "");
    assert_eq!((&done[0]["wallets"], &done[0]["partitions"]), (&WALLETS.into(), &21.into()), "{done:?}");
    assert_eq!(check(dir, "old", &rescale, 0, "")[0]["was_there"], true, "once is enough");
    let wide = ["--set", "topics.prefix=wide", "--set", "topics.partitions=21"];
    check(dir, "new", &["wallet", "list", "--set", "topics.prefix=wide"], 78, "are configured");
    goes_on(dir, "new", &wide, &before);

    let moved = "the application has moved to wide with 21 partitions in ";
    check(dir, "old", &["publish", "1.jsonl"], 78, moved);
    check(dir, "old", &["run"], 78, moved);
    for elsewhere in [["21", "wide", "third"], ["20", "wide", "new"], ["21", "other", "new"]] {
        let [partitions, prefix, data] = elsewhere;
        let rescale = ["rescale", "--partitions", partitions, "--to-prefix", prefix, "--to-data-dir", data];
        check(dir, "old", &rescale, 1, moved);
    }
    assert!(!dir.join("third").exists(), "nothing goes to two places");
    assert_eq!(wallets(dir, "old", &[]), before, "it can still be read");
}

#[test]
fn directories_that_are_right_take_the_place_of_a_log_that_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    for round in 0..3 {
        fs::write(dir.join(format!("{round}.jsonl")), commands(round)).expect("a file");
    }
    let three = ["--set", "topics.partitions=3"];
    let on = |arguments: &[&'static str]| [arguments, &three].concat();
    check(dir, "data", &on(&["publish", "0.jsonl", "--wait"]), 0, "");
    let log = dir.join("data/log");
    let copied = Command::new("cp").arg("-r").arg(&log).arg(dir.join("earlier")).status().expect("cp");
    assert!(copied.success());
    check(dir, "data", &on(&["publish", "1.jsonl", "--wait"]), 0, "");
    let before = wallets(dir, "data", &three);
    fs::remove_dir_all(&log).expect("a directory");
    fs::rename(dir.join("earlier"), &log).expect("a directory");

    check(dir, "data", &on(&["wallet", "list"]), 1, "is halted: the store holds block");
    check(dir, "data", &on(&["state", "adopt", "7"]), 1, "there is no partition 7");
    check(dir, "data", &on(&["state", "adopt", "1", "--yes"]), 3, "which has sent");
    let told = check(dir, "data", &on(&["state", "adopt", "0", "1", "2"]), 2, "nothing was done");
    assert!(told.len() == 3 && told.iter().all(|partition| partition["rows"] != 0), "{told:?}");
    check(dir, "data", &on(&["wallet", "list"]), 1, "is halted");
    let done = check(dir, "data", &on(&["state", "adopt", "0", "1", "2", "--yes"]), 0, "");
    let is_kept = |adopted: &Value| dir.join(adopted["moved_to"].as_str().expect("a path")).join("CURRENT").is_file();
    assert!(done.iter().all(is_kept), "{done:?}");
    assert_eq!(wallets(dir, "data", &three), before);
    let told = events(dir, "data", &three).len();
    check(dir, "data", &on(&["publish", "1.jsonl", "--wait"]), 0, "");
    assert_eq!((events(dir, "data", &three).len(), wallets(dir, "data", &three)), (told, before), "every command is a duplicate");
    check(dir, "data", &on(&["publish", "2.jsonl", "--wait"]), 0, "");
    check(dir, "data", &on(&["state", "verify"]), 0, "");
}
