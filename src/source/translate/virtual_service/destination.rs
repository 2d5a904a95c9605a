//! `destination`: a service by its host, a port of it, and a subset of its endpoints.

use std::collections::HashMap;
use std::sync::Arc;

use http::StatusCode;

use super::One;
use crate::base::{ObjectKey, Str};
use crate::filter::BackendRef;
use crate::model::{Resolution, Service, Visibility};
use crate::source::objects::VirtualDestination;
use crate::source::translate::by_host;
use crate::source::{Condition, ConditionReason, ConditionType, Topic};

/// All services, by their hosts.
pub(super) struct Services<'a> {
    all: &'a [Arc<Service>],
    hosts: HashMap<&'a str, Vec<&'a Service>>,
}

/// What a destination leads to.
#[derive(Clone, Debug)]
pub(super) enum To {
    Service {
        service: ObjectKey,
        /// `None`: the one that was addressed.
        port: Option<u16>,
        subset: Option<Str>,
    },
    /// Nothing.
    Nowhere(Str),
}

impl<'a> Services<'a> {
    pub(super) fn of(all: &'a [Arc<Service>]) -> Self {
        let mut hosts: HashMap<&str, Vec<&Service>> = HashMap::new();
        for service in all {
            hosts.entry(service.hostname.as_str()).or_default().push(service);
        }
        Self { all, hosts }
    }

    /// Those that have the host, or one that is covered by it, as far as clients of the namespace see them.
    pub(super) fn with_host(&self, host: &str, namespace: &str) -> Vec<&'a Service> {
        let seen = |service: &&'a Service| is_seen(service, namespace);
        match host.strip_prefix('*') {
            Some(end) => {
                let all = self.all.iter().map(|service| &**service);
                all.filter(|service| service.hostname.ends_with(end)).filter(seen).collect()
            }
            None => self.hosts.get(host).into_iter().flatten().copied().filter(seen).collect(),
        }
    }

    /// The one that a client of the namespace means by the host: one of its own namespace first.
    fn named(&self, host: &str, namespace: &str) -> Option<&'a Service> {
        let all = self.hosts.get(host)?;
        let own = all.iter().find(|service| service.key.namespace == namespace);
        own.or_else(|| all.iter().find(|service| is_seen(service, namespace))).copied()
    }
}

fn is_seen(service: &Service, namespace: &str) -> bool {
    match &service.visibility {
        Visibility::Everywhere => true,
        Visibility::Namespaces(namespaces) => {
            service.key.namespace == namespace || namespaces.iter().any(|it| it == namespace)
        }
    }
}

impl To {
    /// What takes requests that were addressed to a port.
    pub(super) fn target(&self, addressed: Option<u16>) -> BackendRef {
        match self {
            To::Service { service, port, .. } => match port.or(addressed) {
                Some(port) => BackendRef::Service { service: service.clone(), port },
                None => invalid("the destination names no port".into()),
            },
            To::Nowhere(why) => invalid(why.clone()),
        }
    }

    pub(super) fn subset(&self) -> Option<Str> {
        match self {
            To::Service { subset, .. } => subset.clone(),
            To::Nowhere(_) => None,
        }
    }

    /// The port is the one that was addressed.
    pub(super) fn differs_by_port(&self) -> bool {
        matches!(self, To::Service { port: None, .. })
    }
}

/// As Envoy answers where a cluster does not exist.
pub(super) fn invalid(why: Str) -> BackendRef {
    BackendRef::Invalid { status: StatusCode::SERVICE_UNAVAILABLE, why }
}

impl One<'_, '_, '_> {
    /// Complains of one that leads nowhere, with what follows.
    pub(super) fn destination(
        &mut self,
        field: &str,
        written: &VirtualDestination,
        outcome: &str,
    ) -> To {
        match self.find(written) {
            Ok(to) => to,
            Err((below, why)) => {
                let reason = ConditionReason::BackendNotFound;
                let condition = Condition::of(ConditionType::ResolvedRefs, reason);
                let told = format!("{why}; {outcome}");
                let kind = crate::source::objects::Kind::VirtualService;
                self.cx.error_of(kind, self.key, format!("{field}.{below}"), told, condition);
                self.cx.about(match below {
                    "subset" => Topic::SubsetMissing,
                    _ => Topic::BackendMissing,
                });
                To::Nowhere(why.into())
            }
        }
    }

    fn find(&self, written: &VirtualDestination) -> Result<To, (&'static str, String)> {
        let VirtualDestination { host, subset, port } = written;
        let namespace = self.key.namespace.as_str();
        let host = by_host::full_host(self.cx, self.key, host);
        let Some(service) = self.services.named(&host, namespace) else {
            let why = format!(
                "no Service or ServiceEntry that the namespace {namespace} sees has the host {host}"
            );
            return Err(("host", why));
        };
        if service.resolution == Resolution::Dialled {
            let why = format!("{service} has the resolution NONE, and so no endpoint of its own");
            return Err(("host", why));
        }
        let number = port.as_ref().and_then(|port| port.number).filter(|number| *number != 0);
        let only = match &service.ports[..] {
            [only] => Some(only.port),
            _ => None,
        };
        if let Some(number) = number.filter(|number| service.port(*number).is_none()) {
            return Err(("port.number", format!("{service} has no TCP port {number}")));
        }
        let subset = Some(subset.as_str()).filter(|name| !name.is_empty()).map(Str::from);
        if let Some(name) = &subset
            && service.traffic.subsets_named(namespace, name).next().is_none()
        {
            let why = format!(
                "no DestinationRule that holds for clients of {namespace} names a subset {name:?} of {service}"
            );
            return Err(("subset", why));
        }
        Ok(To::Service { service: service.key.clone(), port: number.or(only), subset })
    }
}
