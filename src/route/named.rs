//! Which server below a wildcard a client means (ServiceEntry `DYNAMIC_DNS`): what it claims, in HTTP's host or in TLS, is checked
//! against the service that it dialled.

use std::borrow::Cow;
use std::fmt;

use crate::base::covered;
use crate::model::Service;
use crate::world::World;

/// Why a claim names no server of the service.
#[derive(Debug, PartialEq, Eq)]
pub enum NotNamed<'a, 'c> {
    /// The wildcard does not cover it, or it is no name.
    Outside { service: &'a Service, claim: &'c str },
    /// It is the host of another service that the client sees, or below a narrower wildcard: whose policies it must not pass by.
    Another { service: &'a Service, name: Cow<'c, str> },
    /// The client does not see the service any more.
    Unseen { service: &'a Service },
}

impl fmt::Display for NotNamed<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { service, claim } => {
                write!(f, "{claim:?} is no name below {} of {service}", service.hostname)
            }
            Self::Another { service, name } => {
                write!(f, "{name} belongs to {service}: dial the address that DNS answers for it")
            }
            Self::Unseen { service } => write!(f, "{service} is not visible to the client"),
        }
    }
}

/// The name that a client of a namespace claims, without a port, if DNS would have answered with this service for it.
pub fn named<'a, 'c>(
    world: &'a World,
    service: &'a Service,
    client_namespace: &str,
    claim: &'c str,
) -> Result<Cow<'c, str>, NotNamed<'a, 'c>> {
    let Some(name) = covered(&service.hostname, claim) else {
        return Err(NotNamed::Outside { service, claim });
    };
    if let Some(service) = world.service_known_as(&name, client_namespace) {
        return Err(NotNamed::Another { service, name });
    }
    match world.wildcard_for(&name, client_namespace) {
        // Of several entries with one wildcard each is reached by its own address.
        Some(found) if found.hostname == service.hostname => Ok(name),
        Some(service) => Err(NotNamed::Another { service, name }),
        None => Err(NotNamed::Unseen { service }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Resolution, Visibility};
    use crate::world::fixture::{Fixture, key, service};

    fn wildcard(name: &str, host: &str, vip: &str) -> Service {
        Service {
            entry: Some(name.into()),
            hostname: host.into(),
            resolution: Resolution::Dynamic,
            ..service(name, vip, &[])
        }
    }

    #[test]
    fn a_name_is_the_services_that_dns_answers_with() {
        let wide = wildcard("wide", "*.example.org", "240.240.0.1");
        let narrow = wildcard("narrow", "*.api.example.org", "240.240.0.2");
        let twin = wildcard("client/twin", "*.example.org", "240.240.0.3");
        let exact = Service {
            resolution: Resolution::Listed,
            ..wildcard("exact", "admin.example.org", "240.240.0.4")
        };
        let hidden = Service {
            visibility: Visibility::Namespaces(vec!["else".into()]),
            ..wildcard("else/hidden", "secret.example.org", "240.240.0.5")
        };
        let mesh = wildcard("mesh", "*.cluster.local", "240.240.0.6");
        let web = service("web", "10.96.0.1", &[]);
        let all = [wide, narrow, twin, exact, hidden, mesh, web];
        let world = all.into_iter().fold(Fixture::default(), Fixture::service).build();
        for (dialled, claim, expected) in [
            ("wide", "a.example.org", "a.example.org"),
            ("wide", "A.b.Example.org.", "a.b.example.org"),
            ("wide", "example.org", "outside"),
            ("wide", "evil.example", "outside"),
            ("wide", "", "outside"),
            ("wide", "admin.example.org", "another"),
            ("wide", "ADMIN.example.org.", "another"),
            ("wide", "x.admin.example.org", "x.admin.example.org"),
            ("wide", "x.api.example.org", "another"),
            ("wide", "api.example.org", "api.example.org"),
            ("narrow", "x.api.example.org", "x.api.example.org"),
            ("narrow", "api.example.org", "outside"),
            ("narrow", "a.example.org", "outside"),
            ("client/twin", "a.example.org", "a.example.org"),
            // What others see only takes nothing from this client.
            ("wide", "secret.example.org", "secret.example.org"),
            ("mesh", "web.shop.svc.cluster.local", "another"),
            ("mesh", "db.else.svc.cluster.local", "db.else.svc.cluster.local"),
        ] {
            let service = world.service(&key(dialled)).unwrap();
            let found = named(&world, service, "client", claim);
            let found = match &found {
                Ok(name) => name,
                Err(NotNamed::Outside { .. }) => "outside",
                Err(NotNamed::Another { .. }) => "another",
                Err(NotNamed::Unseen { .. }) => "unseen",
            };
            assert_eq!(found, expected, "{dialled} {claim:?}");
        }
        let gone = wildcard("gone", "*.gone.example", "240.240.0.9");
        let outcome = named(&world, &gone, "client", "a.gone.example");
        assert_eq!(outcome, Err(NotNamed::Unseen { service: &gone }));
    }
}
