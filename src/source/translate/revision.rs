//! Whose an object is, where several meshes share a cluster (Istio "Canary upgrades", label `istio.io/rev`).
//!
//! A Gateway, a route, and an object of a kind that is not carried out are left alone when they name a revision that is not one
//! of ours. What guards holds whatever its label says: leaving a policy out could only let something past. Without a label
//! an object is everybody's.

use super::{TranslateSettings, namespace_label};
use crate::base::ObjectKey;
use crate::source::Objects;
use crate::source::objects::{Gateway, Labelled, label};

/// Names the revision of the mesh, or a tag of it, that an object is meant for.
pub(super) const REVISION: &str = "istio.io/rev";

/// Whether an object with these labels is meant for a revision that is not one of ours.
pub fn is_of_other_revision(settings: &TranslateSettings, object: &impl Labelled) -> bool {
    unless_ours(settings, label(object, REVISION)).is_some()
}

/// The revision that a Gateway is meant for, where that is not one of ours. One without the label has its namespace's
/// (istiod, `TagWatcher.IsMine`).
pub fn other_revision_of_gateway<'a>(
    objects: &'a Objects,
    settings: &TranslateSettings,
    key: &'a ObjectKey,
    gateway: &'a Gateway,
) -> Option<&'a str> {
    let own = label(&gateway.metadata, REVISION);
    let named = own.or_else(|| namespace_label(objects, &key.namespace, REVISION));
    unless_ours(settings, named)
}

fn unless_ours<'a>(settings: &TranslateSettings, named: Option<&'a str>) -> Option<&'a str> {
    named.filter(|name| !name.is_empty() && settings.revisions.iter().all(|ours| ours != name))
}

#[cfg(test)]
mod tests {
    use crate::model::Binding;
    use crate::source::TranslateSettings;
    use crate::source::tests::translated_with;

    /// A Service in a namespace with a waypoint, both with labels.
    fn mesh(namespace: &str, gateway: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{{namespace}}}}}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
             metadata: {{name: wp, namespace: shop, labels: {{{gateway}}}}}\n\
             spec: {{gatewayClassName: istio-waypoint, listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}\n---\n\
             apiVersion: v1\nkind: Service\n\
             metadata: {{name: web, namespace: shop, labels: {{istio.io/use-waypoint: wp}}}}\n\
             spec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}]}}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: r, namespace: shop, labels: {{{gateway}}}}}\n\
             spec: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [{{}}]}}\n---\n\
             apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: p, namespace: shop, labels: {{{gateway}}}}}\nspec: {{}}\n"
        )
    }

    #[test]
    fn gateways_and_routes_of_others_are_left_alone_and_policies_hold() {
        for (ours, namespace, gateway, left_alone) in [
            ("default", "", "", false),
            ("default", "", "istio.io/rev: default", false),
            ("default", "", "istio.io/rev: ''", false),
            ("default", "", "istio.io/rev: canary", true),
            ("canary", "", "istio.io/rev: canary", false),
            ("canary", "", "istio.io/rev: default", true),
            ("canary", "", "", false),
            ("default", "istio.io/rev: canary", "", true),
            ("default", "istio.io/rev: canary", "istio.io/rev: default", false),
            ("default", "istio.io/rev: default", "istio.io/rev: canary", true),
        ] {
            let revisions = vec![ours.into(), "a-tag".into()];
            let settings = TranslateSettings { revisions, ..TranslateSettings::default() };
            let translation = translated_with(&mesh(namespace, gateway), &settings);
            let mesh = &translation.mesh;
            let case = (ours, namespace, gateway);
            assert_eq!(mesh.waypoints.is_empty(), left_alone, "{case:?}");
            let told = translation.complaints.iter();
            let told = told.filter(|it| it.kind == "Gateway" && it.field.contains("istio.io/rev"));
            assert_eq!(told.count(), usize::from(left_alone), "{case:?}");
            // What named it is refused, not let past.
            let bound = &mesh.services[0].waypoint;
            assert_eq!(matches!(bound, Binding::Unusable { .. }), left_alone, "{case:?}");
            let own = !gateway.is_empty() && left_alone;
            assert_eq!(mesh.routes.is_empty(), own, "{case:?}");
            assert_eq!(mesh.policies.len(), 1, "{case:?}");
        }
    }
}
