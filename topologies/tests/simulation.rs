//! The simulator: thousands of seeds without a fault, and every planted bug found.
//!
//! `FINFLOW_SEED=n` runs one seed, `FINFLOW_SEEDS=n` another number of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use finflow_topologies::simulation::{Outcome, Planted, run_seed};

const SEEDS: u64 = 2_000;
const SEEDS_TO_FIND: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A seed whose world panics is faulty too, and is named like the others.
fn run(seed: u64, planted: Option<Planted>) -> Outcome {
    let panicked = |_| Outcome { faults: vec!["it panicked".to_owned()], ..Outcome::default() };
    std::panic::catch_unwind(|| run_seed(seed, planted)).unwrap_or_else(panicked)
}

/// The first faulty seed of `seeds`, looked for on all cores, and what the seeds led to together.
fn first_faulty(seeds: std::ops::Range<u64>, planted: Option<Planted>) -> (Option<(u64, Outcome)>, Outcome) {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let (mut faulty, mut total) = (None, Outcome::default());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seeds.end <= seed {
                return (faulty, total);
            }
            let outcome = run(seed, planted);
            total.crashes += outcome.crashes;
            total.moves += outcome.moves;
            total.fenced += outcome.fenced;
            total.halted_unaware += outcome.halted_unaware;
            total.epochs += outcome.epochs;
            if !outcome.faults.is_empty() {
                next.store(seeds.end, Ordering::Relaxed);
                faulty = Some((seed, outcome));
            }
        }
    };
    let found: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread that does not panic")).collect()
    });
    let mut total = Outcome::default();
    for (_, part) in &found {
        total.crashes += part.crashes;
        total.moves += part.moves;
        total.fenced += part.fenced;
        total.halted_unaware += part.halted_unaware;
        total.epochs += part.epochs;
    }
    (found.into_iter().filter_map(|(faulty, _)| faulty).min_by_key(|(seed, _)| *seed), total)
}

#[test]
fn seeds_leave_no_fault() {
    let seeds = match (number("FINFLOW_SEED"), number("FINFLOW_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(SEEDS),
    };
    let count = seeds.end - seeds.start;
    let started = Instant::now();
    let (faulty, total) = first_faulty(seeds, None);
    let rate = count as f64 / started.elapsed().as_secs_f64();
    println!("{count} seeds, {rate:.0} seeds/s: {total:?}");
    if let Some((seed, outcome)) = faulty {
        let is_same = run(seed, None) == outcome;
        panic!("FINFLOW_SEED={seed} fails (the same way again: {is_same}): {:#?}", outcome.faults);
    }
    assert!(count == 1 || (0 < total.crashes && 0 < total.moves && 0 < total.fenced), "nothing went wrong: {total:?}");
}

#[test]
fn a_seed_repeats_itself() {
    for seed in 0..20 {
        let (first, second) = (run_seed(seed, None), run_seed(seed, None));
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first.history, run_seed(seed + 1, None).history, "seed {seed}");
    }
}

fn must_find(planted: Planted) {
    let (faulty, _) = first_faulty(0..SEEDS_TO_FIND, Some(planted));
    let (seed, outcome) = faulty.unwrap_or_else(|| panic!("{planted:?} is not found within {SEEDS_TO_FIND} seeds"));
    println!("{planted:?} is found by seed {seed}: {}", outcome.faults[0]);
    assert_eq!(run(seed, Some(planted)), outcome, "seed {seed} does not fail the same way again");
}

#[test]
fn dedup_skipped_on_replay_is_found() {
    must_find(Planted::DedupSkippedOnReplay);
}

#[test]
fn a_store_written_before_the_commit_is_found() {
    must_find(Planted::StoreBeforeCommit);
}

#[test]
fn a_posting_delivered_twice_is_found() {
    must_find(Planted::SequenceUnchecked);
}

#[test]
fn a_row_missing_in_a_block_is_found() {
    must_find(Planted::EntityMissing);
}
