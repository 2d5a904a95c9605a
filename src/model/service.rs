//! Services and their endpoints.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::{Binding, Encryption, Locality, PolicyTarget, Tables, Workload};
use crate::base::{Bits, LabelMap, ObjectKey, Str};
use crate::filter::{HttpFilter, Pods};
use crate::traffic::{Destination, Subset, Traffic};

/// One Service of Kubernetes, or one host of a ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Service {
    /// Unique among both kinds: a ServiceEntry's host is called `<name of the entry>/<host>`.
    pub key: ObjectKey,
    /// The ServiceEntry that it is a host of; `None` for a Service of Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<Str>,
    /// `<name>.<namespace>.svc.<cluster domain>`; of a ServiceEntry its host, in lower case, which may begin with `*.`.
    pub hostname: Str,
    /// Whose clients its name and its addresses mean anything to.
    #[serde(skip_serializing_if = "Visibility::is_everywhere")]
    pub visibility: Visibility,
    /// Virtual addresses; none for a headless service.
    pub vips: Vec<IpAddr>,
    /// Networks all addresses of which are its own (a ServiceEntry's `addresses`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpNet>,
    pub ports: Vec<ServicePort>,
    pub endpoints: Vec<Endpoint>,
    /// How an endpoint's address is found.
    #[serde(skip_serializing_if = "Resolution::is_listed")]
    pub resolution: Resolution,
    /// The name below the wildcard that its endpoints are of: of a copy that was made for clients that ask for it ([`Resolution::Dynamic`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Str>,
    /// Which of them a client gets.
    pub balancing: Balancing,
    /// The waypoint for traffic that is addressed to this service (`waypoint-for: service` or `all`).
    pub waypoint: Binding,
    /// What is wanted of the connections to its endpoints and is not carried out.
    #[serde(skip_serializing_if = "Encryption::is_empty")]
    pub encryption: Encryption,
    /// What DestinationRules say of the connections to its endpoints.
    #[serde(skip_serializing_if = "Traffic::is_empty")]
    pub traffic: Traffic,
    /// What policies do to requests that are addressed to it, where their rule has no filter of the same type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<HttpFilter>,
    /// The same for ports that policies name: everything that applies there, instead of `filters`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port_filters: Vec<PortFilters>,
    /// What endpoints are selected from where DestinationRules hold.
    #[serde(skip)]
    pub tables: Tables,
    /// A second waypoint, for a share of the connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// A gateway that dials one of its pods means the service, so that what it sends passes the waypoint.
    #[serde(skip_serializing_if = "is_false")]
    pub ingress: bool,
}

/// What policies do to requests that are addressed to one port.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PortFilters {
    pub port: u16,
    pub filters: Vec<HttpFilter>,
}

impl Service {
    /// What policies do to requests that are addressed to this port, where their rule has no filter of the same type.
    pub fn filters_on(&self, port: u16) -> &[HttpFilter] {
        let of_port = self.port_filters.iter().find(|it| it.port == port);
        of_port.map_or(&self.filters, |it| &it.filters)
    }

    pub fn port(&self, port: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|candidate| candidate.port == port)
    }

    /// Whether `address` is one of its own.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.vips.contains(&address) || self.networks.iter().any(|it| it.contains(&address))
    }

    /// Whether clients of the namespace still mean it by what they dialled before: they see it, and where the address is the
    /// endpoint, it has the address.
    pub fn is_meant(&self, dialled: Option<IpAddr>, namespace: &str) -> bool {
        let has = |address: IpAddr| self.owns(address.to_canonical());
        self.visibility.includes(namespace)
            && (self.resolution != Resolution::Dialled || dialled.is_none_or(has))
    }

    /// What DestinationRules say of this client's connections to a port.
    pub fn destination(&self, client: &Workload, port: u16) -> Option<&Arc<Destination>> {
        self.traffic.of_client(&client.key.namespace, &client.rules, port)
    }

    /// A subset of its endpoints as this client sees it.
    pub fn subset(&self, client: &Workload, name: &str) -> Option<&Subset> {
        self.traffic.subsets_of(&client.key.namespace, &client.rules).get(name)
    }

    /// Tells the policies for its ports which endpoints there are.
    pub fn note_endpoints(&self) {
        if self.resolution != Resolution::Listed {
            return;
        }
        for (port, subset, destination) in self.traffic.listening() {
            let of_subset = self
                .endpoints
                .iter()
                .filter(|endpoint| subset.is_none_or(|subset| subset.has(&endpoint.subsets)));
            let of_port = of_subset.filter_map(|it| Some((it, it.target_port(port)?)));
            let places = of_port.flat_map(|(endpoint, target)| {
                let addresses = endpoint.addresses.iter().map(IpAddr::to_canonical);
                addresses.map(move |address| (SocketAddr::new(address, target), endpoint.ready))
            });
            destination.follow(&places.collect::<Vec<_>>());
        }
    }

    /// Where some endpoint takes what comes for the port that was dialled; what was dialled, where none is known.
    pub fn an_endpoint(&self, dialled: SocketAddr) -> SocketAddr {
        let taking = |endpoint: &Endpoint| {
            let port = endpoint.ports.iter().find(|it| it.port == dialled.port())?.target;
            Some(SocketAddr::new(*endpoint.addresses.first()?, port))
        };
        self.endpoints.iter().find_map(taking).unwrap_or(dialled)
    }

    /// What policies call it that are attached to it.
    pub fn as_target(&self) -> PolicyTarget {
        match &self.entry {
            Some(entry) => PolicyTarget::ServiceEntry(entry.clone()),
            None => PolicyTarget::Service(self.key.name.clone()),
        }
    }

    /// How many of its endpoints are on a node and on all, ready or not.
    pub fn pods(&self, node: &str) -> Pods {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let here = self.endpoints.iter().filter(|it| it.node == node).count();
        let all = self.endpoints.iter().filter(|it| !it.node.is_empty()).count();
        Pods { here: count(here), all: count(all) }
    }

    /// Its name as the operator gave it, without the host.
    pub fn name(&self) -> &Str {
        self.entry.as_ref().unwrap_or(&self.key.name)
    }
}

/// A waypoint that is tried beside the one that a service is bound to (Istio 1.31, `istio.io/use-waypoint-canary`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Canary {
    pub waypoint: ObjectKey,
    /// Of a hundred connections.
    pub weight: u8,
}

impl Canary {
    /// Whether it takes a connection that has drawn this number, from 0 to 99.
    pub fn takes(&self, drawn: u8) -> bool {
        drawn < self.weight
    }
}

/// Kind and key, for messages.
impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.entry.is_some() { "ServiceEntry" } else { "Service" };
        write!(f, "{kind} {}", self.key)
    }
}

/// A service that a workload is an endpoint of, and the service's port that targets the port in question.
#[derive(Clone, Debug)]
pub struct Served {
    pub service: Arc<Service>,
    pub service_port: u16,
}

/// In which namespaces clients see a service. A Service of Kubernetes is seen everywhere; a ServiceEntry claims names and
/// addresses that are not its namespace's own, and is seen where it may claim them.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum Visibility {
    #[default]
    Everywhere,
    /// In these; none of them twice.
    Namespaces(Vec<Str>),
}

impl Visibility {
    /// Whether clients of the namespace see the service.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Visibility::Everywhere => true,
            Visibility::Namespaces(list) => list.iter().any(|it| it == namespace),
        }
    }

    fn is_everywhere(&self) -> bool {
        *self == Visibility::Everywhere
    }
}

/// How an endpoint's address is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum Resolution {
    /// The endpoints are listed with their addresses (Services; ServiceEntry `STATIC`).
    #[default]
    Listed,
    /// Endpoints have names, which each client's node asks the client's resolvers for (`DNS`, `DNS_ROUND_ROBIN`).
    Names,
    /// The address that was dialled is the endpoint (`NONE`).
    Dialled,
    /// The host is a wildcard, and the name below it that a client asks for, in HTTP or in TLS, is resolved as with
    /// [`Resolution::Names`] (`DYNAMIC_DNS`).
    Dynamic,
}

impl Resolution {
    fn is_listed(&self) -> bool {
        *self == Resolution::Listed
    }
}

/// Which endpoints a client gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Balancing {
    /// Only those of the client's own node (`internalTrafficPolicy: Local`).
    pub local_only: bool,
    /// The same client address gets the same endpoint while that is there (`sessionAffinity: ClientIP`).
    pub sticky: bool,
    /// Endpoints have shares that differ ([`Endpoint::weight`]).
    #[serde(skip_serializing_if = "is_false")]
    pub weighted: bool,
    pub preference: Preference,
    /// Several endpoints are connected to at once, and the first that accepts is taken (Istio, `istio.io/connect-strategy`).
    #[serde(skip_serializing_if = "is_false")]
    pub races: bool,
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
    /// Empty only where `name` stands for them.
    pub addresses: Vec<IpAddr>,
    /// The name whose addresses it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Str>,
    /// What stands before the service's name in the name of its own (a StatefulSet's pod: `db-0`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Str>,
    /// Its share of the traffic, beside the other endpoints of the service; at least 1.
    #[serde(skip_serializing_if = "is_one")]
    pub weight: u32,
    /// Target port per service port.
    pub ports: Vec<PortMapping>,
    pub ready: bool,
    /// Is being deleted and still serves: taken where no endpoint is ready (Kubernetes, "Proxy terminating endpoints").
    pub terminating: bool,
    /// The node it runs on; empty when unknown.
    pub node: Str,
    pub locality: Locality,
    /// The selections of labels of the service's subsets that select it ([`Subset`](crate::traffic::Subset)).
    #[serde(skip_serializing_if = "Bits::is_empty")]
    pub subsets: Bits,
    /// Those of its labels that DestinationRules compare.
    #[serde(skip_serializing_if = "LabelMap::is_empty")]
    pub labels: LabelMap,
}

impl Endpoint {
    /// The target port behind `service_port`.
    pub fn target_port(&self, service_port: u16) -> Option<u16> {
        self.ports.iter().find(|mapping| mapping.port == service_port).map(|mapping| mapping.target)
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_one(weight: &u32) -> bool {
    *weight == 1
}

/// A service's port and the port of one endpoint that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PortMapping {
    pub port: u16,
    pub target: u16,
}
