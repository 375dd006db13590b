//! Halted partitions go on, whichever process an operator asks: from their positions once what has stopped them is mended, and from their
//! journals where the brokers have forgotten the positions.

use std::path::Path;

use finflow_ledger::WalletId;
use finflow_topologies::topics::partition_of_wallet;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;

use crate::asked::wallets;
use crate::broker::Broker;
use crate::process::{Process, Service, eventually};
use crate::three::{WALLETS, opened, transfers};

const PREFIX: &str = "resumed";
const PARTITIONS: u32 = 2;
const NAMES: [&str; 2] = ["one", "two"];
/// One that runs nothing, and asks the group.
const NOWHERE: &str = "nowhere";

fn process<'a>(dir: &'a Path, brokers: &'a str, name: &'a str) -> Process<'a> {
    Process { partitions: Some(PARTITIONS), ..Process::new(dir, name, brokers, PREFIX) }
}

/// Publishes a file's lines, each of which must be answered.
fn publish(process: &Process<'_>, lines: &str) {
    std::fs::write(process.dir.join("lines.jsonl"), lines).expect("a file");
    let told = process.json(&["publish", "lines.jsonl", "--wait"]);
    assert_eq!(told[0]["unanswered"], 0, "{told:?}");
}

/// Waits until every partition is in this state, and gives who has which.
fn all_are(asked: &Process<'_>, state: &str) -> Vec<String> {
    eventually(|| {
        // It fails where one is halted, and tells of all of them all the same.
        let output = asked.finflow(&["partitions", "--format", "json"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
        let owners: Vec<String> = told.iter().filter_map(|of| of["owner"].as_str().map(str::to_owned)).collect();
        let are = told.len() == PARTITIONS as usize
            && told.iter().all(|of| of["state"] == state)
            && owners.len() == PARTITIONS as usize;
        if are { Ok(owners) } else { Err(format!("not {state}: {told:?}")) }
    })
}

fn leave(process: &Process<'_>, mut service: Service) {
    assert!(process.finflow(&["leave"]).status.success());
    assert_eq!(service.ended(), Some(0));
}

/// What a resume says, which ends with this code; asked again while who has the partition does not answer.
fn resume(asked: &Process<'_>, arguments: &[&str], code: i32) -> String {
    eventually(|| {
        let output = asked.finflow(&[&["partitions", "resume"], arguments].concat());
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(75) {
            return Err(told);
        }
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        Ok(told)
    })
}

pub(crate) fn whoever_is_asked_has_partitions_go_on(broker: &Broker) {
    let (dir, address) = (tempfile::tempdir().expect("a directory"), broker.address());
    let of = |name| process(dir.path(), &address, name);
    let [one, two] = NAMES.map(of);
    let nowhere = of(NOWHERE);
    assert!(one.finflow(&["topics", "create"]).status.success());
    let service = one.run(1);
    publish(&one, &(opened() + &transfers(0, WALLETS)));
    let before = wallets(&one);
    let is_at_0 = |wallet: &String| partition_of_wallet(&WalletId::parse(wallet).expect("an id"), PARTITIONS) == 0;
    assert!(before.keys().any(is_at_0) && !before.keys().all(is_at_0), "both partitions have wallets");
    leave(&one, service);

    // Their directories are in each other's place: evidence that is kept, until somebody has put them right.
    let state = one.data_dir().join("state");
    let swap = || {
        for (from, to) in [("0", "x"), ("1", "0"), ("x", "1")] {
            std::fs::rename(state.join(from), state.join(to)).expect("a directory");
        }
    };
    swap();
    let first = one.run(1);
    all_are(&nowhere, "halted");
    let told = resume(&nowhere, &["0"], 1);
    assert!(told.contains("partition 0 is halted again: the store holds block"), "{told}");
    swap();
    for partition in ["0", "1"] {
        assert!(resume(&nowhere, &[partition], 0).contains("resumed"));
    }
    all_are(&nowhere, "running");
    assert!(resume(&nowhere, &["0"], 1).contains("partition 0 is not halted"));
    assert_eq!(wallets(&nowhere), before);

    // Two processes, which both come back to a group that has been forgotten.
    let second = two.run(1);
    let shared = || {
        let found = NAMES.map(|name| nowhere.partitions_of(name).len());
        if found == [1, 1] { Ok(()) } else { Err(format!("{found:?}")) }
    };
    eventually(shared);
    leave(&one, first);
    leave(&two, second);
    forgotten(&address);
    let _services = [one.run(1), two.run(1)];
    let owners = eventually(|| match all_are(&nowhere, "halted") {
        owners if NAMES.iter().all(|name| owners.iter().any(|owner| owner == name)) => Ok(owners),
        owners => Err(format!("{owners:?}")),
    });
    let other = if owners[1] == "one" { two } else { one };
    let told = resume(&other, &["1"], 1);
    assert!(told.contains("partition 1 is halted again") && told.contains("resume --from-journal"), "{told}");
    // Sealed, as an application is that was left for another: whether it was, nobody knows any more.
    assert!(other.finflow(&["topics", "seal"]).status.success());
    // The broker tells of it a moment later.
    let dry_run = |code| {
        eventually(|| {
            let output = nowhere.finflow(&["partitions", "resume", "1", "--from-journal", "--dry-run"]);
            let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            if output.status.code() == Some(code) { Ok(told) } else { Err(told) }
        })
    };
    assert!(dry_run(78).contains("`finflow topics unseal --yes`"));
    assert!(resume(&nowhere, &["--from-journal"], 78).contains("`finflow topics unseal --yes`"));
    let unseal = |options: &[&str]| {
        let output = other.finflow(&[&["topics", "unseal"], options].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, told) = unseal(&[]);
    assert!(code == Some(1) && told.contains("no position of") && told.contains("with --yes"), "{code:?} {told}");
    assert_eq!(unseal(&["--yes"]).0, Some(0));
    assert!(dry_run(0).contains("would go on"));
    all_are(&nowhere, "halted");
    assert!(resume(&other, &["1", "--from-journal"], 0).contains("resumed"));
    assert!(resume(&nowhere, &["--from-journal"], 0).contains("resumed"));
    all_are(&nowhere, "running");
    assert_eq!(wallets(&other), before);
    publish(&other, &(opened() + &transfers(0, WALLETS)));
    assert_eq!(wallets(&other), before, "what was carried out is not carried out again");
    publish(&other, &transfers(1, WALLETS));
    let balances = |wallets: &std::collections::BTreeMap<String, Value>| {
        wallets.values().map(|wallet| wallet["ledger"].clone()).collect::<Vec<_>>()
    };
    let after = wallets(&other);
    assert_eq!(balances(&after), balances(&before), "each has paid one and been paid by one");
    assert!(after.iter().all(|(name, wallet)| wallet["wallet_seq"] != before[name]["wallet_seq"]), "{after:?}");
}

/// Has the broker forget the group and its offsets, as it does where an application stands still for too long.
fn forgotten(brokers: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let deleted = runtime.block_on(admin.delete_groups(&[PREFIX], &AdminOptions::new())).expect("an answer");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
}
