//! How the clients are configured: what the engine's correctness rests on is set here and cannot be overridden.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::errors::unavailable;

/// What a Kafka log is opened with.
#[derive(Clone)]
pub struct Settings {
    /// The brokers to ask first, as `host:port,...`.
    pub brokers: String,
    /// The prefix of topic names; also the name of the consumer group.
    pub prefix: String,
    /// Further librdkafka properties, such as `security.protocol`; see [`flaw`].
    pub properties: BTreeMap<String, String>,
    /// Properties over those, for the client that trims: the principal that may delete is not the one that may write.
    pub trim_properties: BTreeMap<String, String>,
    /// How long dead letters stay, as their topic is made; `None` = for ever.
    pub dlq_retention: Option<Duration>,
    /// How long one commit may take before its outcome counts as unknown. Shorter than [`TRANSACTION_TIMEOUT`].
    pub commit_deadline: Duration,
    /// How long one commit may take before the client library is given up as hung, and the process ends. Longer than
    /// [`TRANSACTION_TIMEOUT`]: for that long the library may wait for the group coordinator, whatever deadline it was given.
    pub commit_patience: Duration,
    /// Where the other processes ask this one, as `host:port`; `None` where it answers nobody.
    pub advertised: Option<String>,
    /// What processes that ask each other have in common.
    pub secret: String,
    /// Whether what is followed is told as soon as there is anything, as to a usual consumer. A lane has the brokers gather it.
    pub is_at_once: bool,
}

/// When the broker aborts a transaction whose producer is silent: until then its records hold back every reader behind them.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a member of the group may be silent before its partitions are given to others.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// How often a member is heard; a member that was replaced learns of it as often.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);
/// The longest batch that is written or read, in bytes: a journal block with room to spare.
pub(super) const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What a reader asks for of each partition at a time, in bytes: a fraction of what it may hold ahead, as it is compressed.
const READ_BYTES: usize = 512 * 1024;
/// What a lane asks for of each partition at a time, in bytes, and as it is compressed: about as much as it decides in one turn. What is
/// asked for lies in memory, unpacked, for every partition that has so much. A batch that is longer comes all the same, one in each answer.
const FOLLOW_BYTES: usize = 64 * 1024;
/// How long the broker keeps a request of who follows at once, as that of a usual consumer.
const AT_ONCE_WAIT: Duration = Duration::from_millis(500);
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
    ("queued.max.messages.kbytes", "2048"),
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.error.backoff.ms", "50"),
];
/// The same for single records: little comes along.
const GLANCING: &[(&str, &str)] = &[("queued.min.messages", "1")];
/// The same for lanes, which follow what comes, whatever the user's properties say: it is the engine's memory. Every answer of a broker
/// costs both sides about the same, whatever it holds, so the broker gathers them, of all partitions, until its wait is over or there are
/// many. A partition that the lane has not taken all of is asked for all the same, up to some hundred records: what comes to it next would
/// wait for the answer to the others.
const FOLLOWING: &[(&str, &str)] = &[
    ("fetch.min.bytes", "65536"),
    ("queued.min.messages", "500"),
    ("queued.max.messages.kbytes", "64"),
    ("fetch.queue.backoff.ms", "4"),
];
/// The same for those who write.
const WRITING: &[(&str, &str)] = &[
    ("queue.buffering.max.ms", "1"),
    // What topics take of dead letters, and of commands, is a limit on a batch.
    ("batch.size", "240000"),
    ("batch.num.messages", "10000"),
    ("compression.codec", "lz4"),
    ("queue.buffering.max.messages", "1000000"),
];

/// What belongs to the engine, by the start of the property's one name: a value of the user's would break exactly-once or what the engine
/// may take of memory, or means nothing.
const OWNED: &[&str] = &[
    "allow.auto.create.topics",
    "auto.commit",
    "auto.offset.reset",
    "batch.size",
    "check.crcs",
    "delivery.report",
    "enable.",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.in.flight",
    "max.poll.interval.ms",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "offset.store",
    "partition.assignment.strategy",
    "partitioner",
    "queue.buffering.backpressure",
    "queued.",
    "request.required.acks",
    "request.timeout.ms",
    "session.timeout.ms",
    "transaction",
];
/// Names that begin like an owned one and are free all the same: how certificates are checked.
const FREE: &[&str] = &["enable.ssl.certificate.verification", "enable.sasl.oauthbearer.unsecure.jwt"];

/// Other names of one property, and the one that everything here goes by: a client that is given both takes either.
const ALIASES: &[(&str, &str)] = &[
    ("acks", "request.required.acks"),
    ("compression.type", "compression.codec"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("linger.ms", "queue.buffering.max.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("retries", "message.send.max.retries"),
    ("sasl.mechanism", "sasl.mechanisms"),
];

/// Those that name the brokers, which are set once for all clients.
const BROKERS: &[&str] = &["bootstrap.servers", "metadata.broker.list"];
/// Properties that people set, to be suggested for what is misspelled.
pub const COMMON: &[&str] = &[
    "bootstrap.servers",
    "broker.address.family",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.type",
    "enable.ssl.certificate.verification",
    "linger.ms",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.keepalive.enable",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.keystore.location",
    "ssl.keystore.password",
];

/// Why a property cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It is the engine's.
    Owned,
    /// It names the brokers, which have a key of their own.
    Brokers,
    /// The client library does not know it.
    Unknown,
    /// The client library does not take this value.
    Wrong,
}

/// The one name of a property that may have several.
pub fn canonical(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name)
}

/// What is wrong with a property by itself.
pub fn flaw(name: &str, value: &str) -> Option<Flaw> {
    if BROKERS.contains(&name) {
        return Some(Flaw::Brokers);
    }
    if OWNED.iter().any(|owned| canonical(name).starts_with(owned)) && !FREE.contains(&name) {
        return Some(Flaw::Owned);
    }
    match ClientConfig::new().set(name, value).create_native_config().err()? {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..) => Some(Flaw::Unknown),
        _ => Some(Flaw::Wrong),
    }
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Flaw::Owned => "cannot be set, the engine's exactly-once or its memory rests on it",
            Flaw::Brokers => "cannot be set here; the brokers are what kafka.\"bootstrap.servers\" or --brokers says",
            Flaw::Unknown => "is no property of the Kafka client library",
            Flaw::Wrong => "has a value that the Kafka client library does not take",
        })
    }
}

impl std::fmt::Debug for Settings {
    /// Without what may hold a password or is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("brokers", &self.brokers).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// The group whose offsets say where owners are asked.
pub(super) fn addresses_group(prefix: &str) -> String {
    format!("{prefix}.addresses")
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
            commit_patience: TRANSACTION_TIMEOUT.saturating_mul(3),
            advertised: None,
            secret: String::new(),
            is_at_once: false,
        }
    }

    /// The same as the principal that trims, where it has one of its own.
    pub(super) fn as_trimmer(&self) -> Settings {
        let properties = self.properties.iter().chain(&self.trim_properties);
        let properties = properties.map(|(name, value)| (canonical(name).to_owned(), value.clone())).collect();
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
            config.set(canonical(name), value);
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
        config.set("group.id", addresses_group(&self.prefix));
        config
    }

    /// Reads partitions that it assigns itself, as fast as it can.
    pub(super) fn reader(&self, wait: Duration) -> ClientConfig {
        self.reader_with(wait, READ_BYTES, &[])
    }

    /// The same for a lane, that reads what comes when it comes.
    pub(super) fn follower(&self, wait: Duration) -> ClientConfig {
        if self.is_at_once {
            return self.reader(AT_ONCE_WAIT);
        }
        let mut config = self.reader_with(wait, FOLLOW_BYTES, &[]);
        for (name, value) in FOLLOWING {
            config.set(*name, *value);
        }
        config
    }

    /// The same for one record at a time.
    pub(super) fn glancer(&self, wait: Duration) -> ClientConfig {
        self.reader_with(wait, FOLLOW_BYTES, GLANCING)
    }

    fn reader_with(&self, wait: Duration, bytes: usize, choices: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.consumer_with(choices);
        config.set("fetch.wait.max.ms", ms(wait)).set("fetch.message.max.bytes", bytes.to_string());
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
        let mut config = self.client_with(WRITING);
        config.set("enable.idempotence", "true").set("request.required.acks", "all");
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
        let mut config = self.producer();
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
            ("enable.auto.commit", "true", Some(Flaw::Owned)),
            ("enable.idempotence", "true", Some(Flaw::Owned)),
            ("isolation.level", "read_committed", Some(Flaw::Owned)),
            ("transactional.id", "a", Some(Flaw::Owned)),
            ("transaction.timeout.ms", "1", Some(Flaw::Owned)),
            ("group.instance.id", "a", Some(Flaw::Owned)),
            ("acks", "all", Some(Flaw::Owned)),
            ("auto.offset.reset", "error", Some(Flaw::Owned)),
            ("fetch.wait.max.ms", "1", Some(Flaw::Owned)),
            ("fetch.min.bytes", "1", Some(Flaw::Owned)),
            ("queued.min.messages", "1", Some(Flaw::Owned)),
            ("queued.max.messages.kbytes", "1", Some(Flaw::Owned)),
            ("fetch.queue.backoff.ms", "1", Some(Flaw::Owned)),
            // By their other names.
            ("delivery.timeout.ms", "1", Some(Flaw::Owned)),
            ("request.required.acks", "1", Some(Flaw::Owned)),
            ("auto.commit.enable", "true", Some(Flaw::Owned)),
            ("message.send.max.retries", "1", Some(Flaw::Owned)),
            ("retries", "1", Some(Flaw::Owned)),
            ("max.partition.fetch.bytes", "1", Some(Flaw::Owned)),
            ("max.in.flight", "1", Some(Flaw::Owned)),
            ("max.in.flight.requests.per.connection", "1", Some(Flaw::Owned)),
            ("queue.buffering.max.ms", "7", None),
            ("compression.type", "zstd", None),
            ("bootstrap.servers", "a:1", Some(Flaw::Brokers)),
            ("metadata.broker.list", "a:1", Some(Flaw::Brokers)),
            ("security.protocol", "ssl", None),
            ("security.protocol", "none", Some(Flaw::Wrong)),
            ("security.protokol", "ssl", Some(Flaw::Unknown)),
            ("brokers", "a:1", Some(Flaw::Unknown)),
            ("sasl.password", "s", None),
            ("ssl.ca.location", "ca.pem", None),
            ("enable.ssl.certificate.verification", "false", None),
            ("linger.ms", "7", None),
            ("linger.ms", "long", Some(Flaw::Wrong)),
        ];
        for (name, value, expected) in rows {
            assert_eq!(flaw(name, value), expected, "{name}={value}");
        }
        for name in COMMON {
            assert_ne!(flaw(name, ""), Some(Flaw::Unknown), "{name}");
        }
    }

    #[test]
    fn a_property_is_set_once_by_whatever_name() {
        // A value that is not the library's own, and that each of the properties takes.
        let value_of = |name: &str| match name {
            "acks" => "1",
            "compression.type" => "zstd",
            "sasl.mechanism" => "PLAIN",
            _ => "1001",
        };
        for (alias, name) in ALIASES {
            let set = ClientConfig::new().set(*alias, value_of(alias)).create_native_config().expect(alias);
            assert_eq!(set.get(name).expect(name), value_of(alias), "{alias} is {name}");
            let properties = BTreeMap::from([((*alias).to_owned(), value_of(alias).to_owned())]);
            let config = Settings { properties, ..Settings::new("b", "p") }.appender();
            let trims = BTreeMap::from([((*alias).to_owned(), value_of(alias).to_owned())]);
            let own = BTreeMap::from([((*name).to_owned(), "of all clients".to_owned())]);
            let trimmer = Settings { properties: own, trim_properties: trims, ..Settings::new("b", "p") }.as_trimmer();
            assert_eq!(trimmer.properties.get(*name).map(String::as_str), Some(value_of(alias)), "{alias} of the trimmer's own");
            if flaw(alias, value_of(alias)).is_none() {
                assert!(config.get(alias).is_none() || config.get(name).is_none(), "{alias} and {name} are both set");
            }
        }
    }

    #[test]
    fn what_is_the_users_to_choose_is_taken_and_nothing_else() {
        let chosen = [("linger.ms", "7"), ("compression.type", "zstd"), ("retry.backoff.ms", "11"), ("acks", "0")];
        let properties = chosen.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let settings = Settings { properties, ..Settings::new("b", "p") };
        let (reader, writer) = (settings.reader(Duration::ZERO), settings.transactor("lane"));
        let follower = settings.follower(Duration::ZERO);
        let at_once = Settings { is_at_once: true, ..settings.clone() }.follower(Duration::ZERO);
        let glancer = Settings::new("b", "p").glancer(Duration::ZERO);
        let rows = [
            (&writer, "queue.buffering.max.ms", "7"),
            (&writer, "compression.codec", "zstd"),
            (&writer, "batch.num.messages", "10000"),
            (&writer, "request.required.acks", "all"),
            (&reader, "queued.min.messages", "20000"),
            (&reader, "queued.max.messages.kbytes", "2048"),
            (&at_once, "queued.max.messages.kbytes", "2048"),
            (&at_once, "fetch.wait.max.ms", "500"),
            (&reader, "retry.backoff.ms", "11"),
            (&reader, "fetch.queue.backoff.ms", "10"),
            (&reader, "fetch.wait.max.ms", "0"),
            (&follower, "queued.min.messages", "500"),
            (&follower, "queued.max.messages.kbytes", "64"),
            (&follower, "fetch.min.bytes", "65536"),
            (&follower, "retry.backoff.ms", "11"),
            (&glancer, "queued.min.messages", "1"),
            (&glancer, "queued.max.messages.kbytes", "2048"),
            (&glancer, "fetch.message.max.bytes", "65536"),
            (&follower, "fetch.message.max.bytes", "65536"),
            (&reader, "fetch.message.max.bytes", "524288"),
            (&follower, "fetch.error.backoff.ms", "50"),
        ];
        for (config, name, expected) in rows {
            assert_eq!(config.get(name), Some(expected), "{name}");
        }
    }
}
