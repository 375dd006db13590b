//! A lane's session: group member and transactional producer on an operating system thread of their own.
//!
//! Whoever asks waits for the answer, but not for ever: a call that hangs in the client library ends the process, and the next one
//! fences what it has left open under the same name. So does a process whose name another one has taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use finflow_state::Stamp;
use finflow_topologies::log::{Claim, Commit, Error, Position, Resolution, Session, Transaction};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::errors::unavailable;
use super::member::Member;
use super::names::{Holder, Names};
use super::settings::{HEARTBEAT_INTERVAL, SESSION_TIMEOUT, Settings};
use super::transactor::{Failed, Transactor};
use super::watchdog::{HUNG_TIMEOUT, silent};
use crate::log::Assignment;

/// How often the group is served while nothing is asked.
const SERVE_INTERVAL: Duration = Duration::from_millis(50);
/// How long a lane waits to become a member: longer than a dead member is missed.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
const DISMISS_PAUSE: Duration = Duration::from_millis(20);
/// How long a commit that was refused waits for the group's word on who has the lane's name: longer than a look and the one before it.
const LOOK_PATIENCE: Duration = Duration::from_secs(4);

enum Ask {
    Join(Sender<Result<(), Error>>),
    Claim(u32, Sender<Result<Claim, Error>>),
    Release(u32),
    Commit(Transaction, Sender<Commit>),
    Resolve(Stamp, Sender<Result<Resolution, Error>>),
    Leave(Sender<()>),
    Rejoin,
    /// The next commit hangs, half done, until the other end is gone.
    Hang(Receiver<()>),
    Close,
}

/// The handle that the lane holds.
pub(super) struct KafkaSession {
    asks: Sender<Ask>,
    /// A call was not answered in time.
    is_hung: bool,
    /// How long a commit is waited for.
    commit_patience: Duration,
    /// Told why the process has to end.
    ends: watch::Sender<Option<String>>,
}

/// The handle by which others make the lane leave its group.
#[derive(Clone)]
pub(super) struct Exit {
    asks: Sender<Ask>,
    is_retired: Arc<AtomicBool>,
    thread: Arc<JoinHandle<()>>,
}

/// Those of the lanes of this process, by name.
pub(super) type Exits = Arc<Mutex<BTreeMap<String, Exit>>>;

impl Exit {
    /// Gives up all partitions of the lane at once; `false` if its session is over.
    pub(super) fn leave(&self) -> bool {
        let (answer, answered) = channel();
        self.asks.send(Ask::Leave(answer)).is_ok() && answered.recv_timeout(HUNG_TIMEOUT).is_ok()
    }

    /// Makes the lane leave its group and come back, so that the group deals out its partitions anew.
    pub(super) fn rejoin(&self) {
        // One that is over is no member.
        let _ = self.asks.send(Ask::Rejoin);
    }

    /// Has the lane's next commit hang, as a call of the client library may, until the other end is gone.
    pub(super) fn hang_commit(&self, until: Receiver<()>) {
        // One that is over commits nothing.
        let _ = self.asks.send(Ask::Hang(until));
    }

    /// Ends the session, and waits until its member is gone.
    pub(super) fn dismiss(&self, ends: &watch::Sender<Option<String>>) -> Result<(), Error> {
        self.retire();
        // One that is over already hears nothing.
        let _ = self.asks.send(Ask::Close);
        let deadline = Instant::now() + HUNG_TIMEOUT;
        while !self.thread.is_finished() {
            if deadline < Instant::now() {
                ends.send_replace(Some("an earlier session hangs in the Kafka client".to_owned()));
                return Err(Error::Unavailable("an earlier session hangs".to_owned()));
            }
            std::thread::sleep(DISMISS_PAUSE);
        }
        Ok(())
    }

    /// This process is about to open another session of the same name: that is no reason to end.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }
}

/// Opens a session: joins the group, then fences every earlier session of this name. A lane that `was_there` in this process joins only
/// where no other process has its name by now.
pub(super) fn open(
    settings: &Settings,
    (lane, was_there): (&str, bool),
    partitions: u32,
    shown: (watch::Sender<Assignment>, Names),
    ends: watch::Sender<Option<String>>,
) -> Result<(KafkaSession, Exit), Error> {
    let (asks, asked) = channel();
    let is_retired = Arc::new(AtomicBool::new(false));
    let keeper = Keeper {
        member: Member::new(settings, lane, partitions, shown, was_there).map_err(unavailable)?,
        transactor: Transactor::new(settings, lane),
        prefix: settings.prefix.clone(),
        partitions,
        doubt: None,
        is_over: false,
        is_refused: false,
        unsure_since: None,
        fences: 0,
        hang: None,
        ends: ends.clone(),
        is_retired: is_retired.clone(),
    };
    let thread = std::thread::Builder::new().name(lane.to_owned()).spawn(move || keeper.run(&asked));
    let thread = Arc::new(thread.map_err(|error| Error::Unavailable(error.to_string()))?);
    let exit = Exit { asks: asks.clone(), is_retired, thread };
    let mut session = KafkaSession { asks, is_hung: false, commit_patience: settings.commit_patience, ends };
    session.ask(HUNG_TIMEOUT, Ask::Join)??;
    Ok((session, exit))
}

impl KafkaSession {
    fn ask<T>(&mut self, patience: Duration, ask: impl FnOnce(Sender<T>) -> Ask) -> Result<T, Error> {
        let (answer, answered) = channel();
        if self.is_hung || self.asks.send(ask(answer)).is_err() {
            return Err(Error::Fenced);
        }
        answered.recv_timeout(patience).map_err(|cause| {
            error!(%cause, "the session hangs in the client library and is given up");
            self.is_hung = true;
            self.ends.send_replace(Some(silent(patience)));
            Error::Unavailable("the client library does not answer".to_owned())
        })
    }
}

impl Session for KafkaSession {
    fn claim(&mut self, partition: u32) -> Result<Claim, Error> {
        self.ask(HUNG_TIMEOUT, |answer| Ask::Claim(partition, answer))?
    }

    fn release(&mut self, partition: u32) {
        // A session that is over has nothing left to release.
        let _ = self.asks.send(Ask::Release(partition));
    }

    fn commit(&mut self, transaction: Transaction) -> Commit {
        match self.ask(self.commit_patience, |answer| Ask::Commit(transaction, answer)) {
            Ok(commit) => commit,
            Err(Error::Fenced) => Commit::Fenced,
            Err(error) => Commit::InDoubt(error),
        }
    }

    fn resolve(&mut self, stamp: &Stamp) -> Result<Resolution, Error> {
        let stamp = stamp.clone();
        self.ask(HUNG_TIMEOUT, |answer| Ask::Resolve(stamp, answer))?
    }
}

impl Drop for KafkaSession {
    fn drop(&mut self) {
        // The membership stays until it times out: a lane that is opened again under this name finds its partitions.
        let _ = self.asks.send(Ask::Close);
    }
}

/// What the lane's thread owns.
struct Keeper {
    member: Member,
    transactor: Transactor,
    prefix: String,
    partitions: u32,
    /// The epoch whose commit was not answered, and the claims that it was made under.
    doubt: Option<(Stamp, Vec<(u32, u64)>)>,
    /// Another session has this one's place.
    is_over: bool,
    /// The group has refused a commit of this name, whatever the member has been told.
    is_refused: bool,
    /// Since when the group fences the member, or it has lost its place, while nobody knows who has its name.
    unsure_since: Option<Instant>,
    /// How often that was so.
    fences: u32,
    /// What the next commit waits for when it is half done.
    hang: Option<Receiver<()>>,
    ends: watch::Sender<Option<String>>,
    /// The place was given to another session of this same process.
    is_retired: Arc<AtomicBool>,
}

impl Keeper {
    fn run(mut self, asked: &Receiver<Ask>) {
        loop {
            match asked.recv_timeout(SERVE_INTERVAL) {
                Ok(Ask::Close) => return,
                Ok(ask) => self.answer(ask),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Also when the session is over: the group waits for what it has revoked.
            self.member.serve(Duration::ZERO);
            // A lane that has nothing to commit asks nothing, and has to learn of it all the same: by its assignment, or by the end.
            let _ = self.place();
        }
    }

    fn answer(&mut self, ask: Ask) {
        // Who does not wait for the answer any more has given the session up.
        let _ = match ask {
            Ask::Join(answer) => answer.send(self.join()).is_ok(),
            Ask::Claim(partition, answer) => answer.send(self.claim(partition)).is_ok(),
            Ask::Commit(transaction, answer) => answer.send(self.commit(transaction)).is_ok(),
            Ask::Resolve(stamp, answer) => answer.send(self.resolve(&stamp)).is_ok(),
            Ask::Release(partition) => {
                self.member.release(partition);
                true
            }
            Ask::Leave(answer) => {
                self.member.leave();
                answer.send(()).is_ok()
            }
            Ask::Rejoin => {
                // The next look asks again.
                let asked = if self.place().is_ok() { self.member.rejoin() } else { Ok(()) };
                asked.inspect_err(|cause| warn!(%cause, "cannot come back to the group")).is_ok()
            }
            Ask::Hang(until) => {
                self.hang = Some(until);
                true
            }
            Ask::Close => true,
        };
    }

    /// Becomes a member, and only then fences earlier sessions: a process that was replaced must not fence its successor.
    fn join(&mut self) -> Result<(), Error> {
        self.wait(JOIN_TIMEOUT, |_| true, "the group has not told who has this lane's name")?;
        self.member.join().map_err(unavailable)?;
        // While the group answers.
        self.transactor.connect()?;
        self.wait(JOIN_TIMEOUT, Member::has_joined, "the group does not answer")?;
        self.member.stays()?;
        self.ready()
    }

    /// Makes the producer, if there is none, for as long as the lane has its place.
    fn ready(&mut self) -> Result<(), Error> {
        let member = &mut self.member;
        self.transactor.ready(|| {
            member.serve(Duration::ZERO);
            !member.is_lost() && !member.is_fenced()
        })
    }

    fn claim(&mut self, partition: u32) -> Result<Claim, Error> {
        if self.partitions <= partition {
            return Err(Error::UnknownPartition { topic: finflow_topologies::Topic::Commands, partition });
        }
        self.place()?;
        self.member.join().map_err(unavailable)?;
        self.member.serve(Duration::ZERO);
        self.place()?;
        // It may come: whoever waits for it asks again, and keeps nobody else from committing meanwhile.
        if !self.member.may_claim(partition) {
            let waits = || Error::Unavailable("the group has not given the partition to this lane".to_owned());
            return Err(self.member.refusal().unwrap_or_else(waits));
        }
        self.ready()?;
        let epoch = self.member.claim(partition);
        let found = self.member.committed(&[partition]).and_then(|found| self.still_claimed(partition, epoch).map(|()| found));
        match found {
            Ok(mut found) => Ok(Claim { epoch, position: found.remove(&partition) }),
            Err(error) => {
                self.member.release(partition);
                Err(error)
            }
        }
    }

    /// While the brokers were waited for, the group may have given the partition to somebody else.
    fn still_claimed(&mut self, partition: u32, epoch: u64) -> Result<(), Error> {
        self.member.serve(Duration::ZERO);
        self.place()?;
        if self.member.is_claimed(partition, epoch) {
            return Ok(());
        }
        Err(Error::Unavailable("the partition was lost while its position was read".to_owned()))
    }

    /// Serves the group until `is_so`.
    fn wait(&mut self, patience: Duration, is_so: impl Fn(&Member) -> bool, otherwise: &str) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        self.member.serve(Duration::ZERO);
        loop {
            match self.place() {
                Ok(()) if is_so(&self.member) => return Ok(()),
                Err(Error::Fenced) => return Err(Error::Fenced),
                // Whoever has the place will be known.
                Ok(()) | Err(_) => {}
            }
            if let Some(refusal) = self.member.refusal() {
                return Err(refusal);
            }
            if deadline < Instant::now() {
                return Err(Error::Unavailable(otherwise.to_owned()));
            }
            self.member.serve(SERVE_INTERVAL);
        }
    }

    /// Whether the session has its place in the group: [`Error::Fenced`] where another one has it, [`Error::Unavailable`] while that is
    /// not known.
    ///
    /// A member that was fenced, or was not heard for longer than its session, has lost everything. If no other process has its name, it
    /// takes its place again.
    fn place(&mut self) -> Result<(), Error> {
        if self.is_over {
            return Err(Error::Fenced);
        }
        let is_fenced = self.member.is_fenced() || self.is_refused;
        if !is_fenced && !self.member.is_lost() {
            // It may have left meanwhile.
            self.unsure_since = None;
            return Ok(());
        }
        if self.is_retired.load(Ordering::Acquire) {
            // By another session of this same process.
            self.is_over = true;
            return Err(Error::Fenced);
        }
        let since = *self.unsure_since.get_or_insert_with(|| {
            warn!(is_fenced, "out of the group, which is asked who has the name");
            self.fences = self.fences.saturating_add(1);
            self.member.lose_all();
            Instant::now()
        });
        match self.member.holder(since) {
            None => Err(Error::Unavailable("the group has not told yet who has this lane's name".to_owned())),
            Some(Holder::Another) => Err(self.end("another process has taken this one's node.id".to_owned())),
            Some(holder) => {
                info!(?holder, "no other process has the name, joining anew");
                (self.unsure_since, self.is_refused) = (None, false);
                let back = if is_fenced { self.member.renew() } else { self.member.come_back() };
                back.map_err(|cause| self.end(format!("cannot join the group anew: {cause}")))
            }
        }
    }

    /// The session is over, and so is the process.
    fn end(&mut self, cause: String) -> Error {
        self.is_over = true;
        self.ends.send_replace(Some(cause));
        Error::Fenced
    }

    fn commit(&mut self, transaction: Transaction) -> Commit {
        if self.is_over {
            return Commit::Fenced;
        }
        if let Some((stamp, _)) = &self.doubt {
            return Commit::Aborted(Error::Unavailable(format!("the doubt about {stamp} comes first")));
        }
        if transaction.positions.is_empty() {
            return Commit::Aborted(Error::Refused("no positions: nothing would be fenced".to_owned()));
        }
        if let Some(batch) = transaction.batches.iter().find(|batch| self.partitions <= batch.partition) {
            return Commit::Aborted(Error::UnknownPartition { topic: batch.topic, partition: batch.partition });
        }
        self.member.serve(Duration::ZERO);
        match self.place().and_then(|()| self.ready()).and_then(|()| self.place()) {
            Ok(()) => {}
            Err(Error::Fenced) => return self.fenced("another session has this one's place"),
            Err(cause) => return Commit::Aborted(cause),
        }
        let claims: Vec<(u32, u64)> = transaction.positions.iter().map(|to| (to.position.partition, to.claim)).collect();
        if claims.iter().any(|(partition, epoch)| self.member.is_void(*partition, *epoch)) {
            let cause = "a partition was lost, and the lane has not let go of it yet";
            return Commit::Aborted(Error::Unavailable(cause.to_owned()));
        }
        if !claims.iter().all(|(partition, epoch)| self.member.is_claimed(*partition, *epoch)) {
            return self.fenced("a claim is not good any more");
        }
        let positions: Vec<&Position> = transaction.positions.iter().map(|to| &to.position).collect();
        let offsets = match self.member.offsets(positions.into_iter()) {
            Ok(offsets) => offsets,
            Err(error) => return Commit::Aborted(unavailable(error)),
        };
        let (member, fences, hang) = (&self.member, self.fences, self.hang.take());
        let name = |batch: &finflow_topologies::log::Batch| batch.topic.name(&self.prefix);
        let group = || {
            if let Some(until) = hang {
                // It goes on also where whoever has ordered it is gone.
                let _ = until.recv();
            }
            member.metadata()
        };
        match self.transactor.commit(&transaction.batches, name, &offsets, group) {
            Ok(()) => Commit::Committed,
            Err(Failed::Outside(cause)) => {
                self.member.serve(Duration::ZERO);
                match self.place() {
                    // It has been lost meanwhile, which the lane is told by its assignment.
                    Err(Error::Unavailable(_)) => Commit::Aborted(Error::Unavailable(cause)),
                    _ => self.fenced(&cause),
                }
            }
            Err(Failed::Replaced(cause)) => {
                self.is_refused = true;
                // Where another process has the name, this one ends, and does not take it back with another lane.
                match self.turns_out_replaced() {
                    // The lane lets go of everything, as it has lost it, and need not end for that.
                    false if fences < self.fences => Commit::Aborted(Error::Unavailable(cause)),
                    _ => self.fenced(&cause),
                }
            }
            Err(Failed::Before { cause, is_fenced }) if is_fenced && self.turns_out_replaced() => self.fenced(&cause.to_string()),
            Err(Failed::Before { cause, .. }) => Commit::Aborted(cause),
            Err(Failed::During(cause)) => {
                self.doubt = Some((transaction.stamp, claims));
                Commit::InDoubt(Error::Unavailable(cause))
            }
        }
    }

    fn fenced(&mut self, cause: &str) -> Commit {
        warn!(cause, "the session is over");
        self.is_over = true;
        self.member.release_all();
        self.transactor.discard();
        Commit::Fenced
    }

    /// Whether the producer was fenced because another session has this one's place, which the group tells with the next heartbeat and
    /// with a look. `false` also where it has not told in time.
    ///
    /// Without it a new producer would fence that session in turn.
    fn turns_out_replaced(&mut self) -> bool {
        let (begun, fences) = (Instant::now(), self.fences);
        loop {
            let patience = match self.place() {
                Err(Error::Fenced) => return true,
                // No other process has the name.
                Ok(()) if fences < self.fences => return false,
                Ok(()) => HEARTBEAT_INTERVAL.saturating_mul(2),
                Err(_) => LOOK_PATIENCE,
            };
            if patience < begun.elapsed() {
                return false;
            }
            self.member.serve(SERVE_INTERVAL);
        }
    }

    /// Fences what may still be under way, and reads from the positions whether it was committed.
    fn resolve(&mut self, stamp: &Stamp) -> Result<Resolution, Error> {
        self.member.serve(Duration::ZERO);
        self.place()?;
        let claims = match &self.doubt {
            Some((doubtful, claims)) if doubtful == stamp => claims.clone(),
            _ => return Err(Error::Unavailable(format!("there is no doubt about {stamp}"))),
        };
        let still = |member: &Member| -> BTreeSet<u32> {
            claims.iter().filter(|(partition, epoch)| member.is_claimed(*partition, *epoch)).map(|(id, _)| *id).collect()
        };
        // Who has nothing left of it need not know, and must not fence who may have it now.
        if !still(&self.member).is_empty() {
            self.transactor.discard();
            self.ready()?;
            self.member.serve(Duration::ZERO);
            self.place()?;
        }
        let still = still(&self.member);
        if still.is_empty() {
            self.is_over = true;
            return Err(Error::Fenced);
        }
        let positions = match self.member.committed(&still.into_iter().collect::<Vec<_>>()) {
            // Somebody else has written them: nobody can tell any more, and whoever claims them anew finds what is wrong with which.
            Err(Error::Corrupt(cause)) => {
                warn!(cause, "a doubt cannot be settled");
                self.is_over = true;
                return Err(Error::Fenced);
            }
            found => found?,
        };
        self.doubt = None;
        let is_committed = positions.values().any(|position| position.stamp == *stamp);
        Ok(if is_committed { Resolution::Committed } else { Resolution::Aborted })
    }
}

/// The watchdog is longer than the sum of what one call may wait for on its own: a name and a member, then a producer and the offsets,
/// which take no longer than a session and one more such wait.
const _: () = assert!(SESSION_TIMEOUT.as_secs() + 3 * JOIN_TIMEOUT.as_secs() < HUNG_TIMEOUT.as_secs());

#[cfg(test)]
mod tests;
