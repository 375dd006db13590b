//! The report of the demo: what was asked, what became of it, how fast, and whether every cent is there.

use std::collections::BTreeMap;
use std::time::Duration;

use finflow_ledger::{Currency, Money};
use finflow_topologies::simulation::Audit;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::live::thousands;

/// Differences that are told; the rest is counted.
const FAULTS_TOLD: usize = 20;

/// Everything that was found out, from three sides: what was published, what the events say, what the engine says.
pub(super) struct Facts {
    /// Commands that the log took.
    pub(super) accepted: u64,
    /// Of them: transfers, without their copies.
    pub(super) transfers: u64,
    /// Of them: copies of others.
    pub(super) duplicates: u64,
    /// Of them: sent to another partition than their own.
    pub(super) misrouted: u64,
    /// The events, added up by the auditor.
    pub(super) audit: Audit,
    pub(super) dead_letters: u64,
    /// Every wallet's ledger balance in minor units, as the engine tells it.
    pub(super) told: BTreeMap<String, Option<i128>>,
    /// Whether everything had ended when it was counted.
    pub(super) has_ended: bool,
    pub(super) kills: u64,
    pub(super) took: Duration,
    /// CPU seconds of this process meanwhile: engine, load and reader.
    pub(super) cpu_seconds: f64,
    /// Microseconds from due to readable.
    pub(super) latencies: Histogram<u64>,
}

impl Facts {
    /// Everything that does not fit together; nothing if every cent is there.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.audit.faults.iter().map(ToString::to_string).collect();
        if !self.has_ended {
            faults.push("not every command had ended in time".to_owned());
        }
        for (wallet, told) in &self.told {
            let expected = self.audit.balances.get(wallet).map(|(_, balance)| *balance);
            if *told != expected || told.is_none() {
                faults.push(format!("wallet {wallet}: the engine tells {told:?}, its events sum to {expected:?}"));
            }
        }
        if self.audit.balances.len() != self.told.len() {
            faults.push(format!("the events tell of {} wallets, {} were opened", self.audit.balances.len(), self.told.len()));
        }
        let left = self.accepted.checked_sub(self.applied() + self.settled() + self.rejected() + self.dead_letters);
        if left != Some(self.duplicates) {
            let duplicates = self.duplicates;
            faults.push(format!("{duplicates} copies were published, {left:?} commands left neither event nor dead letter"));
        }
        faults
    }

    fn events(&self, name: &str) -> u64 {
        self.audit.outcomes.get(name).copied().unwrap_or_default()
    }

    fn settled(&self) -> u64 {
        self.events("payment.settled")
    }

    fn rejected(&self) -> u64 {
        self.audit.reasons.values().sum()
    }

    fn applied(&self) -> u64 {
        self.events("wallet.opened") + self.events("wallet.frozen")
    }

    fn per_second(&self) -> f64 {
        self.transfers as f64 / self.took.as_secs_f64()
    }

    /// Zero where the system does not tell CPU time.
    fn per_cpu_second(&self) -> f64 {
        if 0.0 < self.cpu_seconds { self.transfers as f64 / self.cpu_seconds } else { 0.0 }
    }

    fn milliseconds(&self) -> [(&'static str, f64); 4] {
        let at = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1_000.0;
        [("p50", at(0.5)), ("p95", at(0.95)), ("p99", at(0.99)), ("max", self.latencies.max() as f64 / 1_000.0)]
    }

    /// Per currency: what was brought in, and what the wallets hold by their events.
    fn sums(&self) -> Vec<(&str, String, String)> {
        let of = |sums: &BTreeMap<String, i128>, code: &str| major(sums.get(code).copied().unwrap_or_default(), code);
        let codes = self.audit.brought_in.keys();
        codes.map(|code| (&**code, of(&self.audit.brought_in, code), of(&self.audit.sums, code))).collect()
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![String::new()];
        let mut line = |name: &str, figure: String, note: &str| {
            lines.push(format!("  {name:<26} {figure:>12}  {note}").trim_end().to_owned())
        };
        line("accepted", thousands(self.accepted), "commands, of which");
        line("carried out", thousands(self.applied()), "wallets opened or frozen");
        line("settled", thousands(self.settled()), "");
        line("rejected", thousands(self.rejected()), "");
        for (reason, count) in &self.audit.reasons {
            line("", thousands(count), reason);
        }
        line("duplicates", thousands(self.duplicates), "answered from their record, carried out once");
        line("dead letters", thousands(self.dead_letters), "could not be understood");
        line("misrouted", thousands(self.misrouted), "among them, carried out at home");
        line("partition actors killed", thousands(self.kills), "");
        line("transfers per second", thousands(format!("{:.0}", self.per_second())), "");
        line("  per CPU-second", thousands(format!("{:.0}", self.per_cpu_second())), "load and reader included");
        let times = self.milliseconds().map(|(name, time)| format!("{name} {time:.1} ms")).join("   ");
        lines.push(format!("\n  publish to settled         {times}\n"));
        lines.push(format!("  {:<12} {:>22} {:>22}", "all wallets", "brought in before", "held after"));
        for (code, before, after) in self.sums() {
            lines.push(format!("  {code:<12} {:>22} {:>22}", thousands(before), thousands(after)));
        }
        lines.push(self.verdict());
        lines.join("\n") + "\n"
    }

    fn verdict(&self) -> String {
        let faults = self.faults();
        if faults.is_empty() {
            let (wallets, events) = (self.audit.balances.len(), self.audit.outcomes.values().sum::<u64>());
            return format!(
                "\n  audit: every cent is accounted for ({wallets} wallets recomputed from {} events, equal to what the engine tells)",
                thousands(events)
            );
        }
        let told = faults.iter().take(FAULTS_TOLD).map(|fault| format!("\n    {fault}"));
        format!("\n  audit: {} differences{}", faults.len(), told.collect::<String>())
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let sums =
            self.sums().into_iter().map(|(code, before, after)| (code.to_owned(), json!({ "before": before, "after": after })));
        let times = self.milliseconds().into_iter().map(|(name, time)| (format!("{name}_ms"), json!(time)));
        json!({
            "accepted": self.accepted, "applied": self.applied(), "settled": self.settled(), "rejected": self.audit.reasons,
            "duplicates": self.duplicates, "dead_lettered": self.dead_letters, "misrouted": self.misrouted, "actors_killed": self.kills,
            "transfers_per_second": self.per_second(), "transfers_per_cpu_second": self.per_cpu_second(),
            "publish_to_settled": times.collect::<serde_json::Map<_, _>>(), "sums": sums.collect::<serde_json::Map<_, _>>(),
            "differences": self.faults(),
        })
    }
}

fn major(minor: i128, code: &str) -> String {
    Currency::parse(code).map_or_else(|| minor.to_string(), |currency| Money::from_minor(minor, currency).to_string())
}

#[cfg(test)]
mod tests;
