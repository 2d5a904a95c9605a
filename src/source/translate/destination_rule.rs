//! DestinationRules: what they say of the connections to a service, apart from TLS ([`encryption`](super::encryption)).
//!
//! Which rule holds for whom is Istio's: one of the client's namespace, else one of the service's namespace as far as its
//! `exportTo` goes, else one of the root namespace. Of one namespace the rule with the most specific host holds, of several with
//! the same host the oldest; only the subsets of these are merged, and a port with settings of its own inherits none. Only
//! MeshConfig's [`Baseline`] holds below them all.
//!
//! A rule with a `workloadSelector` holds for the clients of its own namespace that it selects, before the rules without one whose host
//! is not more specific. For others it is as if it were not there.

mod balancing;
mod baseline;
mod budget;
mod constraint;
mod labels;
mod locality;
mod outliers;
mod pool;
mod reading;
mod subsets;
#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::by_host::{self, ByHost};
use super::selectors::Selectors;
use super::{Context, is_of_other_revision};
use crate::base::{LabelMap, ObjectKey, Str};
use crate::model::{self, Locality, Resolution};
use crate::source::objects::{
    ConfigMap, DestinationRule, DestinationRuleSpec, Kind, Labels, MeshConfig, RuleTrafficPolicy,
    annotation, created,
};
use crate::source::{Condition, ConditionReason, ConditionType, Topic};
use crate::traffic::{
    Destination, LocalityPolicy, Policy, Ports, RetryBudget, ServicePort, Traffic,
};
use baseline::Baseline;
use constraint::Constraints;
pub(super) use constraint::Targets;
use labels::Compared;
pub(super) use labels::all_of;
use reading::Reading;
use subsets::SubsetSaid;
pub(super) use subsets::{MOST as MOST_SUBSETS, Selections};

/// The field of a rule's policy.
const WITHIN: &str = "spec.trafficPolicy";
/// On a rule: what is used in place of LEAST_REQUEST. No field of Istio's names it.
const LOAD_BALANCER: &str = "isthmus.io/load-balancer";
const PEAK_EWMA: &str = "PEAK_EWMA";
/// Policies that the rules of one namespace may have for one host, those of subsets included. Each costs every endpoint of the service.
const MOST_OF_HOST: usize = 256;
/// The same for all hosts with a star: each costs every service that it covers, which may be all of the mesh.
const MOST_WIDE: usize = 32;

/// Every rule that says something, to be looked up by service.
#[derive(Default, PartialEq)]
pub(super) struct Rules {
    root_namespace: Str,
    /// What holds for services without a rule.
    without: Said,
    rules: ByHost<Rule>,
    /// Budgets of retries from XBackendTrafficPolicies, where the rule that holds has none.
    constraints: Constraints,
    /// Those with a `workloadSelector`, the oldest first.
    selecting: ByHost<SelectingRule>,
    /// By namespace: which of these select a client.
    selectors: BTreeMap<Str, Selectors<Str>>,
    /// What MeshConfig says of localities, and its name.
    mesh: MeshSetting,
    compared: Compared,
    /// Some rule has subsets.
    has_subsets: bool,
}

#[derive(PartialEq)]
struct MeshSetting {
    locality: LocalityPolicy,
    by: Str,
}

impl Default for MeshSetting {
    fn default() -> Self {
        Self { locality: locality::default(), by: Str::default() }
    }
}

#[derive(PartialEq)]
struct SelectingRule {
    name: Str,
    said: Said,
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
        let mut all = Self {
            root_namespace: cx.settings.root_namespace.clone(),
            without: Said { rest: baseline.policy(), ..Said::default() },
            mesh: MeshSetting::read(cx),
            constraints: Constraints::collect(cx),
            ..Self::default()
        };
        let (mut known, mut room) = (Known::default(), Room::default());
        let mut selectors: BTreeMap<Str, Vec<(Labels, Str)>> = BTreeMap::new();
        let objects = cx.objects;
        let mut rules: Vec<_> = objects.all::<DestinationRule>().collect();
        rules.sort_by_key(|(key, rule)| (created(&rule.metadata), *key));
        for (key, rule) in rules {
            if is_of_other_revision(cx.settings, rule) {
                continue;
            }
            match rule.read() {
                Ok(spec) => {
                    let balancer = annotation(&rule.metadata, LOAD_BALANCER);
                    let held = (&mut known, &mut room);
                    let added = all.add(cx, &baseline, held, (key, balancer, &spec));
                    if let Some(selector) = added {
                        let of_namespace = selectors.entry(key.namespace.clone()).or_default();
                        of_namespace.push((selector, key.name.clone()));
                    }
                }
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
        let selectors = selectors.into_iter().map(|(key, list)| (key, list.into_iter().collect()));
        all.selectors = selectors.collect();
        all.take(known);
        let compared = all.compared_labels();
        all.compared = Compared::new(compared, &cx.settings.cluster);
        all
    }

    fn compared_labels(&self) -> BTreeSet<Str> {
        let of_rules = self.rules.values().map(|rule| &rule.said);
        let said = of_rules.chain(self.selecting.values().map(|rule| &rule.said));
        let policies = said.flat_map(Said::policies);
        let settings = policies.filter_map(|policy| policy.locality.as_deref());
        let all = settings.chain([&self.mesh.locality]).flat_map(locality::compared);
        all.cloned().collect()
    }

    /// The labels of a client or an endpoint that rules compare.
    pub(super) fn compared(
        &self,
        labels: Option<&Labels>,
        locality: &Locality,
        node: &Str,
    ) -> LabelMap {
        let label = |name: &str| labels.and_then(|it| it.get(name)).map(String::as_str);
        self.compared.of(label, locality, node)
    }

    /// The rules that select a client, by name.
    pub(super) fn selecting(&self, namespace: &Str, labels: Option<&Labels>) -> Vec<Str> {
        let selectors = self.selectors.get(namespace);
        selectors.map_or_else(Vec::new, |it| it.selecting(labels).into_iter().cloned().collect())
    }

    /// The namespaces whose clients other rules select than `before`; `None`: what is compared of every client changed.
    pub(super) fn differing(&self, before: &Rules) -> Option<BTreeSet<Str>> {
        if self.compared != before.compared {
            return None;
        }
        let namespaces = self.selectors.keys().chain(before.selectors.keys());
        let differs =
            |namespace: &&Str| self.selectors.get(*namespace) != before.selectors.get(*namespace);
        Some(namespaces.filter(differs).cloned().collect())
    }

    /// Gives the selector of a rule that has one and is in force.
    fn add(
        &mut self,
        cx: &mut Context<'_>,
        baseline: &Baseline,
        (known, room): (&mut Known, &mut Room),
        (key, balancer, spec): (&ObjectKey, Option<&str>, &DestinationRuleSpec),
    ) -> Option<Labels> {
        if let Some(other) = balancer.filter(|it| *it != PEAK_EWMA) {
            let reason = format!("{other:?} is not {PEAK_EWMA}; it has no effect");
            let field = format!("metadata.annotations[{LOAD_BALANCER:?}]");
            cx.warn::<DestinationRule>(key, field, reason);
        }
        let is_ewma = balancer == Some(PEAK_EWMA);
        let none = RuleTrafficPolicy::default();
        let policy = spec.traffic_policy.as_ref().or_else(|| is_ewma.then_some(&none));
        let reading = Reading::new(cx, (Kind::DestinationRule, key), baseline);
        let mut reading = reading.by_latency(is_ewma);
        let said = policy.map(|it| reading.policies(WITHIN, it));
        let said = said.unwrap_or_else(|| self.without.clone());
        let said = Said { subsets: reading.subsets(&spec.subsets), ..said };
        if said.is_all(&self.without.rest) && said.subsets.is_empty() {
            return None;
        }
        let host = by_host::full_host(cx, key, &spec.host);
        if !room.take(cx, key, &host, 1 + said.subsets.len()) {
            return None;
        }
        let selector = spec.workload_selector.as_ref().map(|it| it.match_labels.clone());
        let selector = selector.filter(|labels| !labels.is_empty());
        let exported = match &selector {
            Some(_) => {
                if spec.export_to.iter().any(|it| it != ".") {
                    let reason = "has no effect beside workloadSelector: such a rule holds for clients of its own namespace only";
                    cx.warn::<DestinationRule>(key, "spec.exportTo", reason);
                }
                None
            }
            None => {
                let to = spec.export_to.iter().map(String::as_str);
                by_host::exported(cx, Kind::DestinationRule, key, to)
            }
        };
        let age = known.len();
        match known.entry((key.namespace.clone(), host, selector.clone())) {
            Entry::Vacant(place) => {
                place.insert(Held { age, key: key.clone(), rule: Rule { exported, said } });
                selector
            }
            Entry::Occupied(mut older) => {
                join(cx, &self.without.rest, older.get_mut(), (key, Rule { exported, said }));
                None
            }
        }
    }

    /// Takes over what was read, to be looked up by host.
    fn take(&mut self, known: Known) {
        let mut all: Vec<_> = known.into_iter().collect();
        all.sort_by_key(|(_, held)| held.age);
        for ((namespace, host, selector), Held { key, rule, .. }) in all {
            self.has_subsets |= !rule.said.subsets.is_empty();
            if selector.is_none() {
                self.rules.add(&host, &namespace, rule);
                continue;
            }
            let said = rule.said;
            self.selecting.add(&host, &key.namespace, SelectingRule { name: key.name, said });
        }
    }

    /// The labels of the subsets of a host.
    pub(super) fn selections(&self, host: &str) -> Selections<'_> {
        if !self.has_subsets {
            return Selections::default();
        }
        let by_namespace = self.rules.most_specific(host);
        let rules = by_namespace.into_values().filter_map(|rules| rules.first().copied());
        let selecting = self.selecting.matching(host).into_iter().map(|(.., rule)| &rule.said);
        Selections::of(rules.map(|rule| &rule.said).chain(selecting))
    }

    /// Adds what holds for the clients of a service, and what of its endpoints is compared for it.
    pub(super) fn apply(&self, service: &mut model::Service) {
        self.compared.reduce(service);
        service.traffic = self.of(service);
    }

    /// What holds for the clients of a service.
    fn of(&self, service: &model::Service) -> Traffic {
        let has_budget = self.constraints.of(service).is_some();
        let mut traffic = Traffic::default();
        let is_wide = matches!(self.mesh.locality, LocalityPolicy::Distribute(_))
            && service.resolution != Resolution::Dialled;
        if is_wide || has_budget || !self.without.rest.says_nothing() {
            traffic.set(None, self.ports(service, &self.without));
        }
        if self.rules.is_empty() && self.selecting.is_empty() {
            return traffic;
        }
        let by_namespace = self.rules.most_specific(&service.hostname);
        let rule = |namespace: &Str| by_namespace.get(namespace).and_then(|it| it.first().copied());
        let (root, own) = (rule(&self.root_namespace), rule(&service.key.namespace));
        let selections = self.selections(&service.hostname);
        let set = |traffic: &mut Traffic, clients: Option<Str>, rule: &Rule| {
            traffic.set_subsets(clients.clone(), self.subsets(service, &rule.said, &selections));
            traffic.set(clients, self.ports(service, &rule.said));
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
        self.add_selecting(service, &selections, &mut traffic);
        traffic
    }

    /// Adds rules with a selector, those with the most specific host first.
    fn add_selecting(
        &self,
        service: &model::Service,
        selections: &Selections<'_>,
        traffic: &mut Traffic,
    ) {
        if self.selecting.is_empty() {
            return;
        }
        let mut widest: HashMap<&Str, usize> = HashMap::new();
        for (specific, namespace, rule) in self.rules.matching(&service.hostname) {
            if rule.is_for(namespace) {
                let known = widest.entry(namespace).or_default();
                *known = specific.max(*known);
            }
        }
        let mut found = self.selecting.matching(&service.hostname);
        found.retain(|(specific, namespace, _)| {
            widest.get(namespace).is_none_or(|widest| specific >= widest)
        });
        found.sort_by_key(|(specific, ..)| std::cmp::Reverse(*specific));
        for (_, namespace, rule) in found {
            let ports = self.ports(service, &rule.said);
            let subsets = self.subsets(service, &rule.said, selections);
            traffic.set_selected(namespace.clone(), rule.name.clone(), ports, subsets);
        }
    }

    fn ports(&self, service: &model::Service, said: &Said) -> Ports {
        self.destinations(service, None, |port| said.on(port).clone())
    }

    /// The destination of each port that has a policy, of the service or of a subset of it.
    fn destinations(
        &self,
        service: &model::Service,
        subset: Option<&Str>,
        policy: impl Fn(u16) -> Policy,
    ) -> Ports {
        let budget = self.constraints.of(service);
        let policies = service.ports.iter().map(|port| {
            let mut policy = policy(port.port);
            locality::settle(&mut policy, service, &self.mesh.locality);
            if let (None, Some(budget)) = (&policy.budget, budget) {
                policy.budget = Some(Box::new(budget.clone()));
            }
            if policy.by.is_empty() && policy.locality.is_some() {
                policy.by = self.mesh.by.clone();
            }
            (port.port, policy)
        });
        let policies = policies.filter(|(_, policy)| !policy.says_nothing());
        let destination = |(port, policy): (u16, Policy)| {
            let of_subset = subset.map(|name| format!(", subset {name}")).unwrap_or_default();
            let name = Str::from(format!("{service}, port {port}{of_subset}"));
            let namespace = service.key.namespace.clone();
            let of = ServicePort { namespace, service: service.key.name.clone(), port };
            (port, Arc::new(Destination::of(name, &of, policy)))
        };
        policies.map(destination).collect()
    }
}

/// Which rule of a namespace, for a host and with a selector, came first.
type Known = BTreeMap<(Str, String, Option<Labels>), Held>;

/// How many policies the rules of a namespace have for a host, and for hosts with a star.
#[derive(Default)]
struct Room(HashMap<(Str, Str), usize>);

impl Room {
    /// `false` where there is no room for so many more, which is told.
    fn take(&mut self, cx: &mut Context<'_>, key: &ObjectKey, host: &str, count: usize) -> bool {
        let is_wide = host.starts_with('*');
        let (of, most) = match is_wide {
            true => ("*", MOST_WIDE),
            false => (host, MOST_OF_HOST),
        };
        let taken = self.0.entry((key.namespace.clone(), of.into())).or_default();
        if *taken + count > most {
            let hosts = if is_wide { "hosts with a star" } else { "this host" };
            let reason = format!(
                "the rules of {} that are older have {taken} policies for {hosts}, subsets included, and {most} is the most: \
                 nothing of this rule is in force, but what it wants encrypted stays so",
                key.namespace
            );
            cx.error::<DestinationRule>(key, "spec.host", reason);
            return false;
        }
        *taken += count;
        true
    }
}

/// One that holds.
struct Held {
    /// How many came before it.
    age: usize,
    key: ObjectKey,
    rule: Rule,
}

/// Of several rules of one namespace with the same host and selector the oldest holds. It gets the subsets of the others, if all are
/// for the same clients.
fn join(
    cx: &mut Context<'_>,
    without: &Policy,
    Held { key: older, rule: held, .. }: &mut Held,
    (key, Rule { exported, said }): (&ObjectKey, Rule),
) {
    let holds = format!(
        "{older}, which is older (of equally old ones the first by name), has the same host and holds"
    );
    if said.subsets.is_empty() || exported != held.exported {
        let what =
            if said.subsets.is_empty() { "trafficPolicy has" } else { "policies and subsets have" };
        let reason = format!("{holds}; this rule's {what} no effect");
        cx.warn::<DestinationRule>(key, "", reason);
        return cx.about(Topic::Outdone);
    }
    if !said.is_all(without) {
        if held.said.is_all(without) {
            (held.said.rest, held.said.ports) = (said.rest.clone(), said.ports.clone());
        } else {
            let reason = format!("{holds}; of this rule only the subsets are in force");
            cx.warn::<DestinationRule>(key, "spec.trafficPolicy", reason);
            cx.about(Topic::Outdone);
        }
    }
    for name in subsets::merge(&mut held.said, said) {
        let reason =
            format!("{holds}; it has a subset {name:?} itself, so that this one is not in force");
        cx.error::<DestinationRule>(key, "spec.subsets", reason);
        cx.about(Topic::Outdone);
    }
}

impl MeshSetting {
    fn read(cx: &mut Context<'_>) -> Self {
        let written = cx.mesh_config().and_then(|mesh| mesh.locality_lb_setting.clone());
        let key = cx.mesh_config_key();
        let by = format!("ConfigMap {key}").into();
        let Some(written) = written else { return Self { by, ..Self::default() } };
        let mut faults = Vec::new();
        let locality = locality::read(&written, &mut faults);
        for (field, reason) in faults {
            cx.error::<ConfigMap>(&key, format!("data.mesh, localityLbSetting.{field}"), reason);
        }
        Self { locality, by }
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
    /// A budget of retries for every port.
    fn budget(&mut self, budget: &RetryBudget) {
        for policy in self.ports.values_mut().chain([&mut self.rest]) {
            policy.budget = Some(Box::new(budget.clone()));
        }
    }

    /// Those of its subsets among them.
    fn policies(&self) -> impl Iterator<Item = &Policy> {
        let own = std::iter::once(&self.rest).chain(self.ports.values());
        own.chain(self.subsets.iter().flat_map(SubsetSaid::policies))
    }

    fn on(&self, port: u16) -> &Policy {
        self.ports.get(&port).unwrap_or(&self.rest)
    }

    /// Every port has this policy.
    fn is_all(&self, policy: &Policy) -> bool {
        self.rest == *policy && self.ports.values().all(|it| it == policy)
    }
}
