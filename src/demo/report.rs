//! The report of the demo: what was asked, what became of it, how fast, and whether every cent is there.

use std::collections::BTreeMap;
use std::time::Duration;

use finflow_actors::Node;
use finflow_ledger::WalletId;
use finflow_topologies::simulation::Audit;
use hdrhistogram::Histogram;

use super::load::Load;
use crate::failure::Failure;

pub(super) struct Report {
    audit: Audit,
    figures: Vec<(&'static str, String)>,
    latencies: Option<Histogram<u64>>,
    pub(super) dead_letters: u64,
    pub(super) faults: Vec<String>,
}

impl Report {
    pub(super) fn new(
        mut audit: Audit,
        load: &Load,
        kills: u64,
        took: Duration,
        cpu: f64,
        latencies: Option<Histogram<u64>>,
    ) -> Report {
        let faults = std::mem::take(&mut audit.faults).iter().map(ToString::to_string).collect();
        let per_second = load.transfers as f64 / took.as_secs_f64();
        let per_cpu = if 0.0 < cpu { load.transfers as f64 / cpu } else { 0.0 };
        let figures = vec![
            ("transfers published", load.transfers.to_string()),
            ("duplicates published", load.duplicates.to_string()),
            ("misrouted published", load.misrouted.to_string()),
            ("poison published", load.poison.to_string()),
            ("partition actors killed", kills.to_string()),
            ("transfers per second", format!("{per_second:.0}")),
            ("transfers per CPU-second, load and audit reader included", format!("{per_cpu:.0}")),
        ];
        Report { audit, figures, latencies, dead_letters: 0, faults }
    }

    /// Compares the balances that the engine tells with those that the events sum up to.
    pub(super) fn compare_balances(&mut self, node: &Node) -> Result<(), Failure> {
        for (wallet, (_, expected)) in &self.audit.balances {
            let id = WalletId::parse(wallet).ok_or_else(|| Failure::Failed(format!("{wallet} is not a wallet id")))?;
            let told = node.wallet(&id)?.map(|wallet| wallet.ledger().minor());
            if told != Some(*expected) {
                self.faults.push(format!("wallet {wallet}: the engine tells {told:?}, its events sum to {expected}"));
            }
        }
        Ok(())
    }

    pub(super) fn print(&self) {
        println!();
        for (name, figure) in &self.figures {
            println!("  {name:<58} {figure:>12}");
        }
        println!("  {:<58} {:>12}", "dead letters", self.dead_letters);
        for (outcome, count) in &self.audit.outcomes {
            println!("  events {outcome:<51} {count:>12}");
        }
        if let Some(latencies) = &self.latencies {
            let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1_000.0;
            println!(
                "  {:<58} p50 {:.1} ms  p95 {:.1} ms  p99 {:.1} ms  max {:.1} ms",
                "due to readable",
                at(0.5),
                at(0.95),
                at(0.99),
                latencies.max() as f64 / 1_000.0
            );
        }
        let sum = |sums: &BTreeMap<String, i128>, currency: &str| sums.get(currency).copied().unwrap_or_default();
        for currency in self.audit.brought_in.keys() {
            let (before, after) = (sum(&self.audit.brought_in, currency), sum(&self.audit.sums, currency));
            println!("  {currency} minor units brought in {before}, in wallets now {after}");
        }
        match self.faults.len() {
            0 => println!(
                "\n  audit: every cent is accounted for ({} wallets recomputed from the events)",
                self.audit.balances.len()
            ),
            count => {
                println!("\n  audit: {count} differences");
                self.faults.iter().take(20).for_each(|fault| println!("    {fault}"));
            }
        }
    }
}

/// CPU time of this process so far, in seconds; 0 where the system does not tell.
pub(super) fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}
