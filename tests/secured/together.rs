//! Two processes of one application under exactly the rights that are printed for it: they share the partitions, pay across them through
//! the log, and ask each other. Where they are asked is committed to a group of its own, and without the right to that nobody is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use finflow_actors::log::kafka::{KafkaLog, Settings};
use finflow_ledger::WalletId;
use finflow_topologies::Topic;
use finflow_topologies::log::Log;
use finflow_topologies::simulation::{Audit, audit};
use finflow_topologies::topics::partition_of_wallet;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, TopicPartitionList};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::{CANARY, DEADLINE, ENGINE, Process, administrator, eventually, grant, keep_secret, send_to, signed_in, text};

const PREFIX: &str = "together";
/// Each of them is home to some of the wallets.
const PARTITIONS: u32 = 4;
const SECRET: &str = "between-processes-CANARY-4d0b";
/// The two that run, and one that only asks.
const NAMES: [&str; 3] = ["one", "two", "nowhere"];
/// To say where one is asked, and to read where the others are.
const SAYS: &str = "--operation Read --group together.addresses";
const WALLETS: usize = 16;
/// What each has at first, in minor units.
const TOP_UP: i128 = 10_000;
/// Transfers of a round.
const TRANSFERS: usize = 64;
const FETCH_BYTES: usize = 1 << 20;

pub(crate) fn two_processes_are_one_application(cluster: &Cluster, dir: &Path) {
    let dir = dir.join(PREFIX);
    let homes = NAMES.map(|name| dir.join(name));
    homes.iter().for_each(|home| std::fs::create_dir_all(home).expect("a directory"));
    let common = made_with_rights(cluster, &dir);
    // Of several settings of one name the last one counts.
    let named = |name: &str| [&common[..], &["--set".to_owned(), format!("node.id={name}")]].concat();
    let [one, two, nowhere] = [0, 1, 2].map(|n| signed_in(cluster, &homes[n], ENGINE, named(NAMES[n])));
    let log = KafkaLog::open(Settings::new(&cluster.plain(), PREFIX)).expect("the log");

    cluster.revoke(ENGINE, SAYS);
    let _one_runs = one.run();
    publish(cluster, &opened());
    all_have_settled(&log, 0);
    // The second one is given some of what the first one has, and restores it.
    let _two_runs = two.run();
    nobody_is_asked_without_the_right(cluster, &homes[0], [&one, &two, &nowhere]);
    cluster.allow(ENGINE, SAYS);
    let owners = shared(&one, &two);
    each_says_where_it_is_asked(cluster, &owners);

    let before = postings(&log);
    // Twice: the second time each is a duplicate.
    (0..2).for_each(|_| publish(cluster, &transfers(0)));
    all_have_settled(&log, 1);
    assert!(before < postings(&log), "what goes to the other process goes through the log");
    each_answers_for_the_other(&one, &two, &owners);
    assert_eq!(shared(&one, &two), owners, "nothing has moved meanwhile");
    let listed = eventually(|| json(&nowhere, &["wallet", "list"]));
    assert_eq!(listed.len(), WALLETS, "who runs nothing finds one that answers for all");

    the_other_goes_on_alone(&one, &two);
    // Each wallet pays again, behind the duplicates in its partition: all of those have been seen when this has settled.
    publish(cluster, &transfers(1));
    all_have_settled(&log, 2);
    assert!(one.finflow(&["leave"]).status.success(), "the last one leaves too");
    homes[..2].iter().for_each(|home| no_secret_is_logged(home));
}

/// Makes the topics, grants what is printed, and gives the options that all processes have in common.
fn made_with_rights(cluster: &Cluster, dir: &Path) -> Vec<String> {
    let common = dir.join("common.toml");
    let internal = format!("[internal]\nlisten = \"127.0.0.1:0\"\nsecret = \"{SECRET}\"\n");
    keep_secret(&common, &format!("{internal}[topics]\nprefix = \"{PREFIX}\"\npartitions = {PARTITIONS}\n"));
    let options = vec!["--config".to_owned(), common.display().to_string()];
    let admin = administrator(cluster, dir, options.clone());
    let made = admin.finflow(&["topics", "create"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    for (role, user) in [("engine", ENGINE), ("producer", "upstream")] {
        grant(cluster, &admin, role, user);
    }
    options
}

/// Each goes on with what it has, and tells of nothing else; who asks what is missing is told.
fn nobody_is_asked_without_the_right(cluster: &Cluster, home: &Path, [one, two, nowhere]: [&Process<'_>; 3]) {
    let owners: BTreeMap<u32, String> = eventually(|| {
        let (ones, twos) = (running(one)?, running(two)?);
        let is_its_own =
            |found: &BTreeMap<u32, String>, name: &str| !found.is_empty() && found.values().all(|owner| owner == name);
        let is_so = is_its_own(&ones, NAMES[0]) && is_its_own(&twos, NAMES[1]) && ones.len() + twos.len() == PARTITIONS as usize;
        if is_so { Ok(ones.into_iter().chain(twos).collect()) } else { Err(format!("{ones:?}, {twos:?}")) }
    });
    let is_twos = |wallet: &String| owner_of(wallet, &owners) == NAMES[1];
    let wallet = (0..WALLETS).map(wallet_of).find(is_twos).expect("each has some");
    let shown = one.finflow(&["wallet", "show", &wallet]);
    let told = text(&shown.stderr);
    assert!(shown.status.code() == Some(75) && told.contains("is not available now, retry"), "{:?} {told}", shown.status);
    eventually(|| {
        let listed = nowhere.finflow(&["wallet", "list"]);
        let told = text(&listed.stderr);
        let is_told = told.contains("not authorized: Read on group together.addresses;");
        if listed.status.code() == Some(78) && is_told { Ok(()) } else { Err(format!("{:?} {told}", listed.status)) }
    });
    assert_eq!(said(cluster), BTreeMap::new(), "nobody has said anything");
    eventually(|| {
        let logged = std::fs::read_to_string(home.join("stderr.txt")).expect("a file");
        let told = logged.matches("not authorized: Read on group together.addresses").count();
        // Once, however often it is tried.
        if told == 1 { Ok(()) } else { Err(format!("told {told} times: {logged}")) }
    });
}

/// For every partition its owner has committed where it is asked, and each of the two is asked at one place of its own.
fn each_says_where_it_is_asked(cluster: &Cluster, owners: &BTreeMap<u32, String>) {
    let said = said(cluster);
    let of = |name: &str| {
        let its = owners.iter().filter(|(_, owner)| *owner == name);
        its.map(|(partition, _)| said.get(partition)).collect::<BTreeSet<_>>()
    };
    let (ones, twos) = (of(NAMES[0]), of(NAMES[1]));
    let is_each_at_one = ones.len() == 1 && twos.len() == 1 && ones != twos;
    assert!(said.len() == PARTITIONS as usize && is_each_at_one, "{said:?} of {owners:?}");
    assert!(said.values().all(|address| address.starts_with("127.0.0.1:")), "{said:?}");
}

/// Of every wallet that process is asked at its own socket which does not have it, and can know only what the other one answers.
fn each_answers_for_the_other(one: &Process<'_>, two: &Process<'_>, owners: &BTreeMap<u32, String>) {
    for (wallet, minor) in expected(1) {
        let asked = if owner_of(&wallet, owners) == NAMES[0] { two } else { one };
        let shown = eventually(|| json(asked, &["wallet", "show", &wallet]));
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert_eq!((&shown[0]["wallet"], &shown[0]["available"]), (&wallet.into(), &amount(minor).into()), "{shown:?}");
        assert_eq!(shown[0]["held"], "0.00", "{shown:?}");
    }
}

/// What the second one had is the first one's as soon as it has left.
fn the_other_goes_on_alone(one: &Process<'_>, two: &Process<'_>) {
    let left = two.finflow(&["leave"]);
    assert!(left.status.success(), "{}", text(&left.stderr));
    eventually(|| match running(one)? {
        all if all.len() == PARTITIONS as usize && all.values().all(|owner| owner == NAMES[0]) => Ok(()),
        some => Err(format!("the one that is left runs only {some:?}")),
    });
}

fn no_secret_is_logged(home: &Path) {
    let logged = std::fs::read_to_string(home.join("stderr.txt")).expect("a file");
    let leaks: Vec<&str> = logged.lines().filter(|line| line.contains(CANARY)).collect();
    assert!(logged.contains("running") && leaks.is_empty(), "{leaks:?}");
}

/// Waits until both tell the same of every partition, and each has some, and gives who has what.
fn shared(one: &Process<'_>, two: &Process<'_>) -> BTreeMap<u32, String> {
    eventually(|| {
        let (by_one, by_two) = (running(one)?, running(two)?);
        let owners: BTreeSet<&str> = by_one.values().map(String::as_str).collect();
        let is_shared = by_one.len() == PARTITIONS as usize && owners == BTreeSet::from([NAMES[0], NAMES[1]]);
        if is_shared && by_one == by_two { Ok(by_one) } else { Err(format!("{by_one:?}, {by_two:?}")) }
    })
}

/// Who runs which partition, of those that the process knows of from whoever runs them: itself, or another one that it has asked.
fn running(process: &Process<'_>) -> Result<BTreeMap<u32, String>, String> {
    let told = json(process, &["partitions"])?;
    let of = |row: &Value| Some((row["partition"].as_u64()? as u32, row["owner"].as_str()?.to_owned()));
    Ok(told.iter().filter(|row| row["state"] == "running").filter_map(of).collect())
}

/// What a command tells, or why it does not.
fn json(process: &Process<'_>, arguments: &[&str]) -> Result<Vec<Value>, String> {
    let output = process.finflow(&[arguments, &["--format", "json"]].concat());
    if !output.status.success() {
        return Err(format!("{arguments:?}: {:?} {}", output.status, text(&output.stderr)));
    }
    Ok(text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

/// Where the owners have said that they are asked, as the administrator sees the positions of their group.
fn said(cluster: &Cluster) -> BTreeMap<u32, String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.plain()).set("group.id", format!("{PREFIX}.addresses"));
    let asker: BaseConsumer = config.create().expect("a client");
    let (commands, mut places) = (Topic::Commands.name(PREFIX), TopicPartitionList::new());
    for partition in 0..PARTITIONS {
        places.add_partition(&commands, partition as i32);
    }
    let found = asker.committed_offsets(places, DEADLINE).expect("positions");
    let address = |text: &str| text.rsplit_once(' ').map(|(_, address)| address.to_owned());
    let places = found.elements();
    places.iter().filter_map(|place| Some((place.partition() as u32, address(place.metadata())?))).collect()
}

/// How much has been sent through the log.
fn postings(log: &KafkaLog) -> u64 {
    (0..PARTITIONS).map(|partition| log.range(Topic::Postings, partition).expect("a range").end).sum()
}

/// Waits until every wallet is open and so many rounds of transfers have settled, each once and with nothing besides.
fn all_have_settled(log: &KafkaLog, rounds: usize) {
    let transfers = (rounds * TRANSFERS) as u64;
    let due =
        [("wallet.opened", WALLETS as u64), ("payment.settled", WALLETS as u64 + transfers), ("wallet.credited", transfers)];
    let due = due.into_iter().filter(|(_, count)| *count != 0).map(|(event, count)| (event.to_owned(), count));
    let due: BTreeMap<String, u64> = due.collect();
    let found = eventually(|| match audited(log)? {
        found if found.outcomes == due => Ok(found),
        found => Err(format!("{:?}, not {due:?}", found.outcomes)),
    });
    assert!(found.faults.is_empty(), "{:?}", found.faults);
    let balances: BTreeMap<String, i128> = found.balances.into_iter().map(|(wallet, (_, minor))| (wallet, minor)).collect();
    assert_eq!(balances, expected(rounds));
}

/// What the events tell, all that there are.
fn audited(log: &KafkaLog) -> Result<Audit, String> {
    let mut events = Vec::new();
    for partition in 0..PARTITIONS {
        let mut left = log.range(Topic::Events, partition).map_err(|error| error.to_string())?;
        while !left.is_empty() {
            let fetched = log.fetch(Topic::Events, partition, left.start, FETCH_BYTES).map_err(|error| error.to_string())?;
            left.start = fetched.next;
            events.extend(fetched.records.into_iter().filter_map(|record| record.value));
        }
    }
    Ok(audit(events))
}

fn publish(cluster: &Cluster, commands: &[String]) {
    send_to(cluster, PREFIX, &commands.iter().map(String::as_str).collect::<Vec<_>>());
}

fn wallet_of(n: usize) -> String {
    format!("w{n}")
}

fn owner_of<'a>(wallet: &str, owners: &'a BTreeMap<u32, String>) -> &'a str {
    &owners[&partition_of_wallet(&WalletId::parse(wallet).expect("an id"), PARTITIONS)]
}

fn opened() -> Vec<String> {
    let commands = |n: usize| {
        let open = format!(
            r#"{{"type":"open_wallet","tenant":"acme","idempotency_key":"o","wallet":"w{n}","currency":"AED","country":"AE","kind":"personal","holder":"H"}}"#
        );
        let top_up = format!(
            r#"{{"type":"top_up","tenant":"acme","idempotency_key":"t","wallet":"w{n}","amount":"{}","currency":"AED","source":{{"account":"till"}}}}"#,
            amount(TOP_UP)
        );
        [open, top_up]
    };
    (0..WALLETS).flat_map(commands).collect()
}

/// From whom to whom, and how much in minor units. The first ones lead through all wallets, and so from each process to the other.
fn transfer(n: usize) -> (usize, usize, i128) {
    (n % WALLETS, (n + 1 + n / WALLETS) % WALLETS, 100 + n as i128)
}

fn transfers(round: usize) -> Vec<String> {
    let command = |n: usize| {
        let (from, to, minor) = transfer(n);
        format!(
            r#"{{"type":"transfer","tenant":"acme","idempotency_key":"r{round}-{n}","wallet":"w{from}","to":"w{to}","amount":"{}","currency":"AED"}}"#,
            amount(minor)
        )
    };
    (0..TRANSFERS).map(command).collect()
}

/// What each wallet has after so many rounds, in minor units.
fn expected(rounds: usize) -> BTreeMap<String, i128> {
    let mut minor = [TOP_UP; WALLETS];
    for (from, to, moved) in (0..TRANSFERS * rounds).map(|n| transfer(n % TRANSFERS)) {
        minor[from] -= moved;
        minor[to] += moved;
    }
    minor.into_iter().enumerate().map(|(n, minor)| (wallet_of(n), minor)).collect()
}

fn amount(minor: i128) -> String {
    format!("{}.{:02}", minor / 100, minor % 100)
}
