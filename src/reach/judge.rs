//! Policies for destinations without an agent: this half evaluates them, before it connects and while the connection lasts.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Ask, Asked, Downstream, Failure, Reach};
use crate::balance::Picked;
use crate::base::{ObjectKey, Reason, Str};
use crate::gate::{self, Gate, Permit, Views, Way};
use crate::model::{Service, Workload};
use crate::policy::Denial;
use crate::route::{self, Decision};
use crate::tls::Origin;
use crate::world::{Classed, JudgementChanges, World};

/// The properties by which open connections to services are evaluated differently.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LeavingClass {
    service: ObjectKey,
    port: u16,
    /// Whose clients' traffic an object may want encrypted.
    namespace: Str,
    /// The TLS to the application that the connections are under.
    tls: Option<Under>,
    /// The destination's workload and address; `None` where its own agent judges.
    unguarded: Option<(Option<Str>, SocketAddr)>,
}

/// A local client with open connections, and where it dialled if no service of its own class tells of that: a route led on from
/// there, or no service had the address.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct OutboundClass {
    client: Str,
    namespace: Str,
    dialled: Option<SocketAddr>,
}

impl Classed for OutboundClass {
    fn tenant(&self) -> &str {
        &self.namespace
    }
}

/// TLS as an object demands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Under(Arc<Origin>);

impl Hash for Under {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.settings().by.hash(state);
    }
}

/// How connections of a class are judged.
#[derive(PartialEq)]
pub(super) struct Leaving {
    /// The service, as the client sees it, has the port, and the address where that is the endpoint.
    registered: bool,
    unencrypted: Option<String>,
    gate: Option<Gate>,
}

impl Classed for LeavingClass {
    fn tenant(&self) -> &str {
        &self.service.namespace
    }
}

/// Evaluates the waypoints' policies for a destination that is not captured. `None` for one that is: its own agent evaluates
/// them.
/// `views`: the request, where there is one.
pub fn judge(
    world: &World,
    from: &Downstream<'_>,
    way: &Way<'_>,
    views: Option<Views<'_>>,
) -> Result<Option<Permit>, Denial> {
    let Some(gate) = gate(world, way) else { return Ok(None) };
    gate.decide_views(&from.connection(way.destination), views).map(Some)
}

/// The same for bytes to an endpoint of the requested service. `None` also for a connection of layer 4 that no waypoint
/// guards: it continues even after the service is gone.
pub(super) fn judge_bytes(
    world: &World,
    from: &Downstream<'_>,
    ask: &Ask<'_>,
    way: &Way<'_>,
) -> Result<Option<Permit>, Denial> {
    let counts = |gate: &Gate| gate.is_guarded() || matches!(ask.service, Asked::Present(_));
    let Some(gate) = gate(world, way).filter(counts) else { return Ok(None) };
    gate.decide(&from.connection(way.destination), None).map(Some)
}

fn gate(world: &World, way: &Way<'_>) -> Option<Gate> {
    let captured = way.workload.is_some_and(Workload::is_captured);
    (!captured).then(|| Gate::for_uncaptured(world, way))
}

/// The log's text for a connection that is no longer permitted.
pub fn cut_after_a_change(why: &str) -> String {
    format!("cut after a change: {why}")
}

/// The way to an endpoint of the service that was dialled, which no route changes.
pub fn direct<'a>(service: &'a Service, port: u16, to: &'a Picked) -> Way<'a> {
    Way {
        addressed: service,
        port,
        route: None,
        delegate: None,
        backend: (service, port),
        workload: to.workload.as_deref(),
        destination: to.address,
    }
}

/// Why bytes may no longer be sent to an endpoint of the service, as it is now, because an object wants them encrypted.
fn unencrypted(
    world: &World,
    service: &ObjectKey,
    port: u16,
    namespace: &str,
    tunnelled: bool,
    tls: Option<&Arc<Origin>>,
) -> Option<String> {
    gate::refused_as_it_is(world.service(service)?, port, namespace, tunnelled, tls)
}

/// Why a client may not connect any more to what it dialled: nothing of the registry that it sees is there any more, and it may
/// reach the registry only (`outboundTrafficPolicy`).
pub fn unregistered(world: &World, client: &str, dialled: SocketAddr) -> Option<String> {
    let client = world.workload(client).filter(|client| client.registry_only)?;
    match route::decide(world, client, dialled) {
        Decision::Refuse { reason: Reason::NotRegistered, why } => Some(why),
        _ => None,
    }
}

impl Reach {
    /// Judges a live connection again after each change of what guards the service or of what is wanted encrypted. Returns
    /// when it is no longer permitted. Policies of a destination that judges for itself are left to it.
    pub async fn until_denied(
        &self,
        from: &Downstream<'_>,
        ask: &Ask<'_>,
        (to, tls): (&Picked, Option<&Arc<Origin>>),
    ) -> Failure {
        let mut changes = self.changes(from, ask, to, tls);
        let mut outbound = self.outbound_changes(from.client, ask.routed());
        loop {
            // At once: the mesh may have changed since the connection was permitted.
            if let Err(failure) = self.permitted(from, ask, to, tls) {
                return failure;
            }
            let changed = tokio::select! {
                changed = changes.changed() => changed,
                changed = outbound.changed() => changed,
            };
            if changed.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when a client may no longer be connected to an address that no service has.
    pub async fn until_unregistered(&self, client: &Workload, dialled: SocketAddr) -> Failure {
        let mut changes = self.outbound_changes(client, Some(dialled));
        loop {
            if let Some(why) = unregistered(&self.world.load(), &client.uid, dialled) {
                return Failure::new(Reason::NotRegistered, why);
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Tells when the client's `outboundTrafficPolicy` is another one; and of an address that it dialled, when that is in the
    /// registry no more. An address that no service had may have come into the registry meanwhile.
    fn outbound_changes(&self, client: &Workload, dialled: Option<SocketAddr>) -> JudgementChanges {
        let (uid, namespace) = (client.uid.clone(), client.key.namespace.clone());
        let class = OutboundClass { client: uid.clone(), namespace, dialled };
        self.outbound.changes(class, || {
            move |world: &World| match dialled {
                Some(dialled) => unregistered(world, &uid, dialled).is_some(),
                None => world.workload(&uid).is_some_and(|it| it.registry_only),
            }
        })
    }

    fn permitted(
        &self,
        from: &Downstream<'_>,
        ask: &Ask<'_>,
        to: &Picked,
        tls: Option<&Arc<Origin>>,
    ) -> Result<(), Failure> {
        let world = self.world.load();
        let (namespace, tunnelled) = (&from.client.key.namespace, to.captured().is_some());
        let key = ask.service.key();
        let dialled = ask.routed().unwrap_or(ask.dialled);
        if let Some(why) = unregistered(&world, &from.client.uid, dialled) {
            return Err(Failure::new(Reason::NotRegistered, why));
        }
        if let Some(why) = unencrypted(&world, key, ask.port(), namespace, tunnelled, tls) {
            return Err(Failure::new(Reason::Unencrypted, why));
        }
        if tunnelled {
            return Ok(());
        }
        let service = self.asked(ask)?;
        match judge_bytes(&world, from, ask, &direct(&service, ask.port(), to)) {
            Ok(_) => Ok(()),
            Err(denial) => Err(Failure::new(Reason::Denied, denial.why)),
        }
    }

    /// Tells when connections like this one are judged otherwise.
    fn changes(
        &self,
        from: &Downstream<'_>,
        ask: &Ask<'_>,
        to: &Picked,
        tls: Option<&Arc<Origin>>,
    ) -> JudgementChanges {
        let workload = || to.workload.as_ref().map(|workload| workload.uid.clone());
        let class = LeavingClass {
            service: ask.service.key().clone(),
            port: ask.port(),
            namespace: from.client.key.namespace.clone(),
            tls: tls.cloned().map(Under),
            unguarded: to.captured().is_none().then(|| (workload(), to.address)),
        };
        self.left.changes(class.clone(), || {
            let workload = to.workload.clone();
            let LeavingClass { service, port, namespace, tls, unguarded } = class;
            move |world: &World| {
                let tunnelled = unguarded.is_none();
                let address = unguarded.as_ref().map(|(_, address)| address.ip());
                let registered = world
                    .service(&service)
                    .is_some_and(|it| it.port(port).is_some() && it.is_meant(address, &namespace));
                let tls = tls.as_ref().map(|Under(origin)| origin);
                let unencrypted = unencrypted(world, &service, port, &namespace, tunnelled, tls);
                let addressed = world.service(&service).zip(unguarded.as_ref());
                let gate = addressed.map(|(addressed, (_, address))| {
                    let to = Picked::dialled(*address, workload.clone());
                    Gate::for_uncaptured(world, &direct(addressed, port, &to))
                });
                Leaving { registered, unencrypted, gate }
            }
        })
    }
}
