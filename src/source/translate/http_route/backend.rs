//! Backends of a rule. One that cannot be used keeps its share of the requests, which are answered with an error
//! (Gateway API, HTTPBackendRef).

use http::StatusCode;

use super::super::Context;
use super::{Refused, Services};
use crate::base::ObjectKey;
use crate::model::{Backend, BackendRef, Resolution, RouteParent, Service};
use crate::source::objects::{
    GATEWAY_GROUP, HttpBackendRef, HttpRoute, HttpRouteRule, ISTIO_NETWORKING_GROUP, ReferenceGrant,
};
use crate::source::{Condition, ConditionReason, ConditionType, Objects};

/// What the backends of a route are looked up in.
pub(super) struct Backends<'a> {
    pub(super) objects: &'a Objects,
    pub(super) services: &'a Services<'a>,
    pub(super) route: &'a ObjectKey,
    pub(super) parents: &'a [RouteParent],
}

impl Backends<'_> {
    pub(super) fn resolve_all(
        &self,
        cx: &mut Context<'_>,
        place: &str,
        rule: &HttpRouteRule,
    ) -> Vec<Backend> {
        let mut backends = Vec::new();
        for (index, backend) in rule.backend_refs.iter().enumerate() {
            backends.push(self.resolve(backend).unwrap_or_else(|(refused, why)| {
                let reason =
                    format!("{why}; its share of the requests is answered with status 500");
                let field = format!("{place}.backendRefs[{index}]");
                let condition = Condition::of(ConditionType::ResolvedRefs, refused);
                cx.error_with::<HttpRoute>(self.route, field, reason, condition);
                invalid(backend.weight, why)
            }));
        }
        backends
    }

    fn resolve(&self, backend: &HttpBackendRef) -> Result<Backend, Refused> {
        let refused = |why: String| (ConditionReason::BackendNotFound, why);
        if (backend.group.as_str(), backend.kind.as_str()) == (ISTIO_NETWORKING_GROUP, "Hostname") {
            return self.host(backend);
        }
        if !matches!(backend.group.as_str(), "" | "core") || backend.kind != "Service" {
            let why = format!(
                "{:?} of group {:?} cannot be a backend, only a Service or a Hostname (group networking.istio.io) can",
                backend.kind, backend.group
            );
            return Err((ConditionReason::InvalidKind, why));
        }
        let namespace = backend.namespace.as_deref().unwrap_or(&self.route.namespace);
        let key = ObjectKey::new(namespace, backend.name.as_str());
        // Asked before anything is told about the service.
        if !self.may_refer_to(&key) {
            let why = format!(
                "no ReferenceGrant in the namespace {:?} lets HTTPRoutes of {:?} refer to the Service {key}",
                key.namespace, self.route.namespace
            );
            return Err((ConditionReason::RefNotPermitted, why));
        }
        let Some(port) = backend.port else {
            return Err(refused("port: is missing; a Service needs one".to_owned()));
        };
        let Some(service) = self.services.get(&key) else {
            return Err(refused(format!(
                "the Service {key} does not exist, was refused, or is of type ExternalName"
            )));
        };
        if service.port(port).is_none() {
            return Err(refused(format!("the Service {key} has no TCP port {port}")));
        }
        let target = BackendRef::Service { service: key, port };
        Ok(Backend { weight: backend.weight, target })
    }

    /// A host of a ServiceEntry in the route's own namespace (Istio's kind `Hostname`).
    fn host(&self, backend: &HttpBackendRef) -> Result<Backend, Refused> {
        let refused = |why: String| (ConditionReason::BackendNotFound, why);
        let host = backend.name.to_ascii_lowercase();
        let namespace = &self.route.namespace;
        let own = |it: &&&Service| {
            it.entry.is_some() && it.key.namespace == *namespace && it.hostname == host.as_str()
        };
        let Some(service) = self.services.values().find(own) else {
            return Err(refused(format!(
                "no ServiceEntry of the namespace {namespace:?} has the host {host}"
            )));
        };
        let Some(port) = backend.port.filter(|port| service.port(*port).is_some()) else {
            let why = format!("port: is missing, or {service} has no such TCP port");
            return Err(refused(why));
        };
        if service.resolution == Resolution::Dialled {
            return Err(refused(format!(
                "{service} has the resolution NONE, and so no endpoint of its own"
            )));
        }
        let target = BackendRef::Service { service: service.key.clone(), port };
        Ok(Backend { weight: backend.weight, target })
    }

    /// A consumer route may lead to the service that it is a route of: the client could reach that without it
    /// (GEP-1324). All else in another namespace needs a grant from there.
    fn may_refer_to(&self, service: &ObjectKey) -> bool {
        service.namespace == self.route.namespace
            || self.parents.iter().any(|parent| parent.service == *service)
            || self.objects.all::<ReferenceGrant>().any(|(key, grant)| {
                key.namespace == service.namespace
                    && grant.spec.from.iter().any(|from| {
                        from.group == GATEWAY_GROUP
                            && from.kind == "HTTPRoute"
                            && from.namespace == self.route.namespace.as_str()
                    })
                    && grant.spec.to.iter().any(|to| {
                        to.group.is_empty()
                            && to.kind == "Service"
                            && to.name.as_ref().is_none_or(|name| *name == service.name.as_str())
                    })
            })
    }
}

pub(super) fn invalid(weight: u32, why: String) -> Backend {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Backend { weight, target: BackendRef::Invalid { status, why: why.into() } }
}
