//! A service's endpoints with addresses in place of names: pure over one snapshot and the cached names.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::name::Known;
use crate::base::Str;
use crate::model::{Endpoint, PortMapping, Resolution, Service};
use crate::world::World;

/// A share of 1 is scaled to this, so that several addresses of a name can divide it: 840 has every divisor up to 8.
const SHARE: u32 = 840;

/// The mesh Service that a name means. An entry's host is looked up like any other name: it may be the host of this
/// very entry.
pub(super) fn in_mesh<'a>(world: &'a World, name: &str) -> Option<&'a Arc<Service>> {
    world.service_named(name, None).filter(|service| service.entry.is_none())
}

/// The service with addresses for names. Names that are neither in `known` nor in the mesh have no addresses.
pub(super) fn made(world: &World, service: &Service, known: &HashMap<Str, Arc<Known>>) -> Service {
    let mut endpoints = Vec::new();
    for endpoint in &service.endpoints {
        let start = endpoints.len();
        match &endpoint.name {
            None => endpoints.push(endpoint.clone()),
            Some(name) => {
                if let Some(other) = in_mesh(world, name) {
                    endpoints.extend(through(endpoint, other));
                }
                for address in known.get(name).into_iter().flat_map(|known| &known.addresses) {
                    endpoints.extend(at(world, endpoint, *address));
                }
            }
        }
        share(endpoint.weight, &mut endpoints[start..]);
    }
    // From here on it is a static list like any other.
    Service { endpoints, resolution: Resolution::Listed, ..service.clone() }
}

/// A wildcard as the one name below it that these addresses are of.
pub(super) fn below(
    world: &World,
    service: &Service,
    name: &Str,
    addresses: impl Iterator<Item = IpAddr> + Clone,
) -> Service {
    let mut endpoints = Vec::new();
    for endpoint in &service.endpoints {
        let start = endpoints.len();
        endpoints.extend(addresses.clone().flat_map(|address| at(world, endpoint, address)));
        share(endpoint.weight, &mut endpoints[start..]);
    }
    let server = Some(name.clone());
    Service { endpoints, server, resolution: Resolution::Listed, ..service.clone() }
}

fn at(world: &World, endpoint: &Endpoint, address: IpAddr) -> Vec<Endpoint> {
    match world.kubernetes_at(address) {
        Some(other) => through(endpoint, other).collect(),
        None => vec![Endpoint { addresses: vec![address], name: None, ..endpoint.clone() }],
    }
}

/// The endpoints of `other`, on the ports that the endpoint's ports map to there.
fn through<'a>(endpoint: &'a Endpoint, other: &'a Service) -> impl Iterator<Item = Endpoint> + 'a {
    other.endpoints.iter().map(move |one| {
        let lead = |mapping: &PortMapping| {
            let target = one.target_port(mapping.target)?;
            Some(PortMapping { port: mapping.port, target })
        };
        Endpoint { ports: endpoint.ports.iter().filter_map(lead).collect(), ..one.clone() }
    })
}

/// The addresses of one name divide its share.
fn share(weight: u32, addresses: &mut [Endpoint]) {
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    for address in addresses {
        address.weight = (weight.saturating_mul(SHARE) / count).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::fixture::{Fixture, key, service, workload};

    fn named(name: &str, weight: u32) -> Endpoint {
        let pod = workload("x", "192.0.2.1");
        let mut endpoint = service("x", "192.0.2.2", &[&pod]).endpoints.remove(0);
        endpoint.ports = vec![PortMapping { port: 443, target: 80 }];
        Endpoint {
            workload: None,
            addresses: Vec::new(),
            name: Some(name.into()),
            weight,
            ..endpoint
        }
    }

    fn entry(host: &str, endpoints: Vec<Endpoint>) -> Service {
        Service {
            entry: Some("e".into()),
            hostname: host.into(),
            resolution: Resolution::Names,
            endpoints,
            ..service("e", "240.240.0.1", &[])
        }
    }

    async fn known(name: &str, addresses: &[&str]) -> HashMap<Str, Arc<Known>> {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let answer = super::super::name::Answer { addresses, ttl: super::super::name::LONGEST };
        let known = super::super::Name::default().known(|| async { Ok(answer) }).await;
        HashMap::from([(name.into(), known)])
    }

    fn targets(service: &Service) -> Vec<String> {
        let text = |endpoint: &Endpoint| {
            let target = endpoint.target_port(443).unwrap_or_default();
            format!("{}:{target} {}", endpoint.addresses[0], endpoint.weight)
        };
        service.endpoints.iter().map(text).collect()
    }

    #[tokio::test]
    async fn every_address_of_a_name_is_an_endpoint_and_they_divide_its_share() {
        let mut endpoints = vec![named("a.example", 3), named("b.example", 1)];
        endpoints[1].name = None;
        endpoints[1].addresses = vec!["192.0.2.9".parse().unwrap()];
        let service = entry("x.example", endpoints);
        let world = Fixture::default().build();
        let known = known("a.example", &["192.0.2.1", "192.0.2.2"]).await;
        let made = made(&world, &service, &known);
        assert_eq!(made.resolution, Resolution::Listed);
        assert_eq!(targets(&made), ["192.0.2.1:80 1260", "192.0.2.2:80 1260", "192.0.2.9:80 840"]);
    }

    /// From the node a virtual address leads past the mesh, in the clear.
    #[tokio::test]
    async fn a_service_of_the_mesh_means_its_endpoints_by_name_and_by_address() {
        let pod = workload("web", "10.0.0.5");
        let web = service("web", "10.96.0.1", &[&pod]);
        let name = web.hostname.clone();
        let world = Fixture::default().workload(pod.clone()).service(web).build();
        assert_eq!(in_mesh(&world, &name).unwrap().key, key("web"));
        for (asked, addresses) in [(name.as_str(), &[][..]), ("vip.example", &["10.96.0.1"])] {
            let service = entry("x.example", vec![named(asked, 1)]);
            let known = known(asked, addresses).await;
            let made = made(&world, &service, &known);
            assert_eq!(targets(&made), ["10.0.0.5:8080 840"], "{asked}");
            assert_eq!(made.endpoints[0].workload.as_ref(), Some(&pod.uid));
        }
    }

    /// Its own host is a name that the world outside knows.
    #[tokio::test]
    async fn an_entry_is_not_its_own_endpoint() {
        let service = entry("x.example", vec![named("x.example", 1)]);
        let world = Fixture::default().service(service.clone()).build();
        assert!(in_mesh(&world, "x.example").is_none());
        let known = known("x.example", &["192.0.2.1"]).await;
        assert_eq!(targets(&made(&world, &service, &known)), ["192.0.2.1:80 840"]);
    }
}
