//! `finflow publish`: JSON lines into the log, in order per wallet. Without a running service the engine runs here until it is idle.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use finflow_actors::Publish;
use finflow_ledger::Coordinates;
use finflow_topologies::log::Headers;
use finflow_topologies::topics::{partition_of_wallet, payment_id};
use finflow_topologies::wire::v1::{Unsendable, decode, home_of};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

pub(crate) use self::answers::Counts;
use self::answers::{Answers, Sent};
use self::lines::{Chunk, Line};
use crate::access::Access;
use crate::cli::{self, Common};
use crate::failure::Failure;
use crate::output::print;

mod answers;
mod lines;

/// Lines that may be unanswered at a time where answers are waited for: what bounds the memory of a long file.
const UNANSWERED_MAX: usize = 20_000;
/// The longest raw input that is read; the log takes less.
const RAW_BYTES_MAX: u64 = 1 << 20;

/// What was done so far.
pub(crate) struct Publishing<'a> {
    access: &'a Access,
    headers: Headers,
    answers: Option<Answers>,
    progress: ProgressBar,
    published: u64,
    refused: u64,
}

pub(crate) async fn publish(common: &Common, options: &cli::Publish) -> Result<(), Failure> {
    let headers = headers(options)?;
    let source = Source::open(&options.file)?;
    let access = Access::start(common).await?;
    let patience = Duration::from_secs(options.timeout);
    let outcome = run(&access, options, headers, source, patience).await;
    access.stop().await;
    let (published, refused, counts, unanswered, ended) = outcome?;
    let mut line = json!({ "published": published, "refused": refused });
    if let Some(counts) = counts {
        line["settled"] = counts.settled.into();
        line["rejected"] = counts.rejected.into();
        line["dead_lettered"] = counts.dead_lettered.into();
        line["applied"] = counts.applied.into();
        line["duplicates"] = counts.duplicates.into();
        line["unanswered"] = unanswered.into();
    }
    print(common, &line)?;
    match (ended?, refused) {
        (false, _) => Err(Failure::Temporary(format!("not all commands ended within {} s", options.timeout))),
        (true, 0) => Ok(()),
        (true, refused) => Err(Failure::Failed(format!("{refused} lines were refused"))),
    }
}

type Outcome = (u64, u64, Option<Counts>, usize, Result<bool, Failure>);

async fn run(
    access: &Access,
    options: &cli::Publish,
    headers: Headers,
    source: Source,
    patience: Duration,
) -> Result<Outcome, Failure> {
    let answers = if options.wait { Some(Answers::new(access).await?) } else { None };
    let progress = source.progress();
    let mut publishing = Publishing { access, headers, answers, progress, published: 0, refused: 0 };
    let sent = if options.raw { publishing.raw(options, source).await } else { publishing.all(source, patience).await };
    let ended = match sent {
        Ok(true) => publishing.finish(patience).await,
        unsent => unsent,
    };
    publishing.progress.finish_and_clear();
    let Publishing { answers, published, refused, .. } = publishing;
    let unanswered = answers.as_ref().map_or(0, Answers::unanswered);
    Ok((published, refused, answers.map(|answers| answers.counts), unanswered, ended))
}

/// Records that are no lines of a file: dead letters that are sent again.
impl<'a> Publishing<'a> {
    /// Begins, without any progress to be seen.
    pub(crate) async fn quietly(access: &'a Access) -> Result<Publishing<'a>, Failure> {
        let (headers, answers, progress) = (Headers::default(), Some(Answers::new(access).await?), ProgressBar::hidden());
        Ok(Publishing { access, headers, answers, progress, published: 0, refused: 0 })
    }

    /// Sends some and says where they stand; `None` if too many of those before stay unanswered.
    pub(crate) async fn pass(&mut self, records: Vec<Publish>, patience: Duration) -> Result<Option<Vec<Coordinates>>, Failure> {
        if self.has_room(patience).await? { Ok(Some(self.send(records).await?)) } else { Ok(None) }
    }

    /// Waits until all have ended, and gives how, and how many have not; `false` if that took longer than `patience`.
    pub(crate) async fn ended(mut self, patience: Duration) -> Result<(Counts, usize, bool), Failure> {
        let is_done = self.finish(patience).await?;
        let answers = self.answers.as_ref();
        Ok((answers.map(|answers| answers.counts).unwrap_or_default(), answers.map_or(0, Answers::unanswered), is_done))
    }
}

impl Publishing<'_> {
    /// Every line of the source; `false` if too much of it stays unanswered.
    async fn all(&mut self, source: Source, patience: Duration) -> Result<bool, Failure> {
        let mut chunks = lines::read(source.bytes);
        while let Some(chunk) = chunks.recv().await {
            let Chunk { lines, bytes } = chunk?;
            let mut records = Vec::with_capacity(lines.len());
            for line in lines {
                match self.record(&line) {
                    Ok(record) => records.push(record),
                    Err(reason) => {
                        self.refused += 1;
                        self.progress.suspend(|| eprintln!("line {}: {reason}", line.number));
                    }
                }
            }
            self.send(records).await?;
            self.progress.inc(bytes);
            if !self.has_room(patience).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until there is room for more that is unanswered; `false` if that takes longer than `patience`.
    async fn has_room(&mut self, patience: Duration) -> Result<bool, Failure> {
        match &mut self.answers {
            Some(answers) if UNANSWERED_MAX < answers.unanswered() => {
                answers.wait_until(self.access, UNANSWERED_MAX / 2, patience).await
            }
            _ => Ok(true),
        }
    }

    fn record(&self, line: &Line) -> Result<Publish, Unsendable> {
        let wallet = home_of(&line.text)?;
        let key = Some(Bytes::copy_from_slice(wallet.as_str().as_bytes()));
        Ok(Publish { partition: None, key, value: Some(line.text.clone()), headers: self.headers.clone() })
    }

    /// Sends records, whose answers are waited for from now on, and says where they stand.
    async fn send(&mut self, records: Vec<Publish>) -> Result<Vec<Coordinates>, Failure> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let count = self.access.partitions_count().await?;
        let expected: Vec<_> = match &self.answers {
            Some(_) => records.iter().map(|record| expected(record, count)).collect(),
            None => Vec::new(),
        };
        let places = self.access.publish(records).await?;
        self.published += places.len() as u64;
        self.progress.set_message(format!("{} published", self.published));
        if let Some(answers) = &mut self.answers {
            answers.expect(places.iter().zip(expected).map(|(at, (record, home))| Sent {
                at: *at,
                record,
                is_at_home: home.is_none_or(|home| home == at.partition),
            }));
        }
        Ok(places)
    }

    /// The whole input as one record.
    async fn raw(&mut self, options: &cli::Publish, mut source: Source) -> Result<bool, Failure> {
        let mut value = Vec::new();
        source.bytes.by_ref().take(RAW_BYTES_MAX).read_to_end(&mut value)?;
        let count = self.access.partitions_count().await?;
        if let Some(partition) = options.partition.filter(|partition| count <= *partition) {
            return Err(Failure::Failed(format!("there is no partition {partition}: they are 0 to {}", count.saturating_sub(1))));
        }
        let key = options.key.as_ref().map(|key| Bytes::copy_from_slice(key.as_bytes()));
        let record = Publish { partition: options.partition, key, value: Some(value.into()), headers: self.headers.clone() };
        self.send(vec![record]).await?;
        Ok(true)
    }

    /// Waits for what is asked: all answers; or, where the engine runs in this process, until it is idle.
    async fn finish(&mut self, patience: Duration) -> Result<bool, Failure> {
        let begun = Instant::now();
        self.progress.set_message(format!("{} published, waiting", self.published));
        if let Some(answers) = &mut self.answers
            && !answers.wait_until(self.access, 0, patience).await?
        {
            return Ok(false);
        }
        if let Access::Running(_) = self.access {
            return Ok(true);
        }
        let is_idle = self.access.idle(patience.saturating_sub(begun.elapsed())).await?;
        let halted =
            self.access.status().await?.into_iter().find_map(|status| status.cause.map(|cause| (status.partition, cause)));
        match halted {
            Some((partition, cause)) => Err(Failure::Failed(format!("partition {partition} is halted: {cause}"))),
            None => Ok(is_idle),
        }
    }
}

/// The record that a command will leave, and its home, if it can be understood and its key is its home's.
fn expected(record: &Publish, count: u32) -> (Option<(finflow_ledger::PaymentId, [u8; 16])>, Option<u32>) {
    let Ok(command) = decode(record.value.as_deref(), &record.headers) else { return (None, None) };
    let id = payment_id(&command.tenant, &command.wallet, &command.key);
    let home = partition_of_wallet(&command.wallet, count);
    let is_keyed = record.key.as_deref() == Some(command.wallet.as_str().as_bytes());
    // No partition has the number `count`: what has another key is forwarded wherever it stands.
    (Some((id, command.fingerprint)), Some(if is_keyed { home } else { count }))
}

fn headers(options: &cli::Publish) -> Result<Headers, Failure> {
    let mut pairs = Vec::with_capacity(options.header.len());
    for header in &options.header {
        let bytes = header.as_bytes();
        let place = bytes.iter().position(|byte| *byte == b'=').filter(|place| 0 < *place);
        let pair = place.and_then(|place| Some((std::str::from_utf8(&bytes[..place]).ok()?, &bytes[place + 1..])));
        let usage = "a header is NAME=VALUE; for example: --header correlation-id=batch-7";
        pairs.push(pair.ok_or_else(|| Failure::Usage(usage.to_owned()))?);
    }
    Ok(Headers::from_pairs(pairs))
}

/// Where lines come from.
struct Source {
    bytes: Box<dyn Read + Send>,
    length: Option<u64>,
}

impl Source {
    fn open(path: &Path) -> Result<Source, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Source { bytes: Box::new(std::io::stdin()), length: None });
        }
        let failed = |error: std::io::Error| Failure::Failed(format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if about.is_dir() {
            return Err(Failure::Failed(format!("{}: is a directory", path.display())));
        }
        Ok(Source { bytes: Box::new(file), length: about.is_file().then_some(about.len()) })
    }

    /// A bar where the length is known, a spinner elsewhere; nothing where stderr is no terminal.
    fn progress(&self) -> ProgressBar {
        let (bar, template) = match self.length {
            Some(length) => (ProgressBar::new(length), "{bar:30} {percent}% {msg} {eta}"),
            None => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
        };
        bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
    }
}
