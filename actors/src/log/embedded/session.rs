//! Who may commit: the sessions, the claims of partitions, which are kept in memory because RocksDB's lock keeps other processes out,
//! and the positions that are on disk.

use std::collections::BTreeMap;

use finflow_state::Stamp;
use finflow_topologies::log::{Claim, Claimed, Commit, Error, Log, Position, Resolution, Session, Transaction};
use finflow_topologies::topics::Topic;

use super::EmbeddedLog;
use super::writing::WriteOutcome;

#[derive(Default)]
pub(super) struct Owners {
    pub(super) positions: BTreeMap<u32, Position>,
    /// By partition: the session and the epoch of the latest claim.
    pub(super) claims: BTreeMap<u32, (u64, u64)>,
    pub(super) claims_given: u64,
    pub(super) sessions: BTreeMap<String, u64>,
    pub(super) sessions_opened: u64,
}

pub(super) struct Committing {
    pub(super) lane: String,
    pub(super) session: u64,
    pub(super) positions: Vec<Claimed>,
}

impl Owners {
    pub(super) fn is_over(&self, lane: &str, session: u64) -> bool {
        self.sessions.get(lane) != Some(&session)
    }

    pub(super) fn is_claimed(&self, session: u64, claimed: &Claimed) -> bool {
        self.claims.get(&claimed.position.partition) == Some(&(session, claimed.claim))
    }

    pub(super) fn may_commit(&self, commit: &Committing) -> bool {
        let is_over = self.is_over(&commit.lane, commit.session);
        !is_over && commit.positions.iter().all(|claimed| self.is_claimed(commit.session, claimed))
    }
}

pub(super) struct EmbeddedSession {
    pub(super) log: EmbeddedLog,
    pub(super) lane: String,
    pub(super) id: u64,
    pub(super) doubt: Option<(Stamp, Vec<Claimed>)>,
}

impl Session for EmbeddedSession {
    fn claim(&mut self, partition: u32) -> Result<Claim, Error> {
        self.log.range(Topic::Commands, partition)?;
        self.log.0.line.alone(|| {
            self.log.ensure_open()?;
            let mut owners = self.log.owners();
            if owners.is_over(&self.lane, self.id) {
                return Err(Error::Fenced);
            }
            owners.claims_given = owners.claims_given.saturating_add(1);
            let epoch = owners.claims_given;
            owners.claims.insert(partition, (self.id, epoch));
            Ok(Claim { epoch, position: owners.positions.get(&partition).cloned() })
        })
    }

    fn release(&mut self, partition: u32) {
        let mut owners = self.log.owners();
        if owners.claims.get(&partition).is_some_and(|(session, _)| *session == self.id) {
            owners.claims.remove(&partition);
        }
    }

    fn commit(&mut self, transaction: Transaction) -> Commit {
        if let Some((doubt, _)) = &self.doubt {
            return Commit::Aborted(Error::Unavailable(format!("the doubt about {doubt} comes first")));
        }
        if transaction.positions.is_empty() {
            return Commit::Aborted(Error::Refused("no positions: nothing would be fenced".to_owned()));
        }
        let Transaction { stamp, batches, positions } = transaction;
        let commit = Committing { lane: self.lane.clone(), session: self.id, positions: positions.clone() };
        let batches = batches.into_iter().map(|batch| ((batch.topic, batch.partition), batch.records));
        match self.log.write(batches, Some(commit)) {
            Ok(WriteOutcome::Written(_)) => Commit::Committed,
            Ok(WriteOutcome::Fenced) => Commit::Fenced,
            Ok(WriteOutcome::Refused(error)) | Err(error) => Commit::Aborted(error),
            Ok(WriteOutcome::InDoubt(error)) => {
                self.doubt = Some((stamp, positions));
                Commit::InDoubt(error)
            }
        }
    }

    fn resolve(&mut self, stamp: &Stamp) -> Result<Resolution, Error> {
        // Whatever a doubt is about was followed by a closed log: once that is open, the positions are what is on disk.
        let is_committed = self.log.0.line.alone(|| {
            self.log.ensure_open()?;
            let owners = self.log.owners();
            let is_committed = owners.positions.values().any(|position| position.stamp == *stamp);
            // Whoever has claimed all of it since may have written other positions over the ones that would tell.
            let is_told = |(_, touched): &(_, Vec<Claimed>)| touched.iter().any(|claimed| owners.is_claimed(self.id, claimed));
            let is_over = owners.is_over(&self.lane, self.id) || self.doubt.as_ref().is_some_and(|doubt| !is_told(doubt));
            if is_over && !is_committed { Err(Error::Fenced) } else { Ok(is_committed) }
        })?;
        self.doubt = None;
        Ok(if is_committed { Resolution::Committed } else { Resolution::Aborted })
    }
}
