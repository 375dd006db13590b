//! What operators must see first, at the addresses where their tools look: each figure is 0 while all is well, and says what is wrong while
//! it is. What an open transaction holds back is 0 again when that has ended; what is halted here stays so.

use finflow_actors::log::kafka::Settings;
use finflow_ledger::WalletId;
use finflow_topologies::Topic;
use finflow_topologies::topics::partition_of_wallet;

use crate::asked::{admin, figure, says};
use crate::broker::Broker;
use crate::http;
use crate::process::{Process, eventually};
use crate::stray::Stray;

const PARTITIONS: u32 = 2;
const PREFIX: &str = "seen";
const LEG: &str = "finflow_leg_oldest_seconds{partition=\"0\"}";
const COMMAND: &str = "finflow_command_oldest_seconds{partition=\"1\"}";
const RETENTION: &str = "finflow_commands_retention_used_ratio{partition=\"1\"}";
const HALTED: &str = "finflow_partition_halted{partition=\"1\"}";
/// Where an open transaction keeps somebody from what is behind it.
const HELD: [Topic; 4] = [Topic::Commands, Topic::Postings, Topic::Events, Topic::Journal];
/// How long commands are kept, in seconds.
const KEPT: f64 = 604_800.0;

/// The metrics of what is held back in a topic.
fn held_back(topic: Topic) -> [String; 2] {
    ["last_stable_offset_lag", "open_transaction_seconds"]
        .map(|name| format!("finflow_{name}{{topic=\"{topic}\",partition=\"0\"}}"))
}

/// Waits until a metric has reached so much.
fn reaches(address: &str, metric: &str, least: f64) {
    eventually(|| match figure(address, metric) {
        Some(found) if least <= found => Ok(()),
        found => Err(format!("{metric} is {found:?}, not {least}\n{}", http::get(address, "/readyz?verbose"))),
    });
}

/// The first wallet of a name of ours whose home is `partition`.
fn wallet_of(partition: u32) -> String {
    let is_there = |name: &String| {
        let id = WalletId::parse(name).expect("a wallet");
        partition_of_wallet(&id, PARTITIONS) == partition
    };
    (0..).map(|number| format!("w{number}")).find(is_there).expect("one of them")
}

pub(crate) fn what_operators_must_see_first_is_seen(broker: &Broker) {
    let (dir, address) = (tempfile::tempdir().expect("a directory"), broker.address());
    let cluster = Settings::new(&address, PREFIX);
    let process = Process { partitions: Some(PARTITIONS), ..Process::new(dir.path(), "seen", &address, PREFIX) };
    let [near, far] = [0, 1].map(wallet_of);
    let open = |wallet: &str| {
        format!(
            r#"{{"type":"open_wallet","tenant":"acme","wallet":"{wallet}","idempotency_key":"o","currency":"AED","country":"AE","kind":"personal","holder":"H"}}
{{"type":"top_up","tenant":"acme","wallet":"{wallet}","idempotency_key":"t","amount":"10","currency":"AED","source":{{"account":"x"}}}}
"#
        )
    };
    let transfer = |from: &str, to: &str| {
        format!(
            r#"{{"type":"transfer","tenant":"acme","wallet":"{from}","idempotency_key":"p","to":"{to}","amount":"1","currency":"AED"}}"#
        )
    };
    std::fs::write(dir.path().join("opened.jsonl"), open(&near) + &open(&far)).expect("a file");
    std::fs::write(dir.path().join("paid.jsonl"), format!("{}\n{}\n", transfer(&near, &far), transfer(&far, &near)))
        .expect("a file");
    assert!(process.finflow(&["topics", "create"]).status.success());
    let _service = process.run(1);
    assert_eq!(process.json(&["publish", "opened.jsonl", "--wait"])[0]["unanswered"], 0);
    let admin = admin(&process);
    let held: Vec<String> = HELD.into_iter().flat_map(held_back).collect();
    for metric in [LEG, COMMAND, RETENTION, HALTED].into_iter().chain(held.iter().map(String::as_str)) {
        eventually(|| figure(&admin, metric).ok_or_else(|| format!("{metric} is not there")));
        assert_eq!(figure(&admin, metric), Some(0.0), "{metric}");
    }
    says(&admin, "HTTP/1.1 200");

    // What is no posting has come to the postings of one partition: what another one owes it, and its commands, wait. And in each
    // topic of that other one somebody has begun a transaction, and does not end it.
    Stray::open(&cluster, "garbage", Topic::Postings, 1).commit();
    says(&admin, "[-]partition 1");
    says(&admin, "HTTP/1.1 503");
    assert!(process.finflow(&["publish", "paid.jsonl"]).status.success());
    reaches(&admin, LEG, 1.0);
    let left = HELD.map(|topic| Stray::open(&cluster, &format!("left in {topic}"), topic, 0));
    for (metric, least) in [(HALTED, 1.0), (COMMAND, 10.0)] {
        reaches(&admin, metric, least);
    }
    held.iter().for_each(|metric| reaches(&admin, metric, 1.0));
    let (waited, used) = (figure(&admin, COMMAND).expect("there"), figure(&admin, RETENTION).expect("there"));
    assert!(0.0 < used && (used * KEPT - waited).abs() < 30.0, "{used} of {KEPT} s, {waited} s");
    assert_eq!(figure(&admin, HALTED.replace('1', "0").as_str()), Some(0.0), "the other one goes on");
    left.into_iter().for_each(Stray::abort);
    for metric in &held {
        eventually(|| match figure(&admin, metric) {
            Some(0.0) => Ok(()),
            found => Err(format!("{metric} is still {found:?}")),
        });
    }
}
