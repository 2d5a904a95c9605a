//! Authorization: may this connection, or this request, reach this workload? A [`Gate`] is everything that applies to one
//! inbound connection, gathered once per snapshot; it gives a [`Permit`] or a [`Denial`]. `l4` asks it for connections and `l7`
//! for requests. What policies mean is [`crate::policy`]'s.
//!
//! What guards a workload is what its own namespace says ([`speaks_for`]): a service of it that was addressed, or all of them
//! that lead to the port. A service of another namespace that was addressed adds its restrictions to that, for the traffic
//! that came by it; it takes nothing away, lends nothing, and chooses no worker.

mod addressed;
mod class;
mod decide;
mod encrypted;
mod home;
mod permit;
#[cfg(test)]
mod tests;

pub use addressed::{Addressed, addressed};
pub use class::ArrivalClass;
pub use encrypted::{encryption, refused_as_it_is};
pub use home::home;
pub use permit::{Ask, Filtered, Permit, Providers, Views, Way, Whose};

use std::sync::Arc;

use crate::base::{ObjectKey, Str};
use crate::filter::{self, Cx, Half, HttpFilter, Opened, TcpRateLimit};
use crate::jwt::KeyRing;
use crate::model::{AppProtocol, Binding, Mode, Served, Service, Waypoint, Workload};
use crate::policy::{Connection, Guard, PolicySet, Ways, speaks_for};
use crate::trace::Kind;
use crate::world::World;

/// All that applies to one inbound connection, from one snapshot.
#[derive(Clone, Debug)]
pub struct Gate {
    /// PeerAuthentication wants mutual TLS on this port.
    strict: bool,
    /// Why nothing may pass: what guards the workload cannot be known.
    closed: Option<String>,
    /// The policies of the waypoints that guard the destination; each set must permit. No set is empty, none stands twice.
    waypoint_sets: Vec<Guard>,
    /// The same of a service that was addressed and does not speak for the destination.
    restrictions: Vec<Guard>,
    /// The service that was addressed speaks for the destination.
    speaks: bool,
    /// A waypoint is named somewhere, whether it can be used or not.
    guarded: bool,
    /// The workload's own.
    own: Option<Arc<PolicySet>>,
    service: Option<Arc<Service>>,
    /// The waypoint that was addressed: whoever passes its policies carries its principal too.
    waypoint: Option<Arc<Waypoint>>,
    /// Some waypoint that guards the workload has its applications told who the client is.
    names_clients: bool,
    /// Services that guard this and have filters for the destination.
    filtered: Option<Arc<[Filtered]>>,
    /// What counts the connections and bytes of services that lead here, by the service. Settled when a connection begins.
    streams: Vec<(ObjectKey, TcpRateLimit)>,
    needs_http: bool,
    worker: Str,
    /// By which tokens are judged.
    keys: Arc<KeyRing>,
}

impl PartialEq for Gate {
    /// Both judge every open connection alike, and every request on it. How requests are parsed, and where, is settled when a
    /// connection begins.
    fn eq(&self, other: &Self) -> bool {
        let Self {
            strict,
            closed,
            waypoint_sets,
            restrictions,
            speaks,
            guarded,
            own,
            service: _,
            waypoint,
            names_clients,
            filtered,
            streams: _,
            needs_http: _,
            worker: _,
            keys: _,
        } = self;
        let identity = |it: &Arc<Waypoint>| it.identity.clone();
        *strict == other.strict
            && *closed == other.closed
            && (*speaks, *guarded) == (other.speaks, other.guarded)
            && *names_clients == other.names_clients
            && *filtered == other.filtered
            && same(waypoint_sets, &other.waypoint_sets)
            && same(restrictions, &other.restrictions)
            && are_same(own.as_ref(), other.own.as_ref())
            && waypoint.as_ref().map(identity) == other.waypoint.as_ref().map(identity)
    }
}

/// A span is recorded of each request that came by the service's waypoint.
fn is_traced(world: &World, workload: &Workload, addressed: &Addressed) -> bool {
    addressed.service().is_some_and(|service| {
        service.waypoint.waypoint().is_some()
            && world.tracing(Kind::Server, workload, Some(&service.key)).is_some()
    })
}

fn same(one: &[Guard], two: &[Guard]) -> bool {
    one.len() == two.len() && one.iter().zip(two).all(|(one, two)| one.is_same(two))
}

/// Worlds share what did not change.
fn are_same(one: Option<&Arc<PolicySet>>, two: Option<&Arc<PolicySet>>) -> bool {
    match (one, two) {
        (Some(one), Some(two)) => Arc::ptr_eq(one, two) || one == two,
        (one, two) => one.is_none() && two.is_none(),
    }
}

impl Gate {
    /// `port`: the workload's own port. `addressed`: from [`addressed`]. The workload may be an older world's:
    /// what `world` says of it holds.
    pub fn new(world: &World, workload: &Arc<Workload>, port: u16, addressed: &Addressed) -> Self {
        let mut gate = Gate::open(world, &workload.key.namespace);
        let Some(workload) = world.workload(&workload.uid) else {
            let key = &workload.key;
            gate.closed =
                Some(format!("workload {key} is not in the mesh's present state (deleted?)"));
            return gate;
        };
        gate.strict = workload.peer_authentication.mode_of(port) == Mode::Strict;
        gate.own = world.workload_policies(&workload.uid).filter(|own| !own.is_empty()).cloned();
        gate.own.iter().for_each(|own| own.prepare());
        let namespace = &workload.key.namespace;
        let ways = || addressed.ways(world, workload, port);
        let parse = match addressed {
            Addressed::Service(Served { service, .. })
            | Addressed::Route { service, verified: true, .. }
                if speaks_for(&service.key, None, namespace) =>
            {
                gate.add_addressed_service(world, service, &ways);
                matches!(addressed, Addressed::Route { .. })
            }
            Addressed::Service(Served { service, .. }) => {
                gate.add_stranger(world, service, &ways, workload, port)
            }
            // A claim that nobody checked adds policies and takes none away.
            Addressed::Route { service, .. } => {
                if speaks_for(&service.key, None, namespace) {
                    gate.service = Some(service.clone());
                    gate.speaks = true;
                    gate.add_service(world, service, &ways);
                    gate.add_unaddressed(world, workload, port);
                } else {
                    gate.add_stranger(world, service, &ways, workload, port);
                }
                gate.sets().next().is_some()
            }
            Addressed::Workload => {
                gate.add_unaddressed(world, workload, port);
                gate.waypoint.is_some()
            }
        };
        let wanted = parse
            || is_traced(world, workload, addressed)
            || gate.names_clients
            || gate.filtered.is_some()
            || gate.sets().any(|set| set.needs_http);
        gate.needs_http = wanted && may_be_http(world, workload, port);
        gate
    }

    /// What guards a service itself on the port that was dialled, for an answer that no endpoint gives.
    pub fn for_service(world: &World, service: &Service, port: u16) -> Self {
        let mut gate = Gate::open(world, &service.key.namespace);
        if let Some(service) = gate.present(world, service) {
            gate.add_addressed_service(world, service, &|| vec![served(service, port)]);
        }
        gate
    }

    /// The waypoints' part alone, for a destination where nobody judges: the client's half does it.
    pub fn for_uncaptured(world: &World, way: &Way<'_>) -> Self {
        let mut gate = Gate::open(world, &way.addressed.key.namespace);
        let (Some(addressed), Some(backend)) =
            (gate.present(world, way.addressed), gate.present(world, way.backend.0))
        else {
            return gate;
        };
        let dialled = || vec![served(addressed, way.port)];
        let to = way.destination;
        // From the node a virtual address leads past the mesh, and past what guards its Service.
        if let Some(service) = world.kubernetes_at(to.ip().to_canonical()) {
            gate.guarded = true;
            let why = format!("{to} is the virtual address of {service}, which is no endpoint");
            gate.closed.get_or_insert(why);
            return gate;
        }
        // An entry of one's own with an endpoint there is no way around the entry that everybody has for the address.
        let common = world.common_entry_at(to.ip(), to.port()).filter(|entry| {
            way.workload.is_none() && !speaks_for(&addressed.key, way.led(), &entry.key.namespace)
        });
        match way.workload {
            _ if common.is_none() && way.speaks() => {
                gate.add_addressed_service(world, addressed, &dialled);
            }
            Some(workload) => {
                gate.add_stranger(world, addressed, &dialled, workload, to.port());
            }
            None => {
                if !way.speaks() {
                    let ways = || vec![served(backend, way.backend.1)];
                    gate.add_service(world, backend, &ways);
                }
                if let Some(entry) = common {
                    gate.add_service(world, entry, &|| vec![served(entry, to.port())]);
                }
                gate.restrict(world, addressed, &dialled);
            }
        }
        let needs_http = gate.sets().any(|set| set.needs_http);
        gate.needs_http = needs_http;
        gate
    }

    /// The service as it is now; a gate for one that is gone is closed.
    fn present<'a>(&mut self, world: &'a World, service: &Service) -> Option<&'a Arc<Service>> {
        let present = world.service(&service.key);
        if present.is_none() {
            self.guarded |= service.waypoint != Binding::None;
            self.closed.get_or_insert(format!("{service} does not exist any more"));
        }
        present
    }

    fn open(world: &World, namespace: &Str) -> Self {
        Gate {
            strict: false,
            closed: None,
            waypoint_sets: Vec::new(),
            restrictions: Vec::new(),
            speaks: false,
            guarded: false,
            own: None,
            service: None,
            waypoint: None,
            names_clients: false,
            filtered: None,
            streams: Vec::new(),
            needs_http: false,
            worker: namespace.clone(),
            keys: world.keys.clone(),
        }
    }

    /// The service that was addressed, as far as its name counts here.
    pub fn service(&self) -> Option<&Arc<Service>> {
        self.service.as_ref()
    }

    /// The waypoint that was addressed, by its service or its workload.
    pub fn waypoint(&self) -> Option<&Arc<Waypoint>> {
        self.waypoint.as_ref()
    }

    /// Some policy looks at HTTP and the port may speak it: requests must be parsed.
    pub fn needs_http(&self) -> bool {
        self.needs_http
    }

    /// Applications are told who the client is, so that nobody but the agent may tell them: what is not HTTP may not
    /// pass where requests are parsed.
    pub fn names_clients(&self) -> bool {
        self.names_clients
    }

    /// The namespace whose worker parses.
    pub fn worker(&self) -> &Str {
        &self.worker
    }

    /// Some waypoint guards this, even if no policy is there yet.
    pub fn is_guarded(&self) -> bool {
        self.guarded
    }

    /// PeerAuthentication wants mutual TLS, which this client did not offer: whatever it sends is refused.
    pub fn refuses_plaintext(&self, connection: &Connection<'_>) -> bool {
        self.strict && connection.client.is_none()
    }

    fn sets(&self) -> impl Iterator<Item = &Arc<PolicySet>> {
        let guards = self.waypoint_sets.iter().chain(&self.restrictions);
        guards.map(|guard| &guard.set).chain(&self.own)
    }

    /// A service that does not speak for the workload was addressed. Whether requests are wanted for the workload's own
    /// waypoint.
    fn add_stranger(
        &mut self,
        world: &World,
        service: &Arc<Service>,
        ways: Ways<'_>,
        workload: &Workload,
        port: u16,
    ) -> bool {
        self.service = Some(service.clone());
        self.add_streams(service, ways);
        self.add_unaddressed(world, workload, port);
        self.restrict(world, service, ways);
        self.waypoint.is_some()
    }

    /// The policies of a service's waypoint, as restrictions.
    fn restrict(&mut self, world: &World, service: &Service, ways: Ways<'_>) {
        if let Some(waypoint) = self.resolve(world, &service.waypoint, "Service", &service.key) {
            let sets =
                [world.service_policies(&service.key), world.waypoint_policies(&waypoint.key)];
            for set in sets.into_iter().chain([canary_policies(world, service)]) {
                add(&mut self.restrictions, set, ways);
            }
            self.add_filtered(world, service, ways);
        }
    }

    fn add_addressed_service(&mut self, world: &World, service: &Arc<Service>, ways: Ways<'_>) {
        self.service = Some(service.clone());
        self.speaks = true;
        self.waypoint = self.add_service(world, service, ways).cloned();
    }

    /// The policies of a service's waypoint, when it has one. `ways`: the ports of it that may have been dialled.
    fn add_service<'a>(
        &mut self,
        world: &'a World,
        service: &Service,
        ways: Ways<'_>,
    ) -> Option<&'a Arc<Waypoint>> {
        self.add_streams(service, ways);
        let waypoint = self.resolve(world, &service.waypoint, "Service", &service.key)?;
        add(&mut self.waypoint_sets, world.service_policies(&service.key), ways);
        add(&mut self.waypoint_sets, canary_policies(world, service), ways);
        self.add_waypoint(world, waypoint, ways);
        self.add_filtered(world, service, ways);
        Some(waypoint)
    }

    /// What counts the connections to a service, waypoint or not.
    fn add_streams(&mut self, service: &Service, ways: Ways<'_>) {
        if service.filters.is_empty() && service.port_filters.is_empty() {
            return;
        }
        let ports = ways();
        let unknown = ports.is_empty().then_some(&service.filters[..]);
        let known = ports.iter().map(|way| service.filters_on(way.service_port));
        for filter in unknown.into_iter().chain(known).flatten() {
            let HttpFilter::TcpRateLimit(limit) = filter else { continue };
            if !self.streams.iter().any(|(key, it)| *key == service.key && it == limit) {
                self.streams.push((service.key.clone(), limit.clone()));
            }
        }
    }

    /// Counts a connection that begins, once it is permitted. Nothing is counted twice: not where requests are parsed either.
    pub fn begin(&self, connection: &Connection<'_>, workload: &Workload) -> Opened {
        let mut opened = Opened::default();
        for (service, limit) in &self.streams {
            let cx = Cx {
                port: connection.destination.port(),
                identity: connection.client,
                address: connection.source,
                service: Some(service),
                pod: &workload.uid,
                route: None,
                spread: None,
                claims: None,
                level: None,
            };
            limit.open(&cx, &mut opened);
        }
        opened
    }

    /// The ports of a service that has filters for the destination, itself or on rules of its own routes.
    fn add_filtered(&mut self, world: &World, service: &Service, ways: Ways<'_>) {
        let runs = |filters: &[HttpFilter]| filter::runs_on(filters, Half::Destination);
        let routes = || world.routes_from(&service.key.namespace, &service.key).iter();
        let mut rules = routes().flat_map(|route| &route.rules);
        let of_all = runs(&service.filters) || rules.any(|rule| runs(&rule.filters));
        if !of_all && service.port_filters.is_empty() {
            return;
        }
        let ports: Vec<u16> = ways().into_iter().map(|way| way.service_port).collect();
        if !of_all && !ports.iter().any(|port| runs(service.filters_on(*port))) {
            return;
        }
        let claims = |filters: &[HttpFilter]| filters.iter().any(HttpFilter::reads_claims);
        let reads_claims = claims(&service.filters)
            || service.port_filters.iter().any(|it| claims(&it.filters))
            || routes().flat_map(|route| &route.rules).any(|rule| claims(&rule.filters));
        let mut all: Vec<Filtered> = self.filtered.as_deref().unwrap_or_default().to_vec();
        match all.iter_mut().find(|known| known.service == service.key) {
            Some(known) => known.ports.extend(ports),
            None => {
                let of_rules = || {
                    let rules = routes().flat_map(|route| &route.rules);
                    rules.flat_map(|rule| &rule.filters)
                };
                let authorizes =
                    of_rules().any(|filter| matches!(filter, HttpFilter::ExternalAuth(_)));
                all.push(Filtered {
                    service: service.key.clone(),
                    ports,
                    authorizes,
                    limits_rules: of_rules().any(filter::is_limit),
                    reads_claims,
                });
            }
        }
        self.filtered = Some(all.into());
    }

    /// Nobody said which service was meant: what guards any that speaks for the workload guards this, and what guards the
    /// workload itself.
    fn add_unaddressed(&mut self, world: &World, workload: &Workload, port: u16) {
        for served in own_services(world, workload, port) {
            self.add_service(world, &served.service, &|| vec![served.clone()]);
        }
        if let Some(waypoint) = self.resolve(world, &workload.waypoint, "Pod", &workload.key) {
            self.waypoint = Some(waypoint.clone());
            self.add_waypoint(world, waypoint, &Vec::new);
        }
    }

    fn add_waypoint(&mut self, world: &World, waypoint: &Waypoint, ways: Ways<'_>) {
        add(&mut self.waypoint_sets, world.waypoint_policies(&waypoint.key), ways);
        self.names_clients |= waypoint.names_clients;
        self.worker = waypoint.key.namespace.clone();
    }

    /// The waypoint of a binding; closes the gate when one is named and cannot be used.
    fn resolve<'a>(
        &mut self,
        world: &'a World,
        binding: &Binding,
        kind: &str,
        object: &ObjectKey,
    ) -> Option<&'a Arc<Waypoint>> {
        self.guarded |= *binding != Binding::None;
        let why = match binding {
            Binding::None => return None,
            Binding::Waypoint(key) => match world.waypoint(key) {
                Some(waypoint) => return Some(waypoint),
                None => format!("waypoint {key} of {kind} {object} does not exist"),
            },
            Binding::Unusable { waypoint, why } => {
                format!("waypoint {waypoint} of {kind} {object} cannot be used: {why}")
            }
        };
        self.closed.get_or_insert(why);
        None
    }
}

fn add(guards: &mut Vec<Guard>, set: Option<&Arc<PolicySet>>, ways: Ways<'_>) {
    let Some(set) = set.filter(|set| !set.is_empty()) else { return };
    set.prepare();
    match guards.iter_mut().find(|one| Arc::ptr_eq(&one.set, set)) {
        Some(known) => known.extend(ways),
        None => guards.push(Guard::new(set.clone(), ways)),
    }
}

/// The policies of a second waypoint that some connections to the service pass. Which ones, the clients' nodes draw, whose word
/// counts for nothing here: so both waypoints' policies must permit each connection.
fn canary_policies<'a>(world: &'a World, service: &Service) -> Option<&'a Arc<PolicySet>> {
    let canary = service.canary.as_ref().filter(|canary| canary.weight > 0)?;
    world.waypoint_policies(&canary.waypoint)
}

fn served(service: &Arc<Service>, port: u16) -> Served {
    Served { service: service.clone(), service_port: port }
}

/// The services that lead to the workload's port and speak for it.
fn own_services<'a>(
    world: &'a World,
    workload: &'a Workload,
    port: u16,
) -> impl Iterator<Item = Served> + use<'a> {
    let namespace = &workload.key.namespace;
    let served = world.served_by(namespace, workload, port);
    served.filter(move |served| speaks_for(&served.service.key, None, namespace))
}

/// Some service that speaks for the workload says that the port speaks HTTP or says nothing; a port without such a service is
/// looked at as well.
fn may_be_http(world: &World, workload: &Workload, port: u16) -> bool {
    let mut protocols = own_services(world, workload, port)
        .filter_map(|served| served.service.port(served.service_port).map(|it| it.protocol))
        .peekable();
    protocols.peek().is_none() || protocols.any(|protocol| protocol != AppProtocol::Tcp)
}
