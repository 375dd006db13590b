//! What happened in a world or in many: a fault that never came about proves nothing.

use std::ops::AddAssign;

/// How often each thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Nodes that crashed.
    pub crashes: u64,
    /// Partitions that moved.
    pub moves: u64,
    /// Partitions that came back to a node whose commit for them was still in flight.
    pub returns: u64,
    /// Commits that were refused because their node or one of its claims had been replaced.
    pub fenced: u64,
    /// Epochs that were aborted while the next one was open.
    pub aborted_under_open: u64,
    /// Decisions that seemed to break an invariant, on nodes that did not know what they had lost.
    pub suspicions: u64,
    /// Suspicions whose ground was aborted.
    pub acquitted: u64,
    /// Epochs that were committed.
    pub epochs: u64,
    /// Postings that travelled through the log.
    pub postings: u64,
    /// Payments that waited for too long and said so.
    pub reminders: u64,
    /// Inputs that were trimmed once they were in a store.
    pub trims: u64,
}

impl Counts {
    /// Each count with its name.
    pub fn named(&self) -> [(&'static str, u64); 11] {
        [
            ("crashes", self.crashes),
            ("moves", self.moves),
            ("returns", self.returns),
            ("fenced", self.fenced),
            ("aborted_under_open", self.aborted_under_open),
            ("suspicions", self.suspicions),
            ("acquitted", self.acquitted),
            ("epochs", self.epochs),
            ("postings", self.postings),
            ("reminders", self.reminders),
            ("trims", self.trims),
        ]
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.crashes += other.crashes;
        self.moves += other.moves;
        self.returns += other.returns;
        self.fenced += other.fenced;
        self.aborted_under_open += other.aborted_under_open;
        self.suspicions += other.suspicions;
        self.acquitted += other.acquitted;
        self.epochs += other.epochs;
        self.postings += other.postings;
        self.reminders += other.reminders;
        self.trims += other.trims;
    }
}
