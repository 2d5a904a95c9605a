//! Filters that the destination asks once a request is permitted: those of the services that guard the workload, and of the
//! rules of these services' own routes.
//!
//! Where a rule has a filter of a type, the service's of that type is not asked: the more specific policy holds (GEP-713).

use std::net::IpAddr;

use http::{HeaderMap, Request, Uri};

use crate::base::{Identity, PolicyNote};
use crate::filter::{self, Answer, Cx, Flow, Half, HttpFilter, RequestHead};
use crate::gate::Filtered;
use crate::route::{self, Head, Selection};
use crate::world::World;

/// Who asks, and for which pod.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) identity: Option<&'a Identity>,
    pub(super) address: IpAddr,
    pub(super) pod: &'a str,
}

/// Asks all filters for a request, and gives what they have to say. `sent` is the request as the client sent it, where that
/// is known to be another one.
pub(super) async fn ask<B>(
    world: &World,
    filtered: &[Filtered],
    from: Asking<'_>,
    sent: Option<(&Uri, &HeaderMap)>,
    request: &mut Request<B>,
) -> Result<Vec<PolicyNote>, Answer> {
    let mut notes = Vec::new();
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
        let general = service.filters.iter().filter(|it| !filter::has_type_of(of_rule, it));
        let route = selected.as_ref().map(|(route, rule)| (&route.key, *rule));
        let Asking { identity, address, pod } = from;
        let port = way.ports.first().copied().unwrap_or_default();
        let cx = Cx { port, identity, address, service: Some(&way.service), pod, route };
        for filter in of_rule.iter().chain(general) {
            if filter.half() == Half::Destination {
                notes.extend(one(filter, request, &cx).await?);
            }
        }
    }
    Ok(notes)
}

async fn one<B>(
    filter: &HttpFilter,
    request: &mut Request<B>,
    cx: &Cx<'_>,
) -> Result<Option<PolicyNote>, Answer> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut head = RequestHead { method: &method, uri: &uri, headers: request.headers_mut() };
    let answer = match filter.request(&mut head, cx) {
        Flow::Next => None,
        Flow::Note(note) => return Ok(Some(note)),
        Flow::Answer(answer) => Some(answer),
        Flow::Wait(waited) => waited.await.answer,
    };
    answer.map_or(Ok(None), Err)
}
