//! The listeners of one workload and their accept loop.

use std::future::Future;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_util::future::FutureExt as _;

use super::Proxy;
use super::places::Way;
use super::threads::ThreadId;
use crate::base::{Burst, Seldom, caught, ports, within_budget};
use crate::sock::{self, AcceptFailure};
use crate::tunnel::Place;

/// How long an accept loop rests when files or memory ran out: long enough to let connections end, short enough
/// that clients in the backlog do not notice.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the task of a connection may hold, in bytes, besides what is on its way: with both of its nodes and the copies
/// in the kernel this keeps an idle connection below 8 KiB.
const CONNECTION_BUDGET: usize = 3 * 1024;
/// The same for a tunnel, with its TLS and HTTP/2 states; it carries many connections.
pub(super) const TUNNEL_BUDGET: usize = 8 * 1024;

/// A port in the workload's namespace could not be taken.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on port {port} in the network namespace of {workload}: {source}; does another proxy run there?"
)]
pub struct ListenError {
    port: u16,
    workload: String,
    source: io::Error,
}

/// One accepted connection.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) place: Place,
    /// The thread that serves it.
    pub(super) thread: ThreadId,
}

impl Proxy {
    /// Binds every port before it serves any, so that a workload is captured whole or not at all.
    pub(super) fn listen(
        self: Arc<Self>,
        mut inherited: Vec<(u16, OwnedFd)>,
    ) -> Result<(), ListenError> {
        let _runtime = self.shared.threads.get(self.accepts_on).runtime.enter();
        let outbound = self.bind(ports::OUTBOUND, &mut inherited)?;
        let plaintext = self.bind(ports::INBOUND_PLAINTEXT, &mut inherited)?;
        let hbone = self.bind(ports::HBONE, &mut inherited)?;
        *self.listening.lock() = [&outbound, &plaintext, &hbone]
            .map(|(port, listener)| (*port, Arc::downgrade(listener)))
            .into();
        let [(_, outbound), (_, plaintext), (_, hbone)] = [outbound, plaintext, hbone];
        let [out, plain, tunnel] = [Way::Outbound, Way::Plaintext, Way::Tunnel];
        self.serve::<CONNECTION_BUDGET, _>(outbound, out, |proxy, it| proxy.outbound(it));
        self.serve::<CONNECTION_BUDGET, _>(plaintext, plain, |proxy, it| proxy.plaintext(it));
        self.serve::<CONNECTION_BUDGET, _>(hbone, tunnel, |proxy, it| proxy.inbound(it));
        Ok(())
    }

    fn bind(
        &self,
        port: u16,
        inherited: &mut Vec<(u16, OwnedFd)>,
    ) -> Result<(u16, Arc<TcpListener>), ListenError> {
        let known = inherited.iter().position(|(of, _)| *of == port);
        let listener = match known.map(|at| inherited.swap_remove(at)) {
            Some((_, socket)) => sock::adopt_listener(socket, port),
            None => self.sockets.listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        };
        listener.map(|listener| (port, Arc::new(listener))).map_err(|source| ListenError {
            port,
            workload: self.uid.to_string(),
            source,
        })
    }

    fn serve<const BUDGET: usize, F>(
        self: &Arc<Self>,
        listener: Arc<TcpListener>,
        way: Way,
        handle: fn(Arc<Self>, Accepted) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let proxy = self.clone();
        let accepting = async move {
            let mut burst = Burst::default();
            while let Some(accepted) = proxy.accept(&listener, way).await {
                let peer = accepted.peer;
                let runtime = &proxy.shared.threads.get(accepted.thread).runtime;
                proxy.spawn_on::<BUDGET>(runtime, peer, handle(proxy.clone(), accepted));
                burst.taken().await;
            }
        };
        self.tasks.spawn_on(accepting, &self.shared.threads.get(self.accepts_on).runtime);
    }

    /// Runs what becomes of one stream where its bytes come from: on the caller's runtime.
    pub(super) fn spawn<const BUDGET: usize>(
        self: &Arc<Self>,
        peer: SocketAddr,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn_on::<BUDGET>(&Handle::current(), peer, connection);
    }

    /// Runs what becomes of one connection or stream until it ends or the proxy cuts it. A panic ends this one only.
    /// The wrappers are plain structs, since an async block would hold the connection's future twice.
    pub(super) fn spawn_on<const BUDGET: usize>(
        self: &Arc<Self>,
        runtime: &Handle,
        peer: SocketAddr,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        let proxy = self.clone();
        let task = caught(connection).map(move |ended| {
            if let Err(panic) = ended {
                tracing::error!(workload = %proxy.uid, %peer, "a connection was ended by a panic: {panic}");
            }
        });
        let task = task.with_cancellation_token_owned(self.cancel.clone());
        self.tasks.spawn_on(within_budget::<BUDGET, _>(task), runtime);
    }

    /// The next connection; `None` when the proxy drains or the listener is gone.
    async fn accept(&self, listener: &TcpListener, way: Way) -> Option<Accepted> {
        loop {
            let accepted = tokio::select! {
                () = self.drain.cancelled() => return None,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let tuned = sock::tune_accepted(&stream);
                    let placed = || self.shared.threads.place(stream, self.accepts_on);
                    let (stream, thread) = match tuned.and_then(|()| placed()) {
                        Ok(placed) => placed,
                        Err(error) => {
                            tracing::debug!(workload = %self.uid, %peer, %error, "closed before it began");
                            continue;
                        }
                    };
                    let place = self.place(way).await?;
                    return Some(Accepted { stream, peer: sock::unmap(peer), place, thread });
                }
                Err(error) => match sock::classify_accept(&error) {
                    AcceptFailure::ThisConnection => {}
                    AcceptFailure::BackOff => self.back_off(&error).await,
                    AcceptFailure::Fatal => {
                        tracing::error!(workload = %self.uid, %error, "a listener is gone");
                        return None;
                    }
                },
            }
        }
    }

    /// The files are the whole process's, so all its listeners tell of them together.
    async fn back_off(&self, error: &io::Error) {
        static TOLD: Seldom = Seldom::new();
        self.shared.telemetry.agent().accept_failures.inc();
        if TOLD.is_due() {
            tracing::warn!(
                workload = %self.uid, %error,
                "cannot accept connections for now; they wait. Is the limit of open files too low (process_max_fds)?"
            );
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
