//! A data directory belongs to what it was first used with: the state of another log, or of another application, is nothing to go on with.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::broker::Broker;
use crate::commands::COMMANDS;
use crate::process::{Process, eventually};

/// A command on the embedded log in the same directory.
fn embedded(process: &Process<'_>, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finflow"));
    command.args(arguments).arg("--data-dir").arg(process.data_dir()).current_dir(process.dir).stdin(Stdio::null());
    command
}

fn refused(output: &Output, expected: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    let causes: Vec<&str> = told.lines().filter(|line| line.starts_with("finflow: ")).collect();
    assert_eq!((output.status.code(), causes.len()), (Some(78), 1), "{expected}: {told}");
    assert!(causes[0].contains(expected) && causes[0].contains("name another one with --data-dir"), "{expected}: {told}");
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub(crate) fn a_directory_is_used_with_one_log_only(broker: &Broker) {
    let dir = tempfile::tempdir().expect("a directory");
    let address = broker.address();
    let process = |name, prefix| Process::new(dir.path(), name, &address, prefix);
    let (tour, own) = (process("tour", "belongs"), process("own", "belongs"));
    std::fs::write(dir.path().join("commands.jsonl"), COMMANDS).expect("a file");
    assert!(own.finflow(&["topics", "create"]).status.success());

    // What the tour leaves behind, with its note and as it was before there were notes.
    assert!(embedded(&tour, &["publish", "commands.jsonl", "--wait"]).output().expect("it runs").status.success());
    let run = ["run", "--admin", "127.0.0.1:0"];
    for (has_note, owner) in
        [(true, "the application finflow on the embedded log"), (false, "an application on the embedded log")]
    {
        if !has_note {
            std::fs::remove_file(tour.data_dir().join("BELONGS-TO")).expect("a note");
        }
        let expected = format!("belongs to {owner}, not to belongs on Kafka");
        let found = names(&tour.data_dir());
        for arguments in [&run[..], &["publish", "commands.jsonl"], &["wallet", "list"], &["state", "discard", "0", "--yes"]] {
            refused(&tour.finflow(arguments), &expected);
        }
        let checked = tour.finflow(&["check", "--admin", "127.0.0.1:0"]);
        let told = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.code() == Some(78) && told.contains(&expected), "{told}");
        assert_eq!(names(&tour.data_dir()), found, "it stays as it is");
    }
    // A service there is asked by who means it.
    let log = std::fs::File::create(dir.path().join("service.txt")).expect("a file");
    let service = crate::child::Service(embedded(&tour, &run).stderr(log).spawn().expect("it runs"));
    eventually(|| {
        std::os::unix::net::UnixStream::connect(tour.data_dir().join("finflow.sock")).map_err(|error| error.to_string())
    });
    refused(&tour.finflow(&["publish", "commands.jsonl"]), "belongs to the application finflow on the embedded log");
    for more in [&[][..], &["--log", "embedded"]] {
        let shown = embedded(&tour, &[&["wallet", "show", "alice"], more].concat()).output().expect("it runs");
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    }
    drop(service);

    // And the other way about.
    let service = own.run(1);
    refused(&process("own", "other").finflow(&["publish", "commands.jsonl"]), "belongs to the application belongs on Kafka");
    refused(
        &embedded(&own, &["publish", "commands.jsonl", "--log", "embedded"]).output().expect("it runs"),
        "not to finflow on the embedded",
    );
    let shown = embedded(&own, &["partitions"]).output().expect("it runs");
    assert!(shown.status.success(), "who names no log asks what runs: {}", String::from_utf8_lossy(&shown.stderr));
    drop(service);
    for arguments in [&run[..], &["publish", "commands.jsonl"]] {
        refused(
            &embedded(&own, arguments).output().expect("it runs"),
            "belongs to the application belongs on Kafka, not to finflow on the",
        );
    }
    refused(&process("own", "other").finflow(&run), "belongs to the application belongs on Kafka, not to other on Kafka");
    assert!(!own.data_dir().join("log").exists(), "no log was begun there");
}
