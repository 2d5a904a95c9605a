//! The ports and addresses of what a policy is about: a value that none of them has can never match.
//!
//! What is not known counts as possible: a Service whose target port has a name and that has no endpoint yet, a Gateway
//! that nothing is bound to, pods that may listen wherever they like.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::model::{
    self, Action, AppProtocol, Cidr, Operation, PolicyTarget, Resolution, Rule, Scope, Service,
    StringMatch, Waypoint,
};
use crate::policy::{looks_at_destination, operation_looks_at_http};
use crate::source::objects::AuthorizationPolicy;
use crate::source::translate::service_ports::Ports;
use crate::source::translate::waypoint::Waypoints;
use crate::source::translate::{Context, service_ports};

/// Ports that a message lists at the most.
const LISTED: usize = 8;

/// The ports of what a policy is about.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// What it is about, for messages.
    names: Vec<String>,
    /// Ports that clients dial.
    ports: BTreeSet<u16>,
    /// Ports of the endpoints.
    targets: BTreeSet<u16>,
    /// By the port of the endpoints, those that clients dial for it at one Service of the mesh.
    twins: BTreeMap<(String, u16), BTreeSet<u16>>,
    /// There may be other ports.
    open: bool,
    /// Ports that clients dial where the pods have another one, by what is dialled; only for policies without targets.
    mistaken: BTreeMap<u16, (String, u16)>,
    /// Some port may speak HTTP.
    http: bool,
    /// Addresses that clients dial, and those of the endpoints.
    addresses: Vec<IpNet>,
    /// There may be other addresses.
    open_addresses: bool,
}

/// Whether rules say anything of ports, or depend on what ports speak.
pub(super) fn looks(rules: &[Rule]) -> bool {
    rules
        .iter()
        .any(|rule| looks_at_destination(rule) || rule.to.iter().any(operation_looks_at_http))
}

impl Behind {
    pub(super) fn targets(
        policy: &model::AuthorizationPolicy,
        services: &Ports<'_>,
        waypoints: &Waypoints,
    ) -> Self {
        let Scope::Targets(targets) = &policy.scope else { return Self::anything() };
        let namespace = &policy.key.namespace;
        let mut behind = Self::default();
        for target in targets {
            let before = behind.names.len();
            match target {
                PolicyTarget::Service(name) => {
                    behind.add(services, services.named(namespace, false, name))
                }
                PolicyTarget::ServiceEntry(name) => {
                    behind.add(services, services.named(namespace, true, name))
                }
                PolicyTarget::Gateway(_) | PolicyTarget::GatewayClass(_) => {
                    for waypoint in waypoints.usable().filter(|it| is_meant(target, policy, it)) {
                        behind.add(services, services.bound_to(&waypoint.key));
                        // Pods may listen on any port.
                        behind.open |= waypoint.for_workloads;
                    }
                }
            }
            behind.open |= behind.names.len() == before;
            behind.open_addresses |= behind.open;
        }
        behind
    }

    /// A pod may listen on any port, but not every number is likely to be meant.
    pub(super) fn workloads(
        cx: &Context<'_>,
        policy: &model::AuthorizationPolicy,
        services: &Ports<'_>,
    ) -> Self {
        let namespace = &policy.key.namespace;
        let object = cx.objects.get::<AuthorizationPolicy>(&policy.key);
        let labels = object.and_then(|it| it.spec.attached_to().labels());
        let namespace = Some(namespace).filter(|it| !cx.is_root(it));
        Self { mistaken: services.mistaken(namespace, labels), ..Self::anything() }
    }

    fn anything() -> Self {
        Self { open: true, http: true, open_addresses: true, ..Self::default() }
    }

    fn add(&mut self, services: &Ports<'_>, found: &[&Service]) {
        for service in found {
            self.add_one(services, service);
        }
    }

    fn add_one(&mut self, services: &Ports<'_>, service: &Service) {
        self.names.push(service.to_string());
        self.http |= service.ports.iter().any(|port| port.protocol != AppProtocol::Tcp);
        self.ports.extend(service.ports.iter().map(|port| port.port));
        self.add_addresses(service);
        let known = services.of(service);
        self.open |= known.open;
        for (port, target) in known.pairs {
            self.targets.insert(target);
            if service.entry.is_none() {
                let twins = self.twins.entry((service.to_string(), target)).or_default();
                twins.insert(port);
            }
        }
    }

    fn add_addresses(&mut self, service: &Service) {
        self.open_addresses |=
            service.resolution != Resolution::Listed || service.endpoints.is_empty();
        let endpoints = service.endpoints.iter().flat_map(|it| &it.addresses);
        self.addresses.extend(service.vips.iter().chain(endpoints).map(|it| IpNet::from(*it)));
        self.addresses.extend(&service.networks);
    }

    /// Why nothing that is dialled here has an address of the block.
    pub(super) fn why_no_address(&self, block: &Cidr) -> Option<String> {
        let plain = unmapped(block);
        let meets = |it: &IpNet| it.contains(&plain) || plain.contains(it);
        if self.open_addresses || self.addresses.iter().any(meets) {
            return None;
        }
        let name = self.name();
        Some(format!("{block} holds no address of {name}, and none of its endpoints"))
    }

    /// Why no connection to this has the port.
    pub(super) fn why_never(&self, port: u16) -> Option<String> {
        if let Some(found) = self.mistaken.get(&port) {
            let why = service_ports::in_words(port, found);
            return Some(format!("{why}, or give the policy targetRefs"));
        }
        if self.open || self.ports.contains(&port) || self.targets.contains(&port) {
            return None;
        }
        Some(format!(
            "{port} is neither a port of {} ({}) nor one of its endpoints ({})",
            self.name(),
            list(&self.ports),
            list(&self.targets)
        ))
    }

    /// Why no client names the host: it names the port that it dials.
    pub(super) fn why_no_host(&self, host: &StringMatch) -> Option<String> {
        let (StringMatch::Exact(text) | StringMatch::Suffix(text)) = host else { return None };
        let (name, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|_| !name.contains(':') || name.ends_with(']'))?;
        if self.open || self.ports.contains(&port) || self.targets.contains(&port) {
            return None;
        }
        let ports = list(&self.ports);
        Some(format!(
            "{text:?} names port {port}, which is no port of {} ({ports}), and clients name the one that they dial",
            self.name()
        ))
    }

    /// Why an ALLOW of one port is not enough where several lead to the same.
    pub(super) fn why_not_alone(&self, port: u16, listed: &[u16]) -> Option<String> {
        let together = self.twins.iter().find(|(_, twins)| {
            twins.contains(&port) && twins.iter().any(|twin| !listed.contains(twin))
        });
        let ((service, target), twins) = together?;
        if listed.contains(target) && !self.ports.contains(target) {
            return None;
        }
        Some(format!(
            "the ports {} of {service} lead to {target} of its pods, where nobody can tell them apart: an ALLOW has to list all \
             of them",
            list(twins)
        ))
    }

    /// Why fields of HTTP are never compared.
    pub(super) fn why_no_http(&self, action: Action, operation: &Operation) -> Option<String> {
        if self.http || self.open || !operation_looks_at_http(operation) {
            return None;
        }
        let outcome = match action {
            Action::Allow => "an ALLOW rule with fields of HTTP allows nothing",
            Action::Deny => "a DENY rule is applied without its fields of HTTP",
            Action::Audit => "fields of HTTP mark nothing",
            Action::Custom => "fields of HTTP ask for nothing",
            Action::Authenticate => "tokens are not looked for",
        };
        Some(format!(
            "no port of {} is HTTP (appProtocol, or the port's name), so requests are not looked at; {outcome}",
            self.name()
        ))
    }

    fn name(&self) -> String {
        match &self.names[..] {
            [] => "the target".to_owned(),
            [only] => only.clone(),
            [first, ..] => format!("{first} and {} more", self.names.len() - 1),
        }
    }
}

/// A block of IPv4 addresses that is written as one of IPv6 (RFC 4291, 2.5.5.2) means these, as where it is compared.
fn unmapped(block: &Cidr) -> Cidr {
    let v4 = match block.addr() {
        IpAddr::V6(address) => address.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    let prefix = block.prefix_len().checked_sub(96);
    let net = v4.zip(prefix).and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    net.map_or(*block, Cidr::V4)
}

/// A class is named only from the root namespace, a Gateway from its own.
fn is_meant(
    target: &PolicyTarget,
    policy: &model::AuthorizationPolicy,
    waypoint: &Waypoint,
) -> bool {
    match target {
        PolicyTarget::Gateway(name) => {
            waypoint.key.namespace == policy.key.namespace && waypoint.key.name == *name
        }
        PolicyTarget::GatewayClass(class) => waypoint.class == *class,
        PolicyTarget::Service(_) | PolicyTarget::ServiceEntry(_) => false,
    }
}

fn list(ports: &BTreeSet<u16>) -> String {
    let mut texts: Vec<String> = ports.iter().take(LISTED).map(u16::to_string).collect();
    if ports.len() > LISTED {
        texts.push("...".to_owned());
    }
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

#[cfg(test)]
mod tests;
