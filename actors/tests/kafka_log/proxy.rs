//! A wire between clients and broker that swallows what a test wants swallowed: requests, or the answers to them.
//!
//! It reads no more of Kafka's protocol than the head of a request: length, API key, version and correlation id.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use finflow_topologies::log::simulated::Fault;

const INIT_PRODUCER_ID: i16 = 22;
const END_TXN: i16 = 26;
const TXN_OFFSET_COMMIT: i16 = 28;

/// What the names of lanes begin with.
const LANE: &[u8] = b"lane/";

/// What is to be swallowed, until a producer is initialised again.
pub(crate) type Armed = Arc<Mutex<Option<Fault>>>;

/// Carries every connection to `port` to the broker's listener at `broker`, for as long as the process lives.
pub(crate) fn serve(listener: TcpListener, broker: u16, armed: &Armed) {
    let armed = armed.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, broker)) else {
                let _ = client.shutdown(Shutdown::Both);
                continue;
            };
            carry(client, broker, &armed);
        }
    });
}

fn carry(client: TcpStream, broker: TcpStream, armed: &Armed) {
    let swallowed: Arc<Mutex<HashSet<[u8; 4]>>> = Arc::default();
    let (from_client, to_broker) = (client.try_clone().expect("a stream"), broker.try_clone().expect("a stream"));
    let (armed, asked) = (armed.clone(), swallowed.clone());
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    std::thread::spawn(move || {
        pump(from_client, to_broker, |frame| {
            let (Some(key), Some(id)) = (frame.first_chunk(), frame.get(4..8)) else { return true };
            let mut armed = armed.lock().unwrap_or_else(PoisonError::into_inner);
            match (i16::from_be_bytes(*key), *armed) {
                // Producers without transactions are initialised at any time.
                (INIT_PRODUCER_ID, _) if names_a_lane(frame) => *armed = None,
                (TXN_OFFSET_COMMIT, Some(Fault::Abort)) | (END_TXN, Some(Fault::DoubtAborted)) => return false,
                (END_TXN, Some(Fault::DoubtCommitted)) => {
                    let id = id.try_into().expect("four bytes");
                    asked.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
                }
                _ => {}
            }
            true
        });
    });
    std::thread::spawn(move || {
        pump(broker, client, |frame| {
            let id = frame.first_chunk::<4>();
            !id.is_some_and(|id| swallowed.lock().unwrap_or_else(PoisonError::into_inner).remove(id))
        });
    });
}

/// Whether a lane's name, its transactional id, is somewhere in a request.
fn names_a_lane(frame: &[u8]) -> bool {
    frame.windows(LANE.len()).any(|bytes| bytes == LANE)
}

/// Passes frames on that `may_pass`, until either side ends.
fn pump(mut from: TcpStream, mut to: TcpStream, mut may_pass: impl FnMut(&[u8]) -> bool) {
    let mut frame = Vec::new();
    loop {
        let mut length = [0; 4];
        if from.read_exact(&mut length).is_err() {
            break;
        }
        frame.resize(u32::from_be_bytes(length) as usize, 0);
        if from.read_exact(&mut frame).is_err() {
            break;
        }
        if may_pass(&frame) && (to.write_all(&length).is_err() || to.write_all(&frame).is_err()) {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
