//! Who has an address and who has a name, when several services claim it.
//!
//! A claim counts for the clients that see the service: a Service of Kubernetes for everybody, a ServiceEntry where its
//! [`Visibility`] says. What a client's own namespace claims comes first. Of what everybody sees, a Service of Kubernetes comes
//! first, since nobody may take its traffic by writing a ServiceEntry; entries come in the order of the mesh, which is by age.
//! An address is looked up exactly, then by the longest network: one hash probe for every length of a prefix that is in use,
//! however many services there are. A name likewise: exactly, then by the wildcard with the most labels. Claims that a client
//! does not see cost it nothing.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::World;
use crate::base::Str;
use crate::model::{Service, Visibility, Workload};

/// What an address of the mesh means.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    Service(&'a Arc<Service>),
    Workload(&'a Arc<Workload>),
}

/// All claimants of one address or name.
#[derive(Default)]
struct Claimants {
    /// Whom everybody sees, Services of Kubernetes before entries.
    everywhere: Vec<Arc<Service>>,
    /// Entries by the namespaces of their clients: those that only these see, and in its own namespace each.
    of_namespace: BTreeMap<Str, Vec<Arc<Service>>>,
}

#[derive(Default)]
pub(super) struct Addresses {
    exact: HashMap<IpAddr, Claimants>,
    networks: HashMap<IpNet, Claimants>,
    /// The lengths of the prefixes in `networks`, longest first: of IPv4, of IPv6.
    lengths: [Vec<u8>; 2],
}

#[derive(Default)]
pub(super) struct Names {
    exact: HashMap<Str, Claimants>,
    /// By what follows `*.`.
    wildcards: HashMap<Str, Claimants>,
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

    /// Those that clients of a namespace see, the first before the others; `None` stands for clients of whom nothing is known.
    fn seen_from(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<Service>> {
        let own = namespace.and_then(|namespace| self.of_namespace.get(namespace));
        own.into_iter().flatten().chain(&self.everywhere)
    }

    /// Entries may share an address and have different ports. One that takes every port comes after those that name it.
    fn for_port(&self, port: u16, namespace: Option<&str>) -> Option<&Arc<Service>> {
        let named = self.seen_from(namespace).find(|service| service.port(port).is_some());
        named.or_else(|| self.seen_from(namespace).next())
    }
}

impl Addresses {
    pub(super) fn add(&mut self, service: &Arc<Service>) {
        for vip in &service.vips {
            self.exact.entry(*vip).or_default().add(service);
        }
        for network in &service.networks {
            self.networks.entry(network.trunc()).or_default().add(service);
            let lengths = &mut self.lengths[family(&network.addr())];
            let length = network.prefix_len();
            let place = lengths.iter().position(|other| *other <= length).unwrap_or(lengths.len());
            if lengths.get(place) != Some(&length) {
                lengths.insert(place, length);
            }
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
        self.lengths[family(&address)].iter().find_map(|length| {
            let network = IpNet::new(address, *length).ok()?.trunc();
            self.networks.get(&network)?.for_port(port, namespace)
        })
    }
}

fn family(address: &IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

impl Names {
    pub(super) fn add(&mut self, service: &Arc<Service>) {
        let hostname = &service.hostname;
        match hostname.strip_prefix("*.") {
            Some(suffix) => self.wildcards.entry(suffix.into()).or_default().add(service),
            None => self.exact.entry(hostname.clone()).or_default().add(service),
        }
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
    /// What an address means to clients of a namespace who dial it: a Service of Kubernetes, a workload, a ServiceEntry with
    /// this very address, then one with the longest network around it. A workload comes before an entry, so that an
    /// entry cannot take what is addressed to it.
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

    /// The Service of Kubernetes that has a virtual address.
    pub fn kubernetes_at(&self, address: IpAddr) -> Option<&Arc<Service>> {
        self.service_at(address).filter(|service| service.entry.is_none())
    }

    /// The ServiceEntry that an address means to everybody, whatever entries of their own some have.
    pub fn common_entry_at(&self, address: IpAddr, port: u16) -> Option<&Arc<Service>> {
        let entry = self.indexes.addresses.entry(address, port, None);
        entry.filter(|service| service.entry.is_some())
    }

    /// The services of a host, which may begin with `*.`, as clients of a namespace see them: their own namespace's entry, a
    /// Service of Kubernetes, then the entries that everybody sees, the oldest first.
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

    /// What a name, in lower case and without a dot at its end, means to a client in `namespace`.
    pub fn service_known_as(&self, name: &str, namespace: &str) -> Option<&Arc<Service>> {
        self.indexes.names.exact.get(name)?.seen_from(Some(namespace)).next()
    }

    /// The same for a name that nobody has: of the wildcards that match, the one with the most labels.
    pub fn wildcard_for(&self, name: &str, namespace: &str) -> Option<&Arc<Service>> {
        self.indexes.names.wildcard(name, namespace)
    }
}
