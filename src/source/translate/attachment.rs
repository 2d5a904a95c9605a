//! What policies are attached to: the one reading of `selector`, `targetRef` and `targetRefs` for every kind.
//!
//! What [`Attached`](crate::world::Attached) finds, this reads. A scope is never narrower than what was meant.

use std::collections::{BTreeMap, BTreeSet};

use super::Context;
use super::selectors::Selectors;
use super::waypoint::CLASS;
use crate::base::{ObjectKey, Str};
use crate::model::{PolicyTarget, Scope};
use crate::source::objects::{AttachedTo, TargetRef, Typed};

type Labels = BTreeMap<String, String>;

/// What a policy is attached to.
pub(super) enum Attachment {
    Scope(Scope),
    /// The workloads with these labels.
    Selector(Labels),
}

/// A part of an attachment that means nothing.
pub(super) struct Fault {
    pub(super) field: String,
    pub(super) why: String,
}

/// Everything that a policy of this namespace may apply to.
pub(super) fn widest(cx: &Context<'_>, policy: &ObjectKey) -> Scope {
    if cx.is_root(&policy.namespace) { Scope::Mesh } else { Scope::Namespace }
}

/// What the policy is attached to; with a fault, all that it may apply to. Says which targets mean nothing in this mesh.
pub(super) fn of<T: Typed>(
    cx: &mut Context<'_>,
    policy: &ObjectKey,
    written: AttachedTo<'_>,
) -> (Attachment, Option<Fault>) {
    let targets = written.targets();
    if targets.is_empty() {
        let attachment = match written.labels() {
            Some(labels) => Attachment::Selector(labels.clone()),
            None => Attachment::Scope(widest(cx, policy)),
        };
        return (attachment, None);
    }
    let faulty = |cx: &Context<'_>, field: &str, why: String| {
        let fault = Fault { field: field.to_owned(), why };
        (Attachment::Scope(widest(cx, policy)), Some(fault))
    };
    if written.selector.is_some() {
        let why = "must not be given together with targetRefs".to_owned();
        return faulty(cx, "spec.selector", why);
    }
    let mut ours = Vec::new();
    for (field, target) in targets {
        if let Some(why) = elsewhere(policy, target) {
            cx.warn::<T>(policy, field, format!("{why}; the target is ignored"));
            continue;
        }
        match target_of(cx, policy, target, &[]) {
            Ok(target) => ours.push(target),
            Err(why) => return faulty(cx, &field, why),
        }
    }
    (Attachment::Scope(Scope::Targets(ours)), None)
}

/// Why nothing in this mesh can be meant. A target of another mesh's or an egress gateway's is left alone: denying the namespace
/// would guard nothing, since no workload of it is meant. A target that may be a misspelt one of ours is a fault.
fn elsewhere(policy: &ObjectKey, written: &TargetRef) -> Option<String> {
    match written.target() {
        Some(PolicyTarget::GatewayClass(name)) if is_own(policy, written) && name != CLASS => {
            Some(format!("gateways of the class {name:?} are not served by Isthmus"))
        }
        _ => None,
    }
}

/// What a reference means, or why it means nothing. `others`: further kinds that the policy can be attached to.
pub(super) fn target_of(
    cx: &Context<'_>,
    policy: &ObjectKey,
    written: &TargetRef,
    others: &[&str],
) -> Result<PolicyTarget, String> {
    if !is_own(policy, written) {
        return Err("a policy can only target objects of its own namespace".into());
    }
    match written.target() {
        Some(PolicyTarget::GatewayClass(_)) if !cx.is_root(&policy.namespace) => Err(format!(
            "a GatewayClass can only be targeted from the root namespace {:?}",
            cx.settings.root_namespace
        )),
        Some(target) => Ok(target),
        None => Err(unknown(written, others)),
    }
}

fn unknown(TargetRef { group, kind, .. }: &TargetRef, others: &[&str]) -> String {
    let kinds =
        [&["Service (group \"\")", "ServiceEntry", "Gateway", "GatewayClass"], others].concat();
    let (last, first) = kinds.split_last().unwrap_or((&"", &[]));
    format!("{kind:?} of group {group:?} is not a target; {} and {last} are", first.join(", "))
}

/// The target is in the policy's own namespace.
fn is_own(policy: &ObjectKey, written: &TargetRef) -> bool {
    let namespace = written.namespace.as_deref();
    namespace.is_none_or(|namespace| namespace == policy.namespace.as_str())
}

/// The policies of a kind that have a selector, while they are collected.
#[derive(Default)]
pub(super) struct Selecting(BTreeMap<Str, Vec<(Labels, ObjectKey)>>);

impl Selecting {
    /// Notes the selector, if there is one, and passes the scope on.
    pub(super) fn scope_of(&mut self, policy: &ObjectKey, attachment: Attachment) -> Scope {
        match attachment {
            Attachment::Scope(scope) => scope,
            Attachment::Selector(labels) => {
                let of_namespace = self.0.entry(policy.namespace.clone()).or_default();
                of_namespace.push((labels, policy.clone()));
                Scope::Workloads
            }
        }
    }

    pub(super) fn finish(self) -> Selections {
        let lists = self.0.into_iter();
        Selections(lists.map(|(namespace, list)| (namespace, list.into_iter().collect())).collect())
    }
}

/// Which policies of a kind select which workloads, by the namespace of the policies.
#[derive(Default)]
pub(super) struct Selections(BTreeMap<Str, Selectors<ObjectKey>>);

impl Selections {
    /// The policies of a namespace that select a workload with these labels, in the order in which they were collected.
    pub(super) fn of<'a>(
        &'a self,
        namespace: &str,
        labels: Option<&'a Labels>,
    ) -> impl Iterator<Item = &'a ObjectKey> + use<'a> {
        self.0.get(namespace).into_iter().flat_map(move |selectors| selectors.selecting(labels))
    }

    /// The namespaces whose policies select otherwise than `before`.
    pub(super) fn differing(&self, before: &Selections) -> BTreeSet<Str> {
        let all = self.0.keys().chain(before.0.keys());
        let differs = |namespace: &&Str| self.0.get(*namespace) != before.0.get(*namespace);
        all.filter(differs).cloned().collect()
    }
}
