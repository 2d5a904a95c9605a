//! The limits of a destination's connection pool (Istio, ConnectionPoolSettings), and what is in use of them on this node.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a rule says of connections. `None`: nothing beyond the budgets of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Limits {
    /// Connections of layer 4, or HTTP/1 requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// HTTP/1 requests that wait for one of these connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<u32>,
    /// Requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// Retries at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
    /// Of plain TCP connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<Keepalive>,
    #[serde(skip_serializing_if = "PerConnection::is_default")]
    pub per_connection: PerConnection,
}

/// Of each HTTP connection to an application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PerConnection {
    pub max_requests: Option<u32>,
    /// How long it may rest without a request.
    pub idle_timeout: Option<Duration>,
}

/// TCP keepalive. What is not given is the agent's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Keepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

impl PerConnection {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is in use.
#[derive(Debug)]
pub(super) struct Usage {
    connections: Option<Arc<Semaphore>>,
    requests: Option<Arc<Semaphore>>,
    retries: Option<Arc<Semaphore>>,
    pending: AtomicU32,
}

/// A connection, a request or a retry in use; given back when dropped.
#[derive(Debug)]
pub struct Place {
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

/// A limit that is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// From the policy on.
    pub(super) field: &'static str,
    pub(super) by: crate::base::Str,
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} is reached", self.field, self.by)
    }
}

/// One request that waits.
struct Pending<'a>(&'a AtomicU32);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Usage {
    pub(super) fn of(limits: &Limits) -> Self {
        let places =
            |limit: Option<u32>| limit.map(|limit| Arc::new(Semaphore::new(limit as usize)));
        Self {
            connections: places(limits.max_connections),
            requests: places(limits.max_requests),
            retries: places(limits.max_retries),
            pending: AtomicU32::new(0),
        }
    }

    /// Whether requests need a place.
    pub(super) fn limits_requests(&self) -> bool {
        self.connections.is_some() || self.requests.is_some()
    }

    pub(super) fn connection(&self) -> Result<Option<Box<Place>>, &'static str> {
        let permit = take(self.connections.as_ref(), "connectionPool.tcp.maxConnections")?;
        Ok(permit.map(|permit| Place::of([Some(permit), None])))
    }

    pub(super) fn retry(&self) -> Result<Option<Box<Place>>, &'static str> {
        let permit = take(self.retries.as_ref(), "connectionPool.http.maxRetries")?;
        Ok(permit.map(|permit| Place::of([Some(permit), None])))
    }

    /// The place of a request. One over HTTP/1 needs a connection, and waits for it.
    pub(super) async fn request(
        &self,
        limits: &Limits,
        has_own_connection: bool,
    ) -> Result<Option<Box<Place>>, &'static str> {
        let request = take(self.requests.as_ref(), "connectionPool.http.http2MaxRequests")?;
        let connections = self.connections.as_ref().filter(|_| has_own_connection);
        let connection = match connections {
            Some(connections) => Some(self.await_connection(connections, limits).await?),
            None => None,
        };
        if request.is_none() && connection.is_none() {
            return Ok(None);
        }
        Ok(Some(Place::of([request, connection])))
    }

    async fn await_connection(
        &self,
        connections: &Arc<Semaphore>,
        limits: &Limits,
    ) -> Result<OwnedSemaphorePermit, &'static str> {
        const FULL: &str = "connectionPool.http.http1MaxPendingRequests";
        if let Ok(permit) = connections.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let before = self.pending.fetch_add(1, Ordering::Relaxed);
        let _pending = Pending(&self.pending);
        if limits.max_pending_requests.is_some_and(|most| before >= most) {
            return Err(FULL);
        }
        // The semaphore is never closed.
        connections.clone().acquire_owned().await.map_err(|_| FULL)
    }
}

impl Place {
    fn of(permits: [Option<OwnedSemaphorePermit>; 2]) -> Box<Self> {
        Box::new(Self { _permits: permits })
    }
}

fn take(
    places: Option<&Arc<Semaphore>>,
    field: &'static str,
) -> Result<Option<OwnedSemaphorePermit>, &'static str> {
    places.map(|places| places.clone().try_acquire_owned().map_err(|_| field)).transpose()
}
