//! The topology as data: what is drawn is declared here, with the limits that bound each edge.

use std::fmt::Write;

use crate::sizes::{QUEUE_RECORDS_MAX, UNAPPLIED_EPOCHS_MAX, WAVE_COMMANDS_MAX, WAVE_POSTINGS_MAX};

/// One step of a record's way.
#[derive(Debug, Clone)]
pub struct Edge {
    /// Where it comes from.
    pub from: &'static str,
    /// Where it goes.
    pub to: &'static str,
    /// What travels, and what bounds it.
    pub label: String,
}

/// The topology's edges, in the order in which a record travels.
pub fn edges() -> Vec<Edge> {
    let edge = |from, to, label: String| Edge { from, to, label };
    vec![
        edge("commands", "lane", format!("fetch, queue {QUEUE_RECORDS_MAX}")),
        edge("postings", "lane", format!("fetch, queue {QUEUE_RECORDS_MAX}")),
        edge("lane", "partition", format!("wave, {WAVE_COMMANDS_MAX} commands and {WAVE_POSTINGS_MAX} postings")),
        edge("partition", "lane", "effects and hand-overs".to_owned()),
        edge("lane", "commit", "one epoch in flight".to_owned()),
        edge("commit", "events", "wallet and payment events".to_owned()),
        edge("commit", "postings", "legs that were not handed over".to_owned()),
        edge("commit", "journal", "one block per partition".to_owned()),
        edge("commit", "dlq", "what cannot be understood".to_owned()),
        edge("commit", "store", format!("after it is known, {UNAPPLIED_EPOCHS_MAX} epochs at most behind")),
    ]
}

/// The topology in Mermaid's language; topics are drawn as pipes, stores as cylinders.
pub fn mermaid() -> String {
    let mut out = String::from("flowchart LR\n");
    for topic in ["commands", "postings", "events", "journal", "dlq"] {
        // Writing into a string cannot fail.
        let _ = writeln!(out, "  {topic}[/{topic}/]");
    }
    let _ = writeln!(out, "  store[(store)]");
    for Edge { from, to, label } in edges() {
        let _ = writeln!(out, "  {from} -->|{label}| {to}");
    }
    out
}

/// The topology, one edge a line.
pub fn text() -> String {
    edges().iter().map(|edge| format!("{:<10} -> {:<10} {}\n", edge.from, edge.to, edge.label)).collect()
}

/// The topology, one JSON object an edge.
pub fn json() -> String {
    let line = |edge: Edge| serde_json::json!({ "from": edge.from, "to": edge.to, "label": edge.label }).to_string() + "\n";
    edges().into_iter().map(line).collect()
}
