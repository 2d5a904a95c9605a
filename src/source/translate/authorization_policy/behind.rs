//! The ports of what a policy is about: a value that none of them has can never match.
//!
//! What is not known counts as possible: a Service whose target port has a name and that has no endpoint yet, a Gateway
//! that nothing is bound to, pods that may listen wherever they like.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ServicePort as PortSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::base::ObjectKey;
use crate::model::{
    self, Action, AppProtocol, Binding, Condition, Operation, PolicyTarget, Rule, Scope, Service,
    StringMatch,
};
use crate::source::objects;
use crate::source::translate::roster::Roster;
use crate::source::translate::waypoint::Waypoints;
use crate::source::translate::{Context, pod_ports};

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
}

/// Whether rules say anything of ports, or depend on what ports speak.
pub(super) fn looks(rules: &[Rule]) -> bool {
    let http =
        |it: &Operation| !it.hosts.is_empty() || !it.methods.is_empty() || !it.paths.is_empty();
    rules.iter().any(|rule| {
        rule.to.iter().any(|it| !it.ports.is_empty() || http(it))
            || rule.when.iter().any(|it| matches!(it, Condition::DestinationPort(_)))
    })
}

impl Behind {
    pub(super) fn targets(
        cx: &Context<'_>,
        policy: &model::AuthorizationPolicy,
        services: &[Arc<Service>],
        waypoints: &Waypoints,
    ) -> Self {
        let Scope::Targets(targets) = &policy.scope else { return Self::anything() };
        let mut behind = Self::default();
        for target in targets {
            let bound = |gateway: &ObjectKey| {
                waypoints.usable().any(|it| it.key == *gateway && it.for_workloads)
            };
            let of = |service: &Service| match (target, &service.waypoint) {
                (PolicyTarget::Service(name), _) => {
                    service.entry.is_none() && own(policy, service) && service.key.name == *name
                }
                (PolicyTarget::ServiceEntry(name), _) => {
                    service.entry.as_ref() == Some(name) && own(policy, service)
                }
                (PolicyTarget::Gateway(name), Binding::Waypoint(key)) => {
                    key.name == *name && key.namespace == policy.key.namespace
                }
                (PolicyTarget::GatewayClass(_), Binding::Waypoint(_)) => true,
                _ => false,
            };
            let before = behind.names.len();
            for service in services.iter().filter(|service| of(service)) {
                behind.add(cx, service);
            }
            behind.open |= behind.names.len() == before;
            behind.open |= match target {
                PolicyTarget::Gateway(name) => {
                    bound(&ObjectKey::new(policy.key.namespace.clone(), name.clone()))
                }
                PolicyTarget::GatewayClass(_) => waypoints.usable().any(|it| it.for_workloads),
                PolicyTarget::Service(_) | PolicyTarget::ServiceEntry(_) => false,
            };
        }
        behind
    }

    pub(super) fn workloads(
        policy: &model::AuthorizationPolicy,
        services: &[Arc<Service>],
        roster: &Roster,
    ) -> Self {
        let selected: Option<HashSet<&str>> = (policy.scope == Scope::Workloads).then(|| {
            let all = roster.workloads().filter(|it| it.policies.contains(&policy.key));
            all.map(|it| it.uid.as_str()).collect()
        });
        let mistaken = pod_ports::mistaken(services, |service, uid| {
            let near = policy.scope != Scope::Namespace || own(policy, service);
            near && selected.as_ref().is_none_or(|selected| selected.contains(uid))
        });
        Self { mistaken, ..Self::anything() }
    }

    fn anything() -> Self {
        Self { open: true, http: true, ..Self::default() }
    }

    fn add(&mut self, cx: &Context<'_>, service: &Service) {
        self.names.push(service.to_string());
        self.http |= service.ports.iter().any(|port| port.protocol != AppProtocol::Tcp);
        let listed = service.endpoints.iter().flat_map(|endpoint| &endpoint.ports);
        let mut targets: BTreeSet<(u16, u16)> = listed.map(|it| (it.port, it.target)).collect();
        targets.extend(written(cx, service));
        for port in &service.ports {
            self.ports.insert(port.port);
            self.open |= !targets.iter().any(|(from, _)| *from == port.port);
        }
        for (port, target) in targets {
            self.targets.insert(target);
            if service.entry.is_none() {
                let twins = self.twins.entry((service.to_string(), target)).or_default();
                twins.insert(port);
            }
        }
    }

    /// Why no connection to this has the port.
    pub(super) fn why_never(&self, port: u16) -> Option<String> {
        if let Some(found) = self.mistaken.get(&port) {
            let why = pod_ports::in_words(port, found);
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
        let Operation { hosts, methods, paths, .. } = operation;
        let looks = !hosts.is_empty() || !methods.is_empty() || !paths.is_empty();
        if self.http || self.open || !looks {
            return None;
        }
        let outcome = match action {
            Action::Allow => "an ALLOW rule with fields of HTTP allows nothing",
            Action::Deny => "a DENY rule is applied without its fields of HTTP",
            Action::Audit => "fields of HTTP mark nothing",
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

fn own(policy: &model::AuthorizationPolicy, service: &Service) -> bool {
    service.key.namespace == policy.key.namespace
}

/// What the object itself says of the ports of endpoints, also before there are any.
fn written(cx: &Context<'_>, service: &Service) -> Vec<(u16, u16)> {
    let object = cx.objects.get::<objects::Service>(&service.key);
    let Some(spec) = object.and_then(|it| it.spec.as_ref()).filter(|_| service.entry.is_none())
    else {
        return Vec::new();
    };
    let selects = spec.selector.as_ref().is_some_and(|selector| !selector.is_empty());
    let number = |port: i32| u16::try_from(port).ok();
    let pair = |port: &PortSpec| {
        let target = match &port.target_port {
            None | Some(IntOrString::Int(0)) => port.port,
            Some(IntOrString::Int(target)) => *target,
            Some(IntOrString::String(name)) if name.is_empty() => port.port,
            Some(IntOrString::String(_)) => return None,
        };
        Some((number(port.port)?, number(target)?))
    };
    spec.ports.iter().flatten().filter(|_| selects).filter_map(pair).collect()
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
