//! Which service owns an address or a name that several services claim.
//!
//! A claim counts for the clients that see the service: a Kubernetes Service for all clients, a ServiceEntry as its
//! [`Visibility`] says. Claims of a client's own namespace come first. Among claims that are visible to all, a
//! Kubernetes Service comes first, because nobody may take its traffic with a ServiceEntry; entries follow in the order
//! of the mesh, which is by age. An address is looked up exactly, then by the longest network: one hash probe per
//! prefix length in use, however many services there are. A name likewise: exactly, then by the wildcard with the most
//! labels. Claims that a client does not see cost it nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::World;
use super::diff::Diff;
use super::shards::Shards;
use crate::base::{ObjectKey, Str, work};
use crate::model::{Service, Visibility, Workload};

/// The owner of an address of the mesh.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    Service(&'a Arc<Service>),
    Workload(&'a Arc<Workload>),
}

/// All claimants of one address or name.
#[derive(Clone, Default)]
struct Claimants {
    /// Those visible to all clients, Kubernetes Services before entries.
    everywhere: Vec<Arc<Service>>,
    /// Entries by the namespaces of their clients: those that only these see, and each in its own namespace.
    of_namespace: BTreeMap<Str, Vec<Arc<Service>>>,
}

#[derive(Clone, Default)]
pub(super) struct Addresses {
    exact: Shards<IpAddr, Claimants>,
    networks: Arc<Networks>,
}

#[derive(Clone, Default)]
struct Networks {
    all: HashMap<IpNet, Claimants>,
    /// The prefix lengths in use, longest first: of IPv4, of IPv6.
    lengths: [Vec<u8>; 2],
}

#[derive(Clone, Default)]
pub(super) struct Names {
    exact: Shards<Str, Claimants>,
    /// By the part after `*.`.
    wildcards: Shards<Str, Claimants>,
}

impl Claimants {
    fn add(&mut self, service: &Arc<Service>) {
        let mut add_for = |namespace: &Str| {
            let list = self.of_namespace.entry(namespace.clone()).or_default();
            list.push(service.clone());
        };
        match (&service.visibility, &service.entry) {
            (Visibility::Namespaces(namespaces), _) => namespaces.iter().for_each(add_for),
            (Visibility::Everywhere, Some(_)) => {
                add_for(&service.key.namespace);
                self.everywhere.push(service.clone());
            }
            (Visibility::Everywhere, None) => {
                let entry = self.everywhere.iter().position(|other| other.entry.is_some());
                self.everywhere.insert(entry.unwrap_or(self.everywhere.len()), service.clone());
            }
        }
    }

    /// Replaces a service with another version that claims the same.
    fn replace(&mut self, old: &Arc<Service>, new: &Arc<Service>) {
        let lists = self.of_namespace.values_mut().chain([&mut self.everywhere]);
        for claimant in lists.flatten().filter(|claimant| Arc::ptr_eq(claimant, old)) {
            *claimant = new.clone();
        }
    }

    /// The claimants that clients of a namespace see, in order of precedence; `None` stands for clients of which
    /// nothing is known.
    fn seen_from(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<Service>> {
        let own = namespace.and_then(|namespace| self.of_namespace.get(namespace));
        own.into_iter().flatten().chain(&self.everywhere)
    }

    /// Entries may share an address and have different ports. One that accepts every port comes after those that list
    /// it.
    fn for_port(&self, port: u16, namespace: Option<&str>) -> Option<&Arc<Service>> {
        let named = self.seen_from(namespace).find(|service| service.port(port).is_some());
        named.or_else(|| self.seen_from(namespace).next())
    }
}

impl Networks {
    fn add(&mut self, service: &Arc<Service>) {
        for network in &service.networks {
            self.all.entry(network.trunc()).or_default().add(service);
            let lengths = &mut self.lengths[family(&network.addr())];
            let length = network.prefix_len();
            let place = lengths.iter().position(|other| *other <= length).unwrap_or(lengths.len());
            if lengths.get(place) != Some(&length) {
                lengths.insert(place, length);
            }
        }
    }
}

impl Addresses {
    /// A service whose claims are unchanged.
    fn replace(&mut self, old: &Arc<Service>, new: &Arc<Service>) {
        for vip in &new.vips {
            self.exact.change(vip, |claimants| claimants.replace(old, new));
        }
        for network in &new.networks {
            let networks = &mut Arc::make_mut(&mut self.networks).all;
            if let Some(claimants) = networks.get_mut(&network.trunc()) {
                claimants.replace(old, new);
            }
        }
    }

    /// The claims of `changed` services differ; `services`: all, in their order.
    fn claim_anew(&mut self, changed: &[&Arc<Service>], services: &[Arc<Service>]) {
        let vips: HashSet<&IpAddr> = changed.iter().flat_map(|it| &it.vips).collect();
        vips.iter().for_each(|vip| self.exact.remove(*vip));
        for service in services {
            for vip in service.vips.iter().filter(|vip| vips.contains(vip)) {
                self.exact.change(vip, |claimants| claimants.add(service));
            }
        }
        if changed.iter().any(|service| !service.networks.is_empty()) {
            let mut networks = Networks::default();
            services.iter().for_each(|service| networks.add(service));
            self.networks = Arc::new(networks);
        }
    }

    pub(super) fn first_at(&self, address: IpAddr) -> Option<&Arc<Service>> {
        self.exact.get(&address)?.everywhere.first()
    }

    fn entry(&self, address: IpAddr, port: u16, namespace: Option<&str>) -> Option<&Arc<Service>> {
        let exact = self.exact.get(&address);
        let exact = exact.and_then(|claimants| claimants.for_port(port, namespace));
        exact.or_else(|| self.longest(address, port, namespace))
    }

    fn longest(
        &self,
        address: IpAddr,
        port: u16,
        namespace: Option<&str>,
    ) -> Option<&Arc<Service>> {
        self.networks.lengths[family(&address)].iter().find_map(|length| {
            let network = IpNet::new(address, *length).ok()?.trunc();
            self.networks.all.get(&network)?.for_port(port, namespace)
        })
    }
}

/// Applies additions and removals between `before` and `services`, all in their order.
pub(super) fn follow(
    addresses: &mut Addresses,
    names: &mut Names,
    diff: &Diff<'_, Service>,
    [before, services]: [&[Arc<Service>]; 2],
) {
    let come: HashMap<_, _> = diff.come.iter().map(|it| (&it.key, *it)).collect();
    let gone: HashMap<_, _> = diff.gone.iter().map(|it| (&it.key, *it)).collect();
    let are_entries = diff.come.iter().any(|it| it.entry.is_some());
    // The first of several claimants may be another one with the same claims.
    let is_ordered = !are_entries || entries(before).eq(entries(services));
    let both = |old: &&Arc<Service>| {
        is_ordered && come.get(&old.key).is_some_and(|new| claim_alike(old, new))
    };
    let mut changed: Vec<&Arc<Service>> = Vec::new();
    for old in diff.gone.iter().copied() {
        match come.get(&old.key) {
            Some(new) if both(&old) => {
                work::did("claims replaced");
                addresses.replace(old, new);
                names.replace(old, new);
            }
            _ => changed.push(old),
        }
    }
    let is_new = |new: &&Arc<Service>| gone.get(&new.key).is_none_or(|old| !both(old));
    changed.extend(diff.come.iter().copied().filter(is_new));
    if !changed.is_empty() {
        work::did("claims made anew");
        addresses.claim_anew(&changed, services);
        names.claim_anew(&changed, services);
    }
}

/// The entries' keys in order of precedence.
fn entries(services: &[Arc<Service>]) -> impl Iterator<Item = &ObjectKey> {
    services.iter().filter(|it| it.entry.is_some()).map(|it| &it.key)
}

/// Whether both claim the same for the same clients.
fn claim_alike(one: &Service, two: &Service) -> bool {
    one.hostname == two.hostname
        && one.vips == two.vips
        && one.networks == two.networks
        && one.visibility == two.visibility
        && one.entry == two.entry
}

fn family(address: &IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

impl Names {
    /// The names of a host's kind, and the host among them.
    fn place(&mut self, hostname: &Str) -> (&mut Shards<Str, Claimants>, Str) {
        match hostname.strip_prefix("*.") {
            Some(suffix) => (&mut self.wildcards, suffix.into()),
            None => (&mut self.exact, hostname.clone()),
        }
    }

    /// A service whose claims are unchanged.
    fn replace(&mut self, old: &Arc<Service>, new: &Arc<Service>) {
        let (names, name) = self.place(&new.hostname);
        names.change(&name, |claimants| claimants.replace(old, new));
    }

    /// The claims of `changed` services differ; `services`: all, in their order.
    fn claim_anew(&mut self, changed: &[&Arc<Service>], services: &[Arc<Service>]) {
        let hosts: HashSet<&Str> = changed.iter().map(|it| &it.hostname).collect();
        for host in &hosts {
            let (names, name) = self.place(host);
            names.remove(&name);
        }
        for service in services.iter().filter(|it| hosts.contains(&it.hostname)) {
            let (names, name) = self.place(&service.hostname);
            names.change(&name, |claimants| claimants.add(service));
        }
    }

    /// All claimants of a host, whatever their visibility; one may occur twice.
    pub(super) fn claimants(&self, hostname: &str) -> impl Iterator<Item = &Arc<Service>> {
        let claimants = self.of_host(hostname).into_iter();
        claimants.flat_map(|it| it.everywhere.iter().chain(it.of_namespace.values().flatten()))
    }

    fn of_host(&self, hostname: &str) -> Option<&Claimants> {
        match hostname.strip_prefix("*.") {
            Some(suffix) => self.wildcards.get(suffix),
            None => self.exact.get(hostname),
        }
    }

    fn wildcard(&self, name: &str, namespace: &str) -> Option<&Arc<Service>> {
        let mut rest = name;
        while let Some((_, suffix)) = rest.split_once('.') {
            let claimants = self.wildcards.get(suffix);
            if let Some(first) = claimants.and_then(|it| it.seen_from(Some(namespace)).next()) {
                return Some(first);
            }
            rest = suffix;
        }
        None
    }
}

impl World {
    /// The owner of an address for clients of a namespace that dial it: a Kubernetes Service, a workload, a
    /// ServiceEntry with this very address, then one with the longest matching network. A workload comes before an
    /// entry, so that an entry cannot take its traffic.
    pub fn owner_of(&self, address: IpAddr, port: u16, namespace: &str) -> Option<Owner<'_>> {
        if let Some(service) = self.kubernetes_at(address) {
            return Some(Owner::Service(service));
        }
        if let Some(workload) = self.workload_at(address) {
            return Some(Owner::Workload(workload));
        }
        let entry = self.indexes.addresses.entry(address, port, Some(namespace));
        entry.map(Owner::Service)
    }

    /// The Kubernetes Service that has a virtual address.
    pub fn kubernetes_at(&self, address: IpAddr) -> Option<&Arc<Service>> {
        self.service_at(address).filter(|service| service.entry.is_none())
    }

    /// The ServiceEntry that owns an address for all clients, whatever entries some namespaces have.
    pub fn common_entry_at(&self, address: IpAddr, port: u16) -> Option<&Arc<Service>> {
        let entry = self.indexes.addresses.entry(address, port, None);
        entry.filter(|service| service.entry.is_some())
    }

    /// The services of a host, which may begin with `*.`, as clients of a namespace see them: their own namespace's
    /// entry, a Kubernetes Service, then the entries that are visible to all, the oldest first.
    pub fn services_named(
        &self,
        hostname: &str,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = &Arc<Service>> {
        let claimants = self.indexes.names.of_host(hostname).into_iter();
        claimants.flat_map(move |claimants| claimants.seen_from(namespace))
    }

    /// The first of [`services_named`](Self::services_named).
    pub fn service_named(&self, hostname: &str, namespace: Option<&str>) -> Option<&Arc<Service>> {
        self.services_named(hostname, namespace).next()
    }

    /// The owner of a name, in lower case and without a trailing dot, for a client in `namespace`.
    pub fn service_known_as(&self, name: &str, namespace: &str) -> Option<&Arc<Service>> {
        self.indexes.names.exact.get(name)?.seen_from(Some(namespace)).next()
    }

    /// The same for a name without an owner: of the wildcards that match, the one with the most labels.
    pub fn wildcard_for(&self, name: &str, namespace: &str) -> Option<&Arc<Service>> {
        self.indexes.names.wildcard(name, namespace)
    }
}
