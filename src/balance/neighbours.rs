//! The endpoints in the same places as others, for retries that are to go elsewhere.

use std::net::SocketAddr;

use crate::model::{Endpoint, Service};

/// The addresses of all endpoints in the localities of these, with these.
pub fn neighbours(service: &Service, port: u16, of: &[SocketAddr]) -> Vec<SocketAddr> {
    let addresses = |endpoint: &Endpoint| {
        let target = endpoint.target_port(port);
        let each = endpoint.addresses.iter().map(std::net::IpAddr::to_canonical);
        let each = each.filter_map(|address| Some(SocketAddr::new(address, target?)));
        each.collect::<Vec<_>>()
    };
    let is_meant = |endpoint: &&Endpoint| addresses(endpoint).iter().any(|it| of.contains(it));
    let places: Vec<_> = service.endpoints.iter().filter(is_meant).map(|it| &it.locality).collect();
    let beside = service.endpoints.iter().filter(|it| places.contains(&&it.locality));
    beside.flat_map(addresses).collect()
}
