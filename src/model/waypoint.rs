//! Waypoints: Gateways of class `istio-waypoint`, and what is bound to them.

use crate::base::{Identity, ObjectKey, Str};

/// One waypoint that can be used: an HBONE listener on port 15008 stands in its Gateway.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Waypoint {
    pub key: ObjectKey,
    pub class: Str,
    /// The service account named like the Gateway, in its namespace.
    pub identity: Identity,
    /// Takes traffic that is addressed to services.
    pub for_services: bool,
    /// Takes traffic that is addressed to workloads.
    pub for_workloads: bool,
    /// Applications behind it are told who the client is, in `x-forwarded-client-cert`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub names_clients: bool,
}

/// Which waypoint an object is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum Binding {
    #[default]
    None,
    /// Usable: the waypoint exists, allows this object's namespace and takes its kind of traffic.
    Waypoint(ObjectKey),
    /// Named, but it does not exist or may not be used from here: traffic is refused, not let past.
    Unusable { waypoint: ObjectKey, why: Str },
}

impl Binding {
    /// The waypoint, when one can be used.
    pub fn waypoint(&self) -> Option<&ObjectKey> {
        match self {
            Binding::Waypoint(key) => Some(key),
            _ => None,
        }
    }
}
