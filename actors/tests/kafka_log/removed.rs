//! A lane that the group has removed, and that does not know it: nothing of what it goes on committing is taken.
//!
//! The broker refuses its positions for the group's sake alone. The producer's epoch is good: nobody else has the lane's name, so nobody
//! has fenced it, and no transaction is open for long. The claim is good: it is void once the member hears of its removal, and the wire
//! keeps every answer to a heartbeat from saying so. Positions without generation and member id, which is what a client sends that has
//! joined nothing, would be taken: from anybody if they come without a name, and with one while the group is empty. So it is tried in
//! both.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::{BufMut, BytesMut};
use finflow_actors::log::kafka::{KafkaLog, Settings};
use finflow_topologies::Topic;
use finflow_topologies::log::{Batch, Commit, Transaction};

use crate::proxy::Armed;
use crate::takeover::{DEADLINE, PARTITIONS, events};
use crate::{LOOKS, PAUSE, text, transaction};

const REMOVED: &str = "removed/lane/0";
const OTHER: &str = "other/lane/0";
/// The partition that both commit for.
const WANTED: u32 = 0;
/// What the broker says of positions that come from who is no member.
const REFUSAL: &str = "Unknown member";

/// The request by which members leave, in the version that names them as an operator knows them, and before its lengths are variable.
const LEAVE_GROUP: i16 = 13;
const LEAVE_GROUP_VERSION: i16 = 3;
const NULL: i16 = -1;
/// What the answer begins with, correlation id and throttle time, and the error behind it; another one, the member's, ends it.
const LEAVE_GROUP_ERROR: std::ops::Range<usize> = 8..10;
const NO_ERROR: [u8; 2] = 0_i16.to_be_bytes();

pub(crate) fn who_was_removed_commits_nothing(direct: &Settings, proxied: &Settings, wire: &Armed) {
    KafkaLog::create_topics(direct, PARTITIONS, 1).expect("topics");
    let [log, other_log] = [proxied, direct].map(|settings| KafkaLog::open(settings.clone()).expect("a log"));
    let (mut removed, given) = log.lane(REMOVED).expect("a lane");
    let claim = removed.claim(WANTED).expect("a claim").epoch;
    assert_eq!(removed.commit(numbered(1, claim)), Commit::Committed);

    let before = given.borrow().clone();
    wire.soothe(true);
    remove(direct, REMOVED);
    let outcome = removed.commit(numbered(2, claim));
    assert!(is_refused_by_the_group(&outcome), "nobody is in the group: {outcome}");

    let mut other = other_log.lane(OTHER).expect("a lane").0;
    let taken = other.claim(WANTED).expect("a claim");
    assert_eq!(taken.position.map(|position| position.block), Some(1));
    assert_eq!(other.commit(numbered(3, taken.epoch)), Commit::Committed);
    let outcome = removed.commit(numbered(4, claim));
    assert!(is_refused_by_the_group(&outcome), "another lane has the partition: {outcome}");
    assert_eq!(other.commit(numbered(5, taken.epoch)), Commit::Committed);

    // What was refused last is open, and hides what stands behind it, until the claim makes a new producer.
    let again = removed.claim(WANTED).expect("it takes the partition for its own");
    assert_eq!(again.position.map(|position| position.block), Some(5), "and finds where the other one stands");
    assert_eq!(given.borrow().clone(), before, "it knows of no loss to this moment");
    let mut tries = 0..LOOKS;
    loop {
        let found = events(&other_log);
        if found == ["1", "3", "5"] {
            break;
        }
        assert!(tries.next().is_some(), "{found:?}");
        std::thread::park_timeout(PAUSE);
    }
    drop(removed);
    wire.soothe(false);
}

/// A commit of this number, whoever makes it: it writes the number.
fn numbered(number: u64, claim: u64) -> Transaction {
    let records = vec![text("k", &number.to_string())];
    transaction(number, &[(WANTED, claim)], vec![Batch { topic: Topic::Events, partition: WANTED, records }])
}

/// Whether it was neither the lane's own session nor the transaction's coordinator.
fn is_refused_by_the_group(outcome: &Commit) -> bool {
    matches!(outcome, Commit::Aborted(cause) if cause.to_string().contains(REFUSAL))
}

/// Has the group remove the member of this name at once, as an operator may. The member hears of it by its next heartbeat.
fn remove(cluster: &Settings, name: &str) {
    let mut request = BytesMut::new();
    request.put_i16(LEAVE_GROUP);
    request.put_i16(LEAVE_GROUP_VERSION);
    let correlation_id = 0;
    request.put_i32(correlation_id);
    let client_id = NULL;
    request.put_i16(client_id);
    put_text(&mut request, &cluster.prefix);
    let members = 1;
    request.put_i32(members);
    // Its id is not known: whoever has the name.
    put_text(&mut request, "");
    put_text(&mut request, name);

    let mut wire = TcpStream::connect(&cluster.brokers).expect("a broker");
    wire.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    wire.write_all(&(request.len() as u32).to_be_bytes()).expect("written");
    wire.write_all(&request).expect("written");
    let mut length = [0; 4];
    wire.read_exact(&mut length).expect("an answer");
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    wire.read_exact(&mut answer).expect("an answer");
    assert!(answer[LEAVE_GROUP_ERROR] == NO_ERROR && answer.ends_with(&NO_ERROR), "{answer:?}");
}

fn put_text(request: &mut BytesMut, text: &str) {
    request.put_i16(text.len() as i16);
    request.put_slice(text.as_bytes());
}
