//! Requests to a service with a waypoint: the rule, its filters, its backends.

use std::sync::Arc;

use http::Request;

use super::Way;
use super::destination::{self, Backend, Sent};
use super::layer4;
use super::tree::Node;
use crate::base::Reason;
use crate::filter::{BackendRef, Cx, Flow, HttpFilter, Pair, RequestHead};
use crate::l7::explained::{Asking, OwnAnswer, Ruled};
use crate::model::{HttpRoute, HttpRule, Service, Waypoint};
use crate::route::Candidate;

/// Matches that did not hold and are told of, at the most.
const MOST_CANDIDATES: usize = 30;

pub(super) fn explain(
    way: &Way<'_>,
    service: &Arc<Service>,
    port: u16,
    waypoint: &Waypoint,
) -> Vec<Node> {
    let text = format!(
        "Gateway {} takes it: the worker of namespace {} on the client's node routes its requests",
        waypoint.key, waypoint.key.namespace
    );
    let mut taken = Node::holds("waypoint", text);
    if let Some(canary) = &service.canary {
        let text = format!(
            "{} of 100 connections go to Gateway {} instead",
            canary.weight, canary.waypoint
        );
        taken.steps.push(Node::notes("canary", text));
    }
    let Some(request) = &way.asked.request else {
        let text = "bytes that are not HTTP go to an endpoint of the service itself; give --method or --path to ask about a request";
        return vec![taken, Node::notes("route", text), layer4::bytes(way, service, port, None)];
    };
    let asking = way.asking(Some(&service.key), port);
    let mut request = asking.copy(request);
    if let Err(answer) = asking.canonical(&mut request) {
        return vec![taken, of_answer("request", answer)];
    }
    let ruled = match asking.rule(&request) {
        Ok(ruled) => ruled,
        Err((answer, candidates)) => {
            return vec![taken, of_answer("route", answer).with(passed_over(&candidates, None))];
        }
    };
    let mut steps = vec![taken];
    steps.extend(by_rule(way, &asking, (service, port), &request, ruled));
    steps
}

fn of_answer(step: &str, answer: OwnAnswer) -> Node {
    Node::refuses(step, answer.why).flag(answer.flag).status(answer.status.as_u16())
}

/// What is left once it is known which rule holds.
fn by_rule(
    way: &Way<'_>,
    asking: &Asking<'_>,
    (service, port): (&Arc<Service>, u16),
    request: &Request<()>,
    ruled: Ruled,
) -> Vec<Node> {
    let Ruled { rule, candidates } = ruled;
    let chosen = rule.as_ref().and_then(|(route, at)| Some((route, *at, route.rules.get(*at)?)));
    let Some((route, at, rule)) = chosen else {
        let text = format!(
            "{service} has no route for this client: the request goes to the service itself"
        );
        let none = Node::notes("route", text);
        let of_service = filters(way, asking, service.filters_on(port), &[], request);
        if let Some(end) = ending(&of_service) {
            return vec![none, end];
        }
        let forwarded = asking.forward(request, None, [&[], &[]]);
        let sent = Sent::Request { forwarded: &forwarded, before: request, rule: None };
        let backend = Backend { service, port, subset: None };
        let node = Node::holds("backend", format!("{service}, port {port}"));
        let node = node.with(destination::endpoints(way, asking, backend, sent));
        return [vec![none], of_service, vec![node]].concat();
    };
    let mut node =
        Node::holds("route", format!("{} {}: {}", route.kind, route.key, named(route, at)));
    node.steps.extend(passed_over(&candidates, Some((route, at))));
    node.steps.extend(settings(rule));
    let of_service = filters(way, asking, service.filters_on(port), &rule.filters, request);
    let of_rule = filters(way, asking, &rule.filters, &[], request);
    let asked = [of_service, of_rule].concat();
    if let Some(end) = ending(&asked) {
        return vec![node, end];
    }
    node.steps.extend(asked);
    let backends = backends(way, asking, (route, at, rule), request);
    [vec![node], backends].concat()
}

/// A filter that answers.
fn ending(filters: &[Node]) -> Option<Node> {
    filters.iter().find(|it| it.verdict == super::Verdict::Answers).cloned()
}

fn named(route: &HttpRoute, at: usize) -> String {
    match route.rules.get(at).map(|rule| rule.name.as_str()).filter(|name| !name.is_empty()) {
        Some(name) => format!("rule {at} ({name})"),
        None => format!("rule {at}"),
    }
}

/// The matches before the one that holds, or all where none does.
fn passed_over(candidates: &[Candidate], chosen: Option<(&Arc<HttpRoute>, usize)>) -> Vec<Node> {
    let holds = |it: &Candidate| {
        let is_chosen =
            |(route, at): (&Arc<HttpRoute>, usize)| Arc::ptr_eq(route, &it.route) && at == it.rule;
        it.missing.is_empty() && chosen.is_some_and(is_chosen)
    };
    let before = candidates.iter().take_while(|it| !holds(it));
    let mut nodes: Vec<Node> = before
        .take(MOST_CANDIDATES)
        .map(|it| {
            let Candidate { route, rule, matched, missing } = it;
            let text = format!(
                "{} {}: {}, match {matched} {}",
                route.kind,
                route.key,
                named(route, *rule),
                missing.join(", and ")
            );
            Node::passes_over("match", text)
        })
        .collect();
    if let Some(it) = candidates.iter().find(|it| holds(it)) {
        let Candidate { matched, .. } = it;
        nodes.push(Node::holds(
            "match",
            format!("match {matched} holds, the first in the order of precedence"),
        ));
    }
    nodes
}

/// Timeouts and retries of the rule.
fn settings(rule: &HttpRule) -> Vec<Node> {
    let mut nodes = Vec::new();
    let timeouts = [
        ("request", rule.timeouts.request),
        ("backendRequest", rule.timeouts.backend_request),
        ("perTryTimeout", rule.timeouts.per_try),
    ];
    let said: Vec<String> = timeouts
        .iter()
        .filter_map(|(name, limit)| Some(format!("{name} {:?}", (*limit)?)))
        .collect();
    if !said.is_empty() {
        nodes.push(Node::notes("timeouts", said.join(", ")));
    }
    if let Some(retry) = &rule.retry {
        let text = serde_json::to_string(retry).unwrap_or_default();
        nodes.push(Node::notes("retry", text));
    }
    nodes
}

/// What filters do. Those that answer by what they are written to are asked; limits and faults, which count or draw, are named.
fn filters(
    way: &Way<'_>,
    asking: &Asking<'_>,
    filters: &[HttpFilter],
    instead: &[HttpFilter],
    request: &Request<()>,
) -> Vec<Node> {
    let mut nodes = Vec::new();
    for filter in filters {
        if crate::filter::has_type_of(instead, filter) {
            let text =
                format!("{} of the service is not asked: the rule has its own", filter.field());
            nodes.push(Node::passes_over("filter", text));
            continue;
        }
        nodes.push(match answers(way, asking, filter, request) {
            Some((status, why)) => {
                Node::answers("filter", format!("{}: {why}", filter.field())).status(status)
            }
            None => Node::notes("filter", format!("{}: {}", filter.field(), written(filter))),
        });
    }
    nodes
}

fn written(filter: &HttpFilter) -> String {
    let value = serde_json::to_value(filter).unwrap_or_default();
    let inner = value.as_object().and_then(|it| it.values().next());
    inner.unwrap_or(&value).to_string()
}

/// The answer of a filter that decides by the request alone.
fn answers(
    way: &Way<'_>,
    asking: &Asking<'_>,
    filter: &HttpFilter,
    request: &Request<()>,
) -> Option<(u16, String)> {
    let asks_nobody = matches!(
        filter,
        HttpFilter::Redirect(_)
            | HttpFilter::RedirectTo(_)
            | HttpFilter::DirectResponse(_)
            | HttpFilter::Cors(_)
            | HttpFilter::CorsPolicy(_)
    );
    if !asks_nobody {
        return None;
    }
    let cx = Cx {
        port: asking.dialled.port(),
        identity: Some(&way.asked.client.identity),
        address: way.asked.client_address.ip(),
        service: asking.service,
        pod: "",
        route: None,
        spread: None,
        claims: None,
        level: None,
    };
    let mut headers = request.headers().clone();
    let mut head =
        RequestHead { method: request.method(), uri: request.uri(), headers: &mut headers };
    match filter.request(&mut head, &cx) {
        Flow::Answer(answer) => {
            let location =
                answer.headers.get(http::header::LOCATION).and_then(|it| it.to_str().ok());
            let to =
                location.map(|it| format!("to {it}")).unwrap_or_else(|| answer.why.to_string());
            Some((answer.status.as_u16(), to))
        }
        _ => None,
    }
}

fn backends(
    way: &Way<'_>,
    asking: &Asking<'_>,
    (route, at, rule): (&Arc<HttpRoute>, usize, &HttpRule),
    request: &Request<()>,
) -> Vec<Node> {
    let all: u32 = rule.backends.iter().map(|it| it.weight).sum();
    if all == 0 {
        let text = format!(
            "{} of {} {} has no backend with a weight",
            named(route, at),
            route.kind,
            route.key
        );
        return vec![Node::refuses("backend", text).flag(Reason::NoRoute.flag()).status(500)];
    }
    let nodes = rule.backends.iter().map(|backend| match &backend.target {
        _ if backend.weight == 0 => Node::passes_over("backend", "it has the weight 0"),
        BackendRef::Invalid { status, why } => {
            let node = Node::refuses("backend", why.to_string());
            node.flag(Reason::NoRoute.flag()).status(status.as_u16())
        }
        BackendRef::Service { service, port } => {
            let Some(found) = way.world.service(service) else {
                let node = Node::refuses("backend", format!("Service {service} does not exist"));
                return node.flag(Reason::NoRoute.flag()).status(500);
            };
            let filters: Pair<'_> = [&rule.filters, &backend.filters];
            let forwarded = asking.forward(request, Some((route, at)), filters);
            let subset = backend.subset.as_deref();
            let of_subset = subset.map(|name| format!(", subset {name}")).unwrap_or_default();
            let share = format!("{} of {all}", backend.weight);
            let text = format!("{found}, port {port}{of_subset} ({share})");
            let sent = Sent::Request { forwarded: &forwarded, before: request, rule: Some((route, rule)) };
            let to = Backend { service: found, port: *port, subset };
            let mut node = Node::holds("backend", text);
            if forwarded.request.uri() != request.uri() {
                let text = format!("the target becomes {}", forwarded.request.uri());
                node.steps.push(Node::notes("rewrite", text));
            }
            if let Some(name) = subset.filter(|name| found.subset(&way.asked.client, name).is_none()) {
                let text = format!("no DestinationRule that holds for this client names a subset {name:?} of {found}");
                let refused = Node::refuses("subset", text).flag(Reason::NoRoute.flag());
                return node.with([refused.status(503)]);
            }
            node.with(destination::endpoints(way, asking, to, sent))
        }
    });
    nodes.collect()
}
