//! What DestinationRules and BackendTLSPolicies say of the encryption of connections ([`model::Encryption`]). What they want
//! encrypted and cannot be is refused by the data path, and never goes out in the clear.
//!
//! Whose word counts for whom, the nearest first: DestinationRules of the client's namespace, those of the service's own namespace as
//! far as `exportTo` goes, and for clients who see none for the host there, those of the root namespace; then BackendTLSPolicies, which
//! stand in the service's namespace, those for one port (`sectionName`) before others. Of one namespace the rules with the most specific
//! host count, the oldest first. A rule that says nothing of TLS leaves it to the next; one that says DISABLE does not.
//!
//! A rule with a `workloadSelector` takes TLS from nobody: TLS that it asks for is refused for all clients of its namespace, and
//! otherwise it counts as if it were not there.

mod policy;
mod settings;
mod targets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::by_host::{self, ByHost};
use super::destination_rule::MOST_SUBSETS;
use super::{Context, is_of_other_revision};
use crate::base::{ObjectKey, Str};
use crate::model::{self, Demand, Encryption, SubsetWish, Wish};
use crate::source::objects::{BackendTlsPolicy, DestinationRule, Kind, Typed, created};
use crate::source::{Condition, ConditionReason, ConditionType, Severity, Topic};
use crate::tls::{Origin, Roots, SubjectName, TlsSettings};
use policy::Policies;
pub(super) use targets::check as check_targets;

/// Everything that is said, to be looked up by service.
#[derive(Default, PartialEq)]
pub(super) struct Encryptions {
    root_namespace: Str,
    rules: ByHost<DestinationTls>,
    policies: Policies,
}

/// What one DestinationRule says of TLS, which may be nothing.
#[derive(PartialEq)]
struct DestinationTls {
    wish: Arc<Wish>,
    /// Namespaces of clients that may see it; `None`: all.
    exported: Option<Vec<Str>>,
}

impl Encryptions {
    pub(super) fn collect(cx: &mut Context<'_>) -> Self {
        let root_namespace = cx.settings.root_namespace.clone();
        let mut all = Self { root_namespace, ..Self::default() };
        let objects = cx.objects;
        let mut rules: Vec<_> = objects.all::<DestinationRule>().collect();
        rules.sort_by_key(|(key, rule)| (created(&rule.metadata), *key));
        for (key, rule) in rules {
            if !is_of_other_revision(cx.settings, rule) {
                all.add_rule(cx, key, rule);
            }
        }
        let mut policies: Vec<_> = objects.all::<BackendTlsPolicy>().collect();
        policies.sort_by_key(|(key, policy)| (created(&policy.metadata), *key));
        for (key, policy) in policies {
            if !is_of_other_revision(cx.settings, policy) {
                all.policies.add(cx, key, &policy.spec);
            }
        }
        all
    }

    fn add_rule(&mut self, cx: &mut Context<'_>, key: &ObjectKey, rule: &DestinationRule) {
        let spec = &rule.spec;
        let mut wish = wish_of(cx, key, spec);
        if rule.read().is_err() {
            refuse(&mut wish, "the rule cannot be read");
        }
        let selects = spec.get("workloadSelector").is_some_and(|it| !it.is_null());
        if selects {
            refuse(&mut wish, "the rule has a workloadSelector");
            ignore_plaintext(cx, key, &mut wish);
        }
        if wish.is_anything() {
            complain(cx, key, &wish);
        } else if selects {
            return;
        }
        let Some(host) = spec.get("host").and_then(Value::as_str) else { return };
        let to = spec.get("exportTo").and_then(Value::as_array).into_iter().flatten();
        let to = to.filter_map(Value::as_str);
        let exported = match selects {
            true => Some(vec![key.namespace.clone()]),
            false => by_host::exported(cx, Kind::DestinationRule, key, to),
        };
        let host = by_host::full_host(cx, key, host);
        self.rules.add(&host, &key.namespace, DestinationTls { wish: Arc::new(wish), exported });
    }

    /// What is said of connections to a service. `names`: those that its ServiceEntry says that its servers have.
    pub(super) fn of(&self, service: &model::Service, names: &[String]) -> Encryption {
        let mut encryption = Encryption::default();
        if self.rules.is_empty() && self.policies.is_empty() {
            return encryption;
        }
        let namespace = &service.key.namespace;
        let by_namespace = self.rules.most_specific(&service.hostname);
        // The nearest first: what clients' own namespaces say, then what is said for others. What the root namespace says for the
        // whole mesh is no nearer to its own clients.
        for (of, rules) in by_namespace.iter().filter(|(of, _)| **of != namespace) {
            let is_near =
                |rule: &DestinationTls| **of != self.root_namespace || rule.exported.is_some();
            let rules = rules.iter().filter(|rule| is_near(rule));
            for rule in rules.filter(|rule| rule.wish.is_anything()) {
                encryption.add(Some(of), with_names(&rule.wish, names));
            }
        }
        let none = Vec::new();
        let own = by_namespace.get(namespace).unwrap_or(&none);
        add_exported(&mut encryption, own, names, &[]);
        // Whoever sees a rule of the service's namespace is told nothing by the root namespace's.
        let seen = own.iter().map(|rule| rule.exported.clone()).collect::<Option<Vec<_>>>();
        if let Some(seen) = seen.filter(|_| self.root_namespace != *namespace) {
            let root = by_namespace.get(&self.root_namespace).unwrap_or(&none);
            add_exported(&mut encryption, root, names, &seen.concat());
        }
        for wish in self.policies.of(service) {
            encryption.add(None, Arc::new(wish));
        }
        encryption
    }
}

/// Adds the rules of the service's or the root namespace, for clients who see them, but those of some namespaces.
fn add_exported(
    encryption: &mut Encryption,
    rules: &[&DestinationTls],
    names: &[String],
    except: &[Str],
) {
    for rule in rules.iter().filter(|rule| rule.wish.is_anything()) {
        let wish = with_names(&rule.wish, names);
        match &rule.exported {
            None => encryption.add_except(except, wish),
            Some(clients) => {
                let others = clients.iter().filter(|it| !except.contains(it));
                others.for_each(|it| encryption.add(Some(it), wish.clone()));
            }
        }
    }
}

/// A rule without subject names takes those of the ServiceEntry (Istio, ServiceEntry `subjectAltNames`).
fn with_names(wish: &Arc<Wish>, names: &[String]) -> Arc<Wish> {
    if names.is_empty() {
        return wish.clone();
    }
    let named = |demand: &Demand| match demand {
        Demand::Tls(origin) if has_room(origin.settings()) => {
            let names = names.iter().map(|name| SubjectName::Any(name.as_str().into())).collect();
            Demand::Tls(Arc::new(Origin::new(TlsSettings { names, ..origin.settings().clone() })))
        }
        other => other.clone(),
    };
    let mut with_names = (**wish).clone();
    with_names.demands_mut().for_each(|demand| *demand = named(demand));
    Arc::new(with_names)
}

fn has_room(settings: &TlsSettings) -> bool {
    settings.names.is_empty() && settings.roots != Roots::Unverified
}

/// By the policies for all traffic, for ports and for subsets.
fn wish_of(cx: &mut Context<'_>, key: &ObjectKey, spec: &Value) -> Wish {
    let by: Str = format!("{} {key}", Kind::DestinationRule).into();
    let SubsetWish { rest, ports } = demands_of(cx, key, "spec", spec);
    let mut wish = Wish { by, rest, ports, subsets: BTreeMap::new() };
    let subsets = spec.get("subsets").and_then(Value::as_array).into_iter().flatten();
    for (index, subset) in subsets.enumerate().take(MOST_SUBSETS) {
        let Some(name) = subset.get("name").and_then(Value::as_str) else { continue };
        if wish.subsets.contains_key(name) {
            continue;
        }
        let said = demands_of(cx, key, &format!("spec.subsets[{index}]"), subset);
        wish.subsets.insert(name.into(), said);
    }
    wish.subsets.retain(|_, said| *said != SubsetWish::default());
    wish
}

/// What the `trafficPolicy` of a rule or of a subset says.
fn demands_of(cx: &mut Context<'_>, key: &ObjectKey, within: &str, of: &Value) -> SubsetWish {
    let mut said = SubsetWish::default();
    let Some(policy) = of.get("trafficPolicy") else { return said };
    let within = format!("{within}.trafficPolicy");
    said.rest = settings::demand(cx, key, &format!("{within}.tls"), policy.get("tls"));
    let of_ports = policy.get("portLevelSettings").and_then(Value::as_array);
    for (index, setting) in of_ports.into_iter().flatten().enumerate() {
        let number = setting.get("port").and_then(|port| port.get("number")?.as_u64());
        let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
        let field = format!("{within}.portLevelSettings[{index}].tls");
        let demand = settings::demand(cx, key, &field, setting.get("tls"));
        said.ports.entry(number).or_insert(demand);
    }
    said
}

/// Nothing that the wish would have encrypted goes out.
fn refuse(wish: &mut Wish, why: &str) {
    for demand in wish.demands_mut() {
        if matches!(demand, Demand::Tls(_)) {
            *demand = Demand::Impossible(why.into());
        }
    }
}

/// What some clients of the namespace are to send in the clear, others may not.
fn ignore_plaintext(cx: &mut Context<'_>, key: &ObjectKey, wish: &mut Wish) {
    let mut ignored = false;
    for demand in wish.demands_mut() {
        if *demand == Demand::Plaintext {
            (*demand, ignored) = (Demand::Nothing, true);
        }
    }
    if ignored {
        let reason = "DISABLE has no effect beside workloadSelector: it would hold for all clients of the namespace";
        cx.warn::<DestinationRule>(key, "spec.trafficPolicy.tls.mode", reason);
    }
}

fn complain(cx: &mut Context<'_>, key: &ObjectKey, wish: &Wish) {
    // One of a subset, where the rule as a whole says nothing of the kind.
    let is_notable = |demand: &Demand| matches!(demand, Demand::Impossible(_) | Demand::Mesh);
    let field = match wish.ports.values().chain([&wish.rest]).any(is_notable) {
        true => "spec.trafficPolicy.tls",
        false => "spec.subsets",
    };
    let field = field.to_owned();
    let impossible = wish.demands().find_map(|demand| match demand {
        Demand::Impossible(why) => Some(why),
        _ => None,
    });
    if let Some(why) = impossible {
        let reason = format!(
            "{why}; what is addressed to the host is refused rather than sent without TLS, for all clients if the host is of this \
             namespace, else for this namespace's clients"
        );
        let condition = Condition::of(ConditionType::Accepted, ConditionReason::NotSupported);
        cx.error_of(DestinationRule::KIND, key, field, reason, condition);
        cx.about(Topic::TlsUnusable);
    } else if wish.demands().any(|demand| *demand == Demand::Mesh) {
        let reason = "the tunnels of the mesh are what ISTIO_MUTUAL asks for; where no tunnel leads, traffic for the host is \
                      refused rather than sent in the clear. Remove this, or say DISABLE, if that is not meant";
        cx.complain(Severity::Note, DestinationRule::KIND, key, field, reason.to_owned());
    }
}
