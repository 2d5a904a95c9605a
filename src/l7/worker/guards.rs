//! Filters that the destination asks once a request is permitted: those of the services that guard the workload, and of the
//! rules of these services' own routes.
//!
//! Where a rule has a filter of a type, the service's of that type is not asked: the more specific policy holds (GEP-713).
//! The destination selects the rule itself, among the routes of the service's own namespace: neither what a peer says nor a
//! consumer's route lifts a limit.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderMap, Request, StatusCode};

use super::authorizer::{AsSent, Authorizer};
use crate::base::Identity;
use crate::base::path::{PathReadings, is_plain};
use crate::ext_authz;
use crate::filter::{
    self, Claims, Cx, ExternalAuth, Half, HttpFilter, Level, Pods, RateLimit, Spread,
};
use crate::gate::{Ask, Filtered};
use crate::l7::exchange::answer::Answer;
use crate::l7::exchange::{Exchange, chain};
use crate::l7::message::body::RequestBody;
use crate::model::{HttpRoute, Service};
use crate::route::{self, Client, Head, Selection};
use crate::world::World;

/// Who asks, and for which pod.
#[derive(Clone, Copy)]
pub(in crate::l7) struct Asking<'a> {
    pub(in crate::l7) identity: Option<&'a Identity>,
    pub(in crate::l7) address: IpAddr,
    pub(in crate::l7) pod: &'a str,
    /// Of the request's token.
    pub(in crate::l7) claims: Option<&'a dyn Claims>,
    /// The pod's, where it is of the mesh.
    pub(in crate::l7) node: Option<&'a str>,
}

/// The pods of a service, as a world has them.
struct Placed<'a> {
    generation: u64,
    service: &'a Service,
    node: &'a str,
}

impl fmt::Debug for Placed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Placed").field(&self.service.key).field(&self.node).finish()
    }
}

impl Spread for Placed<'_> {
    fn version(&self) -> u64 {
        self.generation
    }

    fn pods(&self) -> Pods {
        self.service.pods(self.node)
    }
}

/// Asks all filters for a request. `sent` is the request as the client sent it, where that is known to be another one.
pub(in crate::l7) async fn ask(
    world: &World,
    filtered: &[Filtered],
    from: Asking<'_>,
    authorizer: &Authorizer<'_>,
    sent: AsSent<'_>,
    request: &mut Request<RequestBody>,
    mut exchange: Option<&mut Exchange>,
) -> Result<(), Answer> {
    for way in filtered {
        let Some(guarded) = world.service(&way.service) else { continue };
        let (uri, headers) = sent.unwrap_or((request.uri(), request.headers()));
        let (path, query, client) = (uri.path(), uri.query(), Client::default());
        let head = Head { method: request.method(), path, query, headers, client };
        let selected = selected(world, guarded, &way.ports, &head);
        let disguised = disguised(world, guarded, way, &head, selected.as_ref());
        let limits = disguised_limits(world, guarded, way, &head, selected.as_ref());
        let rule = selected.as_ref().and_then(|(route, rule)| route.rules.get(*rule));
        let of_rule: &[HttpFilter] = rule.map_or(&[], |rule| &rule.filters);
        let general = of_ports(guarded, &way.ports);
        let general = general.filter(|it| !filter::has_type_of(of_rule, it));
        let route = selected.as_ref().map(|(route, rule)| (&route.key, *rule));
        let Asking { identity, address, pod, claims, node } = from;
        let port = way.ports.first().copied().unwrap_or_default();
        let service = Some(&way.service);
        let generation = world.generation;
        let placed = node.map(|node| Placed { generation, service: guarded, node });
        let spread = placed.as_ref().map(|placed| placed as &dyn Spread);
        let level = level(guarded, way, of_rule, request.headers(), identity);
        let cx = Cx { port, identity, address, service, pod, route, spread, claims, level };
        for filter in of_rule.iter().chain(general) {
            let heard = exchange.as_deref_mut();
            match filter {
                HttpFilter::ExternalAuth(filter) => {
                    let namespace = &way.service.namespace;
                    let asked = ask_external(authorizer, namespace, filter, sent, request, heard);
                    // Boxed, because it is large and most requests go without it.
                    Box::pin(asked).await?;
                }
                _ => ask_own(authorizer, filter, &cx, request, heard).await?,
            }
        }
        for (route, rule, filter) in &limits {
            let cx = Cx { route: Some((&route.key, *rule)), ..cx };
            ask_own(authorizer, filter, &cx, request, exchange.as_deref_mut()).await?;
        }
        for filter in disguised {
            let (namespace, heard) = (&way.service.namespace, exchange.as_deref_mut());
            let asked = ask_external(authorizer, namespace, &filter, sent, request, heard);
            Box::pin(asked).await?;
        }
    }
    Ok(())
}

/// Asks a filter that this agent decides, and the services that count for it.
async fn ask_own(
    authorizer: &Authorizer<'_>,
    filter: &HttpFilter,
    cx: &Cx<'_>,
    request: &mut Request<RequestBody>,
    mut exchange: Option<&mut Exchange>,
) -> Result<(), Answer> {
    let heard = exchange.as_deref_mut();
    let asked = chain::ask(filter, Half::Destination, cx, request, heard).await;
    note(authorizer, filter, asked.is_ok());
    asked?;
    match filter {
        HttpFilter::RateLimit(limit) if limit.asks() => {
            count(authorizer, limit, cx, request, exchange).await
        }
        _ => Ok(()),
    }
}

/// Counts what this agent's limits have said.
fn note(authorizer: &Authorizer<'_>, filter: &HttpFilter, passes: bool) {
    if matches!(filter, HttpFilter::RateLimit(_)) {
        let metrics = &authorizer.context.dependencies.telemetry.rate_limits().local;
        let outcome = if passes { &metrics.ok } else { &metrics.over_limit };
        outcome.inc();
    }
}

/// Asks the services that count for a policy, once this agent's own limits let the request pass.
fn count<'a>(
    authorizer: &'a Authorizer<'_>,
    limit: &'a RateLimit,
    cx: &'a Cx<'_>,
    request: &'a mut Request<RequestBody>,
    exchange: Option<&'a mut Exchange>,
) -> Pin<Box<dyn Future<Output = Result<(), Answer>> + Send + 'a>> {
    // Boxed, because it is large and most limits ask nobody.
    Box::pin(authorizer.count(limit, cx, request, exchange))
}

/// How soon the request is shed. In a function of its own, so that the future of a request does not hold what it looks through.
fn level(
    service: &Service,
    way: &Filtered,
    of_rule: &[HttpFilter],
    headers: &HeaderMap,
    identity: Option<&Identity>,
) -> Option<Level> {
    filter::level(of_rule.iter().chain(of_ports(service, &way.ports)), headers, identity)
}

/// The rule that takes a request. Nobody says which port was dialled: the first on which there is one.
fn selected(
    world: &World,
    service: &Service,
    ports: &[u16],
    head: &Head<'_>,
) -> Option<(Arc<HttpRoute>, usize)> {
    ports.iter().find_map(|port| {
        match route::select(world, service, *port, &service.key.namespace, head) {
            Selection::Rule { route, rule } => Some((route, rule)),
            Selection::NoRoutes | Selection::NoMatch(_) => None,
        }
    })
}

/// The authorizers of rules that take other readings of the path, where the rule that takes the path as it was sent has none: the
/// application may read it in that way. A path whose readings nobody can list may be of any rule.
fn disguised(
    world: &World,
    service: &Service,
    way: &Filtered,
    head: &Head<'_>,
    as_sent: Option<&(Arc<HttpRoute>, usize)>,
) -> Vec<ExternalAuth> {
    let mut all = Vec::new();
    if !way.authorizes || authorizer(as_sent).is_some() {
        return all;
    }
    let mut add = |filter: &ExternalAuth| {
        if !all.contains(filter) {
            all.push(filter.clone());
        }
    };
    let readings = PathReadings::of(head.path);
    if readings.unclear.is_some() {
        let routes = world.routes_from(&service.key.namespace, &service.key).iter();
        let filters = routes.flat_map(|route| &route.rules).flat_map(|rule| &rule.filters);
        filters.filter_map(external).for_each(add);
        return all;
    }
    for path in &readings.others {
        let read = selected(world, service, &way.ports, &Head { path, ..*head });
        authorizer(read.as_ref()).into_iter().for_each(&mut add);
    }
    all
}

/// A limit of a rule that takes another reading of the path.
type Disguised = (Arc<HttpRoute>, usize, HttpFilter);

/// The limits of rules that take other readings of the path, where the rule that takes the path as it was sent has none of the type:
/// the application may read it in that way, and no spelling leads past a limit. A path whose readings nobody can list may be of any
/// rule.
fn disguised_limits(
    world: &World,
    service: &Service,
    way: &Filtered,
    head: &Head<'_>,
    as_sent: Option<&(Arc<HttpRoute>, usize)>,
) -> Vec<Disguised> {
    let mut all: Vec<Disguised> = Vec::new();
    if !way.limits_rules || is_plain(head.path) {
        return all;
    }
    let of_rule = as_sent.and_then(|(route, rule)| route.rules.get(*rule));
    let of_rule: &[HttpFilter] = of_rule.map_or(&[], |rule| &rule.filters);
    let mut add = |route: &Arc<HttpRoute>, rule: usize| {
        let filters = route.rules.get(rule).into_iter().flat_map(|it| &it.filters);
        let limits = filters.filter(|it| filter::is_limit(it));
        for filter in limits.filter(|it| !filter::has_type_of(of_rule, it)) {
            if !all.iter().any(|(.., known)| known == filter) {
                all.push((route.clone(), rule, filter.clone()));
            }
        }
    };
    let readings = PathReadings::of(head.path);
    if readings.unclear.is_some() {
        for route in world.routes_from(&service.key.namespace, &service.key) {
            (0..route.rules.len()).for_each(|rule| add(route, rule));
        }
        return all;
    }
    for path in &readings.others {
        if let Some((route, rule)) = selected(world, service, &way.ports, &Head { path, ..*head }) {
            add(&route, rule);
        }
    }
    all
}

fn authorizer(selected: Option<&(Arc<HttpRoute>, usize)>) -> Option<&ExternalAuth> {
    let (route, rule) = selected?;
    route.rules.get(*rule)?.filters.iter().find_map(external)
}

fn external(filter: &HttpFilter) -> Option<&ExternalAuth> {
    match filter {
        HttpFilter::ExternalAuth(filter) => Some(filter),
        _ => None,
    }
}

/// Has the authorizer of a route of `namespace` asked: by an agent on behalf of a workload of that namespace, because with the
/// identity of another one the owner of a route could send requests in that one's name. So the destination asks for the routes
/// of its own namespace; where it cannot, the clients of the route's namespace have asked as themselves, and nobody else passes.
pub(in crate::l7) async fn ask_external(
    authorizer: &Authorizer<'_>,
    namespace: &str,
    filter: &ExternalAuth,
    sent: AsSent<'_>,
    request: &mut Request<RequestBody>,
    mut exchange: Option<&mut Exchange>,
) -> Result<(), Answer> {
    let failed = |why: String| Err(Answer::unasked(StatusCode::INTERNAL_SERVER_ERROR, why));
    if authorizer.from.client.key.namespace != namespace {
        return match authorizer.client {
            Some(client) if client.namespace == namespace => Ok(()),
            _ => failed(format!(
                "ExternalAuth of a route of {namespace}: no agent asks on its behalf, because neither the client nor the \
                 destination is of that namespace"
            )),
        };
    }
    let provider = match ext_authz::of_filter(filter) {
        Ok(provider) => provider,
        Err(why) => return failed(format!("ExternalAuth: {why}")),
    };
    let asks = [Ask { provider, as_sent: true }];
    let mutations = Arc::new(authorizer.ask(&asks, request, sent, exchange.as_deref_mut()).await?);
    mutations.apply(request.headers_mut());
    request.body_mut().leave_to_providers(&mutations);
    if let Some(exchange) = exchange {
        let added = exchange.added.get_or_insert_default();
        ext_authz::add_to_response(&mutations.response(), added);
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
