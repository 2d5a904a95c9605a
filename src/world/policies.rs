//! Policies sorted for evaluation.

use std::sync::Arc;

use crate::model::{Action, AuthorizationPolicy, Condition, ConditionKey, Operation, Rule};

/// The policies that apply to one workload, or to one service or waypoint, by action.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    pub deny: Vec<Arc<AuthorizationPolicy>>,
    pub allow: Vec<Arc<AuthorizationPolicy>>,
    pub audit: Vec<Arc<AuthorizationPolicy>>,
    /// Policies that could not be understood; each denies everything.
    pub broken: Vec<Arc<AuthorizationPolicy>>,
    /// Some rule looks at HTTP: requests must be parsed.
    pub needs_http: bool,
}

impl PolicySet {
    pub fn is_empty(&self) -> bool {
        self.deny.is_empty()
            && self.allow.is_empty()
            && self.audit.is_empty()
            && self.broken.is_empty()
    }

    pub(super) fn add(&mut self, policy: &Arc<AuthorizationPolicy>) {
        if policy.broken.is_some() {
            self.broken.push(policy.clone());
            return;
        }
        self.needs_http |= policy.rules.iter().any(looks_at_http);
        match policy.action {
            Action::Deny => self.deny.push(policy.clone()),
            Action::Allow => self.allow.push(policy.clone()),
            Action::Audit => self.audit.push(policy.clone()),
        }
    }

    pub(super) fn extend(&mut self, other: &PolicySet) {
        self.deny.extend(other.deny.iter().cloned());
        self.allow.extend(other.allow.iter().cloned());
        self.audit.extend(other.audit.iter().cloned());
        self.broken.extend(other.broken.iter().cloned());
        self.needs_http |= other.needs_http;
    }
}

fn looks_at_http(rule: &Rule) -> bool {
    rule.to.iter().any(operation_looks_at_http)
        || rule.when.iter().any(|condition| {
            matches!(condition, Condition::Text { key: ConditionKey::Header(_), .. })
        })
}

fn operation_looks_at_http(operation: &Operation) -> bool {
    !(operation.hosts.is_empty() && operation.methods.is_empty() && operation.paths.is_empty())
}
