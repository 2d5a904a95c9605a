//! What follows from the endpoints of services: which of them lead to a workload, and how busy each endpoint is.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::Load;
use super::shards::Shards;
use crate::base::{ObjectKey, Str};
use crate::model::Service;

/// One way from a service to a workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Way {
    pub(super) service: ObjectKey,
    pub(super) service_port: u16,
    pub(super) target_port: u16,
}

/// An endpoint as load is counted by.
type Place = (Option<Str>, IpAddr);

#[derive(Clone, Default)]
pub(super) struct Endpoints {
    /// By workload, each service and port once, sorted.
    ways: Shards<Str, Arc<[Way]>>,
    /// With how many services have the endpoint.
    loads: Shards<Place, (Arc<Load>, u32)>,
}

impl Endpoints {
    pub(super) fn ways(&self, workload: &str) -> &[Way] {
        self.ways.get(workload).map_or(&[], |ways| ways)
    }

    pub(super) fn load(&self, workload: Option<&Str>, address: IpAddr) -> Option<&Arc<Load>> {
        self.loads.get(&(workload.cloned(), address)).map(|(load, _)| load)
    }

    /// A service came (there is no `old`), went, or changed.
    pub(super) fn replace(&mut self, old: Option<&Service>, new: Option<&Service>) {
        let (before, after) = (ways_of(old), ways_of(new));
        for (workload, way) in before.difference(&after) {
            let others: Arc<[Way]> =
                self.ways(workload).iter().filter(|other| *other != way).cloned().collect();
            match others.is_empty() {
                true => self.ways.remove(*workload),
                false => self.ways.insert((*workload).clone(), others),
            }
        }
        for (workload, way) in after.difference(&before) {
            let mut ways = self.ways(workload).to_vec();
            if let Err(place) = ways.binary_search(way) {
                ways.insert(place, way.clone());
                self.ways.insert((*workload).clone(), ways.into());
            }
        }
        let (before, after) = (places_of(old), places_of(new));
        // What came first: a load that one service takes over from another must not be forgotten in between.
        for place in after.difference(&before) {
            let (load, services) = self.loads.get(place).cloned().unwrap_or_default();
            self.loads.insert(place.clone(), (load, services + 1));
        }
        for place in before.difference(&after) {
            match self.loads.get(place).cloned() {
                Some((load, services)) if services > 1 => {
                    self.loads.insert(place.clone(), (load, services - 1));
                }
                _ => self.loads.remove(place),
            }
        }
    }
}

fn ways_of(service: Option<&Service>) -> HashSet<(&Str, Way)> {
    let mut ways = HashSet::new();
    let Some(service) = service else { return ways };
    for endpoint in &service.endpoints {
        let Some(workload) = &endpoint.workload else { continue };
        for mapping in &endpoint.ports {
            let (service_port, target_port) = (mapping.port, mapping.target);
            let service = service.key.clone();
            ways.insert((workload, Way { service, service_port, target_port }));
        }
    }
    ways
}

fn places_of(service: Option<&Service>) -> HashSet<Place> {
    let endpoints = service.into_iter().flat_map(|service| &service.endpoints);
    let places = endpoints.flat_map(|endpoint| {
        endpoint.addresses.iter().map(|address| (endpoint.workload.clone(), *address))
    });
    places.collect()
}
