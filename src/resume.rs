//! `finflow partitions resume`: halted partitions go on, and whether they do is looked at.

use std::time::{Duration, Instant};

use finflow_actors::{JournalEnd, PartitionStatus};
use finflow_topologies::wire::v1::time_text;
use serde_json::{Value, json};

use crate::access::Access;
use crate::cli::{Common, Resume};
use crate::failure::Failure;
use crate::output::print;

/// How long a partition that is to go on may take to do so, how long it has to, and between two looks.
const RESUMED_WITHIN: Duration = Duration::from_secs(3);
const PROBATION: Duration = Duration::from_millis(500);
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How long a partition may take that is claimed, restored and given a position before it goes on.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn resume(common: &Common, access: &Access, command: &Resume) -> Result<(), Failure> {
    if let Access::Own(_) = access {
        let cause = "no service runs; a partition is resumed where it runs, for example: finflow run";
        return Err(Failure::Failed(cause.to_owned()));
    }
    match command.partition {
        Some(partition) if command.from_journal => {
            halted(access, partition).await?;
            from_journal(common, access, &[partition], command.dry_run).await
        }
        Some(partition) if command.skip_expired => past_expired(common, access, partition, command.dry_run).await,
        Some(partition) => from_position(common, access, partition).await,
        None => {
            let status = access.status().await?;
            let unavailable = status.iter().find(|of| is_unavailable(of)).map(|of| unavailable(of.partition));
            let halted: Vec<u32> = status.iter().filter(|of| of.cause.is_some()).map(|of| of.partition).collect();
            if halted.is_empty() {
                return Err(unavailable.unwrap_or_else(|| Failure::Failed("no partition is halted".to_owned())));
            }
            from_journal(common, access, &halted, command.dry_run).await?;
            unavailable.map_or(Ok(()), Err)
        }
    }
}

/// Whether nobody who could be asked has the partition: what it is like is not known.
fn is_unavailable(status: &PartitionStatus) -> bool {
    status.cause.is_none() && matches!(status.state.as_str(), "elsewhere" | "standby")
}

fn unavailable(partition: u32) -> Failure {
    Failure::Temporary(format!("partition {partition} is not available now, retry"))
}

async fn status(access: &Access, partition: u32) -> Result<PartitionStatus, Failure> {
    let all = access.status().await?;
    let last = all.len().saturating_sub(1);
    let found = all.into_iter().find(|of| of.partition == partition);
    found.ok_or_else(|| Failure::Failed(format!("there is no partition {partition}: they are 0 to {last}")))
}

/// How a partition is; fails unless it is known to be halted.
async fn halted(access: &Access, partition: u32) -> Result<PartitionStatus, Failure> {
    let status = status(access, partition).await?;
    if is_unavailable(&status) {
        return Err(unavailable(partition));
    }
    if status.cause.is_none() {
        return Err(Failure::Failed(format!("partition {partition} is not halted")));
    }
    Ok(status)
}

/// Looks at a partition until `judge`, who is told for how long it has been looked at, has come to a verdict.
async fn watch(
    access: &Access,
    partition: u32,
    mut judge: impl FnMut(PartitionStatus, Duration) -> Option<Result<(), Failure>>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        if let Some(verdict) = judge(status(access, partition).await?, begun.elapsed()) {
            return verdict;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Lets a halted partition go on, and looks whether it does.
async fn from_position(common: &Common, access: &Access, partition: u32) -> Result<(), Failure> {
    halted(access, partition).await?;
    access.resume(partition).await?;
    runs(access, partition, PROBATION).await?;
    print(common, &resumed(partition))
}

/// Lets a partition go on past commands that the log has let go of, and says which first; nobody is told what has become of those. It has
/// gone on when its position is committed behind them: until then it would be halted again by the next start.
async fn past_expired(common: &Common, access: &Access, partition: u32, is_dry_run: bool) -> Result<(), Failure> {
    let before = halted(access, partition).await?.block;
    let expired = access.expired(partition).await?;
    let told = json!({
        "partition": partition, "status": status_of(is_dry_run), "expired_from": expired.from, "expired_to": expired.to,
    });
    print(common, &told)?;
    if is_dry_run {
        return Ok(());
    }
    access.resume_past_expired(partition, expired.to).await?;
    watch(access, partition, |status, waited| match status.cause {
        Some(cause) if RESUMED_WITHIN < waited => Some(Err(again(partition, &cause))),
        None if before < status.block => Some(Ok(())),
        _ if TAKEN_WITHIN < waited => {
            let cause = format!("partition {partition} has not committed yet that it goes on: see `finflow partitions`");
            Some(Err(Failure::Temporary(cause)))
        }
        _ => None,
    })
    .await?;
    print(common, &resumed(partition))
}

/// Lets halted partitions go on from the last block of their journals, each of which is told first. Those that are refused stay as they
/// are.
async fn from_journal(common: &Common, access: &Access, partitions: &[u32], is_dry_run: bool) -> Result<(), Failure> {
    let (mut ends, mut refused) = (Vec::new(), Vec::new());
    for partition in partitions {
        match access.journal_end(*partition).await {
            Err(Failure::Failed(cause)) => refused.push(cause),
            found => ends.push(found?),
        }
    }
    ends.iter().try_for_each(|end| print(common, &end_json(end, status_of(is_dry_run))))?;
    if !is_dry_run {
        for end in &ends {
            access.resume_from_journal(end.partition).await?;
        }
        for end in &ends {
            match runs(access, end.partition, Duration::ZERO).await {
                Err(Failure::Failed(cause)) => refused.push(cause),
                outcome => {
                    outcome?;
                    print(common, &resumed(end.partition))?;
                }
            }
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(Failure::Failed(refused.join("; "))) }
}

/// Waits until the partition has run for so long. It shows no cause from when it is taken to when it is restored or halted again.
async fn runs(access: &Access, partition: u32, probation: Duration) -> Result<(), Failure> {
    let (mut is_taken, mut runs_since) = (false, None);
    watch(access, partition, |status, waited| {
        match status.cause {
            Some(cause) if is_taken || RESUMED_WITHIN < waited => return Some(Err(again(partition, &cause))),
            Some(_) => {}
            // Nobody tells.
            None if is_unavailable(&status) => runs_since = None,
            None => {
                is_taken = true;
                runs_since = (status.state == "running").then(|| runs_since.unwrap_or(waited));
                if runs_since.is_some_and(|since| probation <= waited.saturating_sub(since)) {
                    return Some(Ok(()));
                }
            }
        }
        (TAKEN_WITHIN < waited).then(|| {
            let cause = format!("partition {partition} does not run yet, but is {}: see `finflow partitions`", status.state);
            Err(Failure::Temporary(cause))
        })
    })
    .await
}

fn status_of(is_dry_run: bool) -> &'static str {
    if is_dry_run { "would go on" } else { "goes on" }
}

fn again(partition: u32, cause: &str) -> Failure {
    Failure::Failed(format!("partition {partition} is halted again: {cause}"))
}

fn resumed(partition: u32) -> Value {
    json!({ "partition": partition, "status": "resumed" })
}

fn end_json(end: &JournalEnd, status: &str) -> Value {
    json!({
        "partition": end.partition, "status": status, "block": end.block, "stamp": end.stamp, "time": time_text(end.at_ms),
        "commands": end.commands, "postings": end.postings,
    })
}
