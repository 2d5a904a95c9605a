//! Filters that the destination asks once a request is permitted: those of the services that guard the workload, and of the
//! rules of these services' own routes.
//!
//! Where a rule has a filter of a type, the service's of that type is not asked: the more specific policy holds (GEP-713).
//! The destination selects the rule itself, among the routes of the service's own namespace: neither what a peer says nor a
//! consumer's route lifts a limit.

use std::net::IpAddr;

use http::{HeaderMap, Request, Uri};

use super::answer::Answer;
use super::{Exchange, chain};
use crate::base::Identity;
use crate::filter::{self, Cx, Half, HttpFilter};
use crate::gate::Filtered;
use crate::model::Service;
use crate::route::{self, Head, Selection};
use crate::world::World;

/// Who asks, and for which pod.
#[derive(Clone, Copy)]
pub(in crate::l7) struct Asking<'a> {
    pub(in crate::l7) identity: Option<&'a Identity>,
    pub(in crate::l7) address: IpAddr,
    pub(in crate::l7) pod: &'a str,
}

/// Asks all filters for a request. `sent` is the request as the client sent it, where that is known to be another one.
pub(in crate::l7) async fn ask<B>(
    world: &World,
    filtered: &[Filtered],
    from: Asking<'_>,
    sent: Option<(&Uri, &HeaderMap)>,
    request: &mut Request<B>,
    mut exchange: Option<&mut Exchange>,
) -> Result<(), Answer> {
    for way in filtered {
        let Some(service) = world.service(&way.service) else { continue };
        let (uri, headers) = sent.unwrap_or((request.uri(), request.headers()));
        let head = Head { method: request.method(), path: uri.path(), query: uri.query(), headers };
        // Nobody says which port was dialled: the first on which a rule takes the request.
        let selected = way.ports.iter().find_map(|port| {
            match route::select(world, service, *port, &way.service.namespace, &head) {
                Selection::Rule { route, rule } => Some((route, rule)),
                Selection::NoRoutes | Selection::NoMatch(_) => None,
            }
        });
        let rule = selected.as_ref().and_then(|(route, rule)| route.rules.get(*rule));
        let of_rule: &[HttpFilter] = rule.map_or(&[], |rule| &rule.filters);
        let general = of_ports(service, &way.ports);
        let general = general.filter(|it| !filter::has_type_of(of_rule, it));
        let route = selected.as_ref().map(|(route, rule)| (&route.key, *rule));
        let Asking { identity, address, pod } = from;
        let port = way.ports.first().copied().unwrap_or_default();
        let cx = Cx { port, identity, address, service: Some(&way.service), pod, route };
        for filter in of_rule.iter().chain(general) {
            let heard = exchange.as_deref_mut();
            chain::ask(filter, Half::Destination, &cx, request, heard).await?;
        }
    }
    Ok(())
}

/// The filters of all ports that may have been dialled, each once.
fn of_ports<'a>(service: &'a Service, ports: &'a [u16]) -> impl Iterator<Item = &'a HttpFilter> {
    let unknown = Some(&service.filters[..]).filter(|_| ports.is_empty());
    let known = ports.iter().enumerate().flat_map(move |(at, port)| {
        let is_new = move |filter: &&HttpFilter| {
            !ports[..at].iter().any(|before| service.filters_on(*before).contains(filter))
        };
        service.filters_on(*port).iter().filter(is_new)
    });
    unknown.into_iter().flatten().chain(known)
}
