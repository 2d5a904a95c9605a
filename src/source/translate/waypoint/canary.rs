//! The second waypoint of a service, for a share of its connections (Istio 1.31, "Shift traffic between waypoints").
//!
//! As in Istio, it comes from where the first one is named: the object's own labels, or those of its namespace where the object
//! names no waypoint itself. One that cannot be used is told of, and the first one serves everything.

use super::super::{Context, namespace_label};
use super::{Addressed, NONE, Resolved, USE_WAYPOINT, Waypoints, label_field};
use crate::base::ObjectKey;
use crate::model::{Binding, Canary};
use crate::source::Topic;
use crate::source::objects::{Labelled, Namespace, Typed, annotation, label};

const CANARY: &str = "istio.io/use-waypoint-canary";
const CANARY_NAMESPACE: &str = "istio.io/use-waypoint-canary-namespace";
/// An annotation: how many of a hundred connections the canary gets; none without it.
const WEIGHT: &str = "istio.io/use-waypoint-canary-weight";
const MOST: u8 = 100;

impl Waypoints {
    /// `primary`: what the object is bound to.
    pub(in crate::source::translate) fn canary<T: Typed>(
        &self,
        cx: &mut Context<'_>,
        key: &ObjectKey,
        metadata: &impl Labelled,
        primary: &Binding,
    ) -> Option<Canary> {
        let Binding::Waypoint(primary) = primary else { return None };
        let namespace = &key.namespace;
        let inherits = label(metadata, USE_WAYPOINT).is_none();
        let own = label(metadata, CANARY).is_some();
        let named = |name: &str| match own {
            true => label(metadata, name),
            false => namespace_label(cx.objects, namespace, name).filter(|_| inherits),
        };
        let name = named(CANARY).filter(|name| !name.is_empty() && *name != NONE)?;
        let waypoint = ObjectKey::new(named(CANARY_NAMESPACE).unwrap_or(namespace), name);
        let of_namespace = cx.objects.get::<Namespace>(&ObjectKey::new("", namespace.clone()));
        let of_namespace = of_namespace.filter(|_| inherits);
        let weight = annotation(metadata, WEIGHT)
            .or_else(|| annotation(&of_namespace?.metadata, WEIGHT))
            .map_or(Ok(0), |text| text.parse::<u8>().ok().filter(|it| *it <= MOST).ok_or(text));
        let why = match weight {
            _ if waypoint == *primary => "is the waypoint of the service itself".to_owned(),
            Err(text) => {
                format!("has the weight {text:?} ({WEIGHT}), which is not from 0 to {MOST}")
            }
            Ok(weight) => match self.resolve(cx, &waypoint, namespace, Addressed::Service, None) {
                Resolved::Bound => return Some(Canary { waypoint, weight }),
                Resolved::OtherTraffic => "does not take traffic to services".to_owned(),
                Resolved::Missing(why) => why,
                Resolved::NotReady(why) | Resolved::Denied(why) => why.to_string(),
            },
        };
        let reason = format!("the canary {waypoint}: {why}; {primary} serves all connections");
        cx.warn::<T>(key, label_field(CANARY), reason);
        cx.about(Topic::WaypointMissing);
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::source::tests::translated;

    fn gateway(namespace: &str, name: &str, allowed: &str) -> String {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{gatewayClassName: istio-waypoint, listeners: [{{name: mesh, port: 15008, protocol: HBONE{allowed}}}]}}\n---\n"
        )
    }

    /// A namespace and a Service, each with labels and annotations; what its canary is, and whether something is told.
    fn canary(namespace: [&str; 2], service: [&str; 2]) -> (Option<(String, u8)>, bool) {
        let open = ", allowedRoutes: {namespaces: {from: All}}";
        let gateways = [
            gateway("shop", "wp", ""),
            gateway("shop", "next", ""),
            gateway("infra", "next", open),
            gateway("infra", "closed", ""),
        ];
        let metadata = |[labels, annotations]: [&str; 2]| {
            format!("labels: {{{labels}}}, annotations: {{{annotations}}}")
        };
        let text = format!(
            "{}apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, {}}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop, {}}}\n\
             spec: {{clusterIP: 10.96.0.1, ports: [{{name: http, port: 80}}]}}\n",
            gateways.concat(),
            metadata(namespace),
            metadata(service),
        );
        let translation = translated(&text);
        let found = translation.mesh.services[0].canary.clone();
        let told = translation.complaints.iter().any(|it| it.field.contains("canary"));
        (found.map(|it| (it.waypoint.to_string(), it.weight)), told)
    }

    const WP: &str = "istio.io/use-waypoint: wp";
    const NEXT: &str = "istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: next";
    const FIVE: &str = "istio.io/use-waypoint-canary-weight: '5'";

    /// istiod's rules (`ResolveUseWaypointCanary`, `buildWeightedWaypoints`).
    #[test]
    fn a_canary_is_of_the_level_that_names_the_waypoint() {
        let next = |weight| Some(("shop/next".to_owned(), weight));
        let nothing = ["", ""];
        for (namespace, service, expected, told) in [
            (nothing, [NEXT, FIVE], next(5), false),
            ([NEXT, FIVE], nothing, next(5), false),
            // The service names its own waypoint: its namespace's canary is another waypoint's.
            ([NEXT, FIVE], [WP, ""], None, false),
            ([NEXT, FIVE], [NEXT, ""], next(0), false),
            ([WP, FIVE], ["istio.io/use-waypoint-canary: next", ""], next(5), false),
            ([NEXT, FIVE], ["", "istio.io/use-waypoint-canary-weight: '70'"], next(70), false),
            (nothing, [NEXT, ""], next(0), false),
            (nothing, [NEXT, "istio.io/use-waypoint-canary-weight: '100'"], next(100), false),
            (nothing, [NEXT, "istio.io/use-waypoint-canary-weight: '101'"], None, true),
            (nothing, [NEXT, "istio.io/use-waypoint-canary-weight: '-1'"], None, true),
            (nothing, [NEXT, "istio.io/use-waypoint-canary-weight: half"], None, true),
            (
                nothing,
                ["istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: wp", FIVE],
                None,
                true,
            ),
            (
                nothing,
                ["istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: none", FIVE],
                None,
                false,
            ),
            (
                nothing,
                ["istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: gone", FIVE],
                None,
                true,
            ),
            // Without a waypoint there is nothing beside which another one could be tried.
            (nothing, ["istio.io/use-waypoint-canary: next", FIVE], None, false),
            ([NEXT, FIVE], ["istio.io/use-waypoint: none", ""], None, false),
        ] {
            assert_eq!(canary(namespace, service), (expected, told), "{namespace:?} {service:?}");
        }
        let elsewhere = |name: &str| {
            format!(
                "{WP}, istio.io/use-waypoint-canary: {name}, istio.io/use-waypoint-canary-namespace: infra"
            )
        };
        let open = canary(nothing, [&elsewhere("next"), FIVE]);
        assert_eq!(open, (Some(("infra/next".to_owned(), 5)), false));
        assert_eq!(canary(nothing, [&elsewhere("closed"), FIVE]), (None, true));
    }
}
