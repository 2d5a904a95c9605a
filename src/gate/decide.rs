//! What a gate decides about a connection or a request.
//!
//! Each set of policies must permit, in two rounds over all of them, as Istio's filters stand in one chain: the first finds the
//! providers of CUSTOM policies, which are asked before any DENY or ALLOW of any set decides in the second.

use http::HeaderMap;

use super::permit::add_asks;
use super::{Ask, Gate, Permit, Providers, Views, Whose};
use crate::base::{ObjectKey, PolicyNote};
use crate::ext_authz::Mutations;
use crate::policy::{
    self, Connection, Denial, Destination, Explained, Facts, PolicySet, Principals, Request, Told,
    Verified,
};

impl Gate {
    /// Decides. Without a request, layer 4 is all there is (Istio's rule for TCP traffic). Pure, so that live connections and
    /// streams can be judged again after every change: no provider is ever called from here ([`Permit::asks`]).
    pub fn decide(
        &self,
        connection: &Connection<'_>,
        request: Option<&Request<'_>>,
    ) -> Result<Permit, Denial> {
        self.decide_views(connection, request.map(Views::same))
    }

    /// The same where a route or a provider of external authorization changed the request.
    pub fn decide_views(
        &self,
        connection: &Connection<'_>,
        views: Option<Views<'_>>,
    ) -> Result<Permit, Denial> {
        self.admit(connection)?;
        if views.is_none() && connection.server_name.is_none() && self.reads_server_name(connection)
        {
            return Err(Denial::unread());
        }
        let permitted = views.and_then(|it| it.providers.mutations()).is_some();
        let mut notes = Vec::new();
        let (decided, checked) = self.look(connection, views, |gate, sides| {
            let (asks, policy) = gate.rounds(sides, permitted, &mut notes)?;
            Ok((asks, policy.cloned(), sides.guarding.principals.waypoint.cloned()))
        });
        let (asks, policy, waypoint) = match decided {
            Ok(decided) => decided,
            Err(denial) => return Err(Denial { notes, ..denial }),
        };
        let (told, bearer) = checked;
        let is_read = self.filtered.iter().flat_map(|it| it.iter()).any(|it| it.reads_claims);
        Ok(Permit {
            waypoint,
            names_client: self.names_clients,
            policy,
            notes,
            filtered: self.filtered.clone(),
            bearer: bearer.filter(|_| is_read).map(Box::new),
            told,
            asks,
        })
    }

    /// Has the facts looked at that both sides see; also what the request's token says.
    fn look<R>(
        &self,
        connection: &Connection<'_>,
        views: Option<Views<'_>>,
        look: impl for<'l> FnOnce(&'l Self, &mut Sides<'l>) -> R,
    ) -> (R, (Option<Box<Told>>, Option<Verified>)) {
        let mutations = views.and_then(|it| it.providers.mutations());
        let sent = views.map(|it| it.sent).filter(|_| !self.restrictions.is_empty());
        let seen = views.map(|it| if self.speaks { it.sent } else { it.arrived });
        let restricting = self.restrictions.iter().map(|guard| &*guard.set);
        let guarding = self.waypoint_sets.iter().map(|guard| &guard.set).chain(&self.own);
        let restricting = policy::check(restricting, sent, &self.keys);
        let checked = policy::check(guarding.map(|set| &**set), seen, &self.keys);
        // As in Envoy, policies see what the application will be told. What those want told who do not speak for the
        // destination, its application does not hear.
        let changed = (changed(sent, None, mutations), changed(seen, checked.told(), mutations));
        let (sent, seen) = (with(sent, changed.0.as_ref()), with(seen, changed.1.as_ref()));
        let mut sides = Sides {
            restricting: Facts::new(connection, sent.as_ref()),
            guarding: Facts::new(connection, seen.as_ref()),
        };
        sides.restricting.bearer = restricting.bearer();
        sides.guarding.bearer = checked.bearer();
        let looked = look(self, &mut sides);
        drop(sides);
        (looked, checked.into_parts())
    }

    /// Every policy that has a say, by whose it is, in the order in which they decide, with what it says or lacks. It decides nothing;
    /// [`decide_views`](Self::decide_views) does.
    pub fn explain(
        &self,
        connection: &Connection<'_>,
        views: Option<Views<'_>>,
    ) -> Vec<(Whose, Vec<Explained>)> {
        let (restrictions, waypoints) = (self.restrictions.len(), self.waypoint_sets.len());
        let mut explained = Vec::new();
        let (_, _) = self.look(connection, views, |gate, sides| {
            let shown: Result<(), Denial> = gate.each(sides, |set, facts, _| {
                let whose = match explained.len() {
                    at if at < restrictions => Whose::AddressedService,
                    at if at < restrictions + waypoints => Whose::Waypoint,
                    _ => Whose::Workload,
                };
                explained.push((whose, set.explain(facts)));
                Ok(())
            });
            shown
        });
        explained
    }

    /// Whether some policy needs the name of the server that the client asks for in TLS.
    fn reads_server_name(&self, connection: &Connection<'_>) -> bool {
        let guards = self.waypoint_sets.iter().chain(&self.restrictions);
        let mut guards = guards.map(|it| (&it.set, it.destination(connection.destination)));
        let own = Destination::itself(connection.destination);
        guards.any(|(set, to)| set.reads_server_name(to))
            || self.own.iter().any(|set| set.reads_server_name(own))
    }

    /// What needs no policy to be refused.
    fn admit(&self, connection: &Connection<'_>) -> Result<(), Denial> {
        if self.refuses_plaintext(connection) {
            let to = connection.destination;
            return Err(Denial::new(format!(
                "PeerAuthentication STRICT refuses plaintext to {to}"
            )));
        }
        match &self.closed {
            Some(why) => Err(Denial::new(why.clone())),
            None => Ok(()),
        }
    }

    /// The providers to be asked; or, where there are none or they permit, the policy that allows.
    fn rounds<'a>(
        &'a self,
        sides: &mut Sides<'a>,
        permitted: bool,
        notes: &mut Vec<PolicyNote>,
    ) -> Result<(Vec<Ask>, Option<&'a ObjectKey>), Denial> {
        if self.sets().any(|set| !set.custom.is_empty()) {
            let mut asks = Vec::new();
            self.each(sides, |set, facts, as_sent| {
                add_asks(&mut asks, set.asks(facts, notes)?, as_sent);
                Ok(())
            })?;
            if !asks.is_empty() && !permitted {
                self.each(sides, |set, facts, _| set.decide_connection(facts, notes))?;
                return Ok((asks, None));
            }
        }
        let mut policy = None;
        self.each(sides, |set, facts, _| {
            policy = set.decide(facts, notes)?.or(policy);
            Ok(())
        })?;
        Ok((Vec::new(), policy))
    }

    /// Shows each set the facts as it sees them; also whether that is the request as it was sent.
    fn each<'a>(
        &'a self,
        sides: &mut Sides<'a>,
        mut show: impl FnMut(&'a PolicySet, &Facts<'_>, bool) -> Result<(), Denial>,
    ) -> Result<(), Denial> {
        let Sides { restricting, guarding } = sides;
        let connection = guarding.connection();
        for guard in &self.restrictions {
            restricting.destination = guard.destination(connection.destination);
            show(&guard.set, restricting, true)?;
        }
        guarding.principals.waypoint = None;
        for guard in &self.waypoint_sets {
            guarding.destination = guard.destination(connection.destination);
            show(&guard.set, guarding, self.speaks)?;
        }
        guarding.destination = Destination::itself(connection.destination);
        // Plaintext proves nobody, so nobody's waypoint is added to it either.
        let addressed = self.waypoint.as_ref().map(|waypoint| &waypoint.identity);
        let waypoint = connection.client.and(addressed);
        guarding.principals = Principals { client: connection.client, waypoint };
        match &self.own {
            Some(own) => show(own, guarding, self.speaks),
            None => Ok(()),
        }
    }
}

/// The facts of one decision, as those see them who only restrict, and those who guard the workload.
struct Sides<'a> {
    restricting: Facts<'a>,
    guarding: Facts<'a>,
}

impl<'a> Providers<'a> {
    /// What they made of the request, if they permit it.
    fn mutations(self) -> Option<&'a Mutations> {
        match self {
            Providers::NotAsked => None,
            Providers::Permit(mutations) => Some(mutations),
        }
    }
}

/// The headers of a request as its token and the providers change them, if they do.
fn changed(
    view: Option<&Request<'_>>,
    told: Option<&Told>,
    mutations: Option<&Mutations>,
) -> Option<HeaderMap> {
    let headers = view?.headers;
    let mut changed = match (told, mutations) {
        (None, None) => return None,
        (Some(told), _) => told.headers(headers),
        (None, Some(_)) => headers.clone(),
    };
    if let Some(mutations) = mutations {
        mutations.apply(&mut changed);
    }
    Some(changed)
}

fn with<'a>(view: Option<&Request<'a>>, headers: Option<&'a HeaderMap>) -> Option<Request<'a>> {
    let view = view?;
    Some(Request { headers: headers.unwrap_or(view.headers), ..*view })
}
