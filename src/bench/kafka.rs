//! The benchmark of the Kafka log: the engine runs in a process of its own, and this process loads, paces and reads like anybody
//! else's producer and consumer. Topics of its own are made for it and removed at the end.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use finflow_actors::Publish;
use finflow_actors::log::kafka::{KafkaLog, Settings};
use finflow_actors::metrics::{EPOCHS, KAFKA_BYTES, KAFKA_RECORDS, KAFKA_STEP_SECONDS, RESTORED};
use finflow_state::EncodedBlock;
use finflow_topologies::Topic;
use finflow_topologies::log::{Log, Outgoing};
use finflow_topologies::topics::partition_of_key;
use hdrhistogram::Histogram;
use serde_json::json;

use super::engine::{Engine, Place, SNAPSHOTS};
use super::load::Load;
use super::usage::Usage;
use super::{BATCH, FETCH_BYTES, IDLE_TIMEOUT, MIB, Schedule, TICK, WARM, ended, have_all_ended, round, verdict};
use crate::access::{cluster, configuration};
use crate::audited::audited;
use crate::cli::{self, Common};
use crate::failure::Failure;
use crate::output::print;
use crate::topics;

/// How long a reader rests that has found nothing.
const PAUSE: Duration = Duration::from_micros(500);
/// The client library tells what it has sent once a second.
const TOLD: Duration = Duration::from_millis(1_200);
/// The steps of a transaction.
const STEPS: [&str; 3] = ["records", "offsets", "end"];

pub(super) async fn bench(common: &Common, options: &cli::Bench) -> Result<(), Failure> {
    let config = configuration(common)?;
    let mut settings = cluster(common, &config)?;
    settings.prefix = format!("{}-bench-{:08x}", config.topics.prefix, fastrand::u32(..));
    let temporary = tempfile::tempdir()?;
    let (partitions, replication) = (config.topics.partitions, config.topics.replication_factor);
    if partitions < options.processes {
        let cause = format!("--processes: {} of them cannot share {partitions} partitions", options.processes);
        return Err(Failure::Configuration(cause));
    }
    tokio::task::block_in_place(|| {
        topics::make(&settings, partitions, replication)?;
        let secret = format!("{:016x}", fastrand::u64(..));
        let place = Place { common, prefix: &settings.prefix, dir: temporary.path(), secret: &secret };
        let measured = Bench::new(place, options, &settings).and_then(Bench::run);
        let removed = KafkaLog::delete_topics(&settings);
        measured.and(removed.map_err(Failure::from))
    })
}

struct Bench<'a> {
    options: &'a cli::Bench,
    place: Place<'a>,
    log: KafkaLog,
    load: Load,
    ends: Ends,
    broker: Option<Usage>,
}

/// What engine and broker have used at one moment.
struct Mark {
    at: Instant,
    engine: f64,
    broker: Option<f64>,
}

impl Mark {
    fn of(broker: Option<&Usage>, engines: &[Engine]) -> Mark {
        let engine = engines.iter().map(|engine| engine.usage().cpu_seconds()).sum();
        Mark { at: Instant::now(), engine, broker: broker.map(Usage::cpu_seconds) }
    }
}

/// How long each step of a transaction has taken so far, in seconds, and how often there was one.
fn steps(engines: &[Engine]) -> Result<BTreeMap<&'static str, (f64, f64)>, Failure> {
    let metrics = engines.iter().map(Engine::metrics).collect::<Result<Vec<_>, _>>()?;
    let of = |what: &str, step: &str| -> f64 {
        metrics.iter().map(|metrics| metrics.sum(&format!("{KAFKA_STEP_SECONDS}_{what}"), step)).sum()
    };
    Ok(STEPS.into_iter().map(|step| (step, (of("sum", step), of("count", step)))).collect())
}

impl<'a> Bench<'a> {
    fn new(place: Place<'a>, options: &'a cli::Bench, settings: &Settings) -> Result<Bench<'a>, Failure> {
        let log = KafkaLog::open(settings.clone())?;
        let ends = Ends::new(KafkaLog::open(Settings { is_at_once: true, ..settings.clone() })?)?;
        let load = Load::new(options.seed, options.wallets, options.hot);
        let broker = options.broker_pid.map(Usage::of);
        Ok(Bench { options, place, log, load, ends, broker })
    }

    fn run(mut self) -> Result<(), Failure> {
        self.open_wallets()?;
        self.throughput()?;
        if 0 < self.options.seconds {
            self.latency()?;
        }
        self.restore()?;
        let audit = audited(
            self.log.partitions(),
            |partition| self.log.range(Topic::Events, partition),
            |partition, from| self.log.fetch(Topic::Events, partition, from, FETCH_BYTES),
        )?;
        verdict(self.place.common, &audit)
    }

    fn open_wallets(&mut self) -> Result<(), Failure> {
        let engine = Engine::start(self.place, 0)?;
        let begun = Instant::now();
        let mut numbers = 0..self.options.wallets;
        loop {
            let batch: Vec<_> = numbers.by_ref().take(BATCH / 2).flat_map(Load::opening).collect();
            if batch.is_empty() {
                break;
            }
            publish(&self.log, batch)?;
        }
        self.ends.wait(|seen| self.options.wallets <= seen.topped_up)?;
        let seconds = begun.elapsed().as_secs_f64();
        let resident = engine.usage().resident_bytes() / MIB;
        engine.stop()?;
        print(
            self.place.common,
            &json!({ "phase": "open", "wallets": self.options.wallets, "seconds": round(seconds), "rss_mib": resident }),
        )
    }

    /// Publishes a backlog, and gives how many transfers are in it.
    fn backlog(&mut self, commands: u64) -> Result<u64, Failure> {
        let before = self.load.transfers;
        let mut left = usize::try_from(commands).unwrap_or(usize::MAX);
        while 0 < left {
            let batch: Vec<_> = (0..left.min(BATCH)).map(|_| self.load.next()).collect();
            left -= batch.len();
            publish(&self.log, batch)?;
        }
        Ok(self.load.transfers - before)
    }

    /// Publishes a backlog, starts the engine, and measures it from when it is warm to its last event: what has ended before counts for
    /// nothing. Records, bytes and transactions are told of all of it.
    fn throughput(&mut self) -> Result<(), Failure> {
        let warm = self.backlog(self.options.warm)?;
        let transfers = warm + self.backlog(self.options.transfers)?;
        let engine = Engine::start(self.place, 0)?;
        let seen = self.ends.seen.transfers;
        self.ends.wait(|now| seen + warm < now.transfers)?;
        let not_counted = self.ends.seen.transfers;
        let begun = Mark::of(self.broker.as_ref(), std::slice::from_ref(&engine));
        self.ends.wait(|now| seen + transfers <= now.transfers)?;
        let over = Mark::of(self.broker.as_ref(), std::slice::from_ref(&engine));
        std::thread::sleep(TOLD);
        let each = |total: f64| round(total / transfers as f64);
        let (cpu, seconds) = (over.engine - begun.engine, (over.at - begun.at).as_secs_f64());
        let metrics = engine.metrics()?;
        let transactions = metrics.sum(EPOCHS, "committed");
        let measured = (seen + transfers).saturating_sub(not_counted) as f64;
        let broker = over.broker.zip(begun.broker).map(|(over, begun)| over - begun);
        let figures = json!({
            "phase": "throughput", "log": "kafka", "commands": self.options.transfers, "warm": self.options.warm,
            "transfers": measured as u64, "seconds": round(seconds),
            "transfers_per_second": (measured / seconds).round(), "cpu_seconds": round(cpu),
            "transfers_per_cpu_second": (measured / cpu.max(0.01)).round(),
            "broker_cpu_seconds": broker.map(round),
            "records_per_transfer": each(metrics.sum(KAFKA_RECORDS, "")),
            "bytes_per_transfer": each(metrics.sum(KAFKA_BYTES, "")),
            "transactions": transactions,
            "transactions_per_transfer": transactions / transfers as f64,
            "rss_mib_max": engine.usage().resident_bytes_max() / MIB,
        });
        engine.stop()?;
        print(self.place.common, &figures)
    }

    /// Publishes at a fixed rate, whatever the engine does, and measures from the time each transfer was due.
    fn latency(&mut self) -> Result<(), Failure> {
        let engines = self.place.start_several(self.options.processes)?;
        let schedule = Schedule { first: self.load.transfers, begun: Instant::now(), rate: self.options.rate };
        let (warm, measured) = (WARM.as_secs() * self.options.rate, self.options.seconds * self.options.rate);
        let is_over = AtomicBool::new(false);
        let (log, load, ends, broker) = (&self.log, &mut self.load, &mut self.ends, self.broker.as_ref());
        let ((begun, steps_before), late) = std::thread::scope(|threads| {
            let reader = threads.spawn(|| ends.measure(schedule, warm + measured, &is_over));
            let warmed = pace(log, load, schedule, schedule.first + warm);
            // Beside the load, which would be late by the time that the engines take to tell.
            let steps_before = threads.spawn(|| steps(&engines));
            let begun = Mark::of(broker, &engines);
            let paced = warmed.and_then(|()| pace(log, load, schedule, schedule.first + warm + measured));
            if paced.is_err() {
                is_over.store(true, Ordering::Release);
            }
            let late = reader.join().map_err(|_| Failure::Failed("the reader died".to_owned()))?;
            let steps_before = steps_before.join().map_err(|_| Failure::Failed("who asks for metrics died".to_owned()))?;
            Ok::<_, Failure>(((begun, steps_before?), paced.and(late)?))
        })?;
        have_all_ended(&late, measured)?;
        let over = Mark::of(self.broker.as_ref(), &engines);
        let each_ms = |(step, (seconds, count)): (&'static str, (f64, f64))| {
            let (seconds_before, count_before) = steps_before.get(step).copied().unwrap_or_default();
            (step, round((seconds - seconds_before) / (count - count_before).max(1.0) * 1_000.0))
        };
        let steps: BTreeMap<&str, f64> = steps(&engines)?.into_iter().map(each_ms).collect();
        stop(engines)?;
        let at = |quantile: f64| round(late.value_at_quantile(quantile) as f64 / 1_000.0);
        let seconds = (over.at - begun.at).as_secs_f64();
        let percent = |cpu: f64| round(cpu / seconds * 100.0);
        let figures = json!({
            "phase": "latency", "log": "kafka", "processes": self.options.processes, "rate": self.options.rate,
            "seconds": self.options.seconds, "measured": late.len(),
            "p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "max_ms": round(late.max() as f64 / 1_000.0),
            "transaction_ms_mean": steps,
            "cpu_percent": percent(over.engine - begun.engine),
            "broker_cpu_percent": over.broker.zip(begun.broker).map(|(over, begun)| percent(over - begun)),
        });
        print(self.place.common, &figures)
    }

    /// Takes the state away and measures how long it takes to be ready again: from the snapshots and what came after them, and from the
    /// journal alone.
    fn restore(&mut self) -> Result<(), Failure> {
        let (mut blocks, mut rows) = (0_u64, 0_u64);
        for partition in 0..self.log.partitions() {
            each_value(&self.log, Topic::Journal, partition, |value| {
                let block = EncodedBlock::parse(value).map_err(|error| Failure::Failed(error.to_string()))?;
                (blocks, rows) = (blocks + 1, rows + block.rows().count() as u64);
                Ok(())
            })?;
        }
        let engines = self.place.start_several(1)?;
        self.place.ask(0, &["state", "snapshot"])?;
        stop(engines)?;
        let dir = self.place.data_dir(0);
        let snapshots = dir.join(SNAPSHOTS);
        clear(&dir, Some(&snapshots))?;
        let (seconds, cpu) = self.ready_again("snapshot")?;
        let state_mib = bytes_under(&dir, Some(&snapshots))? / MIB;
        let figures = json!({
            "phase": "takeover", "log": "kafka", "state_mib": state_mib, "seconds_from_start": round(seconds), "cpu_seconds": round(cpu),
        });
        print(self.place.common, &figures)?;
        clear(&dir, None)?;
        let (seconds, cpu) = self.ready_again("journal")?;
        let figures = json!({
            "phase": "restore", "log": "kafka", "blocks": blocks, "rows": rows, "seconds_from_start": round(seconds),
            "rows_per_second": (rows as f64 / seconds).round(), "cpu_seconds": round(cpu),
        });
        print(self.place.common, &figures)
    }

    /// How many seconds a start takes until every partition is there, each from `source`, and of the CPU.
    fn ready_again(&self, source: &str) -> Result<(f64, f64), Failure> {
        let engine = Engine::start(self.place, 0)?;
        let took = engine.ready()?.as_secs_f64();
        let cpu = engine.usage().cpu_seconds();
        // Restored before the group is joined; what is assigned then is found in the directory.
        let restored = engine.metrics()?.sum(RESTORED, &format!("source=\"{source}\""));
        engine.stop()?;
        if restored < f64::from(self.log.partitions()) {
            return Err(Failure::Failed(format!("only {restored} partitions were restored from the {source}")));
        }
        Ok((took, cpu))
    }
}

/// Removes everything in a directory but `kept`.
fn clear(dir: &Path, kept: Option<&Path>) -> Result<(), Failure> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        match path.is_dir() {
            _ if Some(&*path) == kept => {}
            true => std::fs::remove_dir_all(path)?,
            false => std::fs::remove_file(path)?,
        }
    }
    Ok(())
}

/// The bytes of all files in a directory, without those in `left_out`.
fn bytes_under(dir: &Path, left_out: Option<&Path>) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            bytes += if Some(&*path) == left_out { 0 } else { bytes_under(&path, left_out)? };
        } else {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// Stops all engines, the first one last: it goes on alone.
fn stop(engines: Vec<Engine>) -> Result<(), Failure> {
    engines.into_iter().rev().try_for_each(Engine::stop)
}

/// Publishes what is due, tick by tick, up to transfer number `last`.
fn pace(log: &KafkaLog, load: &mut Load, schedule: Schedule, last: u64) -> Result<(), Failure> {
    while load.transfers < last {
        let batch = load.until(schedule.due_by(Instant::now(), last));
        if batch.is_empty() {
            std::thread::sleep(TICK);
        } else {
            publish(log, batch)?;
        }
    }
    Ok(())
}

fn publish(log: &KafkaLog, records: Vec<Publish>) -> Result<(), Failure> {
    let mut batches: BTreeMap<u32, Vec<Outgoing>> = BTreeMap::new();
    for Publish { key, value, headers, .. } in records {
        let partition = partition_of_key(key.as_deref().unwrap_or_default(), log.partitions());
        batches.entry(partition).or_default().push(Outgoing { key, value, headers, timestamp_ms: None });
    }
    log.append_all(batches.into_iter().collect())?;
    Ok(())
}

/// Calls `visit` with every committed value of a partition of a topic.
fn each_value(
    log: &KafkaLog,
    topic: Topic,
    partition: u32,
    mut visit: impl FnMut(bytes::Bytes) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Range { start: mut from, end } = log.range(topic, partition)?;
    while from < end {
        let fetched = log.fetch(topic, partition, from, FETCH_BYTES)?;
        fetched.records.into_iter().filter_map(|record| record.value).try_for_each(&mut visit)?;
        from = fetched.next;
    }
    Ok(())
}

/// What a reader of committed events has seen.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    topped_up: u64,
    transfers: u64,
}

/// A reader of committed events, from the first to the newest.
struct Ends {
    log: KafkaLog,
    next: Vec<u64>,
    seen: Seen,
}

impl Ends {
    fn new(log: KafkaLog) -> Result<Ends, Failure> {
        let starts = (0..log.partitions()).map(|partition| Ok(log.range(Topic::Events, partition)?.start));
        let next = starts.collect::<Result<_, finflow_topologies::log::Error>>()?;
        Ok(Ends { log, next, seen: Seen::default() })
    }

    /// Reads until `is_enough`.
    fn wait(&mut self, is_enough: impl Fn(Seen) -> bool) -> Result<(), Failure> {
        self.wait_with(is_enough, |_| ())
    }

    /// The same, and shows the number of each transfer that has ended.
    fn wait_with(&mut self, is_enough: impl Fn(Seen) -> bool, mut visit: impl FnMut(u64)) -> Result<(), Failure> {
        let mut since = Instant::now();
        while !is_enough(self.seen) {
            if self.step(&mut visit)? {
                since = Instant::now();
            } else if IDLE_TIMEOUT < since.elapsed() {
                return Err(Failure::Temporary("the engine tells nothing any more".to_owned()));
            } else {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Reads until the ends of `total` transfers have come, and tells how late each was, in microseconds.
    fn measure(&mut self, schedule: Schedule, total: u64, is_over: &AtomicBool) -> Result<Histogram<u64>, Failure> {
        let mut late = Histogram::new_with_bounds(1, 600_000_000, 3).map_err(|error| Failure::Failed(error.to_string()))?;
        let all = self.seen.transfers + total;
        let is_enough = |seen: Seen| all <= seen.transfers || is_over.load(Ordering::Acquire);
        self.wait_with(is_enough, |key| {
            if let Some(micros) = schedule.late(key, Instant::now()) {
                late.saturating_record(micros);
            }
        })?;
        Ok(late)
    }

    /// Reads what has come; `false` if nothing has.
    fn step(&mut self, mut visit: impl FnMut(u64)) -> Result<bool, Failure> {
        let mut is_found = false;
        for (partition, next) in (0_u32..).zip(self.next.iter_mut()) {
            let fetched = self.log.poll(Topic::Events, partition, *next, FETCH_BYTES)?;
            is_found |= !fetched.records.is_empty();
            for value in fetched.records.iter().filter_map(|record| record.value.as_deref()) {
                match ended(value) {
                    Some(key) => {
                        self.seen.transfers += 1;
                        visit(key);
                    }
                    None if value.starts_with(b"{\"event\":\"payment.settled\"") => self.seen.topped_up += 1,
                    None => {}
                }
            }
            *next = fetched.next;
        }
        Ok(is_found)
    }
}
