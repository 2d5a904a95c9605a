//! AuthorizationPolicies (Istio "Authorization Policy"), and RequestAuthentications ([`tokens`]). Nothing of a policy is dropped, and layer 7 fields are kept
//! whatever the policy applies to: istiod drops some of them for ztunnel, which can turn a DENY into nothing.
//!
//! A policy that cannot be carried out as it is written is `broken`: it denies what it applies to, and its complaint
//! says why. Where even that is unknown, it applies to its namespace, and in the root namespace to the mesh.

mod aliases;
mod rules;
mod scope;
mod tokens;
mod values;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::Context;
use super::selectors::Selectors;
use super::waypoint::Waypoints;
use crate::base::{ObjectKey, Str};
use crate::model::{self, Action, Binding, PolicyTarget, Scope, Service};
use crate::source::objects::{
    AuthorizationPolicy, Kind, PolicyAction, RequestAuthentication, TargetRef, WorkloadSelector,
    annotation,
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
}

pub(super) fn translate(cx: &mut Context<'_>) -> Policies {
    let objects = cx.objects;
    let (mut models, mut found) = (Vec::new(), Found::new());
    for (key, policy) in objects.all::<AuthorizationPolicy>() {
        models.push(Arc::new(policy_of(cx, &mut found, key, policy)));
    }
    for (key, object) in objects.all::<RequestAuthentication>() {
        models.push(Arc::new(tokens::translate(cx, &mut found, key, object)));
    }
    let is_ours =
        |kind: Kind| matches!(kind, Kind::AuthorizationPolicy | Kind::RequestAuthentication);
    for refused in objects.refused().iter().filter(|it| is_ours(it.kind)) {
        models.push(Arc::new(refused_policy(cx, &mut found, refused)));
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

fn policy_of(
    cx: &mut Context<'_>,
    found: &mut Found,
    key: &ObjectKey,
    policy: &AuthorizationPolicy,
) -> model::AuthorizationPolicy {
    let spec = &policy.spec;
    let single = spec.target_ref.as_ref().map(|target| ("spec.targetRef".to_owned(), target));
    let several = spec.target_refs.iter().enumerate();
    let targets: Vec<(String, &TargetRef)> = single
        .into_iter()
        .chain(several.map(|(index, target)| (format!("spec.targetRefs[{index}]"), target)))
        .collect();
    let (reach, scope_broken) =
        scope_of::<AuthorizationPolicy>(cx, key, spec.selector.as_ref(), &targets);

    let mut broken: Vec<Broken> = scope_broken.into_iter().collect();
    let action = match spec.action {
        PolicyAction::Allow => Action::Allow,
        PolicyAction::Deny => Action::Deny,
        PolicyAction::Audit => Action::Audit,
        PolicyAction::Custom => {
            broken.push(Broken::new(
                "spec.action",
                "CUSTOM is not supported: there is no provider to ask",
            ));
            Action::Deny
        }
    };
    if spec.provider.is_some() && spec.action != PolicyAction::Custom {
        broken.push(Broken::new("spec.provider", "only goes with the action CUSTOM"));
    }
    let mut rules = rules::translate(key, &spec.rules, &mut broken);
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

/// What a refused policy denies: by its selector or targets, if these can be read on their own.
fn refused_policy(
    cx: &mut Context<'_>,
    found: &mut Found,
    refused: &RefusedPolicy,
) -> model::AuthorizationPolicy {
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
    let key = match refused.kind {
        Kind::RequestAuthentication => model::AuthorizationPolicy::of_tokens(&refused.key),
        _ => refused.key.clone(),
    };
    model::AuthorizationPolicy {
        scope: register(found, &key, reach),
        key,
        action: Action::Deny,
        rules: Vec::new(),
        dry_run: false,
        broken: Some(refused.why.as_str().into()),
    }
}

/// Warns of targets that the policy is not enforced for: only what is bound to a waypoint looks at them.
pub(super) fn check_targets<'a>(
    cx: &mut Context<'_>,
    policies: &Policies,
    services: impl Iterator<Item = &'a Arc<Service>>,
    waypoints: &Waypoints,
) {
    let mut known: Known<'a> = HashMap::new();
    for service in services {
        let id = (&service.key.namespace, service.entry.is_some(), service.name());
        known.entry(id).or_insert(&service.waypoint);
    }
    for policy in &policies.models {
        let Scope::Targets(targets) = &policy.scope else { continue };
        for target in targets {
            if let Some(reason) = why_not_enforced(&policy.key, target, &known, waypoints) {
                let reason = format!("{reason}; the policy is not enforced for it");
                match policy.as_of_tokens() {
                    Some(key) => cx.warn::<RequestAuthentication>(&key, "spec.targetRefs", reason),
                    None => cx.warn::<AuthorizationPolicy>(&policy.key, "spec.targetRefs", reason),
                }
            }
        }
    }
}

/// The waypoints of services, by namespace, whether it is a ServiceEntry, and name.
type Known<'a> = HashMap<(&'a Str, bool, &'a Str), &'a Binding>;

fn why_not_enforced(
    policy: &ObjectKey,
    target: &PolicyTarget,
    services: &Known<'_>,
    waypoints: &Waypoints,
) -> Option<String> {
    let key = |name: &Str| ObjectKey::new(policy.namespace.clone(), name.clone());
    match target {
        PolicyTarget::Service(name) => {
            let found = services.get(&(&policy.namespace, false, name));
            without_waypoint("Service", &key(name), found.copied())
        }
        PolicyTarget::ServiceEntry(name) => {
            let found = services.get(&(&policy.namespace, true, name));
            without_waypoint("ServiceEntry", &key(name), found.copied())
        }
        PolicyTarget::Gateway(name) => {
            let key = key(name);
            let usable = waypoints.usable().any(|waypoint| waypoint.key == key);
            (!usable).then(|| match waypoints.knows(&key) {
                true => format!("the Gateway {key} is not a waypoint"),
                false => format!("the Gateway {key} does not exist"),
            })
        }
        PolicyTarget::GatewayClass(class) => {
            let any = waypoints.usable().any(|waypoint| waypoint.class == *class);
            (!any).then(|| format!("there is no waypoint of the class {class}"))
        }
    }
}

fn without_waypoint(kind: &str, key: &ObjectKey, found: Option<&Binding>) -> Option<String> {
    match found {
        None => Some(format!("the {kind} {key} does not exist")),
        Some(Binding::None) => Some(format!(
            "the {kind} {key} has no waypoint; check the label istio.io/use-waypoint on it or its namespace"
        )),
        Some(_) => None,
    }
}

impl Broken {
    fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }
}

#[cfg(test)]
mod tests;
