//! `finflow dlq replay`: sends dead letters again, as their producers sent them, that would be carried out now for the first time.
//!
//! Without `--yes` it only says which would go where, and why the others would not. What was sent and is sent again is a duplicate:
//! its payment id is the same. Letters that are written meanwhile are left to the next run.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use finflow_actors::{Clock, Publish};
use finflow_ledger::{Coordinates, PaymentId};
use finflow_topologies::log::Record;
use finflow_topologies::replay::{Candidate, Refusal, candidate};
use finflow_topologies::wire::v1::origin_of;
use finflow_topologies::{Rules, Topic};
use serde_json::{Value, json};

use super::{is_held, missing};
use crate::access::{Access, settings};
use crate::cli::{self, Common};
use crate::failure::Failure;
use crate::output::print;
use crate::publish::Publishing;

/// Letters that one run sends at most, so that what it remembers of them is bounded; the next run goes on.
const SENT_MAX: usize = 100_000;

/// How long to wait for a partition before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// Letters judged at a time, in bytes of them: a few hundred.
const PAGE_BYTES: usize = 256 << 10;

/// A dead letter, and what would become of its command.
struct Judged {
    place: Coordinates,
    origin: Option<Coordinates>,
    code: Option<String>,
    verdict: Result<Candidate, Refusal>,
}

#[derive(Default)]
struct Counts {
    selected: u64,
    accepted: u64,
    duplicates: u64,
    refused: u64,
}

struct Replay<'a> {
    common: &'a Common,
    options: &'a cli::Replay,
    access: &'a Access,
    rules: Rules,
    /// `None` where nothing is to be sent.
    publishing: Option<Publishing<'a>>,
    /// What was accepted, by its payment and what it says: of several letters of one command, the first is sent.
    accepted: HashMap<PaymentId, [u8; 16]>,
    counts: Counts,
}

pub(super) async fn replay(common: &Common, options: &cli::Replay) -> Result<(), Failure> {
    let rules = settings(common)?.rules();
    if !options.yes {
        let access = Access::open(common).await?;
        return run(common, options, &access, rules).await;
    }
    let access = Access::start(common).await?;
    let outcome = run(common, options, &access, rules).await;
    access.stop().await;
    outcome
}

async fn run(common: &Common, options: &cli::Replay, access: &Access, rules: Rules) -> Result<(), Failure> {
    let rules = Rules { partitions: access.partitions_count().await?, ..rules };
    let publishing = if options.yes { Some(Publishing::quietly(access).await?) } else { None };
    let (accepted, counts) = (HashMap::new(), Counts::default());
    let mut replay = Replay { common, options, access, rules, publishing, accepted, counts };
    let patience = Duration::from_secs(options.timeout);
    let mut is_whole = true;
    for (partition, offsets) in replay.selected().await? {
        is_whole = is_whole && replay.letters(partition, offsets, patience).await?;
    }
    replay.end(patience, is_whole).await
}

impl Replay<'_> {
    /// Where the letters lie that are asked for.
    async fn selected(&self) -> Result<Vec<(u32, Range<u64>)>, Failure> {
        let mut found = Vec::new();
        for (partition, offset) in self.options.places.iter().copied() {
            if !is_held(self.access, partition, offset).await? {
                return Err(missing(partition, offset));
            }
            found.push((partition, offset..offset.saturating_add(1)));
        }
        if !found.is_empty() {
            return Ok(found);
        }
        let count = self.rules.partitions;
        if let Some(partition) = self.options.partition.filter(|partition| count <= *partition) {
            return Err(Failure::Failed(format!("there is no partition {partition}: they are 0 to {}", count.saturating_sub(1))));
        }
        for partition in (0..count).filter(|partition| self.options.partition.is_none_or(|asked| asked == *partition)) {
            let held = self.access.range(Topic::Dlq, partition).await?;
            let end = self.options.to.map_or(held.end, |to| to.saturating_add(1).min(held.end));
            found.push((partition, self.options.from.unwrap_or_default().max(held.start)..end));
        }
        Ok(found)
    }

    /// Judges, tells and sends the letters of these offsets; `false` where some are left to another run.
    async fn letters(&mut self, partition: u32, offsets: Range<u64>, patience: Duration) -> Result<bool, Failure> {
        let mut from = offsets.start;
        while from < offsets.end {
            if SENT_MAX <= self.accepted.len() {
                return Ok(false);
            }
            let fetched = self.access.fetch(Topic::Dlq, partition, from, PAGE_BYTES).await?;
            let letters = fetched.records.iter().filter(|letter| letter.offset < offsets.end && self.is_asked_for(letter));
            let now_ms = Clock::system().now_ms();
            let judged = letters.map(|letter| judge(letter, partition, &self.rules, now_ms)).collect();
            let judged = self.compared(judged, patience).await?;
            if !self.send(&judged, patience).await? {
                return Ok(false);
            }
            if fetched.next <= from {
                break;
            }
            from = fetched.next;
        }
        Ok(true)
    }

    fn is_asked_for(&self, letter: &Record) -> bool {
        let found = letter.headers.get("x-error-code");
        self.options.code.as_ref().is_none_or(|code| found == Some(code.as_bytes()))
    }

    /// Holds what can be understood against what has been taken.
    async fn compared(&mut self, mut judged: Vec<Judged>, patience: Duration) -> Result<Vec<Judged>, Failure> {
        let ids: Vec<PaymentId> = judged.iter().filter_map(|letter| Some(letter.verdict.as_ref().ok()?.id)).collect();
        let begun = Instant::now();
        let known = loop {
            match self.access.payments(ids.clone()).await {
                // A partition is on its way, perhaps to the engine that this command has started.
                Err(Failure::Temporary(_)) if begun.elapsed() < patience => self.access.changed(PAUSE).await?,
                known => break known?,
            }
        };
        for Judged { verdict, .. } in &mut judged {
            let Ok(candidate) = verdict else { continue };
            let taken = known.get(&candidate.id).map(|payment| payment.fingerprint);
            match candidate.against(taken.or_else(|| self.accepted.get(&candidate.id).copied())) {
                Ok(()) => drop(self.accepted.insert(candidate.id, candidate.fingerprint)),
                Err(refusal) => *verdict = Err(refusal),
            }
        }
        Ok(judged)
    }

    /// Sends what is accepted, if anything is to be sent, and tells of every letter; `false` where too much is unanswered.
    async fn send(&mut self, judged: &[Judged], patience: Duration) -> Result<bool, Failure> {
        let accepted = judged.iter().filter_map(|letter| letter.verdict.as_ref().ok());
        let records = accepted.map(|Candidate { record, .. }| Publish {
            partition: None,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        });
        let mut sent = match &mut self.publishing {
            Some(publishing) => match publishing.pass(records.collect(), patience).await? {
                Some(places) => places.into_iter(),
                None => return Ok(false),
            },
            None => Vec::new().into_iter(),
        };
        for letter in judged {
            let sent = if letter.verdict.is_ok() { sent.next() } else { None };
            self.counts.count(&letter.verdict);
            print(self.common, &letter_json(letter, sent))?;
        }
        Ok(true)
    }

    /// Waits for what was sent, and sums up.
    async fn end(self, patience: Duration, is_whole: bool) -> Result<(), Failure> {
        let Counts { selected, accepted, duplicates, refused } = self.counts;
        let mut line = json!({ "selected": selected, "accepted": accepted, "duplicates": duplicates, "refused": refused });
        let Some(publishing) = self.publishing else {
            print(self.common, &line)?;
            eprintln!("nothing was sent; with --yes, what is accepted is sent to the commands");
            return Ok(());
        };
        let (ended, unanswered, is_done) = publishing.ended(patience).await?;
        let counts = [
            ("settled", ended.settled),
            ("rejected", ended.rejected),
            ("dead_lettered", ended.dead_lettered),
            ("applied", ended.applied),
            ("unanswered", unanswered as u64),
        ];
        counts.into_iter().for_each(|(name, count)| line[name] = count.into());
        print(self.common, &line)?;
        match (is_done && unanswered == 0, is_whole, refused) {
            (false, ..) => Err(Failure::Temporary(format!("not all commands ended within {} s", self.options.timeout))),
            (_, false, _) => Err(Failure::Temporary(format!("{SENT_MAX} were sent; run it again for the rest"))),
            (.., 0) => Ok(()),
            (.., refused) => Err(Failure::Failed(format!("{refused} dead letters would not be carried out and were not sent"))),
        }
    }
}

impl Counts {
    fn count(&mut self, verdict: &Result<Candidate, Refusal>) {
        self.selected += 1;
        match verdict {
            Ok(_) => self.accepted += 1,
            Err(Refusal::Duplicate) => self.duplicates += 1,
            Err(_) => self.refused += 1,
        }
    }
}

fn judge(letter: &Record, partition: u32, rules: &Rules, now_ms: i64) -> Judged {
    let place = Coordinates { partition, offset: letter.offset };
    Judged {
        place,
        origin: origin_of(&letter.headers),
        code: letter.headers.get("x-error-code").map(|code| String::from_utf8_lossy(code).into_owned()),
        verdict: candidate(letter, place, rules, now_ms),
    }
}

fn letter_json(letter: &Judged, sent: Option<Coordinates>) -> Value {
    let text = |at: Coordinates| format!("{}:{}", at.partition, at.offset);
    let candidate = letter.verdict.as_ref().ok();
    let refusal = letter.verdict.as_ref().err();
    json!({
        "place": text(letter.place), "command": letter.origin.map(text), "code": letter.code,
        "verdict": refusal.map_or("accepted", Refusal::code), "cause": refusal.map(Refusal::to_string),
        "type": candidate.map(|candidate| candidate.kind.as_str()), "payment": candidate.map(|candidate| candidate.id.to_string()),
        "partition": candidate.map(|candidate| candidate.partition), "sent": sent.map(text),
    })
}
