//! Authorization: may this connection, or this request, reach this workload?
//!
//! Pure over one snapshot. What applies to an inbound connection is a [`Gate`]; asking it gives a [`Permit`] or a
//! [`Denial`]. Called by `l4` for connections and by `l7` for requests. It reads no socket, trusts nothing that an
//! application sent, and where something cannot be known or read in one way only, it refuses.

mod addressed;
mod evaluate;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod gate;
mod host;
mod identity;
mod path;
mod rule;
mod text;

pub use addressed::{Addressed, addressed};
pub use gate::Gate;

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method};

use crate::base::{Identity, ObjectKey, PolicyNote};

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Proven by mutual TLS.
    pub client: Option<&'a Identity>,
    pub source: IpAddr,
    /// The workload's own address and port.
    pub destination: SocketAddr,
}

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a Method,
    /// With the query.
    pub path: &'a str,
    /// `Host` or `:authority`, as sent.
    pub host: &'a str,
    pub headers: &'a HeaderMap,
}

/// Leave to connect, with who gave it.
#[derive(Clone, Debug)]
pub struct Permit {
    /// The waypoint whose policies were passed: its principal counts beside the client's.
    pub waypoint: Option<Identity>,
    /// The policy that allowed, where one did.
    pub policy: Option<ObjectKey>,
    /// What policies that decide nothing have to say (AUDIT, dry-run).
    pub notes: Vec<PolicyNote>,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// For the log: which policy and why.
    pub why: String,
    /// As for a [`Permit`].
    pub notes: Vec<PolicyNote>,
}

impl Denial {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), notes: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
