//! What a captured workload dials (port 15001): original destination, decision, endpoint, copy, record.

use std::net::SocketAddr;
use std::sync::Arc;

use super::listen::Accepted;
use super::upstream::{Hop, Unreached};
use super::{Proxy, deliver};
use crate::balance::{self, Caller};
use crate::base::{ObjectKey, Reason, Str};
use crate::model::{Service, Workload};
use crate::policy::{self, Connection, Denial, Gate, Permit, Way};
use crate::route::{self, Decision};
use crate::sock;
use crate::telemetry::{ConnectionRecord, ConnectionStart, Reporter};
use crate::tunnel::{Carrier, RoutedConnection};
use crate::world::{self, Classed, InFlight, JudgementChanges};

/// How many endpoints of a service are tried before the client is told: the first and two more, as Envoy does for
/// connect failures.
const MAX_ATTEMPTS: usize = 3;

/// One outbound connection.
struct Outbound {
    accepted: Accepted,
    client: Arc<Workload>,
    /// What the application dialled.
    dialled: SocketAddr,
}

/// What tells apart how connections to where nobody else judges are judged here, besides the client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LeavingClass {
    service: ObjectKey,
    port: u16,
    workload: Option<Str>,
    destination: SocketAddr,
}

impl Classed for LeavingClass {
    /// All are the client's own, so none of its services takes places from others.
    fn tenant(&self) -> &str {
        &self.service.name
    }
}

/// An endpoint that was reached, and what it is.
struct Reached {
    upstream: Carrier,
    hop: Hop,
    /// Where its policies were judged on this side.
    permit: Option<Permit>,
    _in_flight: Option<InFlight>,
}

impl Proxy {
    pub(super) async fn outbound(self: Arc<Self>, accepted: Accepted) {
        let Some(client) = self.workload() else { return };
        let dialled = match sock::original_destination(&accepted.stream) {
            Ok(dialled) => dialled,
            Err(error) => {
                tracing::debug!(workload = %self.uid, peer = %accepted.peer, %error, "not a redirected connection");
                return;
            }
        };
        // The decision is taken over one snapshot, which is let go before anything is awaited.
        let decision = route::decide(&self.shared.world.load(), &client, dialled);
        let outbound = Outbound { accepted, client, dialled };
        match decision {
            Decision::Refuse { reason, why } => {
                self.refuse_outbound(&outbound, None, Unreached::because(reason, why));
            }
            Decision::Passthrough => {
                self.carry(outbound, Hop { address: dialled, workload: None }).await;
            }
            Decision::Workload { workload, port } => {
                let address = SocketAddr::new(dialled.ip(), port);
                self.carry(outbound, Hop { address, workload: Some(workload) }).await;
            }
            Decision::Service { service, port } => {
                self.carry_to_service(outbound, &service, port).await;
            }
            Decision::Waypoint { service, waypoint, .. } => {
                self.shared.waypoints.route(RoutedConnection {
                    stream: outbound.accepted.stream,
                    client: outbound.client,
                    client_address: outbound.accepted.peer,
                    dialled,
                    service,
                    waypoint,
                    sockets: self.sockets.clone(),
                    place: outbound.accepted.place,
                    cancel: self.cancel.clone(),
                });
            }
        }
    }

    async fn carry(&self, outbound: Outbound, hop: Hop) {
        // In memory of its own, which an idle connection does not hold any more.
        let reach = self.reach(&outbound.client, outbound.accepted.peer, &hop, None);
        match Box::pin(reach).await {
            Ok(upstream) => {
                let reached = Reached { upstream, hop, permit: None, _in_flight: None };
                self.copy(outbound, reached, None).await;
            }
            Err(unreached) => self.refuse_outbound(&outbound, Some((&hop, None)), unreached),
        }
    }

    async fn carry_to_service(&self, outbound: Outbound, service: &Arc<Service>, port: u16) {
        match Box::pin(self.reach_service(&outbound, service, port)).await {
            Ok(reached) => self.copy(outbound, reached, Some(service)).await,
            Err((hop, unreached)) => {
                let hop = hop.unwrap_or(Hop { address: outbound.dialled, workload: None });
                self.refuse_outbound(&outbound, Some((&hop, Some(service))), unreached);
            }
        }
    }

    /// Tries endpoints until one takes the connection; no byte of the client was sent yet, so this is safe.
    async fn reach_service(
        &self,
        outbound: &Outbound,
        service: &Arc<Service>,
        port: u16,
    ) -> Result<Reached, (Option<Hop>, Unreached)> {
        let resolver = &self.shared.resolver;
        let resolved = resolver.endpoints(&outbound.client, &self.sockets, service).await;
        let resolved = resolved.map_err(|error| {
            (None, Unreached::because(Reason::NoHealthyUpstream, error.to_string()))
        })?;
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut last = None;
        for _ in 0..MAX_ATTEMPTS {
            let world = self.shared.world.snapshot();
            let caller =
                Caller { workload: &outbound.client, address: outbound.accepted.peer.ip() };
            let like = outbound.dialled;
            let picked = balance::pick(&world, &resolved, port, caller, like, &tried);
            drop(world);
            let Some(picked) = picked else { break };
            if tried.contains(&picked.address) {
                break;
            }
            tried.push(picked.address);
            let hop = Hop { address: picked.address, workload: picked.workload };
            let (peer, namespace) = (outbound.accepted.peer, &outbound.client.key.namespace);
            let tunnelled = hop.tunnelled().is_some();
            if let Some(why) = policy::refused_in_the_clear(service, port, namespace, tunnelled) {
                return Err((Some(hop), Unreached::because(Reason::Unencrypted, why)));
            }
            let permit = match self.permit(&outbound.client, peer, (service, port), &hop) {
                Ok(permit) => permit,
                Err(denied) => return Err((Some(hop), denied)),
            };
            let host: Option<&Str> = Some(&service.hostname);
            match self.reach(&outbound.client, outbound.accepted.peer, &hop, host).await {
                Ok(upstream) => {
                    return Ok(Reached { upstream, hop, permit, _in_flight: picked.in_flight });
                }
                // The server has decided: another endpoint of the service would decide alike.
                Err(unreached) if unreached.reason == Reason::Denied => {
                    return Err((Some(hop), unreached));
                }
                Err(unreached) => {
                    let notes = permit.map(|it| it.notes).unwrap_or_default();
                    last = Some((Some(hop), Unreached { notes, ..unreached }));
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            let why = balance::nobody(service, port, &outbound.client);
            (None, Unreached::because(Reason::NoHealthyUpstream, why))
        }))
    }

    /// Where the destination is not captured nobody judges there, so the policies of the waypoints that guard it are judged
    /// here (design, "both halves"). `None` where no waypoint does.
    fn permit(
        &self,
        client: &Workload,
        peer: SocketAddr,
        (service, port): (&Service, u16),
        hop: &Hop,
    ) -> Result<Option<Permit>, Unreached> {
        if hop.tunnelled().is_some() {
            return Ok(None);
        }
        let way = Way {
            addressed: service,
            port,
            route: None,
            backend: (service, port),
            workload: hop.workload.as_deref(),
            destination: hop.address,
        };
        let gate = Gate::for_uncaptured(&self.shared.world.load(), &way);
        if !gate.is_guarded() {
            return Ok(None);
        }
        let connection = Connection {
            client: Some(&client.identity),
            source: peer.ip(),
            destination: hop.address,
        };
        gate.authorize(&connection, None).map(Some).map_err(|Denial { why, notes, .. }| Unreached {
            reason: Reason::Denied,
            why,
            notes,
        })
    }

    /// Tells when connections like this one are judged otherwise.
    fn changes_of(&self, (service, port): (&Arc<Service>, u16), hop: &Hop) -> JudgementChanges {
        let class = LeavingClass {
            service: service.key.clone(),
            port,
            workload: hop.workload.as_ref().map(|workload| workload.uid.clone()),
            destination: hop.address,
        };
        self.left.changes(class, || {
            let (service, workload) = (service.clone(), hop.workload.clone());
            let destination = hop.address;
            move |world| {
                let way = Way {
                    addressed: &service,
                    port,
                    route: None,
                    backend: (&service, port),
                    workload: workload.as_deref(),
                    destination,
                };
                Gate::for_uncaptured(world, &way)
            }
        })
    }

    async fn copy(&self, outbound: Outbound, mut reached: Reached, service: Option<&Arc<Service>>) {
        let permit = reached.permit.take();
        let guarded = service.filter(|_| permit.is_some());
        let (policy, notes) = permit.map(|it| (it.policy, it.notes)).unwrap_or_default();
        let start = ConnectionStart {
            in_process: reached.upstream.is_local(),
            policy,
            notes,
            ..self.start_of(&outbound, Some((&reached.hop, service)))
        };
        let record = self.shared.telemetry.connection(start).within(Some(&self.room));
        match guarded {
            None => deliver::copy(outbound.accepted.stream, reached.upstream, record).await,
            // Seldom, and large.
            Some(service) => {
                Box::pin(self.copy_while_permitted(outbound, reached, service, record)).await;
            }
        }
    }

    /// Copies until both sides have ended, or until a change of what guards the service no longer permits the connection.
    async fn copy_while_permitted(
        &self,
        outbound: Outbound,
        reached: Reached,
        service: &Arc<Service>,
        mut record: ConnectionRecord,
    ) {
        let Outbound { accepted, client, dialled } = outbound;
        let service = (service, dialled.port());
        let mut changes = self.changes_of(service, &reached.hop);
        let peer = accepted.peer;
        let denied = async {
            loop {
                // First of all: the mesh may have changed since the connection was permitted.
                if let Err(denied) =
                    self.permit(&client, peer, (service.0, service.1), &reached.hop)
                {
                    break denied;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let copied = tokio::select! {
            copied = sock::copy_bidirectional(accepted.stream, reached.upstream, &record) => copied,
            denied = denied => {
                return record.fail(Reason::Denied, deliver::cut_after_a_change(&denied.why));
            }
        };
        deliver::finish(copied, &mut record);
    }

    fn refuse_outbound(
        &self,
        outbound: &Outbound,
        to: Option<(&Hop, Option<&Arc<Service>>)>,
        Unreached { reason, why, notes }: Unreached,
    ) {
        let start = ConnectionStart { notes, ..self.start_of(outbound, to) };
        self.shared.telemetry.refused(start, reason, &why);
    }

    fn start_of(
        &self,
        outbound: &Outbound,
        to: Option<(&Hop, Option<&Arc<Service>>)>,
    ) -> ConnectionStart {
        let cluster = &self.shared.settings.cluster;
        let hop = to.map(|(hop, _)| hop);
        let server = hop.and_then(Hop::tunnelled);
        let proven = server.map(|_| &outbound.client.identity);
        let destination = hop.and_then(|hop| hop.workload.as_deref());
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
            destination_address: hop.map_or(outbound.dialled, Hop::wire_address),
            dialled: outbound.dialled,
            hbone_authority: server.and(hop).map(|hop| hop.address),
            waypoint_principal: None,
            policy: None,
            notes: Vec::new(),
            in_process: false,
        }
    }
}
