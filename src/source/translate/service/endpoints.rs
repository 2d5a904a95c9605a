//! The endpoints of a service: the pods and WorkloadEntries that its selector selects, as the endpoint controller of
//! Kubernetes and istiod find them;
//! for a service without a selector what its EndpointSlices list.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ServicePort as PortSpec, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::Context;
use super::super::destination_rule::{Rules, Selections, all_of};
use super::super::roster::{Member, Roster};
use super::super::selectors::{Selectors, selector};
use super::super::slices::Slices;
use super::port_number;
use crate::base::{ObjectKey, Str};
use crate::model::{Endpoint, PortMapping, ServicePort, Workload};
use crate::source::objects::{
    Container, Kind, Labelled, Pod, PodTemplate, Service, WorkloadEntry, label, selects,
};
use crate::source::{Objects, Severity, Topic};

/// So many are named.
const FEW: usize = 3;

/// Who has made a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// How the controllers of Kubernetes are called there.
const KUBERNETES: &str = "-controller.k8s.io";

/// What endpoints are looked up in.
pub(in crate::source::translate) struct Endpoints<'a> {
    roster: &'a Roster,
    /// Which have the labels of subsets.
    rules: &'a Rules,
    /// The pods that a service selects, for the services that were asked for.
    members: HashMap<&'a ObjectKey, Vec<&'a Member>>,
    slices: BTreeMap<ObjectKey, Vec<&'a EndpointSlice>>,
    entries: BTreeMap<&'a str, Vec<&'a WorkloadEntry>>,
}

type Ports<'a> = [(&'a PortSpec, ServicePort)];

impl<'a> Endpoints<'a> {
    /// For the services `wanted`, with their slices.
    pub(in crate::source::translate) fn index(
        objects: &'a Objects,
        (roster, rules): (&'a Roster, &'a Rules),
        slices: &Slices,
        wanted: impl Iterator<Item = (&'a ObjectKey, &'a Service)>,
    ) -> Self {
        let mut index = Endpoints {
            roster,
            rules,
            members: HashMap::new(),
            slices: BTreeMap::new(),
            entries: BTreeMap::new(),
        };
        let mut selectors: BTreeMap<&'a str, Vec<_>> = BTreeMap::new();
        for (key, service) in wanted {
            let own = slices.of(key).filter_map(|slice| objects.get::<EndpointSlice>(slice));
            index.slices.insert(key.clone(), own.collect());
            if let Some(selector) = selector(service) {
                let of_namespace = selectors.entry(&key.namespace).or_default();
                of_namespace.push((selector.clone(), key));
            }
        }
        for (namespace, selectors) in selectors {
            let entries = objects.all_in::<WorkloadEntry>(namespace).map(|(_, entry)| entry);
            index.entries.insert(namespace, entries.collect());
            let selectors: Selectors<&'a ObjectKey> = selectors.into_iter().collect();
            for member in roster.namespace(namespace) {
                let labels = member.pod().and_then(|pod| pod.labels());
                for service in selectors.selecting(labels) {
                    index.members.entry(service).or_default().push(member);
                }
            }
        }
        index
    }

    pub(super) fn of(
        &self,
        cx: &mut Context<'_>,
        (key, hostname): (&ObjectKey, &str),
        spec: &ServiceSpec,
        ports: &Ports<'_>,
    ) -> Vec<Endpoint> {
        let subsets = &self.rules.selections(hostname);
        match spec.selector.as_ref().filter(|selector| !selector.is_empty()) {
            Some(selector) => {
                let selected = self.members.get(key).map_or(&[][..], Vec::as_slice);
                let selected: Vec<(&Workload, &Pod)> = (selected.iter())
                    .filter_map(|member| Some((&*member.workload, member.pod()?)))
                    .collect();
                complain_of_names(cx, key, &selected, ports);
                self.complain_of_unused(cx, key);
                self.complain_of_selected(cx, key, (selector, &selected[..]), ports);
                let not_ready_too = spec.publish_not_ready_addresses.unwrap_or(false);
                let place = (key.name.as_str(), ports, subsets);
                let pods = selected.iter().filter_map(|it| of_pod(*it, place, not_ready_too));
                pods.chain(self.of_entries(&key.namespace, selector, (ports, subsets))).collect()
            }
            None => {
                if !ports.is_empty() && self.slices.get(key).is_none_or(|slices| slices.is_empty())
                {
                    let reason = "is missing, and no EndpointSlice has the label kubernetes.io/service-name with this name: the \
                                  Service has no endpoint, and connections to it are refused; give it a selector or an \
                                  EndpointSlice";
                    cx.warn::<Service>(key, "spec.selector", reason);
                    cx.about(Topic::NoEndpoint);
                }
                self.complain_of_names_in_slices(cx, key);
                self.complain_of_ports(cx, key, ports);
                self.of_slices(key, ports, subsets)
            }
        }
    }

    /// WorkloadEntries that the selector selects (Istio "Virtual Machine Architecture"). One whose address is none says so
    /// where a ServiceEntry selects it.
    fn of_entries(
        &self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
        (ports, subsets): (&Ports<'_>, &Selections<'_>),
    ) -> impl Iterator<Item = Endpoint> {
        let entries = self.entries.get(namespace).into_iter().flatten();
        let selected = entries.filter(|entry| selects(selector, Some(&entry.all_labels())));
        selected.filter_map(|entry| {
            let address: IpAddr = entry.spec.address.parse().ok()?;
            let workload = self.roster.at(&address);
            let mapping = |(spec, port): &(&PortSpec, ServicePort)| {
                let target = entry_port(spec, port, entry)?;
                Some(PortMapping { port: port.port, target })
            };
            Some(Endpoint {
                workload: workload.map(|it| it.uid.clone()),
                addresses: vec![address],
                name: None,
                hostname: None,
                weight: 1,
                ports: ports.iter().filter_map(mapping).collect(),
                ready: workload.is_none_or(|it| it.ready),
                terminating: false,
                node: workload.map(|it| it.node.clone()).unwrap_or_default(),
                locality: entry.spec.locality(),
                subsets: subsets.selecting(Some(&entry.all_labels())),
                labels: all_of(&entry.all_labels()),
            })
        })
    }

    /// A selector that selects nothing, or what can be no endpoint.
    fn complain_of_selected(
        &self,
        cx: &mut Context<'_>,
        service: &ObjectKey,
        (selector, pods): (&BTreeMap<String, String>, &[(&Workload, &Pod)]),
        ports: &Ports<'_>,
    ) {
        let entries = self.entries.get(service.namespace.as_str()).into_iter().flatten();
        let selected: Vec<_> =
            entries.filter(|entry| selects(selector, Some(&entry.all_labels()))).collect();
        if pods.is_empty() && selected.is_empty() && !ports.is_empty() && !self.roster.is_empty() {
            let reason = "selects no pod of the namespace: the Service has no endpoint, and connections to it are refused until \
                          a pod has these labels";
            let field = "spec.selector".to_owned();
            cx.complain(Severity::Note, Kind::Service, service, field, reason.to_owned());
            cx.about(Topic::NoEndpoint);
        }
        let names = selected.iter().filter(|entry| entry.spec.address.parse::<IpAddr>().is_err());
        let names: Vec<&str> =
            names.filter_map(|entry| entry.metadata.name.as_deref()).take(FEW).collect();
        if !names.is_empty() {
            let reason = format!(
                "selects WorkloadEntries whose address is no IP address ({}), which are no endpoints of a Service; give \
                 addresses, or write a ServiceEntry with the resolution DNS",
                names.join(", ")
            );
            cx.warn::<Service>(service, "spec.selector", reason);
        }
    }

    /// Slices with names, which kube-proxy passes over, too.
    fn complain_of_names_in_slices(&self, cx: &mut Context<'_>, service: &ObjectKey) {
        for slice in self.slices.get(service).into_iter().flatten() {
            if slice.address_type == "FQDN" {
                let name = slice.metadata.name.as_deref().unwrap_or_default();
                let reason = format!(
                    "the EndpointSlice {name} lists host names (addressType FQDN), which are not looked up, and are no \
                     endpoints; write a ServiceEntry with the resolution DNS"
                );
                cx.warn::<Service>(service, "spec.selector", reason);
            }
        }
    }

    /// Slices of a Service whose endpoints are what it selects, but for those that Kubernetes itself has made of that.
    fn complain_of_unused(&self, cx: &mut Context<'_>, service: &ObjectKey) {
        let is_foreign = |slice: &&&EndpointSlice| {
            let by = label(&slice.metadata, MANAGED_BY).unwrap_or_default();
            !by.ends_with(KUBERNETES)
        };
        let slices = self.slices.get(service).into_iter().flatten();
        for slice in slices.filter(is_foreign) {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            let reason = format!(
                "selects the endpoints, so that those of the EndpointSlice {name} are not used; remove one of the two"
            );
            cx.warn::<Service>(service, "spec.selector", reason);
        }
    }

    /// Ports that no slice has, where slices have endpoints.
    fn complain_of_ports(&self, cx: &mut Context<'_>, service: &ObjectKey, ports: &Ports<'_>) {
        let slices = self.slices.get(service).map_or(&[][..], Vec::as_slice);
        let listed = |slice: &&EndpointSlice| slice.endpoints.iter().flatten().next().is_some();
        if !slices.iter().any(listed) {
            return;
        }
        let has = |slice: &&EndpointSlice, port: u16| {
            slice_ports(slice, ports).iter().any(|mapping| mapping.port == port)
        };
        for (_, port) in ports {
            if !slices.iter().any(|slice| has(slice, port.port)) {
                let field = format!("spec.ports (port {})", port.port);
                let reason = format!(
                    "no EndpointSlice of this Service has a TCP port that is named {:?}; the port has no endpoint",
                    port.name
                );
                cx.warn::<Service>(service, field, reason);
            }
        }
    }

    fn of_slices(
        &self,
        service: &ObjectKey,
        ports: &Ports<'_>,
        subsets: &Selections<'_>,
    ) -> Vec<Endpoint> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for slice in self.slices.get(service).into_iter().flatten() {
            let mappings = slice_ports(slice, ports);
            for listed in slice.endpoints.iter().flatten() {
                let Some(endpoint) = self.of_slice(service, listed, (&mappings, subsets)) else {
                    continue;
                };
                // Listed twice where Endpoints stand beside the slices that mirror them.
                if endpoints.contains(&endpoint) {
                    continue;
                }
                // A pod with two families stands in two slices.
                let twin = endpoints
                    .iter_mut()
                    .find(|other| other.workload.is_some() && other.workload == endpoint.workload);
                match twin {
                    Some(twin) => {
                        let known = |address: &IpAddr| twin.addresses.contains(address);
                        let more = endpoint.addresses.into_iter().filter(|it| !known(it));
                        let more: Vec<IpAddr> = more.collect();
                        twin.addresses.extend(more);
                    }
                    None => endpoints.push(endpoint),
                }
            }
        }
        endpoints
    }

    /// Only the first address of an entry has a meaning (Kubernetes API, EndpointSlice). Names are not looked up.
    fn of_slice(
        &self,
        service: &ObjectKey,
        listed: &SliceEndpoint,
        (mappings, subsets): (&[PortMapping], &Selections<'_>),
    ) -> Option<Endpoint> {
        let address: IpAddr = listed.addresses.first()?.parse().ok()?;
        let named = listed.target_ref.as_ref().filter(|it| it.kind.as_deref() == Some("Pod"));
        let named = named.and_then(|target| {
            let namespace = target.namespace.as_deref().unwrap_or(&service.namespace);
            let key = ObjectKey::new(namespace, target.name.as_deref()?);
            self.roster.get(&key).map(|member| &*member.workload)
        });
        // Anybody can write a slice: a pod is meant by its name only where it has the address.
        let named = named.filter(|workload| workload.addresses.contains(&address));
        let workload = named.or_else(|| self.roster.at(&address));
        // Not said means ready, and serving as much as ready (Kubernetes API, EndpointConditions).
        let said = listed.conditions.as_ref();
        let ready = said.and_then(|it| it.ready).unwrap_or(true);
        let serving = said.and_then(|it| it.serving).unwrap_or(ready);
        let leaving = said.and_then(|it| it.terminating).unwrap_or(false);
        let node = listed.node_name.as_deref().map(Str::from);
        let zone = listed.zone.as_deref().map(Str::from);
        let mut locality = workload.map(|workload| workload.locality.clone()).unwrap_or_default();
        if let (true, Some(zone)) = (locality.zone.is_empty(), zone) {
            locality.zone = zone;
        }
        let pod = workload.and_then(|workload| self.roster.get(&workload.key)?.pod());
        (!mappings.is_empty()).then(|| Endpoint {
            subsets: subsets.selecting(pod.and_then(|pod| pod.labels())),
            workload: workload.map(|workload| workload.uid.clone()),
            addresses: vec![address],
            name: None,
            hostname: listed.hostname.as_deref().map(Str::from),
            weight: 1,
            ports: mappings.to_vec(),
            ready,
            terminating: leaving && serving,
            node: workload.map(|it| it.node.clone()).or(node).unwrap_or_default(),
            locality,
            labels: workload.map(|it| it.labels.clone()).unwrap_or_default(),
        })
    }
}

fn of_pod(
    (workload, pod): (&Workload, &Pod),
    (service, ports, subsets): (&str, &Ports<'_>, &Selections<'_>),
    not_ready_too: bool,
) -> Option<Endpoint> {
    // Only the service that the pod names gives it a name (Kubernetes "DNS for Services and Pods").
    let own = Some(&pod.template).filter(|it| it.subdomain.as_deref() == Some(service));
    let hostname = own.and_then(|it| it.hostname.as_deref()).filter(|name| !name.is_empty());
    let mappings: Vec<PortMapping> = ports
        .iter()
        .filter_map(|(spec, port)| {
            Some(PortMapping { port: port.port, target: target_port(spec, port, pod)? })
        })
        .collect();
    let reachable = !workload.addresses.is_empty() && !mappings.is_empty();
    reachable.then(|| Endpoint {
        workload: Some(workload.uid.clone()),
        addresses: workload.addresses.clone(),
        name: None,
        hostname: hostname.map(|name| Str::from(name.to_ascii_lowercase())),
        weight: 1,
        ports: mappings,
        ready: workload.ready || not_ready_too,
        terminating: pod.metadata.deleting && pod.passes_readiness(),
        node: workload.node.clone(),
        locality: workload.locality.clone(),
        subsets: subsets.selecting(pod.labels()),
        labels: workload.labels.clone(),
    })
}

/// By the port's name, then the target's, then its number.
fn entry_port(spec: &PortSpec, port: &ServicePort, entry: &WorkloadEntry) -> Option<u16> {
    let own = |name: &str| entry.spec.ports.get(name).copied().and_then(|it| it.try_into().ok());
    let named = || match &spec.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => port_number(*number),
        Some(IntOrString::String(name)) => own(name),
    };
    own(&port.name).or_else(named)
}

/// A name is looked up in the pod, and may mean another port in each.
fn target_port(spec: &PortSpec, port: &ServicePort, pod: &Pod) -> Option<u16> {
    match &spec.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => port_number(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => named_port(pod, name),
    }
}

/// Among containers, and init containers that keep running (Kubernetes "Sidecar Containers").
fn named_port(pod: &Pod, name: &str) -> Option<u16> {
    let PodTemplate { containers, init_containers, .. } = &*pod.template;
    let stays = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = init_containers.iter().filter(stays);
    containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")))
        .find(|port| port.name.as_deref() == Some(name))
        .and_then(|port| port_number(port.container_port))
}

fn complain_of_names(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    selected: &[(&Workload, &Pod)],
    ports: &Ports<'_>,
) {
    for (spec, port) in ports {
        let Some(target) = &spec.target_port else { continue };
        if selected.is_empty()
            || selected.iter().any(|(_, pod)| target_port(spec, port, pod).is_some())
        {
            continue;
        }
        let reason = match target {
            IntOrString::Int(number) => format!("{number} is not a port"),
            IntOrString::String(name) => {
                format!("no container of the selected pods has a TCP port that is named {name:?}")
            }
        };
        let field = format!("spec.ports (port {}).targetPort", port.port);
        cx.warn::<Service>(key, field, format!("{reason}; the port has no endpoint"));
    }
}

/// Ports of a slice and of its service belong together by name.
fn slice_ports(slice: &EndpointSlice, ports: &Ports<'_>) -> Vec<PortMapping> {
    let mut mappings = Vec::new();
    for (_, port) in ports {
        let target = slice
            .ports
            .iter()
            .flatten()
            .filter(|listed| matches!(listed.protocol.as_deref(), None | Some("TCP")))
            .find(|listed| listed.name.as_deref().unwrap_or_default() == port.name.as_str())
            .and_then(|listed| port_number(listed.port?));
        mappings.extend(target.map(|target| PortMapping { port: port.port, target }));
    }
    mappings
}
