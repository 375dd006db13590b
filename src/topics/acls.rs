//! `finflow topics acls`: the least privilege of each part of an application, as commands for Kafka's own tool. Asks no cluster.

use finflow_actors::log::kafka::rights::{Operation, Resource, Right, Role, rights};
use serde_json::json;

use crate::access::configuration;
use crate::cli::{Acls, Common, Format, Part};
use crate::failure::Failure;
use crate::output::{print, text};

/// Prints the rights of one principal.
pub(super) fn acls(common: &Common, options: &Acls) -> Result<(), Failure> {
    let config = configuration(common)?;
    let role = role(options.role);
    let group = options.group.clone().unwrap_or_else(|| format!("{}-consumer", config.topics.prefix));
    let rights: Vec<Right> = rights(&config.topics.prefix, &group).into_iter().filter(|right| right.role == role).collect();
    let begin = begin(&config.kafka.brokers, options);
    if common.format == Format::Json {
        for right in &rights {
            print(common, &shown(right, &format!("{begin}{}", words(&[right])), options))?;
        }
        return Ok(());
    }
    let mut lines = String::new();
    if matches!(role, Role::Gateway | Role::Producer) {
        lines.push_str("# Whoever may write to the command topic is trusted with every tenant.\n");
    }
    for together in together(&rights) {
        for right in &together {
            lines.push_str(&format!("# {right}: {}\n", right.purpose));
        }
        lines.push_str(&format!("{begin}{}\n", words(&together)));
    }
    text(&lines)
}

fn role(part: Part) -> Role {
    match part {
        Part::Engine => Role::Engine,
        Part::Trimmer => Role::Trimmer,
        Part::Gateway => Role::Gateway,
        Part::Successor => Role::Successor,
        Part::Producer => Role::Producer,
        Part::Consumer => Role::Consumer,
    }
}

fn begin(brokers: &str, options: &Acls) -> String {
    let config = options.command_config.as_ref().map(|file| format!(" --command-config '{file}'")).unwrap_or_default();
    format!("kafka-acls --bootstrap-server {brokers}{config} --add --allow-principal '{}'", options.principal)
}

/// Rights that one command can grant: the same operation, on resources that are named alike.
fn together(rights: &[Right]) -> Vec<Vec<&Right>> {
    let mut groups: Vec<Vec<&Right>> = Vec::new();
    for right in rights {
        let key = |right: &Right| (right.operation, pattern(&right.resource));
        match groups.iter_mut().find(|group| group.first().is_some_and(|first| key(first) == key(right))) {
            Some(group) => group.push(right),
            None => groups.push(vec![right]),
        }
    }
    groups
}

fn pattern(resource: &Resource) -> &'static str {
    match resource {
        Resource::Topic(_) | Resource::Group(_) => "literal",
        Resource::TransactionalIds(_) => "prefixed",
    }
}

/// The words of a command that grants these rights, which have operation and pattern in common.
fn words(rights: &[&Right]) -> String {
    let Some(first) = rights.first() else { return String::new() };
    let mut words = format!(" --operation {}", first.operation.word());
    if pattern(&first.resource) == "prefixed" {
        words.push_str(" --resource-pattern-type prefixed");
    }
    for right in rights {
        words.push_str(&format!(" {} {}", option(&right.resource), right.resource.name()));
    }
    words
}

fn option(resource: &Resource) -> &'static str {
    match resource {
        Resource::Topic(_) => "--topic",
        Resource::Group(_) => "--group",
        Resource::TransactionalIds(_) => "--transactional-id",
    }
}

fn shown(right: &Right, command: &str, options: &Acls) -> serde_json::Value {
    let kind = match right.resource {
        Resource::Topic(_) => "topic",
        Resource::Group(_) => "group",
        Resource::TransactionalIds(_) => "transactional_id",
    };
    let operation = match right.operation {
        Operation::Read => "read",
        Operation::Write => "write",
        Operation::Delete => "delete",
        Operation::Describe => "describe",
        Operation::DescribeConfigs => "describe_configs",
    };
    json!({
        "principal": options.principal,
        "operation": operation,
        "resource": kind,
        "name": right.resource.name(),
        "pattern": pattern(&right.resource),
        "purpose": right.purpose,
        "command": command,
    })
}
