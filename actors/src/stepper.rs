//! The stepper: does a job beside the epochs, a step at a time, each on a blocking thread.
//! Owns the job. Receives `Tick`, `Done` when a step has ended, `Fail` and `Rest`. Tells the lanes what it found.
//! On failure the root starts another, whose job begins anew.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::lane;

/// Something that is done a little at a time.
pub(crate) trait Job: Send {
    /// Does a little of what is due, if anything is.
    fn step(&mut self);
}

/// Takes a message to the lane of a partition.
pub(crate) type Tell = Arc<dyn Fn(u32, lane::Message) + Send + Sync>;

pub(crate) struct Stepper;

/// A job, and how often it is looked at.
pub(crate) type Args = (Box<dyn Job>, Duration);

pub(crate) enum Message {
    /// Something may be due.
    Tick,
    /// A step has ended; `None` = it panicked.
    Done(Option<Box<dyn Job>>),
    /// Dies, as a test or a demonstration wants it.
    Fail,
    /// No more steps; answered when the last one has ended.
    Rest(RpcReplyPort<()>),
}

pub(crate) struct State {
    /// `None` while a step runs.
    job: Option<Box<dyn Job>>,
    resting: Option<RpcReplyPort<()>>,
}

impl Actor for Stepper {
    type Msg = Message;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Message>, (job, tick): Args) -> Result<State, ActorProcessingErr> {
        myself.send_interval(tick, || Message::Tick);
        Ok(State { job: Some(job), resting: None })
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Tick if state.resting.is_none() => {
                if let Some(job) = state.job.take() {
                    begin_step(job, myself.clone());
                }
            }
            Message::Tick => {}
            Message::Fail => return Err("it was killed".into()),
            Message::Done(None) => return Err("a step panicked".into()),
            Message::Done(job) => state.job = job,
            Message::Rest(answer) => state.resting = Some(answer),
        }
        if state.job.is_some()
            && let Some(answer) = state.resting.take()
        {
            // Nothing is due any more, and no store is held.
            myself.stop(None);
            let _ = answer.send(());
        }
        Ok(())
    }
}

fn begin_step(mut job: Box<dyn Job>, myself: ActorRef<Message>) {
    tokio::spawn(async move {
        let stepped = tokio::task::spawn_blocking(move || {
            job.step();
            job
        });
        // One that is gone has no more steps to do.
        let _ = myself.cast(Message::Done(stepped.await.ok()));
    });
}
