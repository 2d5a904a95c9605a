//! What arrives by HBONE (port 15008): TLS with the workload's certificate, then each CONNECT on its own.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::OptionFuture;
use http::StatusCode;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Proxy;
use super::deliver::{Arrival, Judgement};
use super::listen::{Accepted, TUNNEL_BUDGET};
use super::places::Way;
use crate::base::{Identity, Reason, Str};
use crate::filter::Meter;
use crate::gate::{self, Permit};
use crate::identity::{self, ProvenPeer, Role, WorkloadCertificate};
use crate::model::Workload;
use crate::quota::peers::AUTHORITY;
use crate::telemetry::Handshake;
use crate::tunnel::{self, Baggage, Cut, GuardedConnection, Home, Incoming, LocalServer, Place};
use crate::world::JudgementChanges;

/// A client has used up what it may have here, or all of them have. Not 503, by which agents mean that the workload failed: they would
/// eject it, for clients that have used up nothing as well.
const FULL: StatusCode = StatusCode::TOO_MANY_REQUESTS;

/// What the task of one stream may hold, in bytes, besides what is on its way.
const STREAM_BUDGET: usize = 3 * 1024;

/// A client that begins a tunnel.
struct Arriving {
    workload: Arc<Workload>,
    stream: Arrived,
    peer: SocketAddr,
    /// What it dialled.
    local: SocketAddr,
    place: Place,
}

/// Its connection.
enum Arrived {
    /// Of the runtime that serves it.
    Here(TcpStream),
    /// Of none; the worker serves it.
    Moved(std::net::TcpStream, Leaving),
}

/// A worker that drives a tunnel, and waits for its end.
struct Leaving {
    /// Fires when the worker is not needed any more.
    drain: CancellationToken,
    _held: TaskTrackerToken,
}

/// A tunnel that a client has opened.
struct Established {
    tls: TlsStream<TcpStream>,
    client: Identity,
    /// Ours.
    certificate: Arc<WorkloadCertificate>,
    proven: ProvenPeer,
}

impl LocalServer for Proxy {
    fn proves(&self, identity: &Identity) -> bool {
        !self.drain.is_cancelled()
            && self.workload().is_some_and(|workload| workload.identity == *identity)
    }

    fn connect_local(self: Arc<Self>, incoming: Incoming, client: Identity, peer: SocketAddr) {
        self.shared.telemetry.agent().in_process_connections.inc();
        let cut = Cut::with_workload(&self.cancel);
        self.spawn::<STREAM_BUDGET>(peer, self.clone().connect(incoming, client, peer, cut));
    }
}

impl Proxy {
    pub(super) async fn inbound(self: Arc<Self>, accepted: Accepted) {
        let Some(workload) = self.workload() else { return };
        let Accepted { stream, peer, mut place, thread: _ } = accepted;
        let local = crate::sock::unmap(stream.local_addr().unwrap_or(peer));
        match self.peer_place(Way::Tunnel, peer.ip()) {
            Ok(of_peer) => place.peer = Some(of_peer),
            Err(why) => return self.refuse_tunnel(workload, peer, local, Reason::Overflow, &why),
        }
        if !self.says_something(&stream).await {
            // Somebody looked whether the port is open: a same-node probe, a load balancer.
            return tracing::debug!(workload = %self.uid, %peer, "closed before it said anything");
        }
        let (runtime, stream) = match self.home(&workload) {
            None => (Handle::current(), Arrived::Here(stream)),
            Some(Home { runtime, drain, held }) => match stream.into_std() {
                Ok(stream) => (runtime, Arrived::Moved(stream, Leaving { drain, _held: held })),
                Err(error) => return self.note_end(peer, &error),
            },
        };
        // A task of its own, wherever it runs, which holds nothing of this one.
        let arriving = Arriving { workload, stream, peer, local, place };
        self.spawn_on::<TUNNEL_BUDGET>(&runtime, peer, self.clone().tunnel(arriving));
    }

    /// The worker that most requests in tunnels to the workload need, and which so has the tunnels served.
    fn home(&self, workload: &Arc<Workload>) -> Option<Home> {
        let namespace = gate::home(&self.shared.world.load(), workload)?;
        self.shared.waypoints.home(&namespace)
    }

    fn note_end(&self, peer: SocketAddr, error: &impl std::fmt::Display) {
        tracing::debug!(workload = %self.uid, %peer, %error, "an inbound tunnel broke");
    }

    /// Serves one tunnel to its end.
    async fn tunnel(self: Arc<Self>, arriving: Arriving) {
        let Arriving { workload, stream, peer, local, place } = arriving;
        let (stream, leaving) = match stream {
            Arrived::Here(stream) => (stream, None),
            Arrived::Moved(stream, leaving) => match TcpStream::from_std(stream) {
                Ok(stream) => (stream, Some(leaving)),
                Err(error) => return self.note_end(peer, &error),
            },
        };
        let Established { tls, client, certificate, proven } =
            match Box::pin(self.handshake(&workload, stream)).await {
                Ok(established) => established,
                Err((reason, why)) => {
                    return self.refuse_tunnel(workload, peer, local, reason, &why);
                }
            };
        let (drain, cut) = (self.drain.child_token(), Cut::of_tunnel(&self.cancel));
        let handler = {
            let (proxy, client, cut) = (self.clone(), client.clone(), cut.clone());
            move |incoming: Incoming| {
                let (client, cut) = (client.clone(), cut.clone());
                let connected = proxy.clone().connect(incoming, client, peer, cut);
                proxy.spawn::<STREAM_BUDGET>(peer, connected);
            }
        };
        tokio::select! {
            served = tunnel::serve(tls, drain.clone(), &self.room, handler) => {
                if let Err(error) = served {
                    self.note_end(peer, &error);
                }
            }
            () = self.drain_in_time(&certificate, leaving.as_ref(), &drain) => {}
            () = proven.revoked() => {
                tracing::warn!(workload = %self.uid, %peer, %client, flag = Reason::CertRevoked.flag(), "cut a tunnel: the client's certificate is revoked");
                cut.revoke();
            }
        }
        drop(place);
    }

    /// Sends GOAWAY when another certificate of ours is in use than the tunnel was made with: new streams go to new
    /// tunnels, whose clients are judged by the present roots. The same when the worker that drives it leaves. Never returns.
    async fn drain_in_time(
        &self,
        certificate: &WorkloadCertificate,
        leaving: Option<&Leaving>,
        drain: &CancellationToken,
    ) {
        tokio::select! {
            () = self.shared.certificates.replaced(certificate) => {}
            Some(()) = OptionFuture::from(leaving.map(|it| it.drain.cancelled())) => {}
        }
        drain.cancel();
        std::future::pending().await
    }

    /// Records a connection that did not become a tunnel.
    fn refuse_tunnel(
        &self,
        workload: Arc<Workload>,
        peer: SocketAddr,
        local: SocketAddr,
        reason: Reason,
        why: &str,
    ) {
        let arrival = Arrival {
            workload,
            client: None,
            peer,
            destination: local,
            forwarded_host: None,
            baggage: None,
            server_name: None,
            in_process: false,
            cut: Cut::with_workload(&self.cancel),
        };
        self.refuse_arrival(&arrival, reason, why);
    }

    /// Whether the peer sends anything before it closes or the handshake's time is over.
    async fn says_something(&self, stream: &TcpStream) -> bool {
        let mut first = [0];
        let peeked =
            tokio::time::timeout(self.shared.settings.connect_timeout, stream.peek(&mut first));
        // Of one that stays silent the handshake tells.
        !matches!(peeked.await, Ok(Ok(0)))
    }

    async fn handshake(
        &self,
        workload: &Workload,
        stream: TcpStream,
    ) -> Result<Established, (Reason, String)> {
        let certificate = self
            .shared
            .certificates
            .certificate(&workload.identity)
            .await
            .map_err(|error| (Reason::IdentityFailure, error.to_string()))?;
        let accepting = TlsAcceptor::from(certificate.server_config()).accept(stream);
        let tls = tokio::time::timeout(self.shared.settings.connect_timeout, accepting)
            .await
            .map_err(|_| (Reason::TlsFailure, "the TLS handshake took too long".to_string()))?
            .map_err(|error| {
                (identity::reason_of(&error), format!("TLS with the client: {error}"))
            })?;
        let session = tls.get_ref().1;
        if !identity::negotiated_h2(session) {
            return Err((
                Reason::TlsFailure,
                "the client does not speak HTTP/2 (ALPN)".to_string(),
            ));
        }
        identity::count_agreed(Handshake::TunnelServer, session);
        match identity::peer_identity(session) {
            Some(client) => {
                let proven = certificate.proven(session, Role::Client);
                Ok(Established { tls, client, certificate, proven })
            }
            None => Err((Reason::TlsFailure, "the client proved no SPIFFE identity".to_string())),
        }
    }

    /// One CONNECT: to this workload only, only when policy permits, and only answered 200 when the application is
    /// connected, so that the client's agent can tell a refusal from a failure.
    async fn connect(
        self: Arc<Self>,
        incoming: Incoming,
        client: Identity,
        peer: SocketAddr,
        cut: Cut,
    ) {
        let Some(workload) = self.workload() else {
            return incoming.refuse(StatusCode::SERVICE_UNAVAILABLE);
        };
        if incoming.request.authority == AUTHORITY {
            return Box::pin(self.share_limits(incoming, &workload, &client, peer, &cut)).await;
        }
        let Some((address, port)) = tunnel::parse_authority(&incoming.request.authority) else {
            tracing::debug!(workload = %self.uid, %peer, authority = incoming.request.authority, "not ip:port");
            return incoming.refuse(StatusCode::BAD_REQUEST);
        };
        let arrival = Arrival {
            workload,
            baggage: self.baggage_of(&client, peer, incoming.request.baggage.as_deref()),
            client: Some(client),
            peer,
            destination: SocketAddr::new(address, port),
            forwarded_host: incoming.request.forwarded_host.clone(),
            server_name: None,
            in_process: incoming.is_local(),
            cut,
        };
        if let Err(why) = self.own_destination(&arrival.workload, arrival.destination) {
            self.refuse_arrival(&arrival, Reason::BadRequest, &why);
            return incoming.refuse(StatusCode::BAD_REQUEST);
        }
        let place = match self.stream_places(peer.ip()) {
            Ok(place) => place,
            Err(why) => {
                self.refuse_arrival(&arrival, Reason::Overflow, &why);
                return incoming.refuse(FULL);
            }
        };
        match self.judge(&arrival) {
            Judgement::Deny(denial) if denial.unread => {
                Box::pin(self.accept_by_name(incoming, arrival)).await;
            }
            Judgement::Deny(denial) => {
                self.deny_arrival(&arrival, denial);
                incoming.refuse(StatusCode::UNAUTHORIZED);
            }
            Judgement::Limit(why) => {
                self.refuse_arrival(&arrival, Reason::RateLimited, &why);
                incoming.refuse(FULL);
            }
            Judgement::Guard(worker, meter) => {
                self.guard(incoming, arrival, place, (&worker, meter));
            }
            Judgement::Permit(permit, changes, meter) => {
                self.carry_arrival(incoming, arrival, permit, changes, meter).await;
            }
        }
    }

    async fn carry_arrival(
        &self,
        incoming: Incoming,
        arrival: Arrival,
        permit: Permit,
        changes: JudgementChanges,
        meter: Option<Meter>,
    ) {
        // In memory of its own, which an idle connection does not hold any more.
        let application = match Box::pin(self.connect_application(&arrival)).await {
            Ok(application) => application,
            Err(error) => {
                let why = format!("connect to the application at {}: {error}", arrival.destination);
                self.refuse_arrival(&arrival, Reason::ConnectFailure, &why);
                return incoming.refuse(StatusCode::SERVICE_UNAVAILABLE);
            }
        };
        let start = self.start_of_arrival(&arrival, Some(permit));
        let record = self.shared.telemetry.connection(start).within(Some(&self.room));
        // A connection that is handed over passes here no more, so what is metered is not.
        let local = if meter.is_some() { Err(incoming) } else { incoming.into_local() };
        match local {
            Ok(local) => match local.join(application, record) {
                Ok(joined) => self.keep(&arrival, joined, changes).await,
                Err(error) => self.lost(&arrival, &error),
            },
            Err(incoming) => match incoming.accept(Some(&self.baggage(&arrival.workload))) {
                Ok(stream) => {
                    let stream = stream.paced(meter);
                    self.relay(&arrival, stream, application, record, changes).await;
                }
                Err(error) => self.lost(&arrival, &error),
            },
        }
    }

    fn guard(
        &self,
        incoming: Incoming,
        arrival: Arrival,
        place: Place,
        (worker, meter): (&Str, Option<Meter>),
    ) {
        match incoming.accept(Some(&self.baggage(&arrival.workload))) {
            Ok(stream) => self.shared.waypoints.guard(
                worker,
                GuardedConnection {
                    stream: stream.paced(meter),
                    borrow: arrival.borrow(),
                    workload: arrival.workload,
                    client: arrival.client,
                    client_address: arrival.peer,
                    destination: arrival.destination,
                    forwarded_host: arrival.forwarded_host,
                    baggage: arrival.baggage,
                    sockets: self.sockets.clone(),
                    place,
                    cut: arrival.cut,
                },
            ),
            Err(error) => self.lost(&arrival, &error),
        }
    }

    pub(super) fn lost(&self, arrival: &Arrival, error: &tunnel::TunnelError) {
        tracing::debug!(workload = %self.uid, peer = %arrival.peer, %error, "the client left before the answer");
    }

    /// What its proxy says of a client that is none of the workloads that this agent knows.
    fn baggage_of(
        &self,
        client: &Identity,
        peer: SocketAddr,
        text: Option<&str>,
    ) -> Option<Box<Baggage>> {
        let text = text?;
        let world = self.shared.world.load();
        let is_known = world.source_at(peer.ip(), Some(client)).is_some();
        (!is_known).then(|| Box::new(Baggage::parse(text)))
    }

    pub(super) fn baggage(&self, workload: &Workload) -> String {
        Baggage::of(workload, &self.shared.cluster).to_string()
    }
}
