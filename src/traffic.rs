//! Traffic policies of destinations: what a DestinationRule says of the connections to one port of a service, and what this
//! node has seen of its endpoints. One [`Destination`] for each service, port and kind of client hears how every attempt ended,
//! from layer 4 and from all workers.
//!
//! Everything is resolved when the snapshot is built: a client's namespace and the port give the [`Destination`]. A service
//! without a DestinationRule has none, and its requests pay nothing. The room selects no endpoint (`balance` does) and opens no
//! connection. What is seen of endpoints takes no lock; a limit that a rule sets is a semaphore, which takes one when a place is
//! given back.

mod ejections;
mod hash;
mod limits;
mod policy;
mod subsets;
#[cfg(test)]
mod tests;
mod totals;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::ser::SerializeStruct;

use crate::base::Str;
pub use ejections::Ejected;
use ejections::Ejections;
pub use hash::{Cookie, HashKey, Hashed, of_address};
use limits::Usage;
pub use limits::{Keepalive, Limits, Overflow, PerConnection, Place};
pub use policy::{Balancer, OutlierDetection, Policy};
use subsets::Subsets;
pub use subsets::{Named, Subset};
pub use totals::{Totals, totals};

/// The policies for one service, by the namespace of the clients. Empty for services without a DestinationRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Traffic {
    /// For clients of all other namespaces.
    #[serde(skip_serializing_if = "Ports::is_empty")]
    everyone: Ports,
    /// For clients of these, instead; perhaps none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    namespaces: BTreeMap<Str, Ports>,
    #[serde(skip_serializing_if = "Subsets::is_empty")]
    subsets: Subsets,
}

/// The policies for the ports of a service. Ports without one are left out.
pub type Ports = BTreeMap<u16, Arc<Destination>>;

impl Traffic {
    pub fn is_empty(&self) -> bool {
        self.everyone.is_empty() && self.namespaces.is_empty() && self.subsets.is_empty()
    }

    /// The policies for clients of one namespace; `None`: of all that have none of their own.
    pub fn set(&mut self, clients: Option<Str>, ports: Ports) {
        match clients {
            Some(namespace) => _ = self.namespaces.insert(namespace, ports),
            None => self.everyone = ports,
        }
    }

    /// The subsets that clients of one namespace, or of all that have none of their own, see.
    pub fn set_subsets(&mut self, clients: Option<Str>, subsets: Named) {
        self.subsets.set(clients, subsets);
    }

    /// The subsets that a client of this namespace sees.
    pub fn subsets_of(&self, namespace: &str) -> &Named {
        self.subsets.of_client(namespace)
    }

    /// What holds for a client of this namespace on this port.
    pub fn of_client(&self, namespace: &str, port: u16) -> Option<&Arc<Destination>> {
        if self.is_empty() {
            return None;
        }
        self.namespaces.get(namespace).unwrap_or(&self.everyone).get(&port)
    }

    /// Keeps what was seen of endpoints under the same policy.
    pub fn inherit(&mut self, before: &Traffic) {
        inherit(&mut self.everyone, &before.everyone);
        for (namespace, ports) in &mut self.namespaces {
            if let Some(before) = before.namespaces.get(namespace) {
                inherit(ports, before);
            }
        }
        self.subsets.inherit(&before.subsets);
    }
}

fn inherit(ports: &mut Ports, before: &Ports) {
    for (port, destination) in ports {
        if let Some(before) = before.get(port).filter(|before| **before == *destination) {
            *destination = before.clone();
        }
    }
}

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// One port of a service, for clients under one policy.
#[derive(Debug)]
pub struct Destination {
    /// The service and its port, for the log.
    name: Str,
    policy: Policy,
    /// Endpoints that were taken in turn.
    turns: AtomicU64,
    /// Where the policy has outlier detection.
    ejections: Option<Ejections>,
    /// Where the policy limits connections.
    usage: Option<Usage>,
}

/// How an attempt at an endpoint ended, as far as it tells something about the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It answered a request with this status.
    Status(u16),
    /// It accepted a connection whose bytes nobody parses.
    Accepted,
    /// It was not reached, or gave no response: a failure of local origin, in Envoy's terms.
    Failed,
}

impl Destination {
    pub fn new(name: Str, policy: Policy) -> Self {
        let ejections = policy.outliers.as_ref().map(|_| Ejections::default());
        let usage = policy.limits.as_deref().map(Usage::of);
        Self { name, policy, turns: AtomicU64::new(0), ejections, usage }
    }

    pub fn balancer(&self) -> Option<&Balancer> {
        self.policy.balancer.as_ref()
    }

    /// Whose turn it is among so many endpoints: a place below the sum of their weights. `None` without endpoints.
    pub fn place_of_turn(&self, endpoints: usize, weight: u64) -> Option<u64> {
        if weight == 0 {
            return None;
        }
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        if weight == endpoints as u64 {
            return Some(turn % weight);
        }
        // Steps of the golden ratio: every stretch of turns is spread evenly, so that a heavy endpoint is not taken in bursts.
        let step = u128::from(turn.wrapping_mul(GOLDEN)) * u128::from(weight);
        u64::try_from(step >> 64).ok()
    }

    pub fn limits(&self) -> Option<&Limits> {
        self.policy.limits.as_deref()
    }

    /// Whether requests need a place.
    pub fn limits_requests(&self) -> bool {
        self.usage.as_ref().is_some_and(Usage::limits_requests)
    }

    /// The place of a connection of layer 4; `None` where there is no limit.
    pub fn connection(&self) -> Result<Option<Box<Place>>, Overflow> {
        let Some(usage) = &self.usage else { return Ok(None) };
        usage.connection().map_err(|field| self.overflow(field))
    }

    /// The place of a request. One over HTTP/1 has a connection to itself, and waits for its place.
    pub async fn request(&self, has_own_connection: bool) -> Result<Option<Box<Place>>, Overflow> {
        let (Some(usage), Some(limits)) = (&self.usage, self.limits()) else { return Ok(None) };
        let place = usage.request(limits, has_own_connection).await;
        place.map_err(|field| self.overflow(field))
    }

    /// The place of a retry.
    pub fn retry(&self) -> Result<Option<Box<Place>>, Overflow> {
        let Some(usage) = &self.usage else { return Ok(None) };
        usage.retry().map_err(|field| self.overflow(field))
    }

    fn overflow(&self, field: &'static str) -> Overflow {
        Overflow { field, by: self.policy.by.clone() }
    }

    /// Whether it wants to hear how attempts ended.
    pub fn listens(&self) -> bool {
        self.ejections.is_some()
    }

    /// Notes how an attempt ended. `pool`: how many endpoints there were to select from.
    pub fn heard(&self, endpoint: SocketAddr, heard: Heard, pool: u32) {
        if let (Some(ejections), Some(outliers)) = (&self.ejections, &self.policy.outliers) {
            ejections.heard(&self.name, outliers, endpoint, heard, pool);
        }
    }

    /// The endpoints that no request goes to at present; `None` if there are none, as nearly always.
    pub fn ejected(&self) -> Option<Arc<Ejected>> {
        self.ejections.as_ref()?.current(&self.name)
    }

    /// Whether so many of `pool` endpoints may be left out.
    pub fn may_leave_out(&self, ejected: usize, pool: u32) -> bool {
        let least = self.policy.outliers.as_ref().map_or(0, |it| u64::from(it.min_health_percent));
        let healthy = u64::from(pool).saturating_sub(ejected as u64);
        healthy * 100 >= least * u64::from(pool)
    }

    /// Whether even the last endpoint may be ejected: the policy says 100 percent.
    pub fn may_eject_all(&self) -> bool {
        self.policy.outliers.as_ref().is_some_and(|it| it.max_ejection_percent >= 100)
    }
}

/// By what was written: what was seen is not part of it.
impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.policy) == (&other.name, &other.policy)
    }
}

impl Eq for Destination {}

impl serde::Serialize for Destination {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let ejected = self.ejected();
        let mut shown = to.serialize_struct("Destination", 2)?;
        shown.serialize_field("policy", &self.policy)?;
        match &ejected {
            Some(ejected) => {
                let list: Vec<String> = ejected.endpoints().map(|it| it.to_string()).collect();
                shown.serialize_field("ejected", &list)?;
            }
            None => shown.skip_field("ejected")?,
        }
        shown.end()
    }
}
