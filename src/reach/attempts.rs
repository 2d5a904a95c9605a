//! The choice of the next endpoint after failed attempts.

use std::net::SocketAddr;

use crate::balance::{self, Caller, Ended, Picked};
use crate::model::Service;
use crate::world::World;

/// How many endpoints are tried: the first and two more, as Envoy and Istio do for connect failures.
const MAX_ATTEMPTS: usize = 3;

/// The attempts of one connection or request at endpoints of a service, each at another endpoint.
pub struct Attempts {
    left: usize,
    tried: Vec<SocketAddr>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { left: MAX_ATTEMPTS, tried: Vec::new() }
    }
}

impl Attempts {
    /// An endpoint of the service that was not tried yet. `dialled` as for [`balance::pick`].
    pub fn next(
        &self,
        world: &World,
        caller: Caller<'_>,
        (service, port): (&Service, u16),
        dialled: SocketAddr,
    ) -> Option<Picked> {
        balance::pick(world, service, port, caller, dialled, &self.tried)
            .filter(|picked| !self.tried.contains(&picked.address))
    }

    /// The endpoint is not to be selected again.
    pub(super) fn leave_out(&mut self, address: SocketAddr) {
        self.tried.push(address);
    }

    /// Reports how an attempt failed. Whether another endpoint may be tried.
    pub fn failed(&mut self, picked: &mut Picked, how: Ended) -> bool {
        picked.ended(how);
        self.left = self.left.saturating_sub(1);
        match how {
            // The pooled connection was stale, which says nothing about the endpoint.
            Ended::Stale => {}
            _ => self.tried.push(picked.address),
        }
        how.may_go_on() && self.left > 0
    }
}
