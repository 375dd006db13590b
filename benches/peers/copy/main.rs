//! A transactional copy: reads commands and writes as many records and bytes as the engine does, and decides nothing.
//!
//! What it reaches is what Kafka and its client leave to an engine that does nothing but write its events. It prints one JSON line.
//!
//! An event is JSON with the engine's eight headers, and as much of it differs from one to the next: ids, numbers. A block is as long as
//! the engine's, and is compressed as well: to a half.
//!
//! Environment: `BOOTSTRAP` (needed), `N` and `WARM_N` commands (500000, 200000), `COMMANDS` in one transaction at most (8000),
//! `BLOCK_BYTES` of block for each command (205), `COMMAND_BYTES` (150), `HEADERS=0` for events without, `BROKER_PID`.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use finflow_ledger::PaymentId;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message, Offset, Statistics, TopicPartitionList};

const PARTITIONS: i32 = 8;
/// A block of the largest transaction fits.
const RECORD_BYTES_MAX: &str = "4194304";
const TIMEOUT: Duration = Duration::from_secs(30);
const TIME: &str = "2026-11-29T00:00:00.000Z";
/// How often the client library tells what it has sent.
const TOLD_MS: u64 = 200;
const TICKS_PER_SECOND: f64 = 100.0;
/// One byte of a block in so many differs: LZ4 makes three bytes of each such run.
const DIFFERS_EVERY: usize = 6;

type Failed = Box<dyn std::error::Error>;
type Transactional = ThreadedProducer<Counted>;

/// Counts what it sends, as brokers receive it.
#[derive(Default)]
struct Counted(AtomicU64);

impl ClientContext for Counted {
    fn stats(&self, statistics: Statistics) {
        self.0.store(u64::try_from(statistics.tx_bytes).unwrap_or_default(), Ordering::Relaxed);
    }
}

impl ProducerContext for Counted {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// An event as the engine writes it, with what differs from one to the next.
#[derive(Default)]
struct Event {
    id: String,
    payment: String,
    wallet: String,
    value: String,
    has_headers: bool,
}

impl Event {
    /// Becomes another one.
    fn renew(&mut self, key: Option<&[u8]>) {
        let text = |text: &mut String, prefix: &str| {
            text.clear();
            text.push_str(prefix);
            text.extend(PaymentId::base32(&fastrand::u128(..).to_be_bytes()).map(char::from));
        };
        text(&mut self.id, "evt_");
        text(&mut self.payment, "pay_");
        self.wallet.clear();
        self.wallet.push_str(std::str::from_utf8(key.unwrap_or_default()).unwrap_or_default());
        let Event { id, payment, wallet, value, .. } = self;
        let (seq, amount) = (fastrand::u16(..), fastrand::u16(..));
        value.clear();
        // Writing into a string cannot fail.
        let _ = write!(
            value,
            r#"{{"event":"payment.settled","id":"{id}","payment":"{payment}","tenant":"bench","wallet":"{wallet}","#
        );
        let _ = write!(value, r#""wallet_seq":{seq},"type":"transfer","amount":"{amount}.00","currency":"AED","at":"{TIME}","#);
        let _ =
            write!(value, r#""idempotency_key":"{amount}","correlation_id":"{payment}","balance":{{"available":"{amount}.00","#);
        let _ = write!(value, r#""held":"0.00","ledger":"{amount}.00"}},"to":"wallet-{seq}"}}"#);
    }

    fn headers(&self) -> Option<OwnedHeaders> {
        let all = [
            ("ce_specversion", "1.0"),
            ("ce_id", &self.id),
            ("ce_source", "finflow"),
            ("ce_type", "finflow.payment.settled.v1"),
            ("ce_time", TIME),
            ("ce_subject", &self.wallet),
            ("content-type", "application/json"),
            ("correlation-id", &self.payment),
        ];
        let with = |headers: OwnedHeaders, (key, value)| headers.insert(Header { key, value: Some(value) });
        self.has_headers.then(|| all.into_iter().fold(OwnedHeaders::new(), with))
    }
}

struct Copy {
    brokers: String,
    commands: String,
    events: String,
    blocks: String,
    has_headers: bool,
    block_bytes: usize,
    batch: usize,
}

fn main() -> Result<(), Failed> {
    // `cargo test` builds and starts benchmarks too; without a broker there is nothing to measure.
    let Ok(brokers) = std::env::var("BOOTSTRAP") else {
        eprintln!("copy: BOOTSTRAP names no broker");
        return Ok(());
    };
    let name = format!("copy-{:08x}", fastrand::u32(..));
    let topic = |what: &str| format!("{name}.{what}");
    let copy = Copy {
        brokers,
        commands: topic("commands"),
        events: topic("events"),
        blocks: topic("blocks"),
        has_headers: number("HEADERS", 1) != 0,
        block_bytes: number("BLOCK_BYTES", 205),
        batch: number("COMMANDS", 8_000),
    };
    let (warm, count) = (number("WARM_N", 200_000), number("N", 500_000));
    copy.make_topics()?;
    copy.load(warm + count)?;
    let measured = copy.run(warm, count);
    copy.remove_topics()?;
    println!("{}", measured?);
    Ok(())
}

impl Copy {
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("fetch.message.max.bytes", RECORD_BYTES_MAX);
        config
    }

    /// Configured as the engine's producers are.
    fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        for (name, value) in [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("linger.ms", "1"),
            ("message.max.bytes", RECORD_BYTES_MAX),
            ("batch.size", "240000"),
            ("batch.num.messages", "10000"),
            ("compression.codec", "lz4"),
            ("queue.buffering.max.messages", "1000000"),
            ("statistics.interval.ms", &TOLD_MS.to_string()),
        ] {
            config.set(name, value);
        }
        config
    }

    fn topics(&self) -> [&str; 3] {
        [&self.commands, &self.events, &self.blocks]
    }

    fn make_topics(&self) -> Result<(), Failed> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let made = |name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)).set("max.message.bytes", RECORD_BYTES_MAX);
        let topics = self.topics().map(made);
        for made in runtime()?.block_on(admin.create_topics(&topics, &AdminOptions::new()))? {
            made.map_err(|(name, code)| format!("cannot create {name}: {code}"))?;
        }
        Ok(())
    }

    fn remove_topics(&self) -> Result<(), Failed> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        runtime()?.block_on(admin.delete_topics(&self.topics(), &AdminOptions::new()))?;
        Ok(())
    }

    fn load(&self, count: usize) -> Result<(), Failed> {
        let producer: Transactional = self.producer().create_with_context(Counted::default())?;
        let value = noise(number("COMMAND_BYTES", 150));
        for index in 0..count {
            let key = format!("wallet-{}", index % 100_000);
            let partition = (index % PARTITIONS as usize) as i32;
            send(&producer, &self.commands, partition, (Some(key.as_bytes()), &value), None)?;
        }
        producer.flush(TIMEOUT)?;
        Ok(())
    }

    /// Copies the warming commands, then the measured ones.
    fn run(&self, warm: usize, count: usize) -> Result<String, Failed> {
        let mut reader = self.client();
        reader.set("group.id", &self.commands).set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        reader.set("queued.min.messages", "20000").set("queued.max.messages.kbytes", "4096");
        let reader: BaseConsumer = reader.create()?;
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(&self.commands, partition, Offset::Beginning)?;
        }
        reader.assign(&list)?;
        let mut producer = self.producer();
        producer.set("transactional.id", &self.commands).set("delivery.report.only.error", "true");
        let producer: Transactional = producer.create_with_context(Counted::default())?;
        producer.init_transactions(TIMEOUT)?;

        let (mut next, mut event) =
            (vec![0_i64; PARTITIONS as usize], Event { has_headers: self.has_headers, ..Event::default() });
        let mut copied = 0;
        while copied < warm {
            copied += self.transaction(&reader, &producer, &mut next, &mut event)?;
        }
        let bytes = sent(&producer);
        let (begun, cpu, broker) = (Instant::now(), own_cpu(), broker_cpu());
        let (before, mut transactions) = (copied, 0);
        while copied < warm + count {
            copied += self.transaction(&reader, &producer, &mut next, &mut event)?;
            transactions += 1;
        }
        let (seconds, cpu, copied) = (begun.elapsed().as_secs_f64(), own_cpu() - cpu, (copied - before) as f64);
        let broker = broker.zip(broker_cpu()).map_or("null".to_owned(), |(before, now)| format!("{:.2}", now - before));
        let bytes = (sent(&producer) - bytes) as f64 / copied;
        let used = format!(r#""seconds":{seconds:.2},"process_cpu_seconds":{cpu:.2},"broker_cpu_seconds":{broker}"#);
        let (rate, per_cpu_second) = (copied / seconds, copied / cpu.max(0.01));
        let figures =
            format!(r#""transfers_per_s":{rate:.0},"transfers_per_cpu_s":{per_cpu_second:.0},"bytes_per_command":{bytes:.0}"#);
        Ok(format!(r#"{{"peer":"copy","commands":{copied},{used},{figures},"transactions":{transactions}}}"#))
    }

    /// Copies what is there, up to a batch, and gives how many commands that was.
    fn transaction(
        &self,
        reader: &BaseConsumer,
        producer: &Transactional,
        next: &mut [i64],
        event: &mut Event,
    ) -> Result<usize, Failed> {
        let mut taken = vec![0_usize; next.len()];
        let mut count = 0;
        while count < self.batch {
            let patience = if count == 0 { Duration::from_millis(20) } else { Duration::ZERO };
            let Some(message) = reader.poll(patience) else { break };
            let message = message?;
            if count == 0 {
                producer.begin_transaction()?;
            }
            let partition = message.partition() as usize;
            // One event stays with the payer, the other goes to the receiver, who is mostly in another partition.
            for partition in [partition, (partition + 1) % next.len()] {
                event.renew(message.key());
                send(producer, &self.events, partition as i32, (message.key(), event.value.as_bytes()), event.headers())?;
            }
            next[partition] = message.offset() + 1;
            taken[partition] += 1;
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, taken) in (0_i32..).zip(&taken).filter(|(_, taken)| 0 < **taken) {
            send(producer, &self.blocks, partition, (None, &noise(self.block_bytes * taken)), None)?;
            offsets.add_partition_offset(&self.commands, partition, Offset::Offset(next[partition as usize]))?;
        }
        // Draining first: the library's own commit looks for delivered records only every 100 ms.
        while 0 < producer.in_flight_count() {
            std::thread::sleep(Duration::from_micros(200));
        }
        let group = reader.group_metadata().ok_or("no group")?;
        producer.send_offsets_to_transaction(&offsets, &group, TIMEOUT)?;
        producer.commit_transaction(TIMEOUT)?;
        Ok(count)
    }
}

/// What the client library has sent so far, as it last told.
fn sent(producer: &Transactional) -> u64 {
    std::thread::sleep(Duration::from_millis(2 * TOLD_MS));
    producer.context().0.load(Ordering::Relaxed)
}

fn send(
    producer: &Transactional,
    topic: &str,
    partition: i32,
    (key, value): (Option<&[u8]>, &[u8]),
    headers: Option<OwnedHeaders>,
) -> Result<(), Failed> {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).payload(value);
    (record.key, record.headers) = (key, headers);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((error, refused)) => {
                if error.rdkafka_error_code() != Some(rdkafka::types::RDKafkaErrorCode::QueueFull) {
                    return Err(error.into());
                }
                record = refused;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Bytes that compress about as well as a journal block does: to a half.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![b'e'; length];
    bytes.iter_mut().step_by(DIFFERS_EVERY).for_each(|byte| *byte = fastrand::u8(..));
    bytes
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failed> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn own_cpu() -> f64 {
    cpu_of("self").unwrap_or_default()
}

fn broker_cpu() -> Option<f64> {
    cpu_of(&std::env::var("BROKER_PID").ok()?)
}

fn cpu_of(pid: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(PathBuf::from("/proc").join(pid).join("stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}
