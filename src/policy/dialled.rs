//! Which port, and which address, `ports`, `destination.port` and `destination.ip` speak of.
//!
//! A policy of a workload (a selector, a namespace, the mesh) speaks of the workload's port. A policy that is attached to what
//! clients dial (`targetRefs`) speaks of the port that they dial there, as a waypoint of Istio judges it: that of the Service
//! or ServiceEntry. A number which is no port of the service means the workload's, which is all that it can mean.
//!
//! The tunnel does not say which port was dialled, and who dials a pod has dialled none of the service's. So every port of the
//! service that leads to where the connection goes may have been: an ALLOW needs all of them, and a DENY any, the workload's
//! own among them, so that no DENY depends on the way that a client takes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::PolicySet;
use crate::model::Served;

/// The ports of services that were dialled, or may have been; none stands for the destination itself. Asked only for policies
/// that look at it, which few do.
pub type Ways<'a> = &'a dyn Fn() -> Vec<Served>;

/// Policies that must permit, with what their target was dialled as.
#[derive(Clone, Debug)]
pub struct Guard {
    pub set: Arc<PolicySet>,
    dialled: Dialled,
}

/// What may have been dialled. Filled only for policies that look at it.
#[derive(Clone, Debug, Default)]
struct Dialled {
    /// Ports of services that lead to the destination.
    services: Vec<Served>,
    /// The destination itself.
    itself: bool,
}

/// Where a connection goes, as one set of policies sees it.
#[derive(Clone, Copy)]
pub struct Destination<'a> {
    /// The workload's, or the endpoint's.
    address: SocketAddr,
    services: &'a [Served],
    itself: bool,
}

impl Guard {
    pub fn new(set: Arc<PolicySet>, ways: Ways<'_>) -> Self {
        let mut guard = Self { set, dialled: Dialled::default() };
        guard.extend(ways);
        guard
    }

    /// The same policies guard another way to the destination.
    pub fn extend(&mut self, ways: Ways<'_>) {
        if !self.set.looks_at_destination {
            return;
        }
        let services = ways();
        self.dialled.itself |= services.is_empty();
        self.dialled.services.extend(services);
    }

    pub fn destination(&self, address: SocketAddr) -> Destination<'_> {
        let Dialled { services, itself } = &self.dialled;
        Destination { address, services, itself: *itself }
    }

    /// Both judge alike.
    pub fn is_same(&self, other: &Self) -> bool {
        let same_set = Arc::ptr_eq(&self.set, &other.set) || self.set == other.set;
        same_set && self.dialled == other.dialled
    }
}

/// As far as policies look at it.
impl PartialEq for Dialled {
    fn eq(&self, other: &Self) -> bool {
        let same = |(one, two): (&Served, &Served)| {
            let numbers = |served: &Served| -> Vec<u16> {
                served.service.ports.iter().map(|port| port.port).collect()
            };
            one.service_port == two.service_port
                && (Arc::ptr_eq(&one.service, &two.service)
                    || one.service.vips == two.service.vips && numbers(one) == numbers(two))
        };
        self.itself == other.itself
            && self.services.len() == other.services.len()
            && self.services.iter().zip(&other.services).all(same)
    }
}

impl<'a> Destination<'a> {
    /// For policies of the workload itself.
    pub fn itself(address: SocketAddr) -> Self {
        Self { address, services: &[], itself: true }
    }

    /// All ports that may be meant.
    pub(super) fn ports(self) -> impl Iterator<Item = u16> + use<'a> {
        let dialled = self.services.iter().map(|served| served.service_port);
        std::iter::once(self.address.port()).chain(dialled)
    }

    /// All addresses that may be meant.
    pub(super) fn addresses(self) -> impl Iterator<Item = IpAddr> + use<'a> {
        let dialled = self.services.iter().flat_map(|served| served.service.vips.iter().copied());
        std::iter::once(self.address.ip()).chain(dialled)
    }

    /// One of these may be the port: for what refuses.
    pub(super) fn port_may_be(self, listed: &[u16]) -> bool {
        listed.contains(&self.address.port())
            || self.services.iter().any(|served| listed.contains(&served.service_port))
    }

    /// One of these is the port, whatever was dialled: for what admits.
    pub(super) fn port_is(self, listed: &[u16]) -> bool {
        let own = listed.contains(&self.address.port());
        let dialled = |served: &Served| {
            let means_own = served.service.port(self.address.port()).is_none();
            listed.contains(&served.service_port) || own && means_own
        };
        (own || !self.itself && !self.services.is_empty()) && self.services.iter().all(dialled)
    }

    /// The address may be one that fits: for what refuses.
    pub(super) fn address_may_be(self, fits: impl Fn(IpAddr) -> bool) -> bool {
        let any = |served: &Served| served.service.vips.iter().any(|vip| fits(*vip));
        fits(self.address.ip()) || self.services.iter().any(any)
    }

    /// The address is one that fits: for what admits. The workload's fits for whoever dialled a service that leads to it.
    pub(super) fn address_is(self, fits: impl Fn(IpAddr) -> bool) -> bool {
        let dialled = |served: &Served| served.service.vips.iter().any(|vip| fits(*vip));
        fits(self.address.ip())
            || !self.itself && !self.services.is_empty() && self.services.iter().all(dialled)
    }
}
