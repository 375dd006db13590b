//! Disks that are full, unreadable, somebody else's or not there, under the real program: it says what is wrong, loses nothing
//! that it has accepted, and goes on.
//!
//! A full disk is made with the limit on file sizes of one process, which any user may lower and lift again while it runs.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use finflow_actors::Publish;
use finflow_actors::socket::Client;
use finflow_topologies::Topic;
use finflow_topologies::simulation::audit;

use self::commands::{opened, transfers};
use self::http::get;
use self::service::{DEADLINE, Service, finflow, json, on_a_small_disk, set_room, with_few_files};

#[path = "../actors/tests/support/commands.rs"]
mod commands;
#[path = "support/http.rs"]
mod http;
#[path = "process/service.rs"]
mod service;

const WALLETS: usize = 16;

/// Publishes until it is acknowledged, as every producer must.
async fn insist(client: &Client, records: Vec<Publish>) {
    let begun = Instant::now();
    while let Err(cause) = client.publish(records.clone()).await {
        assert!(begun.elapsed() < DEADLINE, "{cause}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Opens the wallets, and returns when all of them can be paid.
async fn open_wallets(client: &Client) {
    insist(client, opened(WALLETS, "100")).await;
    assert_eq!(client.idle(DEADLINE).await, Ok(true));
}

async fn until(what: &str, service: &Service, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "{what}: {}", service.logs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// So many transfers have ended, each once, and every cent is there.
fn check(dir: &Path, transfers: usize) {
    let events = json(dir, &["tail", "events", "--from", "beginning", "--exit-at-end"]);
    let events: Vec<Vec<u8>> = events.iter().map(|line| line["value"].to_string().into_bytes()).collect();
    let audit = audit(events.iter().map(Vec::as_slice));
    assert_eq!(audit.faults, vec![]);
    assert_eq!(audit.outcomes.get("payment.settled"), Some(&((transfers + WALLETS) as u64)));
    assert_eq!(audit.sums.get("AED"), Some(&(WALLETS as i128 * 10_000)));
    for partition in json(dir, &["state", "verify"]) {
        assert_eq!(partition["differences"], serde_json::Value::Array(vec![]), "{partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut service = Service::start_by(on_a_small_disk("unlimited"), dir.path(), &[]);
    let client = service.expect_client().await;
    let address = service.admin_address().await;
    open_wallets(&client).await;
    for round in 0..3 {
        let (begin, end) = (round * 200, round * 200 + 200);
        insist(&client, transfers(WALLETS, begin..end)).await;
        set_room(&service, "0");
        assert!(client.publish(transfers(WALLETS, end..end + 1)).await.is_err(), "nothing is acknowledged on a full disk");
        let ready = get(&address, "/readyz");
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("[-]log ") && ready.contains("File too large"), "{ready}");
        assert!(get(&address, "/livez").starts_with("HTTP/1.1 200"));
        assert_eq!(client.range(Topic::Commands, 0).await.map(|range| range.start), Ok(0), "it can be asked");
        set_room(&service, "unlimited");
        until("it becomes ready by itself", &service, || get(&address, "/readyz").starts_with("HTTP/1.1 200")).await;
        assert_eq!(client.idle(DEADLINE).await, Ok(true), "{}", service.logs());
        check(dir.path(), end);
    }
    service.terminate();
    assert!(service.ended(Duration::from_secs(15)).await.success(), "{}", service.logs());
    check(dir.path(), 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_before_the_disk_was_full_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut service = Service::start_by(on_a_small_disk("unlimited"), dir.path(), &[]);
    let client = service.expect_client().await;
    open_wallets(&client).await;
    insist(&client, transfers(WALLETS, 0..300)).await;
    set_room(&service, "0");
    // Whatever is in flight cannot be written: it does not drain, and ends all the same.
    assert!(client.publish(transfers(WALLETS, 300..301)).await.is_err());
    service.terminate();
    service.ended(Duration::from_secs(15)).await;
    drop(service);

    let output = on_a_small_disk("0").args(["run", "--data-dir", "data"]).current_dir(dir.path()).output().expect("a shell");
    let told = String::from_utf8_lossy(&output.stderr);
    let causes: Vec<&str> = told.lines().filter(|line| line.starts_with("finflow: ")).collect();
    assert_eq!((output.status.code(), causes.len()), (Some(1), 1), "{told}");
    assert!(causes.iter().all(|cause| cause.contains("File too large")), "{told}");

    let mut service = Service::start(dir.path(), &[]);
    let client = service.expect_client().await;
    assert_eq!(client.idle(DEADLINE).await, Ok(true), "{}", service.logs());
    check(dir.path(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_cannot_be_written_are_never_served_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    // With so little memory the stores write themselves out all the time.
    let small = ["store.memory=1MiB"];
    let mut service = Service::start_by(on_a_small_disk("unlimited"), dir.path(), &small);
    let client = service.expect_client().await;
    open_wallets(&client).await;
    let mut end = 0;
    for _ in 0..3 {
        insist(&client, transfers(WALLETS, end..end + 2_000)).await;
        end += 2_000;
        set_room(&service, "0");
        assert!(client.publish(transfers(WALLETS, end..end + 1)).await.is_err());
        set_room(&service, "unlimited");
    }
    insist(&client, transfers(WALLETS, end..end + 500)).await;
    end += 500;
    service.kill();
    let mut service = Service::start(dir.path(), &small);
    let client = service.expect_client().await;
    assert_eq!(client.idle(DEADLINE).await, Ok(true), "{}", service.logs());
    check(dir.path(), end);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_allows_itself_as_many_open_files_as_it_may_have() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut service = Service::start_by(with_few_files("128"), dir.path(), &[]);
    service.expect_client().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", service.pid())).expect("the limits of a process");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("the limit of open files");
    let [soft, hard] = [0, 1].map(|place| line.split_whitespace().nth(place));
    assert!(soft == hard && soft != Some("128"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_one_service() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut service = Service::start(dir.path(), &[]);
    let client = service.expect_client().await;
    let second = finflow(dir.path(), &["run", "--set", "admin.listen=127.0.0.1:0"]);
    let told = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(75), "{told}");
    assert!(told.contains("in use by another finflow process"), "{told}");
    open_wallets(&client).await;
    assert_eq!(client.idle(DEADLINE).await, Ok(true), "the first one does not notice");
    check(dir.path(), 0);
}

#[test]
fn directories_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("file"), "").expect("a file");
    std::os::unix::fs::symlink(path("loop"), path("loop")).expect("a link");
    std::fs::create_dir_all(path("taken/log/LOCK")).expect("a directory");
    std::fs::create_dir_all(path("foreign")).expect("a directory");
    std::fs::write(path("foreign/log"), "notes").expect("a file");
    std::fs::create_dir_all(path("torn/log")).expect("a directory");
    std::fs::write(path("torn/log/CURRENT"), "MANIFEST-000009\n").expect("a file");
    std::fs::create_dir_all(path("headless/log")).expect("a directory");
    std::fs::write(path("headless/log/000004.log"), "commands").expect("a file");
    for (data_dir, cause) in [
        ("headless", "has lost its file CURRENT"),
        ("file", "Not a directory"),
        ("file/below", "Not a directory"),
        ("loop", "symbolic links"),
        ("/proc/finflow", "No such file or directory"),
        ("taken", "Is a directory"),
        ("foreign", "File exists"),
        ("torn", "MANIFEST-000009"),
    ] {
        for words in [&["run", "--set", "admin.listen=127.0.0.1:0"][..], &["publish", "-"]] {
            let mut program = Command::new(env!("CARGO_BIN_EXE_finflow"));
            let output = program.args(words).arg("--data-dir").arg(data_dir).current_dir(dir.path()).output();
            let output = output.expect("the program runs");
            let told = String::from_utf8_lossy(&output.stderr);
            let causes: Vec<&str> = told.lines().filter(|line| line.starts_with("finflow: ")).collect();
            assert_eq!((output.status.code(), causes.len()), (Some(1), 1), "{data_dir}: {told}");
            assert!(causes.iter().all(|line| line.contains(cause) && line.contains(data_dir)), "{data_dir}: {told}");
        }
    }
    for (kept, content) in [("foreign/log", "notes"), ("headless/log/000004.log", "commands")] {
        assert_eq!(std::fs::read_to_string(path(kept)).expect("a file"), content, "what cannot be used stays as it is");
    }
}
