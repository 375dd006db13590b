//! `finflow demo`: a generated load with everything that goes wrong in it, killed actors, and an independent audit at the end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use finflow_actors::Node;
use finflow_topologies::Topic;
use finflow_topologies::simulation::audit;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use self::load::Load;
use self::report::Report;
use crate::access::settings;
use crate::cli::{self, Common};
use crate::failure::Failure;

mod load;
mod report;

/// How often a batch of the load is due.
const TICK: Duration = Duration::from_millis(10);
/// How often a partition actor is killed.
const KILL_EVERY: Duration = Duration::from_millis(1_500);
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
const FETCH_BYTES: usize = 4 << 20;
/// Wallets that are opened with one write.
const OPEN_BATCH: usize = 2_000;

/// When each measured transfer was due, by idempotency key.
type Due = Arc<Mutex<HashMap<String, Instant>>>;

pub(crate) async fn demo(common: &Common, options: &cli::Demo) -> Result<(), Failure> {
    let temporary = tempfile::tempdir()?;
    let is_given = common.data_dir.as_os_str() != "./finflow-data";
    let mut settings = settings(common)?;
    settings.lanes = settings.lanes.max(2).min(settings.partitions);
    if !is_given {
        settings.data_dir = temporary.path().to_owned();
    }
    let (partitions, lanes) = (settings.partitions, settings.lanes);
    println!(
        "finflow demo: {partitions} partitions on {lanes} lanes, {} wallets, {}/s for {} s",
        options.wallets, options.rate, options.seconds
    );
    let node = Node::start(settings).await?;
    if is_given && 0 < node.range(Topic::Commands, 0)?.end {
        node.stop().await;
        return Err(Failure::Failed("the directory holds data already; give the demo one of its own".to_owned()));
    }
    let mut load = Load::new(options.seed, options.wallets, partitions);
    let opening = load.opening();
    let count = opening.len();
    let progress = bar(count as u64, "opening wallets");
    let mut opening = opening.into_iter().peekable();
    while opening.peek().is_some() {
        let batch: Vec<_> = opening.by_ref().take(OPEN_BATCH).collect();
        progress.inc(batch.len() as u64);
        node.publish(batch).await?;
    }
    let opened = node.idle(IDLE_TIMEOUT).await;
    progress.finish_and_clear();
    if !opened {
        return Err(Failure::Temporary("the wallets were not opened in time".to_owned()));
    }
    let outcome = measure(&node, options, &mut load).await;
    node.stop().await;
    let report = outcome?;
    report.print();
    if report.faults.is_empty() { Ok(()) } else { Err(Failure::Difference("the audit found differences".to_owned())) }
}

async fn measure(node: &Node, options: &cli::Demo, load: &mut Load) -> Result<Report, Failure> {
    let due: Due = Arc::default();
    let cpu_before = report::cpu_seconds();
    let latencies =
        Arc::new(Mutex::new(Histogram::new_with_bounds(1, 600_000_000, 3).map_err(|error| Failure::Failed(error.to_string()))?));
    let watcher = tokio::spawn(watch(node.clone(), due.clone(), latencies.clone()));
    let begun = Instant::now();
    let kills = drive(node, options, load, &due).await?;
    let idle = node.idle(IDLE_TIMEOUT).await;
    let took = begun.elapsed();
    let cpu = report::cpu_seconds() - cpu_before;
    watcher.abort();
    // An aborted task has let go of its histogram once it is joined.
    let _ = watcher.await;
    let latencies = Arc::into_inner(latencies).and_then(|held| held.into_inner().ok());
    let events = values(node, Topic::Events)?;
    let audit = audit(events.iter().map(|event| &**event));
    let mut report = Report::new(audit, load, kills, took, cpu, latencies);
    report.dead_letters = values(node, Topic::Dlq)?.len() as u64;
    report.compare_balances(node)?;
    if !idle {
        report.faults.push("not every command had ended in time".to_owned());
    }
    Ok(report)
}

/// Publishes what is due at each tick and kills a partition actor now and then; gives the number of kills.
async fn drive(node: &Node, options: &cli::Demo, load: &mut Load, due: &Due) -> Result<u64, Failure> {
    let total = options.seconds * options.rate;
    let progress = bar(total, "commands");
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    let (mut published, mut kills) = (0, 0);
    while published < total {
        ticks.tick().await;
        let now_due = (begun.elapsed().as_micros() as u64 * options.rate / 1_000_000).min(total);
        let batch = load.next(published..now_due, |index| begun + Duration::from_micros(index * 1_000_000 / options.rate), due);
        published = now_due;
        node.publish(batch).await?;
        progress.set_position(published);
        if KILL_EVERY * (kills + 1) < begun.elapsed() {
            node.kill_partition(kills % node.partitions_count());
            kills += 1;
        }
    }
    progress.finish_and_clear();
    Ok(u64::from(kills))
}

/// Reads the events as a consumer does and measures from the time a transfer was due to the time its end could be read.
async fn watch(node: Node, due: Due, latencies: Arc<Mutex<Histogram<u64>>>) {
    let mut next: Vec<u64> =
        (0..node.partitions_count()).map(|id| node.range(Topic::Events, id).map_or(0, |range| range.end)).collect();
    loop {
        for (partition, from) in (0_u32..).zip(next.iter_mut()) {
            let Ok(fetched) = node.fetch(Topic::Events, partition, *from, FETCH_BYTES) else { continue };
            let now = Instant::now();
            for record in &fetched.records {
                let Some(key) = record.value.as_deref().and_then(load::ended_key) else { continue };
                if let Some(due) = due.lock().unwrap_or_else(PoisonError::into_inner).remove(&key) {
                    let micros = u64::try_from(now.saturating_duration_since(due).as_micros()).unwrap_or(u64::MAX);
                    latencies.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
                }
            }
            *from = fetched.next;
        }
        node.changed(Duration::from_millis(50)).await;
    }
}

fn values(node: &Node, topic: Topic) -> Result<Vec<bytes::Bytes>, Failure> {
    let mut values = Vec::new();
    for partition in 0..node.partitions_count() {
        let mut from = node.range(topic, partition)?.start;
        loop {
            let fetched = node.fetch(topic, partition, from, FETCH_BYTES)?;
            if fetched.records.is_empty() {
                break;
            }
            values.extend(fetched.records.into_iter().filter_map(|record| record.value));
            from = fetched.next;
        }
    }
    Ok(values)
}

fn bar(length: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:40} {human_pos}/{human_len} {per_sec} {eta}");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(what)
}
