//! DestinationRules: what they say of the connections to a service, apart from TLS ([`encryption`](super::encryption)).
//!
//! Which rule holds for whom is Istio's: one of the client's namespace, else one of the service's namespace as far as its
//! `exportTo` goes, else one of the root namespace. Of one namespace the rule with the most specific host holds, of several with
//! the same host the oldest. Rules are never merged, and a port with settings of its own inherits none.

mod balancing;
mod budget;
mod constraint;
mod outliers;
mod pool;
mod reading;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::by_host::{self, ByHost};
use super::{Context, is_of_other_revision};
use crate::base::{ObjectKey, Str};
use crate::model;
use crate::source::objects::{DestinationRule, DestinationRuleSpec, Kind, created};
use crate::source::{Condition, ConditionReason, ConditionType};
use crate::traffic::{Destination, Policy, Ports, RetryBudget, Traffic};
use constraint::Constraints;
pub(super) use constraint::Targets;
use reading::Reading;

const SUBSETS: &str = "are not carried out: no route leads to a subset, and their policies have no effect. Use a Service for each \
                       version, and an HTTPRoute with weights";
const SELECTOR: &str = "is not carried out: the rule holds for no client. Remove it, so that the rule holds for all clients of the \
                        namespace";

/// Every rule that says something, to be looked up by service.
#[derive(Default, PartialEq)]
pub(super) struct Rules {
    root_namespace: Str,
    rules: ByHost<Rule>,
    /// Budgets of retries from XBackendTrafficPolicies, where the rule that holds has none.
    constraints: Constraints,
}

#[derive(PartialEq)]
struct Rule {
    /// Namespaces of clients that may see it; `None`: all.
    exported: Option<Vec<Str>>,
    said: Said,
}

/// What one rule says.
#[derive(Clone, Debug, Default, PartialEq)]
struct Said {
    /// For the ports that `ports` does not name.
    rest: Policy,
    ports: BTreeMap<u16, Policy>,
}

impl Rules {
    pub(super) fn collect(cx: &mut Context<'_>) -> Self {
        let mut all =
            Self { root_namespace: cx.settings.root_namespace.clone(), ..Self::default() };
        all.constraints = Constraints::collect(cx);
        let mut known: HashMap<(Str, String), ObjectKey> = HashMap::new();
        let objects = cx.objects;
        let mut rules: Vec<_> = objects.all::<DestinationRule>().collect();
        rules.sort_by_key(|(key, rule)| (created(&rule.metadata), *key));
        for (key, rule) in rules {
            if is_of_other_revision(cx.settings, rule) {
                continue;
            }
            match rule.read() {
                Ok(spec) => all.add(cx, &mut known, key, &spec),
                Err(error) => {
                    let reason = format!(
                        "{}; nothing of the rule is in force, but what it wants encrypted stays refused",
                        error.reason
                    );
                    let (kind, invalid) = (ConditionType::Accepted, ConditionReason::Invalid);
                    let condition = Condition::of(kind, invalid);
                    cx.error_of(Kind::DestinationRule, key, error.field, reason, condition);
                }
            }
        }
        all
    }

    fn add(
        &mut self,
        cx: &mut Context<'_>,
        known: &mut HashMap<(Str, String), ObjectKey>,
        key: &ObjectKey,
        spec: &DestinationRuleSpec,
    ) {
        if !spec.subsets.is_empty() {
            cx.warn::<DestinationRule>(key, "spec.subsets", SUBSETS);
        }
        let Some(policy) = &spec.traffic_policy else { return };
        let said = Reading::new(cx, key).policies(policy);
        if said.says_nothing() {
            return;
        }
        let selector = spec.workload_selector.as_ref();
        if selector.is_some_and(|selector| !selector.match_labels.is_empty()) {
            cx.warn::<DestinationRule>(key, "spec.workloadSelector", SELECTOR);
            return;
        }
        let host = by_host::full_host(cx, key, &spec.host);
        if let Some(older) = known.get(&(key.namespace.clone(), host.clone())) {
            let reason = format!(
                "{older}, which is older (of equally old ones the first by name), has the same host and holds; this rule's \
                 trafficPolicy has no effect"
            );
            cx.warn::<DestinationRule>(key, "", reason);
            return;
        }
        let exported = by_host::exported(key, spec.export_to.iter().map(String::as_str));
        self.rules.add(&host, &key.namespace, Rule { exported, said });
        known.insert((key.namespace.clone(), host), key.clone());
    }

    /// What holds for the clients of a service.
    pub(super) fn of(&self, service: &model::Service) -> Traffic {
        let budget = self.constraints.of(service);
        let mut traffic = Traffic::default();
        if let Some(budget) = budget {
            traffic.set(None, ports(service, |_| None, Some(budget)));
        }
        if self.rules.is_empty() {
            return traffic;
        }
        let by_namespace = self.rules.most_specific(&service.hostname);
        let rule = |namespace: &Str| by_namespace.get(namespace).and_then(|it| it.first().copied());
        let (root, own) = (rule(&self.root_namespace), rule(&service.key.namespace));
        // From the widest to the nearest: later ones replace earlier ones.
        for rule in [root, own].into_iter().flatten() {
            match &rule.exported {
                None => {
                    traffic = Traffic::default();
                    traffic.set(None, rule.ports(service, budget));
                }
                Some(clients) => {
                    clients
                        .iter()
                        .for_each(|it| traffic.set(Some(it.clone()), rule.ports(service, budget)));
                }
            }
        }
        for (namespace, rules) in &by_namespace {
            let Some(rule) = rules.first().filter(|rule| rule.is_for(namespace)) else { continue };
            // What is said for the whole mesh is no matter of the root namespace's own clients.
            let is_wide = **namespace == self.root_namespace && rule.exported.is_none();
            if !is_wide && **namespace != service.key.namespace {
                traffic.set(Some((*namespace).clone()), rule.ports(service, budget));
            }
        }
        traffic
    }
}

impl Rule {
    /// Whether clients of the namespace see it.
    fn is_for(&self, namespace: &str) -> bool {
        let exported = self.exported.as_ref();
        exported.is_none_or(|exported| exported.iter().any(|it| it == namespace))
    }

    fn ports(&self, service: &model::Service, budget: Option<&RetryBudget>) -> Ports {
        ports(service, |port| Some(self.said.on(port)), budget)
    }
}

/// The destinations of the ports for which something is said. `budget` holds where the policy of a port has none.
fn ports<'a>(
    service: &model::Service,
    said: impl Fn(u16) -> Option<&'a Policy>,
    budget: Option<&RetryBudget>,
) -> Ports {
    let with_budget = |port: u16| {
        let mut policy = said(port).cloned().unwrap_or_default();
        if let (None, Some(budget)) = (&policy.budget, budget) {
            policy.budget = Some(Box::new(budget.clone()));
        }
        policy
    };
    let policies = service.ports.iter().map(|port| (port.port, with_budget(port.port)));
    let policies = policies.filter(|(_, policy)| !policy.says_nothing());
    let name = |port: u16| Str::from(format!("{service}, port {port}"));
    policies.map(|(port, policy)| (port, Arc::new(Destination::new(name(port), policy)))).collect()
}

impl Said {
    /// A budget of retries for every port.
    fn budget(&mut self, budget: &RetryBudget, by: Str) {
        for policy in self.ports.values_mut().chain([&mut self.rest]) {
            policy.budget = Some(Box::new(budget.clone()));
            policy.by = by.clone();
        }
    }

    fn on(&self, port: u16) -> &Policy {
        self.ports.get(&port).unwrap_or(&self.rest)
    }

    fn says_nothing(&self) -> bool {
        self.rest.says_nothing() && self.ports.values().all(Policy::says_nothing)
    }
}

/// For messages.
fn described(key: &ObjectKey) -> Str {
    format!("{} {key}", Kind::DestinationRule).into()
}
