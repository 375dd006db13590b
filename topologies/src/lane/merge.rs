//! Merging a round: effects in partition order, postings handed over where that is allowed, else left for the log.
//!
//! A posting is handed over in memory only if its destination runs on this lane and has received every earlier posting of the
//! pair; the decision is made anew at each merge and at each replay. Whatever goes through the log goes behind the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::growth::Growth;
use super::hosted::Hosted;
use super::{Decided, Failure, Lane, Next, Rounds, WITHHELD_EVERY, WITHHELD_MAX};
use crate::halt::Halt;
use crate::partition::{Input, Work, held};
use crate::sizes::{BLOCK_BYTES_MAX, RECORDS_BYTES_MAX, UNAPPLIED_EPOCHS_MAX};
use crate::wire::v1::Posting;

impl Lane {
    /// Takes the answers to the work of a round.
    ///
    /// One failure drops the open epoch whole. A partition that met what looks like a broken invariant is suspect from then on, one that
    /// could not read its store rests until [`Lane::read_again`], and the others go on without it.
    pub fn merge(&mut self, mut answers: Vec<Decided>) -> Next {
        if !matches!(self.rounds, Rounds::Deciding) {
            return Next::Dropped;
        }
        answers.sort_by_key(|(partition, _)| *partition);
        let mut suspects: Vec<(u32, Halt)> = Vec::new();
        let mut is_lost = false;
        for (partition, answer) in answers {
            match (answer, self.hosted.get_mut(&partition)) {
                (Ok(open), Some(hosted)) => hosted.take_answer(open),
                (Err(Failure::Halted(cause)), _) => suspects.push((partition, cause)),
                (Err(Failure::Unread(_)), Some(hosted)) => {
                    hosted.is_resting = true;
                    is_lost = true;
                }
                (Err(Failure::Lost | Failure::Unread(_)), _) | (Ok(_), None) => is_lost = true,
            }
        }
        if !suspects.is_empty() || is_lost {
            self.drop_open();
            suspects.into_iter().for_each(|(partition, cause)| self.suspect(partition, cause));
            return Next::Dropped;
        }
        let handed = self.hand_over();
        if handed.is_empty() {
            self.rounds = Rounds::Idle;
            return Next::Quiet;
        }
        self.rounds = Rounds::Handing(handed);
        Next::Round
    }

    /// Takes the postings that may be handed over out of the open epochs, in the order (source partition, sequence).
    fn hand_over(&mut self) -> BTreeMap<u32, Vec<Posting>> {
        let mut handed: BTreeMap<u32, Vec<Posting>> = BTreeMap::new();
        let mut growths: BTreeMap<u32, Growth> = BTreeMap::new();
        let sources: Vec<u32> = self.hosted.keys().copied().collect();
        for source in sources {
            let Some(hosted) = self.hosted.get_mut(&source) else { continue };
            let Some(postings) = hosted.open.as_mut().map(|open| std::mem::take(&mut open.postings)) else { continue };
            let mut for_log = Vec::new();
            let mut queued: BTreeMap<u32, u64> = BTreeMap::new();
            let mut handed_bytes = 0_usize;
            for posting in postings {
                let before = queued.entry(posting.destination).or_default();
                let destination = self.hosted.get(&posting.destination);
                let waiting = growths.get(&posting.destination).copied().unwrap_or_default();
                match destination.and_then(|to| may_hand_over(to, &posting, *before, waiting)) {
                    Some(grown) => {
                        *before = before.saturating_add(1);
                        handed_bytes = handed_bytes.saturating_add(held(posting.body.bytes()));
                        growths.insert(posting.destination, grown);
                        handed.entry(posting.destination).or_default().push(posting);
                    }
                    None => for_log.push(posting),
                }
            }
            if let Some(open) = self.hosted.get_mut(&source).and_then(|hosted| hosted.open.as_mut()) {
                open.for_log.append(&mut for_log);
                open.record_bytes = open.record_bytes.saturating_sub(handed_bytes);
            }
        }
        handed
    }

    pub(super) fn deliver(&mut self, handed: BTreeMap<u32, Vec<Posting>>) -> Vec<(u32, Work)> {
        let now_ms = self.now_ms;
        let mut work = Vec::new();
        for (destination, postings) in handed {
            let Some(hosted) = self.hosted.get_mut(&destination) else { continue };
            let inputs = postings.into_iter().map(|posting| Input::Posting { offset: None, posting }).collect();
            let layers = hosted.layers();
            work.push((destination, Work { now_ms, inputs, open: hosted.take_open(), layers }));
        }
        work
    }

    /// The partitions whose commands wait until their pairs on this lane are level again, for [`WITHHELD_MAX`] out of
    /// [`WITHHELD_EVERY`] at most.
    ///
    /// Both ends of such a pair wait: a command of its destination leads to answers that would have to go behind the others.
    pub(super) fn withheld(&mut self, steady: Duration) -> BTreeSet<u32> {
        let unlevel: BTreeSet<u32> = self.unlevel_pairs().flat_map(|(source, destination)| [source, destination]).collect();
        if unlevel.is_empty() {
            self.withheld_since = None;
            return unlevel;
        }
        let is_recent = |since: &Duration| steady.saturating_sub(*since) < WITHHELD_EVERY;
        let since = self.withheld_since.filter(is_recent).unwrap_or(steady);
        self.withheld_since = Some(since);
        if steady.saturating_sub(since) < WITHHELD_MAX { unlevel } else { BTreeSet::new() }
    }

    /// Pairs with a posting on its way through the log from a partition of this lane to a running one of this very lane.
    pub(super) fn unlevel_pairs(&self) -> impl Iterator<Item = (u32, u32)> {
        self.hosted.iter().flat_map(|(source, hosted)| {
            let changed = hosted.open.iter().flat_map(|open| open.sent.iter());
            let sent = hosted.newest().sent.iter().chain(changed);
            sent.filter(|(to, sequence)| self.is_on_its_way(*source, **to, **sequence)).map(|(to, _)| (*source, *to))
        })
    }

    fn is_on_its_way(&self, source: u32, destination: u32, sequence: u64) -> bool {
        let destination = self.hosted.get(&destination).filter(|destination| destination.is_running());
        destination.is_some_and(|destination| received(destination, source) < sequence)
    }
}

fn received(destination: &Hosted, source: u32) -> u64 {
    match &destination.open {
        Some(open) => open.received_from(source),
        None => destination.newest().received.get(&source).copied().unwrap_or_default(),
    }
}

/// What is handed over to `destination` in this round if the posting is, too; `None` where it may not be.
///
/// `queued`: postings of this pair already waiting for the same round; `waiting`: what all that do add to its open epoch.
fn may_hand_over(destination: &Hosted, posting: &Posting, queued: u64, waiting: Growth) -> Option<Growth> {
    let expected = received(destination, posting.source).saturating_add(queued).saturating_add(1);
    let has_room = destination.unapplied.len() < UNAPPLIED_EPOCHS_MAX;
    if !(has_room && destination.is_running() && posting.sequence == expected) {
        return None;
    }
    let open = destination.open.as_ref();
    let grown = waiting.with(Growth::of(open, &posting.body));
    let (block, records) = open.map_or((0, 0), |open| (open.overlay.bytes_estimate(), open.record_bytes));
    let fits = block.saturating_add(grown.block) <= BLOCK_BYTES_MAX && records.saturating_add(grown.records) <= RECORDS_BYTES_MAX;
    fits.then_some(grown)
}
