//! The state of the network between a client and a server of this node, found by real connections between them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use crate::sock::{self, SocketFactory};

/// How long a successful connection is valid.
const FRESH: Duration = Duration::from_secs(5);
/// Up to this age the pair continues while another connection is tried: a firewall's change takes effect within this time.
const STALE: Duration = Duration::from_secs(10);

/// The last real connection, and whether another one is in progress.
#[derive(Default)]
pub(super) struct Probe {
    passed: ArcSwapOption<Passed>,
    running: AtomicBool,
}

/// A connection that succeeded.
#[derive(Clone, Copy)]
pub(super) struct Passed {
    at: Instant,
    /// The client's address, as the network showed it to the server.
    pub(super) source: IpAddr,
}

impl Probe {
    /// The pair was used recently.
    pub(super) fn is_recent(&self) -> bool {
        self.recent().is_some()
    }

    /// The last connection, unless it is too old to rely on.
    pub(super) fn recent(&self) -> Option<Passed> {
        self.passed().filter(|passed| passed.at.elapsed() < STALE)
    }

    /// The last connection, if it succeeded.
    pub(super) fn passed(&self) -> Option<Passed> {
        self.passed.load().as_deref().copied()
    }

    /// Whether another connection should be tried now; the caller does so with [`Probe::renew`].
    pub(super) fn is_due(&self, passed: Passed) -> bool {
        passed.at.elapsed() >= FRESH && !self.running.swap(true, Ordering::Relaxed)
    }

    pub(super) async fn renew(
        &self,
        to: SocketAddr,
        sockets: &dyn SocketFactory,
        deadline: Duration,
    ) {
        self.connect(to, sockets, deadline).await;
        self.running.store(false, Ordering::Relaxed);
    }

    /// Tries a connection and keeps the outcome.
    pub(super) async fn connect(
        &self,
        to: SocketAddr,
        sockets: &dyn SocketFactory,
        deadline: Duration,
    ) {
        let connected = sock::connect(sockets, to, None, deadline).await;
        let source = connected.and_then(|stream| stream.local_addr());
        let passed = source.ok().map(|source| {
            Arc::new(Passed { at: Instant::now(), source: source.ip().to_canonical() })
        });
        self.passed.store(passed);
    }
}
