//! What other producers leave in the topics of an application.

use std::time::Duration;

use finflow_actors::log::kafka::Settings as Cluster;
use finflow_topologies::Topic;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const BUDGET: Duration = Duration::from_secs(10);

/// A transaction with one record, which is written and not ended, as a process leaves it that has been killed.
pub(crate) struct Stray(BaseProducer);

impl Stray {
    /// It is known to the brokers as `id`, and outlives any test unless it is ended.
    pub(crate) fn open(cluster: &Cluster, id: &str, topic: Topic, partition: u32) -> Stray {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &cluster.brokers).set("transactional.id", id).set("transaction.timeout.ms", "300000");
        let producer: BaseProducer = config.create().expect("a producer");
        producer.init_transactions(BUDGET).expect("an id");
        producer.begin_transaction().expect("a transaction");
        let name = topic.name(&cluster.prefix);
        let record = BaseRecord::<str, str>::to(&name).partition(partition as i32).key("").payload("nobody sees it");
        producer.send(record).map_err(|(error, _)| error).expect("queued");
        producer.flush(BUDGET).expect("written");
        Stray(producer)
    }

    #[allow(dead_code, reason = "one suite commits what nobody can read")]
    pub(crate) fn commit(self) {
        self.0.commit_transaction(BUDGET).expect("committed");
    }

    pub(crate) fn abort(self) {
        self.0.abort_transaction(BUDGET).expect("aborted");
    }
}
