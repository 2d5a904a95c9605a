//! Workloads, and the state of those of this node.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::connections::{self, Direction};
use crate::base::ObjectKey;
use crate::config::Settings;
use crate::model::Workload;
use crate::node::WorkloadStatus;
use crate::telemetry::OpenConnection;
use crate::world::World;

pub(super) fn show(workload: &Workload, settings: &Settings) -> Value {
    let policies: Vec<String> = workload.policies.iter().map(ToString::to_string).collect();
    let mut shown = json!({
        "uid": workload.uid,
        "workloadIps": workload.addresses,
        "protocol": if workload.is_captured() { "HBONE" } else { "TCP" },
        "name": workload.key.name,
        "namespace": workload.key.namespace,
        "trustDomain": workload.identity.trust_domain,
        "serviceAccount": workload.identity.service_account,
        "workloadName": workload.canonical.workload,
        "workloadType": "pod",
        "canonicalName": workload.canonical.service,
        "canonicalRevision": workload.canonical.revision,
        "clusterId": settings.cluster,
        "locality": {
            "region": workload.locality.region,
            "zone": workload.locality.zone,
            "subzone": workload.locality.subzone,
        },
        "node": workload.node,
        "network": "",
        "status": if workload.ready { "Healthy" } else { "Unhealthy" },
        "hostname": "",
        "capacity": 1,
        "authorizationPolicies": policies,
    });
    if let Some(waypoint) = super::waypoint(&workload.waypoint, &settings.cluster_domain) {
        shown["waypoint"] = waypoint;
    }
    shown
}

/// By uid: whether it is captured, and its connections.
pub(super) fn states(
    world: &World,
    statuses: &[WorkloadStatus],
    connections: &[OpenConnection],
) -> Value {
    let mut by_workload: BTreeMap<ObjectKey, [Vec<Value>; 2]> = BTreeMap::new();
    for connection in connections {
        let (key, direction) = connections::local(connection.start());
        let lists = by_workload.entry(key).or_default();
        lists[usize::from(direction == Direction::Outbound)]
            .push(connections::as_istio(connection));
    }
    let states = statuses.iter().filter_map(|status| {
        let workload = world.workload(&status.uid)?;
        let [inbound, outbound] = by_workload.remove(&workload.key).unwrap_or_default();
        let shown = json!({
            "state": if status.captured { "Up" } else { "Pending" },
            "error": status.error,
            "tasks": status.tasks,
            "full": status.full,
            "connections": {"inbound": inbound, "outbound": outbound},
            "info": {
                "name": workload.key.name,
                "namespace": workload.key.namespace,
                "trustDomain": workload.identity.trust_domain,
                "serviceAccount": workload.identity.service_account,
            },
        });
        Some((status.uid.to_string(), shown))
    });
    Value::Object(states.collect::<Map<_, _>>())
}
