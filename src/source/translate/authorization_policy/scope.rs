//! What a policy applies to.

use std::collections::BTreeMap;

use super::super::Context;
use super::super::waypoint::{CLASS, Waypoints};
use super::Broken;
use crate::base::{ObjectKey, Str};
use crate::model::{PolicyTarget, Scope};
use crate::source::objects::{
    GATEWAY_GROUP, ISTIO_NETWORKING_GROUP, ServiceEntry, TargetRef, Typed, WorkloadSelector,
};
use crate::source::store::RefusedPolicy;

/// A scope, or a selector that still has to be matched.
pub(super) enum Reach {
    Scope(Scope),
    Selector(BTreeMap<String, String>),
}

/// One target, understood.
enum Target {
    Ours(PolicyTarget),
    /// Nothing in this mesh can be meant by it; the reason.
    Elsewhere(String),
    Unknown(String),
}

/// `targets` come with the path of their field. The scope is never narrower than what was meant.
pub(super) fn scope_of<T: Typed>(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    selector: Option<&WorkloadSelector>,
    targets: &[(String, &TargetRef)],
) -> (Reach, Option<Broken>) {
    let labels =
        selector.map(|selector| &selector.match_labels).filter(|labels| !labels.is_empty());
    if targets.is_empty() {
        let reach = match labels {
            Some(labels) => Reach::Selector(labels.clone()),
            None => Reach::Scope(widest(cx, key)),
        };
        return (reach, None);
    }
    if selector.is_some() {
        let broken = Broken::new("spec.selector", "must not be given together with targetRefs");
        return (Reach::Scope(widest(cx, key)), Some(broken));
    }
    let mut ours = Vec::new();
    for (field, target) in targets {
        match understand(cx, key, target) {
            Target::Ours(target) => ours.push(target),
            Target::Elsewhere(why) => {
                cx.warn::<T>(key, field.clone(), format!("{why}; the target is ignored"));
            }
            Target::Unknown(why) => {
                let broken = Broken::new(field.clone(), why);
                return (Reach::Scope(widest(cx, key)), Some(broken));
            }
        }
    }
    (Reach::Scope(Scope::Targets(ours)), None)
}

/// Everything that a policy of this namespace may apply to.
pub(super) fn widest(cx: &Context<'_>, key: &ObjectKey) -> Scope {
    if cx.is_root(&key.namespace) { Scope::Mesh } else { Scope::Namespace }
}

/// What a policy of unknown content may target besides workloads, by namespace: waypoints, and entries, whose endpoints no
/// agent may guard.
pub(super) fn all_targets(
    cx: &Context<'_>,
    waypoints: &Waypoints,
    refused: &RefusedPolicy,
) -> BTreeMap<Str, Vec<PolicyTarget>> {
    let everywhere = refused.anywhere || cx.is_root(&refused.key.namespace);
    let concerned = |namespace: &Str| everywhere || *namespace == refused.key.namespace;
    let gateways = waypoints.usable().map(|waypoint| {
        (waypoint.key.namespace.clone(), PolicyTarget::Gateway(waypoint.key.name.clone()))
    });
    let entries = cx.objects.all::<ServiceEntry>();
    let entries = entries
        .map(|(key, _)| (key.namespace.clone(), PolicyTarget::ServiceEntry(key.name.clone())));
    let mut targets: BTreeMap<Str, Vec<PolicyTarget>> = BTreeMap::new();
    for (namespace, target) in gateways.chain(entries).filter(|(of, _)| concerned(of)) {
        targets.entry(namespace).or_default().push(target);
    }
    targets
}

/// A target of another mesh's or an egress gateway's is left alone: denying the namespace would guard nothing, since
/// no workload of it is meant. A target that may be a misspelt one of ours breaks the policy.
fn understand(cx: &Context<'_>, key: &ObjectKey, target: &TargetRef) -> Target {
    let name = target.name.as_str();
    if target.namespace.as_deref().is_some_and(|namespace| namespace != key.namespace.as_str()) {
        return Target::Unknown("a policy can only target objects of its own namespace".into());
    }
    match (target.group.as_str(), target.kind.as_str()) {
        ("" | "core", "Service") => Target::Ours(PolicyTarget::Service(name.into())),
        (GATEWAY_GROUP, "Gateway") => Target::Ours(PolicyTarget::Gateway(name.into())),
        (GATEWAY_GROUP, "GatewayClass") if name != CLASS => {
            Target::Elsewhere(format!("gateways of the class {name:?} are not served by Isthmus"))
        }
        (GATEWAY_GROUP, "GatewayClass") if !cx.is_root(&key.namespace) => Target::Unknown(format!(
            "a GatewayClass can only be targeted from the root namespace {:?}",
            cx.settings.root_namespace
        )),
        (GATEWAY_GROUP, "GatewayClass") => Target::Ours(PolicyTarget::GatewayClass(name.into())),
        (ISTIO_NETWORKING_GROUP, "ServiceEntry") => {
            Target::Ours(PolicyTarget::ServiceEntry(name.into()))
        }
        (group, kind) => Target::Unknown(format!(
            "{kind:?} of group {group:?} is not a target; Service (group \"\"), ServiceEntry, Gateway and GatewayClass are"
        )),
    }
}
