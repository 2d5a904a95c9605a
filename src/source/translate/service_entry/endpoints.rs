//! The endpoints of an entry's host: what stands in the entry, what its selector selects, or the host itself.
//!
//! An address that belongs to a workload of the mesh means that workload, so that it is reached as any other: by
//! HBONE where it is captured, never in the clear.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::super::Context;
use super::super::destination_rule::{Rules, Selections, all_of};
use super::super::roster::Roster;
use super::{Entry, check, is_name, number};
use crate::base::{Bits, LabelMap, ObjectKey, Str};
use crate::model::{self, Endpoint, Locality, PortMapping, Resolution, ServicePort, Workload};
use crate::source::objects::{
    Kind, Labelled, Pod, ServiceEntry, WorkloadEntry, WorkloadEntrySpec, selects,
};
use crate::source::{Objects, Severity, Topic};

/// A port of an entry, and what it is at endpoints that do not say otherwise.
pub(super) struct Port {
    pub(super) port: ServicePort,
    pub(super) target: u16,
}

/// What endpoints are looked up in.
pub(super) struct Places<'a> {
    roster: &'a Roster,
    /// Which have the labels of subsets.
    rules: &'a Rules,
    workload_entries: BTreeMap<&'a str, Vec<(&'a ObjectKey, &'a WorkloadEntry)>>,
    /// Virtual addresses of Services: whoever dials one from the node is led past the mesh.
    virtual_addresses: HashMap<IpAddr, &'a ObjectKey>,
}

impl<'a> Places<'a> {
    pub(super) fn index(
        objects: &'a Objects,
        (roster, rules): (&'a Roster, &'a Rules),
        kubernetes: &'a [Arc<model::Service>],
    ) -> Self {
        let (workload_entries, virtual_addresses) = (BTreeMap::new(), HashMap::new());
        let mut places = Places { roster, rules, workload_entries, virtual_addresses };
        for (key, entry) in objects.all::<WorkloadEntry>() {
            places.workload_entries.entry(&key.namespace).or_default().push((key, entry));
        }
        for service in kubernetes {
            places.virtual_addresses.extend(service.vips.iter().map(|vip| (*vip, &service.key)));
        }
        places
    }

    pub(super) fn of(&self, cx: &mut Context<'_>, entry: &Entry<'_>, host: &Str) -> Vec<Endpoint> {
        let spec = &entry.object.spec;
        let selector = spec.workload_selector.as_ref().filter(|it| !it.labels.is_empty());
        let listed = !spec.endpoints.is_empty();
        if entry.resolution == Resolution::Dialled {
            if listed || selector.is_some() {
                let reason =
                    "have no effect with the resolution NONE: what is dialled is the endpoint";
                cx.warn::<ServiceEntry>(entry.key, "spec.endpoints", reason);
            }
            return Vec::new();
        }
        if entry.resolution == Resolution::Dynamic {
            return vec![of_name(entry, host, Bits::default())];
        }
        if listed && selector.is_some() {
            let reason = "must not be given together with endpoints, and has no effect";
            cx.error::<ServiceEntry>(entry.key, "spec.workloadSelector", reason);
        }
        let subsets = self.rules.selections(host);
        match (listed, selector) {
            (true, _) => self.listed(cx, entry, &subsets),
            (false, Some(selector)) => {
                let selected = self.selected(cx, entry, &selector.labels, &subsets);
                if selected.is_empty() && !self.roster.is_empty() {
                    complain_of_nothing(cx, entry);
                }
                selected
            }
            (false, None) if entry.resolution == Resolution::Names => {
                itself(cx, entry, host, &subsets)
            }
            (false, None) => {
                let reason =
                    "are missing: with the resolution STATIC there is nowhere to go without them";
                cx.warn::<ServiceEntry>(entry.key, "spec.endpoints", reason);
                cx.about(Topic::NoEndpoint);
                Vec::new()
            }
        }
    }

    /// Who has an address before any entry.
    pub(super) fn owner(&self, address: IpAddr) -> Option<String> {
        let service = self.virtual_addresses.get(&address).map(|key| format!("Service {key}"));
        service.or_else(|| Some(format!("Pod {}", self.roster.at(&address)?.key)))
    }

    fn listed(
        &self,
        cx: &mut Context<'_>,
        entry: &Entry<'_>,
        subsets: &Selections<'_>,
    ) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for (index, listed) in entry.object.spec.endpoints.iter().enumerate() {
            let of_subsets = || subsets.selecting(Some(&listed.labels));
            match self.endpoint(entry, listed, of_subsets) {
                Ok(endpoint) => endpoints.extend(endpoint),
                Err((field, why)) => {
                    let field = format!("spec.endpoints[{index}].{field}");
                    cx.error::<ServiceEntry>(entry.key, field, format!("{why}; it is left out"));
                }
            }
        }
        endpoints
    }

    fn selected(
        &self,
        cx: &mut Context<'_>,
        entry: &Entry<'_>,
        labels: &BTreeMap<String, String>,
        subsets: &Selections<'_>,
    ) -> Vec<Endpoint> {
        let namespace = entry.key.namespace.as_str();
        let members = self.roster.namespace(namespace);
        let pods = members.filter_map(|member| Some((&*member.workload, member.pod()?)));
        let mut endpoints: Vec<Endpoint> = pods
            .filter(|(_, pod)| selects(labels, pod.labels()))
            .filter(|(workload, _)| !workload.addresses.is_empty())
            .map(|(workload, pod)| of_pod(entry, workload, pod, subsets))
            .collect();
        for (key, other) in self.workload_entries.get(namespace).into_iter().flatten() {
            // Nothing selects a Unix socket to any effect, which is said once.
            if check::is_unix(&other.spec.address) || !selects(labels, Some(&other.all_labels())) {
                continue;
            }
            let of_subsets = || subsets.selecting(Some(&other.all_labels()));
            match self.endpoint(entry, &other.spec, of_subsets) {
                Ok(endpoint) => endpoints.extend(endpoint),
                Err((field, why)) => {
                    let reason = format!("{why}; it is no endpoint of ServiceEntry {}", entry.key);
                    cx.error::<WorkloadEntry>(key, format!("spec.{field}"), reason);
                }
            }
        }
        endpoints
    }

    /// `None` for one that serves no port of the entry.
    fn endpoint(
        &self,
        entry: &Entry<'_>,
        spec: &WorkloadEntrySpec,
        subsets: impl FnOnce() -> Bits,
    ) -> Result<Option<Endpoint>, (&'static str, String)> {
        let text = spec.address.as_str();
        let (addresses, name) = match text.parse::<IpAddr>() {
            Ok(address) => (vec![self.usable(address)?], None),
            Err(_) if text.is_empty() => return Err(("address", "is missing".to_owned())),
            Err(_) if check::is_unix(text) => return Err(("address", check::why_no_unix(text))),
            Err(_) if entry.resolution != Resolution::Names => {
                let why = format!("{text:?} is no IP address, which the resolution STATIC wants");
                return Err(("address", why));
            }
            Err(_) => (Vec::new(), Some(name(text)?)),
        };
        if !spec.network.is_empty() {
            let why = format!("{:?}: other networks cannot be reached yet", spec.network);
            return Err(("network", why));
        }
        let workload = addresses.first().and_then(|address| self.roster.at(address));
        let ports = mappings(entry, &spec.ports)?;
        let locality = match workload.map(|it| &it.locality) {
            Some(known) if spec.locality.is_empty() => known.clone(),
            _ => spec.locality(),
        };
        Ok((!ports.is_empty()).then(|| Endpoint {
            workload: workload.map(|it| it.uid.clone()),
            addresses,
            name,
            hostname: None,
            weight: spec.weight.max(1),
            ports,
            ready: workload.is_none_or(|it| it.ready),
            terminating: false,
            node: workload.map(|it| it.node.clone()).unwrap_or_default(),
            locality,
            subsets: subsets(),
            labels: match workload {
                Some(workload) => workload.labels.clone(),
                None => all_of(&spec.labels),
            },
        }))
    }

    fn usable(&self, address: IpAddr) -> Result<IpAddr, (&'static str, String)> {
        if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            return Err(("address", format!("{address} is no address that others can reach")));
        }
        if let Some(service) = self.virtual_addresses.get(&address) {
            let why = format!(
                "{address} is the virtual address of Service {service}, which would lead past the mesh; give the \
                 service's host name with the resolution DNS"
            );
            return Err(("address", why));
        }
        Ok(address)
    }
}

fn complain_of_nothing(cx: &mut Context<'_>, entry: &Entry<'_>) {
    let reason = "selects no pod or WorkloadEntry of the namespace that could be an endpoint: connections are refused until one \
                  has these labels";
    let field = "spec.workloadSelector".to_owned();
    cx.complain(Severity::Note, Kind::ServiceEntry, entry.key, field, reason.to_owned());
}

/// The host is its own endpoint.
fn itself(
    cx: &mut Context<'_>,
    entry: &Entry<'_>,
    host: &Str,
    subsets: &Selections<'_>,
) -> Vec<Endpoint> {
    if host.starts_with("*.") {
        let reason =
            format!("{host} is no name that could be resolved, and the entry has no endpoints");
        cx.error::<ServiceEntry>(entry.key, "spec.hosts", reason);
        return Vec::new();
    }
    vec![of_name(entry, host, subsets.selecting(None))]
}

/// What the addresses of a name are endpoints like; for a wildcard, those of each name below it.
fn of_name(entry: &Entry<'_>, name: &Str, subsets: Bits) -> Endpoint {
    Endpoint {
        workload: None,
        addresses: Vec::new(),
        name: Some(name.clone()),
        hostname: None,
        weight: 1,
        ports: entry.ports.iter().map(|port| mapping(port, port.target)).collect(),
        ready: true,
        terminating: false,
        node: Str::default(),
        locality: Locality::default(),
        subsets,
        labels: LabelMap::new(),
    }
}

fn of_pod(entry: &Entry<'_>, workload: &Workload, pod: &Pod, subsets: &Selections<'_>) -> Endpoint {
    Endpoint {
        workload: Some(workload.uid.clone()),
        addresses: workload.addresses.clone(),
        name: None,
        hostname: None,
        weight: 1,
        ports: entry.ports.iter().map(|port| mapping(port, port.target)).collect(),
        ready: workload.ready,
        terminating: pod.metadata.deleting && pod.passes_readiness(),
        node: workload.node.clone(),
        locality: workload.locality.clone(),
        subsets: subsets.selecting(pod.labels()),
        labels: workload.labels.clone(),
    }
}

fn name(text: &str) -> Result<Str, (&'static str, String)> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    match is_name(&name) {
        true => Ok(name.into()),
        false => Err(("address", format!("{text:?} is neither an IP address nor a host name"))),
    }
}

/// The endpoint's own ports, by the names of the entry's.
fn mappings(
    entry: &Entry<'_>,
    own: &BTreeMap<String, u32>,
) -> Result<Vec<PortMapping>, (&'static str, String)> {
    let mut mappings = Vec::new();
    for port in &entry.ports {
        let target = match own.get(port.port.name.as_str()) {
            None => port.target,
            Some(said) => number(*said).ok_or_else(|| ("ports", format!("{said} is no port")))?,
        };
        mappings.push(mapping(port, target));
    }
    Ok(mappings)
}

fn mapping(port: &Port, target: u16) -> PortMapping {
    PortMapping { port: port.port.port, target }
}
