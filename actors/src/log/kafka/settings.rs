//! How the clients are configured: what the engine's correctness rests on is set here and cannot be overridden.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;

use super::record::unavailable;

/// What a Kafka log is opened with.
#[derive(Clone)]
pub struct Settings {
    /// The brokers to ask first, as `host:port,...`.
    pub brokers: String,
    /// The prefix of topic names; also the name of the consumer group.
    pub prefix: String,
    /// Further librdkafka properties, such as `security.protocol`; see [`refused`].
    pub properties: BTreeMap<String, String>,
    /// Properties over those, for the client that trims: the principal that may delete is not the one that may write.
    pub trim_properties: BTreeMap<String, String>,
    /// How long dead letters stay, as their topic is made; `None` = for ever.
    pub dlq_retention: Option<Duration>,
    /// How long one commit may take before its outcome counts as unknown. Shorter than [`TRANSACTION_TIMEOUT`].
    pub commit_deadline: Duration,
    /// Where the other processes ask this one, as `host:port`; `None` where it answers nobody.
    pub advertised: Option<String>,
    /// What processes that ask each other have in common.
    pub secret: String,
}

/// When the broker aborts a transaction whose producer is silent: until then its records hold back every reader behind them.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a member of the group may be silent before its partitions are given to others.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// How often a member is heard; a member that was replaced learns of it as often.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);
/// The longest batch that is written or read, in bytes: a journal block with room to spare.
pub(super) const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What every client is given, unless the user's properties say otherwise.
const CHOICES: &[(&str, &str)] = &[
    // A broker that shuts down tells of partitions without a leader, and nothing else would ask again for minutes.
    ("topic.metadata.refresh.interval.ms", "3000"),
    ("retry.backoff.ms", "10"),
    ("reconnect.backoff.ms", "20"),
    ("reconnect.backoff.max.ms", "500"),
    ("socket.nagle.disable", "true"),
];
/// The same for those who read: what is held ahead is per partition and topic.
const READING: &[(&str, &str)] = &[
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "4096"),
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.error.backoff.ms", "50"),
];
/// The same for lanes, which follow what comes: every answer of a broker costs both sides about the same, whatever it holds, so the
/// library rests for some milliseconds after one that held records, and under load gets a handful at a time.
const FOLLOWING: &[(&str, &str)] = &[("queued.min.messages", "1"), ("fetch.queue.backoff.ms", "4")];
/// The same for those who write.
const WRITING: &[(&str, &str)] = &[
    ("linger.ms", "1"),
    // What topics take of dead letters, and of commands, is a limit on a batch.
    ("batch.size", "240000"),
    ("batch.num.messages", "10000"),
    ("compression.codec", "lz4"),
    ("queue.buffering.max.messages", "1000000"),
];

/// The same for a lane's transactions: how long it waits, at first, while the coordinator still writes the markers of the former one.
const COMMITTING: &[(&str, &str)] = &[("retry.backoff.ms", "2")];

/// What belongs to the engine, by the start of the property's name: a value of the user's would break exactly-once, or means nothing.
const OWNED: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "auto.commit",
    "auto.offset.reset",
    "batch.size",
    "bootstrap.servers",
    "check.crcs",
    "delivery.report",
    "enable.",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.wait.max.ms",
    "group.",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.in.flight",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.broker.list",
    "offset.store",
    "partition.assignment.strategy",
    "partitioner",
    "queue.buffering.backpressure",
    "request.required.acks",
    "request.timeout.ms",
    "retries",
    "session.timeout.ms",
    "transaction",
];
/// Names that begin like an owned one and are free all the same: how certificates are checked.
const FREE: &[&str] = &["enable.ssl.certificate.verification", "enable.sasl.oauthbearer.unsecure.jwt"];

/// The properties that may not be set because the engine owns them.
pub fn refused<'a>(properties: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let is_owned = |name: &str| OWNED.iter().any(|owned| name.starts_with(owned)) && !FREE.contains(&name);
    properties.into_iter().filter(|name| is_owned(name)).collect()
}

impl std::fmt::Debug for Settings {
    /// Without what may hold a password or is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("brokers", &self.brokers).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn ms(duration: Duration) -> String {
    duration.as_millis().to_string()
}

impl Settings {
    /// Settings for these brokers and this prefix, with everything else as it should be.
    pub fn new(brokers: &str, prefix: &str) -> Settings {
        Settings {
            brokers: brokers.to_owned(),
            prefix: prefix.to_owned(),
            properties: BTreeMap::new(),
            trim_properties: BTreeMap::new(),
            dlq_retention: Some(Duration::from_secs(30 * 86_400)),
            commit_deadline: Duration::from_secs(5),
            advertised: None,
            secret: String::new(),
        }
    }

    /// The same as the principal that trims, where it has one of its own.
    pub(super) fn as_trimmer(&self) -> Settings {
        let properties = self.properties.iter().chain(&self.trim_properties);
        let properties = properties.map(|(name, value)| (name.clone(), value.clone())).collect();
        Settings { properties, ..self.clone() }
    }

    /// What the client library does not take of the properties, or the engine should not: a password that is sent for all to read.
    pub fn problem(&self) -> Option<String> {
        for settings in [self, &self.as_trimmer()] {
            let is = |name, due| settings.properties.get(name).is_some_and(|value| value.eq_ignore_ascii_case(due));
            let is_open = is("security.protocol", "sasl_plaintext");
            if is_open && (is("sasl.mechanism", "plain") || is("sasl.mechanisms", "plain")) {
                return Some(
                    "sasl.mechanism: PLAIN sends the password as it is, and needs security.protocol=sasl_ssl".to_owned(),
                );
            }
            if let Err(error) = settings.client().create_native_config() {
                return Some(unavailable(error).to_string());
            }
        }
        None
    }

    /// What every client has.
    pub(super) fn client(&self) -> ClientConfig {
        self.client_with(&[])
    }

    /// The engine's choices, then the user's, then what is owned: the last prevails.
    fn client_with(&self, choices: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in CHOICES.iter().chain(choices) {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
            .set("bootstrap.servers", &self.brokers)
            .set("allow.auto.create.topics", "false")
            .set("message.max.bytes", BATCH_BYTES_MAX.to_string());
        config
    }

    /// A consumer of committed records whose offsets are nobody else's business: lost offsets stop it.
    fn consumer(&self) -> ClientConfig {
        self.consumer_with(&[])
    }

    fn consumer_with(&self, choices: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.client_with(&[READING, choices].concat());
        config
            .set("group.id", &self.prefix)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true");
        config
    }

    /// Keeps the addresses of owners, as offsets of a group that has no members.
    pub(super) fn addresses(&self) -> ClientConfig {
        let mut config = self.consumer();
        config.set("group.id", format!("{}.addresses", self.prefix));
        config
    }

    /// Reads partitions that it assigns itself, as fast as it can.
    pub(super) fn reader(&self, wait: Duration) -> ClientConfig {
        self.reader_with(wait, &[])
    }

    /// The same for a lane, that reads what comes when it comes.
    pub(super) fn follower(&self, wait: Duration) -> ClientConfig {
        self.reader_with(wait, FOLLOWING)
    }

    fn reader_with(&self, wait: Duration, choices: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.consumer_with(choices);
        config.set("fetch.wait.max.ms", ms(wait)).set("fetch.message.max.bytes", BATCH_BYTES_MAX.to_string());
        config
    }

    /// One that sees what open transactions have written; it asks and reads nothing.
    pub(super) fn unstable(&self, wait: Duration) -> ClientConfig {
        let mut config = self.reader(wait);
        config.set("isolation.level", "read_uncommitted");
        config
    }

    /// A member of the group, under a name that outlives the process: a restart keeps its partitions.
    pub(super) fn member(&self, lane: &str) -> ClientConfig {
        let mut config = self.consumer();
        config
            .set("group.instance.id", lane)
            .set("group.protocol", "classic")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", ms(SESSION_TIMEOUT))
            .set("heartbeat.interval.ms", ms(HEARTBEAT_INTERVAL))
            .set("max.poll.interval.ms", "60000");
        config
    }

    fn producer(&self) -> ClientConfig {
        self.producer_with(&[])
    }

    fn producer_with(&self, choices: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.client_with(&[WRITING, choices].concat());
        config.set("enable.idempotence", "true").set("acks", "all");
        config
    }

    /// Appends commands; where the partition is not given, the key decides as it does in the Java client.
    pub(super) fn appender(&self) -> ClientConfig {
        let mut config = self.producer();
        config.set("partitioner", "murmur2_random").set("message.timeout.ms", "30000");
        config
    }

    /// A transactional producer that looks whether transactions work: what it opens holds nobody up for long.
    pub(super) fn prober(&self, id: &str) -> ClientConfig {
        let mut config = self.producer();
        config.set("transactional.id", id).set("transaction.timeout.ms", "3000").set("message.timeout.ms", "3000");
        config
    }

    /// The one transactional producer of a lane.
    pub(super) fn transactor(&self, lane: &str) -> ClientConfig {
        let mut config = self.producer_with(COMMITTING);
        config
            .set("transactional.id", lane)
            .set("transaction.timeout.ms", ms(TRANSACTION_TIMEOUT))
            .set("message.timeout.ms", ms(self.commit_deadline.min(TRANSACTION_TIMEOUT)))
            .set("delivery.report.only.error", "true")
            .set("statistics.interval.ms", "1000");
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exactly_once_rests_on_cannot_be_set() {
        let rows = [
            ("enable.auto.commit", true),
            ("enable.idempotence", true),
            ("isolation.level", true),
            ("transactional.id", true),
            ("transaction.timeout.ms", true),
            ("group.instance.id", true),
            ("acks", true),
            ("auto.offset.reset", true),
            ("security.protocol", false),
            ("sasl.password", false),
            ("ssl.ca.location", false),
            ("enable.ssl.certificate.verification", false),
            ("fetch.wait.max.ms", true),
            ("linger.ms", false),
        ];
        for (name, is_refused) in rows {
            assert_eq!(refused([name]), if is_refused { vec![name] } else { vec![] }, "{name}");
        }
    }

    #[test]
    fn what_is_the_users_to_choose_is_taken_and_nothing_else() {
        let chosen = [("linger.ms", "7"), ("queued.min.messages", "9"), ("retry.backoff.ms", "11"), ("acks", "0")];
        let properties = chosen.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let settings = Settings { properties, ..Settings::new("b", "p") };
        let (reader, writer) = (settings.reader(Duration::ZERO), settings.transactor("lane"));
        let follower = Settings::new("b", "p").follower(Duration::ZERO);
        let rows = [
            (&writer, "linger.ms", "7"),
            (&writer, "batch.num.messages", "10000"),
            (&writer, "acks", "all"),
            (&reader, "queued.min.messages", "9"),
            (&reader, "queued.max.messages.kbytes", "4096"),
            (&reader, "retry.backoff.ms", "11"),
            (&reader, "fetch.queue.backoff.ms", "10"),
            (&reader, "fetch.wait.max.ms", "0"),
            (&follower, "queued.min.messages", "1"),
            (&follower, "fetch.error.backoff.ms", "50"),
        ];
        for (config, name, expected) in rows {
            assert_eq!(config.get(name), Some(expected), "{name}");
        }
    }
}
