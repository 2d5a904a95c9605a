//! DestinationRules: what they say of the connections to a service, apart from TLS ([`encryption`](super::encryption)).
//!
//! Which rule holds for whom is Istio's: one of the client's namespace, else one of the service's namespace as far as its
//! `exportTo` goes, else one of the root namespace. Of one namespace the rule with the most specific host holds, of several with
//! the same host the oldest; only the subsets of these are merged, and a port with settings of its own inherits none. Only
//! MeshConfig's [`Baseline`] holds below them all.

mod balancing;
mod baseline;
mod outliers;
mod pool;
mod reading;
mod subsets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::by_host::{self, ByHost};
use super::{Context, is_of_other_revision};
use crate::base::{ObjectKey, Str};
use crate::model;
use crate::source::objects::{
    ConfigMap, DestinationRule, DestinationRuleSpec, Kind, MeshConfig, created,
};
use crate::source::{Condition, ConditionReason, ConditionType};
use crate::traffic::{Destination, Policy, Ports, Traffic};
use baseline::Baseline;
use reading::Reading;
pub(super) use subsets::Selections;
use subsets::SubsetSaid;

/// The field of a rule's policy.
const WITHIN: &str = "spec.trafficPolicy";
const SELECTOR: &str = "is not carried out: the rule holds for no client. Remove it, so that the rule holds for all clients of the \
                        namespace";

/// Every rule that says something, to be looked up by service.
#[derive(Default, PartialEq)]
pub(super) struct Rules {
    root_namespace: Str,
    /// What holds for services without a rule.
    without: Said,
    rules: ByHost<Rule>,
    /// Some rule has subsets.
    has_subsets: bool,
}

/// A rule by its namespace and host, with its key.
type Known = BTreeMap<(Str, String), (ObjectKey, Rule)>;

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
    subsets: Vec<SubsetSaid>,
}

/// What MeshConfig says below all rules. Nothing of a section with a mistake is in force.
fn baseline(cx: &mut Context<'_>) -> Baseline {
    const FIELD: &str = "data.mesh, defaultTrafficPolicy";
    let key = cx.mesh_config_key();
    let written = match cx.mesh_config().and_then(MeshConfig::default_traffic_policy) {
        None => return Baseline::default(),
        Some(Ok(written)) => written,
        Some(Err(error)) => {
            let within = if error.field.is_empty() { "" } else { "." };
            let field = format!("{FIELD}{within}{}", error.field);
            let reason = format!("{}; nothing of the policy is in force", error.reason);
            cx.error::<ConfigMap>(&key, field, reason);
            return Baseline::default();
        }
    };
    let nothing = Baseline::default();
    let mut reading = Reading::new(cx, (Kind::ConfigMap, &key), &nothing);
    let (outliers, pool) = (written.outlier_detection, written.connection_pool);
    Baseline {
        outliers: outliers
            .and_then(|it| reading.outliers(&format!("{FIELD}.outlierDetection"), &it)),
        limits: pool.and_then(|it| reading.limits(&format!("{FIELD}.connectionPool"), &it)),
    }
}

impl Rules {
    pub(super) fn collect(cx: &mut Context<'_>) -> Self {
        let baseline = baseline(cx);
        let without = Said { rest: baseline.policy(), ..Said::default() };
        let root_namespace = cx.settings.root_namespace.clone();
        let mut all = Self { root_namespace, without, ..Self::default() };
        let mut known = Known::new();
        let objects = cx.objects;
        let mut rules: Vec<_> = objects.all::<DestinationRule>().collect();
        rules.sort_by_key(|(key, rule)| (created(&rule.metadata), *key));
        for (key, rule) in rules {
            if is_of_other_revision(cx.settings, rule) {
                continue;
            }
            match rule.read() {
                Ok(spec) => add(cx, &baseline, &mut known, (key, &spec)),
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
        for ((namespace, host), (_, rule)) in known {
            all.has_subsets |= !rule.said.subsets.is_empty();
            all.rules.add(&host, &namespace, rule);
        }
        all
    }

    /// The labels of the subsets of a host.
    pub(super) fn selections(&self, host: &str) -> Selections<'_> {
        if !self.has_subsets {
            return Selections::default();
        }
        let by_namespace = self.rules.most_specific(host);
        Selections::of(by_namespace.into_values().filter_map(|rules| rules.first().copied()))
    }

    /// What holds for the clients of a service.
    pub(super) fn of(&self, service: &model::Service) -> Traffic {
        let mut traffic = Traffic::default();
        if !self.without.rest.says_nothing() {
            traffic.set(None, self.without.ports(service));
        }
        if self.rules.is_empty() {
            return traffic;
        }
        let by_namespace = self.rules.most_specific(&service.hostname);
        let rule = |namespace: &Str| by_namespace.get(namespace).and_then(|it| it.first().copied());
        let (root, own) = (rule(&self.root_namespace), rule(&service.key.namespace));
        let selections = self.selections(&service.hostname);
        let set = |traffic: &mut Traffic, clients: Option<Str>, rule: &Rule| {
            traffic.set_subsets(clients.clone(), rule.named(service, &selections));
            traffic.set(clients, rule.said.ports(service));
        };
        // From the widest to the nearest: later ones replace earlier ones.
        for rule in [root, own].into_iter().flatten() {
            match &rule.exported {
                None => {
                    traffic = Traffic::default();
                    set(&mut traffic, None, rule);
                }
                Some(clients) => {
                    clients.iter().for_each(|it| set(&mut traffic, Some(it.clone()), rule));
                }
            }
        }
        for (namespace, rules) in &by_namespace {
            let Some(rule) = rules.first().filter(|rule| rule.is_for(namespace)) else { continue };
            // What is said for the whole mesh is no matter of the root namespace's own clients.
            let is_wide = **namespace == self.root_namespace && rule.exported.is_none();
            if !is_wide && **namespace != service.key.namespace {
                set(&mut traffic, Some((*namespace).clone()), rule);
            }
        }
        traffic
    }
}

fn add(
    cx: &mut Context<'_>,
    baseline: &Baseline,
    known: &mut Known,
    (key, spec): (&ObjectKey, &DestinationRuleSpec),
) {
    let mut reading = Reading::new(cx, (Kind::DestinationRule, key), baseline);
    let without = Said { rest: baseline.policy(), ..Said::default() };
    let policy = spec.traffic_policy.as_ref();
    let said = policy.map_or_else(|| without.clone(), |it| reading.policies(WITHIN, it));
    let said = Said { subsets: reading.subsets(&spec.subsets), ..said };
    if said.is_all(&without.rest) && said.subsets.is_empty() {
        return;
    }
    let selector = spec.workload_selector.as_ref();
    if selector.is_some_and(|selector| !selector.match_labels.is_empty()) {
        cx.warn::<DestinationRule>(key, "spec.workloadSelector", SELECTOR);
        return;
    }
    let host = by_host::full_host(cx, key, &spec.host);
    let to = spec.export_to.iter().map(String::as_str);
    let exported = by_host::exported(cx, Kind::DestinationRule, key, to);
    match known.entry((key.namespace.clone(), host)) {
        Entry::Vacant(place) => _ = place.insert((key.clone(), Rule { exported, said })),
        Entry::Occupied(mut older) => {
            join(cx, &without.rest, older.get_mut(), (key, Rule { exported, said }));
        }
    }
}

/// Of several rules of one namespace with the same host the oldest holds. It gets the subsets of the others, if all are for the
/// same clients.
fn join(
    cx: &mut Context<'_>,
    without: &Policy,
    (older, held): &mut (ObjectKey, Rule),
    (key, Rule { exported, said }): (&ObjectKey, Rule),
) {
    let holds = format!(
        "{older}, which is older (of equally old ones the first by name), has the same host and holds"
    );
    if said.subsets.is_empty() || exported != held.exported {
        let what =
            if said.subsets.is_empty() { "trafficPolicy has" } else { "policies and subsets have" };
        let reason = format!("{holds}; this rule's {what} no effect");
        return cx.warn::<DestinationRule>(key, "", reason);
    }
    if !said.is_all(without) {
        if held.said.is_all(without) {
            (held.said.rest, held.said.ports) = (said.rest.clone(), said.ports.clone());
        } else {
            let reason = format!("{holds}; of this rule only the subsets are in force");
            cx.warn::<DestinationRule>(key, "spec.trafficPolicy", reason);
        }
    }
    for name in subsets::merge(&mut held.said, said) {
        let reason =
            format!("{holds}; it has a subset {name:?} itself, so that this one is not in force");
        cx.error::<DestinationRule>(key, "spec.subsets", reason);
    }
}

impl Rule {
    /// Whether clients of the namespace see it.
    fn is_for(&self, namespace: &str) -> bool {
        let exported = self.exported.as_ref();
        exported.is_none_or(|exported| exported.iter().any(|it| it == namespace))
    }
}

impl Said {
    fn on(&self, port: u16) -> &Policy {
        self.ports.get(&port).unwrap_or(&self.rest)
    }

    /// Every port has this policy.
    fn is_all(&self, policy: &Policy) -> bool {
        self.rest == *policy && self.ports.values().all(|it| it == policy)
    }

    fn ports(&self, service: &model::Service) -> Ports {
        let said = service.ports.iter().map(|port| (port.port, self.on(port.port)));
        let policies = said.filter(|(_, policy)| !policy.says_nothing());
        let name = |port: u16| Str::from(format!("{service}, port {port}"));
        policies
            .map(|(port, policy)| (port, Arc::new(Destination::new(name(port), policy.clone()))))
            .collect()
    }
}
