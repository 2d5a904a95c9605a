//! `hosts` and `gateways`: the services that a VirtualService is for.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::{MESH, One};
use crate::base::ObjectKey;
use crate::model::{AppProtocol, Binding, Service};
use crate::source::objects::Kind;
use crate::source::translate::by_host;
use crate::source::{Severity, Topic};

/// How specific a host without a star is.
const EXACT: u32 = u32::MAX;

/// The services, and how specific the host is by which each was found.
#[derive(Default)]
pub(super) struct Found<'a> {
    pub(super) services: Vec<(&'a Service, u32)>,
    /// By service: its place in `services`, and the index of the host.
    known: HashMap<ObjectKey, (usize, usize)>,
}

impl<'a> Found<'a> {
    /// The index of the host by which it was found.
    pub(super) fn host(&self, service: &ObjectKey) -> Option<usize> {
        self.known.get(service).map(|(_, host)| *host)
    }

    /// How many different ports the services have.
    pub(super) fn ports(&self) -> usize {
        let ports = self.services.iter().flat_map(|(service, _)| &service.ports);
        ports.map(|port| port.port).collect::<BTreeSet<_>>().len()
    }

    /// `false`: a host that is as specific has it already.
    fn add(&mut self, service: &'a Service, specific: u32, host: usize) -> bool {
        let place = self.known.get(&service.key).map_or(self.services.len(), |known| known.0);
        match self.services.get_mut(place) {
            Some((_, before)) if *before >= specific => return false,
            Some((_, before)) => *before = specific,
            None => self.services.push((service, specific)),
        }
        self.known.insert(service.key.clone(), (place, host));
        true
    }
}

impl<'a> One<'a, '_, '_> {
    /// Complains of hosts that lead to no service.
    pub(super) fn hosts(&mut self) -> Found<'a> {
        let mut found = Found::default();
        if !self.is_for_mesh() {
            return found;
        }
        for (index, text) in self.spec.hosts.iter().enumerate() {
            let field = format!("spec.hosts[{index}]");
            if text.parse::<IpAddr>().is_ok() {
                let reason =
                    "is an address, which is for gateways only (as in Istio); name the service";
                self.warn(field, reason);
                continue;
            }
            let host = by_host::full_host(self.cx, self.key, text);
            let specific = match host.strip_prefix('*') {
                Some(rest) => u32::try_from(rest.len()).unwrap_or(EXACT - 1),
                None => EXACT,
            };
            let services = self.services.with_host(&host, &self.key.namespace);
            if services.is_empty() {
                let reason = format!(
                    "no Service or ServiceEntry that the namespace {} sees has the host {host}, so nothing that is addressed to it \
                     meets the rules",
                    self.key.namespace
                );
                self.warn(field, reason);
                self.cx.about(Topic::HostMissing);
                continue;
            }
            for service in services {
                if !found.add(service, specific, index) {
                    continue;
                }
                if specific == EXACT {
                    self.complain_of_service(&field, service);
                }
            }
        }
        found
    }

    /// Whether some of it is for the mesh, and not for gateways alone.
    fn is_for_mesh(&mut self) -> bool {
        let gateways = &self.spec.gateways;
        let names_mesh = |gateways: &[String]| gateways.iter().any(|it| it == MESH);
        let http = self.spec.http.iter().flat_map(|rule| &rule.matches).map(|it| &it.gateways);
        let tls = self.spec.tls.iter().flat_map(|rule| &rule.matches).map(|it| &it.gateways);
        let tcp = self.spec.tcp.iter().flat_map(|rule| &rule.matches).map(|it| &it.gateways);
        let of_match = http.chain(tls).chain(tcp).any(|gateways| names_mesh(gateways));
        let others: Vec<&str> =
            gateways.iter().map(String::as_str).filter(|it| *it != MESH).collect();
        if !others.is_empty() {
            let reason = format!(
                "{}: Isthmus serves no Gateways of Istio; what is said for them is left to their controller",
                others.join(", ")
            );
            let field = "spec.gateways".to_owned();
            self.cx.complain(Severity::Note, Kind::VirtualService, self.key, field, reason);
        }
        gateways.is_empty() || names_mesh(gateways) || of_match
    }

    fn complain_of_service(&mut self, field: &str, service: &Service) {
        if self.spec.http.is_empty() {
            return;
        }
        let may_be_http = service.ports.iter().any(|port| port.protocol != AppProtocol::Tcp);
        let (topic, why) = if service.vips.is_empty() && service.networks.is_empty() {
            (
                Topic::Unaddressed,
                "has no address of its own (a headless Service), so nobody addresses it; name a Service with a clusterIP",
            )
        } else if !may_be_http {
            (Topic::PortNotHttp, "has no port that speaks HTTP (appProtocol, or the port's name)")
        } else if service.waypoint == Binding::None {
            (
                Topic::NoWaypoint,
                "has no waypoint; label it, or its namespace, with istio.io/use-waypoint",
            )
        } else {
            return;
        };
        self.warn(field, format!("{service} {why}. The http rules have no effect on it"));
        self.cx.about(topic);
    }
}
