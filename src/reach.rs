//! The one way from a local client to an endpoint: for layer 4 connections, HTTP requests and opaque bytes.
//!
//! An endpoint in the mesh is reached through a tunnel and never in plaintext, and its own agent authorizes. Any other
//! endpoint is reached by plain TCP, and the policies of the waypoints that guard it are evaluated here (`judge`).
//! Requests that were certainly not sent are retried on another endpoint, up to three ([`Attempts`]), or at several at once where a service asks for it (`race`); one place receives the
//! result of each attempt, [`Picked::ended`].
//!
//! `l4` and the opaque bytes of `l7` request an endpoint of a service ([`Reach::endpoint`]). HTTP requests use the same
//! parts one by one, because a request may find an open connection. The last part, from the destination's agent to the
//! application, is [`connect_application`]. This room does not select endpoints (`balance`), pools no connections
//! (`pool`), and knows nothing of HTTP.

mod application;
mod ask;
mod attempts;
mod direct;
mod endpoint;
mod judge;
mod lasting;
mod led;
mod lent;
mod proxied;
mod race;
mod secure;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::balance::{Caller, Ended, Picked};
use crate::base::{Reason, Str};
use crate::model::{Resolution, Service, Workload};
use crate::policy::Connection;
use crate::pool::{Pool, PoolError, TunnelKey};
use crate::resolver::Resolver;
use crate::route;
use crate::sock::{self, SocketFactory};
use crate::tls::Protocol;
use crate::traffic::Keepalive;
use crate::tunnel::{Baggage, Carrier, ConnectRequest};
use crate::world::{Judged, WorldStore};

pub use application::connect_application;
pub use ask::{Ask, Asked};
pub use attempts::Attempts;
pub use direct::direct;
pub use endpoint::{Reached, Unreached};
use judge::{Leaving, LeavingClass, OutboundClass};
pub use judge::{cut_after_a_change, judge, unregistered};
pub use lasting::until_over;
pub use lent::Lent;
pub use secure::Secured;

/// The settings of this room.
#[derive(Clone, Debug)]
pub struct ReachSettings {
    /// The timeout of a plain TCP connection; tunnels have the pool's.
    pub connect_timeout: Duration,
    /// The cluster's name, for baggage.
    pub cluster: Str,
}

/// Reaches endpoints for the clients of one proxy or of one worker.
pub struct Reach {
    world: Arc<WorldStore>,
    pool: Pool,
    resolver: Arc<Resolver>,
    settings: ReachSettings,
    /// Open connections to services.
    left: Arc<Judged<LeavingClass, Leaving>>,
    /// Clients with open connections to what no service had.
    outbound: Arc<Judged<OutboundClass, bool>>,
}

/// A local client, on whose behalf endpoints are reached.
#[derive(Clone, Copy)]
pub struct Downstream<'a> {
    pub client: &'a Workload,
    /// The client's end of its connection.
    pub address: SocketAddr,
    /// Sockets in the client's network namespace.
    pub sockets: &'a Arc<dyn SocketFactory>,
    /// The server that the client asks for in TLS, as policies compare it; `None` where that was not read
    /// ([`Connection::server_name`]).
    pub server_name: Option<&'a str>,
}

impl<'a> Downstream<'a> {
    pub fn caller(&self) -> Caller<'a> {
        let (workload, address) = (self.client, self.address.ip());
        Caller { workload, address, hash: None, session: None, subset: None }
    }

    fn connection(&self, destination: SocketAddr) -> Connection<'a> {
        Connection {
            client: Some(&self.client.identity),
            source: self.address.ip(),
            destination,
            server_name: self.server_name,
        }
    }
}

/// Why a client is not, or no longer, connected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Failure {
    pub reason: Reason,
    /// For the log: what failed and what to check.
    pub why: String,
}

impl Failure {
    fn new(reason: Reason, why: impl Into<String>) -> Self {
        Self { reason, why: why.into() }
    }

    /// The TCP connection failed.
    pub fn connect(address: SocketAddr, error: impl Display) -> Self {
        Self::new(Reason::ConnectFailure, format!("connect to {address}: {error}"))
    }

    /// The result of an attempt with this failure.
    pub fn ended(&self) -> Ended {
        match self.reason {
            Reason::Denied => Ended::Denied,
            // The peer may have rejected the client's certificate.
            Reason::Overflow
            | Reason::IdentityFailure
            | Reason::TlsFailure
            | Reason::CertRevoked
            | Reason::Unencrypted
            | Reason::Draining => Ended::NotTried,
            _ => Ended::Unreached,
        }
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        Self::new(error.reason, error.why)
    }
}

/// Nothing says which name below its wildcard is meant.
fn unnamed(service: &Service) -> Failure {
    let why =
        format!("nothing names the server below {} of {service} that is meant", service.hostname);
    Failure::new(Reason::NoRoute, why)
}

impl Reach {
    pub fn new(
        world: &Arc<WorldStore>,
        pool: &Pool,
        resolver: &Arc<Resolver>,
        settings: ReachSettings,
    ) -> Self {
        Self {
            world: world.clone(),
            pool: pool.clone(),
            resolver: resolver.clone(),
            settings,
            left: world.judged(None),
            outbound: world.judged(None),
        }
    }

    /// The same, by tunnels of another thread.
    pub fn by(&self, pool: &Pool) -> Self {
        Self {
            world: self.world.clone(),
            pool: pool.clone(),
            resolver: self.resolver.clone(),
            settings: self.settings.clone(),
            left: self.left.clone(),
            outbound: self.outbound.clone(),
        }
    }

    /// The service with the addresses of its endpoints. A wildcard has them only as a name below it
    /// ([`resolve_named`](Self::resolve_named)).
    pub async fn resolve(
        &self,
        from: &Downstream<'_>,
        service: &Arc<Service>,
    ) -> Result<Arc<Service>, Failure> {
        if service.resolution == Resolution::Dynamic {
            return Err(unnamed(service));
        }
        let resolved = self.resolver.endpoints(from.client, from.sockets, service).await;
        resolved.map_err(|error| Failure::new(error.reason, error.to_string()))
    }

    /// A wildcard with the addresses of the name below it that the client claims; any other service whatever it claims.
    pub async fn resolve_named(
        &self,
        from: &Downstream<'_>,
        service: &Arc<Service>,
        claim: Option<&str>,
    ) -> Result<Arc<Service>, Failure> {
        if service.resolution != Resolution::Dynamic {
            return self.resolve(from, service).await;
        }
        let claim = claim.ok_or_else(|| unnamed(service))?;
        let name = {
            let world = self.world.load();
            let name = route::named(&world, service, &from.client.key.namespace, claim);
            name.map_err(|why| Failure::new(Reason::NoRoute, why.to_string()))?
        };
        let resolved = self.resolver.below(from.client, from.sockets, service, &name).await;
        resolved.map_err(|error| Failure::new(error.reason, error.to_string()))
    }

    /// A byte stream to an endpoint: through a tunnel if it is in the mesh, else in plaintext. `addressed`: the
    /// hostname of the service that the client dialled, which selects policies at the destination. `tls`: what is spoken within TLS
    /// to the application, where that is demanded.
    pub async fn connect(
        &self,
        from: &Downstream<'_>,
        to: &Picked,
        addressed: Option<&Str>,
        tls: Option<(&Secured, Protocol)>,
    ) -> Result<Carrier, Failure> {
        let connected = self.connect_within_limits(from, to, addressed).await?;
        let Some((secured, protocol)) = tls else { return Ok(connected) };
        // In memory of its own, since few connections have a handshake.
        Box::pin(self.encrypt(connected, secured, protocol)).await
    }

    async fn connect_within_limits(
        &self,
        from: &Downstream<'_>,
        to: &Picked,
        addressed: Option<&Str>,
    ) -> Result<Carrier, Failure> {
        let Some(limits) = to.limits() else {
            return self.connect_any(from, to, addressed).await;
        };
        let connecting = self.connect_any(from, to, addressed);
        let connected = match limits.connect_timeout {
            Some(limit) => match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(_) => {
                    let why = format!("{}: no connection within {limit:?}", to.address);
                    Err(Failure::new(Reason::ConnectFailure, why))
                }
            },
            None => connecting.await,
        }?;
        let mut connected = connected;
        if let (Carrier::Tcp(stream), Some(version), None) =
            (&mut connected, limits.proxy_protocol, to.captured())
        {
            let header = proxied::header(version, from.address, to.address);
            let written = stream.write_all(&header).await;
            written.map_err(|error| Failure::connect(to.address, error))?;
        }
        if let (Carrier::Tcp(stream), Some(keepalive)) = (&connected, &limits.keepalive) {
            let Keepalive { probes, time, interval } = *keepalive;
            let kept = sock::set_keepalive(stream, time, interval, probes);
            kept.map_err(|error| Failure::connect(to.address, error))?;
        }
        Ok(connected)
    }

    async fn connect_any(
        &self,
        from: &Downstream<'_>,
        to: &Picked,
        addressed: Option<&Str>,
    ) -> Result<Carrier, Failure> {
        match to.captured() {
            Some(server) => self.connect_by_tunnel(from, to, server, addressed).await,
            None => self.connect_plainly(from, to.address).await,
        }
    }

    async fn connect_by_tunnel(
        &self,
        from: &Downstream<'_>,
        to: &Picked,
        server: &Workload,
        addressed: Option<&Str>,
    ) -> Result<Carrier, Failure> {
        let key = TunnelKey {
            client: from.client.identity.clone(),
            client_uid: from.client.uid.clone(),
            server: server.identity.clone(),
            address: to.wire_address(),
        };
        let request = ConnectRequest {
            authority: to.address.to_string(),
            forwarded_for: Some(from.address),
            forwarded_host: addressed.cloned(),
            baggage: Some(Baggage::of(from.client, &self.settings.cluster).to_string()),
        };
        Ok(self.pool.open(&key, from.sockets, &request).await?)
    }

    async fn connect_plainly(
        &self,
        from: &Downstream<'_>,
        address: SocketAddr,
    ) -> Result<Carrier, Failure> {
        let timeout = self.settings.connect_timeout;
        let connected = sock::connect(from.sockets.as_ref(), address, None, timeout).await;
        connected.map(Carrier::Tcp).map_err(|error| Failure::connect(address, error))
    }
}
