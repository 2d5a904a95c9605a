//! A route that leads connections on in the client's name ([`led`](super::led)).

use std::fmt::Display;

use crate::base::{Identity, ObjectKey, Str};
use crate::model::{Service, Workload};
use crate::world::World;

/// A route of another namespace than the client's, which leads it on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lent {
    pub(super) route: ObjectKey,
    /// For messages.
    pub(super) described: Str,
    /// Of the service that the client addressed.
    pub(super) waypoint: Option<Identity>,
}

impl Lent {
    /// `None` for a route that speaks for the client: of its own namespace, or of the root namespace.
    pub fn of(
        world: &World,
        client: &Workload,
        addressed: &Service,
        (kind, route): (impl Display, &ObjectKey),
    ) -> Option<Box<Self>> {
        let namespace = &route.namespace;
        if *namespace == client.key.namespace || *namespace == world.names.root_namespace {
            return None;
        }
        let waypoint = addressed.waypoint.waypoint().and_then(|key| world.waypoint(key));
        Some(Box::new(Self {
            route: route.clone(),
            described: arcstr::format!("{kind} {route}"),
            waypoint: waypoint.map(|waypoint| waypoint.identity.clone()),
        }))
    }
}
