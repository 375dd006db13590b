//! From 8 to 32 partitions on a real broker, with a kill in the middle: balances, records and sequences are the same, what was left is
//! untouched and watched, and a number of partitions that somebody else has changed is noticed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use finflow_actors::log::kafka::Settings;
use finflow_topologies::Topic;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;

use crate::asked::{admin, says, wallets};
use crate::broker::Broker;
use crate::http;
use crate::process::{Process, Service, eventually};
use crate::stray::Stray;

const WALLETS: usize = 100_000;
const ROUNDS: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(10);
const RESCALE: [&str; 5] = ["rescale", "--partitions", "32", "--to-prefix", "many"];

/// Wallets with money, and transfers between them; some fail.
fn commands(round: usize) -> String {
    use std::fmt::Write;
    let mut lines = String::new();
    for n in 0..WALLETS {
        let common = format!(r#""tenant":"acme","wallet":"w{n}""#);
        if round == 0 {
            let open = format!(
                r#""type":"open_wallet",{common},"idempotency_key":"o","currency":"AED","country":"AE","kind":"personal","holder":"H""#
            );
            let top_up = format!(
                r#""type":"top_up",{common},"idempotency_key":"t","amount":"10","currency":"AED","source":{{"account":"x"}}"#
            );
            writeln!(lines, "{{{open}}}\n{{{top_up}}}").expect("a text");
        }
        let (to, amount) = ((n * 7 + round + 1) % (WALLETS + 3), n % 13);
        let transfer = format!(
            r#""type":"transfer",{common},"idempotency_key":"{round}","to":"w{to}","amount":"{amount}.50","currency":"AED""#
        );
        writeln!(lines, "{{{transfer}}}").expect("a text");
    }
    lines
}

/// One past the last record of each partition of a topic; `None` where there is no such topic yet.
fn ends(broker: &Broker, topic: &str) -> Option<Vec<i64>> {
    let asker: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", broker.address()).set("group.id", "look").create().expect("a client");
    let metadata = asker.fetch_metadata(Some(topic), TIMEOUT).expect("a broker");
    let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none())?;
    let end = |partition: i32| asker.fetch_watermarks(topic, partition, TIMEOUT).ok().map(|(_, high)| high);
    found.partitions().iter().map(|partition| end(partition.id())).collect()
}

fn check(process: &Process<'_>, arguments: &[&str], code: i32, told: &str) {
    let output = process.finflow(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(errors.contains(told), "{arguments:?}: {errors}");
}

/// An application on 8 partitions, stopped and sealed, and its wallets.
fn old_application(old: &Process<'_>) -> BTreeMap<String, Value> {
    for round in 0..ROUNDS {
        std::fs::write(old.dir.join(format!("{round}.jsonl")), commands(round)).expect("a file");
    }
    assert!(old.finflow(&["topics", "create"]).status.success());
    let service = old.run(2);
    let published = old.json(&["publish", "0.jsonl", "--wait", "--timeout", "600"]);
    assert_eq!(published[0]["unanswered"], 0, "{published:?}");
    let before = wallets(old);
    assert_eq!(before.len(), WALLETS);
    check(old, &RESCALE, 75, "stop all of them first");
    assert!(old.finflow(&["leave"]).status.success());
    drop(service);
    check(old, &RESCALE, 1, "finflow topics seal");
    let cluster = Settings::new(old.brokers, old.prefix);
    // What a producer may still commit is nobody's to leave behind.
    let refused = |topic: Topic, stray: Stray| {
        let told = format!("a transaction is open on {}, partition 1", topic.name(old.prefix));
        check(old, &[&RESCALE[..], &["--dry-run"]].concat(), 1, &told);
        stray.abort();
    };
    let before_the_seal = Stray::open(&cluster, "left-before", Topic::Commands, 1);
    assert!(old.finflow(&["topics", "seal"]).status.success());
    refused(Topic::Commands, before_the_seal);
    refused(Topic::Postings, Stray::open(&cluster, "left-behind", Topic::Postings, 1));
    assert!(!old.finflow(&["publish", "1.jsonl"]).status.success(), "nothing comes in any more");
    check(old, &[&RESCALE[..], &["--dry-run"]].concat(), 0, "");
    before
}

/// Kills a rescale when the first block of the new application can be seen.
fn killed(broker: &Broker, old: &Process<'_>) {
    let mut running = Service(old.command(&RESCALE).spawn().expect("the program runs"));
    let begun = Instant::now();
    while !ends(broker, "many.journal.v1").is_some_and(|ends| ends.iter().all(|end| 0 < *end)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "no block is written");
        assert_eq!(running.0.try_wait().expect("a child"), None, "it ends before anything is there");
    }
    running.0.kill().expect("a child that runs");
    drop(running);
}

/// What must be the same in the new application, and how it goes on.
fn goes_on(new: &Process<'_>, before: &BTreeMap<String, Value>) -> Service {
    let service = new.run(2);
    // It answers before it has restored everything.
    eventually(|| {
        let partitions = new.json(&["partitions"]);
        let are_running = partitions.iter().all(|partition| partition["state"] == "running");
        if are_running { Ok(()) } else { Err(format!("not all of them run: {partitions:?}")) }
    });
    assert_eq!(wallets(new), *before);
    let published = new.json(&["publish", "0.jsonl", "--wait", "--timeout", "600"]);
    assert_eq!((&published[0]["applied"], &published[0]["unanswered"]), (&before.len().into(), &0.into()), "{published:?}");
    assert_eq!(new.events(), Vec::<Value>::new(), "nothing is told twice");
    assert_eq!(wallets(new), *before);
    new.json(&["publish", "1.jsonl", "--wait", "--timeout", "600"]);
    let mut last: BTreeMap<String, u64> =
        before.iter().map(|(wallet, row)| (wallet.clone(), row["wallet_seq"].as_u64().expect("a sequence"))).collect();
    let events = new.events();
    assert!(WALLETS <= events.len());
    for event in &events {
        let (event, last) = (&event["value"], last.get_mut(event["value"]["wallet"].as_str().expect("a wallet")));
        let last = last.expect("a wallet that was there");
        *last += 1;
        assert_eq!(event["wallet_seq"], *last, "it goes on without a gap");
    }
    let sum = |wallets: &BTreeMap<String, Value>| -> i64 {
        let minor = |text: &str| text.replace('.', "").parse::<i64>().expect("an amount");
        wallets.values().map(|wallet| minor(wallet["ledger"].as_str().expect("an amount"))).sum()
    };
    assert_eq!(sum(&wallets(new)), sum(before), "every cent is there");
    let verified = new.json(&["state", "verify"]);
    assert_eq!(verified.len(), 32);
    assert!(verified.iter().all(|partition| partition["differences"] == Value::Array(vec![])), "{verified:?}");
    service
}

/// The directories of an application whose topics are gone are adopted by new ones.
fn adopted(mut again: Process<'_>, before: &BTreeMap<String, Value>) {
    assert!(again.finflow(&["topics", "create"]).status.success());
    check(&again, &["wallet", "list"], 78, "belongs to the application eight on Kafka, not to again");
    check(&again, &["state", "adopt", "2", "--yes"], 3, "postings of partition");
    let adopt = ["state", "adopt", "0", "1", "2", "3", "4", "5", "6", "7", "--yes"];
    assert_eq!(again.json(&adopt).len(), 8);
    assert_eq!(wallets(&again), *before);
    again.name = "elsewhere";
    assert_eq!(wallets(&again), *before, "the log says so, not the directory");
}

pub(crate) fn eight_partitions_become_thirty_two(broker: &Broker) {
    let (dir, address) = (tempfile::tempdir().expect("a directory"), broker.address());
    let of = |name, prefix| Process::new(dir.path(), name, &address, prefix);
    let (old, mut new) = (of("one", "eight"), of("two", "many"));
    let begun = Instant::now();
    let before = old_application(&old);
    println!("    {} wallets on 8 partitions after {:.1} s", before.len(), begun.elapsed().as_secs_f64());
    let left: Vec<_> = ["commands", "postings", "events", "journal", "dlq"]
        .map(|topic| ends(broker, &format!("eight.{topic}.v1")).expect("a topic"))
        .into();

    killed(broker, &old);
    check(&old, &["rescale", "--partitions", "32", "--to-prefix", "other"], 1, "has moved to many with 32 partitions");
    assert_eq!(ends(broker, "other.journal.v1"), None, "nothing goes to two places");
    // Nobody is sure that the kill came before its end; where it did, nothing is served.
    let looked = new.finflow(&["wallet", "list", "--set", "topics.partitions=32"]);
    let is_part = String::from_utf8_lossy(&looked.stderr).contains("still being brought here");
    assert!(is_part || looked.status.success(), "{}", String::from_utf8_lossy(&looked.stderr));
    let begun = Instant::now();
    let done = old.json(&RESCALE);
    println!(
        "    killed {}, brought in {:.1} s: {}",
        if is_part { "in the middle" } else { "at the end" },
        begun.elapsed().as_secs_f64(),
        done[0]
    );
    assert_eq!((&done[0]["was_there"], &done[0]["wallets"]), (&(!is_part).into(), &before.len().into()));
    assert_eq!(old.json(&RESCALE)[0]["was_there"], true, "once is enough");
    let is_left: Vec<_> = ["commands", "postings", "events", "journal", "dlq"]
        .map(|topic| ends(broker, &format!("eight.{topic}.v1")).expect("a topic"))
        .into();
    assert_eq!(is_left, left, "what was left is untouched");
    assert_eq!(wallets(&old), before);
    adopted(of("one", "again"), &before);

    new.partitions = Some(32);
    let service = goes_on(&new, &before);
    let address = admin(&new);
    // Its directory is another application's by now.
    let old = of("three", "eight");
    check(&old, &["run"], 78, "has moved to many with 32 partitions");
    check(&old, &["topics", "unseal"], 1, "has moved to many with 32 partitions");
    check(&old, &["topics", "unseal", "--yes"], 0, "");
    broker.tool(
        &["org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", old.brokers, "--topic", "eight.commands.v1"],
        "late\n",
    );
    says(&address, "[!]eight.commands.v1 1 records have come since the application left it");
    assert!(http::get(&address, "/metrics").contains("finflow_former_generation_records{topic=\"eight.commands.v1\"} 1"));
    assert!(http::get(&address, "/readyz").starts_with("HTTP/1.1 200"), "that does not stop it");

    let alter = ["org.apache.kafka.tools.TopicCommand", "--bootstrap-server", old.brokers, "--alter", "--topic"];
    broker.tool(&[&alter[..], &["many.commands.v1", "--partitions", "33"]].concat(), "");
    says(&address, "[-]topics many.commands.v1 has 33 partitions, the application has 32");
    assert!(http::get(&address, "/readyz").starts_with("HTTP/1.1 503"));
    assert_eq!(wallets(&new).len(), before.len(), "it goes on all the same");
    drop(service);
    check(&new, &["run"], 78, "differ in their number of partitions");
    for topic in ["postings", "events", "journal", "dlq"] {
        broker.tool(&[&alter[..], &[&format!("many.{topic}.v1"), "--partitions", "33"]].concat(), "");
    }
    check(&new, &["run"], 78, "33 partitions, 32 are configured");
    new.partitions = Some(33);
    check(&new, &["topics", "create"], 78, "begun with 32 partitions, 33 are configured");
}
