//! The load: a foreign producer that publishes at its rate, whatever happens to those who consume it, and knows of every command
//! whether the brokers have acknowledged it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};

/// Wallets; each is opened, filled, and takes part in transfers with all others.
pub(crate) const WALLETS: usize = 600;
pub(crate) const TOP_UP_MINOR: i128 = 100_000_000;
/// One transfer in so many goes to a wallet that there is not, and one is of more than there is.
const REFUSED_EVERY: usize = 100;
/// One command in so many is sent again, so many commands later.
const REPEATED_EVERY: usize = 20;
const REPEATED_AFTER: usize = 700;
/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(5);
/// How long the brokers may take for what was published: longer than anything that happens to them.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(300);

/// How a command must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Opened,
    Settled,
    Rejected,
}

pub(crate) struct Command {
    /// The wallet that it belongs to.
    pub(crate) home: String,
    /// The receiver's, where there is one.
    pub(crate) to: Option<String>,
    pub(crate) end: End,
    value: String,
}

/// The command of this number: the wallets are opened first, then filled, and everything behind is a transfer.
pub(crate) fn command(seed: u64, n: usize) -> Command {
    let of = |wallet: usize, end, to, rest: &str| {
        let home = format!("w{wallet}");
        let value = format!(r#"{{"tenant":"acme","wallet":"{home}","idempotency_key":"k{n}",{rest}}}"#);
        Command { home, to, end, value }
    };
    if n < WALLETS {
        let rest = r#""type":"open_wallet","currency":"AED","country":"AE","kind":"personal","holder":"H""#;
        return of(n, End::Opened, None, rest);
    }
    if n < 2 * WALLETS {
        let amount = TOP_UP_MINOR / 100;
        let rest = format!(r#""type":"top_up","amount":"{amount}.00","currency":"AED","source":{{"account":"till"}}"#);
        return of(n - WALLETS, End::Settled, None, &rest);
    }
    let mut random = fastrand::Rng::with_seed(seed.wrapping_add(n as u64));
    let from = random.usize(..WALLETS);
    let to = (from + random.usize(1..WALLETS)) % WALLETS;
    let (to, whole, end) = match n % REFUSED_EVERY {
        0 => (format!("nobody-{to}"), random.u32(..10), End::Rejected),
        1 => (format!("w{to}"), 900_000_000, End::Rejected),
        _ => (format!("w{to}"), random.u32(..10), End::Settled),
    };
    let cents = random.u32(1..100);
    let rest = format!(r#""type":"transfer","to":"{to}","amount":"{whole}.{cents:02}","currency":"AED""#);
    of(from, end, Some(to), &rest)
}

/// What the brokers have acknowledged, by the commands' numbers.
#[derive(Default)]
pub(crate) struct Acknowledged {
    pub(crate) commands: Vec<bool>,
    /// What the producer has given up, in words.
    failures: Vec<String>,
}

#[derive(Clone, Default)]
struct Acknowledging(Arc<Mutex<Acknowledged>>);

impl Acknowledging {
    fn lock(&self) -> MutexGuard<'_, Acknowledged> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Acknowledging {
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Acknowledging {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, n: usize) {
        let mut acknowledged = self.lock();
        match result {
            Ok(_) => {
                if acknowledged.commands.len() <= n {
                    acknowledged.commands.resize(n + 1, false);
                }
                acknowledged.commands[n] = true;
            }
            Err((cause, _)) => acknowledged.failures.push(format!("command {n}: {cause}")),
        }
    }
}

/// Publishes from a thread of its own until it is finished.
pub(crate) struct Load {
    acknowledging: Acknowledging,
    producer: Arc<ThreadedProducer<Acknowledging>>,
    topic: String,
    seed: u64,
    /// Commands published, but for what a running thread has.
    published: usize,
    running: Option<(Arc<AtomicBool>, JoinHandle<usize>)>,
}

impl Load {
    pub(crate) fn new(brokers: &str, prefix: &str, seed: u64) -> Load {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("enable.idempotence", "true").set("acks", "all");
        // As the Java client does; what the brokers do not take at once waits for them.
        config.set("partitioner", "murmur2_random").set("message.timeout.ms", ACKNOWLEDGED_WITHIN.as_millis().to_string());
        config.set("linger.ms", "2").set("compression.codec", "lz4").set("reconnect.backoff.max.ms", "200");
        config.set("topic.metadata.refresh.interval.ms", "1000").set("queue.buffering.max.messages", "1000000");
        let acknowledging = Acknowledging::default();
        let producer = config.create_with_context(acknowledging.clone()).expect("a producer");
        let topic = format!("{prefix}.commands.v1");
        Load { acknowledging, producer: Arc::new(producer), topic, seed, published: 0, running: None }
    }

    /// Opens and fills the wallets.
    pub(crate) fn open_wallets(&mut self) {
        for n in 0..2 * WALLETS {
            publish(&self.producer, &self.topic, self.seed, n);
        }
        self.published = 2 * WALLETS;
        self.settle();
    }

    /// Publishes so many transfers a second until [`Load::finish`].
    pub(crate) fn start(&mut self, rate: usize) {
        let is_over = Arc::<AtomicBool>::default();
        let (over, producer, topic, seed, first) =
            (is_over.clone(), self.producer.clone(), self.topic.clone(), self.seed, self.published);
        let publisher = std::thread::spawn(move || {
            let (begun, mut next) = (Instant::now(), first);
            while !over.load(Ordering::Acquire) {
                let due = first + (begun.elapsed().as_secs_f64() * rate as f64) as usize;
                for n in next..due {
                    publish(&producer, &topic, seed, n);
                    if n.is_multiple_of(REPEATED_EVERY) && 2 * WALLETS + REPEATED_AFTER <= n {
                        publish(&producer, &topic, seed, n - REPEATED_AFTER);
                    }
                }
                next = due;
                std::thread::park_timeout(TICK);
            }
            next
        });
        self.running = Some((is_over, publisher));
    }

    /// Publishes nothing more, and waits until all is acknowledged.
    pub(crate) fn finish(&mut self) {
        if let Some((is_over, publisher)) = self.running.take() {
            is_over.store(true, Ordering::Release);
            self.published = publisher.join().expect("a publisher that does not panic");
        }
        self.settle();
    }

    fn settle(&self) {
        self.producer.flush(ACKNOWLEDGED_WITHIN).expect("the brokers acknowledge");
        let acknowledged = self.acknowledging.lock();
        assert_eq!(acknowledged.failures, Vec::<String>::new(), "the brokers take everything");
        let count = acknowledged.commands.iter().filter(|is_acknowledged| **is_acknowledged).count();
        assert_eq!(count, self.published, "every command is acknowledged");
    }

    pub(crate) fn published(&self) -> usize {
        self.published
    }
}

fn publish(producer: &ThreadedProducer<Acknowledging>, topic: &str, seed: u64, n: usize) {
    let command = command(seed, n);
    let mut record = BaseRecord::with_opaque_to(topic, n).key(command.home.as_str()).payload(command.value.as_str());
    loop {
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                record = refused;
                std::thread::park_timeout(TICK);
            }
            Err((cause, _)) => panic!("command {n} cannot be published: {cause}"),
        }
    }
}
