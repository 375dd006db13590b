//! The verdict can fail: events that were doctored, one way at a time, and what the report says about each.

use finflow_topologies::simulation::audit;

use super::*;

/// Two wallets, 100.00 brought in, 12.50 sent, one transfer refused.
fn events() -> Vec<String> {
    let event =
        |name: &str, id: u32, payment: &str, kind: &str, wallet: &str, seq: u32, amount: &str, ledger: &str, reason: &str| {
            let start =
                format!(r#"{{"event":"{name}","id":"evt_{id}","payment":"{payment}","type":"{kind}","wallet":"{wallet}","#);
            let balance = format!(
                r#""wallet_seq":{seq},"currency":"AED","balance":{{"available":"{ledger}","held":"0.00","ledger":"{ledger}"}}"#
            );
            let to = if kind == "transfer" { r#""to":"bob","# } else { "" };
            format!(r#"{start}{to}{balance},"amount":"{amount}","reason":{reason}}}"#)
        };
    vec![
        event("wallet.opened", 1, "o1", "open_wallet", "alice", 1, "", "0.00", "null"),
        event("wallet.opened", 2, "o2", "open_wallet", "bob", 1, "", "0.00", "null"),
        event("payment.settled", 3, "p1", "top_up", "alice", 2, "100.00", "100.00", "null"),
        event("payment.settled", 4, "p2", "transfer", "alice", 3, "12.50", "87.50", "null"),
        event("wallet.credited", 5, "p2", "transfer", "bob", 2, "12.50", "12.50", "null"),
        event("payment.rejected", 6, "p3", "transfer", "alice", 4, "900.00", "87.50", "\"insufficient_funds\""),
    ]
}

fn facts(events: &[String]) -> Facts {
    Facts {
        accepted: 7,
        transfers: 2,
        duplicates: 1,
        misrouted: 0,
        audit: audit(events),
        dead_letters: 1,
        told: BTreeMap::from([("alice".to_owned(), Some(8_750)), ("bob".to_owned(), Some(1_250))]),
        has_ended: true,
        kills: 3,
        took: Duration::from_secs(2),
        cpu_seconds: 0.5,
        latencies: Histogram::new_with_bounds(1, 1_000, 3).expect("bounds"),
    }
}

#[test]
fn a_whole_stream_is_accounted_for() {
    let facts = facts(&events());
    assert_eq!(facts.faults(), Vec::<String>::new());
    let text = facts.text();
    for told in
        ["every cent is accounted for (2 wallets recomputed from 6 events", "insufficient_funds", "100.00                 100.00"]
    {
        assert!(text.contains(told), "{told}: {text}");
    }
    assert_eq!(facts.json()["sums"]["AED"], json!({ "before": "100.00", "after": "100.00" }));
    assert_eq!(facts.json()["rejected"], json!({ "insufficient_funds": 1 }));
}

/// Changes the events or the facts, and expects a difference with these words.
fn check(what: &str, change: impl FnOnce(&mut Vec<String>), told: &str) {
    let mut events = events();
    change(&mut events);
    differs(what, &facts(&events), told);
}

fn differs(what: &str, facts: &Facts, told: &str) {
    let faults = facts.faults();
    assert!(faults.iter().any(|fault| fault.contains(told)), "{what}: {faults:?}");
    assert!(facts.text().contains("differences\n") && !facts.text().contains("accounted for"), "{what}");
}

#[test]
fn doctored_events_are_found() {
    let swap = |index: usize, from: &'static str, to: &'static str| {
        move |events: &mut Vec<String>| {
            assert!(events[index].contains(from));
            events[index] = events[index].replace(from, to);
        }
    };
    check("a cent is missing at the receiver", swap(4, "12.50", "12.49"), "AED: wallets sum to 9999, 10000 was brought in");
    check("a cent too much is told", swap(5, "87.50", "87.51"), "wallet alice: event 4 tells Some(8751)");
    check("a top-up is told smaller", swap(2, "100.00", "99.99"), "wallet alice: event 3 tells");
    check("a credit is lost", |events| drop(events.remove(4)), "wallets sum to 8750, 10000 was brought in");
    check("a credit goes to another", swap(4, r#""wallet":"bob""#, r#""wallet":"eve""#), "to bob, credited 1250 AED to eve");
    check("another is named", swap(3, r#""to":"bob""#, r#""to":"eve""#), "settled 1250 AED to eve, credited 1250 AED to bob");
    check("a settlement is lost", |events| drop(events.remove(3)), "payment p2 credited but not settled");
    check("a settlement is told twice", |events| events.push(events[3].replace("evt_4", "evt_9")), "payment p2 ended twice");
    check("an event stands twice", |events| events.push(events[0].clone()), "event evt_1 stands twice");
    check("a credit is told twice", |events| events.push(events[4].replace("evt_5", "evt_9")), "payment p2 credited twice");
    check("a rejection is lost", |events| drop(events.remove(5)), "commands left neither event nor dead letter");
    check(
        "a wallet is forgotten",
        |events| events.retain(|event| !event.contains("bob")),
        "wallet bob: the engine tells Some(1250)",
    );
    check("an event is no JSON", |events| events.push("{".to_owned()), "an event is not JSON");
}

#[test]
fn an_engine_that_tells_otherwise_is_found() {
    let of = |change: fn(&mut Facts)| {
        let mut facts = facts(&events());
        change(&mut facts);
        facts
    };
    let engine = of(|facts| facts.told.extend([("bob".to_owned(), Some(1_251))]));
    differs("the engine tells a cent more", &engine, "wallet bob: the engine tells Some(1251), its events sum to Some(1250)");
    differs(
        "the engine has lost a wallet",
        &of(|facts| facts.told.extend([("bob".to_owned(), None)])),
        "wallet bob: the engine tells None",
    );
    differs(
        "a dead letter is missing",
        &of(|facts| facts.dead_letters = 0),
        "Some(2) commands left neither event nor dead letter",
    );
    differs("more became of it than was asked", &of(|facts| facts.accepted = 2), "None commands left");
    differs("something has not ended", &of(|facts| facts.has_ended = false), "not every command had ended in time");
}
