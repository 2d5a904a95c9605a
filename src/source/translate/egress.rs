//! Where workloads may connect to outside of the mesh: `outboundTrafficPolicy` of MeshConfig and of Sidecars.
//!
//! Which Sidecar holds for a workload is Istio's: one of its namespace that selects it, else its namespace's without a selector,
//! else the root namespace's without a selector. Of several at one level the oldest holds. The Sidecar holds as a whole: if it
//! says nothing of outbound traffic, MeshConfig does, and no wider Sidecar. A mode that is not known means REGISTRY_ONLY.

use std::collections::{BTreeMap, BTreeSet};

use super::attachment::{Attachment, Selecting, Selections, widest};
use super::{Context, is_of_other_revision};
use crate::base::{ObjectKey, Str};
use crate::model::Scope;
use crate::source::objects::{ConfigMap, Sidecar, SidecarSpec, created};
use crate::world::Attached;

const ALLOW_ANY: &str = "ALLOW_ANY";
const REGISTRY_ONLY: &str = "REGISTRY_ONLY";

type Labels = BTreeMap<String, String>;

/// What every level says.
pub(super) struct Egress {
    root_namespace: Str,
    /// MeshConfig's.
    mesh: bool,
    /// Whether a Sidecar lets clients reach the registry only; `None`: it leaves that to MeshConfig.
    attached: Attached<Option<bool>>,
    /// In the order in which they win.
    selections: Selections,
}

impl Egress {
    pub(super) fn collect(cx: &mut Context<'_>) -> Self {
        let (mut attached, mut selecting) = (Attached::default(), Selecting::default());
        let mut sidecars: Vec<_> = cx.objects.all::<Sidecar>().collect();
        sidecars.sort_by_key(|(key, sidecar)| (created(&sidecar.metadata), *key));
        for (key, sidecar) in sidecars {
            if is_of_other_revision(cx.settings, sidecar) {
                continue;
            }
            let said = read(cx, key, &sidecar.spec);
            if let Some(attachment) = attachable(cx, key, &attached, &sidecar.spec) {
                attached.attach(key, &selecting.scope_of(key, attachment), said);
            }
        }
        let root_namespace = cx.settings.root_namespace.clone();
        let mesh = of_mesh_config(cx);
        Self { root_namespace, mesh, attached, selections: selecting.finish() }
    }

    /// The namespaces whose workloads may be told something else than `before`; the root namespace for all of them.
    pub(super) fn differing(&self, before: &Egress) -> BTreeSet<Str> {
        let mut differing = self.attached.differing(&before.attached, &self.root_namespace);
        differing.extend(self.selections.differing(&before.selections));
        if self.mesh != before.mesh {
            differing.insert(self.root_namespace.clone());
        }
        differing
    }

    /// Whether a workload with these labels may connect to what the registry has, and to nothing else.
    pub(super) fn registry_only(&self, namespace: &Str, labels: Option<&Labels>) -> bool {
        let own = self.selections.of(namespace, labels).next();
        let own = own.and_then(|sidecar| self.attached.selecting(sidecar));
        // The narrowest level that has a Sidecar.
        let wide = || self.attached.to_workload(namespace, &[]).next_back();
        own.or_else(wide).copied().flatten().unwrap_or(self.mesh)
    }
}

/// The attachment of a Sidecar, where it has an effect.
fn attachable(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    attached: &Attached<Option<bool>>,
    spec: &SidecarSpec,
) -> Option<Attachment> {
    let labels = spec.workload_selector.as_ref().map(|selector| &selector.labels);
    if let Some(labels) = labels.filter(|labels| !labels.is_empty()) {
        return Some(Attachment::Selector(labels.clone()));
    }
    let scope = widest(cx, key);
    let taken = match scope {
        Scope::Mesh => attached.to_mesh(),
        _ => attached.to_namespace(&key.namespace),
    };
    if !taken.is_empty() {
        let reason = "an older Sidecar without a workloadSelector (of equally old ones the first by name) holds for the \
                      namespace; this one has no effect";
        cx.warn::<Sidecar>(key, "", reason);
        return None;
    }
    Some(Attachment::Scope(scope))
}

fn read(cx: &mut Context<'_>, key: &ObjectKey, spec: &SidecarSpec) -> Option<bool> {
    let SidecarSpec {
        workload_selector: _,
        ingress,
        egress,
        inbound_connection_pool,
        outbound_traffic_policy,
    } = spec;
    for (field, given, instead) in [
        ("ingress", !ingress.is_empty(), "applications are reached on their own ports"),
        (
            "egress",
            !egress.is_empty(),
            "the workloads see the Services of all namespaces, and reach them under REGISTRY_ONLY too. AuthorizationPolicies \
             keep clients out, and exportTo hides ServiceEntries",
        ),
        (
            "inboundConnectionPool",
            inbound_connection_pool.is_some(),
            "a DestinationRule limits the connections of clients",
        ),
    ] {
        if given {
            cx.warn::<Sidecar>(key, format!("spec.{field}"), format!("has no effect: {instead}"));
        }
    }
    let policy = outbound_traffic_policy.as_ref()?;
    if policy.egress_proxy.is_some() {
        let reason = "has no effect: connections that the mode permits go where they were dialled";
        cx.warn::<Sidecar>(key, "spec.outboundTrafficPolicy.egressProxy", reason);
    }
    Some(match policy.mode.as_deref() {
        Some(ALLOW_ANY) => false,
        // The first value of the enumeration is its default.
        None | Some("" | REGISTRY_ONLY) => true,
        Some(other) => {
            cx.error::<Sidecar>(key, "spec.outboundTrafficPolicy.mode", unknown(other));
            true
        }
    })
}

/// MeshConfig's word, which Istio's default is to allow everything.
fn of_mesh_config(cx: &mut Context<'_>) -> bool {
    let Some(policy) = cx.mesh_config().and_then(|mesh| mesh.outbound_traffic_policy.as_ref())
    else {
        return false;
    };
    const FIELD: &str = "data.mesh, outboundTrafficPolicy.mode";
    let key = cx.mesh_config_key();
    match policy.mode.as_deref() {
        Some(ALLOW_ANY) => false,
        None | Some("" | REGISTRY_ONLY) => true,
        Some("ALLOW_ANY_DYNAMIC_DNS") => {
            let reason = "is taken for ALLOW_ANY: connections go to the address that was dialled";
            cx.warn::<ConfigMap>(&key, FIELD, reason);
            false
        }
        Some(other) => {
            cx.error::<ConfigMap>(&key, FIELD, unknown(other));
            true
        }
    }
}

fn unknown(mode: &str) -> String {
    format!(
        "{mode:?} is neither {ALLOW_ANY} nor {REGISTRY_ONLY}; until that is mended, {REGISTRY_ONLY} holds"
    )
}

#[cfg(test)]
mod tests;
