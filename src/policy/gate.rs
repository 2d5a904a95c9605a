//! Everything that applies to one inbound connection, gathered once per snapshot.

use std::sync::Arc;

use super::evaluate::{self, Facts};
use super::rule::Principals;
use super::{Addressed, Connection, Denial, Permit, Request};
use crate::base::{Identity, Str};
use crate::model::{AppProtocol, Binding, Mode, Service, Waypoint, Workload};
use crate::world::{PolicySet, World};

/// All that applies to one inbound connection, from one snapshot.
#[derive(Clone, Debug)]
pub struct Gate {
    /// PeerAuthentication wants mutual TLS on this port.
    strict: bool,
    /// Why nothing may pass: a waypoint that is named cannot be used.
    closed: Option<String>,
    /// The waypoints' policies; each set must permit.
    waypoint_sets: Vec<Arc<PolicySet>>,
    /// The workload's own.
    own: Option<Arc<PolicySet>>,
    /// The waypoint that was addressed: whoever passes its policies carries its principal too.
    waypoint: Option<Identity>,
    needs_http: bool,
    worker: Str,
}

impl Gate {
    /// `port`: the workload's own port. `addressed`: from [`super::addressed`].
    pub fn new(world: &World, workload: &Arc<Workload>, port: u16, addressed: &Addressed) -> Self {
        let mut gate = Gate {
            strict: workload.peer_authentication.mode_of(port) == Mode::Strict,
            closed: None,
            waypoint_sets: Vec::new(),
            own: world.workload_policies(&workload.uid).cloned(),
            waypoint: None,
            needs_http: false,
            worker: workload.key.namespace.clone(),
        };
        let mut parse = false;
        match addressed {
            Addressed::Service(served) => gate.add_addressed_service(world, &served.service),
            Addressed::Route { service, verified: true } => {
                gate.add_addressed_service(world, service);
                parse = true;
            }
            Addressed::Route { service, verified: false } => {
                gate.add_service(world, service);
                gate.add_every_service(world, workload, port);
                parse = !gate.waypoint_sets.is_empty();
            }
            Addressed::Workload => {
                gate.add_every_service(world, workload, port);
                parse = gate.add_workload_waypoint(world, workload);
            }
        }
        let wanted = parse || gate.sets().any(|set| set.needs_http);
        gate.needs_http = wanted && may_be_http(world, workload, port);
        gate
    }

    /// Only the waypoint's part for a service, for destinations that are not captured.
    pub fn for_service(world: &World, service: &Service) -> Self {
        let mut gate = Gate {
            strict: false,
            closed: None,
            waypoint_sets: Vec::new(),
            own: None,
            waypoint: None,
            needs_http: false,
            worker: service.key.namespace.clone(),
        };
        gate.add_addressed_service(world, service);
        let needs_http = gate.sets().any(|set| set.needs_http);
        gate.needs_http = needs_http;
        gate
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
            return Err(Denial::new("PeerAuthentication STRICT: plaintext is refused"));
        }
        if let Some(why) = &self.closed {
            return Err(Denial::new(why.clone()));
        }
        let mut facts = Facts::new(connection, request);
        let mut policy = None;
        for set in &self.waypoint_sets {
            policy = evaluate::evaluate(set, &facts)?.or(policy);
        }
        // Plaintext proves nobody, so nobody's waypoint is added to it either.
        let waypoint = connection.client.and(self.waypoint.as_ref());
        facts.principals = Principals { client: connection.client, waypoint };
        if let Some(own) = &self.own {
            policy = evaluate::evaluate(own, &facts)?.or(policy);
        }
        Ok(Permit { waypoint: waypoint.cloned(), policy: policy.cloned() })
    }

    fn sets(&self) -> impl Iterator<Item = &Arc<PolicySet>> {
        self.waypoint_sets.iter().chain(&self.own)
    }

    fn add_addressed_service(&mut self, world: &World, service: &Service) {
        if let Some(waypoint) = self.add_service(world, service) {
            self.waypoint = Some(waypoint.identity.clone());
        }
    }

    /// The policies of a service's waypoint, when it has one.
    fn add_service<'a>(
        &mut self,
        world: &'a World,
        service: &Service,
    ) -> Option<&'a Arc<Waypoint>> {
        let waypoint = self.resolve(world, &service.waypoint, "Service", &service.key)?;
        self.waypoint_sets.extend(world.service_policies(&service.key).cloned());
        self.add_waypoint(world, waypoint);
        Some(waypoint)
    }

    /// Nobody said which service was meant: what guards any of them guards this.
    fn add_every_service(&mut self, world: &World, workload: &Workload, port: u16) {
        let mut seen: Vec<Arc<Service>> = Vec::new();
        for served in world.served_by(workload, port) {
            if !seen.iter().any(|service| service.key == served.service.key) {
                self.add_service(world, &served.service);
                seen.push(served.service);
            }
        }
    }

    /// The waypoint for traffic to the workload itself; tells whether there is one.
    fn add_workload_waypoint(&mut self, world: &World, workload: &Workload) -> bool {
        let Some(waypoint) = self.resolve(world, &workload.waypoint, "Pod", &workload.key) else {
            return false;
        };
        self.waypoint = Some(waypoint.identity.clone());
        self.add_waypoint(world, waypoint);
        true
    }

    fn add_waypoint(&mut self, world: &World, waypoint: &Waypoint) {
        self.waypoint_sets.extend(world.waypoint_policies(&waypoint.key).cloned());
        self.worker = waypoint.key.namespace.clone();
    }

    /// The waypoint of a binding; closes the gate when one is named and cannot be used.
    fn resolve<'a>(
        &mut self,
        world: &'a World,
        binding: &Binding,
        kind: &str,
        object: &crate::base::ObjectKey,
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

/// Some service says that the port speaks HTTP or says nothing; a port without a service is looked at as well.
fn may_be_http(world: &World, workload: &Workload, port: u16) -> bool {
    let mut protocols = world
        .served_by(workload, port)
        .filter_map(|served| served.service.port(served.service_port).map(|it| it.protocol))
        .peekable();
    protocols.peek().is_none() || protocols.any(|protocol| protocol != AppProtocol::Tcp)
}
