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
use std::slice;

use super::attachment::{self, Attachment, Selecting, Selections};
use super::service_ports::Ports;
use super::{Context, Kind, service_ports};
use crate::base::{ObjectKey, Str};
use crate::model::{self, Mode, Scope};
use crate::source::Topic;
use crate::source::objects::{
    AttachedTo, Guard, Guards, MtlsMode, MutualTls, PeerAuthentication, WorkloadSelector, created,
};
use crate::world::Attached;

type Labels = BTreeMap<String, String>;

/// What every level says.
pub(super) struct Levels {
    root_namespace: Str,
    /// The mesh's and each namespace's level have one policy at the most.
    attached: Attached<Entry>,
    /// In the order in which they win.
    selections: Selections,
}

/// One policy. `None` inherits.
#[derive(Clone, PartialEq)]
struct Entry {
    mode: Option<Mode>,
    ports: Vec<(u16, Option<Mode>)>,
}

impl Levels {
    pub(super) fn collect(cx: &mut Context<'_>) -> Self {
        let objects = cx.objects;
        let (mut attached, mut selecting) = (Attached::default(), Selecting::default());
        let mut add = |cx: &mut Context<'_>, key: &ObjectKey, attachment, entry| {
            if let Some(attachment) = attachable(cx, key, &attached, attachment) {
                attached.attach(key, &selecting.scope_of(key, attachment), entry);
            }
        };
        // In the order in which they win.
        let is_ours = |kind: Kind| kind.row().guards == Guards::Denies(Guard::Plaintext);
        for refused in objects.refused().iter().filter(|it| is_ours(it.kind)) {
            let selector = refused.part::<WorkloadSelector>("selector").ok().flatten();
            let mut key = refused.key.clone();
            if refused.anywhere {
                key.namespace = cx.settings.root_namespace.clone();
            }
            let written = AttachedTo { selector: selector.as_ref(), ..AttachedTo::default() };
            let (attachment, _) = attachment::of::<PeerAuthentication>(cx, &key, written);
            add(cx, &key, attachment, Entry { mode: Some(Mode::Strict), ports: Vec::new() });
        }
        let mut policies: Vec<_> = objects.all::<PeerAuthentication>().collect();
        policies.sort_by_key(|(key, policy)| (created(&policy.metadata), *key));
        for (key, policy) in policies {
            let entry = read(cx, key, policy);
            let written = policy.spec.attached_to();
            let (attachment, _) = attachment::of::<PeerAuthentication>(cx, key, written);
            add(cx, key, attachment, entry);
        }
        let root_namespace = cx.settings.root_namespace.clone();
        Self { root_namespace, attached, selections: selecting.finish() }
    }

    /// The namespaces whose policies say something else than `before`.
    pub(super) fn differing(&self, before: &Levels) -> BTreeSet<Str> {
        let mut differing = self.attached.differing(&before.attached, &self.root_namespace);
        differing.extend(self.selections.differing(&before.selections));
        differing
    }

    /// What holds for a workload with these labels.
    pub(super) fn effective(
        &self,
        namespace: &Str,
        labels: Option<&Labels>,
    ) -> model::PeerAuthentication {
        let own = self.selections.of(namespace, labels).next();
        let levels = self.attached.to_workload(namespace, own.map_or(&[][..], slice::from_ref));
        let mode = levels.rev().find_map(|entry| entry.mode).unwrap_or_default();
        let own = own.and_then(|policy| self.attached.selecting(policy));
        let ports = own.map_or(&[][..], |entry| &entry.ports);
        let exceptions = ports.iter().filter_map(|(port, said)| Some((*port, (*said)?)));
        model::PeerAuthentication {
            mode,
            ports: exceptions.filter(|(_, of_port)| *of_port != mode).collect(),
        }
    }
}

/// The attachment of a policy, where it has an effect: the mesh's policy selects no workloads, and at the level of the mesh and
/// of a namespace only the first policy counts.
fn attachable(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    attached: &Attached<Entry>,
    attachment: Attachment,
) -> Option<Attachment> {
    let taken = match &attachment {
        Attachment::Selector(_) if cx.is_root(&key.namespace) => {
            let reason = "is ignored in the root namespace: a policy for the whole mesh selects no workloads";
            cx.warn::<PeerAuthentication>(key, "spec.selector", reason);
            return None;
        }
        Attachment::Selector(_) => false,
        Attachment::Scope(Scope::Mesh) => !attached.to_mesh().is_empty(),
        Attachment::Scope(_) => !attached.to_namespace(&key.namespace).is_empty(),
    };
    if taken {
        let reason = "an older policy (of equally old ones the first by name) holds for the same level; \
                      this one has no effect";
        cx.warn::<PeerAuthentication>(key, "", reason);
        return None;
    }
    Some(attachment)
}

/// Complains of ports that are Services' where the pods have others: what they say holds for no pod.
pub(super) fn check_ports(cx: &mut Context<'_>, ports: &Ports<'_>) {
    let objects = cx.objects;
    for (key, policy) in objects.all::<PeerAuthentication>() {
        let spec = &policy.spec;
        if spec.selector.is_none() || spec.port_level_mtls.is_empty() {
            continue;
        }
        let labels = spec.attached_to().labels();
        let mistaken = ports.mistaken(Some(&key.namespace), labels);
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
    let mode = said(cx, key, "spec.mtls.mode", spec.mtls);
    if spec.attached_to().labels().is_none() && !spec.port_level_mtls.is_empty() {
        let reason = "is ignored without a selector: ports belong to workloads";
        cx.warn::<PeerAuthentication>(key, "spec.portLevelMtls", reason);
        return Entry { mode, ports: Vec::new() };
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
    Entry { mode, ports }
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
            cx.about(Topic::DisablesMutualTls);
            None
        }
    }
}

#[cfg(test)]
mod tests;
