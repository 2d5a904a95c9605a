//! What is asked of a gate, and what it grants.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::{Identity, ObjectKey, PolicyNote};
use crate::ext_authz::Mutations;
use crate::model::{ExtAuthz, Service, Workload};
use crate::policy::{Request, Told, Verified, speaks_for};

/// A request that a route may have changed on its way. Policies of the namespace that the addressed service belongs to see it
/// as it was sent, all others as it arrives.
#[derive(Clone, Copy, Debug)]
pub struct Views<'a> {
    pub arrived: &'a Request<'a>,
    /// Before the route's filters, where the route is of the addressed service's own namespace; otherwise as `arrived`.
    pub sent: &'a Request<'a>,
    pub providers: Providers<'a>,
}

/// What is known of the providers of external authorization when policies decide. As in Istio, the providers of CUSTOM policies
/// are asked first; DENY and ALLOW then decide about the request as the providers made it.
#[derive(Clone, Copy, Debug)]
pub enum Providers<'a> {
    /// A permit names those that are to be asked ([`Permit::asks`]), and holds only once they permit.
    NotAsked,
    /// They permit, and change the headers like this. Those of policies that came meanwhile are not asked.
    Permit(&'a Mutations),
}

impl<'a> Views<'a> {
    /// A request that nothing has changed.
    pub fn same(request: &'a Request<'a>) -> Self {
        Self { arrived: request, sent: request, providers: Providers::NotAsked }
    }

    /// Once the providers permit it.
    pub fn permitted(self, mutations: &'a Mutations) -> Self {
        Self { providers: Providers::Permit(mutations), ..self }
    }
}

/// A way to a destination where nobody judges, as the client's half knows it.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// What the client dialled.
    pub addressed: &'a Service,
    /// The port that it dialled there.
    pub port: u16,
    /// The route that led on from there, and whom it has left its rule to.
    pub route: Option<&'a ObjectKey>,
    pub delegate: Option<&'a ObjectKey>,
    /// Whose endpoint the destination is, and the port that leads there.
    pub backend: (&'a Service, u16),
    /// What is known to be there.
    pub workload: Option<&'a Workload>,
    pub destination: SocketAddr,
}

impl<'a> Way<'a> {
    /// What led on from the service.
    pub fn led(&self) -> impl Iterator<Item = &'a ObjectKey> {
        self.route.into_iter().chain(self.delegate)
    }

    /// Whether what was addressed, and the route, speak for the destination: for the workload there, and for the backend's
    /// service where none is known.
    pub fn speaks(&self) -> bool {
        let destination = self.workload.map_or(&self.backend.0.key, |workload| &workload.key);
        speaks_for(&self.addressed.key, self.led(), &destination.namespace)
    }
}

/// Leave to connect, with who gave it.
#[derive(Clone, Debug)]
pub struct Permit {
    /// The waypoint whose policies were passed: its principal counts beside the client's.
    pub waypoint: Option<Identity>,
    /// The application is to be told who the client is.
    pub names_client: bool,
    /// The policy that allowed, where one did.
    pub policy: Option<ObjectKey>,
    /// What policies that decide nothing have to say (AUDIT, dry-run).
    pub notes: Vec<PolicyNote>,
    /// Services whose filters the destination asks, for each request.
    pub filtered: Option<Arc<[Filtered]>>,
    /// Whose claims some of these filters read.
    pub bearer: Option<Box<Verified>>,
    /// What the request is to become by its token.
    pub told: Option<Box<Told>>,
    /// Providers that must permit the request first. While there are any, DENY and ALLOW have not decided: whoever asks the
    /// providers decides again after that ([`Providers::Permit`]).
    pub asks: Vec<Ask>,
}

/// Whose policies they are, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Of the waypoint of the service that was addressed, which does not speak for the destination and only restricts.
    AddressedService,
    /// Of the waypoint that guards the destination, and of what is bound to it.
    Waypoint,
    /// The workload's own: of its namespace, of the mesh and those that select it.
    Workload,
}

/// A provider that is to be asked about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub provider: Arc<ExtAuthz>,
    /// About the request as it was sent, where a route changed it on its way ([`Views`]).
    pub as_sent: bool,
}

/// Adds providers, each once for either view.
pub(super) fn add_asks(asks: &mut Vec<Ask>, providers: Vec<Arc<ExtAuthz>>, as_sent: bool) {
    for provider in providers {
        let ask = Ask { provider, as_sent };
        if !asks.contains(&ask) {
            asks.push(ask);
        }
    }
}

/// A service whose filters the destination asks, and the ports of it that lead there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filtered {
    pub service: ObjectKey,
    pub ports: Vec<u16>,
    /// Some rule of its routes has an authorizer asked, which only HTTP can be asked about.
    pub authorizes: bool,
    /// Some rule of its routes has a limit, which no spelling of a path leads past.
    pub limits_rules: bool,
    /// Some filter reads the claims of tokens.
    pub reads_claims: bool,
}
