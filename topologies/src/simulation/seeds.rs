//! Many seeds, on all cores. Each is a world of its own in one thread; only who takes which seed is left to the scheduler.

use std::ops::Range;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};

use super::counts::Counts;
use super::fault::{Fault, Kind};
use super::{Outcome, Planted, run_seed};

/// What a range of seeds led to.
#[derive(Debug, Default)]
pub struct Seeds {
    /// The first seed that failed, and how.
    pub failed: Option<(u64, Outcome)>,
    /// How many were run.
    pub count: u64,
    /// What happened in all of them.
    pub counts: Counts,
}

/// Runs a seed; a world that panics is faulty like any other.
pub fn run_caught(seed: u64, planted: Option<Planted>) -> Outcome {
    let panicked = |_| Outcome { faults: vec![Fault::new(Kind::Panicked, "a step panicked")], ..Outcome::default() };
    catch_unwind(|| run_seed(seed, planted)).unwrap_or_else(panicked)
}

/// Runs seeds until one fails in the eyes of `fails`, and tells `done` how many are behind it.
pub fn run_seeds(
    seeds: Range<u64>,
    planted: Option<Planted>,
    fails: impl Fn(&Outcome) -> bool + Sync,
    done: impl Fn(u64) + Sync,
) -> Seeds {
    let (next, finished) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let work = || {
        let mut part = Seeds::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seeds.end <= seed {
                return part;
            }
            let outcome = run_caught(seed, planted);
            part.count += 1;
            part.counts += outcome.counts;
            done(finished.fetch_add(1, Ordering::Relaxed) + 1);
            if fails(&outcome) {
                next.store(seeds.end, Ordering::Relaxed);
                part.failed = Some((seed, outcome));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<Seeds> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut all = Seeds::default();
    for part in parts {
        all.count += part.count;
        all.counts += part.counts;
        all.failed = all.failed.into_iter().chain(part.failed).min_by_key(|(seed, _)| *seed);
    }
    all
}
