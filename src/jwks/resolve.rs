//! Where the server of an address is: an endpoint of the Service of that name, or what the node's resolver says.
//!
//! ServiceEntries are not looked at. Their authors define hosts for clients of their own namespace, and keys are the same for all.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::Fetcher;
use crate::jwt::KeysUri;

impl Fetcher {
    /// The addresses, in the order in which they are tried.
    pub(super) async fn addresses(&self, uri: &KeysUri) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = (&*uri.host, uri.port);
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let mut addresses = match self.service_name(host) {
            Some(name) => self.endpoints(&name, port)?,
            None => tokio::net::lookup_host((host, port)).await?.collect(),
        };
        fastrand::shuffle(&mut addresses);
        Ok(addresses)
    }

    /// The whole name, if this is one of a Service.
    fn service_name(&self, host: &str) -> Option<String> {
        let domain = &*self.settings.cluster_domain;
        if host.ends_with(".svc") {
            return Some(format!("{host}.{domain}"));
        }
        let rest = host.strip_suffix(domain)?;
        rest.ends_with(".svc.").then(|| host.to_owned())
    }

    fn endpoints(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let missing = |why: String| io::Error::new(io::ErrorKind::NotFound, why);
        let world = self.world.load();
        let service = world.services_named(name, None).find(|service| service.entry.is_none());
        let service = service.ok_or_else(|| missing(format!("there is no Service {name}")))?;
        let ready = service.endpoints.iter().filter(|endpoint| endpoint.ready);
        let addresses = ready.filter_map(|endpoint| {
            let target = endpoint.ports.iter().find(|it| it.port == port)?.target;
            Some(SocketAddr::new(*endpoint.addresses.first()?, target))
        });
        let addresses: Vec<_> = addresses.collect();
        match addresses.is_empty() {
            true => Err(missing(format!("{service} has no ready endpoint on port {port}"))),
            false => Ok(addresses),
        }
    }
}
