//! Connections that turned out not to be HTTP: carried as bytes, as layer 4 would, by either half.

use std::net::SocketAddr;
use std::sync::Arc;

use super::forward::MAX_ATTEMPTS;
use super::outbound::Outbound;
use super::{peers, respond::Answer};
use crate::balance::{self, Picked};
use crate::base::{PolicyNote, Reason, ports};
use crate::model::{Binding, Service};
use crate::policy::{self, Connection, Denial, Gate, Permit, Way};
use crate::sock::{self, CopyError, Rewind};
use crate::telemetry::{ConnectionRecord, ConnectionStart, Reporter};
use crate::tunnel::Carrier;
use crate::world::{JudgementChanges, World};

/// An endpoint that took the connection.
struct Reached {
    picked: Picked,
    upstream: Carrier,
    /// Where this half judged.
    permit: Option<Permit>,
}

/// Why no endpoint did.
struct Unreached {
    picked: Option<Picked>,
    answer: Answer,
    notes: Vec<PolicyNote>,
}

impl From<Answer> for Unreached {
    fn from(answer: Answer) -> Self {
        Self { picked: None, answer, notes: Vec::new() }
    }
}

/// The client's half: to an endpoint of the addressed service. HTTPRoutes do not apply to bytes.
pub(super) async fn carry(session: &Outbound, stream: Rewind<Carrier>) {
    let dependencies = &session.context.dependencies;
    let _busy = session.seat.carries_bytes();
    match reach(session).await {
        Ok(Reached { picked, upstream, permit }) => {
            let in_process = upstream.is_local();
            let (policy, notes) = permit.map(|it| (it.policy, it.notes)).unwrap_or_default();
            let start =
                ConnectionStart { in_process, policy, notes, ..start(session, Some(&picked)) };
            let mut record = dependencies.telemetry.connection(start);
            let copied = tokio::select! {
                copied = copy(stream, upstream, &record) => copied,
                denied = until_denied(session, &picked) => {
                    return record.fail(denied.reason, format!("cut after a change: {}", denied.why));
                }
            };
            finish(copied, &mut record);
        }
        Err(Unreached { picked, answer, notes }) => {
            let start = ConnectionStart { notes, ..start(session, picked.as_ref()) };
            dependencies.telemetry.refused(start, answer.reason, &answer.why);
        }
    }
}

/// Tries endpoints until one takes the connection; no byte of the client was sent yet, so this is safe.
async fn reach(session: &Outbound) -> Result<Reached, Unreached> {
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut failure = None;
    for _ in 0..MAX_ATTEMPTS {
        let service = addressed(session)?;
        let resolved = session.resolve(&service).await?;
        let Some((picked, permit)) = choose(session, &resolved, &tried)? else { break };
        match session.dial(&service, &picked).await {
            Ok(upstream) => return Ok(Reached { picked, upstream, permit }),
            Err(error) => {
                tried.push(picked.address);
                let answer = Answer::unreachable(error.reason(), error.to_string());
                let notes = permit.map(|it| it.notes).unwrap_or_default();
                // The destination has decided: another endpoint of the service would decide alike.
                let decided = answer.reason == Reason::Denied;
                let unreached = Unreached { picked: Some(picked), answer, notes };
                if decided {
                    return Err(unreached);
                }
                failure = Some(unreached);
            }
        }
    }
    Err(failure.unwrap_or_else(|| {
        let (service, port) = (&session.service, session.dialled.port());
        let why = format!("Service {service} has no ready endpoint on port {port}");
        Answer::no_healthy_upstream(why).into()
    }))
}

/// The service that the client addressed, as it is now.
fn addressed(session: &Outbound) -> Result<Arc<Service>, Answer> {
    let world = session.context.dependencies.world.load();
    let Some(service) = world.service(&session.service) else {
        let why = format!("Service {} does not exist any more", session.service);
        return Err(Answer::no_healthy_upstream(why));
    };
    if let Binding::Unusable { waypoint, why } = &service.waypoint {
        return Err(Answer::waypoint_unusable(format!("waypoint {waypoint}: {why}")));
    }
    Ok(service.clone())
}

/// An endpoint, with the leave to connect as far as this half must decide that.
fn choose(
    session: &Outbound,
    service: &Service,
    tried: &[SocketAddr],
) -> Result<Option<(Picked, Option<Permit>)>, Unreached> {
    let world = session.context.dependencies.world.load();
    let port = session.dialled.port();
    let picked = balance::pick(&world, service, port, session.caller(), session.dialled, tried)
        .filter(|picked| !tried.contains(&picked.address));
    let Some(picked) = picked else { return Ok(None) };
    let (client, tunnelled) =
        (&session.client.key, peers::captured(picked.workload.as_ref()).is_some());
    if let Some(why) = policy::refused_in_the_clear(service, port, &client.namespace, tunnelled) {
        return Err(Answer::in_the_clear(why).into());
    }
    match permit(session, &world, service, &picked) {
        Ok(permit) => Ok(Some((picked, permit))),
        Err(denial) => Err(Unreached {
            picked: Some(picked),
            answer: Answer::denied(denial.why),
            notes: denial.notes,
        }),
    }
}

/// A destination in the mesh judges for itself; for one that is not, this half judges.
fn permit(
    session: &Outbound,
    world: &World,
    service: &Service,
    picked: &Picked,
) -> Result<Option<Permit>, Denial> {
    if peers::captured(picked.workload.as_ref()).is_some() {
        return Ok(None);
    }
    let connection = Connection {
        client: Some(&session.client.identity),
        source: session.client_address.ip(),
        destination: picked.address,
    };
    let port = session.dialled.port();
    let way = Way {
        addressed: service,
        port,
        route: None,
        backend: (service, port),
        workload: picked.workload.as_deref(),
        destination: picked.address,
    };
    Gate::for_uncaptured(world, &way).authorize(&connection, None).map(Some)
}

/// Tells when connections like this one are judged otherwise.
fn changes(session: &Outbound, picked: &Picked) -> JudgementChanges {
    let uid = picked.workload.as_ref().map(|workload| workload.uid.clone());
    let port = session.dialled.port();
    let class = (session.service.clone(), port, uid, picked.address);
    session.context.left.changes(class, || {
        let (service, workload) = (session.service.clone(), picked.workload.clone());
        let destination = picked.address;
        move |world: &World| {
            let service = world.service(&service)?;
            let way = Way {
                addressed: service,
                port,
                route: None,
                backend: (service, port),
                workload: workload.as_deref(),
                destination,
            };
            Some(Gate::for_uncaptured(world, &way))
        }
    })
}

/// Judges the live connection anew after each change of what guards the service; returns when it is no longer
/// permitted, and never for a destination that judges for itself.
async fn until_denied(session: &Outbound, picked: &Picked) -> Answer {
    if peers::captured(picked.workload.as_ref()).is_some() {
        return std::future::pending().await;
    }
    let store = &session.context.dependencies.world;
    let mut changes = changes(session, picked);
    loop {
        // First of all: the mesh may have changed since the connection was permitted.
        let permitted = addressed(session).and_then(|it| {
            let permitted = permit(session, &store.load(), &it, picked);
            permitted.map_err(|denial| Answer::denied(denial.why))
        });
        if let Err(denied) = permitted {
            return denied;
        }
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn start(session: &Outbound, picked: Option<&Picked>) -> ConnectionStart {
    let world = session.context.dependencies.world.load();
    let endpoint = picked.and_then(|picked| picked.workload.as_ref());
    let tunnelled = peers::captured(endpoint).is_some();
    let address = picked.map_or(session.dialled, |picked| picked.address);
    let wire_port = if tunnelled { ports::HBONE } else { address.port() };
    ConnectionStart {
        reporter: Reporter::Source,
        source: (*session.source).clone(),
        destination: (*session.context.peers.destination(&world, endpoint)).clone(),
        service: (*session.labels).clone(),
        mutual_tls: tunnelled,
        source_address: session.client_address,
        destination_address: SocketAddr::new(address.ip(), wire_port),
        dialled: session.dialled,
        hbone_authority: tunnelled.then_some(address),
        waypoint_principal: None,
        policy: None,
        notes: Vec::new(),
        in_process: false,
    }
}

/// Copies both directions, counted in the record.
pub(super) async fn copy(
    downstream: Rewind<Carrier>,
    upstream: Carrier,
    record: &ConnectionRecord,
) -> Result<(), CopyError> {
    sock::copy_bidirectional(downstream, upstream, record).await
}

/// Records how a copy ended.
pub(super) fn finish(copied: Result<(), CopyError>, record: &mut ConnectionRecord) {
    if let Err(error) = copied {
        record.fail(Reason::PeerReset, error.to_string());
    }
}
