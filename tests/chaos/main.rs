//! Three processes on a real broker, under a load that does not wait for them, while everything that can end is ended.
//!
//! `cargo test --test chaos -- --seconds 600 --seed 7` lets faults come for ten minutes, and prints what they cost. Without arguments it
//! is short.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use finflow_ledger::WalletId;
use finflow_topologies::topics::partition_of_wallet;

use self::application::{Application, PARTITIONS};
use self::broker::Broker;
use self::load::Load;
use self::witness::Witness;

mod application;
#[path = "../../actors/tests/kafka_log/broker.rs"]
#[allow(dead_code, reason = "each suite uses its part")]
mod broker;
#[path = "../support/child.rs"]
mod child;
mod costs;
mod faults;
mod load;
mod lost_broker;
#[path = "../kafka/process.rs"]
#[allow(dead_code, reason = "each suite uses its part")]
mod process;
mod rolling;
mod verdict;
mod witness;

/// Transfers a second, two thirds of them across processes.
const RATE: usize = 1_000;
/// How many of the transfers are looked at for that.
const SAMPLE: usize = 20_000;

#[derive(Parser)]
struct Arguments {
    /// For how long faults come
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// Repeats the faults of a run, as far as a machine can
    #[arg(long)]
    seed: Option<u64>,
    /// One part alone
    #[arg(long)]
    only: Option<Part>,
    /// Where the processes live; kept, where a temporary directory would not be
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What the test harness of other suites takes, and is not meant for this one
    #[arg(long, hide = true)]
    nocapture: bool,
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
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("cargo test --test chaos -- --seconds {} --seed {seed}", arguments.seconds);
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = arguments.dir.as_deref().unwrap_or(temporary.path());
    if arguments.only != Some(Part::Brokers) {
        processes_and_broker_fail(&dir.join("faults"), seed, Duration::from_secs(arguments.seconds));
    }
    if arguments.only != Some(Part::Faults) {
        lost_broker::one_broker_out_of_three_is_lost(&dir.join("brokers"), seed);
    }
}

fn processes_and_broker_fail(dir: &Path, seed: u64, period: Duration) {
    std::fs::create_dir_all(dir).expect("a directory");
    let broker = Broker::start(|_| vec![]);
    let mut app = Application::start(dir, broker.address(), "chaos", &[]);
    let mut load = Load::new(&app.brokers, app.prefix, seed);
    load.open_wallets();
    let witness = Witness::start(&app.brokers, app.prefix, PARTITIONS);
    verdict::all_end(&mut app, &witness, load.published());
    println!(
        "faults for {} s at {RATE} transfers/s, {} % across processes",
        period.as_secs(),
        across(&app, seed, load.published())
    );

    load.start(RATE);
    let begun = Instant::now();
    let marks = faults::inflict(&mut app, &broker, seed, period);
    app.all_run();
    load.finish();
    verdict::all_end(&mut app, &witness, load.published());
    println!("    {} commands in {:.0} s", load.published(), begun.elapsed().as_secs_f64());
    costs::report(&marks, &witness.seen().gaps, begun);

    println!("a rolling restart");
    load.start(RATE);
    rolling::restart_all(&mut app, &witness);
    load.finish();
    verdict::all_is_well(&mut app, &witness, &load, seed);
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
