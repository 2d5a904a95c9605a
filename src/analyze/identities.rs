//! Rules of AuthorizationPolicies that name nobody.

use std::collections::BTreeSet;

use super::code::{Code, Level};
use super::finding::Finding;
use super::snapshot::{Extent, Snapshot};
use crate::base::{Identity, Str, TrustDomains};
use crate::model::{Action, Rule, Source, StringMatch};
use crate::policy::{names, names_somebody};
use crate::source::objects::{AuthorizationPolicy, ServiceAccount};

/// Whoever can be a client.
struct Known {
    identities: BTreeSet<Identity>,
    namespaces: BTreeSet<Str>,
}

pub(super) fn find(cx: &Snapshot<'_>, found: &mut Vec<Finding>) {
    let known = Known::of(cx);
    for policy in cx.mesh.policies.iter().filter(|it| it.broken.is_none()) {
        let code = match policy.action {
            Action::Allow => Code::AllowAdmitsNobody,
            Action::Deny => Code::DenyRefusesNobody,
            Action::Audit | Action::Custom | Action::Authenticate => continue,
        };
        let mut add = |code, field: String, message: String, level| {
            let of = Finding::of::<AuthorizationPolicy>;
            found.push(of(cx.objects, &policy.key, code, field, message).of_level(level));
        };
        if policy.rules.is_empty() && policy.action == Action::Allow {
            let message = "is empty: everything that the policy applies to is denied, unless another ALLOW permits it";
            add(Code::AllowNothing, "spec.rules".to_owned(), message.to_owned(), Level::Info);
        }
        // Without any workload nothing is known of clients.
        if cx.mesh.workloads.is_empty() {
            continue;
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            let nobody = known.nobody(rule, &cx.settings.trust_domains);
            let whole = nobody.len() == rule.from.len();
            for source in nobody {
                let elsewhere = cx.extent == Extent::Part && known.is_elsewhere(&rule.from[source]);
                let level = match whole && !elsewhere {
                    true => Level::Warning,
                    false => Level::Info,
                };
                let message = in_words(&rule.from[source], policy.action, whole, elsewhere);
                add(code, format!("spec.rules[{index}].from[{source}].source"), message, level);
            }
        }
    }
}

impl Known {
    fn of(cx: &Snapshot<'_>) -> Self {
        let workloads = cx.mesh.workloads.iter().map(|it| it.identity.clone());
        let waypoints = cx.mesh.waypoints.iter().map(|it| it.identity.clone());
        // Whoever has an account may have a pod soon, as of a Job.
        let domain = cx.settings.trust_domains.own();
        let accounts = cx
            .objects
            .all::<ServiceAccount>()
            .map(|(key, _)| Identity::new(domain.clone(), key.namespace.clone(), key.name.clone()));
        let identities: BTreeSet<Identity> = workloads.chain(waypoints).chain(accounts).collect();
        let namespaces = identities.iter().map(|it| it.namespace.clone()).collect();
        Self { identities, namespaces }
    }

    /// The sources of a rule that certainly name nobody.
    fn nobody(&self, rule: &Rule, domains: &TrustDomains) -> Vec<usize> {
        let names_nobody = |source: &Source| {
            names_somebody(source)
                && !may_be_foreign(source, domains)
                && !self.identities.iter().any(|who| names(source, who))
        };
        let sources = rule.from.iter().enumerate();
        sources.filter(|(_, source)| names_nobody(source)).map(|(index, _)| index).collect()
    }

    /// Whether all that the source names are of namespaces of which nothing is known.
    fn is_elsewhere(&self, source: &Source) -> bool {
        let namespaces = namespaces(source);
        !namespaces.is_empty() && namespaces.iter().all(|it| !self.namespaces.contains(*it))
    }
}

/// Whether clients of other trust domains may be meant, of whom nothing is known; or what no identity looks like, which the
/// translation tells.
fn may_be_foreign(source: &Source, domains: &TrustDomains) -> bool {
    let foreign = |value: &StringMatch| match value {
        StringMatch::Exact(text) => match text.split_once("/ns/") {
            Some((domain, _)) => !domains.contains(domain),
            None => true,
        },
        _ => false,
    };
    let other = |value: &StringMatch| match value {
        StringMatch::Exact(text) => !domains.contains(text),
        _ => true,
    };
    source.principals.any.iter().any(foreign) || source.trust_domains.any.iter().any(other)
}

/// The namespaces that a source names exactly.
fn namespaces(source: &Source) -> Vec<&str> {
    let principals = source.principals.any.iter().filter_map(exact).filter_map(of_principal);
    let own = source.namespaces.any.iter().filter_map(exact);
    let accounts = source.service_accounts.any.iter().map(|account| account.namespace.as_str());
    principals.chain(own).chain(accounts).collect()
}

fn exact(value: &StringMatch) -> Option<&str> {
    match value {
        StringMatch::Exact(text) => Some(text.as_str()),
        _ => None,
    }
}

fn of_principal(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("/ns/")?;
    rest.split_once('/').map(|(namespace, _)| namespace)
}

fn in_words(source: &Source, action: Action, whole: bool, elsewhere: bool) -> String {
    let texts = source.principals.any.iter().chain(&source.namespaces.any);
    let accounts = source.service_accounts.any.iter().map(|it| format!("\"{it}\""));
    let named: Vec<String> = texts.map(ToString::to_string).chain(accounts).collect();
    let named = named.join(", ");
    let who = match elsewhere {
        true => "is in a namespace of which no workload is known here",
        false => "is no workload's identity",
    };
    let outcome = match (action, whole) {
        (_, false) => "the other sources of the rule are not affected",
        (Action::Deny, true) => "so the rule refuses nobody",
        (_, true) => "so the rule admits nobody",
    };
    format!("{named} {who}; {outcome}")
}
