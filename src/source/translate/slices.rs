//! EndpointSlices by what they belong to and by what they lead to, so that neither a slice that flaps nor a pod that moves takes a
//! look at all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use super::changes::Changes;
use super::roster::{Member, Moved};
use crate::base::{ObjectKey, work};
use crate::source::Objects;
use crate::source::objects::{EndpointSlice, label};

/// On an EndpointSlice: the service that it belongs to.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Kept from translation to translation.
#[derive(Default)]
pub(super) struct Slices {
    known: BTreeMap<ObjectKey, Known>,
    /// Those that name no service.
    loose: BTreeSet<ObjectKey>,
    of_service: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    to_pod: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    to_address: HashMap<IpAddr, BTreeSet<ObjectKey>>,
}

/// A slice that belongs to a service.
struct Known {
    service: ObjectKey,
    pods: BTreeSet<ObjectKey>,
    addresses: BTreeSet<IpAddr>,
}

impl Slices {
    /// The service that a slice belonged to when it was last followed.
    pub(super) fn service_of(&self, slice: &ObjectKey) -> Option<&ObjectKey> {
        self.known.get(slice).map(|known| &known.service)
    }

    /// The slices of a service, in the order of their keys.
    pub(super) fn of<'a>(&'a self, service: &ObjectKey) -> impl Iterator<Item = &'a ObjectKey> {
        self.of_service.get(service).into_iter().flatten()
    }

    /// The services that slices name.
    pub(super) fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.of_service.keys()
    }

    /// The slices that name no service.
    pub(super) fn loose(&self) -> impl Iterator<Item = &ObjectKey> {
        self.loose.iter()
    }

    /// The services with an endpoint that is one of these pods, by name or by address, as they were or as they are.
    pub(super) fn leading_to(&self, moved: &[Moved]) -> BTreeSet<ObjectKey> {
        let named = moved.iter().filter_map(|moved| self.to_pod.get(&moved.key));
        let there = addresses(moved).filter_map(|address| self.to_address.get(&address));
        let slices = named.chain(there).flatten();
        slices.filter_map(|slice| self.service_of(slice)).cloned().collect()
    }

    pub(super) fn follow(&mut self, objects: &Objects, changes: &Changes) {
        if changes.all_services {
            *self = Self::default();
            for (key, slice) in objects.all::<EndpointSlice>() {
                self.add(key, slice);
            }
            return;
        }
        for key in &changes.slices {
            self.remove(key);
            if let Some(slice) = objects.get::<EndpointSlice>(key) {
                self.add(key, slice);
            }
        }
    }

    fn add(&mut self, key: &ObjectKey, slice: &EndpointSlice) {
        work::did("slices indexed");
        let Some(service) = service_of(key, slice) else {
            self.loose.insert(key.clone());
            return;
        };
        let mut known = Known { service, pods: BTreeSet::new(), addresses: BTreeSet::new() };
        for endpoint in slice.endpoints.iter().flatten() {
            if let Some(target) = &endpoint.target_ref {
                let namespace = target.namespace.as_deref().unwrap_or(&key.namespace);
                let name = target.name.as_deref().unwrap_or_default();
                known.pods.insert(ObjectKey::new(namespace, name));
            }
            let first = endpoint.addresses.first();
            known.addresses.extend(first.and_then(|it| it.parse::<IpAddr>().ok()));
        }
        self.of_service.entry(known.service.clone()).or_default().insert(key.clone());
        for pod in &known.pods {
            self.to_pod.entry(pod.clone()).or_default().insert(key.clone());
        }
        for address in &known.addresses {
            self.to_address.entry(*address).or_default().insert(key.clone());
        }
        self.known.insert(key.clone(), known);
    }

    fn remove(&mut self, key: &ObjectKey) {
        self.loose.remove(key);
        let Some(known) = self.known.remove(key) else { return };
        if let Some(slices) = self.of_service.get_mut(&known.service) {
            slices.remove(key);
            if slices.is_empty() {
                self.of_service.remove(&known.service);
            }
        }
        known.pods.iter().for_each(|pod| forget(&mut self.to_pod, pod, key));
        known.addresses.iter().for_each(|address| forget(&mut self.to_address, address, key));
    }
}

/// The service that a slice belongs to.
pub(super) fn service_of(key: &ObjectKey, slice: &EndpointSlice) -> Option<ObjectKey> {
    let service = label(&slice.metadata, SERVICE_NAME)?;
    Some(ObjectKey::new(key.namespace.clone(), service))
}

fn forget<K: Hash + Eq>(index: &mut HashMap<K, BTreeSet<ObjectKey>>, place: &K, slice: &ObjectKey) {
    let Some(slices) = index.get_mut(place) else { return };
    slices.remove(slice);
    if slices.is_empty() {
        index.remove(place);
    }
}

/// Where the pods that moved were, and where they are.
pub(super) fn addresses(moved: &[Moved]) -> impl Iterator<Item = IpAddr> {
    let versions = moved.iter().flat_map(|moved| [&moved.before, &moved.after]).flatten();
    versions.flat_map(|member: &Member| &member.workload.addresses).copied()
}
