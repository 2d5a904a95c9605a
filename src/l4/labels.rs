//! Workloads and services as telemetry's labels.

use crate::base::{Identity, Str};
use crate::model::{Service, Workload};
use crate::telemetry::{Peer, ServiceLabels};
use crate::tunnel::Baggage;

/// The labels of one side. `proven` is the identity that mutual TLS proved, where it did.
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

pub fn service_labels(service: &Service) -> ServiceLabels {
    ServiceLabels {
        host: service.hostname.clone(),
        name: service.key.name.clone(),
        namespace: service.key.namespace.clone(),
    }
}

/// W3C baggage about a workload, as ztunnel sends it: telemetry of foreign peers reads it, nothing of ours trusts it.
pub(super) fn baggage(workload: &Workload, cluster: &Str) -> String {
    let baggage = Baggage {
        cluster: cluster.clone(),
        namespace: workload.key.namespace.clone(),
        workload: workload.canonical.workload.clone(),
        service: workload.canonical.service.clone(),
        version: workload.canonical.revision.clone(),
        region: workload.locality.region.clone(),
        zone: workload.locality.zone.clone(),
    };
    baggage.to_string()
}
