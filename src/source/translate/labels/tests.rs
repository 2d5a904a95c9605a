use super::*;
use crate::source::tests::translated;

#[test]
fn each_name_means_what_the_table_says() {
    use Kind::{AuthorizationPolicy, Gateway, HTTPRoute, Namespace, Pod, Service, WorkloadEntry};
    use Place::{Annotation, Label};
    for (kind, place, name, value, expected) in [
        // Carried out, or nobody's business here.
        (Namespace, Label, "istio.io/dataplane-mode", "ambient", None),
        (Service, Label, "istio.io/use-waypoint", "waypoint", None),
        (Gateway, Label, "istio.io/waypoint-for", "all", None),
        (Pod, Label, "app", "x", None),
        (Pod, Label, "example.io/use-waypoint", "x", None),
        (Pod, Annotation, "sidecar.istio.io/status", "{}", None),
        (Pod, Annotation, "proxy.istio.io/config", "x", None),
        (Namespace, Label, "istio.io/rev", "canary", None),
        (Namespace, Label, "istio-injection", "disabled", None),
        (Pod, Label, "sidecar.istio.io/inject", "false", None),
        (Service, Label, "istio.io/ingress-use-waypoint", "false", None),
        (Service, Label, "istio.io/ingress-use-waypoint", "yes", Some("true")),
        (Service, Label, "istio.io/use-waypoint-canary", "other", None),
        (Service, Label, "istio.io/use-waypoint-canary-weight", "10", Some("as an annotation")),
        (Pod, Label, "gateway.networking.k8s.io/gateway-name", "x", None),
        (Pod, Label, "istio", "pilot", None),
        // Not carried out.
        (Namespace, Label, "istio-injection", "enabled", Some("istio.io/dataplane-mode: ambient")),
        (Pod, Annotation, "sidecar.istio.io/inject", "true", Some("no sidecar is injected")),
        (Service, Annotation, "networking.istio.io/exportTo", ".", Some("AuthorizationPolicy")),
        (Pod, Annotation, "ambient.istio.io/redirection", "disabled", Some("dataplane-mode: none")),
        // In the wrong place.
        (Service, Annotation, "istio.io/use-waypoint", "waypoint", Some("write it as a label")),
        (AuthorizationPolicy, Label, "istio.io/dry-run", "true", Some("write it as an annotation")),
        (HTTPRoute, Label, "istio.io/use-waypoint", "waypoint", Some("only of Namespace")),
        (WorkloadEntry, Label, "istio.io/use-waypoint", "waypoint", Some("of kind WorkloadEntry")),
        (Service, Label, "istio.io/dataplane-mode", "ambient", Some("only of Namespace, Pod")),
        // Misspelt.
        (Service, Label, "istio.io/use-waypiont", "x", Some("is \"istio.io/use-waypoint\" meant?")),
        (Service, Label, "istio.io/usewaypoint", "x", Some("is \"istio.io/use-waypoint\" meant?")),
        (
            Namespace,
            Label,
            "istio.io/dataplane_mode",
            "ambient",
            Some("\"istio.io/dataplane-mode\""),
        ),
        (
            Pod,
            Annotation,
            "ambient.istio.io/dns-captrue",
            "true",
            Some("\"ambient.istio.io/dns-capture\""),
        ),
        (Pod, Label, "ambient.istio.io/something-quite-different", "x", Some("check its spelling")),
        (Pod, Annotation, "isthmus.io/nodes", "x", Some("\"isthmus.io/node\"")),
        (
            Kind::ServiceEntry,
            Label,
            "networking.istio.io/enable-autoallocate-ip",
            "False",
            Some("\"false\" meant?"),
        ),
    ] {
        let said = judge(kind, place, name, value).map(|(_, reason)| reason);
        match (expected, &said) {
            (None, None) => {}
            (Some(part), Some(reason)) if reason.contains(part) => {}
            _ => panic!("{kind} {name} {value}: {said:?}"),
        }
    }
}

#[test]
fn no_name_stands_twice_and_each_means_something_somewhere() {
    for (index, known) in TABLE.iter().enumerate() {
        let same = |other: &&Known| other.name == known.name && other.place == known.place;
        assert_eq!(TABLE.iter().filter(same).count(), 1, "{index} {}", known.name);
        assert!(known.on.is_empty() == matches!(known.meaning, Meaning::Silent), "{}", known.name);
    }
}

/// Gateways, policies and entries are checked by the table of kinds, so that nobody forgets one.
#[test]
fn kinds_are_checked_as_a_whole_when_one_of_their_objects_changes() {
    let policy = "apiVersion: isthmus.io/v1alpha1\nkind: TrafficPolicy\n\
                  metadata: {name: p, namespace: shop, labels: {istio.io/use-waypiont: w}}\n\
                  spec: {targetRefs: [{group: '', kind: Service, name: web}]}\n";
    let field = "metadata.labels[\"istio.io/use-waypiont\"]";
    let complaints = translated(policy).complaints;
    assert!(complaints.iter().any(|it| it.field == field), "{complaints:?}");
    for kind in [Kind::Gateway, Kind::TrafficPolicy, Kind::WorkloadEntry] {
        assert!(is_checked_as_a_whole(kind), "{kind}");
    }
    for kind in [Kind::Pod, Kind::HTTPRoute, Kind::EndpointSlice, Kind::VirtualService] {
        assert!(!is_checked_as_a_whole(kind), "{kind}");
    }
}
