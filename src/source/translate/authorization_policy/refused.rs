//! Policies that were refused and have no earlier version: each denies what it may apply to.

use std::collections::BTreeMap;

use crate::base::{ObjectKey, Str};
use crate::model::{self, Action, PolicyTarget, Scope};
use crate::source::objects::{
    AttachedTo, AuthorizationPolicy, Kind, ServiceEntry, TargetRef, WorkloadSelector,
};
use crate::source::store::RefusedPolicy;
use crate::source::translate::Context;
use crate::source::translate::attachment::{self, Attachment, Selecting};
use crate::source::translate::waypoint::Waypoints;

/// What a refused policy denies: by its selector or targets, if these can be read on their own; else everything that it may
/// apply to, which waypoints and what they guard outside of the mesh are part of.
pub(super) fn translate(
    cx: &mut Context<'_>,
    waypoints: &Waypoints,
    selecting: &mut Selecting,
    refused: &RefusedPolicy,
) -> Vec<model::AuthorizationPolicy> {
    let attachment = match refused.anywhere {
        true => Attachment::Scope(Scope::Mesh),
        false => attached(cx, refused),
    };
    let ObjectKey { namespace, name } = &refused.key;
    // Keys are unique among all kinds that deny.
    let key = match refused.kind {
        Kind::AuthorizationPolicy => refused.key.clone(),
        Kind::RequestAuthentication => model::AuthorizationPolicy::of_tokens(&refused.key),
        other => ObjectKey::new(namespace.clone(), format!("{name} ({other})")),
    };
    let denies = |key: ObjectKey, scope: Scope| model::AuthorizationPolicy {
        key,
        action: Action::Deny,
        scope,
        rules: Vec::new(),
        dry_run: false,
        broken: Some(refused.why.as_str().into()),
        provider: None,
    };
    let mut policies = vec![denies(key.clone(), selecting.scope_of(&key, attachment))];
    if refused.document.is_none() {
        let targets = all_targets(cx, waypoints, refused);
        policies.extend(targets.into_iter().map(|(namespace, targets)| {
            let name = format!("{} (waypoints)", key.name);
            denies(ObjectKey::new(namespace, name), Scope::Targets(targets))
        }));
    }
    policies
}

fn attached(cx: &mut Context<'_>, refused: &RefusedPolicy) -> Attachment {
    let selector = refused.part::<WorkloadSelector>("selector");
    let single = refused.part::<TargetRef>("targetRef");
    let several = refused.part::<Vec<TargetRef>>("targetRefs");
    let (Ok(selector), Ok(single), Ok(several)) = (selector, single, several) else {
        return Attachment::Scope(attachment::widest(cx, &refused.key));
    };
    let written = AttachedTo {
        selector: selector.as_ref(),
        target_ref: single.as_ref(),
        target_refs: several.as_deref().unwrap_or_default(),
    };
    attachment::of::<AuthorizationPolicy>(cx, &refused.key, written).0
}

/// What a policy of unknown content may target besides workloads, by namespace: waypoints, and entries, whose endpoints no
/// agent may guard.
fn all_targets(
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
