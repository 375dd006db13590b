//! A partition actor: hosts the wallets and payments whose keys fall into its partition.
//! Owns the partition logic with its hot rows. Receives `Decide` and `Retire` from its lane; answers `Decide` with the open epoch.
//! On failure its lane starts a new one, which begins with no hot rows: everything uncommitted is the lane's, so nothing is lost.

use std::sync::Arc;

use finflow_state::Store;
use finflow_topologies::lane::Failure;
use finflow_topologies::{Epoch, OpenEpoch, Partition, Rules, Work};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

pub(crate) struct PartitionActor;

pub(crate) struct Args {
    pub(crate) id: u32,
    pub(crate) rules: Arc<Rules>,
    pub(crate) store: Arc<dyn Store>,
}

pub(crate) enum Message {
    Decide(Box<Work>, RpcReplyPort<Result<OpenEpoch, Failure>>),
    Retire(Vec<Epoch>),
    /// Stands still, as a disk that does not answer makes it do.
    Hang(Hang),
}

/// How chaos makes a partition stand still.
pub(crate) struct Hang {
    /// Dropped when it begins.
    pub(crate) begins: ractor::concurrency::OneshotSender<()>,
    /// It ends when the other end is dropped.
    pub(crate) until: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Actor for PartitionActor {
    type Msg = Message;
    type State = Partition;
    type Arguments = Args;

    async fn pre_start(&self, _myself: ActorRef<Message>, args: Args) -> Result<Partition, ActorProcessingErr> {
        Ok(Partition::new(args.id, args.rules, args.store))
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        partition: &mut Partition,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Decide(work, answer) => {
                // The lane may have given the epoch up meanwhile; then nobody waits for the answer.
                let _ = answer.send(partition.decide(*work));
            }
            Message::Hang(Hang { begins, until }) => {
                drop(begins);
                // It ends with the other end.
                let _ = until.lock().map(|until| until.recv());
            }
            Message::Retire(epochs) => epochs.iter().for_each(|epoch| partition.retire(epoch)),
        }
        Ok(())
    }
}
