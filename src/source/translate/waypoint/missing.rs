//! A waypoint that is named and does not exist. Its traffic is refused, or as the setting `missing_waypoint` may have it goes on
//! at layer 4 until there is one, as in Istio: so whoever labels first and writes the Gateway later can move over.
//!
//! That must be no way around a waypoint. Only one that certainly does not exist counts as missing: not one that was refused,
//! is of another class or revision, is not ready or does not admit the object; nor where a policy is attached to the waypoint or to
//! what names it, since that policy would not be enforced at layer 4.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::Context;
use super::CLASS;
use crate::base::{ObjectKey, Str};
use crate::config::MissingWaypoint;
use crate::model::{Action, AuthorizationPolicy, PolicyTarget, Scope};
use crate::source::objects::Kind;
use crate::source::{Complaint, Severity};

/// What speaks against letting past; nothing where the setting does not ask for it.
#[derive(Default, PartialEq)]
pub(super) struct Objections {
    /// What policies are attached to, by their namespaces.
    attached: HashSet<(Str, PolicyTarget)>,
    /// Gateways that were refused; `None`: something that could not be read and may be any.
    unread: HashSet<Option<ObjectKey>>,
}

impl Objections {
    pub(super) fn collect(cx: &Context<'_>, policies: &[Arc<AuthorizationPolicy>]) -> Self {
        if cx.settings.missing_waypoint == MissingWaypoint::Refuse {
            return Self::default();
        }
        let enforced = policies.iter().filter(|it| !it.dry_run && it.action != Action::Audit);
        let attached = enforced.flat_map(|policy| {
            let targets = match &policy.scope {
                Scope::Targets(targets) => &targets[..],
                _ => &[],
            };
            targets.iter().map(|target| (policy.key.namespace.clone(), target.clone()))
        });
        let may_be_one = |complaint: &&Complaint| {
            complaint.severity == Severity::Error
                && (complaint.kind.is_empty() || complaint.kind == Kind::Gateway.name())
        };
        let unread = cx.objects.complaints().iter().filter(may_be_one);
        Self {
            attached: attached.collect(),
            unread: unread.map(|complaint| complaint.object.clone()).collect(),
        }
    }

    fn is_attached(&self, namespace: &Str, target: PolicyTarget) -> bool {
        self.attached.contains(&(namespace.clone(), target))
    }

    fn may_be_there(&self, waypoint: &ObjectKey) -> bool {
        self.unread.contains(&None) || self.unread.contains(&Some(waypoint.clone()))
    }
}

/// What becomes of an object whose waypoint is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is refused; what is to be said of the Gateway.
    Refused(&'static str),
    /// It goes on at layer 4.
    Layer4,
}

/// The one rule, for a Gateway that is not among the objects. `target`: what policies call the object that names the waypoint,
/// in its `namespace`.
pub(super) fn missing(
    cx: &Context<'_>,
    objections: &Objections,
    waypoint: &ObjectKey,
    namespace: &str,
    target: Option<&PolicyTarget>,
) -> Missing {
    if cx.settings.missing_waypoint == MissingWaypoint::Refuse {
        return Missing::Refused("does not exist, or was refused");
    }
    if objections.may_be_there(waypoint) {
        return Missing::Refused("was refused, or may stand in what cannot be read");
    }
    let own = target.is_some_and(|it| objections.is_attached(&namespace.into(), it.clone()));
    let gateway = PolicyTarget::Gateway(waypoint.name.clone());
    let gateway = objections.is_attached(&waypoint.namespace, gateway);
    let class = PolicyTarget::GatewayClass(CLASS.into());
    let class = objections.is_attached(&cx.settings.root_namespace, class);
    match own || gateway || class {
        true => Missing::Refused("does not exist, and policies are attached that only it enforces"),
        false => Missing::Layer4,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::MissingWaypoint;
    use crate::model::Binding;
    use crate::source::TranslateSettings;
    use crate::source::tests::translated_with;

    const LISTENERS: &str = "listeners: [{name: mesh, port: 15008, protocol: HBONE}]";

    fn gateway(metadata: &str, spec: &str) -> String {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{{metadata}}}\nspec: {{{spec}}}\n"
        )
    }

    fn policy(namespace: &str, spec: &str) -> String {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: p, namespace: {namespace}}}\nspec: {{{spec}}}\n"
        )
    }

    fn targets(group: &str, kind: &str, name: &str) -> String {
        format!("targetRefs: [{{group: '{group}', kind: {kind}, name: {name}}}]")
    }

    /// What becomes of a Service that names the waypoint `shop/wp`, beside `other`.
    fn binding(other: &str, setting: MissingWaypoint) -> (Binding, Vec<String>) {
        let text = format!(
            "apiVersion: v1\nkind: Service\n\
             metadata: {{name: web, namespace: shop, labels: {{istio.io/use-waypoint: wp}}}}\n\
             spec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}]}}\n---\n{other}"
        );
        let settings =
            TranslateSettings { missing_waypoint: setting, ..TranslateSettings::default() };
        let translation = translated_with(&text, &settings);
        let complaints = translation.complaints.iter().map(ToString::to_string).collect();
        (translation.mesh.services[0].waypoint.clone(), complaints)
    }

    #[test]
    fn only_a_waypoint_that_is_certainly_missing_lets_past_and_only_when_asked_to() {
        let api = "gateway.networking.k8s.io";
        let class = format!("gatewayClassName: istio-waypoint, {LISTENERS}");
        let own = "name: wp, namespace: shop";
        for (what, other, past) in [
            ("nothing", String::new(), true),
            ("another Gateway", gateway("name: other, namespace: shop", &class), true),
            ("one of that name elsewhere", gateway("name: wp, namespace: other", &class), true),
            (
                "another class",
                gateway(own, &format!("gatewayClassName: istio, {LISTENERS}")),
                false,
            ),
            ("no listener", gateway(own, "gatewayClassName: istio-waypoint"), false),
            ("one that was refused", gateway(own, "gatewayClassNaem: istio-waypoint"), false),
            ("one with a broken syntax", gateway(own, "gatewayClassName: [istio-waypoint"), false),
            ("a document that may be it", "kind: [\n".to_owned(), false),
            (
                "another revision",
                gateway(&format!("{own}, labels: {{istio.io/rev: other}}"), &class),
                false,
            ),
            (
                "a label that is not understood",
                gateway(&format!("{own}, labels: {{istio.io/waypoint-for: everything}}"), &class),
                false,
            ),
            (
                "one that does not admit the namespace",
                gateway(
                    own,
                    "gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE, \
                     allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {a: b}}}}}]",
                ),
                false,
            ),
            ("a policy for the Service", policy("shop", &targets("", "Service", "web")), false),
            ("a policy for the waypoint", policy("shop", &targets(api, "Gateway", "wp")), false),
            (
                "a policy for all waypoints",
                policy("istio-system", &targets(api, "GatewayClass", "istio-waypoint")),
                false,
            ),
            ("a policy for another Service", policy("shop", &targets("", "Service", "x")), true),
            ("a policy elsewhere", policy("other", &targets("", "Service", "web")), true),
            ("a policy that holds at layer 4 too", policy("shop", ""), true),
        ] {
            let (bound, complaints) = binding(&other, MissingWaypoint::Layer4);
            assert_eq!(bound == Binding::None, past, "{what}: {bound:?} {complaints:?}");
            assert_eq!(matches!(bound, Binding::Unusable { .. }), !past, "{what}");
            let told = complaints.iter().any(|it| it.contains("until there is one, layer 4 alone"));
            assert_eq!(told, past, "{what}: {complaints:?}");
            let (bound, _) = binding(&other, MissingWaypoint::Refuse);
            assert!(matches!(bound, Binding::Unusable { .. }), "{what}: refused by default");
        }
    }
}
