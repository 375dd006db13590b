//! Moving the whole state of a stopped application: into a dump, out of one, or straight to another number of partitions.

use std::path::Path;

use finflow_actors::{MoveError, Settings, Source, bring};
use finflow_state::Dump;
use serde_json::{Value, json};

use crate::access::{configuration, nobody_runs, settings};
use crate::cli::{Common, Rescale};
use crate::failure::Failure;
use crate::output::print;

/// `finflow state dump`.
pub(crate) async fn dump(common: &Common, into: &Path) -> Result<(), Failure> {
    let from = source_settings(common).await?;
    let into = into.to_owned();
    let dump = work(move || Source::open(from)?.dump(&into)).await?;
    print(common, &dumped(&dump))
}

/// `finflow state restore`.
pub(crate) async fn restore(common: &Common, dir: &Path) -> Result<(), Failure> {
    let to = settings(common)?;
    nobody_runs(&to).await?;
    let replication = configuration(common)?.topics.replication_factor;
    let dir = dir.to_owned();
    let (dump, imported, partitions) = work(move || {
        let dump = Dump::open(&dir)?;
        let imported = bring(&to, replication, &dump)?;
        Ok((dump, imported, to.partitions))
    })
    .await?;
    let mut shown = dumped(&dump);
    if let Some(shown) = shown.as_object_mut() {
        shown.insert("partitions".to_owned(), json!(partitions));
        shown.insert("generation".to_owned(), json!(imported.generation.to_string()));
        shown.insert("blocks".to_owned(), json!(imported.blocks));
        shown.insert("blocks_found".to_owned(), json!(imported.found));
        shown.insert("was_there".to_owned(), json!(imported.was_whole));
    }
    print(common, &shown)
}

/// `finflow rescale`.
pub(crate) async fn rescale(common: &Common, options: &Rescale) -> Result<(), Failure> {
    let from = source_settings(common).await?;
    let to = target(common, options)?;
    if from.kafka.is_some() && from.prefix == to.prefix {
        return Err(Failure::Usage("--to-prefix must differ from topics.prefix: the old topics stay as they are".to_owned()));
    }
    nobody_runs(&to).await?;
    let (replication, dry_run) = (configuration(common)?.topics.replication_factor, options.dry_run);
    let (old_prefix, old_partitions) = (from.prefix.clone(), from.partitions);
    let (new_prefix, partitions) = (to.prefix.clone(), to.partitions);
    let done = work(move || {
        let source = Source::open(from)?;
        let mut obstacles = source.obstacles()?;
        obstacles.extend(source.gone_elsewhere(&to)?);
        if !source.is_sealed()? {
            obstacles.push("commands may still come in; `finflow topics seal` keeps them out".to_owned());
        }
        if !obstacles.is_empty() {
            return Err(MoveError::Obstacles(obstacles));
        }
        if dry_run { Ok(None) } else { finflow_actors::rescale(&source, &to, replication).map(Some) }
    })
    .await?;
    let Some(done) = done else {
        return print(
            common,
            &json!({ "from": old_prefix, "to": new_prefix, "partitions": partitions, "status": "nothing is against it" }),
        );
    };
    let rows = done.dump.manifest().rows();
    print(
        common,
        &json!({
            "from": old_prefix, "from_partitions": old_partitions, "to": new_prefix, "partitions": partitions,
            "generation": done.imported.generation.to_string(), "wallets": rows.wallets, "payments": rows.payments,
            "holds": rows.holds, "blocks": done.imported.blocks, "blocks_found": done.imported.found,
            "was_there": done.imported.was_whole, "dump": done.dir.display().to_string(),
        }),
    )
}

/// The application that is to be read, of which nothing may run.
async fn source_settings(common: &Common) -> Result<Settings, Failure> {
    let from = settings(common)?;
    nobody_runs(&from).await?;
    if from.kafka.is_none() && !from.data_dir.join("log").is_dir() {
        return Err(Failure::Failed(format!("{} holds no finflow data", from.data_dir.display())));
    }
    Ok(from)
}

/// The same settings but for prefix, number of partitions and directory, checked like any others.
fn target(common: &Common, options: &Rescale) -> Result<Settings, Failure> {
    let mut target = common.clone();
    target.set.push(format!("topics.prefix={}", options.to_prefix));
    target.set.push(format!("topics.partitions={}", options.partitions));
    let is_embedded = settings(common)?.kafka.is_none();
    match (&options.to_data_dir, is_embedded) {
        (Some(dir), true) if *dir != common.data_dir => target.data_dir.clone_from(dir),
        (None, false) => {}
        (_, true) => {
            let missing = "on the embedded log the new application needs a directory of its own: --to-data-dir";
            return Err(Failure::Usage(missing.to_owned()));
        }
        (Some(_), false) => {
            let useless = "--to-data-dir is for the embedded log; on Kafka the new processes begin with empty directories";
            return Err(Failure::Usage(useless.to_owned()));
        }
    }
    settings(&target)
}

fn dumped(dump: &Dump) -> Value {
    let (manifest, rows) = (dump.manifest(), dump.manifest().rows());
    let id: String = dump.id().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "dump": id, "from": manifest.prefix, "from_partitions": manifest.parts.len(),
        "wallets": rows.wallets, "payments": rows.payments, "holds": rows.holds,
    })
}

/// Carries out what blocks.
pub(crate) async fn work<T: Send + 'static>(work: impl FnOnce() -> Result<T, MoveError> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Failure::Failed(error.to_string()))??)
}
