//! The policies that are enforced together, sorted by what they do.

use std::sync::Arc;

use super::list::PolicyList;
use super::looks::{looks_at_destination, looks_at_http};
use crate::model::{Action, AuthorizationPolicy};

/// The policies that apply to one workload, or to one service or waypoint, by action. They decide in the order of
/// [`PolicySet::asks`] and [`PolicySet::decide`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySet {
    pub custom: Vec<Arc<AuthorizationPolicy>>,
    pub deny: PolicyList,
    pub allow: PolicyList,
    pub audit: PolicyList,
    /// RequestAuthentications.
    pub authenticate: Vec<Arc<AuthorizationPolicy>>,
    /// Invalid policies; each denies everything.
    pub broken: Vec<Arc<AuthorizationPolicy>>,
    /// Some rule reads HTTP fields: requests must be parsed, even if the rule is not enforced (dry-run, AUDIT).
    pub needs_http: bool,
    /// Some rule reads the port or the address of the destination.
    pub(super) looks_at_destination: bool,
    /// There are AUDIT or dry-run policies.
    pub(super) has_notes: bool,
}

impl PolicySet {
    pub fn is_empty(&self) -> bool {
        self.custom.is_empty()
            && self.deny.is_empty()
            && self.allow.is_empty()
            && self.audit.is_empty()
            && self.authenticate.is_empty()
            && self.broken.is_empty()
    }

    fn add(&mut self, policy: Arc<AuthorizationPolicy>) {
        if policy.action == Action::Custom {
            // A provider is asked about requests, whatever the rules look at.
            self.needs_http |= policy.broken.is_none() && policy.provider.is_some();
            self.looks_at_destination |= policy.rules.iter().any(looks_at_destination);
            self.has_notes |= policy.dry_run;
            return self.custom.push(policy);
        }
        if policy.broken.is_some() {
            return self.broken.push(policy);
        }
        self.has_notes |= policy.dry_run || policy.action == Action::Audit;
        self.needs_http |= policy.rules.iter().any(looks_at_http);
        self.looks_at_destination |= policy.rules.iter().any(looks_at_destination);
        match policy.action {
            Action::Custom => {}
            Action::Deny => self.deny.push(policy),
            Action::Allow => self.allow.push(policy),
            Action::Audit => self.audit.push(policy),
            Action::Authenticate => self.authenticate.push(policy),
        }
    }
}

/// Policies add up: none takes the place of another.
impl FromIterator<Arc<AuthorizationPolicy>> for PolicySet {
    fn from_iter<I: IntoIterator<Item = Arc<AuthorizationPolicy>>>(policies: I) -> Self {
        let mut set = Self::default();
        policies.into_iter().for_each(|policy| set.add(policy));
        for list in [&mut set.deny, &mut set.allow, &mut set.audit] {
            list.finish();
        }
        set
    }
}
