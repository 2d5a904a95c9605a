//! Indexes of the endpoints of services: which services lead to a workload, and the load of each endpoint.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Load;
use super::shards::Shards;
use crate::base::{ObjectKey, Str, work};
use crate::model::Service;

/// One path from a service to a workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Way {
    pub(super) service: ObjectKey,
    pub(super) service_port: u16,
    pub(super) target_port: u16,
}

/// An endpoint, as load is counted.
type Place = (Option<Str>, IpAddr);

/// The paths to one workload by the namespace of the service, so that a tenant that points at another tenant's workload
/// changes only its own list; each service and port once, sorted.
type Ways = BTreeMap<Str, Arc<Vec<Way>>>;

#[derive(Clone, Default)]
pub(super) struct Endpoints {
    /// By workload.
    ways: Shards<Str, Arc<Ways>>,
    /// How many services have the endpoint.
    loads: Shards<Place, (Arc<Load>, u32)>,
}

impl Endpoints {
    /// From services of one namespace.
    pub(super) fn ways(&self, workload: &str, namespace: &str) -> &[Way] {
        let ways = self.ways.get(workload).and_then(|ways| ways.get(namespace));
        ways.map_or(&[], |ways| ways)
    }

    pub(super) fn load(&self, workload: Option<&Str>, address: IpAddr) -> Option<&Arc<Load>> {
        self.loads.get(&(workload.cloned(), address)).map(|(load, _)| load)
    }

    /// A service was added (there is no `old`), removed, or changed.
    pub(super) fn replace(&mut self, old: Option<&Service>, new: Option<&Service>) {
        let (before, after) = (ways_of(old), ways_of(new));
        for (workload, way) in before.difference(&after) {
            self.remove_way(workload, way);
        }
        for (workload, way) in after.difference(&before) {
            self.add_way(workload, way);
        }
        let (before, after) = (places_of(old), places_of(new));
        // Additions first: a load counter that one service takes over from another must not be lost in between.
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

    fn add_way(&mut self, workload: &Str, way: &Way) {
        work::did("ways changed");
        self.ways.change(workload, |ways| {
            let ways = Arc::make_mut(ways).entry(way.service.namespace.clone()).or_default();
            if let Err(place) = ways.binary_search(way) {
                own(ways).insert(place, way.clone());
            }
        });
    }

    fn remove_way(&mut self, workload: &Str, way: &Way) {
        work::did("ways changed");
        let namespace = &way.service.namespace;
        let mut is_empty = false;
        self.ways.change(workload, |all| {
            let all = Arc::make_mut(all);
            if let Some(ways) = all.get_mut(namespace)
                && let Ok(place) = ways.binary_search(way)
            {
                own(ways).remove(place);
                if ways.is_empty() {
                    all.remove(namespace);
                }
            }
            is_empty = all.is_empty();
        });
        if is_empty {
            self.ways.remove(workload);
        }
    }
}

/// Copied at the first change of a world, and not again.
fn own(ways: &mut Arc<Vec<Way>>) -> &mut Vec<Way> {
    if Arc::get_mut(ways).is_none() {
        ways.iter().for_each(|_| work::did("ways copied"));
    }
    Arc::make_mut(ways)
}

/// The paths from a service to workloads.
pub(super) fn ways_of(service: Option<&Service>) -> HashSet<(&Str, Way)> {
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
