//! Targets of TrafficPolicies, and why nothing of one is reached (GEP-713, section names).

use std::sync::Arc;

use super::super::{Context, attachment};
use crate::base::{ObjectKey, Str, ports};
use crate::filter;
use crate::model::{AppProtocol, Binding, PolicyTarget, RouteKind, Service, ServicePort, Waypoint};
use crate::source::objects::{GATEWAY_GROUP, Gateway, TargetRef};
use crate::source::{ConditionReason, Objects};

/// The kinds besides those that every policy can be attached to.
const ROUTES: [&str; 2] = ["HTTPRoute", "GRPCRoute"];

/// What a policy is attached to, in its own namespace, or the part of it that `sectionName` names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// And one of its ports, or of its listeners.
    Traffic(PolicyTarget, Option<Str>),
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
        written: &filter::PolicyTarget,
    ) -> Result<Self, (ConditionReason, String)> {
        let invalid = |why: String| (ConditionReason::Invalid, why);
        let filter::PolicyTarget { group, kind, name, section_name } = written;
        let section = section_name.as_deref().map(Str::from);
        let route = match (group.as_str(), kind.as_str()) {
            (GATEWAY_GROUP, "HTTPRoute") => Some(RouteKind::Http),
            (GATEWAY_GROUP, "GRPCRoute") => Some(RouteKind::Grpc),
            _ => None,
        };
        if let Some(kind) = route {
            return Ok(Target::Route(kind, name.as_str().into(), section));
        }
        let (group, kind, name) = (group.clone(), kind.clone(), name.clone());
        let written = TargetRef { group, kind, name, namespace: None };
        match attachment::target_of(cx, policy, &written, &ROUTES).map_err(invalid)? {
            PolicyTarget::GatewayClass(_) if section.is_some() => {
                Err(invalid("a GatewayClass has no sections; remove sectionName".to_owned()))
            }
            target => Ok(Target::Traffic(target, section)),
        }
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
            Target::Traffic(PolicyTarget::Service(name), section) => {
                let key = key(name);
                let is_meant = |it: &Service| it.entry.is_none() && it.key == key;
                self.of_service("Service", &key, section, is_meant)
            }
            Target::Traffic(PolicyTarget::ServiceEntry(name), section) => {
                let is_meant = |it: &Service| {
                    it.key.namespace == *namespace && it.entry.as_ref() == Some(name)
                };
                self.of_service("ServiceEntry", &key(name), section, is_meant)
            }
            Target::Traffic(PolicyTarget::Gateway(name), section) => {
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
            Target::Traffic(PolicyTarget::GatewayClass(class), _) => {
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
