//! TLS to the application, within the connection that leads to it.

use std::sync::Arc;

use super::{Downstream, Failure, Reach};
use crate::balance::Picked;
use crate::base::{Reason, Str, covered};
use crate::gate;
use crate::model::Service;
use crate::tls::{Origin, Protocol, Ready, TlsFault};
use crate::tunnel::Carrier;

/// How a connection is encrypted, where an object demands it.
pub struct Secured {
    /// What demands it.
    pub origin: Arc<Origin>,
    ready: Arc<Ready>,
    /// The name that the server must prove.
    name: Str,
}

impl Secured {
    /// Connections with the same number and name may be shared.
    pub fn id(&self) -> (u64, Str) {
        (self.ready.number(), self.name.clone())
    }
}

impl From<TlsFault> for Failure {
    fn from(fault: TlsFault) -> Self {
        let reason = match fault.is_of_server() {
            true => Reason::ApplicationTls,
            false => Reason::Unencrypted,
        };
        Failure::new(reason, fault.to_string())
    }
}

impl Reach {
    /// How the connection of a client to an endpoint of the service, or of a subset of it, must be encrypted. `host`: the name that
    /// the client asks for, which counts only where the service's own name is a wildcard around it.
    pub async fn secure(
        from: &Downstream<'_>,
        (service, port, subset): (&Service, u16, Option<&str>),
        to: &Picked,
        host: Option<&str>,
    ) -> Result<Option<Secured>, Failure> {
        if service.encryption.is_empty() {
            return Ok(None);
        }
        let (namespace, tunnelled) = (&from.client.key.namespace, to.captured().is_some());
        let demanded = gate::encryption(service, (port, subset), namespace, tunnelled);
        let demanded = demanded.map_err(|why| Failure::new(Reason::Unencrypted, why))?;
        let Some(origin) = demanded else { return Ok(None) };
        let name = origin.settings().sni.clone().or_else(|| name_of(service, host));
        let Some(name) = name else {
            let host = host.unwrap_or(&service.hostname).to_owned();
            return Err(TlsFault::Name(host).into());
        };
        let ready = origin.ready().await?;
        Ok(Some(Secured { origin: origin.clone(), ready, name }))
    }

    /// Encrypts what `stream` carries.
    pub(super) async fn encrypt(
        &self,
        stream: Carrier,
        secured: &Secured,
        protocol: Protocol,
    ) -> Result<Carrier, Failure> {
        let limit = self.settings.connect_timeout;
        let stream = secured.ready.connect(&secured.name, protocol, stream, limit).await?;
        Ok(Carrier::Tls(Box::new(stream)))
    }
}

/// The name of the server. A client's word chooses among the names that a wildcard of the service covers, and never another. The
/// name that was resolved for it is the server's, whatever a route has made of the request.
fn name_of(service: &Service, host: Option<&str>) -> Option<Str> {
    if service.server.is_some() {
        return service.server.clone();
    }
    if !service.hostname.starts_with('*') {
        return Some(service.hostname.clone());
    }
    covered(&service.hostname, host?).map(Str::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::fixture::service;

    #[test]
    fn a_client_chooses_no_name_but_one_that_the_service_covers() {
        let named = |hostname: &str| Service {
            hostname: hostname.into(),
            ..service("e", "240.240.0.1", &[])
        };
        for (hostname, host, expected) in [
            ("api.example.com", Some("evil.example"), Some("api.example.com")),
            ("api.example.com", None, Some("api.example.com")),
            ("*.example.com", Some("a.example.com"), Some("a.example.com")),
            ("*.example.com", Some("A.B.Example.COM."), Some("a.b.example.com")),
            ("*.example.com", Some("example.com"), None),
            ("*.example.com", Some(".example.com"), None),
            ("*.example.com", Some("evilexample.com"), None),
            ("*.example.com", Some("a.example.com.evil"), None),
            ("*.example.com", Some("a/.example.com"), None),
            ("*.example.com", Some("10.0.0.1"), None),
            ("*.example.com", None, None),
        ] {
            let name = name_of(&named(hostname), host);
            assert_eq!(name.as_deref(), expected, "{hostname} {host:?}");
        }
        let resolved = Service { server: Some("a.example.com".into()), ..named("*.example.com") };
        let name = name_of(&resolved, Some("b.example.com"));
        assert_eq!(name.as_deref(), Some("a.example.com"), "a route has changed the host");
    }
}
