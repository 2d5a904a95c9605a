//! Services. Every waypoint has a row too, because it has a Service in Istio, so that `istioctl` finds the name of a
//! bound waypoint.

use serde_json::{Map, Value, json};

use crate::base::Str;
use crate::model::{Balancing, Endpoint, Mesh, Preference, Service, Waypoint};

pub(super) fn show_all(mesh: &Mesh, domain: &Str) -> Vec<Value> {
    let services = mesh.services.iter().map(|it| show(it, domain));
    let lacks_service = |waypoint: &&std::sync::Arc<Waypoint>| {
        mesh.services.iter().all(|service| service.key != waypoint.key)
    };
    let waypoints = mesh.waypoints.iter().filter(lacks_service);
    services.chain(waypoints.map(|it| show_waypoint(it, domain))).collect()
}

fn show(service: &Service, domain: &Str) -> Value {
    let port_map = |(from, to): (u16, u16)| (from.to_string(), json!(to));
    // If its endpoints have several target ports, there is none to show.
    let target = |port: u16| {
        let mut targets = service.endpoints.iter().filter_map(|it| it.target_port(port));
        let first = targets.next()?;
        targets.all(|it| it == first).then_some(first)
    };
    let ports = service.ports.iter().map(|it| (it.port, target(it.port).unwrap_or(0)));
    let mut shown = json!({
        "name": service.key.name,
        "namespace": service.key.namespace,
        "hostname": service.hostname,
        "vips": service.vips.iter().map(|vip| format!("/{vip}")).collect::<Vec<_>>(),
        "ports": ports.map(port_map).collect::<Map<_, _>>(),
        "endpoints": service.endpoints.iter().map(|it| show_endpoint(service, it)).collect::<Map<_, _>>(),
        "subjectAltNames": [],
        "ipFamilies": families(service),
    });
    if let Some(balancer) = balancer(service.balancing) {
        shown["loadBalancer"] = balancer;
    }
    if !service.traffic.is_empty() {
        shown["traffic"] = json!(service.traffic);
    }
    if let Some(waypoint) = super::waypoint(&service.waypoint, domain) {
        shown["waypoint"] = waypoint;
    }
    shown
}

fn show_endpoint(service: &Service, endpoint: &Endpoint) -> (String, Value) {
    let address = endpoint.addresses.first().map(|it| format!("/{it}")).unwrap_or_default();
    let uid = endpoint.workload.clone().unwrap_or_default();
    let ports = endpoint.ports.iter().map(|it| (it.port.to_string(), json!(it.target)));
    let shown = json!({
        "workloadUid": uid,
        "service": format!("{}/{}", service.key.namespace, service.hostname),
        "address": address,
        "port": ports.collect::<Map<_, _>>(),
        "status": if endpoint.ready { "Healthy" } else { "Unhealthy" },
    });
    (format!("{uid}:{address}"), shown)
}

fn show_waypoint(waypoint: &Waypoint, domain: &Str) -> Value {
    json!({
        "name": waypoint.key.name,
        "namespace": waypoint.key.namespace,
        "hostname": super::hostname(&waypoint.key, domain),
        "vips": [],
        "ports": {},
        "endpoints": {},
        "subjectAltNames": [],
        "ipFamilies": "",
    })
}

fn families(service: &Service) -> &'static str {
    let v4 = service.vips.iter().any(|vip| vip.is_ipv4());
    let v6 = service.vips.iter().any(|vip| vip.is_ipv6());
    match (v4, v6) {
        (true, true) => "Dual",
        (true, false) => "IPv4",
        (false, true) => "IPv6",
        (false, false) => "",
    }
}

/// ztunnel's terms for load balancing that is not even.
fn balancer(balancing: Balancing) -> Option<Value> {
    let (mode, preferences): (_, &[&str]) = match (balancing.local_only, balancing.preference) {
        (true, _) => ("Strict", &["Node"]),
        (false, Preference::SameNode) => ("Failover", &["Node", "Region", "Zone"]),
        (false, Preference::SameZone) => ("Failover", &["Region", "Zone"]),
        (false, Preference::None) => return None,
    };
    Some(json!({
        "mode": mode,
        "routingPreferences": preferences,
        "healthPolicy": "OnlyHealthy",
    }))
}
