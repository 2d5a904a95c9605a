//! May an object speak for a destination? The one rule of who may lift its policies, lend it a waypoint's principal, close
//! it, or choose the worker that parses for it.
//!
//! Anybody who owns a namespace can write a Service with an EndpointSlice, a ServiceEntry, a WorkloadEntry or a route there,
//! and name in it the address of a pod of another namespace. So an object counts for what belongs to its own namespace.
//! Everything else may at most add restrictions to the traffic that came by it.

use crate::base::ObjectKey;

/// Whether the service that was addressed speaks for what belongs to `namespace`: the service itself, and the route that led
/// on from it, where there is one. Which waypoint it uses is the service's own decision, whatever the waypoint's namespace.
pub fn speaks_for(service: &ObjectKey, route: Option<&ObjectKey>, namespace: &str) -> bool {
    let own = |object: &ObjectKey| object.namespace == namespace;
    own(service) && route.is_none_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_destinations_own_namespace_speaks_for_it() {
        let key = |text: &str| {
            let (namespace, name) = text.split_once('/').unwrap();
            ObjectKey::new(namespace, name)
        };
        for (service, route, expected) in [
            ("shop/web", None, true),
            ("shop/web", Some("shop/r"), true),
            // A consumer's route.
            ("shop/web", Some("evil/r"), false),
            // A producer's route of a service that is not the destination's.
            ("evil/web", Some("evil/r"), false),
            ("evil/web", Some("shop/r"), false),
            ("evil/web", None, false),
            ("istio-system/web", None, false),
            ("shop2/web", None, false),
            ("Shop/web", None, false),
        ] {
            let route = route.map(key);
            let speaks = speaks_for(&key(service), route.as_ref(), "shop");
            assert_eq!(speaks, expected, "{service} {route:?}");
        }
    }
}
