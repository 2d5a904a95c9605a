//! Policies by scope, and the sets that are evaluated.

mod applied;
mod list;

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::{ObjectKey, Str};
pub(super) use applied::Applied;
pub use list::PolicyList;

use crate::model::{
    Action, AuthorizationPolicy, Condition, ConditionKey, Operation, PolicyTarget, Rule, Scope,
    Waypoint, Workload,
};

/// The policies that apply to one workload, or to one service or waypoint, by action.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySet {
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
    pub looks_at_destination: bool,
    /// There are AUDIT or dry-run policies.
    pub has_notes: bool,
}

/// All policies of a mesh, by scope.
#[derive(Default)]
pub(super) struct SortedPolicies<'a> {
    wide: PolicySet,
    by_namespace: HashMap<&'a Str, PolicySet>,
    by_key: HashMap<&'a ObjectKey, &'a Arc<AuthorizationPolicy>>,
    by_target: HashMap<(Str, Target, Str), PolicySet>,
}

/// The kind of a [`PolicyTarget`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Service,
    ServiceEntry,
    Gateway,
    GatewayClass,
}

impl PolicySet {
    pub fn is_empty(&self) -> bool {
        self.deny.is_empty()
            && self.allow.is_empty()
            && self.audit.is_empty()
            && self.authenticate.is_empty()
            && self.broken.is_empty()
    }

    fn add(&mut self, policy: &Arc<AuthorizationPolicy>) {
        if policy.broken.is_some() {
            self.broken.push(policy.clone());
            return;
        }
        self.has_notes |= policy.dry_run || policy.action == Action::Audit;
        self.needs_http |= policy.rules.iter().any(looks_at_http);
        self.looks_at_destination |= policy.rules.iter().any(looks_at_destination);
        match policy.action {
            Action::Deny => self.deny.push(policy.clone()),
            Action::Allow => self.allow.push(policy.clone()),
            Action::Audit => self.audit.push(policy.clone()),
            Action::Authenticate => self.authenticate.push(policy.clone()),
        }
    }

    fn extend(&mut self, other: &PolicySet) {
        self.deny.extend(&other.deny);
        self.allow.extend(&other.allow);
        self.audit.extend(&other.audit);
        self.authenticate.extend(other.authenticate.iter().cloned());
        self.broken.extend(other.broken.iter().cloned());
        self.needs_http |= other.needs_http;
        self.looks_at_destination |= other.looks_at_destination;
        self.has_notes |= other.has_notes;
    }

    /// Sorts what was added, for look-ups.
    pub(super) fn finish(mut self) -> Arc<Self> {
        for list in [&mut self.deny, &mut self.allow, &mut self.audit] {
            list.finish();
        }
        Arc::new(self)
    }
}

impl<'a> SortedPolicies<'a> {
    pub(super) fn of(policies: &'a [Arc<AuthorizationPolicy>]) -> Self {
        let mut sorted = Self::default();
        for policy in policies {
            let namespace = &policy.key.namespace;
            match &policy.scope {
                Scope::Mesh => sorted.wide.add(policy),
                Scope::Namespace => sorted.by_namespace.entry(namespace).or_default().add(policy),
                Scope::Workloads => {
                    sorted.by_key.insert(&policy.key, policy);
                }
                Scope::Targets(targets) => {
                    for target in targets {
                        let (kind, name) = kind_and_name(target);
                        let id = (namespace.clone(), kind, name.clone());
                        sorted.by_target.entry(id).or_default().add(policy);
                    }
                }
            }
        }
        sorted
    }

    /// None of the names stands for a missing policy.
    pub(super) fn knows(&self, names: &[ObjectKey]) -> bool {
        names.iter().all(|name| self.by_key.contains_key(name))
    }

    pub(super) fn of_workload(&self, workload: &Workload) -> PolicySet {
        let mut set = self.of_alike(&workload.key.namespace, &workload.policies);
        for name in workload.policies.iter().filter(|name| !self.by_key.contains_key(name)) {
            set.add(&missing(name, workload));
        }
        set
    }

    /// The known workloads of a namespace that these policies select.
    fn of_alike(&self, namespace: &Str, selecting: &[ObjectKey]) -> PolicySet {
        let mut set = self.wide.clone();
        if let Some(local) = self.by_namespace.get(namespace) {
            set.extend(local);
        }
        selecting.iter().filter_map(|name| self.by_key.get(name)).for_each(|it| set.add(it));
        set
    }

    fn of_target(&self, namespace: &Str, kind: Target, name: &Str) -> Option<&PolicySet> {
        self.by_target.get(&(namespace.clone(), kind, name.clone()))
    }

    /// Only the root namespace may target a class, and only its own namespace a Gateway.
    pub(super) fn of_waypoint(&self, waypoint: &Waypoint, root_namespace: &Str) -> PolicySet {
        let class = self.of_target(root_namespace, Target::GatewayClass, &waypoint.class);
        let own = self.of_target(&waypoint.key.namespace, Target::Gateway, &waypoint.key.name);
        let mut set = PolicySet::default();
        class.into_iter().chain(own).for_each(|found| set.extend(found));
        set
    }
}

/// A policy that a workload lists and that does not exist could be a DENY: it counts as a denial until it is known
/// (ztunnel skips it, which lets traffic past).
fn missing(name: &ObjectKey, workload: &Workload) -> Arc<AuthorizationPolicy> {
    let why = arcstr::format!("it selects workload {} but is not known", workload.key);
    Arc::new(AuthorizationPolicy {
        key: name.clone(),
        action: Action::Deny,
        scope: Scope::Workloads,
        rules: Vec::new(),
        dry_run: false,
        broken: Some(why),
    })
}

fn kind_and_name(target: &PolicyTarget) -> (Target, &Str) {
    match target {
        PolicyTarget::Service(name) => (Target::Service, name),
        PolicyTarget::ServiceEntry(name) => (Target::ServiceEntry, name),
        PolicyTarget::Gateway(name) => (Target::Gateway, name),
        PolicyTarget::GatewayClass(name) => (Target::GatewayClass, name),
    }
}

fn looks_at_http(rule: &Rule) -> bool {
    rule.to.iter().any(operation_looks_at_http)
        || rule.when.iter().any(|condition| {
            matches!(
                condition,
                Condition::Text { key: ConditionKey::Header(_), .. } | Condition::Token(_)
            )
        })
}

fn looks_at_destination(rule: &Rule) -> bool {
    rule.to.iter().any(|operation| !operation.ports.is_empty())
        || rule.when.iter().any(|condition| {
            matches!(condition, Condition::DestinationPort(_) | Condition::DestinationIp(_))
        })
}

fn operation_looks_at_http(operation: &Operation) -> bool {
    !(operation.hosts.is_empty() && operation.methods.is_empty() && operation.paths.is_empty())
}
