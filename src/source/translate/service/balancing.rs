//! Which endpoints a client gets: what the service says of nodes, zones and clients.

use k8s_openapi::api::core::v1::{Namespace, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::Context;
use crate::base::ObjectKey;
use crate::model::{Balancing, Preference, Resolution};
use crate::source::objects::{Service, ServiceEntry, Typed, annotation};

/// Istio's annotation, on a Service, a ServiceEntry or its namespace; the field of Kubernetes wins, then the object's own.
const DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// Istio's annotation of ServiceEntries (1.30), and its values.
const STRATEGY: &str = "istio.io/connect-strategy";
const DEFAULT: &str = "DEFAULT";
const RACE: &str = "RACE_FIRST_TCP_CONNECT";

pub(super) fn of(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    metadata: &ObjectMeta,
    spec: &ServiceSpec,
) -> Balancing {
    Balancing {
        local_only: is(
            cx,
            key,
            "spec.internalTrafficPolicy",
            &spec.internal_traffic_policy,
            ["Local", "Cluster"],
        ),
        sticky: is(cx, key, "spec.sessionAffinity", &spec.session_affinity, ["ClientIP", "None"]),
        weighted: false,
        preference: preference::<Service>(cx, key, metadata, spec.traffic_distribution.as_deref()),
        races: false,
    }
}

/// Whether a ServiceEntry has clients connect to several of its addresses at once. As in Istio, names must be resolved, and the
/// letters' case means nothing.
pub(in crate::source::translate) fn races(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    metadata: &ObjectMeta,
    resolution: Option<Resolution>,
) -> bool {
    let asks = |value: &&str| !value.is_empty() && !value.eq_ignore_ascii_case(DEFAULT);
    let Some(value) = annotation(metadata, STRATEGY).filter(asks) else { return false };
    let field = format!("metadata.annotations[{STRATEGY:?}]");
    if !value.eq_ignore_ascii_case(RACE) {
        let reason = format!("{value:?} is not {RACE}; addresses are tried one after the other");
        cx.warn::<ServiceEntry>(key, field, reason);
        return false;
    }
    let names = matches!(resolution, Some(Resolution::Names | Resolution::Dynamic));
    if !names {
        let reason = "has no effect: only names (resolution DNS, DNS_ROUND_ROBIN or DYNAMIC_DNS) have addresses to race to";
        cx.warn::<ServiceEntry>(key, field, reason);
    }
    names
}

/// Whether the first of two values is given; neither of them is said aloud, and then the second one holds.
fn is(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    field: &str,
    value: &Option<String>,
    [yes, no]: [&str; 2],
) -> bool {
    match value.as_deref() {
        Some(value) if value == yes => true,
        Some(value) if value != no && !value.is_empty() => {
            let reason = format!("{value:?} is neither {yes:?} nor {no:?}; {no:?} holds");
            cx.warn::<Service>(key, field, reason);
            false
        }
        _ => false,
    }
}

/// `field`: what `spec.trafficDistribution` says, on kinds that have it.
pub(in crate::source::translate) fn preference<T: Typed>(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    metadata: &ObjectMeta,
    field: Option<&str>,
) -> Preference {
    let namespace = ObjectKey::new("", key.namespace.clone());
    let of_namespace = cx.objects.get::<Namespace>(&namespace);
    let of_namespace = of_namespace.and_then(|it| annotation(&it.metadata, DISTRIBUTION));
    let own = annotation(metadata, DISTRIBUTION);
    let annotated = own.or(of_namespace);
    let (field, value) = match field {
        Some(value) => ("spec.trafficDistribution".to_owned(), value),
        None => (format!("metadata.annotations[{DISTRIBUTION}]"), annotated.unwrap_or_default()),
    };
    match value {
        "" | "Any" => Preference::None,
        "PreferClose" | "PreferSameZone" => Preference::SameZone,
        "PreferSameNode" => Preference::SameNode,
        other => {
            let reason = format!("{other:?} is not known; all endpoints are equal");
            cx.warn::<T>(key, field, reason);
            Preference::None
        }
    }
}
