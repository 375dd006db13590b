//! Who needs which rights on the cluster: the one table that access control lists are printed from and a starting engine is held to.
//!
//! Least privilege: what is not here is not needed. Every right to read, write or delete also lets its owner describe the resource, and
//! since Kafka 3.0 who may write to a topic may do so idempotently.

use std::fmt;

use finflow_topologies::Topic;

use super::settings::addresses_group;

/// A part in the application, each with a principal of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `finflow run`: every process of the application.
    Engine,
    /// Deletes what the engine does not need any more; `[kafka.trim]` says how the engine signs in for it.
    Trimmer,
    /// The service as people use it to send commands, to read events and to repair dead letters: the engine's principal, if it is to do so.
    Gateway,
    /// The engine of the application that these topics were left for: it watches that nobody goes on there.
    Successor,
    /// Whoever writes commands. It is trusted with every tenant: the tenant is what the command says.
    Producer,
    /// Whoever reads events, as a group of its own.
    Consumer,
}

/// What may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Read records, or take part in a group.
    Read,
    /// Write records, or use a transactional id.
    Write,
    /// Delete records.
    Delete,
    /// See a topic, and where it ends.
    Describe,
    /// See the settings of a topic.
    DescribeConfigs,
}

/// What it may be done with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// The topic of this name.
    Topic(String),
    /// The consumer group of this name.
    Group(String),
    /// The transactional ids that begin so.
    TransactionalIds(String),
}

/// One right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// Whose it is.
    pub role: Role,
    /// What may be done.
    pub operation: Operation,
    /// With what.
    pub resource: Resource,
    /// What it is needed for.
    pub purpose: &'static str,
}

/// Every right that an application with topics under `prefix` needs, its consumer reading as `group`.
pub fn rights(prefix: &str, group: &str) -> Vec<Right> {
    use Operation::{Delete, Describe, DescribeConfigs, Read, Write};
    use Role::{Consumer, Engine, Gateway, Producer, Successor, Trimmer};
    let topic = |topic: Topic| Resource::Topic(topic.name(prefix));
    let rows = [
        (Engine, Read, topic(Topic::Commands), "takes commands, and commits how far it has come"),
        (Engine, Read, topic(Topic::Postings), "takes what other partitions have sent"),
        (Engine, Read, topic(Topic::Journal), "restores the state"),
        (Engine, Read, Resource::Group(prefix.to_owned()), "shares the partitions with the other processes"),
        (Engine, Read, Resource::Group(addresses_group(prefix)), "says where it is asked, and reads where the others are"),
        (Engine, Write, topic(Topic::Events), "tells what has happened"),
        (Engine, Write, topic(Topic::Postings), "sends to other partitions"),
        (Engine, Write, topic(Topic::Journal), "keeps the state"),
        (Engine, Write, topic(Topic::Dlq), "puts aside what it cannot understand"),
        (Engine, DescribeConfigs, topic(Topic::Commands), "sees that commands wait for it, with the broker's time"),
        (Engine, DescribeConfigs, topic(Topic::Postings), "sees that what is sent stays until it is applied"),
        (Engine, DescribeConfigs, topic(Topic::Events), "sees that events stay for those who read them"),
        (Engine, DescribeConfigs, topic(Topic::Journal), "sees that the state stays"),
        (Engine, DescribeConfigs, topic(Topic::Dlq), "sees that dead letters stay for who repairs them"),
        (Engine, Write, Resource::TransactionalIds(format!("{prefix}-")), "commits each epoch as one transaction, a lane an id"),
        (Trimmer, Delete, topic(Topic::Postings), "trims what is applied"),
        (Trimmer, Delete, topic(Topic::Journal), "trims what is below the snapshots"),
        (Gateway, Read, topic(Topic::Events), "shows what has happened"),
        (Gateway, Read, topic(Topic::Dlq), "lists dead letters, and sees which commands have become one"),
        (Gateway, Write, topic(Topic::Commands), "sends commands for people, and dead letters again, of any tenant"),
        (Successor, Describe, topic(Topic::Commands), "sees that commands come which nobody carries out any more"),
        (Successor, Describe, topic(Topic::Journal), "sees that somebody goes on there"),
        (Producer, Write, topic(Topic::Commands), "sends commands, of any tenant"),
        (Consumer, Read, topic(Topic::Events), "reads what has happened"),
        (Consumer, Read, Resource::Group(group.to_owned()), "remembers how far it has come"),
    ];
    let right = |(role, operation, resource, purpose)| Right { role, operation, resource, purpose };
    rows.into_iter().map(right).collect()
}

impl Right {
    /// Whether nobody can do the part's work without it. Who may not see the settings of topics works all the same, and says so.
    pub(super) fn is_indispensable(&self) -> bool {
        self.operation != Operation::DescribeConfigs
    }
}

impl Operation {
    /// Kafka's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Operation::Read => "Read",
            Operation::Write => "Write",
            Operation::Delete => "Delete",
            Operation::Describe => "Describe",
            Operation::DescribeConfigs => "DescribeConfigs",
        }
    }
}

impl Resource {
    /// Its name, or what its name begins with.
    pub fn name(&self) -> &str {
        match self {
            Resource::Topic(name) | Resource::Group(name) | Resource::TransactionalIds(name) => name,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Topic(name) => write!(f, "topic {name}"),
            Resource::Group(name) => write!(f, "group {name}"),
            Resource::TransactionalIds(start) => write!(f, "transactional ids {start}*"),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.operation.word(), self.resource)
    }
}
