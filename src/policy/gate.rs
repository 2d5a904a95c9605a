//! Everything that applies to one inbound connection, gathered once per snapshot.

use std::sync::Arc;

use super::evaluate::{self, Facts};
use super::rule::Principals;
use super::{Addressed, Connection, Denial, Permit, Request};
use crate::base::{ObjectKey, PolicyNote, Str};
use crate::model::{AppProtocol, Binding, Mode, Service, Waypoint, Workload};
use crate::world::{PolicySet, World};

/// All that applies to one inbound connection, from one snapshot.
#[derive(Clone, Debug)]
pub struct Gate {
    /// PeerAuthentication wants mutual TLS on this port.
    strict: bool,
    /// Why nothing may pass: what guards the workload cannot be known.
    closed: Option<String>,
    /// The waypoints' policies; each set must permit. No set is empty, none stands twice.
    waypoint_sets: Vec<Arc<PolicySet>>,
    /// The workload's own.
    own: Option<Arc<PolicySet>>,
    service: Option<Arc<Service>>,
    /// The waypoint that was addressed: whoever passes its policies carries its principal too.
    waypoint: Option<Arc<Waypoint>>,
    needs_http: bool,
    worker: Str,
}

impl PartialEq for Gate {
    /// Both judge every open connection alike. How requests are parsed, and where, is settled when a connection begins.
    fn eq(&self, other: &Self) -> bool {
        let Self {
            strict,
            closed,
            waypoint_sets,
            own,
            service: _,
            waypoint,
            needs_http: _,
            worker: _,
        } = self;
        let identity = |it: &Arc<Waypoint>| it.identity.clone();
        *strict == other.strict
            && *closed == other.closed
            && waypoint_sets.len() == other.waypoint_sets.len()
            && waypoint_sets.iter().zip(&other.waypoint_sets).all(|(one, two)| same(one, two))
            && match (own, &other.own) {
                (Some(one), Some(two)) => same(one, two),
                (one, two) => one.is_none() && two.is_none(),
            }
            && waypoint.as_ref().map(identity) == other.waypoint.as_ref().map(identity)
    }
}

/// Worlds share what did not change.
fn same(one: &Arc<PolicySet>, two: &Arc<PolicySet>) -> bool {
    Arc::ptr_eq(one, two) || one == two
}

impl Gate {
    /// `port`: the workload's own port. `addressed`: from [`super::addressed`]. The workload may be an older world's:
    /// what `world` says of it holds.
    pub fn new(world: &World, workload: &Arc<Workload>, port: u16, addressed: &Addressed) -> Self {
        let mut gate = Gate::open(&workload.key.namespace);
        let Some(workload) = world.workload(&workload.uid) else {
            let key = &workload.key;
            gate.closed =
                Some(format!("workload {key} is not in the mesh's present state (deleted?)"));
            return gate;
        };
        gate.strict = workload.peer_authentication.mode_of(port) == Mode::Strict;
        gate.own = world.workload_policies(&workload.uid).filter(|own| !own.is_empty()).cloned();
        let mut parse = false;
        match addressed {
            Addressed::Service(served) => gate.add_addressed_service(world, &served.service),
            Addressed::Route { service, verified: true } => {
                gate.add_addressed_service(world, service);
                parse = true;
            }
            // A claim that nobody checked adds policies and takes none away.
            Addressed::Route { service, verified: false } => {
                gate.service = Some(service.clone());
                gate.add_service(world, service);
                gate.add_unaddressed(world, workload, port);
                parse = gate.sets().next().is_some();
            }
            Addressed::Workload => gate.add_unaddressed(world, workload, port),
        }
        let for_workload = gate.service.is_none() && gate.waypoint.is_some();
        let wanted = parse || for_workload || gate.sets().any(|set| set.needs_http);
        gate.needs_http = wanted && may_be_http(world, workload, port);
        gate
    }

    /// Only the waypoint's part for a service, for destinations that are not captured.
    pub fn for_service(world: &World, service: &Service) -> Self {
        let mut gate = Gate::open(&service.key.namespace);
        match world.service(&service.key) {
            Some(service) => gate.add_addressed_service(world, service),
            None => gate.closed = Some(format!("Service {} does not exist any more", service.key)),
        }
        let needs_http = gate.sets().any(|set| set.needs_http);
        gate.needs_http = needs_http;
        gate
    }

    fn open(namespace: &Str) -> Self {
        Gate {
            strict: false,
            closed: None,
            waypoint_sets: Vec::new(),
            own: None,
            service: None,
            waypoint: None,
            needs_http: false,
            worker: namespace.clone(),
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

    /// The namespace whose worker parses.
    pub fn worker(&self) -> &Str {
        &self.worker
    }

    /// Decides. Without a request, layer 4 is all there is (Istio's rule for TCP traffic).
    pub fn authorize(
        &self,
        connection: &Connection<'_>,
        request: Option<&Request<'_>>,
    ) -> Result<Permit, Denial> {
        if self.strict && connection.client.is_none() {
            let to = connection.destination;
            return Err(Denial::new(format!(
                "PeerAuthentication STRICT refuses plaintext to {to}"
            )));
        }
        if let Some(why) = &self.closed {
            return Err(Denial::new(why.clone()));
        }
        let mut facts = Facts::new(connection, request);
        let mut notes = Vec::new();
        let mut policy = None;
        for set in &self.waypoint_sets {
            policy = ask(set, &facts, &mut notes)?.or(policy);
        }
        // Plaintext proves nobody, so nobody's waypoint is added to it either.
        let addressed = self.waypoint.as_ref().map(|waypoint| &waypoint.identity);
        let waypoint = connection.client.and(addressed);
        facts.principals = Principals { client: connection.client, waypoint };
        if let Some(own) = &self.own {
            policy = ask(own, &facts, &mut notes)?.or(policy);
        }
        Ok(Permit { waypoint: waypoint.cloned(), policy: policy.cloned(), notes })
    }

    fn sets(&self) -> impl Iterator<Item = &Arc<PolicySet>> {
        self.waypoint_sets.iter().chain(&self.own)
    }

    fn add_addressed_service(&mut self, world: &World, service: &Arc<Service>) {
        self.service = Some(service.clone());
        self.waypoint = self.add_service(world, service).cloned();
    }

    /// The policies of a service's waypoint, when it has one.
    fn add_service<'a>(
        &mut self,
        world: &'a World,
        service: &Service,
    ) -> Option<&'a Arc<Waypoint>> {
        let waypoint = self.resolve(world, &service.waypoint, "Service", &service.key)?;
        self.add_set(world.service_policies(&service.key));
        self.add_waypoint(world, waypoint);
        Some(waypoint)
    }

    /// Nobody said which service was meant: what guards any of them guards this, and what guards the workload itself.
    fn add_unaddressed(&mut self, world: &World, workload: &Workload, port: u16) {
        for served in world.served_by(workload, port) {
            self.add_service(world, &served.service);
        }
        if let Some(waypoint) = self.resolve(world, &workload.waypoint, "Pod", &workload.key) {
            self.waypoint = Some(waypoint.clone());
            self.add_waypoint(world, waypoint);
        }
    }

    fn add_waypoint(&mut self, world: &World, waypoint: &Waypoint) {
        self.add_set(world.waypoint_policies(&waypoint.key));
        self.worker = waypoint.key.namespace.clone();
    }

    fn add_set(&mut self, set: Option<&Arc<PolicySet>>) {
        let known =
            |set: &Arc<PolicySet>| self.waypoint_sets.iter().any(|one| Arc::ptr_eq(one, set));
        if let Some(set) = set.filter(|set| !set.is_empty() && !known(set)) {
            self.waypoint_sets.push(set.clone());
        }
    }

    /// The waypoint of a binding; closes the gate when one is named and cannot be used.
    fn resolve<'a>(
        &mut self,
        world: &'a World,
        binding: &Binding,
        kind: &str,
        object: &ObjectKey,
    ) -> Option<&'a Arc<Waypoint>> {
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

/// A refusal takes the notes along.
fn ask<'a>(
    set: &'a PolicySet,
    facts: &Facts<'_>,
    notes: &mut Vec<PolicyNote>,
) -> Result<Option<&'a ObjectKey>, Denial> {
    let decided = evaluate::evaluate(set, facts, notes);
    decided.map_err(|denial| Denial { notes: std::mem::take(notes), ..denial })
}

/// Some service says that the port speaks HTTP or says nothing; a port without a service is looked at as well.
fn may_be_http(world: &World, workload: &Workload, port: u16) -> bool {
    let mut protocols = world
        .served_by(workload, port)
        .filter_map(|served| served.service.port(served.service_port).map(|it| it.protocol))
        .peekable();
    protocols.peek().is_none() || protocols.any(|protocol| protocol != AppProtocol::Tcp)
}
