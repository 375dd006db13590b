//! A whole state goes to another cluster: dumped from one broker and restored into another one, which has none of the first one's offsets.

use std::path::Path;

use serde_json::Value;

use crate::asked::wallets;
use crate::broker::Broker;
use crate::commands::COMMANDS;
use crate::process::Process;

const PREFIX: &str = "elsewhere";
/// How many partitions the application has where it goes.
const PARTITIONS_THERE: [Option<u32>; 2] = [None, Some(3)];

fn process<'a>(dir: &'a Path, name: &'a str, brokers: &'a str, partitions: Option<u32>) -> Process<'a> {
    Process { partitions, ..Process::new(dir, name, brokers, PREFIX) }
}

pub(crate) fn a_state_goes_to_another_broker(broker: &Broker) {
    let (dir, here) = (tempfile::tempdir().expect("a directory"), broker.address());
    let (middle, _) = COMMANDS.match_indices('\n').nth(COMMANDS.lines().count() / 2).expect("several lines");
    let (commands, later) = COMMANDS.split_at(middle + 1);
    std::fs::write(dir.path().join("commands.jsonl"), commands).expect("a file");
    std::fs::write(dir.path().join("later.jsonl"), later).expect("a file");
    let old = process(dir.path(), "here", &here, None);
    assert!(old.finflow(&["topics", "create"]).status.success());
    let service = old.run(1);
    assert_eq!(old.json(&["publish", "commands.jsonl", "--wait"])[0]["unanswered"], 0);
    let (before, told) = (wallets(&old), old.events().len());
    assert!(old.finflow(&["leave"]).status.success());
    drop(service);
    let dumped = &old.json(&["state", "dump", "--into", "dump"])[0];
    assert_eq!(dumped["wallets"], before.len());

    for (number, partitions) in PARTITIONS_THERE.into_iter().enumerate() {
        let (other, name) = (Broker::start(|_| vec![]), format!("there-{number}"));
        let there = other.address();
        let new = process(dir.path(), &name, &there, partitions);
        assert_eq!(new.finflow(&["state", "restore", "nothing"]).status.code(), Some(1), "there is no such dump");
        let restored = &new.json(&["state", "restore", "dump"])[0];
        assert_eq!((&restored["was_there"], &restored["wallets"]), (&false.into(), &before.len().into()), "{restored}");
        assert_eq!(new.json(&["state", "restore", "dump"])[0]["was_there"], true, "once is enough");
        let _service = new.run(1);
        assert_eq!(wallets(&new), before);
        assert_eq!(new.json(&["publish", "commands.jsonl", "--wait"])[0]["unanswered"], 0);
        assert_eq!(new.events(), Vec::<Value>::new(), "each command has been carried out already");
        assert_eq!(wallets(&new), before);
        assert_eq!(new.json(&["publish", "later.jsonl", "--wait"])[0]["unanswered"], 0);
        assert_ne!(new.events(), Vec::<Value>::new(), "it goes on");
        let verified = new.json(&["state", "verify"]);
        assert!(verified.iter().all(|partition| partition["differences"] == Value::Array(vec![])), "{verified:?}");
    }
    assert_eq!((wallets(&old), old.events().len()), (before, told), "where it came from is as it was");
}
