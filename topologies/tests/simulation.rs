//! The simulator: thousands of seeds without a fault, and every planted bug found as what it is.
//!
//! `FINFLOW_SEED=n` runs one seed, `FINFLOW_SEEDS=n` another number of them.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the test measures and is steered; what it tests is not")]

use std::time::Instant;

use finflow_topologies::simulation::{Outcome, Planted, run_caught, run_seed, run_seeds};

const SEEDS: u64 = 2_000;
const SEEDS_TO_FIND: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn is_faulty(outcome: &Outcome) -> bool {
    !outcome.faults.is_empty()
}

#[test]
fn seeds_leave_no_fault() {
    let seeds = match (number("FINFLOW_SEED"), number("FINFLOW_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(SEEDS),
    };
    let started = Instant::now();
    let all = run_seeds(seeds, None, is_faulty, |_| {});
    let rate = all.count as f64 / started.elapsed().as_secs_f64();
    println!("{} seeds, {rate:.0} seeds/s: {:?}", all.count, all.counts);
    if let Some((seed, outcome)) = all.failed {
        let is_same = run_caught(seed, None) == outcome;
        panic!("FINFLOW_SEED={seed} fails (the same way again: {is_same}): {:#?}", outcome.faults);
    }
    // Suspicions whose ground is aborted are too rare to count on; `suspicion.rs` has their rows.
    let named = all.counts.named().into_iter().filter(|(name, _)| SEEDS <= all.count && *name != "acquitted");
    for (name, count) in named {
        assert_ne!(count, 0, "{name} never happened: {:?}", all.counts);
    }
}

#[test]
fn a_seed_repeats_itself() {
    for seed in 0..20 {
        let (first, second) = (run_seed(seed, None), run_seed(seed, None));
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first.history, run_seed(seed + 1, None).history, "seed {seed}");
    }
}

/// A bug is found when it shows as what it is, in a world that no halt has stopped before (unless the halt is what shows it).
#[test]
fn every_planted_bug_is_found_as_what_it_is() {
    for planted in Planted::ALL {
        let all = run_seeds(0..SEEDS_TO_FIND, Some(planted), |outcome| planted.shows_in(outcome), |_| {});
        let (seed, outcome) = all.failed.unwrap_or_else(|| panic!("{planted:?} is not found within {SEEDS_TO_FIND} seeds"));
        println!("{planted:?} is found by seed {seed}: {:?}", outcome.faults);
        assert_eq!(run_caught(seed, Some(planted)), outcome, "seed {seed} does not fail the same way again");
        assert!(!is_faulty(&run_caught(seed, None)), "seed {seed} fails without the bug too");
    }
}
