//! Policies for destinations without an agent: this half evaluates them, before it connects and while the connection lasts.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use super::direct::direct;
use super::led::{self, judge_lent};
use super::{Ask, Asked, Downstream, Failure, Lent, Reach};
use crate::balance::Picked;
use crate::base::{ObjectKey, Reason, Str};
use crate::gate::{self, Gate, Permit, Views, Way};
use crate::model::Workload;
use crate::policy::Denial;
use crate::route::{self, Decision};
use crate::tls::Origin;
use crate::world::{Classed, JudgementChanges, World};

/// The properties by which open connections to services are evaluated differently.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LeavingClass {
    service: ObjectKey,
    port: u16,
    /// The subset that a route has led to.
    subset: Option<Str>,
    /// The client, which may come under REGISTRY_ONLY.
    client: Str,
    /// Whose clients' traffic an object may want encrypted.
    namespace: Str,
    /// Where the client dialled, if a route led on from there.
    routed: Option<SocketAddr>,
    /// The TLS to the application that the connections are under.
    tls: Option<Under>,
    /// The destination's workload and address; `None` where its own agent judges, and nobody else.
    place: Option<(Option<Str>, SocketAddr)>,
    tunnelled: bool,
    /// The route that leads there in the client's name.
    lent: Option<Lent>,
}

/// A local client with open connections to what no service had. Where it dialled counts under REGISTRY_ONLY alone, so that all
/// others share one class.
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
    /// The client is under REGISTRY_ONLY.
    bound: bool,
    /// What it dialled is in the registry no more, if it is bound and a route led on from there.
    strayed: bool,
    unencrypted: Option<String>,
    gate: Option<Gate>,
    /// What judges the name in which a route leads there.
    lent: Option<Gate>,
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

/// Why bytes may no longer be sent to an endpoint of the service, as it is now, because an object wants them encrypted.
fn unencrypted(
    world: &World,
    service: &ObjectKey,
    port: (u16, Option<&str>),
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
        loop {
            // At once: the mesh may have changed since the connection was permitted.
            if let Err(failure) = self.permitted(from, ask, to, tls) {
                return failure;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when a client may no longer be connected to an address that no service has.
    pub async fn until_unregistered(&self, client: &Workload, dialled: SocketAddr) -> Failure {
        let mut bound = client.registry_only;
        let mut changes = self.outbound_changes(client, bound.then_some(dialled));
        loop {
            let is_bound = {
                let world = self.world.load();
                if let Some(why) = unregistered(&world, &client.uid, dialled) {
                    return Failure::new(Reason::NotRegistered, why);
                }
                is_bound(&world, &client.uid)
            };
            if is_bound != bound {
                // It is in another class now, which must not miss what changes meanwhile.
                bound = is_bound;
                changes = self.outbound_changes(client, bound.then_some(dialled));
                continue;
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
                None => is_bound(world, &uid),
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
        if let Some(why) =
            unencrypted(&world, key, (ask.port(), ask.subset), namespace, tunnelled, tls)
        {
            return Err(Failure::new(Reason::Unencrypted, why));
        }
        if tunnelled && ask.lent.is_none() {
            return Ok(());
        }
        let service = self.asked(ask)?;
        if let Err(denial) = judge_lent(&world, from, ask, &service, to) {
            return Err(Failure::new(Reason::Denied, denial.why));
        }
        if tunnelled {
            return Ok(());
        }
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
        let tunnelled = to.captured().is_some();
        let class = LeavingClass {
            service: ask.service.key().clone(),
            port: ask.port(),
            subset: ask.subset.map(Str::from),
            client: from.client.uid.clone(),
            namespace: from.client.key.namespace.clone(),
            routed: ask.routed(),
            tls: tls.cloned().map(Under),
            place: (!tunnelled || ask.lent.is_some()).then(|| (workload(), to.address)),
            tunnelled,
            lent: ask.lent.cloned(),
        };
        self.left.changes(class.clone(), || {
            let workload = to.workload.clone();
            move |world: &World| class.judge(world, workload.as_ref())
        })
    }
}

impl LeavingClass {
    /// `workload`: what was known to be at the destination.
    fn judge(&self, world: &World, workload: Option<&Arc<Workload>>) -> Leaving {
        let Self { service, port, subset, client, namespace, routed, tls, place, tunnelled, lent } =
            self;
        let place = place.as_ref().map(|(_, address)| *address);
        let unguarded = place.filter(|_| !tunnelled);
        let bound = is_bound(world, client);
        let strayed = routed.filter(|_| bound).and_then(|it| unregistered(world, client, it));
        let service = world.service(service);
        let tls = tls.as_ref().map(|Under(origin)| origin);
        let leads = |address: SocketAddr| Picked::dialled(address, workload.cloned());
        Leaving {
            registered: service.is_some_and(|it| {
                let address = unguarded.map(|address| address.ip());
                it.port(*port).is_some() && it.is_meant(address, namespace)
            }),
            bound,
            strayed: strayed.is_some(),
            unencrypted: {
                let port = (*port, subset.as_deref());
                unencrypted(world, &self.service, port, namespace, *tunnelled, tls)
            },
            gate: service.zip(unguarded).map(|(service, address)| {
                Gate::for_uncaptured(world, &direct(service, *port, &leads(address)))
            }),
            lent: service
                .zip(place)
                .filter(|_| lent.is_some())
                .map(|(service, address)| led::gate(world, service, *port, &leads(address))),
        }
    }
}

/// Whether the client may reach the registry only, as it is now.
fn is_bound(world: &World, client: &str) -> bool {
    world.workload(client).is_some_and(|it| it.registry_only)
}
