//! How a service stops: it drains within its time, it does not wait for ever, and a second signal ends it at once.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use finflow_actors::{Publish, STOP_MAX};

use self::commands::open;
use self::http::get;
use self::service::{DEADLINE, POLL, Service, finflow, json, on_a_small_disk, set_room};

#[path = "../actors/tests/support/commands.rs"]
mod commands;
#[path = "support/http.rs"]
mod http;
#[path = "process/service.rs"]
mod service;

/// The process itself needs a moment besides.
const STOPPED_WITHIN: Duration = STOP_MAX.saturating_add(Duration::from_secs(1));

fn opened(count: usize) -> Vec<Publish> {
    (0..count).map(|n| open(&format!("w{n}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_drains_what_it_has_begun_and_stops() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut service = Service::start(dir.path(), &[]);
    let client = service.expect_client().await;
    client.publish(opened(3_000)).await.expect("accepted");
    service.terminate();
    assert!(service.ended(STOPPED_WITHIN).await.success(), "{}", service.logs());
    // What it had not begun is in the log, and whoever comes next goes on with it.
    let mut service = Service::start(dir.path(), &[]);
    let client = service.expect_client().await;
    assert_eq!(client.idle(DEADLINE).await, Ok(true), "{}", service.logs());
    assert_eq!(json(dir.path(), &["wallet", "list"]).len(), 3_000);
}

/// A pipe in the place of a file that snapshots share: whoever opens it to write waits for a reader, for ever.
fn hold(snapshots: &Path) {
    for entry in std::fs::read_dir(snapshots.join("files")).expect("snapshots") {
        let path = entry.expect("an entry").path();
        // The file `CURRENT`, which is in every snapshot.
        if std::fs::read(&path).expect("a file").starts_with(b"MANIFEST-") {
            let pipe = snapshots.join("pipe");
            assert!(Command::new("mkfifo").arg(&pipe).status().expect("coreutils").success());
            std::fs::rename(pipe, path).expect("a pipe");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_a_disk_holds_does_not_hold_the_stop() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut service = Service::start(dir.path(), &[]);
    let client = service.expect_client().await;
    client.publish(opened(500)).await.expect("accepted");
    assert_eq!(client.idle(DEADLINE).await, Ok(true), "{}", service.logs());
    json(dir.path(), &["state", "snapshot"]);
    hold(&dir.path().join("data/snapshots"));
    client.publish(opened(1_000)).await.expect("accepted");
    assert_eq!(client.idle(DEADLINE).await, Ok(true), "{}", service.logs());
    let data = dir.path().to_owned();
    let asking = std::thread::spawn(move || finflow(&data, &["state", "snapshot"]));
    let begun = Instant::now();
    while std::fs::read_dir(dir.path().join("data/tmp")).expect("a directory").next().is_none() {
        assert!(begun.elapsed() < DEADLINE, "no snapshot is begun: {}", service.logs());
        tokio::time::sleep(POLL).await;
    }
    service.terminate();
    assert!(service.ended(STOPPED_WITHIN).await.success(), "{}", service.logs());
    assert!(!asking.join().expect("it ends with the service").status.success());
    let mut service = Service::start(dir.path(), &[]);
    let client = service.expect_client().await;
    assert_eq!(client.idle(DEADLINE).await, Ok(true), "{}", service.logs());
    assert_eq!(json(dir.path(), &["wallet", "list"]).len(), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut service = Service::start_by(on_a_small_disk("unlimited"), dir.path(), &[]);
    let client = service.expect_client().await;
    client.publish(opened(500)).await.expect("accepted");
    // Without a disk it cannot drain, and would wait for its time to be over.
    set_room(&service, "0");
    assert!(client.publish(opened(1)).await.is_err());
    service.terminate();
    service.logged("stopping on SIGTERM").await;
    service.terminate();
    let status = service.ended(Duration::from_secs(3)).await;
    assert_eq!(status.code(), Some(1), "{}", service.logs());
    let mut service = Service::start(dir.path(), &[]);
    let client = service.expect_client().await;
    assert_eq!(client.idle(DEADLINE).await, Ok(true), "{}", service.logs());
    assert_eq!(json(dir.path(), &["wallet", "list"]).len(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_still_starting_stops_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut service = Service::start(dir.path(), &[]);
    let client = service.expect_client().await;
    client.publish(opened(1_000)).await.expect("accepted");
    service.terminate();
    assert!(service.ended(STOPPED_WITHIN).await.success(), "{}", service.logs());

    // Restoring looks for a note about damage first. This one is a pipe, so that it waits there for its writer.
    let note = dir.path().join("data/state/0/DAMAGED");
    let made = Command::new("mkfifo").arg(&note).status();
    assert!(made.expect("mkfifo of coreutils").success());
    let mut service = Service::start(dir.path(), &[]);
    let (sender, is_read) = std::sync::mpsc::channel();
    let writer = note.clone();
    std::thread::spawn(move || sender.send(std::fs::OpenOptions::new().write(true).open(writer)));
    let pipe = is_read.recv_timeout(DEADLINE).expect("the service restores").expect("a pipe");
    let address = service.admin_address().await;
    for (path, status, says) in [
        ("/livez", "200", "ok"),
        ("/readyz", "503", "[-]node starting"),
        ("/readyz?verbose", "503", "not ready"),
        ("/metrics", "200", "process_"),
    ] {
        let answer = get(&address, path);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(says), "{path}: {answer}");
    }
    service.terminate();
    assert_eq!(service.ended(STOPPED_WITHIN).await.code(), Some(0), "{}", service.logs());
    assert!(service.logs().contains("before it has started"), "{}", service.logs());
    drop(pipe);
    std::fs::remove_file(note).expect("the pipe");

    let mut service = Service::start(dir.path(), &[]);
    let client = service.expect_client().await;
    assert_eq!(client.idle(DEADLINE).await, Ok(true), "{}", service.logs());
    assert_eq!(json(dir.path(), &["wallet", "list"]).len(), 1_000);
}
