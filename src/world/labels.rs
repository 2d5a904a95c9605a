//! Workloads and services as telemetry labels: telemetry knows only strings, this room knows both sides.

use std::net::IpAddr;

use super::World;
use crate::base::{Identity, Str};
use crate::model::{Service, Workload};
use crate::telemetry::{Peer, ServiceLabels};

/// The labels of one side. `proven` is the identity that mutual TLS proved, if it did.
pub fn labels_of(workload: Option<&Workload>, proven: Option<&Identity>, cluster: &Str) -> Peer {
    let principal = proven.map(|identity| Str::from(identity.to_string())).unwrap_or_default();
    let Some(workload) = workload else {
        let namespace = proven.map(|identity| identity.namespace.clone()).unwrap_or_default();
        return Peer { principal, namespace, ..Peer::default() };
    };
    let canonical = &workload.canonical;
    Peer {
        workload: canonical.workload.clone(),
        name: workload.key.name.clone(),
        namespace: workload.key.namespace.clone(),
        principal,
        canonical_service: canonical.service.clone(),
        canonical_revision: canonical.revision.clone(),
        app: canonical.app.clone(),
        version: canonical.version.clone(),
        cluster: cluster.clone(),
    }
}

/// The labels of the service that was addressed.
pub fn service_labels(service: &Service) -> ServiceLabels {
    ServiceLabels {
        host: service.hostname.clone(),
        name: service.name().clone(),
        namespace: service.key.namespace.clone(),
    }
}

impl World {
    /// The workload of a connection's source, for labels. An address proves nothing, so if a client proved an identity,
    /// it must be this workload's.
    pub fn source_at(&self, address: IpAddr, client: Option<&Identity>) -> Option<&Workload> {
        let workload = self.workload_at(address)?;
        let domains = &self.names.trust_domains;
        client
            .is_none_or(|client| domains.are_the_same(client, &workload.identity))
            .then_some(workload)
    }
}
