//! What an operator does with the state: verify it, take a snapshot of it, move a partition's directory aside. Moving all of it
//! elsewhere is `rescale`.

use finflow_actors::socket::Client;
use finflow_actors::{Checked, adopt, discard};
use serde_json::{Value, json};

use crate::access::{Access, nobody_runs, settings};
use crate::cli::{Common, StateCommand};
use crate::failure::Failure;
use crate::output::print;
use crate::rescale;

pub(crate) async fn state(common: &Common, command: &StateCommand) -> Result<(), Failure> {
    match command {
        StateCommand::Verify { snapshots } => verify(common, *snapshots).await,
        StateCommand::Snapshot => snapshot(common).await,
        StateCommand::Dump { into } => rescale::dump(common, into).await,
        StateCommand::Restore { dump } => rescale::restore(common, dump).await,
        StateCommand::Adopt { partitions, yes } => adopt_directories(common, partitions, *yes).await,
        StateCommand::Discard { partition, yes } => discard_directory(common, *partition, *yes).await,
    }
}

/// One object per partition, wherever it runs. One that is halted, or cannot be read, differs.
async fn verify(common: &Common, snapshots: bool) -> Result<(), Failure> {
    let access = Access::inspect(common).await?;
    let (mut differences, mut unavailable) = (0, Vec::new());
    for partition in 0..access.partitions_count().await? {
        let Some(checked) = available(access.check(partition, snapshots).await, &mut unavailable)? else { continue };
        differences += checked.differences.len();
        print(common, &checked_json(&checked))?;
    }
    if differences == 0 { all_of(&unavailable) } else { Err(Failure::Difference(format!("{differences} differences"))) }
}

/// What was answered, or nothing and a note of why not: the other partitions are asked all the same.
fn available<T>(answered: Result<T, Failure>, unavailable: &mut Vec<String>) -> Result<Option<T>, Failure> {
    match answered {
        Err(Failure::Temporary(cause)) => {
            unavailable.push(cause);
            Ok(None)
        }
        answered => answered.map(Some),
    }
}

fn all_of(unavailable: &[String]) -> Result<(), Failure> {
    if unavailable.is_empty() { Ok(()) } else { Err(Failure::Temporary(unavailable.join("; "))) }
}

fn checked_json(checked: &Checked) -> Value {
    let mut shown = json!({
        "partition": checked.partition, "block": checked.block, "wallets": checked.wallets,
        "payments": checked.payments, "holds": checked.holds, "sums": checked.sums, "digest": checked.digest,
        "differences": checked.differences,
    });
    if let (Some(blocks), Some(shown)) = (&checked.snapshots, shown.as_object_mut()) {
        shown.insert("snapshots".to_owned(), json!(blocks));
    }
    shown
}

async fn snapshot(common: &Common) -> Result<(), Failure> {
    let access = Access::inspect(common).await?;
    let mut unavailable = Vec::new();
    for partition in 0..access.partitions_count().await? {
        if let Some(Some(block)) = available(access.snapshot(partition).await, &mut unavailable)? {
            print(common, &json!({ "partition": partition, "block": block }))?;
        }
    }
    all_of(&unavailable)
}

async fn adopt_directories(common: &Common, partitions: &[u32], yes: bool) -> Result<(), Failure> {
    let settings = settings(common)?;
    nobody_runs(&settings).await?;
    let partitions: Vec<u32> = partitions.to_vec();
    if let Some(partition) = partitions.iter().find(|partition| settings.partitions <= **partition) {
        return Err(Failure::Failed(format!("there is no partition {partition}, there are {}", settings.partitions)));
    }
    for adopted in rescale::work(move || adopt(&settings, &partitions, yes)).await? {
        let mut shown = json!({ "partition": adopted.partition, "rows": adopted.rows });
        if let (Some((block, moved_to)), Some(shown)) = (adopted.done, shown.as_object_mut()) {
            shown.insert("block".to_owned(), json!(block));
            shown.insert("moved_to".to_owned(), json!(moved_to.display().to_string()));
        }
        print(common, &shown)?;
    }
    if yes {
        return Ok(());
    }
    let would =
        "With --yes, the rows in which the directories differ are written into the log, and the directories are moved aside";
    Err(Failure::Usage(format!("nothing was done. {would}. Events that the log has lost are not told again")))
}

async fn discard_directory(common: &Common, partition: u32, yes: bool) -> Result<(), Failure> {
    let settings = settings(common)?;
    if Client::connect(&common.data_dir).await.is_some() {
        return Err(Failure::Temporary("a service runs in this directory; stop it first".to_owned()));
    }
    if settings.partitions <= partition {
        return Err(Failure::Failed(format!("there is no partition {partition}, there are {}", settings.partitions)));
    }
    let dir = common.data_dir.join("state").join(partition.to_string());
    if !dir.is_dir() {
        return Err(Failure::Failed(format!("{} is not there; the next start builds it", dir.display())));
    }
    if !yes {
        return Err(Failure::Usage(format!(
            "nothing was done. With --yes, {} is moved aside, and the next start builds the state of partition {partition} again \
             from its newest snapshot and its journal",
            dir.display()
        )));
    }
    let moved_to = discard(&settings, partition)?;
    print(common, &json!({ "partition": partition, "moved_to": moved_to.display().to_string() }))
}
