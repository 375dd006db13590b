//! A partition whose position is lost: the last block of its journal takes the place of it, once an operator has asked for that.
//!
//! The position is committed under the claim, as any other one, before the partition runs: whoever claims it next finds it, and whoever
//! had it before is fenced. What is decided from then on goes on behind that block.

use std::sync::{Mutex, MutexGuard, PoisonError};

use finflow_state::Stamp;
use finflow_topologies::log::{Claim, Claimed, Commit, Error, Position, Resolution, Session, Transaction};
use finflow_topologies::restore;
use tracing::{info, warn};

use super::RETRY_DELAY;
use super::assignment::Adopted;
use crate::committed::Committed;
use crate::log::NodeLog;

/// How often a doubtful commit is asked about before the lane is begun anew.
const ASKED_MAX: u32 = 25;

/// Restores a partition to the last block of its journal, and commits what that says as the position. Nothing is written where commands
/// are sealed, where the journal is not whole, or where it does not go on from what the store holds.
pub(super) fn take_from_journal(
    session: &Mutex<Box<dyn Session>>,
    log: &NodeLog,
    lane: &str,
    committed: &Committed,
    claim: Claim,
) -> Adopted {
    let last = unsealed(log).and_then(|()| restore::last_block(log, committed.id(), committed.generation()));
    let restored = last.and_then(|last| {
        let position = Position::of(&last);
        Ok((committed.restore_to(lane, log, Some(&position), claim.position.as_ref())?, position))
    });
    let (head, position) = match restored {
        Ok(restored) => restored,
        Err(cause) => return Ok((claim, Err(cause))),
    };
    let session = session.lock().unwrap_or_else(PoisonError::into_inner);
    commit(session, Claimed { claim: claim.epoch, position: position.clone() })?;
    let Position { partition, commands, block, stamp } = &position;
    info!(partition, commands, block, %stamp, "the position was lost and is taken from the journal");
    Ok((Claim { position: Some(position), ..claim }, Ok(head)))
}

/// Whoever left an application for another has sealed its commands. The note of it is gone with the positions.
fn unsealed(log: &NodeLog) -> Result<(), restore::Error> {
    log.unsealed().map_err(|cause| match cause {
        Error::Unavailable(_) | Error::Lasting(_) => cause.into(),
        refused => restore::Error::Refused(refused.to_string()),
    })
}

/// Commits a position and nothing else. Nobody else commits before its end is known.
fn commit(mut session: MutexGuard<'_, Box<dyn Session>>, claimed: Claimed) -> Result<(), Error> {
    let stamp = claimed.position.stamp.clone();
    match session.commit(Transaction { stamp: stamp.clone(), batches: Vec::new(), positions: vec![claimed] }) {
        Commit::Committed => Ok(()),
        // Whatever is said of a commit is said of no journal.
        Commit::Aborted(cause) if !cause.is_waited_for() => Err(Error::Unavailable(cause.to_string())),
        Commit::Aborted(cause) => Err(cause),
        Commit::Fenced => Err(Error::Fenced),
        Commit::InDoubt(cause) => settle(&mut **session, &stamp, &cause.to_string()),
    }
}

fn settle(session: &mut dyn Session, stamp: &Stamp, cause: &str) -> Result<(), Error> {
    for _ in 0..ASKED_MAX {
        match session.resolve(stamp) {
            Ok(Resolution::Committed) => return Ok(()),
            Ok(Resolution::Aborted) => return Err(Error::Unavailable(cause.to_owned())),
            Err(cause) if cause.is_waited_for() => {
                warn!(%cause, "whether the position is committed is not known yet");
                std::thread::sleep(RETRY_DELAY);
            }
            Err(other) => return Err(other),
        }
    }
    // The session takes no other commit before that: another one finds what is there.
    Err(Error::Fenced)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session with a commit in doubt, which answers so when it is asked about that.
    struct Doubtful(Vec<Result<Resolution, Error>>);

    impl Session for Doubtful {
        fn claim(&mut self, _: u32) -> Result<Claim, Error> {
            Err(Error::Fenced)
        }

        fn release(&mut self, _: u32) {}

        fn commit(&mut self, _: Transaction) -> Commit {
            Commit::Fenced
        }

        fn resolve(&mut self, _: &Stamp) -> Result<Resolution, Error> {
            self.0.remove(0)
        }
    }

    #[test]
    fn what_is_waited_for_is_asked_again() {
        let cause = || "for a while".to_owned();
        // What the log answers, and how it ends.
        let rows = [
            (vec![Err(Error::Forbidden(cause())), Ok(Resolution::Committed)], Ok(())),
            (vec![Err(Error::Unavailable(cause())), Ok(Resolution::Aborted)], Err(Error::Unavailable("in doubt".to_owned()))),
            (vec![Err(Error::Fenced)], Err(Error::Fenced)),
        ];
        let stamp = Stamp { lane: "lane".into(), incarnation: 1, counter: 1 };
        for (answers, expected) in rows {
            let told = format!("{answers:?}");
            assert_eq!(settle(&mut Doubtful(answers), &stamp, "in doubt"), expected, "{told}");
        }
    }
}
