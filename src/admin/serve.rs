//! The listeners: the admin socket, and the ports.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::door::{Door, socket_name};
use super::hurried::Hurried;
use super::port::Port;
use super::{Admin, pages};
use crate::base::{Place, Places, Seldom};
use crate::sock::{self, PlainSockets, SocketFactory};
use crate::takeover::{Inherited, Listener};

#[cfg(test)]
mod tests;

/// Connections at a time on each listener: scrapers and operators, with room to spare.
const MAX_CONNECTIONS: usize = 64;
/// A client that neither sends a request nor takes an answer for so long is gone.
const MAX_WAIT: Duration = Duration::from_secs(30);
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
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The directory of the socket that administers.
    pub directory: PathBuf,
    /// The socket's name is made of it.
    pub node: String,
    /// Where what the agent knows can be read without authentication; `None`: nowhere.
    pub pages: Option<SocketAddr>,
    pub metrics: SocketAddr,
    pub readiness: SocketAddr,
}

/// A port or a socket is in use, or cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("cannot listen on {address} for {purpose}: {source}; does another agent run here?")]
    Port { address: SocketAddr, purpose: &'static str, source: io::Error },
    #[error(
        "cannot make the socket {} for administration: {source}; check [admin] directory",
        path.display()
    )]
    Socket { path: PathBuf, source: io::Error },
}

/// The listeners, bound and not served yet.
pub struct Servers {
    door: Door,
    ports: Vec<(Port, TcpListener)>,
}

impl Servers {
    /// `inherited`: a predecessor's listeners. The socket's name is taken over at once.
    pub fn bind(addresses: Addresses, inherited: &Inherited) -> Result<Self, AdminError> {
        let bind = |port, address: SocketAddr, purpose| {
            let listener = match inherited.take(AGENT, address.port()) {
                Some(socket) => sock::adopt_listener(socket, address.port()),
                None => PlainSockets.listen(address),
            };
            listener.map(|listener| (port, listener)).map_err(|source| AdminError::Port {
                address,
                purpose,
                source,
            })
        };
        let mut ports = vec![
            bind(Port::Metrics, addresses.metrics, "metrics")?,
            bind(Port::Readiness, addresses.readiness, "readiness")?,
        ];
        if let Some(pages) = addresses.pages {
            ports.push(bind(Port::Pages, pages, "istioctl")?);
        }
        let Addresses { directory, node, .. } = addresses;
        let door = Door::open(&directory, &node).map_err(|source| AdminError::Socket {
            path: directory.join(socket_name(&node)),
            source,
        })?;
        Ok(Self { door, ports })
    }

    /// Descriptors of the listeners, for a successor; without the socket, which it creates itself.
    pub fn listeners(&self) -> io::Result<Vec<Listener>> {
        let listeners = self.ports.iter().map(|(_, listener)| {
            let port = listener.local_addr()?.port();
            Ok(Listener { owner: AGENT.into(), port, socket: sock::duplicate(listener)? })
        });
        listeners.collect()
    }

    /// Serves until cancelled; open connections are then dropped.
    pub async fn serve(self, admin: Admin, cancel: CancellationToken) {
        let serving = Serving { admin: Arc::new(admin), tasks: TaskTracker::new(), cancel };
        for (port, listener) in self.ports {
            let accepting = serving.clone().accept(port, listener);
            serving.tasks.spawn(serving.cancel.clone().run_until_cancelled_owned(accepting));
        }
        let administering = serving.clone().administer(self.door);
        serving.tasks.spawn(serving.cancel.clone().run_until_cancelled_owned(administering));
        serving.tasks.close();
        serving.tasks.wait().await;
    }
}

/// The key by which connections are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Client {
    Operator,
    At(IpAddr),
}

/// State that all listeners share.
#[derive(Clone)]
struct Serving {
    admin: Arc<Admin>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Serving {
    async fn accept(self, port: Port, listener: TcpListener) {
        let (places, trouble) = (Places::new(MAX_CONNECTIONS), Seldom::new());
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => match places.take(Client::At(peer.ip().to_canonical())) {
                    Some(place) => self.spawn(port, stream, place),
                    None if trouble.is_due() => {
                        tracing::warn!(?port, %peer, "rejecting a request: too many are in flight");
                    }
                    None => {}
                },
                Err(error) => rest(&trouble, &error).await,
            }
        }
    }

    /// The socket, which is recreated if its name is lost.
    async fn administer(self, mut door: Door) {
        let (places, trouble) = (Places::new(MAX_CONNECTIONS), Seldom::new());
        loop {
            let accepted = tokio::select! {
                accepted = door.accept() => accepted,
                () = door.lost() => {
                    match door.reopen() {
                        Ok(()) => tracing::info!("restored the admin socket"),
                        Err(error) => rest(&trouble, &error).await,
                    }
                    continue;
                }
            };
            match accepted {
                Ok(Some((stream, caller))) => {
                    if let Some(place) = places.take(Client::Operator) {
                        self.spawn(Port::Admin(caller), stream, place);
                    }
                }
                Ok(None) => {}
                Err(error) => rest(&trouble, &error).await,
            }
        }
    }

    fn spawn<S>(&self, port: Port, stream: S, place: Place<Client>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let serving = serve_connection(port, stream, self.admin.clone(), place);
        self.tasks.spawn(self.cancel.clone().run_until_cancelled_owned(serving));
    }
}

async fn rest(trouble: &Seldom, error: &io::Error) {
    if trouble.is_due() {
        tracing::warn!(%error, "cannot accept connections; will retry, and operators wait");
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// One connection, until it ends or its slot is evicted.
async fn serve_connection<S>(port: Port, stream: S, admin: Arc<Admin>, place: Place<Client>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let place = Arc::new(place);
    let held = place.clone();
    let service = service_fn(move |request| {
        let (admin, place) = (admin.clone(), held.clone());
        async move {
            place.works();
            let answer = pages::answer(port, &admin, request).await;
            // Who follows is there for as long as it takes what is written.
            if !answer.body().lasts() {
                place.waits();
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(Hurried::new(stream)), service);
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(?port, %error, "an operator's connection failed");
        },
        () = place.over(MAX_WAIT) => tracing::debug!(?port, "closing an idle connection"),
    }
}
