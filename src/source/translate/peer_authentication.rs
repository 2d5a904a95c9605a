//! PeerAuthentications, merged to one answer per workload (Istio "PeerAuthentication", and "Ambient / mutual TLS").
//!
//! | level | which policies |
//! | --- | --- |
//! | mesh | of the root namespace, without a selector |
//! | namespace | of the workload's namespace, without a selector |
//! | workload | of the workload's namespace, with a selector that selects it |
//! | port | `portLevelMtls` of the policy that won the workload level |
//!
//! At each level the oldest policy counts, and of equally old ones the first by name; the others are ignored whole.
//! The narrowest level that says STRICT or PERMISSIVE decides; UNSET looks at the next wider one; when nobody says
//! anything it is PERMISSIVE.
//!
//! DISABLE is ignored, that is, read as UNSET. Istio's ambient mode reads it as PERMISSIVE, so that a DISABLE on a
//! workload undoes the STRICT of its mesh; here it never weakens anything.
//!
//! A policy that was refused and has no earlier version counts as STRICT, before all others of its level. A key of
//! `portLevelMtls` that is no port and says STRICT may mean any of them, so STRICT holds for those that are not listed.

use std::collections::{BTreeMap, BTreeSet};

use super::service_ports::Ports;
use super::{Context, Kind, service_ports};
use crate::base::{ObjectKey, Str};
use crate::model::{self, Mode};
use crate::source::objects::{
    Guard, Guards, MtlsMode, MutualTls, PeerAuthentication, WorkloadSelector, created, selects,
};

type Labels = BTreeMap<String, String>;

/// What every level says.
pub(super) struct Levels {
    root_namespace: Str,
    /// Mesh and namespaces, by namespace.
    wide: BTreeMap<Str, Entry>,
    /// In the order in which they win.
    workloads: BTreeMap<Str, Vec<Entry>>,
}

/// One policy. `None` inherits.
#[derive(Clone, PartialEq)]
struct Entry {
    selector: Labels,
    mode: Option<Mode>,
    ports: Vec<(u16, Option<Mode>)>,
}

impl Levels {
    pub(super) fn collect(cx: &mut Context<'_>) -> Self {
        let objects = cx.objects;
        let mut levels = Levels {
            root_namespace: cx.settings.root_namespace.clone(),
            wide: BTreeMap::new(),
            workloads: BTreeMap::new(),
        };
        let is_ours = |kind: Kind| kind.row().guards == Guards::Denies(Guard::Plaintext);
        for refused in objects.refused().iter().filter(|it| is_ours(it.kind)) {
            let spec = refused.document.as_ref().and_then(|document| document.get("spec"));
            let selector = spec.and_then(|spec| spec.get("selector"));
            let selector =
                selector.and_then(|selector| serde_json::from_value(selector.clone()).ok());
            let selector: WorkloadSelector = selector.unwrap_or_default();
            let entry = Entry {
                selector: selector.match_labels,
                mode: Some(Mode::Strict),
                ports: Vec::new(),
            };
            let mut key = refused.key.clone();
            if refused.anywhere {
                key.namespace = levels.root_namespace.clone();
            }
            levels.add(cx, &key, entry);
        }
        let mut policies: Vec<_> = objects.all::<PeerAuthentication>().collect();
        policies.sort_by_key(|(key, policy)| (created(&policy.metadata), *key));
        for (key, policy) in policies {
            let entry = read(cx, key, policy);
            levels.add(cx, key, entry);
        }
        levels
    }

    /// Takes the entries in the order in which they win.
    fn add(&mut self, cx: &mut Context<'_>, key: &ObjectKey, entry: Entry) {
        let is_root = cx.is_root(&key.namespace);
        if !entry.selector.is_empty() && is_root {
            let reason = "is ignored in the root namespace: a policy for the whole mesh selects no workloads";
            cx.warn::<PeerAuthentication>(key, "spec.selector", reason);
        } else if !entry.selector.is_empty() {
            self.workloads.entry(key.namespace.clone()).or_default().push(entry);
        } else {
            // The mesh's level is the root namespace's own.
            let first = !self.wide.contains_key(&key.namespace);
            self.wide.entry(key.namespace.clone()).or_insert(entry);
            if !first {
                let reason = "an older policy (of equally old ones the first by name) holds for the same level; \
                              this one has no effect";
                cx.warn::<PeerAuthentication>(key, "", reason);
            }
        }
    }

    /// The namespaces whose policies say something else than `before`.
    pub(super) fn differing(&self, before: &Levels) -> BTreeSet<Str> {
        let levels = [self, before].into_iter();
        let all = levels.flat_map(|levels| levels.wide.keys().chain(levels.workloads.keys()));
        let differs = |namespace: &&Str| {
            self.wide.get(*namespace) != before.wide.get(*namespace)
                || self.workloads.get(*namespace) != before.workloads.get(*namespace)
        };
        all.filter(differs).cloned().collect()
    }

    /// What holds for a workload with these labels.
    pub(super) fn effective(
        &self,
        namespace: &Str,
        labels: Option<&Labels>,
    ) -> model::PeerAuthentication {
        let own = self.workloads.get(namespace).into_iter().flatten();
        let own = own.into_iter().find(|entry| selects(&entry.selector, labels));
        let levels = [own, self.wide.get(namespace), self.wide.get(&self.root_namespace)];
        let mode = levels.into_iter().flatten().find_map(|entry| entry.mode).unwrap_or_default();
        let ports = own.map_or(&[][..], |entry| &entry.ports);
        let exceptions = ports.iter().filter_map(|(port, said)| Some((*port, (*said)?)));
        model::PeerAuthentication {
            mode,
            ports: exceptions.filter(|(_, of_port)| *of_port != mode).collect(),
        }
    }
}

/// Complains of ports that are Services' where the pods have others: what they say holds for no pod.
pub(super) fn check_ports(cx: &mut Context<'_>, ports: &Ports<'_>) {
    let objects = cx.objects;
    for (key, policy) in objects.all::<PeerAuthentication>() {
        let spec = &policy.spec;
        let selector = spec.selector.as_ref().map(|selector| &selector.match_labels);
        let Some(selector) = selector.filter(|_| !spec.port_level_mtls.is_empty()) else {
            continue;
        };
        let mistaken = ports.mistaken(Some(&key.namespace), Some(selector));
        for port in spec.port_level_mtls.keys() {
            let number: Option<u16> = port.parse().ok();
            let Some((number, found)) = number.and_then(|it| Some((it, mistaken.get(&it)?))) else {
                continue;
            };
            let reason = service_ports::in_words(number, found);
            cx.warn::<PeerAuthentication>(key, format!("spec.portLevelMtls[{port}]"), reason);
        }
    }
}

fn read(cx: &mut Context<'_>, key: &ObjectKey, policy: &PeerAuthentication) -> Entry {
    let spec = &policy.spec;
    let selector = spec.selector.clone().unwrap_or_default().match_labels;
    let mode = said(cx, key, "spec.mtls.mode", spec.mtls);
    if selector.is_empty() && !spec.port_level_mtls.is_empty() {
        let reason = "is ignored without a selector: ports belong to workloads";
        cx.warn::<PeerAuthentication>(key, "spec.portLevelMtls", reason);
        return Entry { selector, mode, ports: Vec::new() };
    }
    let (mut mode, mut ports) = (mode, Vec::new());
    for (port, mtls) in &spec.port_level_mtls {
        let field = format!("spec.portLevelMtls[{port}]");
        let said = said(cx, key, &field, Some(*mtls));
        match (port.parse(), said) {
            (Ok(number), _) if number != 0 => ports.push((number, said)),
            // It may mean any port that the others do not name.
            (_, Some(Mode::Strict)) => {
                mode = Some(Mode::Strict);
                let reason = format!(
                    "{port:?} is not a port; until that is mended, STRICT holds for all ports that are not listed"
                );
                cx.error::<PeerAuthentication>(key, field, reason);
            }
            _ => {
                let reason = format!("{port:?} is not a port; it is left out");
                cx.error::<PeerAuthentication>(key, field, reason);
            }
        }
    }
    Entry { selector, mode, ports }
}

fn said(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    field: &str,
    mtls: Option<MutualTls>,
) -> Option<Mode> {
    match mtls.unwrap_or_default().mode {
        MtlsMode::Unset => None,
        MtlsMode::Permissive => Some(Mode::Permissive),
        MtlsMode::Strict => Some(Mode::Strict),
        MtlsMode::Disable => {
            let reason = "DISABLE is ignored: traffic inside the mesh is always mutual TLS. What the next wider \
                          level says holds; say PERMISSIVE to take plaintext from outside";
            cx.warn::<PeerAuthentication>(key, field, reason);
            None
        }
    }
}

#[cfg(test)]
mod tests;
