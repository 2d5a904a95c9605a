//! Services and their endpoints.

pub(super) mod balancing;
pub(super) mod endpoints;
pub(super) mod protocol;
mod vips;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ServicePort as PortSpec, ServiceSpec};

use super::waypoint::{Addressed, USE_WAYPOINT, Waypoints, label_field, takes_ingress};
use super::{Context, labels};
use crate::base::{ObjectKey, Str};
use crate::model::{self, Encryption, Resolution, ServicePort, Tables, Visibility};
use crate::source::objects::{Kind, Service, label};
use crate::traffic::Traffic;
use endpoints::Endpoints;
pub(super) use vips::Allotted;

/// `None` for one that takes no traffic.
pub(super) fn translate(
    cx: &mut Context<'_>,
    waypoints: &Waypoints,
    (endpoints, allotted): (&Endpoints<'_>, &Allotted),
    key: &ObjectKey,
    service: &Service,
) -> Option<model::Service> {
    labels::check(cx, Kind::Service, key, &service.metadata);
    let spec = service.spec.as_ref()?;
    // A name in DNS and nothing else: there is no address to take traffic at.
    if spec.type_.as_deref() == Some("ExternalName") {
        if label(&service.metadata, USE_WAYPOINT).is_some_and(|name| name != "none") {
            let named = spec.external_name.as_deref().unwrap_or_default();
            let reason = format!(
                "has no effect on a Service of type ExternalName, which has no traffic of its own: clients connect to \
                 {named:?}, past the waypoint; label the Service or ServiceEntry that this name belongs to, or write a \
                 ServiceEntry for it"
            );
            cx.warn::<Service>(key, label_field(USE_WAYPOINT), reason);
        }
        return None;
    }
    let ports = tcp_ports(cx, key, spec);
    let hostname: Str =
        format!("{}.{}.svc.{}", key.name, key.namespace, cx.settings.cluster_domain).into();
    let waypoint = waypoints.bind::<Service>(cx, key, &service.metadata, Addressed::Service);
    Some(model::Service {
        key: key.clone(),
        entry: None,
        visibility: Visibility::Everywhere,
        vips: allotted.vips(cx, key, spec),
        networks: Vec::new(),
        resolution: Resolution::Listed,
        server: None,
        endpoints: endpoints.of(cx, (key, &hostname), spec, &ports),
        hostname,
        balancing: balancing::of(cx, key, &service.metadata, spec),
        ports: ports.into_iter().map(|(_, port)| port).collect(),
        canary: waypoints.canary::<Service>(cx, key, &service.metadata, &waypoint),
        waypoint,
        ingress: takes_ingress(cx, &key.namespace, &service.metadata),
        encryption: Encryption::default(),
        traffic: Traffic::default(),
        filters: Vec::new(),
        port_filters: Vec::new(),
        tables: Tables::default(),
    })
}

/// Complains of virtual addresses that several Services have: only one of them gets what is addressed there.
pub(super) fn complain_of_shared_addresses(cx: &mut Context<'_>, services: &[Arc<model::Service>]) {
    let mut owners: HashMap<IpAddr, &ObjectKey> = HashMap::new();
    for service in services {
        for vip in &service.vips {
            let owner = *owners.entry(*vip).or_insert(&service.key);
            if *owner != service.key {
                let reason = format!(
                    "{vip} is the address of Service {owner} as well, which gets what is addressed to it; give each Service \
                     an address of its own"
                );
                cx.warn::<Service>(&service.key, "spec.clusterIP", reason);
            }
        }
    }
}

/// The TCP ports, each with what it was translated from. UDP and SCTP are not carried by the mesh.
fn tcp_ports<'a>(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    spec: &'a ServiceSpec,
) -> Vec<(&'a PortSpec, ServicePort)> {
    let mut ports = Vec::new();
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        if !matches!(port.protocol.as_deref(), None | Some("TCP")) {
            continue;
        }
        let Some(number) = port_number(port.port) else {
            let reason = format!("{} is not a port; it is left out", port.port);
            cx.error::<Service>(key, format!("spec.ports[{index}].port"), reason);
            continue;
        };
        let name = port.name.as_deref().unwrap_or_default();
        let protocol = protocol::of_port(port.app_protocol.as_deref(), name, number);
        ports.push((port, ServicePort { name: name.into(), port: number, protocol }));
    }
    ports
}

/// Kubernetes writes ports as 32-bit integers.
fn port_number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}
