//! A wire between clients and broker that swallows what a test wants swallowed: requests, or the answers to them. And it can tell members
//! of a group that nobody hears them, although the broker does, that they are not in it any more, or that all is well, although it is not;
//! and it can be cut.
//!
//! It reads no more of Kafka's protocol than the head of a request, which is length, API key, version and correlation id, and the error in
//! the answer to a heartbeat.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use finflow_topologies::log::simulated::Fault;

const JOIN_GROUP: i16 = 11;
const HEARTBEAT: i16 = 12;
const INIT_PRODUCER_ID: i16 = 22;
const END_TXN: i16 = 26;
const TXN_OFFSET_COMMIT: i16 = 28;

/// Where the error stands in the answer to a heartbeat, behind correlation id and throttle time.
const HEARTBEAT_ERROR: std::ops::Range<usize> = 8..10;
/// What a broker answers that has just started, and what it answers to a name without the id that belongs to it.
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
/// What it answers to a member that has missed a decision of the group.
const ILLEGAL_GENERATION: i16 = 22;
const FENCED_INSTANCE_ID: i16 = 82;

/// What the names of lanes have in them.
const LANE: &[u8] = b"lane";

/// How a wire is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing gets through, and nobody is told; what was on its way arrives when the wire is mended.
    Silent,
    /// Connections break, and new ones are refused.
    Broken,
}

/// What the wire does wrong.
#[derive(Clone, Default)]
pub(crate) struct Armed {
    /// Swallowed, until a lane's producer is initialised again.
    fault: Arc<Mutex<Option<Fault>>>,
    /// Members are not told that they were heard.
    is_deaf: Arc<AtomicBool>,
    /// Members are told that they were heard, whatever the group says.
    is_soothing: Arc<AtomicBool>,
    /// The next member that is heard is told that it has missed something.
    expels: Arc<AtomicBool>,
    /// No transaction gets its positions.
    is_refusing: Arc<AtomicBool>,
    /// The members that were told that their name was taken.
    fenced: Arc<AtomicU32>,
    /// How often a member has asked to be let in.
    joins: Arc<AtomicU32>,
    /// How the wire is cut, if it is.
    cut: Arc<(Mutex<Option<Cut>>, Condvar)>,
}

impl Armed {
    pub(crate) fn fail_next(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }

    /// Whether members are to be told that nobody hears them. What the group refuses they are told all the same.
    pub(crate) fn deafen(&self, is_deaf: bool) {
        self.is_deaf.store(is_deaf, Ordering::Release);
    }

    /// Whether members are to be told that all is well, also those that the group does not know any more.
    pub(crate) fn soothe(&self, is_soothing: bool) {
        self.is_soothing.store(is_soothing, Ordering::Release);
    }

    /// Whether commits come to nothing, while the group and everything else answers.
    pub(crate) fn refuse_commits(&self, is_refusing: bool) {
        self.is_refusing.store(is_refusing, Ordering::Release);
    }

    pub(crate) fn fenced(&self) -> u32 {
        self.fenced.load(Ordering::Acquire)
    }

    /// Has the next member that sends a heartbeat lose what it has.
    pub(crate) fn expel_next(&self) {
        self.expels.store(true, Ordering::Release);
    }

    pub(crate) fn joins(&self) -> u32 {
        self.joins.load(Ordering::Acquire)
    }

    /// Cuts the wire, or mends it.
    pub(crate) fn cut(&self, how: Option<Cut>) {
        let (cut, changed) = &*self.cut;
        *cut.lock().unwrap_or_else(PoisonError::into_inner) = how;
        changed.notify_all();
    }

    /// Waits while nothing gets through; `false` where the connection is to break.
    fn gets_through(&self) -> bool {
        let (cut, changed) = &*self.cut;
        let cut = cut.lock().unwrap_or_else(PoisonError::into_inner);
        let cut = changed.wait_while(cut, |cut| *cut == Some(Cut::Silent)).unwrap_or_else(PoisonError::into_inner);
        cut.is_none()
    }

    /// Looks into the answer to a heartbeat.
    fn answer(&self, frame: &mut [u8]) {
        let Some(error) = frame.get_mut(HEARTBEAT_ERROR) else { return };
        match i16::from_be_bytes([error[0], error[1]]) {
            _ if self.is_soothing.load(Ordering::Acquire) => error.fill(0),
            0 if self.expels.swap(false, Ordering::AcqRel) => error.copy_from_slice(&ILLEGAL_GENERATION.to_be_bytes()),
            0 if self.is_deaf.load(Ordering::Acquire) => error.copy_from_slice(&COORDINATOR_NOT_AVAILABLE.to_be_bytes()),
            FENCED_INSTANCE_ID => {
                self.fenced.fetch_add(1, Ordering::AcqRel);
            }
            _ => {}
        }
    }
}

/// Carries every connection to `port` to the broker's listener at `broker`, for as long as the process lives.
pub(crate) fn serve(listener: TcpListener, broker: u16, armed: &Armed) {
    let armed = armed.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let armed = armed.clone();
            std::thread::spawn(move || {
                let connected = armed.gets_through().then(|| TcpStream::connect((Ipv4Addr::LOCALHOST, broker)));
                match connected {
                    Some(Ok(broker)) => carry(client, broker, &armed),
                    None | Some(Err(_)) => drop(client.shutdown(Shutdown::Both)),
                }
            });
        }
    });
}

fn carry(client: TcpStream, broker: TcpStream, armed: &Armed) {
    let (swallowed, heartbeats) = (Arc::<Ids>::default(), Arc::<Ids>::default());
    let (from_client, to_broker) = (client.try_clone().expect("a stream"), broker.try_clone().expect("a stream"));
    let (asking, asked, heard) = (armed.clone(), swallowed.clone(), heartbeats.clone());
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    std::thread::spawn(move || {
        pump(from_client, to_broker, &asking, |frame| {
            let (Some(key), Some(id)) = (frame.first_chunk(), frame.get(4..8)) else { return true };
            let id = id.try_into().expect("four bytes");
            let mut fault = asking.fault.lock().unwrap_or_else(PoisonError::into_inner);
            match (i16::from_be_bytes(*key), *fault) {
                // Producers without transactions are initialised at any time.
                (INIT_PRODUCER_ID, _) if names_a_lane(frame) => *fault = None,
                (TXN_OFFSET_COMMIT, _) if asking.is_refusing.load(Ordering::Acquire) => return false,
                (TXN_OFFSET_COMMIT, Some(Fault::Abort)) | (END_TXN, Some(Fault::DoubtAborted)) => return false,
                (END_TXN, Some(Fault::DoubtCommitted)) => note(&asked, id),
                (HEARTBEAT, _) => note(&heard, id),
                (JOIN_GROUP, _) => drop(asking.joins.fetch_add(1, Ordering::AcqRel)),
                _ => {}
            }
            true
        });
    });
    let armed = armed.clone();
    std::thread::spawn(move || {
        pump(broker, client, &armed, |frame| {
            let Some(id) = frame.first_chunk().copied() else { return true };
            if take(&heartbeats, id) {
                armed.answer(frame);
            }
            !take(&swallowed, id)
        });
    });
}

/// The correlation ids of requests.
type Ids = Mutex<HashSet<[u8; 4]>>;

fn note(ids: &Ids, id: [u8; 4]) {
    ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
}

fn take(ids: &Ids, id: [u8; 4]) -> bool {
    ids.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
}

/// Whether a lane's name, its transactional id, is somewhere in a request.
fn names_a_lane(frame: &[u8]) -> bool {
    frame.windows(LANE.len()).any(|bytes| bytes == LANE)
}

/// Passes frames on that `may_pass`, until either side ends or the wire breaks.
fn pump(mut from: TcpStream, mut to: TcpStream, wire: &Armed, mut may_pass: impl FnMut(&mut [u8]) -> bool) {
    let mut frame = Vec::new();
    loop {
        let mut length = [0; 4];
        if from.read_exact(&mut length).is_err() {
            break;
        }
        frame.resize(u32::from_be_bytes(length) as usize, 0);
        if from.read_exact(&mut frame).is_err() || !wire.gets_through() {
            break;
        }
        if may_pass(&mut frame) && (to.write_all(&length).is_err() || to.write_all(&frame).is_err()) {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
