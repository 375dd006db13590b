//! What a lane is told by a session whose thread does not answer.

use super::*;

#[test]
fn a_call_that_hangs_ends_the_process() {
    let (asks, asked) = channel();
    let mut session = KafkaSession { asks, is_hung: false, commit_patience: Duration::ZERO, ends: watch::Sender::new(None) };
    let claim = session.ask(Duration::from_millis(1), |answer| Ask::Claim(0, answer));
    assert!(matches!(claim, Err(Error::Unavailable(_))), "nobody answers");
    assert!(session.ends.borrow().is_some(), "the process is told to end");
    let commit = session.commit(Transaction { stamp: stamp(), batches: vec![], positions: vec![] });
    assert_eq!(commit, Commit::Fenced, "nothing is asked of it any more");
    drop(asked);
}

fn stamp() -> Stamp {
    Stamp { lane: "lane".into(), incarnation: 1, counter: 1 }
}
