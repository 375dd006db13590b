//! `finflow publish`: JSON lines into the log, in order per wallet, and the engine until they are consumed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use bytes::Bytes;
use finflow_actors::Publish;
use finflow_ledger::{Coordinates, PaymentId, PaymentState};
use finflow_topologies::Topic;
use finflow_topologies::log::Headers;
use finflow_topologies::topics::payment_id;
use finflow_topologies::wire::v1::{decode, home_of, origin_of};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::access::Access;
use crate::cli::{self, Common};
use crate::failure::Failure;
use crate::show::print;

/// Lines that are appended with one write.
const BATCH_LINES: usize = 2_000;
/// No line is read further than this; what is longer is refused anyway.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// A line that was sent.
struct Sent {
    at: Coordinates,
    /// `None` = it cannot be understood, and will be dead-lettered.
    payment: Option<PaymentId>,
}

#[derive(Default)]
struct Counts {
    refused: u64,
    settled: u64,
    rejected: u64,
    applied: u64,
    dead_lettered: u64,
    unanswered: u64,
}

pub(crate) async fn publish(common: &Common, options: &cli::Publish) -> Result<(), Failure> {
    let mut counts = Counts::default();
    let source: Box<dyn Read> = if options.file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        let file = std::fs::File::open(&options.file);
        Box::new(file.map_err(|error| Failure::Failed(format!("{}: {error}", options.file.display())))?)
    };
    let deadline = Instant::now() + Duration::from_secs(options.timeout);
    let access = Access::start(common).await?;
    let sent = send_all(&access, BufReader::new(source), &mut counts).await;
    let finished = match &sent {
        Ok(_) => access.idle(deadline.saturating_duration_since(Instant::now())).await,
        Err(_) => Ok(false),
    };
    let answered = match (&sent, &finished) {
        (Ok(sent), Ok(true)) if options.wait => count(&access, sent, &mut counts).await,
        _ => Ok(()),
    };
    access.stop().await;
    let (sent, finished) = (sent?, finished?);
    answered?;
    let mut line = json!({ "published": sent.len(), "refused": counts.refused });
    if options.wait {
        line["settled"] = counts.settled.into();
        line["rejected"] = counts.rejected.into();
        line["dead_lettered"] = counts.dead_lettered.into();
        line["applied"] = counts.applied.into();
        line["unanswered"] = counts.unanswered.into();
    }
    print(common, &line);
    match (finished, counts.refused) {
        (false, _) => Err(Failure::Temporary(format!("not all commands ended within {} s", options.timeout))),
        (true, 0) => Ok(()),
        (true, refused) => Err(Failure::Failed(format!("{refused} lines were refused"))),
    }
}

async fn send_all(access: &Access, mut lines: impl BufRead, counts: &mut Counts) -> Result<Vec<Sent>, Failure> {
    let style = ProgressStyle::with_template("{spinner} {human_pos} published {per_sec}");
    let progress = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    let (mut sent, mut batch, mut payments) = (Vec::new(), Vec::new(), Vec::new());
    let mut number = 0_u64;
    loop {
        let mut line = Vec::new();
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        number += 1;
        let value = line.trim_ascii();
        if 0 < read && !value.is_empty() {
            match home_of(value) {
                Ok(wallet) => {
                    let value = Bytes::copy_from_slice(value);
                    let command = decode(Some(&value), &Headers::default()).ok();
                    payments.push(command.map(|command| payment_id(&command.tenant, &command.wallet, &command.key)));
                    let key = Some(Bytes::copy_from_slice(wallet.as_str().as_bytes()));
                    batch.push(Publish { partition: None, key, value: Some(value), headers: Headers::default() });
                }
                Err(reason) => {
                    counts.refused += 1;
                    progress.suspend(|| eprintln!("line {number}: {reason}"));
                }
            }
        }
        if BATCH_LINES <= batch.len() || (read == 0 && !batch.is_empty()) {
            progress.inc(batch.len() as u64);
            let places = access.publish(std::mem::take(&mut batch)).await?;
            sent.extend(places.into_iter().zip(payments.drain(..)).map(|(at, payment)| Sent { at, payment }));
        }
        if read == 0 {
            progress.finish_and_clear();
            return Ok(sent);
        }
    }
}

/// How each line ended, by its payment record or its dead letter. A line that reused a key counts as rejected.
async fn count(access: &Access, sent: &[Sent], counts: &mut Counts) -> Result<(), Failure> {
    let dead = dead_letters(access).await?;
    for line in sent {
        let payment = match line.payment {
            Some(id) => access.payment(id).await?,
            None => None,
        };
        let is_dead = dead.contains(&(line.at.partition, line.at.offset));
        match payment.map(|payment| payment.state) {
            _ if is_dead => counts.dead_lettered += 1,
            Some(PaymentState::Settled) => counts.settled += 1,
            Some(PaymentState::Applied) => counts.applied += 1,
            Some(PaymentState::Rejected) => counts.rejected += 1,
            Some(_) | None => counts.unanswered += 1,
        }
    }
    Ok(())
}

async fn dead_letters(access: &Access) -> Result<BTreeSet<(u32, u64)>, Failure> {
    let mut dead = BTreeSet::new();
    for partition in 0..access.partitions_count().await? {
        let mut from = access.range(Topic::Dlq, partition).await?.start;
        loop {
            let fetched = access.fetch(Topic::Dlq, partition, from, LINE_BYTES_MAX as usize).await?;
            if fetched.records.is_empty() {
                break;
            }
            let origins = fetched.records.iter().filter_map(|record| origin_of(&record.headers));
            dead.extend(origins.map(|origin| (origin.partition, origin.offset)));
            from = fetched.next;
        }
    }
    Ok(dead)
}
