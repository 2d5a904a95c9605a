//! The three listeners.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hurried::Hurried;
use super::{Admin, pages};
use crate::base::Seldom;
use crate::sock::{self, PlainSockets, SocketFactory};
use crate::takeover::{Inherited, Listener};

#[cfg(test)]
mod tests;

/// Connections at a time on each port: scrapers and operators, with room to spare. Each has its own, for whoever holds all
/// of the metrics' must not make the node look unready.
const MAX_CONNECTIONS: usize = 64;
/// A client that does not send its request within this time is no operator.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// What hyper holds for each direction of a connection, in bytes: more than any operator's request, and a part of the
/// metrics.
const MAX_BUFFER: usize = 64 * 1024;
/// What to do when a connection cannot be accepted: rest, for the listeners must not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a successor finds the agent's own ports among those of workloads.
const AGENT: &str = "";

/// Where to listen.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub admin: SocketAddr,
    pub metrics: SocketAddr,
    pub readiness: SocketAddr,
}

/// A port is taken, or may not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {purpose}: {source}; does another agent run here?")]
pub struct AdminError {
    address: SocketAddr,
    purpose: &'static str,
    source: io::Error,
}

/// The listeners, bound and not served yet.
pub struct Servers([(Port, TcpListener); 3]);

/// Which pages a listener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Admin,
    Metrics,
    Readiness,
}

impl Servers {
    /// `inherited`: what a predecessor listens on.
    pub fn bind(addresses: Addresses, inherited: &Inherited) -> Result<Self, AdminError> {
        let bind = |port, address: SocketAddr, purpose| {
            let listener = match inherited.take(AGENT, address.port()) {
                Some(socket) => sock::adopt_listener(socket, address.port()),
                None => PlainSockets.listen(address),
            };
            listener.map(|listener| (port, listener)).map_err(|source| AdminError {
                address,
                purpose,
                source,
            })
        };
        Ok(Self([
            bind(Port::Admin, addresses.admin, "administration")?,
            bind(Port::Metrics, addresses.metrics, "metrics")?,
            bind(Port::Readiness, addresses.readiness, "readiness")?,
        ]))
    }

    /// Descriptors of the listeners, for a successor.
    pub fn listeners(&self) -> io::Result<Vec<Listener>> {
        let listeners = self.0.iter().map(|(_, listener)| {
            let port = listener.local_addr()?.port();
            Ok(Listener { owner: AGENT.into(), port, socket: sock::duplicate(listener)? })
        });
        listeners.collect()
    }

    /// Serves until cancelled; a connection that is open then is dropped.
    pub async fn serve(self, admin: Admin, cancel: CancellationToken) {
        let admin = Arc::new(admin);
        let tasks = TaskTracker::new();
        for (port, listener) in self.0 {
            let accepting = accept(port, listener, admin.clone(), tasks.clone(), cancel.clone());
            tasks.spawn(cancel.clone().run_until_cancelled_owned(accepting));
        }
        tasks.close();
        tasks.wait().await;
    }
}

async fn accept(
    port: Port,
    listener: TcpListener,
    admin: Arc<Admin>,
    tasks: TaskTracker,
    cancel: CancellationToken,
) {
    let (slots, trouble) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Seldom::new());
    while let Ok(slot) = slots.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = serve_connection(port, stream, admin.clone());
                tasks.spawn(cancel.clone().run_until_cancelled_owned(async move {
                    serving.await;
                    drop(slot);
                }));
            }
            Err(error) => {
                if trouble.is_due() {
                    tracing::warn!(?port, %error, "cannot accept for now; connections wait");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(port: Port, stream: TcpStream, admin: Arc<Admin>) {
    let service = service_fn(move |request| {
        let admin = admin.clone();
        async move { Ok::<_, std::convert::Infallible>(pages::answer(port, &admin, &request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(Hurried::new(stream)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(?port, %error, "an operator's connection broke");
    }
}
