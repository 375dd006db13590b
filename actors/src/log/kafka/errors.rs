//! What an error of the client library means to whoever asked: a right is missing, a setting is wrong, somebody has to mend something, or
//! brokers are waited for.

use finflow_topologies::log::Error;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};

/// The command that helps, said where rights are missing.
const HELP: &str = "`finflow topics acls` prints the commands that grant each role what it needs";

/// What an error of the client library means. A property is named without its value, which may be a secret.
pub(super) fn unavailable(error: KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, _, name, _) => {
            Error::Refused(format!("the Kafka property {name} is unknown or has a wrong value"))
        }
        KafkaError::ClientCreation(cause) => Error::Refused(format!("the Kafka properties do not go together: {cause}")),
        error if is_unauthorized(&error) => Error::Forbidden(format!("{error}; {HELP}")),
        error => match code(&error) {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                Error::Forbidden(error.to_string())
            }
            Some(RDKafkaErrorCode::SSL | RDKafkaErrorCode::UnknownTopic) => Error::Lasting(error.to_string()),
            _ => Error::Unavailable(error.to_string()),
        },
    }
}

/// The code of an error. The crate keeps that of an administrative request to itself.
pub(super) fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

/// What somebody is told who lacks a right, as a role has it.
pub(super) fn forbidden(right: &str) -> Error {
    Error::Forbidden(format!("not authorized: {right}; {HELP}"))
}

/// The same of a right that no role has.
pub(super) fn administrators(right: &str) -> Error {
    Error::Forbidden(format!("not authorized: {right}; it is an administrator's"))
}

/// What an error means to somebody who needs this right.
pub(super) fn explained(error: KafkaError, right: impl FnOnce() -> String) -> Error {
    if is_unauthorized(&error) { forbidden(&right()) } else { unavailable(error) }
}

/// Whether an error says that a right is missing.
pub(super) fn is_unauthorized(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        ClusterAuthorizationFailed, GroupAuthorizationFailed, TopicAuthorizationFailed, TransactionalIdAuthorizationFailed,
    };
    matches!(
        code(error),
        Some(
            ClusterAuthorizationFailed | GroupAuthorizationFailed | TopicAuthorizationFailed | TransactionalIdAuthorizationFailed
        )
    )
}

/// Whether the brokers hide a topic from the process.
pub(super) fn hides(topic: &MetadataTopic) -> bool {
    topic.error().is_some_and(|error| RDKafkaErrorCode::from(error) == RDKafkaErrorCode::TopicAuthorizationFailed)
}

/// A topic as the brokers tell of it, if there is one; [`Error::Forbidden`] where they hide it.
pub(super) fn shown<'a>(metadata: &'a Metadata, name: &str) -> Result<Option<&'a MetadataTopic>, Error> {
    match metadata.topics().iter().find(|found| found.name() == name) {
        Some(found) if hides(found) => Err(forbidden(&format!("Describe on topic {name}"))),
        found => Ok(found.filter(|found| found.error().is_none())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Kind = fn(String) -> Error;

    #[test]
    fn an_error_says_by_its_code_whether_it_may_pass_and_who_can_mend_it() {
        use RDKafkaErrorCode::{
            Authentication, BrokerTransportFailure, ClusterAuthorizationFailed, GroupAuthorizationFailed, OperationTimedOut, SSL,
            SaslAuthenticationFailed, TopicAuthorizationFailed, TransactionalIdAuthorizationFailed, UnknownTopic,
            UnknownTopicOrPartition,
        };
        let (forbidden, lasting, unavailable_yet): (Kind, Kind, Kind) = (Error::Forbidden, Error::Lasting, Error::Unavailable);
        // The error, what it is told as, and whether the help for rights is of use.
        let rows = [
            (KafkaError::MessageProduction(TopicAuthorizationFailed), forbidden, true),
            (KafkaError::OffsetFetch(GroupAuthorizationFailed), forbidden, true),
            (KafkaError::Global(TransactionalIdAuthorizationFailed), forbidden, true),
            (KafkaError::AdminOp(ClusterAuthorizationFailed), forbidden, true),
            (KafkaError::AdminOp(TopicAuthorizationFailed), forbidden, true),
            (KafkaError::MetadataFetch(Authentication), forbidden, false),
            (KafkaError::AdminOp(SaslAuthenticationFailed), forbidden, false),
            (KafkaError::MetadataFetch(SSL), lasting, false),
            (KafkaError::MessageProduction(UnknownTopic), lasting, false),
            (KafkaError::AdminOp(OperationTimedOut), unavailable_yet, false),
            (KafkaError::MetadataFetch(BrokerTransportFailure), unavailable_yet, false),
            (KafkaError::MessageProduction(UnknownTopicOrPartition), unavailable_yet, false),
            (KafkaError::Canceled, unavailable_yet, false),
        ];
        for (error, kind, is_helped) in rows {
            let help = if is_helped { format!("; {HELP}") } else { String::new() };
            let told = unavailable(error.clone());
            assert!(told.is_waited_for(), "{told}");
            assert_eq!(told, kind(format!("{error}{help}")));
        }
        assert!(matches!(unavailable(KafkaError::ClientCreation("x".to_owned())), Error::Refused(_)), "a setting stays one");
    }
}
