//! Builds the table that a client's requests to one port are selected from: its endpoints in groups, the nearest first, or with the
//! shares that `localityLbSetting.distribute` gives to places.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use super::plain::{address_like, distance};
use crate::base::Str;
use crate::model::{Endpoint, Locality, Service, Workload};
use crate::traffic::{
    Destination, Distribute, Failover, Group, LocalityPolicy, Member, PlacePattern, Subset, Table,
};
use crate::world::World;

/// What a table is built for.
pub(super) struct Build<'a> {
    pub(super) world: &'a World,
    pub(super) service: &'a Service,
    pub(super) port: u16,
    pub(super) client: &'a Workload,
    /// Only its endpoints are in the table.
    pub(super) subset: Option<&'a Subset>,
    pub(super) like: SocketAddr,
    pub(super) destination: &'a Destination,
}

/// An endpoint, its place in the list, and its address.
type Found<'a> = (usize, &'a Endpoint, SocketAddr);

impl<'a> Build<'a> {
    pub(super) fn table(&self) -> Table {
        let service = self.service;
        let ready = service.endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.ready);
        let found: Vec<Found<'a>> = ready.filter_map(|it| self.found(it)).collect();
        let place = place(&self.client.locality);
        match self.destination.locality() {
            Some(LocalityPolicy::Distribute(rules)) => {
                match rules.iter().find(|rule| rule.from.matches(place)) {
                    Some(rule) => self.shared(&found, rule),
                    None => self.ordered(&found, |_| 0),
                }
            }
            Some(LocalityPolicy::Failover(failover)) => {
                self.ordered(&found, |endpoint| level(failover, self.client, endpoint))
            }
            Some(LocalityPolicy::Off) => self.ordered(&found, |_| 0),
            None => {
                let preference = service.balancing.preference;
                self.ordered(&found, |it| u32::from(distance(preference, self.client, it)))
            }
        }
    }

    /// An endpoint that serves the port, for this client.
    fn found(&self, (index, endpoint): (usize, &'a Endpoint)) -> Option<Found<'a>> {
        if self.service.balancing.local_only && endpoint.node != self.client.node {
            return None;
        }
        if self.subset.is_some_and(|subset| !subset.has(&endpoint.subsets)) {
            return None;
        }
        let target = endpoint.target_port(self.port)?;
        Some((index, endpoint, SocketAddr::new(address_like(endpoint, self.like)?, target)))
    }

    fn ordered(&self, found: &[Found<'a>], level: impl Fn(&Endpoint) -> u32) -> Table {
        let mut levels: BTreeMap<(u32, bool), Vec<Found<'a>>> = BTreeMap::new();
        for found in found {
            levels.entry((level(found.1), self.is_other_family(found))).or_default().push(*found);
        }
        let groups = levels.into_values().map(|found| self.group(&found, 1));
        Table::in_order(groups.collect())
    }

    fn shared(&self, found: &[Found<'a>], rule: &Distribute) -> Table {
        let mut left = found.to_vec();
        let mut take = |pattern: &PlacePattern| {
            let is_of = |found: &Found<'_>| pattern.matches(place(&found.1.locality));
            let (taken, rest): (Vec<_>, Vec<_>) = left.drain(..).partition(is_of);
            left = rest;
            taken
        };
        let mut groups = Vec::new();
        for (pattern, share) in &rule.to {
            let mut taken = take(pattern);
            if taken.iter().any(|found| !self.is_other_family(found)) {
                taken.retain(|found| !self.is_other_family(found));
            }
            if !taken.is_empty() && *share > 0 {
                groups.push(self.group(&taken, *share));
            }
        }
        Table::in_shares(groups)
    }

    fn group(&self, found: &[Found<'a>], share: u32) -> Group {
        let addresses: Vec<SocketAddr> = found.iter().map(|(.., address)| *address).collect();
        let mut records = self.destination.records(&addresses).map(Vec::into_iter);
        let members = found.iter().map(|(index, endpoint, address)| {
            let load = self.world.load_of(endpoint.workload.as_ref(), address.ip());
            Member {
                endpoint: *index,
                address: *address,
                weight: endpoint.weight,
                // Of those that only their names are known of nobody else counts.
                load: load.cloned().unwrap_or_default(),
                host: records.as_mut().and_then(Iterator::next),
                salt: salt(*address),
            }
        });
        Group::new(members.collect(), share)
    }

    /// An address of the other family may be unreachable, so it comes after all others of the same distance.
    fn is_other_family(&self, (.., address): &Found<'_>) -> bool {
        address.is_ipv4() != self.like.ip().to_canonical().is_ipv4()
    }
}

/// How far an endpoint is: 0 is nearest. Istio's `applyFailoverPriorities`, then its `applyLocalityFailover`.
fn level(failover: &Failover, client: &Workload, endpoint: &Endpoint) -> u32 {
    /// Levels by place.
    const PLACES: u32 = 5;
    let by_labels = by_labels(&failover.labels, client, endpoint);
    if !failover.by_place {
        return by_labels;
    }
    let (here, there) = (&client.locality, &endpoint.locality);
    let by_place = if here.region != there.region {
        let next = failover.regions.iter().find(|(from, _)| *from == here.region);
        if next.is_some_and(|(_, to)| *to != there.region) { 4 } else { 3 }
    } else if here.zone != there.zone {
        2
    } else {
        u32::from(here.subzone != there.subzone)
    };
    by_labels * PLACES + by_place
}

/// The networks of a mesh. Where it is the first label, it comes before all others, which count among the endpoints of another network
/// as well.
const NETWORK: &str = "topology.istio.io/network";

fn by_labels(labels: &[(Str, Option<Str>)], client: &Workload, endpoint: &Endpoint) -> u32 {
    let count = u32::try_from(labels.len()).unwrap_or(u32::MAX);
    let mut elsewhere = 0;
    for ((name, value), left) in labels.iter().zip((1..=count).rev()) {
        let wanted = value.as_ref().or_else(|| client.labels.get(name));
        let wanted = wanted.map_or("", Str::as_str);
        if endpoint.labels.get(name).map_or("", Str::as_str) == wanted {
            continue;
        }
        if left == count && name == NETWORK {
            elsewhere = count;
            continue;
        }
        return elsewhere + left;
    }
    elsewhere
}

fn place(locality: &Locality) -> [&str; 3] {
    [&locality.region, &locality.zone, &locality.subzone]
}

/// Every agent hashes alike, also after a restart.
fn salt(address: SocketAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    hasher.finish()
}
