//! `finflow simulate`: worlds that go wrong in every way, each from one seed, on all cores; exit 3 where money or order suffers.

use std::time::{Duration, Instant};

use finflow_topologies::simulation::{Outcome, Planted, Seeds, run_caught, run_seeds};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::cli::{Common, Format, Simulate};
use crate::failure::Failure;
use crate::output::{self, Output};

/// How often the progress is drawn.
const DRAWN_EVERY: Duration = Duration::from_millis(200);

pub(crate) fn simulate(common: &Common, options: &Simulate) -> Result<(), Failure> {
    let planted = options.planted;
    let seeds = match options.seed {
        Some(seed) => seed..seed.saturating_add(1),
        None => options.from..options.from.saturating_add(options.seeds),
    };
    let bar = progress(seeds.end - seeds.start);
    let started = Instant::now();
    let all = run_seeds(seeds, planted, |outcome| !outcome.faults.is_empty(), |done| bar.set_position(done));
    bar.finish_and_clear();
    let per_second = all.count as f64 / started.elapsed().as_secs_f64();
    tell(common, &all, per_second, planted)?;
    match &all.failed {
        None => Ok(()),
        Some((seed, outcome)) => Err(Failure::Difference(failed(*seed, outcome, planted))),
    }
}

/// A bar on a terminal, nothing elsewhere.
fn progress(seeds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seeds);
    if let Ok(style) = ProgressStyle::with_template("{pos}/{len} seeds {wide_bar} {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(DRAWN_EVERY);
    bar
}

fn tell(common: &Common, all: &Seeds, per_second: f64, planted: Option<Planted>) -> Result<(), Failure> {
    let faults = all.failed.as_ref().map(|(_, outcome)| outcome.faults.iter().map(ToString::to_string).collect::<Vec<_>>());
    if common.format == Format::Json {
        let counts: serde_json::Map<_, _> =
            all.counts.named().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
        let told = json!({
            "seeds": all.count,
            "seeds_per_second": per_second.round(),
            "planted": planted.map(Planted::name),
            "failed": all.failed.as_ref().map(|(seed, _)| seed),
            "faults": faults.unwrap_or_default(),
            "counts": counts,
        });
        return output::print(common, &told);
    }
    let mut out = Output::new();
    out.line(format_args!("{} seeds, {per_second:.0} per second", all.count))?;
    for (name, count) in all.counts.named() {
        out.line(format_args!("  {:<20} {count:>12}", name.replace('_', " ")))?;
    }
    faults.iter().flatten().try_for_each(|fault| out.line(format_args!("  {fault}")))?;
    out.flush()
}

/// The failing seed, whether it fails the same way again, and the command that replays it.
fn failed(seed: u64, outcome: &Outcome, planted: Option<Planted>) -> String {
    let again = if run_caught(seed, planted) == *outcome { "the same way again" } else { "in another way when it runs again" };
    let planted = planted.map(|planted| format!(" --planted {}", planted.name())).unwrap_or_default();
    format!("seed {seed} fails, {again}; it is replayed by `finflow simulate --seed {seed}{planted}`")
}
