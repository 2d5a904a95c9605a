//! Services and their endpoints.

use std::net::IpAddr;

use super::{Binding, Locality};
use crate::base::{ObjectKey, Str};

/// One Service.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Service {
    pub key: ObjectKey,
    /// `<name>.<namespace>.svc.<cluster domain>`.
    pub hostname: Str,
    /// Virtual addresses; none for a headless service.
    pub vips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    pub endpoints: Vec<Endpoint>,
    /// Which of them a client gets.
    pub traffic: TrafficPolicy,
    /// The waypoint for traffic that is addressed to this service (`waypoint-for: service` or `all`).
    pub waypoint: Binding,
}

impl Service {
    pub fn port(&self, port: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|candidate| candidate.port == port)
    }
}

/// Which endpoints a client gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct TrafficPolicy {
    /// Only those of the client's own node (`internalTrafficPolicy: Local`).
    pub local_only: bool,
    /// The same client address gets the same endpoint while that is there (`sessionAffinity: ClientIP`).
    pub sticky: bool,
    pub preference: Preference,
}

/// Which endpoints come first; others are taken only where none of these is left (`trafficDistribution`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum Preference {
    #[default]
    None,
    /// Of the client's zone, then of its region (PreferClose, PreferSameZone).
    SameZone,
    /// Of the client's node, then as [`Preference::SameZone`] (PreferSameNode).
    SameNode,
}

/// One TCP port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ServicePort {
    /// May be empty when the service has one port.
    pub name: Str,
    pub port: u16,
    pub protocol: AppProtocol,
}

/// What a port speaks: `appProtocol`, then the prefix of the port's name (Istio "Protocol selection").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum AppProtocol {
    /// Not said: look at the first bytes.
    #[default]
    Detect,
    /// HTTP, version by the first bytes.
    Http,
    /// HTTP/2 without TLS: gRPC, h2c.
    Http2,
    /// Bytes that nobody shall parse.
    Tcp,
}

/// One endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Endpoint {
    /// The workload behind it, by uid; `None` for an address outside of what the source knows.
    pub workload: Option<Str>,
    /// Never empty.
    pub addresses: Vec<IpAddr>,
    /// Target port per service port.
    pub ports: Vec<PortMapping>,
    pub ready: bool,
    /// Is being deleted and still serves: taken where no endpoint is ready (Kubernetes, "Proxy terminating endpoints").
    pub terminating: bool,
    /// The node it runs on; empty when unknown.
    pub node: Str,
    pub locality: Locality,
}

impl Endpoint {
    /// The target port behind `service_port`.
    pub fn target_port(&self, service_port: u16) -> Option<u16> {
        self.ports.iter().find(|mapping| mapping.port == service_port).map(|mapping| mapping.target)
    }
}

/// A service's port and the port of one endpoint that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PortMapping {
    pub port: u16,
    pub target: u16,
}
