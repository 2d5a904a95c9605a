//! What the agent shows of itself: the dump and the status.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use crate::admin::Dump;
use crate::config::Settings;
use crate::identity::{CertificateState, CertificateStatus, CertificateStore};
use crate::model::{Binding, Waypoint, Workload};
use crate::node::Node;
use crate::pool::Pool;
use crate::source::Complaint;
use crate::telemetry::Telemetry;
use crate::world::WorldStore;

/// Read-only handles on the rooms.
pub(super) struct View {
    settings: Settings,
    world: Arc<WorldStore>,
    certificates: Arc<CertificateStore>,
    pool: Pool,
    node: Arc<Node>,
    telemetry: Telemetry,
    complaints: ArcSwap<Vec<Complaint>>,
}

impl View {
    pub(super) fn new(
        settings: &Settings,
        world: &Arc<WorldStore>,
        certificates: &Arc<CertificateStore>,
        pool: &Pool,
        node: &Arc<Node>,
        telemetry: &Telemetry,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings: settings.clone(),
            world: world.clone(),
            certificates: certificates.clone(),
            pool: pool.clone(),
            node: node.clone(),
            telemetry: telemetry.clone(),
            complaints: ArcSwap::default(),
        })
    }

    /// What is wrong with the objects in force now.
    pub(super) fn keep_complaints(&self, complaints: Vec<Complaint>) {
        self.complaints.store(Arc::new(complaints));
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
                })
            })
            .collect()
    }
}

impl Dump for View {
    fn dump(&self) -> Value {
        let world = self.world.snapshot();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "generation": world.generation,
            "workloads": world.mesh.workloads,
            "services": world.mesh.services,
            "waypoints": world.mesh.waypoints,
            "routes": world.mesh.routes,
            "policies": world.mesh.policies,
            "certificates": self.certificates.status(),
            "workloadState": self.node.status(),
            "names": self.node.names(),
            "complaints": &**self.complaints.load(),
            "config": self.settings,
        })
    }

    fn status(&self) -> Value {
        let world = self.world.snapshot();
        let mesh = &world.mesh;
        let complaints = self.complaints.load();
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
            "workloads": self.local_workloads(),
            "waypoints": mesh.waypoints.iter().map(|it| waypoint_row(it)).collect::<Vec<_>>(),
            "complaints": complaints.iter().map(|it| json!({
                "severity": it.severity.to_string(),
                "complaint": it.to_string(),
            })).collect::<Vec<_>>(),
        })
    }

    fn refresh(&self) {
        let metrics = self.telemetry.agent();
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (active, pending): (Vec<_>, Vec<_>) =
            self.node.status().into_iter().partition(|status| status.captured);
        metrics.active_workloads.set(count(active.len()));
        metrics.pending_workloads.set(count(pending.len()));
        let certificates = self.certificates.status();
        let available = |it: &&CertificateStatus| it.state == CertificateState::Available;
        metrics.certificates.set(count(certificates.iter().filter(available).count()));
        metrics.pool_connections.set(count(self.pool.tunnels()));
        metrics.source_complaints.set(count(self.complaints.load().len()));
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
