//! Backends of a rule. One that cannot be used keeps its share of the requests, which are answered with an error
//! (Gateway API, HTTPBackendRef).
//!
//! A route of the mesh may lead to Services of any namespace without a ReferenceGrant (GEP-1294): it gives nobody a way
//! that the clients do not have without it. They go on as themselves, with their own identity, and are judged there.

use super::super::Context;
use super::services::Services;
use super::{Refused, RouteParts};
use crate::base::ObjectKey;
use crate::filter::BackendObject;
use crate::model::{BackendRef, Resolution, Service};
use crate::source::objects::ISTIO_NETWORKING_GROUP;
use crate::source::{Condition, ConditionReason, ConditionType, Topic};

/// What the backends of a route are looked up in.
pub(super) struct Backends<'a> {
    pub(super) services: &'a Services<'a>,
    pub(super) route: &'a RouteParts<'a>,
}

impl Backends<'_> {
    /// What a reference leads to; says so, with what follows from it, when that is nothing.
    pub(super) fn target(
        &self,
        cx: &mut Context<'_>,
        place: &str,
        object: &BackendObject,
        outcome: &str,
    ) -> Result<BackendRef, String> {
        self.find(object).map_err(|(refused, why)| {
            let condition = Condition::of(ConditionType::ResolvedRefs, refused);
            let reason = format!("{why}; {outcome}");
            cx.error_of(self.route.kind, self.route.key, place.to_owned(), reason, condition);
            cx.about(Topic::BackendMissing);
            why
        })
    }

    fn find(&self, backend: &BackendObject) -> Result<BackendRef, Refused> {
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
        let namespace = backend.namespace.as_deref().unwrap_or(&self.route.key.namespace);
        let key = ObjectKey::new(namespace, backend.name.as_str());
        let Some(port) = backend.port else {
            return Err(refused("port: is missing; a Service needs one".to_owned()));
        };
        // A host of an entry is no Service, whatever its key looks like.
        let Some(service) = self.services.kubernetes(&key) else {
            return Err(refused(format!(
                "the Service {key} does not exist, was refused, or is of type ExternalName"
            )));
        };
        if service.port(port).is_none() {
            return Err(refused(format!("the Service {key} has no TCP port {port}")));
        }
        Ok(BackendRef::Service { service: key, port })
    }

    /// A host of a ServiceEntry in the route's own namespace (Istio's kind `Hostname`).
    fn host(&self, backend: &BackendObject) -> Result<BackendRef, Refused> {
        let refused = |why: String| (ConditionReason::BackendNotFound, why);
        let host = backend.name.to_ascii_lowercase();
        let namespace = &self.route.key.namespace;
        let own = |it: &&Service| it.key.namespace == *namespace && it.hostname == host.as_str();
        let Some(service) = self.services.entries().find(own) else {
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
        Ok(BackendRef::Service { service: service.key.clone(), port })
    }
}
