//! What DestinationRules say, by the host that they name. Of the rules of one namespace those with the most specific host
//! count.

use std::collections::{BTreeMap, HashMap};

use super::Context;
use crate::base::{ObjectKey, Str};
use crate::source::objects::{Kind, MeshConfig};

/// Parts of rules, to be looked up by the name of a service.
#[derive(PartialEq)]
pub(super) struct ByHost<T> {
    /// By whole host name, each with its namespace.
    hosts: HashMap<Str, Vec<(Str, T)>>,
    /// By what follows the star of a host.
    wildcards: BTreeMap<Str, Vec<(Str, T)>>,
}

impl<T> Default for ByHost<T> {
    fn default() -> Self {
        Self { hosts: HashMap::new(), wildcards: BTreeMap::new() }
    }
}

impl<T> ByHost<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.wildcards.is_empty()
    }

    pub(super) fn add(&mut self, host: &str, namespace: &Str, rule: T) {
        let list = match host.strip_prefix('*') {
            Some(rest) => self.wildcards.entry(rest.into()).or_default(),
            None => self.hosts.entry(host.into()).or_default(),
        };
        list.push((namespace.clone(), rule));
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.hosts.values().chain(self.wildcards.values()).flatten().map(|(_, rule)| rule)
    }

    /// All rules for a host with how specific the host is that they name, and their namespaces.
    pub(super) fn matching(&self, host: &str) -> Vec<(usize, &Str, &T)> {
        let exact = self.hosts.get(host).into_iter().flatten().map(|rule| (usize::MAX, rule));
        let wildcards = self.wildcards.iter().filter(|(end, _)| host.ends_with(end.as_str()));
        let wildcards = wildcards.flat_map(|(end, rules)| rules.iter().map(|it| (end.len(), it)));
        let all = exact.chain(wildcards);
        all.map(|(specific, (namespace, rule))| (specific, namespace, rule)).collect()
    }

    /// The rules for a host that count, by their namespace, in the order in which they were added.
    pub(super) fn most_specific(&self, host: &str) -> BTreeMap<&Str, Vec<&T>> {
        let mut found: BTreeMap<&Str, (usize, Vec<&T>)> = BTreeMap::new();
        for (specific, namespace, rule) in self.matching(host) {
            let best = found.entry(namespace).or_default();
            if specific > best.0 {
                *best = (specific, Vec::new());
            }
            if specific == best.0 {
                best.1.push(rule);
            }
        }
        found.into_iter().map(|(namespace, (_, rules))| (namespace, rules)).collect()
    }
}

/// A name without dots is a Service of the rule's namespace (Istio, DestinationRule `host`).
pub(super) fn full_host(cx: &Context<'_>, key: &ObjectKey, host: &str) -> String {
    cx.settings.full_host(&key.namespace, host)
}

/// The namespaces of clients that may see a rule, by its `exportTo`, or MeshConfig's default for its kind where it has none;
/// `None`: all.
pub(super) fn exported<'a>(
    cx: &Context<'a>,
    kind: Kind,
    key: &ObjectKey,
    to: impl Iterator<Item = &'a str>,
) -> Option<Vec<Str>> {
    let default = cx.mesh_config().map_or(&[][..], |mesh| default_export(mesh, kind));
    let mut to = to.peekable();
    if to.peek().is_none() {
        return namespaces(key, default.iter().map(String::as_str));
    }
    namespaces(key, to)
}

fn default_export(mesh: &MeshConfig, kind: Kind) -> &[String] {
    match kind {
        Kind::DestinationRule => &mesh.default_destination_rule_export_to,
        Kind::VirtualService => &mesh.default_virtual_service_export_to,
        _ => &[],
    }
}

/// `None`: all, which is also what an empty list means.
fn namespaces<'a>(key: &ObjectKey, to: impl Iterator<Item = &'a str>) -> Option<Vec<Str>> {
    let mut to = to.peekable();
    to.peek()?;
    let mut namespaces = Vec::new();
    for text in to {
        match text {
            "*" => return None,
            "~" => {}
            "." => namespaces.push(key.namespace.clone()),
            other => namespaces.push(other.into()),
        }
    }
    Some(namespaces)
}
