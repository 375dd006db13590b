//! `finflow dlq`: commands that could not be understood, where they stood and why; and sending them again.

use finflow_topologies::Topic;
use finflow_topologies::wire::v1::{dead_lettered_ms, origin_of, time_text};
use serde_json::json;

use crate::access::{Access, configuration};
use crate::cli::{Common, DlqCommand};
use crate::failure::Failure;
use crate::output::{self, print};
use crate::tail::record_line;

mod replay;

const FETCH_BYTES: usize = 1 << 20;

pub(crate) async fn dlq(common: &Common, command: &DlqCommand) -> Result<(), Failure> {
    match command {
        DlqCommand::List => list(common, &Access::open(common).await?).await,
        DlqCommand::Show { place } => show(common, &Access::open(common).await?, *place).await,
        DlqCommand::Replay(options) => replay::replay(common, options).await,
    }
}

async fn list(common: &Common, access: &Access) -> Result<(), Failure> {
    for partition in 0..access.partitions_count().await? {
        let mut from = access.range(Topic::Dlq, partition).await?.start;
        loop {
            let fetched = access.fetch(Topic::Dlq, partition, from, FETCH_BYTES).await?;
            for record in &fetched.records {
                let header = |name: &str| record.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
                let origin = origin_of(&record.headers).map(|origin| format!("{}:{}", origin.partition, origin.offset));
                let line = json!({
                    "place": format!("{partition}:{}", record.offset), "at": time_text(record.timestamp_ms),
                    "dead_lettered_at": time_text(dead_lettered_ms(record)),
                    "code": header("x-error-code"), "message": header("__streams.errors.message"), "command": origin,
                });
                print(common, &line)?;
            }
            if fetched.records.is_empty() {
                break;
            }
            from = fetched.next;
        }
    }
    Ok(())
}

async fn show(common: &Common, access: &Access, (partition, offset): (u32, u64)) -> Result<(), Failure> {
    let prefix = configuration(common)?.topics.prefix;
    let none = || missing(partition, offset);
    if !is_held(access, partition, offset).await? {
        return Err(none());
    }
    let fetched = access.fetch(Topic::Dlq, partition, offset, 1).await?;
    let record = fetched.records.first().ok_or_else(none)?;
    output::text(&format!("{}\n", record_line(&prefix, Topic::Dlq, partition, record)))
}

/// Whether the log has a dead letter there, or a gap.
async fn is_held(access: &Access, partition: u32, offset: u64) -> Result<bool, Failure> {
    let count = access.partitions_count().await?;
    Ok(partition < count && access.range(Topic::Dlq, partition).await?.contains(&offset))
}

fn missing(partition: u32, offset: u64) -> Failure {
    Failure::Failed(format!("there is no dead letter at {partition}:{offset}"))
}
