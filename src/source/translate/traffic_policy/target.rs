//! Targets of TrafficPolicies, and why nothing of one is reached (GEP-713, section names).

use std::sync::Arc;

use super::super::Context;
use crate::base::{ObjectKey, Str, ports};
use crate::filter::PolicyTarget;
use crate::model::{AppProtocol, Binding, RouteKind, Service, ServicePort, Waypoint};
use crate::source::objects::{GATEWAY_GROUP, Gateway, ISTIO_NETWORKING_GROUP};
use crate::source::{ConditionReason, Objects};

/// What a policy is attached to, in its own namespace: a name, and the name of a part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// And one of its ports.
    Service(Str, Option<Str>),
    /// And one of its ports.
    ServiceEntry(Str, Option<Str>),
    /// And one of its listeners.
    Gateway(Str, Option<Str>),
    GatewayClass(Str),
    /// And one of its rules.
    Route(RouteKind, Str, Option<Str>),
}

/// All that is known when a target is not reached.
pub(super) struct Known<'a> {
    pub(super) waypoints: &'a [Arc<Waypoint>],
    pub(super) services: &'a [Arc<Service>],
}

impl Target {
    pub(super) fn read(
        cx: &Context<'_>,
        policy: &ObjectKey,
        written: &PolicyTarget,
    ) -> Result<Self, (ConditionReason, String)> {
        let invalid = |why: String| Err((ConditionReason::Invalid, why));
        let name = Str::from(written.name.as_str());
        let section = written.section_name.as_deref().map(Str::from);
        Ok(match (written.group.as_str(), written.kind.as_str()) {
            ("" | "core", "Service") => Target::Service(name, section),
            (ISTIO_NETWORKING_GROUP, "ServiceEntry") => Target::ServiceEntry(name, section),
            (GATEWAY_GROUP, "Gateway") => Target::Gateway(name, section),
            (GATEWAY_GROUP, "HTTPRoute") => Target::Route(RouteKind::Http, name, section),
            (GATEWAY_GROUP, "GRPCRoute") => Target::Route(RouteKind::Grpc, name, section),
            (GATEWAY_GROUP, "GatewayClass") if !cx.is_root(&policy.namespace) => {
                return invalid(format!(
                    "a GatewayClass can only be targeted from the root namespace {:?}",
                    cx.settings.root_namespace
                ));
            }
            (GATEWAY_GROUP, "GatewayClass") if section.is_some() => {
                return invalid("a GatewayClass has no sections; remove sectionName".to_owned());
            }
            (GATEWAY_GROUP, "GatewayClass") => Target::GatewayClass(name),
            (group, kind) => {
                return invalid(format!(
                    "{kind:?} of group {group:?} is not a target; Service (group \"\"), ServiceEntry, Gateway, GatewayClass, \
                     HTTPRoute and GRPCRoute are"
                ));
            }
        })
    }
}

/// The listeners of a waypoint that take the mesh's traffic, by name.
pub(super) fn listeners(objects: &Objects, waypoint: &ObjectKey) -> Vec<Str> {
    let gateway = objects.get::<Gateway>(waypoint);
    let listeners = gateway.into_iter().flat_map(|it| &it.spec.listeners);
    listeners.filter(|it| it.is_hbone()).map(|it| it.name.as_str().into()).collect()
}

/// Whether policies can apply to requests on the port: its bytes may be HTTP.
pub(super) fn may_be_http(port: &ServicePort) -> bool {
    port.protocol != AppProtocol::Tcp
}

impl Known<'_> {
    /// Why nothing that requests pass belongs to the target.
    pub(super) fn why_unreached(&self, namespace: &Str, target: &Target) -> String {
        let key = |name: &Str| ObjectKey::new(namespace.clone(), name.clone());
        match target {
            Target::Service(name, section) => {
                let key = key(name);
                let is_meant = |it: &Service| it.entry.is_none() && it.key == key;
                self.of_service("Service", &key, section, is_meant)
            }
            Target::ServiceEntry(name, section) => {
                let is_meant = |it: &Service| {
                    it.key.namespace == *namespace && it.entry.as_ref() == Some(name)
                };
                self.of_service("ServiceEntry", &key(name), section, is_meant)
            }
            Target::Gateway(name, section) => {
                let (key, hbone) = (key(name), ports::HBONE);
                let is_waypoint = self.waypoints.iter().any(|waypoint| waypoint.key == key);
                match (is_waypoint, section) {
                    (false, _) => {
                        format!(
                            "the Gateway {key} does not exist or is no waypoint that can be used"
                        )
                    }
                    (true, None) => format!("no Service is bound to the waypoint {key}"),
                    (true, Some(section)) => format!(
                        "the waypoint {key} has no HBONE listener {section:?} on port {hbone}, or no Service is bound to it"
                    ),
                }
            }
            Target::GatewayClass(class) => {
                format!("no Service is bound to a waypoint of the class {class}")
            }
            Target::Route(kind, name, section) => {
                let key = key(name);
                match section {
                    Some(section) => {
                        format!("the {kind} {key} is not in force or has no rule {section:?}")
                    }
                    None => format!("the {kind} {key} does not exist or is not in force"),
                }
            }
        }
    }

    fn of_service(
        &self,
        kind: &str,
        key: &ObjectKey,
        section: &Option<Str>,
        is_meant: impl Fn(&Service) -> bool,
    ) -> String {
        let bound =
            |it: &&Arc<Service>| is_meant(it) && matches!(it.waypoint, Binding::Waypoint(_));
        let (Some(section), Some(service)) = (section, self.services.iter().find(bound)) else {
            return format!(
                "the {kind} {key} does not exist or has no waypoint; check the label istio.io/use-waypoint on it or its \
                 namespace"
            );
        };
        match service.ports.iter().find(|port| port.name == *section) {
            Some(ServicePort { port, .. }) => format!(
                "port {port} ({section}) of the {kind} {key} is not HTTP (appProtocol, or the port's name), so its requests \
                 are not seen"
            ),
            None => format!("the {kind} {key} has no TCP port named {section:?}"),
        }
    }
}
