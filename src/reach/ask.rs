//! The target of a client that dialled a service.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Downstream, Failure, Lent, Reach};
use crate::balance::Caller;
use crate::base::{ObjectKey, Reason};
use crate::model::{Binding, Service};

/// The target of a connection.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    pub service: Asked<'a>,
    /// The address that the client dialled, and the service's port.
    pub dialled: SocketAddr,
    /// The port that the client really dialled, where a route led on from there to the service.
    pub routed: Option<u16>,
    /// The endpoints of the service that may be taken, as a DestinationRule names them; `None`: all.
    pub subset: Option<&'a str>,
    /// The name of the server that the client claims, which says what a wildcard means.
    pub claim: Option<&'a str>,
    /// The route that leads there in the client's name, where it must not.
    pub lent: Option<&'a Lent>,
}

/// The requested service. Routes do not apply to bytes.
#[derive(Clone, Copy)]
pub enum Asked<'a> {
    /// The service as layer 4 saw it when it decided. Its current policies apply.
    Decided(&'a Arc<Service>),
    /// The service as it is at each attempt: a worker may have waited long before it knew that bytes are not HTTP. Its
    /// waypoint must be usable.
    Present(&'a ObjectKey),
}

impl Ask<'_> {
    /// The client, for the endpoints that it may get.
    pub(super) fn caller<'c>(
        &self,
        from: &Downstream<'c>,
        service: &'c Service,
    ) -> Result<Caller<'c>, Failure> {
        let caller = from.caller();
        let Some(name) = self.subset else { return Ok(caller) };
        let namespace = &from.client.key.namespace;
        match service.subset(from.client, name) {
            Some(subset) => Ok(Caller { subset: Some(subset), ..caller }),
            None => {
                let why = format!(
                    "no DestinationRule that holds for clients of {namespace} names a subset {name:?} of {service}"
                );
                Err(Failure::new(Reason::NoRoute, why))
            }
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.dialled.port()
    }

    /// What the client really dialled, if a route led on from there.
    pub(super) fn routed(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.dialled.ip(), self.routed?))
    }
}

impl Asked<'_> {
    pub(super) fn key(&self) -> &ObjectKey {
        match self {
            Self::Decided(service) => &service.key,
            Self::Present(key) => key,
        }
    }
}

impl Reach {
    /// The requested service.
    pub(super) fn asked(&self, ask: &Ask<'_>) -> Result<Arc<Service>, Failure> {
        let key = match ask.service {
            Asked::Decided(service) => return Ok(service.clone()),
            Asked::Present(key) => key,
        };
        let world = self.world.load();
        let Some(service) = world.service(key) else {
            let why = format!("Service {key} does not exist any more");
            return Err(Failure::new(Reason::NoHealthyUpstream, why));
        };
        if let Binding::Unusable { waypoint, why } = &service.waypoint {
            let why = format!("waypoint {waypoint}: {why}");
            return Err(Failure::new(Reason::WaypointUnusable, why));
        }
        Ok(service.clone())
    }
}
