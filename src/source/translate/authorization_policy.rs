//! AuthorizationPolicies (Istio "Authorization Policy"), and RequestAuthentications ([`tokens`]). Nothing of a policy is dropped, and layer 7 fields are kept
//! whatever the policy applies to: istiod drops some of them for ztunnel, which can turn a DENY into nothing.
//!
//! A policy that cannot be carried out as it is written is `broken`: it denies what it applies to, and its complaint
//! says why. Where even that is unknown, it applies to its namespace, and in the root namespace to the mesh.

mod aliases;
mod behind;
mod never;
mod rules;
mod scope;
mod targets;
mod tokens;
mod values;

pub(in crate::source) use rules::meaningless;
pub(super) use targets::check as check_targets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Context;
use super::selectors::Selectors;
use super::waypoint::Waypoints;
use crate::base::{ObjectKey, Str};
use crate::model::{self, Action, Scope};
use crate::source::objects::{
    AuthorizationPolicy, Guard, Guards, Kind, PolicyAction, RequestAuthentication, TargetRef,
    WorkloadSelector, annotation,
};
use crate::source::store::RefusedPolicy;
use scope::{Reach, scope_of};

/// Decide and log, but do not enforce.
const DRY_RUN: &str = "istio.io/dry-run";

/// All policies, and the selectors of those that have one.
#[derive(Default)]
pub(super) struct Policies {
    models: Vec<Arc<model::AuthorizationPolicy>>,
    /// By the namespace of the policies.
    selectors: BTreeMap<Str, Selectors<ObjectKey>>,
}

/// The selectors while they are collected.
type Found = BTreeMap<Str, Vec<(BTreeMap<String, String>, ObjectKey)>>;

/// A part of a policy that cannot be carried out.
pub(super) struct Broken {
    field: String,
    why: String,
    /// Istio would carry it out.
    unsupported: bool,
}

pub(super) fn translate(cx: &mut Context<'_>, waypoints: &Waypoints) -> Policies {
    let objects = cx.objects;
    let (mut models, mut found) = (Vec::new(), Found::new());
    for (key, policy) in objects.all::<AuthorizationPolicy>() {
        models.push(Arc::new(policy_of(cx, &mut found, key, policy)));
    }
    for (key, object) in objects.all::<RequestAuthentication>() {
        models.push(Arc::new(tokens::translate(cx, &mut found, key, object)));
    }
    let is_ours = |kind: Kind| kind.row().guards == Guards::Denies(Guard::Requests);
    for refused in objects.refused().iter().filter(|it| is_ours(it.kind)) {
        models.extend(refused_policy(cx, waypoints, &mut found, refused).into_iter().map(Arc::new));
    }
    let selectors = found.into_iter().map(|(key, list)| (key, list.into_iter().collect()));
    Policies { models, selectors: selectors.collect() }
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
        let all = self.selectors.keys().chain(before.selectors.keys());
        let differs =
            |namespace: &&Str| self.selectors.get(*namespace) != before.selectors.get(*namespace);
        all.filter(differs).cloned().collect()
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
        let selectors = namespaces.filter_map(|namespace| self.selectors.get(namespace));
        let mut keys: Vec<ObjectKey> =
            selectors.flat_map(|selectors| selectors.selecting(labels)).cloned().collect();
        keys.sort_unstable();
        keys
    }
}

/// Notes the selector, if there is one, and passes the scope on.
fn register(found: &mut Found, key: &ObjectKey, reach: Reach) -> Scope {
    match reach {
        Reach::Scope(scope) => scope,
        Reach::Selector(selector) => {
            let of_namespace = found.entry(key.namespace.clone()).or_default();
            of_namespace.push((selector, key.clone()));
            Scope::Workloads
        }
    }
}

/// The targets of an object, and where each stands in it.
fn placed<'a>(
    single: Option<&'a TargetRef>,
    several: &'a [TargetRef],
) -> Vec<(String, &'a TargetRef)> {
    let single = single.map(|target| ("spec.targetRef".to_owned(), target));
    let several = several.iter().enumerate();
    let several = several.map(|(index, target)| (format!("spec.targetRefs[{index}]"), target));
    single.into_iter().chain(several).collect()
}

fn policy_of(
    cx: &mut Context<'_>,
    found: &mut Found,
    key: &ObjectKey,
    policy: &AuthorizationPolicy,
) -> model::AuthorizationPolicy {
    let spec = &policy.spec;
    let targets = placed(spec.target_ref.as_ref(), &spec.target_refs);
    let (reach, scope_broken) =
        scope_of::<AuthorizationPolicy>(cx, key, spec.selector.as_ref(), &targets);

    let mut broken: Vec<Broken> = scope_broken.into_iter().collect();
    let action = action(spec.action, &mut broken);
    if spec.provider.is_some() && spec.action != PolicyAction::Custom {
        broken.push(Broken::new("spec.provider", "only goes with the action CUSTOM"));
    }
    let mut rules = rules::translate(key, &spec.rules, &mut broken);
    // One that denies everything has graver faults.
    if broken.is_empty() {
        for (field, reason) in never::complaints(action, &rules, &cx.settings.trust_domains) {
            cx.warn::<AuthorizationPolicy>(key, field, reason);
        }
    }
    aliases::expand(&mut rules, &cx.settings.trust_domains);
    if rules.is_empty() && broken.is_empty() && action != Action::Allow {
        cx.warn::<AuthorizationPolicy>(
            key,
            "spec.rules",
            "without rules the policy never matches, and does nothing",
        );
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
        scope: register(found, key, reach),
        rules,
        dry_run: is_dry_run(cx, key, policy),
        broken: first,
    }
}

/// CUSTOM denies.
fn action(said: PolicyAction, broken: &mut Vec<Broken>) -> Action {
    match said {
        PolicyAction::Allow => Action::Allow,
        PolicyAction::Deny => Action::Deny,
        PolicyAction::Audit => Action::Audit,
        PolicyAction::Custom => {
            let why = "CUSTOM is not supported: there is no provider to ask";
            broken.push(Broken::new("spec.action", why));
            Action::Deny
        }
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

/// What a refused policy denies: by its selector or targets, if these can be read on their own; else everything that it may
/// apply to, which waypoints and what they guard outside of the mesh are part of.
fn refused_policy(
    cx: &mut Context<'_>,
    waypoints: &Waypoints,
    found: &mut Found,
    refused: &RefusedPolicy,
) -> Vec<model::AuthorizationPolicy> {
    let part = |name: &str| refused.document.as_ref()?.get("spec")?.get(name).cloned();
    let selector = part("selector").map(serde_json::from_value::<WorkloadSelector>);
    let single = part("targetRef").map(serde_json::from_value::<TargetRef>);
    let several = part("targetRefs").map(serde_json::from_value::<Vec<TargetRef>>);
    let reach = match (selector.transpose(), single.transpose(), several.transpose()) {
        (Ok(selector), Ok(single), Ok(several)) => {
            let targets: Vec<TargetRef> =
                single.into_iter().chain(several.into_iter().flatten()).collect();
            let named: Vec<_> =
                targets.iter().map(|target| ("spec.targetRefs".to_owned(), target)).collect();
            scope_of::<AuthorizationPolicy>(cx, &refused.key, selector.as_ref(), &named).0
        }
        _ => Reach::Scope(scope::widest(cx, &refused.key)),
    };
    let reach = if refused.anywhere { Reach::Scope(Scope::Mesh) } else { reach };
    let key = match refused.kind {
        Kind::RequestAuthentication => model::AuthorizationPolicy::of_tokens(&refused.key),
        _ => refused.key.clone(),
    };
    let denies = |key: ObjectKey, scope: Scope| model::AuthorizationPolicy {
        key,
        action: Action::Deny,
        scope,
        rules: Vec::new(),
        dry_run: false,
        broken: Some(refused.why.as_str().into()),
    };
    let mut policies = vec![denies(key.clone(), register(found, &key, reach))];
    if refused.document.is_none() {
        let targets = scope::all_targets(cx, waypoints, refused);
        policies.extend(targets.into_iter().map(|(namespace, targets)| {
            let name = format!("{} (waypoints)", key.name);
            denies(ObjectKey::new(namespace, name), Scope::Targets(targets))
        }));
    }
    policies
}

impl Broken {
    fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into(), unsupported: false }
    }

    fn unsupported(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { unsupported: true, ..Self::new(field, why) }
    }
}

#[cfg(test)]
mod tests;
