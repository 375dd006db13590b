//! Three processes on a real broker, under a load that does not wait for them, while everything that can end is ended.
//!
//! `cargo test` lets one fault of each kind come, then restarts the processes one after the other, and checks everything. `cargo test
//! --test chaos -- --seconds 600 --seed 7` lets faults come for ten minutes, some across each other, with processes that are cut off from
//! the broker among them, with a standby for each partition, and where the seed is even with two lanes in one of the processes. Both then
//! take one broker out of three away, and print what the faults have cost.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use finflow_ledger::WalletId;
use finflow_topologies::topics::partition_of_wallet;

use self::application::{Application, PARTITIONS};
use self::broker::Broker;
use self::faults::Extent;
use self::form::Form;
use self::load::Load;
use self::wires::Wires;
use self::witness::Witness;

mod application;
#[path = "../../actors/tests/kafka_log/broker.rs"]
#[allow(dead_code, reason = "each suite uses its part")]
mod broker;
#[path = "../support/child.rs"]
mod child;
mod costs;
mod faults;
mod form;
mod load;
mod lost_broker;
#[path = "../kafka/process.rs"]
#[allow(dead_code, reason = "each suite uses its part")]
mod process;
#[path = "../../actors/tests/kafka_log/proxy.rs"]
#[allow(dead_code, reason = "each suite uses its part")]
mod proxy;
mod rolling;
mod verdict;
mod wires;
mod witness;

/// Transfers a second, two thirds of them across processes; fewer in the short form, which is not alone on its machine.
const RATE: usize = 1_000;
const RATE_SHORT: usize = 300;
/// What three processes that share evenly have of such transfers, in per cent, less what they need not share evenly: one that has two
/// lanes has two shares of four, which leaves 62.
const ACROSS_MIN: usize = 55;
/// How many of the transfers are looked at for that.
const SAMPLE: usize = 20_000;

#[derive(Parser)]
struct Arguments {
    /// For how long faults come; without it each kind comes once
    #[arg(long)]
    seconds: Option<u64>,
    /// Transfers a second
    #[arg(long)]
    rate: Option<usize>,
    /// Repeats the faults of a run, as far as a machine can
    #[arg(long)]
    seed: Option<u64>,
    /// One part alone
    #[arg(long)]
    only: Option<Part>,
    /// Where the processes live; kept, where a temporary directory would not be
    #[arg(long)]
    dir: Option<PathBuf>,
    #[command(flatten)]
    harness: Harness,
}

/// What the test harness of other suites takes: this one runs unless others are named.
#[derive(clap::Args)]
struct Harness {
    #[arg(hide = true)]
    filters: Vec<String>,
    #[arg(long, hide = true)]
    skip: Vec<String>,
    #[arg(long, hide = true)]
    list: bool,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    no_capture: bool,
    #[arg(long, hide = true)]
    show_output: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

impl Harness {
    fn is_meant(&self) -> bool {
        let names = |filters: &[String]| filters.iter().any(|filter| "chaos".contains(filter.as_str()));
        !self.list && (self.filters.is_empty() || names(&self.filters)) && !names(&self.skip)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Processes and broker are killed, paused and restarted; then a rolling restart
    Faults,
    /// One broker out of three is lost
    Brokers,
}

fn main() {
    let arguments = Arguments::parse();
    if !arguments.harness.is_meant() {
        return;
    }
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let (extent, form, rate) = match arguments.seconds {
        Some(seconds) => (Extent::For(Duration::from_secs(seconds)), Form::of(seed), RATE),
        None => (Extent::OneOfEach, Form::Plain, RATE_SHORT),
    };
    let rate = arguments.rate.unwrap_or(rate);
    let seconds = arguments.seconds.map_or_else(String::new, |seconds| format!("--seconds {seconds} "));
    println!("cargo test --test chaos -- {seconds}--rate {rate} --seed {seed}  # faults with {form}");
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = arguments.dir.as_deref().unwrap_or(temporary.path());
    if arguments.only != Some(Part::Brokers) {
        processes_and_broker_fail(&dir.join("faults"), seed, (extent, form), rate);
    }
    if arguments.only != Some(Part::Faults) {
        lost_broker::one_broker_out_of_three_is_lost(&dir.join("brokers"), seed);
    }
}

fn processes_and_broker_fail(dir: &Path, seed: u64, (extent, form): (Extent, Form), rate: usize) {
    std::fs::create_dir_all(dir).expect("a directory");
    let (broker, wires) = match extent {
        Extent::OneOfEach => (Broker::start(|_| vec![]), None),
        Extent::For(_) => {
            let (broker, wires) = Wires::to_a_broker();
            (broker, Some(wires))
        }
    };
    let mut app = Application::start(dir, broker.address(), "chaos", (form, &[]), wires);
    let mut load = Load::new(&app.brokers, app.prefix, seed);
    load.open_wallets();
    let witness = Witness::start(&app.brokers, app.prefix, PARTITIONS);
    verdict::all_end(&mut app, &witness, load.published());
    let across = across(&app, seed, load.published());
    assert!(ACROSS_MIN <= across, "{across} % of the transfers go to another process");
    println!("faults at {rate} transfers/s, {across} % across processes: {extent:?}");

    load.start(rate);
    let begun = Instant::now();
    let marks = faults::inflict(&mut app, (&broker, &witness), seed, extent);
    app.all_run();
    load.finish();
    verdict::all_end(&mut app, &witness, load.published());
    println!("    {} commands in {:.0} s", load.published(), begun.elapsed().as_secs_f64());
    costs::report(&marks, &witness.seen().gaps, begun);
    println!("    {}", app.pauses());
    println!("    partitions that another process went on with, by what it had of them: {:?}", app.moved);

    println!("a rolling restart");
    load.start(rate);
    rolling::restart_all(&mut app, &witness);
    load.finish();
    let aborted = verdict::all_is_well(&mut app, &witness, &load, seed);
    verdict::nothing_is_well_for_nothing(&app, extent, aborted);
}

/// How many of the transfers have their wallets in different processes, in per cent.
fn across(app: &Application<'_>, seed: u64, first: usize) -> usize {
    let owner = |wallet: &str| app.owner(partition_of_wallet(&WalletId::parse(wallet).expect("an id"), PARTITIONS));
    let is_across = |n: &usize| {
        let transfer = load::command(seed, *n);
        transfer.to.is_some_and(|to| owner(&transfer.home) != owner(&to))
    };
    (first..first + SAMPLE).filter(is_across).count() * 100 / SAMPLE
}
