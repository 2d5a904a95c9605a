//! Who has an address and who has a name, when several services claim it.
//!
//! A Service of Kubernetes comes first, since nobody may take its traffic by writing a ServiceEntry; entries come in the
//! order of the mesh, which is by age. An address is looked up exactly, then by the longest network: one hash probe for
//! every length of a prefix that is in use, however many services there are. A name likewise: exactly, then by the
//! wildcard with the most labels.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::World;
use crate::base::Str;
use crate::model::{Service, Workload};

/// What an address of the mesh means.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    Service(&'a Arc<Service>),
    Workload(&'a Arc<Workload>),
}

/// All claimants of one address or name, the first before the others; never empty.
#[derive(Default)]
struct Claimants(Vec<Arc<Service>>);

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
        let kubernetes = |service: &Arc<Service>| service.entry.is_none();
        let end = match kubernetes(service) {
            true => self.0.iter().position(|other| !kubernetes(other)),
            false => None,
        };
        self.0.insert(end.unwrap_or(self.0.len()), service.clone());
    }

    fn first(&self) -> Option<&Arc<Service>> {
        self.0.first()
    }

    /// Entries may share an address and have different ports. One that takes every port comes after those that name it.
    fn for_port(&self, port: u16) -> Option<&Arc<Service>> {
        let first = self.first()?;
        if self.0.len() == 1 || first.entry.is_none() {
            return Some(first);
        }
        self.0.iter().find(|service| service.port(port).is_some()).or(Some(first))
    }

    fn for_namespace(&self, namespace: &str) -> Option<&Arc<Service>> {
        self.0.iter().find(|service| service.key.namespace == namespace).or(self.first())
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
        self.exact.get(&address)?.first()
    }

    fn exact(&self, address: IpAddr, port: u16) -> Option<&Arc<Service>> {
        self.exact.get(&address)?.for_port(port)
    }

    fn longest(&self, address: IpAddr, port: u16) -> Option<&Arc<Service>> {
        self.lengths[family(&address)].iter().find_map(|length| {
            let network = IpNet::new(address, *length).ok()?.trunc();
            self.networks.get(&network)?.for_port(port)
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

    pub(super) fn first(&self, hostname: &str) -> Option<&Arc<Service>> {
        match hostname.strip_prefix("*.") {
            Some(suffix) => self.wildcards.get(suffix)?.first(),
            None => self.exact.get(hostname)?.first(),
        }
    }

    fn wildcard(&self, name: &str) -> Option<&Claimants> {
        let mut rest = name;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(wildcard) = self.wildcards.get(suffix) {
                return Some(wildcard);
            }
            rest = suffix;
        }
        None
    }
}

impl World {
    /// What an address means to those who dial it: a Service of Kubernetes, a workload, a ServiceEntry with this very
    /// address, then one with the longest network around it. A workload comes before an entry, so that an
    /// entry cannot take what is addressed to it.
    pub fn owner_of(&self, address: IpAddr, port: u16) -> Option<Owner<'_>> {
        let addresses = &self.indexes.addresses;
        let exact = addresses.exact(address, port);
        if let Some(service) = exact.filter(|service| service.entry.is_none()) {
            return Some(Owner::Service(service));
        }
        if let Some(workload) = self.workload_at(address) {
            return Some(Owner::Workload(workload));
        }
        exact.or_else(|| addresses.longest(address, port)).map(Owner::Service)
    }

    /// What a name, in lower case and without a dot at its end, means to a client in `namespace`: its own namespace's
    /// entry, a Service of Kubernetes, the oldest entry.
    pub fn service_known_as(&self, name: &str, namespace: &str) -> Option<&Arc<Service>> {
        self.indexes.names.exact.get(name)?.for_namespace(namespace)
    }

    /// The same for a name that nobody has: of the wildcards that match, the one with the most labels.
    pub fn wildcard_for(&self, name: &str, namespace: &str) -> Option<&Arc<Service>> {
        self.indexes.names.wildcard(name)?.for_namespace(namespace)
    }
}
