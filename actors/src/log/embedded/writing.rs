//! How records reach the disk: every writer stands in line, and whoever has the pen writes for everyone, decides who may commit, and
//! shows what was written once it is durable.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use finflow_topologies::log::{Error, Outgoing};
use finflow_topologies::topics::Topic;

use super::database::died;
use super::disk::Rows;
use super::session::Committing;
use super::view::Place;
use super::{EmbeddedLog, chunk};

/// What somebody wants written.
pub(super) struct Request {
    pub(super) batches: Vec<Encoded>,
    /// For an epoch: who commits it. A producer needs no claim.
    pub(super) commit: Option<Committing>,
}

pub(super) struct Encoded {
    pub(super) place: Place,
    pub(super) chunk: chunk::Encoded,
}

#[derive(Debug)]
pub(super) enum WriteOutcome {
    /// Durable; the offsets of the first record of each batch.
    Written(Vec<u64>),
    /// Nothing of it was written.
    Refused(Error),
    Fenced,
    /// It may have been written or not.
    InDoubt(Error),
}

impl EmbeddedLog {
    /// Stands in line with batches and, for an epoch, its positions. An error is of the request itself: nothing of it was written.
    pub(super) fn write(
        &self,
        batches: impl Iterator<Item = (Place, Vec<Outgoing>)>,
        commit: Option<Committing>,
    ) -> Result<WriteOutcome, Error> {
        let now_ms = now_ms();
        let encode = |(place, records): (Place, Vec<Outgoing>)| {
            self.view().range(place)?;
            let chunk = chunk::encode(now_ms, &records, place.0.keeps_time(), is_read_at_once(place.0));
            let chunk = chunk.ok_or_else(|| Error::Unavailable("records that could not be read back".to_owned()))?;
            Ok(Encoded { place, chunk })
        };
        let batches = batches.map(encode).collect::<Result<Vec<_>, Error>>()?;
        let bytes = batches.iter().map(|batch| batch.chunk.stored.len()).sum();
        let answer = self.0.line.stand(Request { batches, commit }, bytes, |requests| self.write_or_close(requests));
        Ok(answer.unwrap_or_else(|| WriteOutcome::InDoubt(died())))
    }

    /// Writes all requests, or closes the log where that panics: nobody knows then what is on the disk, nor whether it was shown. The
    /// caller has the pen.
    pub(super) fn write_or_close(&self, requests: Vec<Request>) -> Vec<WriteOutcome> {
        let count = requests.len();
        let written = catch_unwind(AssertUnwindSafe(|| self.write_all(requests)));
        written.unwrap_or_else(|_| {
            self.close(&died());
            (0..count).map(|_| WriteOutcome::InDoubt(died())).collect()
        })
    }

    /// Writes all requests that may be written in one synced write and then shows them. The caller has the pen.
    pub(super) fn write_all(&self, requests: Vec<Request>) -> Vec<WriteOutcome> {
        if let Err(error) = self.ensure_open() {
            return requests.iter().map(|_| WriteOutcome::Refused(error.clone())).collect();
        }
        let answers = match self.write_rows(&requests) {
            Ok(answers) => answers,
            Err(error) => {
                self.close(&error);
                return requests.iter().map(|_| WriteOutcome::InDoubt(error.clone())).collect();
            }
        };
        let (mut owners, mut view) = (self.owners(), self.0.view.write().unwrap_or_else(PoisonError::into_inner));
        for (request, answer) in requests.into_iter().zip(&answers) {
            let WriteOutcome::Written(bases) = answer else { continue };
            let positions = request.commit.into_iter().flat_map(|commit| commit.positions);
            owners.positions.extend(positions.map(|claimed| (claimed.position.partition, claimed.position)));
            for (batch, base) in request.batches.into_iter().zip(bases) {
                let end = base.saturating_add(batch.chunk.count);
                view.extend(batch.place, end, batch.chunk.appended(*base));
            }
        }
        drop((owners, view));
        self.tick();
        answers
    }

    pub(super) fn write_rows(&self, requests: &[Request]) -> Result<Vec<WriteOutcome>, Error> {
        let database = self.database();
        let db = database.db()?;
        let (owners, view) = (self.owners(), self.view());
        let mut ends = BTreeMap::<Place, u64>::new();
        let mut rows = Rows::new(db);
        let mut answers = Vec::with_capacity(requests.len());
        for Request { batches, commit } in requests {
            if commit.as_ref().is_some_and(|commit| !owners.may_commit(commit)) {
                answers.push(WriteOutcome::Fenced);
                continue;
            }
            let mut bases = Vec::with_capacity(batches.len());
            for Encoded { place, chunk } in batches {
                let base = ends.get(place).map_or_else(|| view.range(*place).map(|range| range.end), |end| Ok(*end))?;
                if 0 < chunk.count {
                    rows.chunk(*place, base, &chunk.stored)?;
                }
                ends.insert(*place, base.saturating_add(chunk.count));
                bases.push(base);
            }
            commit.iter().flat_map(|commit| &commit.positions).for_each(|claimed| rows.position(&claimed.position));
            answers.push(WriteOutcome::Written(bases));
        }
        // Readers go on while the disk is at work.
        drop((owners, view));
        self.0.disk.write(db, rows.into_batch())?;
        Ok(answers)
    }
}

/// Whether records of a topic are read as soon as they are written, rather than at a restart or by an operator.
fn is_read_at_once(topic: Topic) -> bool {
    match topic {
        Topic::Commands | Topic::Postings | Topic::Events => true,
        Topic::Journal | Topic::Dlq => false,
    }
}

/// The broker's clock of this log: the time that records get.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
