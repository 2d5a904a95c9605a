//! Which ports services have, and what they are at the pods: for complaints of ports that nothing has. What is not known
//! counts as possible, such as a target port with a name where no endpoint is yet.
//!
//! A pod may listen on any port, declared or not; but a number that is a Service's port, and leads to another port of the
//! very pods, is most likely a mistake where a pod's own port is meant.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ServicePort as PortSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Context;
use super::selectors::selector;
use crate::base::{ObjectKey, Str};
use crate::model::{Binding, Service};
use crate::source::objects;

type Labels = BTreeMap<String, String>;

/// Ports, and what they are at endpoints; each pair once.
pub(super) type Pairs = BTreeSet<(u16, u16)>;

/// All services, to be found by what policies say of them.
pub(super) struct Ports<'a> {
    objects: &'a crate::source::Objects,
    /// Of Services of Kubernetes.
    kubernetes: HashMap<&'a ObjectKey, &'a Pairs>,
    /// By namespace, whether it is a ServiceEntry, and name: each host of an entry.
    by_name: HashMap<(Str, bool, Str), Vec<&'a Service>>,
    by_waypoint: HashMap<&'a ObjectKey, Vec<&'a Service>>,
    /// Services of Kubernetes with a selector, by namespace.
    selecting: BTreeMap<&'a Str, Vec<(&'a Service, &'a Labels)>>,
}

/// The ports of one service, and what they are at its endpoints.
#[derive(Default)]
pub(super) struct Known {
    pub(super) pairs: Pairs,
    /// For some port it is not known.
    pub(super) open: bool,
}

impl<'a> Ports<'a> {
    pub(super) fn new(
        cx: &Context<'a>,
        kubernetes: impl Iterator<Item = (&'a ObjectKey, &'a Pairs)>,
        services: &'a [Arc<Service>],
    ) -> Self {
        let mut ports = Self {
            objects: cx.objects,
            kubernetes: kubernetes.collect(),
            by_name: HashMap::new(),
            by_waypoint: HashMap::new(),
            selecting: BTreeMap::new(),
        };
        for service in services {
            let namespace = &service.key.namespace;
            let id = (namespace.clone(), service.entry.is_some(), service.name().clone());
            ports.by_name.entry(id).or_default().push(service);
            if let Binding::Waypoint(waypoint) = &service.waypoint {
                ports.by_waypoint.entry(waypoint).or_default().push(service);
                if let Some(canary) = &service.canary {
                    ports.by_waypoint.entry(&canary.waypoint).or_default().push(service);
                }
            }
            let object = cx.objects.get::<objects::Service>(&service.key);
            if let Some(selector) = object.filter(|_| service.entry.is_none()).and_then(selector) {
                ports.selecting.entry(namespace).or_default().push((service, selector));
            }
        }
        ports
    }

    /// The Service, or each host of the ServiceEntry.
    pub(super) fn named(&self, namespace: &Str, is_entry: bool, name: &Str) -> &[&'a Service] {
        let id = (namespace.clone(), is_entry, name.clone());
        self.by_name.get(&id).map_or(&[], |found| found)
    }

    pub(super) fn bound_to(&self, waypoint: &ObjectKey) -> &[&'a Service] {
        self.by_waypoint.get(waypoint).map_or(&[], |found| found)
    }

    pub(super) fn of(&self, service: &Service) -> Known {
        let mut known = Known::default();
        match service.entry {
            Some(_) => known.pairs.extend(pairs(service)),
            None => {
                known
                    .pairs
                    .extend(self.kubernetes.get(&service.key).into_iter().copied().flatten());
                known.pairs.extend(self.written(service));
            }
        }
        let is_known = |port: u16| known.pairs.iter().any(|(from, _)| *from == port);
        known.open = !service.ports.iter().all(|port| is_known(port.port));
        known
    }

    /// What the object itself says of the ports of endpoints, also before there are any.
    fn written(&self, service: &Service) -> Vec<(u16, u16)> {
        let object = self.objects.get::<objects::Service>(&service.key);
        let object = object.filter(|object| selector(object).is_some());
        let Some(spec) = object.and_then(|it| it.spec.as_ref()) else { return Vec::new() };
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
        spec.ports.iter().flatten().filter_map(pair).collect()
    }

    /// By the port that clients dial: the Service, and the port that it leads to at pods with these labels (`None`: all of
    /// the namespace, or of all namespaces). Only those that no Service leads to as the pods' own.
    pub(super) fn mistaken(
        &self,
        namespace: Option<&Str>,
        labels: Option<&Labels>,
    ) -> BTreeMap<u16, (String, u16)> {
        let (mut mistaken, mut own) = (BTreeMap::new(), BTreeSet::new());
        let here = self.selecting.iter().filter(|(of, _)| namespace.is_none_or(|it| it == **of));
        for (service, selector) in here.flat_map(|(_, services)| services) {
            if labels.is_some_and(|labels| contradict(labels, selector)) {
                continue;
            }
            let known = self.of(service);
            if known.open {
                return BTreeMap::new();
            }
            let same_pods = labels.is_none_or(|labels| includes(labels, selector));
            for (port, target) in known.pairs {
                own.insert(target);
                if same_pods {
                    mistaken.entry(port).or_insert_with(|| (service.to_string(), target));
                }
            }
        }
        mistaken.retain(|port, _| !own.contains(port));
        mistaken
    }
}

/// Ports of a service, and what they are at its endpoints.
pub(super) fn pairs(service: &Service) -> impl Iterator<Item = (u16, u16)> {
    let mappings = service.endpoints.iter().flat_map(|endpoint| &endpoint.ports);
    mappings.map(|mapping| (mapping.port, mapping.target))
}

/// No pod has both.
fn contradict(one: &Labels, two: &Labels) -> bool {
    one.iter().any(|(name, value)| two.get(name).is_some_and(|other| other != value))
}

/// What one of the two selects, the other does.
fn includes(one: &Labels, two: &Labels) -> bool {
    let within =
        |some: &Labels, all: &Labels| some.iter().all(|(key, it)| all.get(key) == Some(it));
    within(one, two) || within(two, one)
}

/// What is wrong with such a port, and what to write instead.
pub(super) fn in_words(port: u16, (service, target): &(String, u16)) -> String {
    format!(
        "{port} is the port of {service}, which leads to {target} of its pods, and the pods' own is meant here: write {target}"
    )
}
