//! Filters that the destination asks once a request is permitted: those of the services that guard the workload, and of the
//! rules of these services' own routes.
//!
//! Where a rule has a filter of a type, the service's of that type is not asked: the more specific policy holds (GEP-713).

use std::net::IpAddr;

use http::{HeaderMap, Request, Uri};

use super::Exchange;
use super::answer::Answer;
use super::chain::Asked;
use crate::base::Identity;
use crate::filter::{Cx, Half, HttpFilter};
use crate::policy::Filtered;
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
        // Without an identity the client is of no namespace, and sees what everybody sees.
        let namespace = from.identity.map_or("", |identity| identity.namespace.as_str());
        // Nobody says which port was dialled: the first on which a rule takes the request.
        let selected = way.ports.iter().find_map(|port| {
            match route::select(world, service, *port, namespace, &head) {
                Selection::Rule { route, rule } => Some((route, rule)),
                Selection::NoRoutes | Selection::NoMatch(_) => None,
            }
        });
        let own =
            selected.as_ref().filter(|(route, _)| route.key.namespace == way.service.namespace);
        let rule = own.and_then(|(route, rule)| route.rules.get(*rule));
        let of_rule: &[HttpFilter] = rule.map_or(&[], |rule| &rule.filters);
        let route = selected.as_ref().map(|(route, rule)| (&route.key, *rule));
        let Asking { identity, address, pod } = from;
        let port = way.ports.first().copied().unwrap_or_default();
        let cx = Cx { port, identity, address, service: Some(&way.service), pod, route };
        for (filters, instead) in [(of_rule, &[][..]), (&service.filters[..], of_rule)] {
            let asked = Asked { half: Half::Destination, filters, instead, cx };
            asked.ask(request, exchange.as_deref_mut()).await?;
        }
    }
    Ok(())
}
