//! Settings of topics with which something is lost, or told with another time: found by `topics check`, told by who runs, and where it is
//! committed state that is lost, a start is refused. What is stricter than needed is nobody's concern.

use std::collections::BTreeMap;

use finflow_topologies::Topic;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ConfigSource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use crate::asked::{admin, figure, says};
use crate::broker::Broker;
use crate::http;
use crate::process::{Process, eventually};

const PREFIX: &str = "settings";
const LOOSE: &str = "finflow_topic_settings_loose";
/// Topic, setting, what somebody sets it to, what is said of it (nothing where that is well), and whether a start is refused.
const ROWS: [(Topic, &str, &str, &str, bool); 9] = [
    (Topic::Commands, "message.timestamp.type", "CreateTime", r#"is "CreateTime", LogAppendTime is needed"#, true),
    (Topic::Commands, "retention.ms", "3600000", r#"is "3600000", 604800000 is needed"#, false),
    (Topic::Commands, "max.message.bytes", "10000000", r#"is "10000000", 262144 is needed"#, false),
    (Topic::Postings, "retention.bytes", "1000000", r#"is "1000000", -1 is needed"#, true),
    (Topic::Journal, "cleanup.policy", "compact", r#"is "compact", delete is needed"#, true),
    (Topic::Events, "unclean.leader.election.enable", "true", r#"is "true", false is needed"#, false),
    (Topic::Dlq, "max.message.bytes", "1000", r#"is "1000", 327680 is needed"#, false),
    (Topic::Commands, "retention.ms", "-1", "", false),
    (Topic::Postings, "max.message.bytes", "5000000", "", false),
];

type Row = (Topic, &'static str, &'static str, &'static str, bool);

/// What is said of a row.
fn said(row: &Row) -> String {
    format!("{}: {} {}", row.0.name(PREFIX), row.1, row.3)
}

/// The settings of the topics, of which others are set.
struct Topics {
    client: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
    made: BTreeMap<Topic, BTreeMap<String, String>>,
}

impl Topics {
    fn of(brokers: &str) -> Topics {
        let client = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut topics = Topics { client, runtime, made: BTreeMap::new() };
        topics.made = Topic::ALL.into_iter().map(|topic| (topic, topics.settings(topic))).collect();
        topics
    }

    /// A topic's own settings.
    fn settings(&self, topic: Topic) -> BTreeMap<String, String> {
        let name = topic.name(PREFIX);
        let (asked, options) = ([ResourceSpecifier::Topic(&name)], AdminOptions::new());
        let described = self
            .runtime
            .block_on(self.client.describe_configs(&asked, &options))
            .expect("a broker")
            .remove(0)
            .expect("the topic");
        let own = described.entries.into_iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
        own.filter_map(|entry| Some((entry.name, entry.value?))).collect()
    }

    /// Has the topics as they were made but for these rows; returns when the broker tells it.
    fn set(&self, rows: &[Row]) {
        for (topic, made) in &self.made {
            let mut due = made.clone();
            due.extend(rows.iter().filter(|row| row.0 == *topic).map(|row| (row.1.to_owned(), row.2.to_owned())));
            let name = topic.name(PREFIX);
            let altered = AlterConfig::new(ResourceSpecifier::Topic(&name));
            let altered = due.iter().fold(altered, |altered, (key, value)| altered.set(key, value));
            let done = self.runtime.block_on(self.client.alter_configs(&[altered], &AdminOptions::new())).expect("a broker");
            done.into_iter().for_each(|done| assert!(done.is_ok(), "{done:?}"));
            eventually(|| {
                let found = self.settings(*topic);
                if found == due { Ok(()) } else { Err(format!("{name}: {found:?}")) }
            });
        }
    }
}

pub(crate) fn what_would_lose_something_is_told_or_refused(broker: &Broker) {
    let (dir, address) = (tempfile::tempdir().expect("a directory"), broker.address());
    let process = Process { partitions: Some(1), ..Process::new(dir.path(), "one", &address, PREFIX) };
    let told = |arguments: &[&str]| {
        let output = process.finflow(arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(process.finflow(&["topics", "create"]).status.success());
    let (code, errors) = told(&["topics", "check", "--set", "topics.replication_factor=3"]);
    let each_is_named = Topic::ALL.iter().all(|topic| errors.contains(&format!("{}: replicated 1 times", topic.name(PREFIX))));
    assert!(code == Some(1) && each_is_named, "{code:?} {errors}");
    let topics = Topics::of(&address);
    for row in ROWS {
        topics.set(&[row]);
        let (code, errors) = told(&["topics", "check"]);
        let due = if row.3.is_empty() { Some(0) } else { Some(1) };
        assert!(code == due && (row.3.is_empty() || errors.contains(&said(&row))), "{row:?}: {code:?} {errors}");
    }
    let (wrong, fatal): (Vec<Row>, Vec<Row>) =
        (ROWS.into_iter().filter(|row| !row.3.is_empty()).collect(), ROWS.into_iter().filter(|row| row.4).collect());

    // All for which a start is refused is told at once.
    topics.set(&wrong);
    let (code, errors) = (process.begin(1, &[]).ended(), process.logged());
    let are_told = wrong.iter().all(|row| errors.contains(&said(row)) == row.4);
    assert!(code == Some(78) && are_told && errors.contains("kafka-configs"), "{code:?} {errors}");

    // What is less than that is told, and so is everything while it runs. A seal on the commands is no fault.
    topics.set(&[]);
    assert!(process.finflow(&["topics", "seal"]).status.success());
    let _service = process.run(1);
    let asked = admin(&process);
    let loose = |due: usize| {
        eventually(|| match figure(&asked, LOOSE) {
            Some(found) if found == due as f64 => Ok(()),
            found => Err(format!("{LOOSE} is {found:?}, not {due}")),
        });
    };
    loose(0);
    says(&asked, "HTTP/1.1 200");
    for rows in [&wrong[..], &fatal[..], &[]] {
        topics.set(rows);
        loose(rows.len());
        let ready = http::get(&asked, "/readyz?verbose");
        let are_told = wrong.iter().all(|row| ready.contains(&said(row)) == rows.contains(row));
        assert!(are_told && ready.starts_with("HTTP/1.1 200"), "{ready}");
    }
}
