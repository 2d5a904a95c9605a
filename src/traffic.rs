//! Traffic policies of destinations: what a DestinationRule says of the connections to one port of a service, and what this
//! node has seen of its endpoints. One [`Destination`] for each service, port and kind of client hears how every attempt ended,
//! from layer 4 and from all workers.
//!
//! Everything is resolved when the snapshot is built: a client's namespace and the port give the [`Destination`]. A service
//! without a DestinationRule has none, and its requests pay nothing. The room selects no endpoint (`balance` does) and opens no
//! connection. What is seen of endpoints takes no lock; a limit that a rule sets is a semaphore, which takes one when a place is
//! given back.

mod attempt;
pub mod attempts;
mod hash;
mod host;
mod hosts;
mod latency;
mod limits;
mod load;
mod locality;
mod policy;
mod series;
mod subsets;
mod table;
#[cfg(test)]
mod tests;
mod warmup;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::ser::SerializeStruct;

use crate::base::Str;
pub use crate::base::{InProgress, LeastRetries, RetryBudget, Spent};
pub use attempt::Attempt;
pub use hash::{Cookie, HashKey, Hashed, of_address};
pub use host::Host;
pub use hosts::Ejected;
use hosts::Hosts;
use limits::Usage;
pub use limits::{Keepalive, Limits, Overflow, PerConnection, Place};
pub use load::{InFlight, Load};
pub use locality::{Distribute, Failover, LocalityPolicy, PlacePattern};
pub use policy::{Balancer, OutlierDetection, Policy};
pub use series::{ServicePort, Totals, totals};
use subsets::Subsets;
pub use subsets::{Named, Subset};
pub use table::{Group, Member, Table};
pub use warmup::Warmup;

/// The policies for one service, by the namespace of the clients. Empty for services without a DestinationRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Traffic {
    /// For clients of all other namespaces.
    #[serde(skip_serializing_if = "Ports::is_empty")]
    everyone: Ports,
    /// For clients of these, instead; perhaps none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    namespaces: BTreeMap<Str, Ports>,
    /// For clients that a rule of their namespace selects, before these. Of several that select a client the first holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    selected: Vec<Selected>,
    #[serde(skip_serializing_if = "Subsets::is_empty")]
    subsets: Subsets,
}

/// The policies of a rule with a `workloadSelector`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
struct Selected {
    namespace: Str,
    rule: Str,
    ports: Ports,
    #[serde(skip_serializing_if = "Named::is_empty")]
    subsets: Named,
}

/// The policies for the ports of a service. Ports without one are left out.
pub type Ports = BTreeMap<u16, Arc<Destination>>;

impl Traffic {
    pub fn is_empty(&self) -> bool {
        self.everyone.is_empty()
            && self.namespaces.is_empty()
            && self.selected.is_empty()
            && self.subsets.is_empty()
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

    /// The policies and subsets for clients of a namespace that a rule of it selects. What is set first comes first.
    pub fn set_selected(&mut self, namespace: Str, rule: Str, ports: Ports, subsets: Named) {
        self.selected.push(Selected { namespace, rule, ports, subsets });
    }

    /// What holds for a client of this namespace, which these rules of it select, on this port.
    pub fn of_client(
        &self,
        namespace: &str,
        rules: &[Str],
        port: u16,
    ) -> Option<&Arc<Destination>> {
        if self.is_empty() {
            return None;
        }
        let ports = match self.selecting(namespace, rules) {
            Some(selected) => &selected.ports,
            None => self.namespaces.get(namespace).unwrap_or(&self.everyone),
        };
        ports.get(&port)
    }

    /// The subsets that a client of this namespace, which these rules of it select, sees.
    pub fn subsets_of(&self, namespace: &str, rules: &[Str]) -> &Named {
        match self.selecting(namespace, rules) {
            Some(selected) => &selected.subsets,
            None => self.subsets.of_client(namespace),
        }
    }

    /// The subsets with this name that clients of this namespace see, each of them one.
    pub fn subsets_named(&self, namespace: &str, name: &str) -> impl Iterator<Item = &Subset> {
        let selected = self.selected.iter().filter(move |it| it.namespace == namespace);
        let all = selected.map(|it| &it.subsets).chain([self.subsets.of_client(namespace)]);
        all.filter_map(move |subsets| subsets.get(name))
    }

    fn selecting(&self, namespace: &str, rules: &[Str]) -> Option<&Selected> {
        let is_for = |selected: &&Selected| {
            selected.namespace == namespace && rules.contains(&selected.rule)
        };
        // Nearly no client is selected by any.
        let selected = if rules.is_empty() { &[] } else { &self.selected[..] };
        selected.iter().find(is_for)
    }

    /// Those that want to know which endpoints there are, with their ports and the subsets that have the endpoints.
    pub fn listening(&self) -> impl Iterator<Item = (u16, Option<&Subset>, &Arc<Destination>)> {
        let ports = std::iter::once(&self.everyone).chain(self.namespaces.values());
        let ports = ports.chain(self.selected.iter().map(|selected| &selected.ports));
        let subsets = self.subsets.all().chain(self.selected.iter().map(|it| &it.subsets));
        let of_subsets = subsets.flat_map(Named::values);
        let all = ports.map(|ports| (None, ports));
        let all = all.chain(of_subsets.map(|subset| (Some(subset), &subset.ports)));
        let all = all.flat_map(|(subset, ports)| {
            ports.iter().map(move |(port, destination)| (*port, subset, destination))
        });
        all.filter(|(.., destination)| destination.listens())
    }

    /// Keeps what was seen of endpoints under the same policy.
    pub fn inherit(&mut self, before: &Traffic) {
        inherit(&mut self.everyone, &before.everyone);
        for (namespace, ports) in &mut self.namespaces {
            if let Some(before) = before.namespaces.get(namespace) {
                inherit(ports, before);
            }
        }
        for selected in &mut self.selected {
            let id = (&selected.namespace, &selected.rule);
            let same = before.selected.iter().find(|it| (&it.namespace, &it.rule) == id);
            if let Some(before) = same {
                inherit(&mut selected.ports, &before.ports);
                subsets::inherit(&mut selected.subsets, &before.subsets);
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

/// One port of a service, for clients under one policy.
#[derive(Debug)]
pub struct Destination {
    /// The service and its port, for the log.
    name: Str,
    policy: Policy,
    /// Where the policy needs to know something of single endpoints.
    hosts: Option<Hosts>,
    /// Where the policy limits connections.
    usage: Option<Usage>,
    /// Where the policy has a retry budget.
    spent: Option<Arc<Spent>>,
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

impl Heard {
    fn fails(self) -> bool {
        match self {
            Heard::Status(status) => status >= 500,
            Heard::Accepted => false,
            Heard::Failed => true,
        }
    }
}

impl Destination {
    /// One that counts for itself, for the metrics of nobody.
    pub fn new(name: Str, policy: Policy) -> Self {
        Self::counted(name, policy, Arc::default())
    }

    /// The policy for a port of a service.
    pub fn of(name: Str, port: &ServicePort, policy: Policy) -> Self {
        let series = match policy.outliers {
            Some(_) => series::of(port),
            None => Arc::default(),
        };
        Self::counted(name, policy, series)
    }

    fn counted(name: Str, policy: Policy, series: Arc<series::Series>) -> Self {
        let hosts = Hosts::of(&policy, series);
        let usage = policy.limits.as_deref().map(Usage::of);
        let spent = policy.budget.as_deref().map(Spent::of);
        Self { name, policy, hosts, usage, spent }
    }

    pub fn balancer(&self) -> Option<&Balancer> {
        self.policy.balancer.as_ref()
    }

    pub fn locality(&self) -> Option<&LocalityPolicy> {
        self.policy.locality.as_deref()
    }

    pub fn measures_latency(&self) -> bool {
        self.policy.balancer == Some(Balancer::PeakEwma)
    }

    pub fn limits(&self) -> Option<&Limits> {
        self.policy.limits.as_deref()
    }

    /// Whether requests need a place, or count for the budget of retries.
    pub fn limits_requests(&self) -> bool {
        self.spent.is_some() || self.usage.as_ref().is_some_and(Usage::limits_requests)
    }

    /// The budget of retries, where there is one.
    pub fn budget(&self) -> Option<&Arc<Spent>> {
        self.spent.as_ref()
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

    /// Whether its policy bounds retries.
    pub fn limits_retries(&self) -> bool {
        self.spent.is_some() || self.limits().is_some_and(|limits| limits.max_retries.is_some())
    }

    /// The place of a retry. As in Envoy a budget holds instead of a limit.
    pub fn retry(&self) -> Result<RetryPlace, Overflow> {
        if let Some(spent) = &self.spent {
            let overflow = || Overflow { field: "retryBudget", by: spent.by().clone() };
            let counted = spent.retry().ok_or_else(overflow)?;
            return Ok(RetryPlace { _place: None, _counted: Some(counted) });
        }
        let Some(usage) = &self.usage else { return Ok(RetryPlace::default()) };
        let place = usage.retry().map_err(|field| self.overflow(field))?;
        Ok(RetryPlace { _place: place, _counted: None })
    }

    fn overflow(&self, field: &'static str) -> Overflow {
        Overflow { field, by: self.policy.by.clone() }
    }

    /// Whether it wants to know which endpoints there are, and how attempts at them ended.
    pub fn listens(&self) -> bool {
        self.hosts.is_some()
    }

    /// These are the endpoints at present, each with whether it is ready. One that becomes ready later is a new one.
    pub fn follow(&self, endpoints: &[(SocketAddr, bool)]) {
        if let Some(hosts) = &self.hosts {
            hosts.follow(&self.policy, endpoints);
        }
    }

    /// What is known of these endpoints, in their order; `None` where nothing needs to be.
    pub fn records(&self, endpoints: &[SocketAddr]) -> Option<Vec<Arc<Host>>> {
        self.hosts.as_ref().map(|hosts| hosts.records(&self.policy, endpoints))
    }

    /// Whether some endpoint gets no requests at present, or only one.
    pub fn are_some_out(&self) -> bool {
        self.hosts.as_ref().is_some_and(|hosts| hosts.are_some_out(&self.name))
    }

    /// Gives what is asked for the part of its share that an endpoint gets at present. `None`: each its whole share, as nearly
    /// always.
    pub fn parts(&self) -> Option<impl Fn(&Host) -> f32 + use<'_>> {
        let warmup = self.policy.warmup.as_ref()?;
        let now = self.hosts.as_ref()?.warming()?;
        Some(move |host: &Host| match host.warming_since() {
            0 => 1.0,
            since => warmup.part(Duration::from_millis(now.saturating_sub(since))),
        })
    }

    /// Gives what one more request costs at an endpoint with so many in flight.
    pub fn costs(&self) -> Option<impl Fn(&Host, u32) -> f32 + use<>> {
        let now = self.hosts.as_ref().filter(|_| self.measures_latency())?.now();
        Some(move |host: &Host, in_flight| latency::cost(host.latency.estimate(now), in_flight))
    }

    /// The endpoints that no request goes to at present; `None` if there are none, as nearly always.
    pub fn ejected(&self) -> Option<Arc<Ejected>> {
        self.hosts.as_ref()?.current(&self.name)
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

/// A retry among those that a destination may have at once; given back when dropped.
#[derive(Debug, Default)]
pub struct RetryPlace {
    _place: Option<Box<Place>>,
    _counted: Option<InProgress>,
}

/// In a budget that is no destination's.
impl From<InProgress> for RetryPlace {
    fn from(counted: InProgress) -> Self {
        Self { _place: None, _counted: Some(counted) }
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
        let shown = self.hosts.as_ref().map(|hosts| hosts.shown(&self.policy)).unwrap_or_default();
        let mut shape = to.serialize_struct("Destination", 3)?;
        shape.serialize_field("policy", &self.policy)?;
        match &ejected {
            Some(ejected) => {
                let list: Vec<String> = ejected.endpoints().map(|it| it.to_string()).collect();
                shape.serialize_field("ejected", &list)?;
            }
            None => shape.skip_field("ejected")?,
        }
        match shown.is_empty() {
            true => shape.skip_field("endpoints")?,
            false => shape.serialize_field("endpoints", &shown)?,
        }
        shape.end()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}
