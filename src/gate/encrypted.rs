//! May a connection to a service's endpoint go out as this agent would send it? The one rule of what is refused because an
//! object wants it encrypted in a way that the mesh does not carry out.

use crate::model::{Demand, Service};

/// Why a client of `namespace` may not be connected to an endpoint of `service` by its port; `None`: it may. `tunnelled`: a
/// tunnel of the mesh leads to the endpoint.
pub fn refused_in_the_clear(
    service: &Service,
    port: u16,
    namespace: &str,
    tunnelled: bool,
) -> Option<String> {
    if service.encryption.is_empty() {
        return None;
    }
    let wishes = service.encryption.of_client(namespace);
    let refusing = wishes.filter_map(|wish| match wish.on(port) {
        Demand::Nothing => None,
        Demand::Mesh => (!tunnelled).then_some((wish, "mutual TLS of the mesh")),
        Demand::Application => Some((wish, "TLS to the application")),
    });
    let (wish, wanted) = refusing.into_iter().next()?;
    Some(format!(
        "{wanted} is wanted for {service}, port {port} ({}), and is not carried out; traffic is refused rather than sent \
         without it",
        wish.by
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::Str;
    use crate::model::Wish;
    use crate::world::fixture::service;

    #[test]
    fn nothing_that_should_be_encrypted_is_sent_in_the_clear() {
        use Demand::{Application, Mesh, Nothing};
        for (clients, demand, namespace, port, tunnelled, refused) in [
            (None, Application, "shop", 80, false, true),
            (None, Application, "shop", 80, true, true),
            (None, Application, "shop", 81, false, false),
            (None, Mesh, "shop", 80, true, false),
            (None, Mesh, "shop", 80, false, true),
            (None, Nothing, "shop", 80, false, false),
            // Somebody else's object is a matter of its own clients.
            (Some("evil"), Application, "shop", 80, false, false),
            (Some("evil"), Application, "evil", 80, false, true),
        ] {
            let mut service = service("web", "10.96.0.1", &[]);
            let clients = clients.map(Str::from);
            let by = "DestinationRule shop/web".into();
            let wish = Wish { by, rest: Nothing, ports: [(80, demand)].into() };
            service.encryption.add(clients.as_ref(), Arc::new(wish));
            let why = refused_in_the_clear(&service, port, namespace, tunnelled);
            assert_eq!(why.is_some(), refused, "{clients:?} {demand:?} {namespace} {port}");
            assert!(why.is_none_or(|why| why.contains("DestinationRule shop/web")));
        }
        let open = service("web", "10.96.0.1", &[]);
        assert_eq!(refused_in_the_clear(&open, 80, "shop", false), None);
    }
}
