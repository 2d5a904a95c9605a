//! May an object speak for a destination? The one rule of who may lift its policies, lend it a waypoint's principal, close
//! it, or choose the worker that parses for it.
//!
//! Anybody who owns a namespace can write a Service with an EndpointSlice, a ServiceEntry, a WorkloadEntry or a route there,
//! and name in it the address of a pod of another namespace. So an object counts for what belongs to its own namespace.
//! Everything else may at most add restrictions to the traffic that came by it.

use crate::base::ObjectKey;

/// Whether the service that was addressed speaks for what belongs to `namespace`: the service itself, and each of the objects that
/// led on from it, where there are any: the route, and whoever it has left its rule to. Which waypoint it uses is the service's own
/// decision, whatever the waypoint's namespace.
pub fn speaks_for<'a>(
    service: &ObjectKey,
    led: impl IntoIterator<Item = &'a ObjectKey>,
    namespace: &str,
) -> bool {
    let own = |object: &ObjectKey| object.namespace == namespace;
    own(service) && led.into_iter().all(own)
}

/// Whether those who lead requests of a client to what belongs to `namespace` use its name where neither they belong nor it does: what
/// the client may do there, they may not have it do. `mesh`: the root namespace, which speaks for everybody.
pub fn lends_the_clients_name<'a>(
    led: impl IntoIterator<Item = &'a ObjectKey>,
    client: &str,
    namespace: &str,
    mesh: &str,
) -> bool {
    let may = |of: &str| of == client || of == namespace || of == mesh;
    !led.into_iter().all(|object| may(&object.namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_namespace_does_not_act_in_the_clients_name() {
        for (led, lends) in [
            (&[][..], false),
            (&["client/r"], false),
            (&["shop/r"], false),
            (&["istio-system/r"], false),
            (&["shop/r", "client/delegate"], false),
            (&["evil/r"], true),
            (&["shop/r", "evil/delegate"], true),
            (&["evil/r", "shop/delegate"], true),
        ] {
            let key = |text: &&str| {
                let (namespace, name) = text.split_once('/').unwrap();
                ObjectKey::new(namespace, name)
            };
            let led: Vec<_> = led.iter().map(key).collect();
            let found = lends_the_clients_name(&led, "client", "shop", "istio-system");
            assert_eq!(found, lends, "{led:?}");
        }
    }

    #[test]
    fn only_the_destinations_own_namespace_speaks_for_it() {
        let key = |text: &str| {
            let (namespace, name) = text.split_once('/').unwrap();
            ObjectKey::new(namespace, name)
        };
        for (service, led, expected) in [
            ("shop/web", &[][..], true),
            ("shop/web", &["shop/r"], true),
            ("shop/web", &["shop/r", "shop/delegate"], true),
            // A consumer's route.
            ("shop/web", &["evil/r"], false),
            // A rule that the owner has left to others, and one that others would have the owner answer for.
            ("shop/web", &["shop/r", "evil/delegate"], false),
            ("shop/web", &["evil/r", "shop/delegate"], false),
            // A producer's route of a service that is not the destination's.
            ("evil/web", &["evil/r"], false),
            ("evil/web", &["shop/r"], false),
            ("evil/web", &[], false),
            ("istio-system/web", &[], false),
            ("shop2/web", &[], false),
            ("Shop/web", &[], false),
        ] {
            let led: Vec<_> = led.iter().map(|object| key(object)).collect();
            let speaks = speaks_for(&key(service), &led, "shop");
            assert_eq!(speaks, expected, "{service} {led:?}");
        }
    }
}
