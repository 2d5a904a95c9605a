//! What a captured workload dials (port 15001): original destination, decision, endpoint, copy, record.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

use super::listen::Accepted;
use super::{Proxy, deliver};
use crate::balance::Picked;
use crate::base::{Reason, Str};
use crate::model::{Service, Workload};
use crate::policy::unjudged;
use crate::reach::{
    self, Ask, Asked, Downstream, Failure, Lent, Reach, Reached, Unreached, cut_after_a_change,
};
use crate::route::{self, Decision};
use crate::sock::hello::{self, Opening};
use crate::sock::{self, Duplex, Rewind};
use crate::telemetry::{ConnectionStart, Reporter};
use crate::trace::{Kind, Span};
use crate::tunnel::RoutedConnection;
use crate::world;

/// The name of the service in labels where REGISTRY_ONLY rejects a connection, as sidecars have it (Istio, "Monitoring Blocked
/// and Passthrough External Service Traffic").
const BLACK_HOLE: Str = arcstr::literal!("BlackHoleCluster");

/// What is known of what a client begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    Unread,
    /// TLS that asks for a server of this name, as it was sent.
    Naming(Str),
    /// With TLS that names no server, or with something else.
    Nameless,
    /// Too little came in time, or what cannot be understood.
    Unclear,
}

impl Begins {
    /// The name that the client claims.
    pub(super) fn claim(&self) -> Option<&Str> {
        match self {
            Self::Naming(name) => Some(name),
            Self::Unread | Self::Nameless | Self::Unclear => None,
        }
    }

    /// The name as policies compare it: empty where none is asked for.
    fn server_name(&self) -> Option<Str> {
        match self {
            Self::Naming(name) => Some(Opening::Tls(Some(name.to_string())).server_name()),
            Self::Nameless => Some(Str::default()),
            Self::Unread | Self::Unclear => None,
        }
    }
}

/// One outbound connection.
pub(super) struct Outbound {
    pub(super) accepted: Accepted,
    client: Arc<Workload>,
    /// What the application dialled.
    dialled: SocketAddr,
    /// The port of the service: the dialled one, or that of a route's backend.
    pub(super) port: u16,
    /// A route has led on from what was dialled.
    pub(super) routed: bool,
    /// The subset of the backend's endpoints, where a route names one.
    pub(super) subset: Option<Str>,
    /// What is known of its first bytes.
    pub(super) begins: Begins,
    /// The route that leads on in the client's name, where that is another namespace's.
    pub(super) lent: Option<Box<Lent>>,
}

impl Outbound {
    fn ask<'a>(&'a self, service: &'a Arc<Service>) -> Ask<'a> {
        let dialled = SocketAddr::new(self.dialled.ip(), self.port);
        let (service, subset) = (Asked::Decided(service), self.subset.as_deref());
        let (routed, claim) =
            (self.routed.then_some(self.dialled.port()), self.begins.claim().map(Str::as_str));
        Ask { service, dialled, routed, subset, claim, lent: self.lent.as_deref() }
    }

    pub(super) fn client(&self) -> &Workload {
        &self.client
    }

    pub(super) fn namespace(&self) -> &str {
        &self.client.key.namespace
    }
}

impl Proxy {
    pub(super) async fn outbound(self: Arc<Self>, mut accepted: Accepted) {
        let Some(client) = self.workload() else { return };
        accepted.peer.set_ip(client.own_address(accepted.peer.ip()));
        let dialled = match sock::original_destination(&accepted.stream) {
            Ok(dialled) => dialled,
            Err(error) => {
                tracing::debug!(workload = %self.uid, peer = %accepted.peer, %error, "not a redirected connection");
                return;
            }
        };
        // The decision is taken over one snapshot, which is let go before anything is awaited.
        let decision = route::decide(&self.shared.world.load(), &client, dialled);
        let port = dialled.port();
        let (routed, subset, begins, lent) = (false, None, Begins::Unread, None);
        let outbound = Outbound { accepted, client, dialled, port, routed, subset, begins, lent };
        match decision {
            Decision::Refuse { reason, why } => {
                self.refuse_outbound(&outbound, None, Failure { reason, why }.into());
            }
            Decision::Passthrough => self.carry(outbound, Picked::dialled(dialled, None)).await,
            Decision::Workload { workload, port } => {
                let address = SocketAddr::new(dialled.ip(), port);
                self.carry(outbound, Picked::dialled(address, Some(workload))).await;
            }
            Decision::Service { service, .. } => {
                self.carry_to_service(outbound, &service, |stream| stream).await;
            }
            Decision::Routed { service, routes } => {
                // In memory of its own, which the other connections do not hold.
                Box::pin(self.carry_by_route(outbound, service, routes)).await;
            }
            Decision::Named { service } => Box::pin(self.carry_by_name(outbound, service)).await,
            Decision::Waypoint { service, mut waypoint, port, .. } => {
                if service.canary.is_some() {
                    let world = self.shared.world.load();
                    waypoint = route::drawn(&world, &service, waypoint, fastrand::u8(..100));
                }
                self.shared.waypoints.route(RoutedConnection {
                    stream: outbound.accepted.stream,
                    client: outbound.client,
                    client_address: outbound.accepted.peer,
                    dialled: SocketAddr::new(dialled.ip(), port),
                    service,
                    waypoint,
                    sockets: self.sockets.clone(),
                    place: outbound.accepted.place,
                    cancel: self.cancel.clone(),
                });
            }
        }
    }

    /// The way to endpoints from the thread that serves the connection.
    fn reach(&self, outbound: &Outbound) -> &Reach {
        self.reach_from(outbound.accepted.thread)
    }

    async fn carry(&self, outbound: Outbound, to: Picked) {
        let connected = {
            let from = self.downstream(&outbound);
            // In memory of its own, which an idle connection does not hold any more.
            Box::pin(self.reach(&outbound).connect(&from, &to, None, None)).await
        };
        match connected {
            Ok(upstream) => {
                let reached = Reached { upstream, picked: to, permit: None, tls: None };
                self.copy(outbound, reached, None, |stream| stream).await;
            }
            Err(failure) => self.refuse_outbound(&outbound, Some((&to, None)), failure.into()),
        }
    }

    /// `whole` puts back what was read of the client already.
    pub(super) async fn carry_to_service<S: Duplex>(
        &self,
        outbound: Outbound,
        service: &Arc<Service>,
        whole: impl FnOnce(TcpStream) -> S,
    ) {
        let reached = {
            let server_name = outbound.begins.server_name();
            let from =
                Downstream { server_name: server_name.as_deref(), ..self.downstream(&outbound) };
            Box::pin(self.reach(&outbound).endpoint(&from, &outbound.ask(service))).await
        };
        match reached {
            Ok(reached) => self.copy(outbound, reached, Some(service), whole).await,
            Err(unreached) if unreached.unread && outbound.begins == Begins::Unread => {
                self.carry_by_claim(outbound, service).await;
            }
            Err(mut unreached) => {
                let to = unreached.picked.take();
                let to = to.unwrap_or_else(|| Picked::dialled(outbound.dialled, None));
                self.refuse_outbound(&outbound, Some((&to, Some(service))), unreached);
            }
        }
    }

    /// The same once it is known which server the client asks for in TLS, which policies need.
    fn carry_by_claim<'a>(
        &'a self,
        mut outbound: Outbound,
        service: &'a Arc<Service>,
    ) -> BoxFuture<'a, ()> {
        let reading = async move {
            let wait = self.shared.settings.connect_timeout;
            let (opening, front) = hello::read(&mut outbound.accepted.stream, wait).await;
            outbound.begins = match opening {
                Ok(Opening::Tls(Some(name))) => Begins::Naming(name.into()),
                Ok(Opening::Tls(None) | Opening::Other) => Begins::Nameless,
                Err(unread) => {
                    let reason = unread.reason(Reason::Denied);
                    let failure = Failure { reason, why: unjudged(&unread) };
                    return self.refuse_routed(&outbound, service, failure);
                }
            };
            self.carry_to_service(outbound, service, |stream| Rewind { front, stream }).await;
        };
        Box::pin(reading)
    }

    fn downstream<'a>(&'a self, outbound: &'a Outbound) -> Downstream<'a> {
        let (client, address) = (&outbound.client, outbound.accepted.peer);
        Downstream { client, address, sockets: &self.sockets, server_name: None }
    }

    /// Copies until both sides have ended, or until a change no longer permits connections like this one to the service.
    ///
    /// Whatever the copy does not need is gone before it begins, and no argument is moved in it: a future holds both the argument and
    /// what it is moved to, as long as it lasts.
    fn copy<S: Duplex>(
        &self,
        outbound: Outbound,
        reached: Reached,
        service: Option<&Arc<Service>>,
        whole: impl FnOnce(TcpStream) -> S,
    ) -> impl Future<Output = ()> {
        let Reached { upstream, picked, permit, tls } = reached;
        let (policy, notes) = permit.map(|it| (it.policy, it.notes)).unwrap_or_default();
        let start = ConnectionStart {
            in_process: upstream.is_local(),
            policy,
            notes,
            ..self.start_of(&outbound, Some((&picked, service)))
        };
        let record = self.shared.telemetry.connection(start).within(Some(&self.room));
        let mut record = record.traced(self.span(&outbound.client, service));
        let Outbound { accepted, client, dialled, port, routed, subset, begins, lent } = outbound;
        let reach = self.reach_from(accepted.thread);
        let Accepted { stream, peer, place, thread: _ } = accepted;
        let server_name = begins.server_name();
        let stream = whole(stream);
        async move {
            // Held until the end.
            let _ = &place;
            let server_name = server_name.as_deref();
            let from =
                Downstream { client: &client, address: peer, sockets: &self.sockets, server_name };
            let denied = async {
                // In memory of their own, since they are larger than what most connections need besides.
                let Some(service) = service else {
                    return Box::pin(reach.until_unregistered(&client, dialled)).await;
                };
                let (service, subset) = (Asked::Decided(service), subset.as_deref());
                let routed = routed.then_some(dialled.port());
                let dialled = SocketAddr::new(dialled.ip(), port);
                // It has been resolved.
                let ask =
                    Ask { service, dialled, routed, subset, claim: None, lent: lent.as_deref() };
                Box::pin(reach.until_denied(&from, &ask, (&picked, tls.as_ref()))).await
            };
            let copied = tokio::select! {
                copied = sock::copy_bidirectional(stream, upstream, &record) => copied,
                denied = denied => {
                    return record.fail(denied.reason, cut_after_a_change(&denied.why));
                }
                over = reach::until_over(picked.limits(), || record.carried()) => {
                    return record.fail(over.reason, over.why);
                }
            };
            deliver::finish(copied, &mut record);
        }
    }

    /// The span of a connection that begins, where it is recorded.
    fn span(&self, client: &Workload, service: Option<&Arc<Service>>) -> Option<Box<Span>> {
        let (world, service) = (self.shared.world.load(), service.map(|service| &service.key));
        world.tracing(Kind::Client, client, service)?.begin_connection(Kind::Client)
    }

    /// Records a connection that no route led to a backend.
    pub(super) fn refuse_routed(
        &self,
        outbound: &Outbound,
        service: &Arc<Service>,
        failure: Failure,
    ) {
        let to = Picked::dialled(outbound.dialled, None);
        self.refuse_outbound(outbound, Some((&to, Some(service))), failure.into());
    }

    fn refuse_outbound(
        &self,
        outbound: &Outbound,
        to: Option<(&Picked, Option<&Arc<Service>>)>,
        Unreached { failure: Failure { reason, why }, notes, .. }: Unreached,
    ) {
        let mut start = ConnectionStart { notes, ..self.start_of(outbound, to) };
        if reason == Reason::NotRegistered {
            start.service.name = BLACK_HOLE;
        }
        let service = to.and_then(|(_, service)| service);
        let span = self.span(&outbound.client, service);
        self.shared.telemetry.refused_traced(start, reason, &why, span);
    }

    fn start_of(
        &self,
        outbound: &Outbound,
        to: Option<(&Picked, Option<&Arc<Service>>)>,
    ) -> ConnectionStart {
        let cluster = &self.shared.cluster;
        let endpoint = to.map(|(endpoint, _)| endpoint);
        let server = endpoint.and_then(Picked::captured);
        let proven = server.map(|_| &outbound.client.identity);
        let destination = endpoint.and_then(|endpoint| endpoint.workload.as_deref());
        let service = to.and_then(|(_, service)| service).map(|service| &service.key);
        ConnectionStart {
            reporter: Reporter::Source,
            source: world::labels_of(Some(&outbound.client), proven, cluster),
            destination: world::labels_of(destination, server.map(|it| &it.identity), cluster),
            service: to
                .and_then(|(_, service)| service)
                .map(|service| world::service_labels(service))
                .unwrap_or_default(),
            mutual_tls: server.is_some(),
            source_address: outbound.accepted.peer,
            destination_address: endpoint.map_or(outbound.dialled, Picked::wire_address),
            dialled: outbound.dialled,
            hbone_authority: server.and(endpoint).map(|endpoint| endpoint.address),
            server_name: outbound.begins.claim().cloned(),
            waypoint_principal: None,
            policy: None,
            notes: Vec::new(),
            in_process: false,
            rules: self.shared.world.load().rules(Kind::Client, &outbound.client, service),
        }
    }
}
