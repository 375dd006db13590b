//! The benchmark of the embedded log: engine, load and reader in this process, so the backlog is published while no engine runs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use finflow_actors::{Node, Settings};
use finflow_topologies::Topic;
use hdrhistogram::Histogram;
use serde_json::json;

use super::load::Load;
use super::usage::Usage;
use super::{BATCH, FETCH_BYTES, IDLE_TIMEOUT, MIB, Schedule, TICK, WARM, ended, have_all_ended, round, verdict};
use crate::access::settings;
use crate::audited::audited;
use crate::cli::{self, Common};
use crate::failure::Failure;
use crate::output::print;

/// How often the engine is asked whether it is warm.
const POLL: Duration = Duration::from_millis(5);

pub(super) async fn bench(common: &Common, options: &cli::Bench) -> Result<(), Failure> {
    let temporary = tempfile::tempdir()?;
    let is_given = common.data_dir != Path::new("./finflow-data");
    let mut settings = settings(common)?;
    if !is_given {
        settings.data_dir = temporary.path().to_owned();
    }
    if settings.data_dir.join("log").exists() {
        return Err(Failure::Failed("the directory holds data already; give the benchmark one of its own".to_owned()));
    }
    let mut load = Load::new(options.seed, options.wallets, options.hot);
    open_wallets(common, &settings, options).await?;
    throughput(common, &settings, options, &mut load).await?;
    if 0 < options.seconds {
        latency(common, &settings, options, &mut load).await?;
    }
    finish(common, settings)
}

async fn open_wallets(common: &Common, settings: &Settings, options: &cli::Bench) -> Result<(), Failure> {
    let node = Node::start(settings.clone()).await?;
    let begun = Instant::now();
    let mut numbers = 0..options.wallets;
    loop {
        let batch: Vec<_> = numbers.by_ref().take(BATCH / 2).flat_map(Load::opening).collect();
        if batch.is_empty() {
            break;
        }
        node.publish(batch).await?;
    }
    idle(&node).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let resident = Usage::own().resident_bytes() / MIB;
    node.stop().await;
    print(common, &json!({ "phase": "open", "wallets": options.wallets, "seconds": round(seconds), "rss_mib": resident }))
}

/// Publishes a backlog, starts the engine and measures it from when it is warm until it is idle.
async fn throughput(common: &Common, settings: &Settings, options: &cli::Bench, load: &mut Load) -> Result<(), Failure> {
    let publisher = Node::open(settings.clone())?;
    let mut left = usize::try_from(options.warm.saturating_add(options.transfers)).unwrap_or(usize::MAX);
    while 0 < left {
        let batch: Vec<_> = (0..left.min(BATCH)).map(|_| load.next()).collect();
        left -= batch.len();
        publisher.publish(batch).await?;
    }
    drop(publisher);

    let watch = Watch::start();
    let node = Node::start(settings.clone()).await?;
    // Of the commands that are left by then, as many are transfers as of all.
    let measured = loop {
        let left = commands_left(&node);
        if left <= options.transfers {
            break left;
        }
        tokio::time::sleep(POLL).await;
    };
    let (begun, cpu, written) = (Instant::now(), Usage::own().cpu_seconds(), Usage::own().written_bytes());
    idle(&node).await?;
    let seconds = begun.elapsed().as_secs_f64();
    node.stop().await;
    let (cpu, written) = (Usage::own().cpu_seconds() - cpu, Usage::own().written_bytes() - written);
    let transfers = measured as f64 * Load::TRANSFERS_OF_COMMANDS;
    let figures = json!({
        "phase": "throughput", "lanes": settings.lanes, "commands": options.transfers, "warm": options.warm,
        "transfers": transfers.round() as u64, "seconds": round(seconds),
        "transfers_per_second": (transfers / seconds).round(), "cpu_seconds": round(cpu),
        "transfers_per_cpu_second": (transfers / cpu.max(0.01)).round(),
        "bytes_written_per_transfer": (written as f64 / transfers).round(), "rss_mib_max": watch.stop() / MIB,
    });
    print(common, &figures)
}

/// Commands that are not carried out yet.
fn commands_left(node: &Node) -> u64 {
    node.status().iter().map(|of| of.commands_lag).sum()
}

/// Publishes at a fixed rate, whatever the engine does, and measures from the time each transfer was due.
async fn latency(common: &Common, settings: &Settings, options: &cli::Bench, load: &mut Load) -> Result<(), Failure> {
    let node = Node::start(settings.clone()).await?;
    let schedule = Schedule { first: load.transfers, begun: Instant::now(), rate: options.rate };
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(read_ends(node.clone(), schedule, is_over.clone()));
    let warm = schedule.first + WARM.as_secs() * options.rate;
    pace(&node, load, schedule, warm).await?;
    let (begun, cpu) = (Instant::now(), Usage::own().cpu_seconds());
    pace(&node, load, schedule, warm + options.seconds * options.rate).await?;
    idle(&node).await?;
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), Usage::own().cpu_seconds() - cpu);
    is_over.store(true, Ordering::Release);
    let ends = reader.await.map_err(|error| Failure::Failed(error.to_string()))?;
    node.stop().await;
    have_all_ended(&ends, options.seconds * options.rate)?;
    let at = |quantile: f64| round(ends.value_at_quantile(quantile) as f64 / 1_000.0);
    let figures = json!({
        "phase": "latency", "lanes": settings.lanes, "rate": options.rate, "seconds": options.seconds, "measured": ends.len(),
        "p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "max_ms": round(ends.max() as f64 / 1_000.0),
        "cpu_percent_with_load_and_reader": round(cpu / seconds * 100.0),
    });
    print(common, &figures)
}

/// Publishes what is due, tick by tick, up to transfer number `last`.
async fn pace(node: &Node, load: &mut Load, schedule: Schedule, last: u64) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(TICK);
    while load.transfers < last {
        ticks.tick().await;
        let batch = load.until(schedule.due_by(Instant::now(), last));
        if !batch.is_empty() {
            node.publish(batch).await?;
        }
    }
    Ok(())
}

/// Reads the events as a consumer does and measures the end of each transfer, in microseconds from its due time.
async fn read_ends(node: Node, schedule: Schedule, is_over: Arc<AtomicBool>) -> Histogram<u64> {
    // The bounds are constants that the histogram accepts.
    let mut ends = Histogram::new_with_bounds(1, 600_000_000, 3).expect("valid bounds");
    let mut next: Vec<u64> =
        (0..node.partitions_count()).map(|id| node.range(Topic::Events, id).map_or(0, |range| range.end)).collect();
    loop {
        let (is_last, mut is_found) = (is_over.load(Ordering::Acquire), false);
        for (partition, from) in (0_u32..).zip(next.iter_mut()) {
            let Ok(fetched) = node.fetch(Topic::Events, partition, *from, FETCH_BYTES) else { continue };
            let now = Instant::now();
            let keys = fetched.records.iter().filter_map(|record| ended(record.value.as_deref()?));
            keys.filter_map(|key| schedule.late(key, now)).for_each(|late| ends.saturating_record(late));
            is_found |= !fetched.records.is_empty();
            *from = fetched.next;
        }
        if is_last && !is_found {
            return ends;
        }
        node.changed(Duration::from_millis(20)).await;
    }
}

/// Recomputes every balance from the events.
fn finish(common: &Common, settings: Settings) -> Result<(), Failure> {
    let node = Node::open(settings)?;
    let audit = audited(
        node.partitions_count(),
        |partition| node.range(Topic::Events, partition),
        |partition, from| node.fetch(Topic::Events, partition, from, FETCH_BYTES),
    )?;
    verdict(common, &audit)
}

/// Waits until everything is done, for as long as it gets less.
async fn idle(node: &Node) -> Result<(), Failure> {
    let mut before = u64::MAX;
    while !node.idle(IDLE_TIMEOUT).await {
        let left = node.status().iter().map(|of| of.commands_lag.saturating_add(of.postings_lag)).sum();
        if before <= left {
            return Err(Failure::Temporary("the engine does not come to rest".to_owned()));
        }
        before = left;
    }
    Ok(())
}

/// Watches the resident memory of this process.
struct Watch {
    max: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn start() -> Watch {
        let max = Arc::new(AtomicU64::new(0));
        let seen = max.clone();
        let task = tokio::spawn(async move {
            loop {
                seen.fetch_max(Usage::own().resident_bytes(), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Watch { max, task }
    }

    /// The most that was seen, in bytes.
    fn stop(self) -> u64 {
        self.task.abort();
        self.max.load(Ordering::Relaxed).max(Usage::own().resident_bytes())
    }
}
