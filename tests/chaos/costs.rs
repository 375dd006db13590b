//! What faults cost: for how long the partitions that they concern have settled nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::application::PARTITIONS;
use crate::witness::{GAP_MIN, Gap};

/// So many times what is aimed at is no bad day of a machine any more.
const FAILED_AIMS: u32 = 3;
/// A time without a settlement that begins later is not the fault's.
const COSTS_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGKILL, and a start at once.
    Killed,
    /// SIGKILL, and a start when others have taken over.
    Lost,
    /// SIGSTOP, and SIGCONT when others have taken over.
    Paused,
    /// It is cut off from the broker until others have taken over.
    CutOff,
    /// SIGTERM, and a start once it has ended.
    Restarted,
    /// SIGKILL of a broker.
    Broker,
    /// The broker answers again.
    BrokerBack,
    /// A process comes back whose partitions others have taken over.
    Returned,
    /// A process has ended by itself, and is started again.
    Fell,
}

impl Kind {
    /// Whose figures its costs belong to, and the 95th percentile that is aimed at.
    fn group(self) -> (&'static str, Option<Duration>) {
        match self {
            Kind::Killed | Kind::Restarted => ("the same process restarts", Some(Duration::from_secs(5))),
            Kind::Lost | Kind::Paused | Kind::CutOff => ("another takes over", Some(Duration::from_secs(20))),
            Kind::Broker => ("the broker is gone, from its end", None),
            Kind::BrokerBack => ("the broker is back, from then on", None),
            Kind::Returned => ("a process comes back", None),
            Kind::Fell => ("a process ends by itself", None),
        }
    }
}

/// A fault, and the partitions that it concerns.
pub(crate) struct Mark {
    pub(crate) kind: Kind,
    pub(crate) at: Instant,
    pub(crate) partitions: Vec<u32>,
}

/// How often each kind of fault has come, how long it has cost, and the longest time of each partition.
pub(crate) fn report(marks: &[Mark], gaps: &[Gap], since: Instant) {
    let mut kinds = BTreeMap::<Kind, usize>::new();
    let (mut plain, mut crossed) = (BTreeMap::<_, Vec<Duration>>::new(), Vec::new());
    for (index, mark) in marks.iter().enumerate() {
        *kinds.entry(mark.kind).or_default() += 1;
        let mut its = Vec::new();
        for partition in &mark.partitions {
            let (cost, is_crossed) = cost(marks.split_at(index), mark, *partition, gaps);
            let costs = if is_crossed { &mut crossed } else { plain.entry(mark.kind.group()).or_default() };
            costs.push(cost);
            its.push(format!("{partition}: {:.1}{}", cost.as_secs_f64(), if is_crossed { "+" } else { "" }));
        }
        println!("    {:>5.1} s  {:?} {}", (mark.at - since).as_secs_f64(), mark.kind, its.join(", "));
    }
    let count = |those: &[Kind]| those.iter().filter_map(|kind| kinds.get(kind)).sum::<usize>();
    let kills = count(&[Kind::Killed, Kind::Lost, Kind::Broker]);
    let recoveries = plain.values().map(Vec::len).sum::<usize>() + crossed.len();
    println!("    {kills} kills, {recoveries} recoveries of a partition; faults: {kinds:?}");
    for ((group, aim), costs) in plain {
        tell(group, aim, costs);
    }
    tell("two faults at a time", None, crossed);
    let longest = |partition| {
        let of = gaps.iter().filter(|gap| gap.partition == partition && since <= gap.to);
        let longest = of.map(|gap| gap.to - gap.from).max().unwrap_or(GAP_MIN);
        format!("{partition}: {:.1}", longest.as_secs_f64())
    };
    let all: Vec<String> = (0..PARTITIONS).map(longest).collect();
    println!("    longest time without a settlement, s by partition: {}", all.join(", "));
}

/// For how long a partition has settled nothing after a fault, and whether another fault was the cause too.
fn cost((earlier, later): (&[Mark], &[Mark]), mark: &Mark, partition: u32, gaps: &[Gap]) -> (Duration, bool) {
    // The broker's return is no further fault, but the end of its own.
    let is_end = |later: &Mark| mark.kind == Kind::Broker && later.kind == Kind::BrokerBack;
    let next = later.iter().skip(1).find(|later| later.partitions.contains(&partition) && !is_end(later)).map(|later| later.at);
    // What has settled nothing since the next fault, and not for longer, is that one's.
    let until = next.map_or(mark.at + COSTS_WITHIN, |next| (mark.at + COSTS_WITHIN).min(next - GAP_MIN));
    let its = gaps.iter().filter(|gap| gap.partition == partition && mark.at < gap.to && gap.from < until);
    its.max_by_key(|gap| gap.to - gap.from).map_or((GAP_MIN, false), |gap| {
        // What came before the return is counted already.
        let from = if mark.kind == Kind::BrokerBack { gap.from.max(mark.at) } else { gap.from };
        let is_before = |mark: &Mark| mark.partitions.contains(&partition) && from < mark.at + COSTS_WITHIN;
        let is_older = from + GAP_MIN < mark.at && earlier.iter().any(is_before);
        (gap.to - from, is_older || next.is_some_and(|next| next < gap.to))
    })
}

fn tell(group: &str, aim: Option<Duration>, mut costs: Vec<Duration>) {
    costs.sort_unstable();
    let at = |hundredth: usize| costs.get((costs.len() * hundredth).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default();
    let is_failed = aim.is_some_and(|aim| aim * FAILED_AIMS < at(95));
    assert!(!is_failed, "{group}: p95 {:.1} s, {aim:?} are aimed at", at(95).as_secs_f64());
    let aim = aim.map_or_else(String::new, |aim| format!(" (aim: {} s)", aim.as_secs()));
    println!(
        "    {group}: {} times a partition without a settlement, p50 {:.1} s, p95 {:.1} s{aim}, longest {:.1} s",
        costs.len(),
        at(50).as_secs_f64(),
        at(95).as_secs_f64(),
        at(100).as_secs_f64()
    );
}
