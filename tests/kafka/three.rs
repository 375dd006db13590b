//! Three processes that share the partitions of one application: asked, killed, restarted, sent away, stopped short, and without a
//! broker, under load. At the end every command has ended once and every cent is there.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use finflow_ledger::WalletId;
use finflow_topologies::topics::partition_of_wallet;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::broker::Broker;
use crate::process::{Process, Service, eventually};

/// Wallets, and transfers between them in each load.
pub(crate) const WALLETS: usize = 40;
const TRANSFERS: usize = 4_000;
const PARTITIONS: u32 = 8;
/// Of each process: members of the group by themselves.
const LANES: u32 = 2;
/// Until when the others must have what a process has left to them: far before they would miss it.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(3);
/// Longer than the session of a member and than an open transaction lasts.
const STANDSTILL: Duration = Duration::from_secs(14);
/// How long the brokers are gone: what gives up after a minute, or begins anew too often in it, is not to.
const OUTAGE: Duration = Duration::from_secs(65);
/// How long the broker may take for what it is asked by a foreign client.
const DEADLINE: Duration = Duration::from_secs(30);
const NAMES: [&str; 3] = ["one", "two", "three"];

pub(crate) struct Three<'a> {
    dir: &'a Path,
    brokers: &'a str,
    services: BTreeMap<&'static str, Service>,
    /// Transfers published so far.
    published: usize,
}

impl<'a> Three<'a> {
    pub(crate) fn start(dir: &'a Path, brokers: &'a str) -> Three<'a> {
        let mut three = Three { dir, brokers, services: BTreeMap::new(), published: 0 };
        assert!(three.process("one").finflow(&["topics", "create"]).status.success());
        NAMES.into_iter().for_each(|name| three.run(name));
        three.all_run(&NAMES);
        three.publish("opened.jsonl", &opened(), &["--wait"]);
        three
    }

    fn process(&self, name: &'a str) -> Process<'a> {
        Process::new(self.dir, name, self.brokers, "three")
    }

    fn run(&mut self, name: &'static str) {
        let service = self.process(name).run(LANES);
        self.services.insert(name, service);
    }

    /// Waits until these together run every partition, each at least one, and gives who runs what.
    fn all_run(&self, names: &[&'static str]) -> BTreeMap<u64, &'static str> {
        eventually(|| {
            let asked = self.process(names[0]);
            let of = |name: &'static str| asked.partitions_of(name).into_iter().map(move |partition| (partition, name));
            let all: BTreeMap<u64, &'static str> = names.iter().flat_map(|name| of(name)).collect();
            let has_some = |name: &&str| all.values().any(|owner| owner == name);
            let is_so = all.len() == PARTITIONS as usize && names.iter().all(has_some);
            let logs = || names.iter().map(|name| tail(&self.process(name).logged())).collect::<String>();
            if is_so { Ok(all) } else { Err(format!("{all:?} of {names:?}: {:?}\n{}", asked.json(&["partitions"]), logs())) }
        })
    }

    fn publish(&self, file: &str, lines: &str, more: &[&str]) {
        std::fs::write(self.dir.join(file), lines).expect("a file");
        let told = self.process("one").json(&[&["publish", file], more].concat());
        assert_eq!(told[0]["published"], lines.lines().count(), "{told:?}");
        assert!(more.is_empty() || told[0]["unanswered"] == 0, "{told:?}");
    }

    /// Publishes more transfers, and does not wait for them.
    fn load(&mut self) {
        let round = self.published / TRANSFERS;
        self.publish("transfers.jsonl", &transfers(round, TRANSFERS), &[]);
        self.published += TRANSFERS;
    }

    /// Waits until every transfer has ended; a transfer ends in one event `payment.*` of its own.
    fn all_end(&self) {
        eventually(|| match ended(&self.process("one").events()) {
            found if found == self.published => Ok(()),
            found => Err(format!("{found} of {} transfers have ended", self.published)),
        });
    }

    /// All wallets as a process tells them, once it can tell all.
    fn wallets(&self, name: &'a str) -> Vec<Value> {
        eventually(|| {
            let asked = self.process(name).finflow(&["wallet", "list", "--format", "json"]);
            let told = String::from_utf8_lossy(&asked.stderr).into_owned();
            // Whoever cannot answer says so, and never tells less than there is.
            assert!(matches!(asked.status.code(), Some(0 | 75)), "{:?} {told}", asked.status);
            if !asked.status.success() {
                assert!(told.contains("not available now, retry"), "{told}");
                return Err(told);
            }
            let text = String::from_utf8_lossy(&asked.stdout).into_owned();
            Ok(text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect())
        })
    }

    pub(crate) fn each_answers_for_all(&mut self) {
        let due = self.wallets("one");
        assert_eq!(due.len(), WALLETS);
        // One that has a service, and one that has none and asks the group.
        for name in ["two", "three", "nowhere"] {
            assert_eq!(self.wallets(name), due, "{name}");
        }
        let payment = self.process("one").events()[0]["value"]["payment"].as_str().expect("a payment").to_owned();
        for name in NAMES {
            let shown = self.process(name).json(&["payment", "show", &payment]);
            assert_eq!(shown[0]["payment"], Value::from(payment.clone()), "{name}");
        }
        // Answers of other processes are waited for, wherever the line is published.
        self.publish("transfers.jsonl", &transfers(0, TRANSFERS), &["--wait"]);
        self.published += TRANSFERS;
        self.each_reads_all_of_the_state();
        self.each_tells_how_all_are();
        let stranger = Process { secret: "another", ..self.process("nowhere") };
        let refused = stranger.finflow(&["wallet", "list"]);
        assert_eq!(refused.status.code(), Some(75), "{}", String::from_utf8_lossy(&refused.stderr));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("internal.secret"), "the cause is told");
    }

    /// Any process tells who has what, and what a foreign transaction holds back.
    fn each_tells_how_all_are(&self) {
        let owners = self.all_run(&NAMES);
        let mut config = rdkafka::ClientConfig::new();
        config.set("bootstrap.servers", self.brokers).set("transactional.id", "foreign").set("transaction.timeout.ms", "60000");
        let foreign: BaseProducer = config.create().expect("a client");
        foreign.init_transactions(DEADLINE).expect("a coordinator");
        foreign.begin_transaction().expect("a transaction");
        let record = BaseRecord::<str, str>::to("three.commands.v1").partition(3).key("w0").payload("{}");
        foreign.send(record).map_err(|(error, _)| error).expect("a queue");
        foreign.flush(DEADLINE).expect("a broker");
        let held_back = |name: &'static str, is_so: fn(&Value) -> bool| {
            eventually(|| {
                let told = self.process(name).json(&["partitions"]);
                let named = |(partition, owner): (&u64, &&str)| told[*partition as usize]["owner"] == **owner;
                assert!(owners.iter().all(named), "{owners:?}: {told:?}");
                if is_so(&told[3]["open_transaction"]) { Ok(()) } else { Err(format!("{:?}", told[3])) }
            })
        };
        let is_seen = |found: &Value| {
            found["topic"] == "commands" && found["lag"] == 1 && found["for_ms"].as_u64().is_some_and(|ms| 0 < ms)
        };
        NAMES.into_iter().for_each(|name| held_back(name, is_seen));
        foreign.abort_transaction(DEADLINE).expect("an end");
        held_back("nowhere", Value::is_null);
    }

    /// Every partition is verified and kept where it runs, whoever is asked.
    fn each_reads_all_of_the_state(&self) {
        let blocks = |told: &[Value]| told.iter().map(|of| of["block"].as_u64().expect("a block")).collect::<Vec<_>>();
        for name in ["one", "nowhere"] {
            let kept = blocks(&self.process(name).json(&["state", "snapshot"]));
            let verified = self.process(name).json(&["state", "verify", "--snapshots"]);
            assert_eq!(verified.len(), PARTITIONS as usize, "{name}: {verified:?}");
            assert!(verified.iter().all(|of| of["differences"] == Value::Array(vec![])), "{verified:?}");
            let newest = |of: &Value| of["snapshots"][0].as_u64();
            assert_eq!(verified.iter().filter_map(newest).collect::<Vec<_>>(), kept, "{name}");
        }
        let places =
            |name: &str| std::fs::read_dir(self.dir.join(name).join("snapshots")).is_ok_and(|mut found| found.next().is_some());
        assert!(NAMES.into_iter().all(places) && !places("nowhere"), "each has kept its own");
    }

    pub(crate) fn one_is_killed_under_load(&mut self) {
        let before = self.all_run(&NAMES);
        self.load();
        drop(self.services.remove("two"));
        let begun = Instant::now();
        // Nobody has them yet: they are named, and the others are verified all the same.
        let verified = self.process("one").finflow(&["state", "verify", "--format", "json"]);
        let told = String::from_utf8_lossy(&verified.stderr).into_owned();
        let first = before.iter().find(|(_, owner)| **owner == "two").expect("it had some").0;
        assert_eq!(verified.status.code(), Some(75), "{told}");
        assert!(told.contains(&format!("partition {first} is not available now, retry")), "{told}");
        let others = before.values().filter(|owner| **owner != "two").count();
        assert!(others <= String::from_utf8_lossy(&verified.stdout).lines().count());
        let lost = before.values().filter(|owner| **owner == "two").count();
        let taken = self.all_run(&["one", "three"]);
        println!("    {lost} partitions are taken over after {:.1} s: {taken:?}", begun.elapsed().as_secs_f64());
        self.all_end();
        let due = self.wallets("one");
        assert_eq!(due.len(), WALLETS);
        assert_eq!(self.wallets("three"), due);
        self.run("two");
        self.all_run(&NAMES);
        assert_eq!(self.wallets("two"), due);
        // The same commands again change nothing.
        self.publish("transfers.jsonl", &transfers(1, TRANSFERS), &["--wait"]);
        self.all_end();
        assert_eq!(self.wallets("two"), due);
    }

    pub(crate) fn one_restarts(&mut self) {
        let before = self.all_run(&NAMES);
        let mut service = self.services.remove("two").expect("a service");
        let begun = Instant::now();
        service.signal("TERM");
        assert_eq!(service.ended(), Some(0));
        self.run("two");
        let after = self.all_run(&NAMES);
        println!("    back after {:.1} s", begun.elapsed().as_secs_f64());
        assert_eq!(after, before, "nothing has moved");
        let others = ["one", "three"].map(|name| self.process(name).logged());
        assert!(others.iter().all(|log| !log.contains("not released in time")), "nobody was disturbed");
    }

    pub(crate) fn one_leaves(&mut self) {
        let hand_over = |three: &Three<'_>, name: &str, begun: Instant| {
            let left = Instant::now();
            three.all_run(&["one", "three"]);
            let took = begun.elapsed();
            println!("    {name}: the others run everything {:.1} s after it began to leave", took.as_secs_f64());
            assert!(left.elapsed() < HANDED_OVER_WITHIN, "{:?} after it had left", left.elapsed());
        };
        let mut service = self.services.remove("two").expect("a service");
        let begun = Instant::now();
        let left = self.process("two").finflow(&["leave"]);
        assert!(left.status.success(), "{}", String::from_utf8_lossy(&left.stderr));
        hand_over(self, "finflow leave", begun);
        assert_eq!(service.ended(), Some(0));
        let nobody = self.process("two").finflow(&["leave"]);
        assert_eq!(nobody.status.code(), Some(1), "no service runs there any more");

        let mut service = self.process("two").run_with(LANES, &["--leave-on-exit"]);
        self.all_run(&NAMES);
        service.signal("TERM");
        let begun = Instant::now();
        assert_eq!(service.ended(), Some(0));
        hand_over(self, "run --leave-on-exit", begun);
        self.run("two");
        self.all_run(&NAMES);
    }

    pub(crate) fn one_stands_still(&mut self) {
        let before = self.all_run(&NAMES);
        self.load();
        let mut service = self.services.remove("two").expect("a service");
        service.signal("STOP");
        let stopped = Instant::now();
        // It is asked meanwhile for a wallet of its own, and will find the question when it wakes up.
        let is_its = |wallet: &String| {
            let id = WalletId::parse(wallet).expect("an id");
            before.get(&u64::from(partition_of_wallet(&id, PARTITIONS))) == Some(&"two")
        };
        let wallet = (0..WALLETS).map(|n| format!("w{n}")).find(is_its).expect("a wallet of its own");
        let mut late = self.process("two").command(&["wallet", "show", &wallet, "--format", "json"]);
        let late = late.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
        let its = before.iter().find(|(_, name)| **name == "two").map(|(partition, _)| partition.to_string());
        let resumed = self.process("one").finflow(&["partitions", "resume", &its.expect("a partition of its own")]);
        let told = String::from_utf8_lossy(&resumed.stderr).into_owned();
        assert!(resumed.status.code() == Some(75) && told.contains("is not available now, retry"), "{told}");
        self.all_run(&["one", "three"]);
        println!("    taken over after {:.1} s", stopped.elapsed().as_secs_f64());
        self.all_end();
        let due = self.wallets("one");
        eventually(|| if STANDSTILL < stopped.elapsed() { Ok(()) } else { Err("it stands still".to_owned()) });
        service.signal("CONT");
        let woken = Instant::now();
        assert_eq!(service.ended(), Some(75), "{}", self.process("two").logged());
        println!("    ended {:.1} s after it woke up", woken.elapsed().as_secs_f64());
        let log = self.process("two").logged();
        let told: Vec<&str> = log.lines().filter(|line| line.starts_with("finflow: ")).collect();
        assert!(told.len() == 1 && told[0].contains("stood still"), "{log}");
        let late = late.wait_with_output().expect("an end");
        let shown: Option<Value> = serde_json::from_slice(&late.stdout).ok();
        let now = due.iter().find(|of| of["wallet"] == wallet.as_str());
        assert!(shown.is_none() || shown.as_ref() == now, "a stale answer: {shown:?}, {now:?}");
        assert_eq!(self.wallets("three"), due, "it has changed nothing");
        self.run("two");
        self.all_run(&NAMES);
        self.all_end();
    }

    pub(crate) fn its_name_is_taken(&mut self) {
        self.load();
        let elsewhere = self.dir.join("elsewhere");
        let twin = Process { dir: &elsewhere, ..self.process("two") };
        let mut older = self.services.remove("two").expect("a service");
        let mut younger = twin.run(LANES);
        let has_ended = |service: &mut Service, log: &dyn Fn() -> String| {
            assert_eq!(service.ended(), Some(75), "{}", log());
            assert!(log().contains("another process has taken this one's node.id"), "{}", log());
        };
        has_ended(&mut older, &|| self.process("two").logged());
        self.all_run(&NAMES);
        self.all_end();
        let due = self.wallets("one");
        assert_eq!(twin.finflow(&["wallet", "list"]).status.code(), Some(0), "the younger one answers");
        // And back: whoever comes later has the name.
        self.load();
        self.run("two");
        has_ended(&mut younger, &|| twin.logged());
        self.all_run(&NAMES);
        self.all_end();
        assert_ne!(self.wallets("two"), due, "it has gone on");
    }

    /// The code and body of `/readyz?verbose`.
    fn ready(&mut self, name: &'a str) -> (u16, String) {
        let log = self.process(name).logged();
        let address = log.lines().find_map(|line| line.split_once("admin listener address=")).expect("a listener").1;
        let asked = TcpStream::connect(address.trim()).and_then(|mut stream| {
            stream.write_all(b"GET /readyz?verbose HTTP/1.1\r\nhost: finflow\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        });
        let answer = asked.unwrap_or_else(|error| {
            let ended = self.services.get_mut(name).map(Service::ended);
            panic!("{name} does not answer: {error}; it ended with {ended:?}:\n{}", tail(&self.process(name).logged()))
        });
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
        (code, answer)
    }

    /// Who has ended, and what was said last.
    fn fallen(&mut self) -> Vec<String> {
        let ended = |service: &mut Service| service.0.try_wait().expect("a child");
        let ended: Vec<_> = self.services.iter_mut().filter_map(|(name, service)| Some((*name, ended(service)?))).collect();
        ended
            .iter()
            .map(|(name, status)| format!("{name} ended with {status}:\n{}", tail(&self.process(name).logged())))
            .collect()
    }

    /// Whether a process has ended because a call hung in the client library, as one may that was under way when the broker went; its
    /// supervisor starts it again.
    fn has_hung(&mut self, name: &'static str) -> bool {
        let ended = self.services.get_mut(name).and_then(|service| service.0.try_wait().expect("a child"));
        let is_temporary = ended.is_some_and(|status| status.code() == Some(75));
        is_temporary && self.process(name).logged().contains("the Kafka client has not answered")
    }

    pub(crate) fn the_broker_is_gone(&mut self, broker: &Broker) {
        let becomes = |three: &mut Self, due: u16, what: &str| {
            for name in NAMES {
                eventually(|| match three.ready(name) {
                    (code, body) if code == due && body.contains(what) => Ok(()),
                    (code, body) => Err(format!("{name}: {code} {body}")),
                });
            }
        };
        becomes(self, 200, "ok");
        self.load();
        broker.stop();
        let begun = Instant::now();
        let gone = format!("[-]log the brokers {}", self.brokers);
        becomes(self, 503, &gone);
        println!("    told after {:.1} s", begun.elapsed().as_secs_f64());
        // Once the lease is over, nobody knows whether they are still its own.
        eventually(|| match self.process("three").finflow(&["wallet", "list"]).status.code() {
            Some(75) => Ok(()),
            other => Err(format!("wallets are told while nobody knows whose they are: {other:?}")),
        });
        eventually(|| if OUTAGE < begun.elapsed() { Ok(()) } else { Err("it is too early".to_owned()) });
        broker.go_on();
        let back = Instant::now();
        for name in NAMES.into_iter().filter(|name| self.has_hung(name)).collect::<Vec<_>>() {
            println!("    {name} is started again: its Kafka client hung");
            self.run(name);
        }
        becomes(self, 200, "ok");
        self.all_run(&NAMES);
        println!("    everything runs again {:.1} s after it is back", back.elapsed().as_secs_f64());
        self.all_end();
        // A member that the coordinator does not know under its name alone has found that nobody else has taken it.
        assert_eq!(self.fallen(), Vec::<String>::new(), "nobody else has to be started again");
    }

    pub(crate) fn check(&mut self) {
        self.all_end();
        let is_quiet = || {
            let events = self.process("one").events();
            let values: Vec<Vec<u8>> = events.iter().map(|line| line["value"].to_string().into_bytes()).collect();
            let audit = finflow_topologies::simulation::audit(values.iter().map(Vec::as_slice));
            match audit.sums.get("AED") {
                Some(sum) if *sum == WALLETS as i128 * 10_000 && audit.faults.is_empty() => Ok(()),
                _ => Err(format!("{:?}, {:?}", audit.sums, audit.faults)),
            }
        };
        eventually(is_quiet);
        let verified = self.process("one").json(&["state", "verify"]);
        assert!(verified.iter().all(|partition| partition["differences"] == Value::Array(vec![])), "{verified:?}");
        assert_eq!(verified.len(), PARTITIONS as usize, "every partition has been read where it runs");
    }
}

pub(crate) fn opened() -> String {
    let wallet = |n: usize| {
        let open = format!(
            r#"{{"type":"open_wallet","tenant":"acme","idempotency_key":"o","wallet":"w{n}","currency":"AED","country":"AE","kind":"personal","holder":"H"}}"#
        );
        let top_up = format!(
            r#"{{"type":"top_up","tenant":"acme","idempotency_key":"t","wallet":"w{n}","amount":"100","currency":"AED","source":{{"account":"till"}}}}"#
        );
        format!("{open}\n{top_up}\n")
    };
    (0..WALLETS).map(wallet).collect()
}

pub(crate) fn transfers(round: usize, count: usize) -> String {
    let transfer = |n: usize| {
        let (from, to) = (n % WALLETS, (n * 7 + 1) % WALLETS);
        format!(
            r#"{{"type":"transfer","tenant":"acme","idempotency_key":"r{round}-{n}","wallet":"w{from}","to":"w{to}","amount":"1.25","currency":"AED"}}"#
        ) + "\n"
    };
    (0..count).map(transfer).collect()
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n") + "\n\n"
}

fn ended(events: &[Value]) -> usize {
    let is_end = |line: &&Value| {
        let ends = ["payment.settled", "payment.rejected"];
        line["value"]["type"] == "transfer" && line["value"]["event"].as_str().is_some_and(|event| ends.contains(&event))
    };
    events.iter().filter(is_end).count()
}
