//! The roles of `finflow topics acls`: what is printed for each, and that it lets people work through the service, and a successor watch.

use std::path::Path;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::cluster::{Cluster, USERS};
use crate::{BY_PASSWORD, DEADLINE, ENGINE, OPENED, Process, administrator, eventually, grant, send, signed_in, text};

/// What is printed for each part, without the lines that say why.
const PRINTED: [(&[&str], &[&str]); 7] = [
    (
        &["--principal", "User:finflow"],
        &[
            "--allow-principal 'User:finflow' --operation Read --topic finflow.commands.v1 --topic finflow.postings.v1 \
             --topic finflow.journal.v1 --group finflow --group finflow.addresses",
            "--allow-principal 'User:finflow' --operation Write --topic finflow.events.v1 --topic finflow.postings.v1 \
             --topic finflow.journal.v1 --topic finflow.dlq.v1",
            "--allow-principal 'User:finflow' --operation DescribeConfigs --topic finflow.commands.v1 --topic finflow.postings.v1 \
             --topic finflow.events.v1 --topic finflow.journal.v1 --topic finflow.dlq.v1",
            "--allow-principal 'User:finflow' --operation Write --resource-pattern-type prefixed --transactional-id finflow-",
        ],
    ),
    (
        &["--principal", "User:t", "--role", "trimmer"],
        &["--allow-principal 'User:t' --operation Delete --topic finflow.postings.v1 --topic finflow.journal.v1"],
    ),
    (
        &["--principal", "User:g", "--role", "gateway"],
        &[
            "--allow-principal 'User:g' --operation Read --topic finflow.events.v1 --topic finflow.dlq.v1",
            "--allow-principal 'User:g' --operation Write --topic finflow.commands.v1",
        ],
    ),
    (
        &["--principal", "User:s", "--role", "successor"],
        &["--allow-principal 'User:s' --operation Describe --topic finflow.commands.v1 --topic finflow.journal.v1"],
    ),
    (
        &["--principal", "User:api", "--role", "producer", "--set", "topics.prefix=pay"],
        &["--allow-principal 'User:api' --operation Write --topic pay.commands.v1"],
    ),
    (
        &["--principal", "User:CN=ledger", "--role", "consumer"],
        &["--allow-principal 'User:CN=ledger' --operation Read --topic finflow.events.v1 --group finflow-consumer"],
    ),
    (
        &["--principal", "User:l", "--role", "consumer", "--group", "ledger"],
        &["--allow-principal 'User:l' --operation Read --topic finflow.events.v1 --group ledger"],
    ),
];

#[test]
fn the_least_privilege_is_printed() {
    let dir = tempfile::tempdir().expect("a directory");
    let admin = Process { dir: dir.path(), brokers: "kafka:9092".to_owned(), properties: vec![], more: vec![] };
    for (options, expected) in PRINTED {
        let told = |format: &str| {
            let output = admin.finflow(&[&["topics", "acls", "--format", format][..], options].concat());
            assert!(output.status.success(), "{}", text(&output.stderr));
            text(&output.stdout)
        };
        let printed = told("text");
        let (reasons, commands): (Vec<&str>, Vec<&str>) = printed.lines().partition(|line| line.starts_with('#'));
        let expected: Vec<String> =
            expected.iter().map(|command| format!("kafka-acls --bootstrap-server kafka:9092 --add {command}")).collect();
        assert_eq!(commands, expected);
        let is_said = reasons.iter().any(|line| line.contains("trusted with every tenant"));
        assert_eq!(is_said, options.contains(&"producer") || options.contains(&"gateway"), "{printed}");
        let rows: Vec<Value> = told("json").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let names =
            |words: &str| words.matches(" --topic ").count() + words.matches(" --group ").count() + words.matches("-id ").count();
        assert_eq!(rows.len(), commands.iter().map(|command| names(command)).sum::<usize>(), "a row for each right");
        assert!(rows.iter().all(|row| names(row["command"].as_str().expect("a command")) == 1), "{rows:?}");
    }
}

/// A dead letter of a command that can be carried out, as an administrator writes it.
fn dead_letter(cluster: &Cluster) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", cluster.plain()).create().expect("a client");
    let header = |key, value| rdkafka::message::Header { key, value: Some(value) };
    let headers = rdkafka::message::OwnedHeaders::new();
    let headers =
        headers.insert(header("__streams.errors.exception", "finflow.Malformed")).insert(header("x-error-code", "panicked"));
    let letter = OPENED[2].replace("t-1", "t-2");
    producer.send(BaseRecord::to("finflow.dlq.v1").key("alice").payload(&letter).headers(headers)).expect("a queue");
    producer.flush(DEADLINE).expect("it is taken");
}

/// With the engine's rights alone nobody sends, reads or repairs anything through the service; with those of the gateway besides, each
/// of them does.
pub(crate) fn people_work_through_it(cluster: &Cluster, dir: &Path) {
    let process = signed_in(cluster, dir, ENGINE, vec![]);
    let command = OPENED[2].replace("t-1", "by-hand");
    std::fs::write(dir.join("by-hand.jsonl"), format!("{command}\n")).expect("a file");
    dead_letter(cluster);
    let service = process.run();
    let rows: [(&[&str], &str, &str); 4] = [
        (&["publish", "by-hand.jsonl", "--wait"], r#""settled":1"#, "Write on topic finflow.commands.v1"),
        (&["tail", "events", "--from", "beginning", "--exit-at-end"], "wallet.opened", "Read on topic finflow.events.v1"),
        (&["dlq", "list"], r#""code":"panicked""#, "Read on topic finflow.dlq.v1"),
        (&["dlq", "replay", "--yes"], r#""settled":1"#, "Read on topic finflow.dlq.v1"),
    ];
    let asked = |words: &[&str]| {
        let output = process.finflow(&[words, &["--format", "json"]].concat());
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    for (words, _, missing) in rows {
        eventually(|| match asked(words) {
            (Some(78), told) if told.contains(missing) => Ok(()),
            (code, told) => Err(format!("{words:?}: {code:?} {told}")),
        });
    }
    grant(cluster, &administrator(cluster, dir, vec![]), "gateway", ENGINE);
    for (words, expected, _) in rows {
        eventually(|| match asked(words) {
            // A first attempt may have sent it, and not have seen what came of it.
            (Some(0), told) if told.contains(expected) || told.contains(r#""verdict":"duplicate""#) => Ok(()),
            (code, told) => Err(format!("{words:?}: {code:?} {told}")),
        });
    }
    drop(service);
}

/// An application that has gone elsewhere sees what comes to where it was, once it may look.
pub(crate) fn the_successor_watches(cluster: &Cluster, dir: &Path) {
    let old = administrator(cluster, dir, vec![]);
    assert!(old.finflow(&["topics", "seal"]).status.success());
    let next: Vec<String> = ["--set", "topics.prefix=next", "--set", "topics.partitions=2"].map(str::to_owned).into();
    eventually(|| {
        let output = old.finflow(&["rescale", "--partitions", "2", "--to-prefix", "next"]);
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
    });
    let (user, _) = USERS[4];
    who_brings_a_state_is_told_what_he_lacks(cluster, dir, user);
    let dir = &dir.join("next");
    let process = signed_in(cluster, dir, user, next.clone());
    std::fs::create_dir(dir).expect("a directory");
    grant(cluster, &administrator(cluster, dir, next), "engine", user);
    let _service = process.run();
    let logged = || std::fs::read_to_string(dir.join("stderr.txt")).expect("a file");
    eventually(|| {
        let missing = "not authorized: Describe on topic finflow.commands.v1";
        let is_told = logged().lines().any(|line| line.contains("cannot be looked at") && line.contains(missing));
        if is_told { Ok(()) } else { Err(format!("it does not say what it cannot see: {}", logged())) }
    });
    grant(cluster, &old, "successor", user);
    assert!(old.finflow(&["topics", "unseal", "--yes"]).status.success());
    eventually(|| {
        // Until the broker has lifted the seal, it takes none.
        send(cluster, &[BY_PASSWORD]);
        let is_told = logged().contains("records come to a generation that was left");
        if is_told { Ok(()) } else { Err(format!("it does not see them: {}", logged())) }
    });
}

/// Whoever brings a state to new topics and may not write to one of them learns it, and which from the log, though the client library says
/// of its records only that they were not sent. What was begun is done by the next attempt.
fn who_brings_a_state_is_told_what_he_lacks(cluster: &Cluster, dir: &Path, user: &str) {
    let right = "--operation Write --topic bare.journal.v1";
    let bare: Vec<String> = ["--set", "topics.prefix=bare", "--set", "topics.partitions=2"].map(str::to_owned).into();
    eventually(|| {
        let output = administrator(cluster, dir, vec![]).finflow(&["state", "dump", "--into", "dump"]);
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
    });
    grant(cluster, &administrator(cluster, dir, bare.clone()), "engine", user);
    cluster.allow(user, "--operation Create --resource-pattern-type prefixed --topic bare.");
    cluster.revoke(user, right);
    let process = signed_in(cluster, dir, user, bare);
    let brought = || {
        let output = process.finflow(&["state", "restore", "dump"]);
        (output.status.code(), text(&output.stderr))
    };
    let (code, told) = brought();
    let is_told =
        ["Topic authorization failed", "bare.journal.v1", "`finflow topics acls`"].iter().all(|part| told.contains(part));
    assert!(code == Some(78) && is_told, "{code:?} {told}");
    cluster.allow(user, right);
    eventually(|| match brought() {
        (Some(0), _) => Ok(()),
        (code, told) => Err(format!("{code:?} {told}")),
    });
}
