//! How may a connection to a service's endpoint go out? The one rule of what is encrypted, and of what is refused because it
//! cannot be encrypted as an object demands.

use std::sync::Arc;

use crate::model::{Demand, Service};
use crate::tls::Origin;

/// The TLS that a client of `namespace` must speak to an endpoint of `service`, by its port and the subset that was selected; `None`:
/// none. `tunnelled`: a tunnel of the mesh leads to the endpoint.
///
/// # Errors
/// Why it may not be connected.
pub fn encryption<'a>(
    service: &'a Service,
    (port, subset): (u16, Option<&str>),
    namespace: &str,
    tunnelled: bool,
) -> Result<Option<&'a Arc<Origin>>, String> {
    if service.encryption.is_empty() {
        return Ok(None);
    }
    let Some((wish, demand)) = service.encryption.on(namespace, port, subset) else {
        return Ok(None);
    };
    let refused = |wanted: &str| {
        Err(format!(
            "{wanted} for {service}, port {port} ({}); traffic is refused rather than sent without it",
            wish.by
        ))
    };
    match demand {
        Demand::Nothing | Demand::Plaintext => Ok(None),
        Demand::Mesh if tunnelled => Ok(None),
        Demand::Mesh => refused("mutual TLS of the mesh is wanted, where no tunnel leads,"),
        Demand::Tls(origin) => Ok(Some(origin)),
        Demand::Impossible(why) => {
            refused(&format!("TLS to the application is wanted, and {why},"))
        }
    }
}

/// Why a connection that was made with this TLS, or without any, may not go on.
pub fn refused_as_it_is(
    service: &Service,
    (port, subset): (u16, Option<&str>),
    namespace: &str,
    tunnelled: bool,
    made_with: Option<&Arc<Origin>>,
) -> Option<String> {
    match encryption(service, (port, subset), namespace, tunnelled) {
        Err(why) => Some(why),
        // More than what is wanted is enough.
        Ok(None) => None,
        Ok(Some(wanted)) if made_with == Some(wanted) => None,
        Ok(Some(wanted)) => {
            let by = &wanted.settings().by;
            Some(format!(
                "other TLS is wanted for {service}, port {port} ({by}), than the connection was made with"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Str;
    use crate::model::{SubsetWish, Wish};
    use crate::tls::{Roots, TlsSettings};
    use crate::world::fixture::service;

    fn origin(sni: &str) -> Arc<Origin> {
        Arc::new(Origin::new(TlsSettings {
            by: "DestinationRule shop/web".into(),
            sni: Some(sni.into()),
            names: Vec::new(),
            roots: Roots::System,
            client: None,
            crl: None,
        }))
    }

    #[test]
    fn nothing_that_should_be_encrypted_is_sent_in_the_clear() {
        use Demand::{Impossible, Mesh, Nothing, Plaintext, Tls};
        let tls = || Tls(origin("a"));
        for (clients, demand, namespace, port, tunnelled, expected) in [
            (None, tls(), "shop", 80, false, Ok(true)),
            (None, tls(), "shop", 80, true, Ok(true)),
            (None, tls(), "shop", 81, false, Ok(false)),
            (None, Impossible("x".into()), "shop", 80, true, Err(())),
            (None, Mesh, "shop", 80, true, Ok(false)),
            (None, Mesh, "shop", 80, false, Err(())),
            (None, Nothing, "shop", 80, false, Ok(false)),
            (None, Plaintext, "shop", 80, false, Ok(false)),
            // Somebody else's object is a matter of its own clients.
            (Some("evil"), Impossible("x".into()), "shop", 80, false, Ok(false)),
            (Some("evil"), Impossible("x".into()), "evil", 80, false, Err(())),
        ] {
            let mut service = service("web", "10.96.0.1", &[]);
            let clients = clients.map(Str::from);
            let by = "DestinationRule shop/web".into();
            let ports = [(80, demand.clone())].into();
            service.encryption.add(
                clients.as_ref(),
                Arc::new(Wish { by, rest: Nothing, ports, subsets: Default::default() }),
            );
            let found = encryption(&service, (port, None), namespace, tunnelled);
            let outcome = found.as_ref().map(Option::is_some).map_err(|_| ());
            assert_eq!(outcome, expected, "{clients:?} {demand:?} {namespace} {port}");
            assert!(found.err().is_none_or(|why| why.contains("DestinationRule shop/web")));
        }
        let open = service("web", "10.96.0.1", &[]);
        assert!(encryption(&open, (80, None), "shop", false).is_ok_and(|it| it.is_none()));
    }

    #[test]
    fn a_subset_is_encrypted_as_it_says_itself() {
        let mut web = service("web", "10.96.0.1", &[]);
        let demands = [("v1", Demand::Tls(origin("a"))), ("v2", Demand::Plaintext)];
        let subsets =
            demands.map(|(name, rest)| (name.into(), SubsetWish { rest, ..SubsetWish::default() }));
        let (by, rest) = ("DestinationRule shop/web".into(), Demand::Impossible("x".into()));
        let wish = Wish { by, rest, ports: Default::default(), subsets: subsets.into() };
        web.encryption.add(None, Arc::new(wish));
        let tls = origin("a");
        for (subset, expected, in_the_clear, under_tls) in [
            (Some("v1"), Ok(true), false, true),
            (Some("v2"), Ok(false), true, true),
            (Some("v3"), Err(()), false, false),
            (None, Err(()), false, false),
        ] {
            let found = encryption(&web, (80, subset), "shop", false);
            assert_eq!(found.map(|it| it.is_some()).map_err(|_| ()), expected, "{subset:?}");
            for (made_with, goes_on) in [(None, in_the_clear), (Some(&tls), under_tls)] {
                let refused = refused_as_it_is(&web, (80, subset), "shop", false, made_with);
                assert_eq!(refused.is_none(), goes_on, "{subset:?} {made_with:?}: {refused:?}");
            }
        }
    }

    #[test]
    fn a_connection_outlives_no_change_of_how_it_must_be_encrypted() {
        let mut web = service("web", "10.96.0.1", &[]);
        let by = "DestinationRule shop/web".into();
        let rest = Demand::Tls(origin("a"));
        let wish = Wish { by, rest, ports: Default::default(), subsets: Default::default() };
        web.encryption.add(None, Arc::new(wish));
        for (made_with, goes_on) in
            [(None, false), (Some(origin("b")), false), (Some(origin("a")), true)]
        {
            let refused = refused_as_it_is(&web, (80, None), "shop", false, made_with.as_ref());
            assert_eq!(refused.is_none(), goes_on, "{made_with:?}: {refused:?}");
        }
        let open = service("web", "10.96.0.1", &[]);
        assert_eq!(refused_as_it_is(&open, (80, None), "shop", false, Some(&origin("a"))), None);
    }
}
