//! What the parts of a transfer cost, one by one: ledger, codecs, store. `finflow bench` measures the whole.
//!
//! `cargo bench --profile dev --bench parts [FILTER]` prints nanoseconds per operation, the least and the median of several rounds.

use std::hint::black_box;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

mod codec;
mod engine;
mod ledger;
mod store;

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(200);

/// Whether the filter on the command line, if there is one, lets a part of this name through.
fn is_asked(name: &str) -> bool {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    filter.is_none_or(|filter| name.contains(&filter))
}

/// Prints the cost of `operation`, which does `per_call` operations a call.
fn measure<T>(name: &str, per_call: u32, mut operation: impl FnMut() -> T) {
    if !is_asked(name) {
        return;
    }
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (begun, mut calls) = (Instant::now(), 0_u32);
            while begun.elapsed() < ROUND {
                black_box(operation());
                calls += 1;
            }
            begun.elapsed().as_nanos() as f64 / f64::from(calls) / f64::from(per_call)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{name:<44} {:>10.0} ns least {:>10.0} ns median", rounds[0], rounds[ROUNDS / 2]);
}

fn main() {
    ledger::all();
    codec::all();
    store::all();
    engine::all();
}
