//! Work beside the lane, on a thread that may block: a commit, a store. However it ends, the lane hears of it; a panic is told as
//! what it may have left behind, so that the lane asks or tries again and never waits for nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use finflow_state::store;
use finflow_topologies::log::{Commit, Error};
use ractor::ActorRef;
use tracing::error;

use super::Message;

/// Does `work`, and tells the lane what came of it; `died` is what came of it where it panicked.
pub(super) fn beside<T>(
    myself: &ActorRef<Message>,
    work: impl FnOnce() -> T + Send + 'static,
    died: T,
    tell: impl FnOnce(T) -> Message + Send + 'static,
) where
    T: Send + 'static,
{
    let myself = myself.clone();
    tokio::task::spawn_blocking(move || {
        let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            error!("work beside the lane panicked");
            died
        });
        // A lane that is gone has left the outcome in the log.
        let _ = myself.cast(tell(done));
    });
}

/// A commit that panicked may have reached the log.
pub(super) fn died_committing() -> Commit {
    Commit::InDoubt(Error::Unavailable("the commit panicked".to_owned()))
}

/// A question that panicked is asked again.
pub(super) fn died_asking() -> Error {
    Error::Unavailable("settling the doubt panicked".to_owned())
}

/// A store takes each block once, so that writing can be tried again.
pub(super) fn died_writing() -> store::Error {
    store::Error::Io("writing it panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use finflow_topologies::log::Resolution;
    use ractor::{Actor, ActorProcessingErr};
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

    use super::*;

    /// Stands where a lane does and passes on what it hears.
    struct Listener;

    impl Actor for Listener {
        type Msg = Message;
        type State = UnboundedSender<Message>;
        type Arguments = UnboundedSender<Message>;

        async fn pre_start(&self, _: ActorRef<Message>, heard: Self::Arguments) -> Result<Self::State, ActorProcessingErr> {
            Ok(heard)
        }

        async fn handle(
            &self,
            _: ActorRef<Message>,
            message: Message,
            heard: &mut Self::State,
        ) -> Result<(), ActorProcessingErr> {
            Ok(heard.send(message)?)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_that_panics_is_heard_of_like_any_other() {
        let (sender, mut heard) = unbounded_channel();
        let (lane, running) = Actor::spawn(None, Listener, sender).await.expect("an actor");
        for panics in [false, true] {
            let work = move || assert!(!panics, "a blocking thread dies");
            let committed = move || {
                work();
                (Commit::Committed, Duration::ZERO)
            };
            let resolved = move || {
                work();
                Ok(Resolution::Committed)
            };
            let applied = move || {
                work();
                Ok(())
            };
            let died = (died_committing(), Duration::ZERO);
            beside(&lane, committed, died, |(commit, took)| Message::CommitEnded(commit, took));
            let commit = next(&mut heard).await;
            beside(&lane, resolved, Err(died_asking()), Message::Resolved);
            let doubt = next(&mut heard).await;
            beside(&lane, applied, Err(died_writing()), |result| Message::Applied(3, 7, result));
            let store = next(&mut heard).await;
            match (panics, commit, doubt, store) {
                (false, Message::CommitEnded(Commit::Committed, _), Message::Resolved(Ok(_)), Message::Applied(3, 7, Ok(()))) => {
                }
                (
                    true,
                    Message::CommitEnded(Commit::InDoubt(_), _),
                    Message::Resolved(Err(Error::Unavailable(_))),
                    Message::Applied(3, 7, Err(store::Error::Io(_))),
                ) => {}
                _ => panic!("panics: {panics}"),
            }
        }
        lane.stop(None);
        running.await.expect("an actor that ends");
    }

    async fn next(heard: &mut tokio::sync::mpsc::UnboundedReceiver<Message>) -> Message {
        let next = tokio::time::timeout(Duration::from_secs(60), heard.recv()).await;
        next.expect("the lane is told").expect("a listener")
    }
}
