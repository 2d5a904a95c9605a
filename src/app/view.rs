//! The agent's own state: the dump and the status.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use super::dump::{self, Parts};
use super::explain::Explainer;
use super::settings::translate_settings;
use super::{issuers, shared_limits};
use crate::admin::{ConnectionFilter, Dump, MAX_CONNECTIONS_SHOWN};
use crate::analyze::{Extent, analyze};
use crate::base::ObjectKey;
use crate::config::Settings;
use crate::identity::{CertificateState, CertificateStatus, CertificateStore};
use crate::l7::Workers;
use crate::model::{Binding, Mesh, Waypoint, Workload};
use crate::node::Node;
use crate::pool::Pool;
use crate::quota::client::Exchange;
use crate::source::{Asked, Complaint, LastRead};
use crate::telemetry::{Peer, Telemetry};
use crate::world::WorldStore;

/// Read-only handles on the rooms.
pub(super) struct View {
    pub(super) settings: Settings,
    pub(super) world: Arc<WorldStore>,
    pub(super) certificates: Arc<CertificateStore>,
    pub(super) pool: Pool,
    pub(super) node: Arc<Node>,
    pub(super) telemetry: Telemetry,
    pub(super) workers: Arc<Workers>,
    pub(super) source: LastRead,
    pub(super) explainer: Explainer,
    pub(super) objects: Asked,
    pub(super) shared_limits: Arc<Exchange>,
    pub(super) complaints: ArcSwap<Vec<Complaint>>,
}

impl View {
    /// Keeps the current complaints about objects, and writes the access log as the mesh says.
    pub(super) fn heed(&self, mesh: &Mesh, complaints: Vec<Complaint>) {
        self.complaints.store(Arc::new(complaints));
        self.telemetry.set_access_format(mesh.access_log.clone());
    }

    fn local_workloads(&self) -> Vec<Value> {
        let world = self.world.snapshot();
        let certificates = self.certificates.status();
        let state_of = |workload: &Workload| {
            let found = certificates.iter().find(|it| it.identity == workload.identity);
            found.map_or("-".into(), |it| format!("{:?}", it.state))
        };
        (self.node.status().iter())
            .filter_map(|status| Some((status, world.workload(&status.uid)?)))
            .map(|(status, workload)| {
                json!({
                    "workload": workload.key.to_string(),
                    "state": match &status.error {
                        Some(error) => format!("pending: {error}"),
                        None => "captured".into(),
                    },
                    "identity": workload.identity,
                    "certificate": state_of(workload),
                    "waypoint": bound(&workload.waypoint),
                    "outbound": match workload.registry_only {
                        true => "registry only",
                        false => "any",
                    },
                })
            })
            .collect()
    }
}

impl View {
    /// In seconds since 1970. Infinity keeps an alert on expiry silent while there is nothing.
    fn soonest_expiry(&self) -> f64 {
        let soonest = self.certificates.soonest_expiry();
        let since_1970 = soonest.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since_1970.map_or(f64::INFINITY, |time| time.as_secs_f64())
    }
}

impl Dump for View {
    fn explain(&self, question: &[u8]) -> Result<Value, String> {
        self.explainer.answer(question)
    }

    fn preview(&self, change: &[u8]) -> Result<Value, String> {
        self.explainer.preview(change)
    }

    fn dump(&self) -> Value {
        let connections = self.telemetry.open_connections(|_| true);
        let shown = connections.len().min(MAX_CONNECTIONS_SHOWN);
        let parts = Parts {
            settings: &self.settings,
            world: &self.world.snapshot(),
            certificates: self.certificates.dump(),
            workloads: self.node.status(),
            names: self.node.names(),
            connections: &connections[..shown],
            complaints: &self.complaints.load(),
        };
        let mut dump = parts.dump();
        dump["sharedLimits"] = shared_limits::status(&self.shared_limits.state());
        dump
    }

    fn connections(&self, filter: &ConnectionFilter) -> Value {
        let is =
            |peer: &Peer, key: &ObjectKey| peer.namespace == key.namespace && peer.name == key.name;
        let found = self.telemetry.open_connections(|start| match &filter.workload {
            Some(key) => is(&start.source, key) || is(&start.destination, key),
            None => true,
        });
        let shown: Vec<Value> = found.iter().take(filter.limit).map(dump::row).collect();
        json!({
            "total": found.len(),
            "leftOut": found.len() - shown.len(),
            "connections": shown,
        })
    }

    fn status(&self) -> Value {
        let world = self.world.snapshot();
        let mesh = &world.mesh;
        let (complaints, keys) = (self.complaints.load(), issuers::faults(&world));
        let limits = self.shared_limits.state();
        let faults = [keys, shared_limits::faults(&limits)].concat();
        json!({
            "node": self.settings.node,
            "version": env!("CARGO_PKG_VERSION"),
            "counts": {
                "workloads": mesh.workloads.len(),
                "services": mesh.services.len(),
                "waypoints": mesh.waypoints.len(),
                "routes": mesh.routes.len(),
                "policies": mesh.policies.len(),
                "tunnels": self.pool.tunnels(),
            },
            "sharedLimits": shared_limits::status(&limits),
            "workloads": self.local_workloads(),
            "waypoints": mesh.waypoints.iter().map(|it| waypoint_row(it)).collect::<Vec<_>>(),
            "complaints": complaints.iter().chain(&faults).map(|it| json!({
                "severity": it.severity.to_string(),
                "complaint": it.to_string(),
            })).collect::<Vec<_>>(),
        })
    }

    fn analysis(&self) -> Result<Value, String> {
        let objects = self.objects.get().map_err(|error| error.to_string())?;
        let report = analyze(&objects, &translate_settings(&self.settings), Extent::Whole);
        serde_json::to_value(&report).map_err(|error| error.to_string())
    }

    fn pending(&self) -> usize {
        self.node.status().iter().filter(|status| status.error.is_some()).count()
    }

    fn refresh(&self) {
        let metrics = self.telemetry.agent();
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (active, pending): (Vec<_>, Vec<_>) =
            self.node.status().into_iter().partition(|status| status.captured);
        let full = active.iter().filter(|status| status.full).count();
        self.telemetry.health().workloads_full.set(count(full));
        metrics.active_workloads.set(count(active.len()));
        metrics.pending_workloads.set(count(pending.len()));
        let certificates = self.certificates.status();
        let available = |it: &&CertificateStatus| it.state == CertificateState::Available;
        metrics.certificates.set(count(certificates.iter().filter(available).count()));
        metrics.certificate_soonest_expiry.set(self.soonest_expiry());
        metrics.pool_connections.set(count(self.pool.tunnels()));
        metrics.source_complaints.set(count(self.complaints.load().len()));
        shared_limits::refresh(self.telemetry.shared_limits(), &self.shared_limits.state());
        let health = self.telemetry.health();
        health.pool_streams.set(count(self.pool.streams()));
        let failing = certificates.iter().filter(|it| it.failures > 0).count();
        health.certificates_failing.set(count(failing));
        health.source_read.set(self.source.get().as_secs_f64());
        health.generation.set(i64::try_from(self.world.load().generation).unwrap_or(i64::MAX));
        health.workers(&self.workers.health());
    }
}

fn bound(binding: &Binding) -> String {
    match binding {
        Binding::None => "-".into(),
        Binding::Waypoint(key) => key.to_string(),
        Binding::Unusable { waypoint, why } => format!("{waypoint}: {why}"),
    }
}

fn waypoint_row(waypoint: &Waypoint) -> Value {
    let takes = match (waypoint.for_services, waypoint.for_workloads) {
        (true, true) => "all",
        (true, false) => "service",
        (false, true) => "workload",
        (false, false) => "none",
    };
    json!({
        "waypoint": waypoint.key.to_string(),
        "takes": takes,
        "identity": waypoint.identity,
    })
}
