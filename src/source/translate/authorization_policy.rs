//! AuthorizationPolicies (Istio "Authorization Policy"), and RequestAuthentications ([`tokens`]). Nothing of a policy is dropped,
//! and layer 7 fields are kept whatever the policy applies to: istiod drops some of them for ztunnel, which can turn a DENY into
//! nothing.
//!
//! A policy that cannot be carried out as it is written is `broken`: it denies what it applies to, and its complaint
//! says why. Where even that is unknown, it applies to its namespace, and in the root namespace to the mesh.

mod behind;
mod provider;
mod refused;
mod rules;
mod targets;
mod tokens;

pub(in crate::source) use rules::meaningless;
pub(super) use targets::check as check_targets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Context;
use super::attachment::{self, Fault, Selecting, Selections};
use super::waypoint::Waypoints;
use crate::base::{ObjectKey, Str, TrustDomains};
use crate::model::{self, Action};
use crate::policy::{aliases, never};
use crate::source::Topic;
use crate::source::objects::{
    AuthorizationPolicy, Guard, Guards, Kind, PolicyAction, RequestAuthentication, annotation,
};

/// Decide and log, but do not enforce.
const DRY_RUN: &str = "istio.io/dry-run";

/// All policies, and which workloads they select.
#[derive(Default)]
pub(super) struct Policies {
    models: Vec<Arc<model::AuthorizationPolicy>>,
    selections: Selections,
}

/// A part of a policy that cannot be carried out.
pub(super) struct Broken {
    field: String,
    why: String,
    /// Istio would carry it out.
    unsupported: bool,
}

pub(super) fn translate(cx: &mut Context<'_>, waypoints: &Waypoints) -> Policies {
    let objects = cx.objects;
    let (mut models, mut selecting) = (Vec::new(), Selecting::default());
    let names = cx.names_in_policies();
    for (key, policy) in objects.all::<AuthorizationPolicy>() {
        models.push(Arc::new(policy_of(cx, &mut selecting, &names, key, policy)));
    }
    for (key, object) in objects.all::<RequestAuthentication>() {
        models.push(Arc::new(tokens::translate(cx, &mut selecting, key, object)));
    }
    let is_ours = |kind: Kind| kind.row().guards == Guards::Denies(Guard::Requests);
    for refused in objects.refused().iter().filter(|it| is_ours(it.kind)) {
        let denying = refused::translate(cx, waypoints, &mut selecting, refused);
        models.extend(denying.into_iter().map(Arc::new));
    }
    Policies { models, selections: selecting.finish() }
}

impl Policies {
    pub(super) fn models(&self) -> &[Arc<model::AuthorizationPolicy>] {
        &self.models
    }

    /// Shares with `before` what says the same.
    pub(super) fn share(&mut self, before: &Policies) {
        let known: BTreeMap<&ObjectKey, _> = before.models.iter().map(|it| (&it.key, it)).collect();
        for model in &mut self.models {
            if let Some(same) = known.get(&model.key).filter(|known| **known == model) {
                *model = Arc::clone(same);
            }
        }
    }

    /// The namespaces whose policies select otherwise than `before`.
    pub(super) fn differing(&self, before: &Policies) -> BTreeSet<Str> {
        self.selections.differing(&before.selections)
    }

    /// The policies with a selector that selects a workload: those of its namespace, and of the root namespace.
    pub(super) fn selecting(
        &self,
        cx: &Context<'_>,
        namespace: &Str,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Vec<ObjectKey> {
        let root = Some(&cx.settings.root_namespace).filter(|root| *root != namespace);
        let namespaces = [Some(namespace), root].into_iter().flatten();
        let found = namespaces.flat_map(|namespace| self.selections.of(namespace, labels));
        let mut keys: Vec<ObjectKey> = found.cloned().collect();
        keys.sort_unstable();
        keys
    }
}

fn policy_of(
    cx: &mut Context<'_>,
    selecting: &mut Selecting,
    names: &TrustDomains,
    key: &ObjectKey,
    object: &AuthorizationPolicy,
) -> model::AuthorizationPolicy {
    let spec = &object.spec;
    let (attachment, fault) = attachment::of::<AuthorizationPolicy>(cx, key, spec.attached_to());

    let mut broken: Vec<Broken> = fault.into_iter().map(Broken::from).collect();
    let action = action(spec.action);
    let provider = match action {
        Action::Custom => provider::named(cx, spec.provider.as_ref(), &mut broken),
        _ => None,
    };
    if spec.provider.is_some() && spec.action != PolicyAction::Custom {
        broken.push(Broken::new("spec.provider", "only goes with the action CUSTOM"));
    }
    let mut rules = rules::translate(key, &spec.rules, &mut broken);
    // One that denies everything has graver faults.
    if broken.is_empty() {
        for (field, reason) in never::complaints(action, &rules, names) {
            cx.warn::<AuthorizationPolicy>(key, field, reason);
            cx.about(Topic::NeverMatches);
        }
    }
    if let Some(provider) = &provider {
        provider::complain_of_itself(cx, key, &attachment, &rules, provider);
    }
    aliases::expand(&mut rules, names);
    if rules.is_empty() && broken.is_empty() && action != Action::Allow {
        cx.warn::<AuthorizationPolicy>(
            key,
            "spec.rules",
            "without rules the policy never matches, and does nothing",
        );
        cx.about(Topic::NeverMatches);
    }
    for part in &broken {
        let reason =
            format!("{}; until that is mended, the policy denies what it applies to", part.why);
        cx.error::<AuthorizationPolicy>(key, part.field.clone(), reason);
    }
    let first = broken.first().map(|part| format!("{}: {}", part.field, part.why).into());
    model::AuthorizationPolicy {
        key: key.clone(),
        action,
        scope: selecting.scope_of(key, attachment),
        rules,
        dry_run: is_dry_run(cx, key, object),
        broken: first,
        provider,
    }
}

fn action(said: PolicyAction) -> Action {
    match said {
        PolicyAction::Allow => Action::Allow,
        PolicyAction::Deny => Action::Deny,
        PolicyAction::Audit => Action::Audit,
        PolicyAction::Custom => Action::Custom,
    }
}

fn is_dry_run(cx: &mut Context<'_>, key: &ObjectKey, policy: &AuthorizationPolicy) -> bool {
    match annotation(&policy.metadata, DRY_RUN) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let field = format!("metadata.annotations[{DRY_RUN:?}]");
            let reason =
                format!("{other:?} is neither \"true\" nor \"false\"; the policy is enforced");
            cx.warn::<AuthorizationPolicy>(key, field, reason);
            false
        }
    }
}

impl Broken {
    fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into(), unsupported: false }
    }

    fn unsupported(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { unsupported: true, ..Self::new(field, why) }
    }
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::new(fault.field, fault.why)
    }
}

#[cfg(test)]
mod tests;
