//! Gateways of class `istio-waypoint`, and which of them an object is bound to (Istio "Configure waypoint proxies").
//!
//! A waypoint that is named but cannot be used refuses the traffic that it was meant to guard; istiod lets that traffic
//! past. No address is waited for: nothing has to be deployed for a waypoint to work.

mod bindings;
mod canary;
mod missing;
mod unused;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::revision::{REVISION, other_revision_of_gateway};
use super::{Context, namespace_label};
use crate::base::{Identity, ObjectKey, Str, nearest, ports};
use crate::model::{AuthorizationPolicy, Binding, PolicyTarget, Waypoint};
use crate::source::objects::{
    AllowedNamespaces, Gateway, GatewayClass, Kind, Labelled, Listener, Namespace, NamespacesFrom,
    Typed, annotation, label,
};
use crate::source::{Objects, Topic};
pub use bindings::WaypointBindings;
use missing::{Missing, Objections, missing};

/// The Gateway class that makes a Gateway a waypoint.
pub const CLASS: &str = "istio-waypoint";
/// Names the waypoint of an object or namespace; `none` opts out of the namespace's.
pub(super) const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Opts out.
const NONE: &str = "none";
/// Where that waypoint lives; the object's own namespace by default.
pub(super) const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// Whether what gateways send to an object passes its waypoint; also on its namespace.
const INGRESS: &str = "istio.io/ingress-use-waypoint";
/// Which traffic a waypoint takes: `service` (default), `workload`, `all` or `none`; a Gateway's own, or that of its class.
const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// On a Gateway or its class: applications are told who the client is.
const NAME_CLIENTS: &str = "ambient.istio.io/xfcc-include-client-identity";
/// On the pods of gateways, which never have a waypoint themselves.
pub(super) const MANAGED: &str = "gateway.istio.io/managed";

/// How a complaint of a waypoint that is missing and not waited for is known.
pub const LAYER4_ALONE: &str = "until there is one, layer 4 alone holds";

/// What traffic is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addressed {
    Service,
    Workload,
}

/// All Gateways, as candidates for a binding.
#[derive(PartialEq)]
pub(super) struct Waypoints {
    candidates: BTreeMap<ObjectKey, Candidate>,
    objections: Objections,
}

#[derive(PartialEq)]
struct Candidate {
    for_services: bool,
    for_workloads: bool,
    outcome: Result<Usable, Str>,
}

#[derive(PartialEq)]
struct Usable {
    waypoint: Arc<Waypoint>,
    /// One an HBONE listener.
    allowed: Vec<AllowedNamespaces>,
}

impl Waypoints {
    pub(super) fn collect(cx: &mut Context<'_>) -> Self {
        let objects = cx.objects;
        let gateways = objects.all::<Gateway>();
        let candidates =
            gateways.map(|(key, gateway)| (key.clone(), candidate(cx, key, gateway))).collect();
        Self { candidates, objections: Objections::default() }
    }

    /// Policies that are attached to a waypoint speak against going on without it.
    pub(super) fn heed(&mut self, cx: &Context<'_>, policies: &[Arc<AuthorizationPolicy>]) {
        self.objections = Objections::collect(cx, policies);
    }

    pub(super) fn usable(&self) -> impl Iterator<Item = &Arc<Waypoint>> {
        self.candidates
            .values()
            .filter_map(|candidate| Some(&candidate.outcome.as_ref().ok()?.waypoint))
    }

    /// Whether the Gateway exists, whatever its class.
    pub(super) fn knows(&self, gateway: &ObjectKey) -> bool {
        self.candidates.contains_key(gateway)
    }

    /// The binding of the object `key` with these labels: by its own one, else by its namespace's.
    pub(super) fn bind<T: Typed>(
        &self,
        cx: &mut Context<'_>,
        key: &ObjectKey,
        metadata: &impl Labelled,
        addressed: Addressed,
    ) -> Binding {
        if addressed == Addressed::Workload && label(metadata, MANAGED).is_some() {
            return Binding::None;
        }
        let own = label(metadata, USE_WAYPOINT);
        let Some(waypoint) = named(cx.objects, &key.namespace, Some(metadata)) else {
            return Binding::None;
        };

        let target = target(T::KIND, key);
        match self.resolve(cx, &waypoint, &key.namespace, addressed, target.as_ref()) {
            Resolved::Bound => Binding::Waypoint(waypoint),
            Resolved::OtherTraffic => {
                if own.is_some() {
                    let reason = mismatch(&waypoint, addressed);
                    cx.warn::<T>(key, label_field(USE_WAYPOINT), reason);
                    cx.about(Topic::WaypointOfOtherTraffic);
                }
                Binding::None
            }
            Resolved::Missing(why) => {
                match own {
                    Some(_) => cx.warn::<T>(key, label_field(USE_WAYPOINT), why),
                    None => {
                        let namespace = ObjectKey::new("", key.namespace.clone());
                        cx.warn::<Namespace>(&namespace, label_field(USE_WAYPOINT), why);
                    }
                }
                cx.about(Topic::WaypointMissing);
                Binding::None
            }
            Resolved::NotReady(why) | Resolved::Denied(why) => {
                let reason = format!("{why}; traffic that should go through it is refused");
                match own {
                    Some(_) => cx.error::<T>(key, label_field(USE_WAYPOINT), reason),
                    None => {
                        let namespace = ObjectKey::new("", key.namespace.clone());
                        cx.error::<Namespace>(&namespace, label_field(USE_WAYPOINT), reason);
                    }
                }
                cx.about(Topic::WaypointMissing);
                Binding::Unusable { waypoint, why }
            }
        }
    }

    /// What somebody meant who named a waypoint that is not there: another one of the namespace, or none.
    fn meant(&self, waypoint: &ObjectKey) -> Option<&str> {
        let said = waypoint.name.trim().to_lowercase();
        let there = self.candidates.keys().filter(|key| key.namespace == waypoint.namespace);
        let none = || nearest(&said, [NONE].into_iter()).filter(|_| said.starts_with("no"));
        nearest(&said, there.map(|key| key.name.as_str())).or_else(none)
    }

    fn resolve(
        &self,
        cx: &Context<'_>,
        waypoint: &ObjectKey,
        namespace: &str,
        addressed: Addressed,
        target: Option<&PolicyTarget>,
    ) -> Resolved {
        let Some(candidate) = self.candidates.get(waypoint) else {
            let meant = self.meant(waypoint).map(|name| format!(" (is {name:?} meant?)"));
            let meant = meant.unwrap_or_default();
            return match missing(cx, &self.objections, waypoint, namespace, target) {
                Missing::Refused(why) => {
                    Resolved::NotReady(format!("the Gateway {waypoint} {why}{meant}").into())
                }
                Missing::Layer4 => Resolved::Missing(format!(
                    "the Gateway {waypoint} does not exist{meant}; {LAYER4_ALONE} (missing_waypoint = \"layer4\" in the settings)"
                )),
            };
        };
        let takes = match addressed {
            Addressed::Service => candidate.for_services,
            Addressed::Workload => candidate.for_workloads,
        };
        if !takes {
            return Resolved::OtherTraffic;
        }
        let usable = match &candidate.outcome {
            Ok(usable) => usable,
            Err(why) => return Resolved::NotReady(why.clone()),
        };
        let admits = |allowed: &AllowedNamespaces| match allowed.from {
            NamespacesFrom::All => true,
            NamespacesFrom::Same => waypoint.namespace == namespace,
            // A selector that is missing takes nothing (Kubernetes API, LabelSelector).
            NamespacesFrom::Selector => allowed.selector.as_ref().is_some_and(|selector| {
                selector.matches(|name| namespace_label(cx.objects, namespace, name))
            }),
        };
        if usable.allowed.iter().any(admits) {
            return Resolved::Bound;
        }
        let why = format!(
            "allowedRoutes of the Gateway {waypoint} does not admit the namespace {namespace:?}"
        );
        Resolved::Denied(why.into())
    }
}

/// What became of naming a waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    Bound,
    /// The waypoint does not take traffic of this kind.
    OtherTraffic,
    /// It does not exist, and traffic goes on at layer 4 as the settings have it; in words.
    Missing(String),
    /// It cannot be used, or does not exist; the reason.
    NotReady(Str),
    /// It does not admit objects of this namespace; the reason.
    Denied(Str),
}

/// Whether gateways that dial the object's pods mean the object (Istio, `istio.io/ingress-use-waypoint`): by its own label, else by
/// its namespace's. Another value is told of by [`labels`](super::labels), and asks for nothing.
pub(super) fn takes_ingress(cx: &Context<'_>, namespace: &str, own: &impl Labelled) -> bool {
    let value = label(own, INGRESS).or_else(|| namespace_label(cx.objects, namespace, INGRESS));
    value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// What policies call an object that names a waypoint.
fn target(kind: Kind, key: &ObjectKey) -> Option<PolicyTarget> {
    match kind {
        Kind::Service => Some(PolicyTarget::Service(key.name.clone())),
        Kind::ServiceEntry => Some(PolicyTarget::ServiceEntry(key.name.clone())),
        _ => None,
    }
}

/// The waypoint that an object's own label names, else its namespace's.
fn named(objects: &Objects, namespace: &str, own: Option<&impl Labelled>) -> Option<ObjectKey> {
    let own = own.filter(|metadata| label(*metadata, USE_WAYPOINT).is_some());
    let look_up = |name: &str| match own {
        Some(metadata) => label(metadata, name),
        None => namespace_label(objects, namespace, name),
    };
    let name = look_up(USE_WAYPOINT).filter(|name| *name != NONE)?;
    Some(ObjectKey::new(look_up(USE_WAYPOINT_NAMESPACE).unwrap_or(namespace), name))
}

fn candidate(cx: &mut Context<'_>, key: &ObjectKey, gateway: &Gateway) -> Candidate {
    let class = gateway.spec.gateway_class_name.as_str();
    let unusable = |why: String| Candidate {
        for_services: true,
        for_workloads: true,
        outcome: Err(why.into()),
    };
    if let Err(why) = is_ours(cx, key, gateway) {
        return unusable(why);
    }
    let of_class = cx.objects.get::<GatewayClass>(&ObjectKey::new("", CLASS));
    let of_class = of_class.and_then(|class| label(&class.metadata, WAYPOINT_FOR));
    let (for_services, for_workloads) = match label(&gateway.metadata, WAYPOINT_FOR).or(of_class) {
        None | Some("service") => (true, false),
        Some("workload") => (false, true),
        Some("all") => (true, true),
        Some("none") => (false, false),
        Some(other) => {
            let mut reason = format!("{other:?} is none of service, workload, all and none");
            let values = ["service", "workload", "all", "none"];
            if let Some(meant) = nearest(&other.trim().to_lowercase(), values.into_iter()) {
                reason += &format!("; is {meant:?} meant?");
            }
            cx.error::<Gateway>(key, label_field(WAYPOINT_FOR), reason.clone());
            return unusable(format!("the label {WAYPOINT_FOR} of the Gateway {key}: {reason}"));
        }
    };
    let allowed: Vec<_> =
        gateway.spec.listeners.iter().filter(|it| it.is_hbone()).map(allowed_by).collect();
    if allowed.is_empty() {
        let why = format!(
            "the Gateway {key} has no listener of protocol {} on port {}",
            Listener::HBONE,
            ports::HBONE
        );
        cx.error::<Gateway>(key, "spec.listeners", format!("{why}: it is no waypoint"));
        return Candidate { for_services, for_workloads, outcome: Err(why.into()) };
    }
    unused::complain(cx, key, gateway);
    let identity = Identity::new(
        cx.settings.trust_domains.own().clone(),
        key.namespace.clone(),
        key.name.clone(),
    );
    let names_clients = names_clients(cx, key, gateway);
    let (key, class) = (key.clone(), class.into());
    let waypoint = Waypoint { key, class, identity, for_services, for_workloads, names_clients };
    let outcome = Ok(Usable { waypoint: Arc::new(waypoint), allowed });
    Candidate { for_services, for_workloads, outcome }
}

/// Else, whose it is.
fn is_ours(cx: &mut Context<'_>, key: &ObjectKey, gateway: &Gateway) -> Result<(), String> {
    let class = gateway.spec.gateway_class_name.as_str();
    if let Some(revision) = other_revision_of_gateway(cx.objects, cx.settings, key, gateway) {
        if class == CLASS {
            let reason = format!(
                "{revision:?}, of the Gateway or its namespace, is none of our revisions (`revisions` in the settings), so that \
                 this Gateway is no waypoint here, and traffic that is bound to it is refused"
            );
            cx.warn::<Gateway>(key, label_field(REVISION), reason);
        }
        return Err(format!(
            "the Gateway {key} belongs to the revision {revision:?} (istio.io/rev), which is none of ours (`revisions` in \
             the settings)"
        ));
    }
    if class != CLASS {
        if nearest(&class.to_lowercase(), [CLASS].into_iter()).is_some() {
            let reason = format!("{class:?} is not served by Isthmus; is {CLASS:?} meant?");
            cx.warn::<Gateway>(key, "spec.gatewayClassName", reason);
        }
        return Err(format!("the Gateway {key} is of class {class:?}, not {CLASS:?}"));
    }
    Ok(())
}

/// By the Gateway's annotation, else that of its class.
fn names_clients(cx: &mut Context<'_>, key: &ObjectKey, gateway: &Gateway) -> bool {
    let objects = cx.objects;
    let class = ObjectKey::new("", CLASS);
    let of_class = objects.get::<GatewayClass>(&class);
    let own = annotation(&gateway.metadata, NAME_CLIENTS);
    match own.or_else(|| annotation(&of_class?.metadata, NAME_CLIENTS)) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let field = format!("metadata.annotations[{NAME_CLIENTS:?}]");
            let reason = format!(
                "{other:?} is neither \"true\" nor \"false\"; applications are not told who the client is"
            );
            match own {
                Some(_) => cx.warn::<Gateway>(key, field, reason),
                None => cx.warn::<GatewayClass>(&class, field, reason),
            }
            false
        }
    }
}

fn allowed_by(listener: &Listener) -> AllowedNamespaces {
    let routes = listener.allowed_routes.clone().unwrap_or_default();
    routes.namespaces.unwrap_or_default()
}

fn mismatch(waypoint: &ObjectKey, addressed: Addressed) -> String {
    let (what, wanted) = match addressed {
        Addressed::Service => ("services", "service"),
        Addressed::Workload => ("workloads", "workload"),
    };
    format!(
        "the Gateway {waypoint} does not take traffic that is addressed to {what}, so this object has no \
         waypoint; check its label {WAYPOINT_FOR}, which would have to be {wanted:?} or \"all\""
    )
}

/// How a label is written as a field's path.
pub(super) fn label_field(name: &str) -> String {
    format!("metadata.labels[{name:?}]")
}
