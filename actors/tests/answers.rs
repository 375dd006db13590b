//! Waiting for commands: whoever published one is woken as soon as its answer is shown, in the process and through the socket.

use std::path::Path;
use std::time::{Duration, Instant};

use finflow_actors::socket::{self, Client};
use finflow_actors::{Awaited, Node, Publish};
use finflow_topologies::topics::payment_id;
use finflow_topologies::wire::v1::decode;

use self::commands::{opened, transfers};
use self::engine::{DEADLINE, settings};

#[path = "support/commands.rs"]
mod commands;
#[path = "support/engine.rs"]
mod engine;

async fn started(dir: &Path) -> Node {
    let node = Node::start(settings(dir)).await.expect("a node");
    let opening = published(&node, opened(20, "10")).await;
    assert!(node.answered(&opening, DEADLINE).await, "a whole file of commands is answered");
    node
}

async fn published(node: &Node, records: Vec<Publish>) -> Vec<Awaited> {
    let record = |record: &Publish| {
        let command = decode(record.value.as_deref(), &record.headers).ok()?;
        Some(payment_id(&command.tenant, &command.wallet, &command.key))
    };
    let ids: Vec<_> = records.iter().map(record).collect();
    let places = node.publish(records).await.expect("a log");
    places.into_iter().zip(ids).map(|(at, record)| Awaited { at, record }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_woken_when_the_answer_is_shown_and_not_by_a_deadline() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = started(dir.path()).await;
    let serving = socket::serve(node.clone(), dir.path()).expect("a socket");
    let client = Client::connect(dir.path()).await.expect("a service");
    let mut waits = Vec::new();
    for n in 0..60 {
        let sent = published(&node, transfers(20, n..n + 1)).await;
        let begun = Instant::now();
        if n % 2 == 0 {
            assert!(node.answered(&sent, DEADLINE).await);
        } else {
            client.answered(&sent, DEADLINE).await.expect("a service");
        }
        waits.push(begun.elapsed());
        let payment = sent[0].record.and_then(|id| node.payment(id).expect("readable")).expect("a record");
        assert!(payment.state.is_terminal(), "transfer {n} is {}", payment.state.as_str());
    }
    waits.sort_unstable();
    println!("from published to woken: median {:?}, longest {:?}", waits[30], waits[59]);
    // A wake-up that is lost takes all the time there is.
    assert!(waits[59] < DEADLINE / 2, "{waits:?}");
    serving.abort();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_before_and_what_leaves_no_record_is_answered_where_it_is_consumed() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = started(dir.path()).await;
    let first = published(&node, transfers(20, 0..10)).await;
    let again = published(&node, transfers(20, 0..10)).await;
    assert!(node.answered(&[first.clone(), again].concat(), DEADLINE).await);
    assert!(node.answered(&first, DEADLINE).await, "what has ended is not waited for");
    let bad = Publish { partition: Some(0), value: Some("no command".into()), ..Publish::default() };
    let bad = published(&node, vec![bad]).await;
    assert_eq!(bad[0].record, None);
    assert!(node.answered(&bad, DEADLINE).await);
    let mut next = bad[0];
    next.at.offset += 1;
    assert!(!node.answered(&[next], Duration::from_millis(20)).await, "nobody has published that");
    node.stop().await;
}
