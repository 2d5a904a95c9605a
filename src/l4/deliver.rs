//! The end of every inbound way: judge, connect to the application, copy, and judge again whenever the world changes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;

use super::Proxy;
use crate::base::{Identity, Reason, Str, ports};
use crate::filter::{Meter, Opened};
use crate::gate::{self, ArrivalClass, Gate, Permit};
use crate::model::Workload;
use crate::policy::{Connection, Denial};
use crate::reach::{self, cut_after_a_change};
use crate::sock::{self, Duplex};
use crate::telemetry::{ConnectionRecord, ConnectionStart, Reporter};
use crate::trace::Kind;
use crate::tunnel::{Baggage, Cut, Joined, PeerRevoked};
use crate::world::{self, JudgementChanges, World};

/// A connection that arrived for the workload, however it came.
pub(super) struct Arrival {
    pub(super) workload: Arc<Workload>,
    /// Proven by mutual TLS.
    pub(super) client: Option<Identity>,
    /// The peer on the wire.
    pub(super) peer: SocketAddr,
    /// The workload's own address and port.
    pub(super) destination: SocketAddr,
    /// The service that the tunnel's request named.
    pub(super) forwarded_host: Option<Str>,
    /// What a client's proxy says of a client that the mesh does not know; for labels.
    pub(super) baggage: Option<Box<Baggage>>,
    /// The server that the client asks for in TLS, where policies need to know ([`Connection::server_name`]).
    pub(super) server_name: Option<Str>,
    /// From a workload of this node, without a tunnel.
    pub(super) in_process: bool,
    pub(super) cut: Cut,
}

/// What becomes of an arrival.
pub(super) enum Judgement {
    /// Each request must be judged, by the worker of this namespace. With what its bytes are counted by.
    Guard(Str, Option<Meter>),
    /// With what tells when this must be judged anew, and what its bytes are counted by.
    Permit(Permit, JudgementChanges, Option<Meter>),
    /// Not, or not before the server's name is known.
    Deny(Denial),
    /// A limit of connections is reached, and which.
    Limit(String),
}

impl Arrival {
    /// The address to borrow towards the application, so that it sees its client.
    pub(super) fn borrow(&self) -> Option<IpAddr> {
        let client = self.peer.ip();
        (client.is_ipv4() == self.destination.is_ipv4()).then_some(client)
    }

    fn connection(&self) -> Connection<'_> {
        Connection {
            client: self.client.as_ref(),
            source: self.peer.ip(),
            destination: self.destination,
            server_name: self.server_name.as_deref(),
        }
    }
}

/// What guards connections like an arrival, in this world.
fn gate(
    world: &World,
    known: &Arc<Workload>,
    port: u16,
    host: Option<&str>,
    client: Option<&Identity>,
) -> Gate {
    // The arrival's own copy may be older than a change that it must be judged by.
    let workload = world.workload(&known.uid).unwrap_or(known);
    let addressed = gate::addressed(world, workload, port, host, client);
    Gate::new(world, workload, port, &addressed)
}

impl Proxy {
    /// Refuses what could not be a destination: another workload's address, or a port of the agent itself.
    pub(super) fn own_destination(
        &self,
        workload: &Workload,
        to: SocketAddr,
    ) -> Result<(), String> {
        if !workload.addresses.contains(&to.ip()) {
            return Err(format!("{to} is not an address of {}", workload.key));
        }
        if ports::ILLEGAL.contains(&to.port()) {
            return Err(format!("port {} is the agent's own", to.port()));
        }
        Ok(())
    }

    pub(super) fn judge(&self, arrival: &Arrival) -> Judgement {
        // Before the world is read: what changes after it wakes the connection.
        let changes = self.changes(arrival);
        let (gate, connection) = (self.gate(arrival), arrival.connection());
        let guards = gate.needs_http() && !gate.refuses_plaintext(&connection);
        let permit = match guards {
            true => None,
            false => match gate.decide(&connection, None) {
                Ok(permit) => Some(permit),
                Err(denial) => return Judgement::Deny(denial),
            },
        };
        // What is not permitted takes nothing from those that are.
        let Opened { refused, notes, counted, meter } = gate.begin(&connection, &arrival.workload);
        if counted {
            let metrics = &self.shared.telemetry.rate_limits().connections;
            let outcome = if refused.is_some() { &metrics.over_limit } else { &metrics.ok };
            outcome.inc();
        }
        match (refused, permit) {
            (Some(why), _) => Judgement::Limit(why),
            (None, Some(mut permit)) => {
                permit.notes.extend(notes);
                Judgement::Permit(permit, changes, meter)
            }
            (None, None) => Judgement::Guard(gate.worker().clone(), meter),
        }
    }

    /// Tells when arrivals like this one are judged otherwise.
    fn changes(&self, arrival: &Arrival) -> JudgementChanges {
        let (port, host) = (arrival.destination.port(), arrival.forwarded_host.as_ref());
        let class = ArrivalClass::of(port, host, arrival.client.as_ref());
        self.arrived.changes(class, || {
            let (workload, port) = (arrival.workload.clone(), arrival.destination.port());
            let (host, client) = (arrival.forwarded_host.clone(), arrival.client.clone());
            move |world| gate(world, &workload, port, host.as_deref(), client.as_ref())
        })
    }

    fn gate(&self, arrival: &Arrival) -> Gate {
        let (client, port) = (arrival.client.as_ref(), arrival.destination.port());
        let host = arrival.forwarded_host.as_deref();
        gate(&self.shared.world.load(), &arrival.workload, port, host, client)
    }

    /// Connects to the application with the client's address where the kernel lets us.
    pub(super) fn connect_application(
        &self,
        arrival: &Arrival,
    ) -> impl Future<Output = io::Result<TcpStream>> {
        let timeout = self.shared.settings.connect_timeout;
        let (sockets, to) = (self.sockets.as_ref(), arrival.destination);
        reach::connect_application(sockets, to, arrival.borrow(), timeout)
    }

    /// Copies until both sides have ended, or until a change of policy no longer permits the connection.
    pub(super) async fn relay<D: Duplex>(
        &self,
        arrival: &Arrival,
        downstream: D,
        application: TcpStream,
        mut record: ConnectionRecord,
        changes: JudgementChanges,
    ) {
        let (reason, why) = tokio::select! {
            biased;
            // First, since the tunnel breaks in the same moment.
            () = arrival.cut.revoked() => {
                let (reason, why) = arrival.cut.reason();
                (reason, why.to_owned())
            }
            copied = sock::copy_bidirectional(downstream, application, &record) => {
                finish(copied, &mut record);
                return;
            }
            denial = self.until_denied(arrival, changes) => {
                (Reason::Denied, cut_after_a_change(&denial.why))
            }
        };
        record.fail(reason, why);
    }

    /// Stands by while the client's side carries the bytes, until a change of policy no longer permits it.
    pub(super) async fn keep(
        &self,
        arrival: &Arrival,
        mut joined: Joined,
        changes: JudgementChanges,
    ) {
        let denied = tokio::select! {
            () = joined.ended() => return,
            denial = self.until_denied(arrival, changes) => denial,
        };
        joined.cut(Reason::Denied, cut_after_a_change(&denied.why)).await;
    }

    /// Judges the live connection anew after each change of how arrivals like it are judged; returns when it is no longer
    /// permitted.
    async fn until_denied(&self, arrival: &Arrival, mut changes: JudgementChanges) -> Denial {
        loop {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            // It leaves, and by the drain's deadline so will the connection (`Proxy::stop`), which was permitted by all
            // that was known of the workload while it was there.
            if self.workload().is_none() {
                continue;
            }
            let gate = self.gate(arrival);
            match gate.decide(&arrival.connection(), None) {
                Err(denial) => return denial,
                // No filter sees what is carried here: its requests are not parsed.
                Ok(permit) if permit.filtered.is_some() && gate.needs_http() => {
                    let why = "a filter of a TrafficPolicy runs here from now on, so requests must be parsed; connecting \
                               again is permitted";
                    return Denial::new(why);
                }
                Ok(_) => {}
            }
        }
    }

    pub(super) fn start_of_arrival(
        &self,
        arrival: &Arrival,
        permit: Option<Permit>,
    ) -> ConnectionStart {
        let (waypoint, policy, notes) =
            permit.map(|it| (it.waypoint, it.policy, it.notes)).unwrap_or_default();
        let cluster = &self.shared.cluster;
        let world = self.shared.world.load();
        let source = world.source_at(arrival.peer.ip(), arrival.client.as_ref());
        let client = arrival.client.as_ref().map(|client| client.namespace.as_str());
        let host = arrival.forwarded_host.as_deref();
        let service = host.and_then(|host| world.service_named(host, client));
        let tunnelled = arrival.client.is_some();
        let own = tunnelled.then_some(&arrival.workload.identity);
        let wire_port = if tunnelled { ports::HBONE } else { arrival.destination.port() };
        ConnectionStart {
            reporter: Reporter::Destination,
            source: match (&arrival.client, &arrival.baggage) {
                (Some(client), Some(baggage)) => baggage.peer(client),
                (client, _) => world::labels_of(source, client.as_ref(), cluster),
            },
            destination: world::labels_of(Some(&arrival.workload), own, cluster),
            service: service.map(|service| world::service_labels(service)).unwrap_or_default(),
            mutual_tls: tunnelled,
            source_address: arrival.peer,
            destination_address: SocketAddr::new(arrival.destination.ip(), wire_port),
            dialled: arrival.destination,
            hbone_authority: tunnelled.then_some(arrival.destination),
            server_name: arrival.server_name.clone().filter(|name| !name.is_empty()),
            waypoint_principal: waypoint.map(|waypoint| Str::from(waypoint.to_string())),
            policy,
            notes,
            in_process: arrival.in_process,
            rules: world.rules(Kind::Server, &arrival.workload, service.map(|it| &it.key)),
        }
    }

    pub(super) fn deny_arrival(&self, arrival: &Arrival, denial: Denial) {
        let start = ConnectionStart {
            policy: denial.policy,
            notes: denial.notes,
            ..self.start_of_arrival(arrival, None)
        };
        self.shared.telemetry.refused(start, Reason::Denied, &denial.why);
    }

    pub(super) fn refuse_arrival(&self, arrival: &Arrival, reason: Reason, why: &str) {
        self.shared.telemetry.refused(self.start_of_arrival(arrival, None), reason, why);
    }
}

/// Records how a copy ended.
pub(super) fn finish(copied: Result<(), sock::CopyError>, record: &mut ConnectionRecord) {
    if let Err(error) = copied {
        let reason = if is_revoked(&error) { Reason::CertRevoked } else { Reason::PeerReset };
        record.fail(reason, error.to_string());
    }
}

/// The tunnel was cut because its server's certificate is revoked.
fn is_revoked(error: &sock::CopyError) -> bool {
    error.source.get_ref().is_some_and(|cause| cause.is::<PeerRevoked>())
}
