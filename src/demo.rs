//! `finflow demo`: a generated load with everything that goes wrong in it, killed actors, and an independent audit at the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use finflow_actors::Node;
use finflow_ledger::WalletId;
use finflow_topologies::Topic;

use self::live::{Live, thousands};
use self::load::Load;
use self::report::Facts;
use self::watch::Watch;
use crate::access::settings;
use crate::audited::audited;
use crate::bench::usage::Usage;
use crate::cli::{self, Common, Format};
use crate::failure::Failure;
use crate::output;

mod live;
mod load;
mod report;
mod watch;

/// Lanes, so that postings travel through the log too.
const LANES: u32 = 2;
/// How often a batch of the load is due.
const TICK: Duration = Duration::from_millis(10);
/// How often a partition actor is killed.
const KILL_EVERY: Duration = Duration::from_millis(1_500);
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
const FETCH_BYTES: usize = 4 << 20;
/// Commands of the opening that are published with one write.
const OPEN_BATCH: usize = 2_000;

pub(crate) async fn demo(common: &Common, options: &cli::Demo) -> Result<(), Failure> {
    let temporary = tempfile::tempdir()?;
    let mut settings = settings(common)?;
    settings.lanes = settings.lanes.max(LANES).min(settings.partitions);
    if !common.is_data_dir_given {
        settings.data_dir = temporary.path().to_owned();
    }
    let (partitions, lanes) = (settings.partitions, settings.lanes);
    eprintln!(
        "finflow demo: {} wallets in AED, VND and KWD on {partitions} partitions and {lanes} lanes; {} commands a second for {} s, among\n\
         them duplicates, overdrafts, frozen wallets, misrouted and poison records; partition actors are killed meanwhile.",
        thousands(options.wallets),
        thousands(options.rate),
        options.seconds
    );
    let node = Node::start(settings).await?;
    let facts = measure(&node, common, options, Load::new(options.seed, options.wallets, partitions)).await;
    node.stop().await;
    let facts = facts?;
    match common.format {
        Format::Json => output::print(common, &facts.json())?,
        Format::Text | Format::Mermaid => output::text(&facts.text())?,
    }
    if common.is_data_dir_given {
        eprintln!("\n  look at it: finflow wallet list --data-dir {}", common.data_dir.display());
    }
    match facts.faults().len() {
        0 => Ok(()),
        count => Err(Failure::Difference(format!("the audit found {count} differences"))),
    }
}

async fn measure(node: &Node, common: &Common, options: &cli::Demo, mut load: Load) -> Result<Facts, Failure> {
    if common.is_data_dir_given
        && (0..node.partitions_count()).any(|id| node.range(Topic::Commands, id).is_ok_and(|range| 0 < range.end))
    {
        return Err(Failure::Failed("the directory holds data already; give the demo one of its own".to_owned()));
    }
    let opened = open(node, &load).await?;
    let watch = Watch::start(node)?;
    let (begun, cpu_before) = (Instant::now(), Usage::own().cpu_seconds());
    let kills = drive(node, options, &mut load, &watch).await?;
    let has_ended = node.idle(IDLE_TIMEOUT).await;
    let (took, cpu_seconds) = (begun.elapsed(), Usage::own().cpu_seconds() - cpu_before);
    Ok(Facts {
        accepted: opened + load.sent,
        transfers: load.transfers,
        duplicates: load.duplicates,
        misrouted: load.misrouted,
        latencies: watch.stop().await,
        audit: audited(
            node.partitions_count(),
            |partition| node.range(Topic::Events, partition),
            |partition, from| node.fetch(Topic::Events, partition, from, FETCH_BYTES),
        )?,
        dead_letters: dead_letters(node)?,
        told: told(node, options.wallets)?,
        has_ended,
        kills,
        took,
        cpu_seconds,
    })
}

/// Opens the wallets and brings money in; gives the number of commands.
async fn open(node: &Node, load: &Load) -> Result<u64, Failure> {
    let opening = load.opening();
    let count = opening.len() as u64;
    let mut live = Live::new("opening wallets", count);
    let mut opening = opening.into_iter().peekable();
    let mut published = 0;
    while opening.peek().is_some() {
        let batch: Vec<_> = opening.by_ref().take(OPEN_BATCH).collect();
        published += batch.len() as u64;
        node.publish(batch).await?;
        live.show(published, || format!("{} commands", thousands(published)));
    }
    let is_idle = node.idle(IDLE_TIMEOUT).await;
    live.finish();
    if is_idle { Ok(count) } else { Err(Failure::Temporary("the wallets were not opened in time".to_owned())) }
}

/// Publishes what is due at each tick and kills a partition actor now and then; gives the number of kills.
async fn drive(node: &Node, options: &cli::Demo, load: &mut Load, watch: &Watch) -> Result<u64, Failure> {
    let total = options.seconds * options.rate;
    let mut live = Live::new("commands", total);
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    let mut kills = 0;
    while load.sent < total {
        ticks.tick().await;
        let now_due = (begun.elapsed().as_micros() as u64 * options.rate / 1_000_000).min(total);
        let due_at = |index: u64| begun + Duration::from_micros(index * 1_000_000 / options.rate);
        let batch = load.next(load.sent..now_due, due_at, &mut watch.seen().due);
        node.publish(batch).await?;
        live.show(load.sent, || figures(load, watch, begun));
        if KILL_EVERY * (kills + 1) < begun.elapsed() {
            node.kill_partition(kills % node.partitions_count());
            kills += 1;
        }
    }
    live.finish();
    Ok(u64::from(kills))
}

fn figures(load: &Load, watch: &Watch, begun: Instant) -> String {
    let seen = watch.seen();
    let rate = load.sent as f64 / begun.elapsed().as_secs_f64();
    let p99 = seen.latencies.value_at_quantile(0.99) as f64 / 1_000.0;
    format!(
        "accepted {}  settled {}  rejected {}  duplicates {}  {rate:.0}/s  p99 {p99:.1} ms",
        thousands(load.sent),
        thousands(seen.settled),
        thousands(seen.rejected),
        thousands(load.duplicates)
    )
}

fn dead_letters(node: &Node) -> Result<u64, Failure> {
    let mut count = 0;
    for partition in 0..node.partitions_count() {
        let range = node.range(Topic::Dlq, partition)?;
        count += range.end - range.start;
    }
    Ok(count)
}

/// What the engine says that each wallet holds.
fn told(node: &Node, wallets: u64) -> Result<BTreeMap<String, Option<i128>>, Failure> {
    let mut told = BTreeMap::new();
    for n in 0..wallets {
        let name = load::wallet(n);
        let id = WalletId::parse(&name).ok_or_else(|| Failure::Failed(format!("{name} is not a wallet id")))?;
        told.insert(name, node.wallet(&id)?.map(|wallet| wallet.ledger().minor()));
    }
    Ok(told)
}
