//! Which endpoint: two random choices, the less busy one wins; pure over one snapshot and its load counters.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::model::{Service, Workload};
use crate::world::{InFlight, World};

/// An endpoint that was chosen; counts as busy until dropped.
#[derive(Debug)]
pub struct Picked {
    /// The endpoint's own address and target port.
    pub address: SocketAddr,
    pub workload: Option<Arc<Workload>>,
    pub in_flight: Option<InFlight>,
}

/// A ready endpoint that serves `port` and is not in `avoid` (unless all are). `like` gives the preferred address family.
pub fn pick(_world: &World, _service: &Service, _port: u16, _like: SocketAddr, _avoid: &[SocketAddr]) -> Option<Picked> {
    todo!()
}
