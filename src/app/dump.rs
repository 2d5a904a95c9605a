//! `/config_dump`: the agent's state, in the format that `istioctl ztunnel-config` parses, and in our own beside it.
//!
//! The keys `workloads`, `services`, `policies`, `certificates` and `workloadState` contain what ztunnel's dump
//! contains, as far as its format allows (Istio, `istioctl/pkg/writer/ztunnel/configdump`). `mesh` holds the model on
//! which decisions are based, with routes and waypoints, which ztunnel's format lacks.

mod connections;
mod keys;
mod policies;
mod services;
#[cfg(test)]
mod tests;
mod workloads;

use serde_json::{Value, json};

use crate::base::{ObjectKey, Str};
use crate::config::Settings;
use crate::identity::CertificateDump;
use crate::model::Binding;
use crate::node::WorkloadStatus;
use crate::resolver::NameStatus;
use crate::source::Complaint;
use crate::telemetry::OpenConnection;
use crate::world::World;

pub(super) use connections::row;

/// The inputs of a dump: one moment's values.
pub(super) struct Parts<'a> {
    pub(super) settings: &'a Settings,
    pub(super) world: &'a World,
    pub(super) certificates: Vec<CertificateDump>,
    pub(super) workloads: Vec<WorkloadStatus>,
    /// Resolved addresses of ServiceEntry endpoints that are names.
    pub(super) names: Vec<NameStatus>,
    pub(super) connections: &'a [OpenConnection],
    pub(super) complaints: &'a [Complaint],
}

impl Parts<'_> {
    pub(super) fn dump(self) -> Value {
        let (mesh, domain) = (&self.world.mesh, &self.settings.cluster_domain);
        json!({
            "version": {"component": "isthmus", "version": env!("CARGO_PKG_VERSION")},
            "generation": self.world.generation,
            "workloads": mesh.workloads.iter().map(|it| workloads::show(it, self.settings)).collect::<Vec<_>>(),
            "services": services::show_all(mesh, domain),
            "policies": mesh.policies.iter().map(|it| policies::show(it)).collect::<Vec<_>>(),
            "certificates": self.certificates,
            "workloadState": workloads::states(self.world, &self.workloads, self.connections),
            "stagedServices": {},
            "staticConfig": {"workloads": [], "services": [], "policies": []},
            "names": self.names,
            "jwks": keys::show(&self.world.keys),
            "complaints": self.complaints,
            "mesh": mesh,
            "config": self.settings,
        })
    }
}

/// A waypoint as ztunnel names it: by the host name of its Service, which here is only a name.
fn waypoint(binding: &Binding, domain: &Str) -> Option<Value> {
    let key = match binding {
        Binding::None => return None,
        Binding::Waypoint(key) | Binding::Unusable { waypoint: key, .. } => key,
    };
    Some(json!({"destination": format!("{}/{}", key.namespace, hostname(key, domain))}))
}

fn hostname(key: &ObjectKey, domain: &Str) -> String {
    format!("{}.{}.svc.{domain}", key.name, key.namespace)
}
