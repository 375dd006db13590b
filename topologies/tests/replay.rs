//! Dead letters that are sent again: as whom, as how old, and what becomes of those that would be carried out twice.

use bytes::Bytes;
use finflow_ledger::Coordinates;
use finflow_topologies::log::{Headers, Log, Outgoing, Record};
use finflow_topologies::replay::{Candidate, Refusal, candidate};
use finflow_topologies::topics::{RECORD_BYTES_MAX, Topic, partition_of_key};
use finflow_topologies::wire::v1::{Code, Malformed, dead_letter};
use finflow_topologies::{Rules, TopologyDriver, driver::START_MS};

const PARTITIONS: u32 = 4;
const DAY_MS: i64 = 86_400_000;
const PLACE: Coordinates = Coordinates { partition: 2, offset: 5 };

fn rules() -> Rules {
    Rules::development(PARTITIONS)
}

/// What an engine that could not understand it has made of a command that was sent at `sent_ms`.
fn letter(key: &str, value: &str, sent_ms: i64) -> Record {
    let bytes = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
    let headers = Headers::from_pairs([("correlation-id", &b"c-1"[..])]);
    let record = Record { offset: 3, timestamp_ms: sent_ms, key: bytes(key), value: bytes(value), headers };
    let malformed = Malformed { code: Code::Panicked, message: "it panicked".to_owned() };
    let made = dead_letter(&record, Coordinates { partition: 0, offset: 3 }, &malformed, "finflow", sent_ms + 10);
    let Outgoing { key, value, headers, timestamp_ms } = made;
    Record { offset: PLACE.offset, timestamp_ms: timestamp_ms.expect("that of the original"), key, value, headers }
}

fn judged(letter: &Record, now_ms: i64) -> Result<Candidate, &'static str> {
    candidate(letter, PLACE, &rules(), now_ms).map_err(|refusal| refusal.code())
}

const TOP_UP: &str = r#"{"type":"top_up","tenant":"acme","idempotency_key":"t","wallet":"alice","amount":"7","currency":"AED","source":{"account":"x"}}"#;

#[test]
fn what_cannot_be_carried_out_is_named() {
    let now_ms = START_MS + 40 * DAY_MS;
    let long = "x".repeat(RECORD_BYTES_MAX);
    // With value and header it is as long as a record may be; what a replay adds is too much.
    let key = &long[TOP_UP.len() + "correlation-id".len() + "c-1".len() + 6..];
    for (key, value, age_ms, expected) in [
        ("alice", TOP_UP, 0, "accepted"),
        ("nobody", TOP_UP, 34 * DAY_MS, "accepted"),
        ("alice", TOP_UP, 35 * DAY_MS - 3_600_000, "accepted"),
        ("alice", TOP_UP, 35 * DAY_MS - 3_600_000 + 1, "expired"),
        ("alice", "{}", 0, "field_missing"),
        ("alice", "{}", 40 * DAY_MS, "field_missing"),
        ("alice", &long, 0, "unsendable"),
        (key, TOP_UP, 0, "too_large"),
    ] {
        let found = judged(&letter(key, value, now_ms - age_ms), now_ms);
        let told = found.as_ref().map_or_else(|code| *code, |_| "accepted");
        assert_eq!(told, expected, "{} {} {age_ms}", &key[..key.len().min(9)], &value[..value.len().min(20)]);
        if let Ok(found) = found {
            assert_eq!(found.partition, partition_of_key(key.as_bytes(), PARTITIONS));
        }
    }
    let foreign = Record { headers: Headers::default(), ..letter("alice", TOP_UP, now_ms) };
    assert_eq!(judged(&foreign, now_ms).err(), Some("unsendable"));
}

/// Sends a letter's command again, runs, and gives the balance, the events, and how the command ended.
fn send_again(driver: &mut TopologyDriver, letter: &Record) -> (Option<String>, usize, Option<String>) {
    // Whatever was forecast, the partition has the last word.
    let found = judged(letter, letter.timestamp_ms).expect("it can be understood");
    driver.log().append(Topic::Commands, found.partition, vec![found.record]).expect("a partition");
    driver.run().expect("no halt");
    let balance = driver.wallet("alice").map(|wallet| wallet.ledger().to_string());
    let events = driver.events();
    let last = events.iter().rev().find(|event| event["idempotency_key"] == "t");
    (balance, events.len(), last.and_then(|event| Some(event["reason"].as_str()?.to_owned())))
}

#[test]
fn a_command_is_carried_out_once_however_often_it_is_sent_again() {
    let mut driver = TopologyDriver::new(PARTITIONS, 2);
    driver.send(
        r#"{"type":"open_wallet","tenant":"acme","idempotency_key":"o","wallet":"alice","currency":"AED","country":"AE","kind":"personal","holder":"A"}"#,
    );
    driver.run().expect("no halt");
    let first = letter("alice", TOP_UP, START_MS);
    assert_eq!(send_again(&mut driver, &first), (Some("7.00".to_owned()), 2, None));
    assert_eq!(driver.payment("acme", "alice", "t").and_then(|payment| payment.correlation).as_deref(), Some("c-1"));
    assert_eq!(send_again(&mut driver, &first), (Some("7.00".to_owned()), 2, None), "a duplicate");
    // A letter under another key is forwarded, and is the same command.
    assert_eq!(send_again(&mut driver, &letter("nobody", TOP_UP, START_MS)), (Some("7.00".to_owned()), 2, None));

    let id = candidate(&first, PLACE, &rules(), START_MS).expect("accepted");
    let known = driver.payment("acme", "alice", "t").expect("a record").fingerprint;
    assert_eq!((id.against(None), id.against(Some(known))), (Ok(()), Err(Refusal::Duplicate)));
    assert_eq!(id.against(Some([0; 16])), Err(Refusal::KeyReused));

    // The log says that it is new, and its own header that it is not: the record that would answer for it may be gone.
    let mut driver = TopologyDriver::new(PARTITIONS, 2);
    driver.advance(36 * DAY_MS);
    let (balance, events, reason) = send_again(&mut driver, &first);
    assert_eq!((balance, events, reason.as_deref()), (None, 1, Some("expired")));
}
