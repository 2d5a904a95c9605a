//! What a rule looks at, apart from who asks.

use crate::model::{Condition, ConditionKey, Operation, Rule};

/// Some field can only be compared with a request of HTTP.
pub fn looks_at_http(rule: &Rule) -> bool {
    rule.to.iter().any(operation_looks_at_http)
        || rule.when.iter().any(|condition| {
            matches!(
                condition,
                Condition::Text { key: ConditionKey::Header(_) | ConditionKey::Token(_), .. }
                    | Condition::Token(_)
            )
        })
        || rule.from.iter().any(|source| !source.request_principals.is_empty())
}

/// The same of one operation.
pub fn operation_looks_at_http(operation: &Operation) -> bool {
    !(operation.hosts.is_empty() && operation.methods.is_empty() && operation.paths.is_empty())
}

/// Some condition is about the server that the client asks for in TLS.
pub(super) fn looks_at_server_name(rule: &Rule) -> bool {
    rule.when
        .iter()
        .any(|condition| matches!(condition, Condition::Text { key: ConditionKey::ServerName, .. }))
}

/// Some field is compared with the port or the address of the destination.
pub fn looks_at_destination(rule: &Rule) -> bool {
    rule.to.iter().any(|operation| !operation.ports.is_empty())
        || rule.when.iter().any(|condition| {
            matches!(condition, Condition::DestinationPort(_) | Condition::DestinationIp(_))
        })
}
