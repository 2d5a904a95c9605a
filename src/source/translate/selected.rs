//! Policies whose selectors select no pod. How many pods each one selects is counted, so that a pod that moves costs the
//! policies of its namespace, and of the root namespace, and no look at other pods.

use std::collections::BTreeMap;

use super::Context;
use super::roster::{Member, Moved, Roster};
use crate::base::{ObjectKey, Str};
use crate::source::objects::{
    AuthorizationPolicy, Kind, Labelled, Labels, PeerAuthentication, RequestAuthentication,
    Sidecar, WorkloadSelector, selects,
};
use crate::source::{Severity, Topic};

/// Kept from translation to translation.
#[derive(Default)]
pub(super) struct Selected(BTreeMap<Str, Vec<Selecting>>);

/// One policy with a selector.
struct Selecting {
    kind: Kind,
    key: ObjectKey,
    labels: Labels,
    pods: usize,
}

impl Selecting {
    fn is_same(&self, other: &Selecting) -> bool {
        (self.kind, &self.key, &self.labels) == (other.kind, &other.key, &other.labels)
    }
}

impl Selected {
    /// Follows the pods that moved; `policies`: the policies may have changed, too.
    pub(super) fn update(
        &mut self,
        cx: &Context<'_>,
        roster: &Roster,
        moved: &[Moved],
        policies: bool,
    ) {
        for moved in moved {
            self.count(cx, &moved.key.namespace, moved.before.as_ref(), usize::wrapping_sub);
            self.count(cx, &moved.key.namespace, moved.after.as_ref(), usize::wrapping_add);
        }
        if policies {
            self.follow(cx, roster);
        }
    }

    fn count(
        &mut self,
        cx: &Context<'_>,
        namespace: &Str,
        member: Option<&Member>,
        step: fn(usize, usize) -> usize,
    ) {
        let Some(pod) = member.and_then(Member::pod) else { return };
        let root = Some(&cx.settings.root_namespace).filter(|root| *root != namespace);
        for namespace in [Some(namespace), root].into_iter().flatten() {
            for policy in self.0.get_mut(namespace).into_iter().flatten() {
                if selects(&policy.labels, pod.labels()) {
                    policy.pods = step(policy.pods, 1);
                }
            }
        }
    }

    /// Counts anew in namespaces whose policies select otherwise than before.
    fn follow(&mut self, cx: &Context<'_>, roster: &Roster) {
        let mut before = std::mem::take(&mut self.0);
        for (namespace, mut policies) in collect(cx) {
            if let Some(known) = before.remove(&namespace)
                && known.len() == policies.len()
                && known.iter().zip(&policies).all(|(one, two)| one.is_same(two))
            {
                self.0.insert(namespace, known);
                continue;
            }
            let everywhere = cx.is_root(&namespace);
            let here = roster.namespace(&namespace).filter(|_| !everywhere);
            let all = roster.members().filter(|_| everywhere);
            for member in here.chain(all) {
                let labels = member.pod().and_then(|pod| pod.labels());
                for policy in policies.iter_mut().filter(|it| selects(&it.labels, labels)) {
                    policy.pods += 1;
                }
            }
            self.0.insert(namespace, policies);
        }
    }

    pub(super) fn complain(&self, cx: &mut Context<'_>, roster: &Roster) {
        if roster.is_empty() {
            return;
        }
        for policy in self.0.values().flatten().filter(|policy| policy.pods == 0) {
            let whose = match cx.is_root(&policy.key.namespace) {
                true => "of any namespace",
                false => "of the namespace",
            };
            let reason = format!(
                "selects no pod {whose}, so the policy does nothing until a pod has these labels; check their spelling"
            );
            let field = "spec.selector".to_owned();
            cx.complain(Severity::Warning, policy.kind, &policy.key, field, reason);
            cx.about(Topic::SelectsNothing);
        }
    }
}

fn labels(selector: Option<&WorkloadSelector>) -> Option<&Labels> {
    selector.map(|it| &it.match_labels)
}

fn collect(cx: &Context<'_>) -> BTreeMap<Str, Vec<Selecting>> {
    let objects = cx.objects;
    let mut found: BTreeMap<Str, Vec<Selecting>> = BTreeMap::new();
    let mut add = |kind, key: &ObjectKey, labels: Option<&Labels>| {
        let Some(labels) = labels.filter(|labels| !labels.is_empty()) else { return };
        let policy = Selecting { kind, key: key.clone(), labels: labels.clone(), pods: 0 };
        found.entry(key.namespace.clone()).or_default().push(policy);
    };
    for (key, policy) in objects.all::<AuthorizationPolicy>() {
        let spec = &policy.spec;
        // Beside targets a selector is an error.
        let alone = spec.target_ref.is_none() && spec.target_refs.is_empty();
        add(Kind::AuthorizationPolicy, key, labels(spec.selector.as_ref()).filter(|_| alone));
    }
    for (key, object) in objects.all::<RequestAuthentication>() {
        add(Kind::RequestAuthentication, key, labels(object.spec.selector.as_ref()));
    }
    for (key, policy) in objects.all::<PeerAuthentication>() {
        // In the root namespace a selector is ignored.
        let heeded = !cx.is_root(&key.namespace);
        add(
            Kind::PeerAuthentication,
            key,
            labels(policy.spec.selector.as_ref()).filter(|_| heeded),
        );
    }
    for (key, sidecar) in objects.all::<Sidecar>() {
        let selector = sidecar.spec.workload_selector.as_ref();
        add(Kind::Sidecar, key, selector.map(|it| &it.labels));
    }
    found
}
