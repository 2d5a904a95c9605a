//! An attempt at an endpoint of a destination that wants to hear of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::host::{Host, Phase};
use super::{Destination, Heard};

/// One attempt. Dropped before anything was heard, it says nothing of the endpoint.
#[derive(Debug)]
pub struct Attempt {
    destination: Arc<Destination>,
    endpoint: SocketAddr,
    host: Arc<Host>,
    /// How many endpoints there were to select from.
    pool: u32,
    /// Whether this is the request that probes the endpoint.
    probes: bool,
    /// When it began, where latency counts.
    began: Option<u64>,
}

impl Destination {
    /// An attempt at one of `pool` endpoints. `None`: the endpoint is ejected, or another request probes it.
    pub fn attempt(
        self: &Arc<Self>,
        endpoint: SocketAddr,
        host: &Arc<Host>,
        pool: u32,
    ) -> Option<Attempt> {
        let hosts = self.hosts.as_ref()?;
        let probes = hosts.begin(&self.policy, host)?;
        let began = self.measures_latency().then(|| hosts.now());
        let (destination, host) = (self.clone(), host.clone());
        Some(Attempt { destination, endpoint, host, pool, probes, began })
    }
}

impl Attempt {
    pub fn heard(&mut self, heard: Heard) {
        let Destination { name, policy, hosts, .. } = &*self.destination;
        let Some(hosts) = hosts else { return };
        let at = (self.endpoint, &self.host);
        if std::mem::take(&mut self.probes) {
            hosts.probed((name, policy), at, heard, self.pool);
        } else {
            hosts.heard((name, policy), at, heard, self.pool);
        }
        if let Some(began) = self.began.take() {
            let now = hosts.now();
            let took = Duration::from_millis(now.saturating_sub(began));
            self.host.latency.observe(now, took, heard.fails());
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.probes {
            self.host.turn(Phase::Probed, Phase::Probing);
        }
    }
}
