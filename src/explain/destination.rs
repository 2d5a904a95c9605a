//! The endpoints of a service, and what is decided at each: by its own agent, or by the client's where it has none.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;

use super::Way;
use super::question::Asked;
use super::tree::Node;
use crate::base::{Reason, Str, ports};
use crate::gate::{self, Gate, Whose};
use crate::l7::explained::{Asking, Forwarded, Judged};
use crate::model::{
    Action, Endpoint, HttpRoute, HttpRule, Mode, Preference, Resolution, Service, Workload,
};
use crate::policy::Explained;
use crate::world::{Owner, World};

/// Endpoints that are told of, at the most: the others are counted.
const MOST_ENDPOINTS: usize = 20;
/// The same of policies of one set that do not match.
const MOST_POLICIES: usize = 30;

/// What is sent to an endpoint.
#[derive(Clone, Copy)]
pub(super) enum Sent<'a> {
    Bytes,
    Request {
        /// As it arrives.
        forwarded: &'a Forwarded,
        /// As the client sent it.
        before: &'a Request<()>,
        /// What led there.
        rule: Option<(&'a HttpRoute, &'a HttpRule)>,
    },
}

/// A backend: some endpoints of a service on one of its ports.
#[derive(Clone, Copy)]
pub(super) struct Backend<'a> {
    pub(super) service: &'a Arc<Service>,
    pub(super) port: u16,
    pub(super) subset: Option<&'a str>,
}

/// All endpoints of a backend, each with what is decided there.
pub(super) fn endpoints(
    way: &Way<'_>,
    asking: &Asking<'_>,
    backend: Backend<'_>,
    sent: Sent<'_>,
) -> Vec<Node> {
    let Backend { service, port, .. } = backend;
    if service.resolution == Resolution::Dialled {
        let text = format!("{} as dialled ({service} has the resolution NONE)", way.asked.dialled);
        return vec![endpoint(way, asking, backend, (way.asked.dialled, None), sent, text)];
    }
    let mut nodes: Vec<Node> = Vec::new();
    let nearest = nearest(way, backend);
    for of in service.endpoints.iter().take(MOST_ENDPOINTS) {
        let Some(target) = of.target_port(port) else {
            nodes.push(Node::passes_over(
                "endpoint",
                format!("{}: it does not serve port {port}", name(of)),
            ));
            continue;
        };
        let text = match &of.workload {
            Some(_) => format!("{} on node {}", name(of), known(&of.node)),
            None => name(of),
        };
        match left_out(way, backend, of, target, nearest) {
            Some(why) => nodes.push(Node::passes_over("endpoint", format!("{text}: {why}"))),
            None => match of.addresses.first() {
                Some(address) => {
                    let to = SocketAddr::new(*address, target);
                    nodes.push(endpoint(
                        way,
                        asking,
                        backend,
                        (to, of.workload.as_ref()),
                        sent,
                        text,
                    ));
                }
                None => {
                    let text = format!(
                        "{text}: its addresses are those of its name, when it is asked for"
                    );
                    nodes.push(Node::holds("endpoint", text));
                }
            },
        }
    }
    once(&mut nodes);
    if service.endpoints.len() > MOST_ENDPOINTS {
        let more = service.endpoints.len() - MOST_ENDPOINTS;
        nodes.push(Node::notes("endpoint", format!("{more} more endpoints are not told of")));
    }
    if !nodes.iter().any(|node| node.verdict == super::Verdict::Holds) {
        let flag = Reason::NoHealthyUpstream.flag();
        let text = format!("{service} has no endpoint that takes this on port {port}");
        nodes.push(Node::refuses("endpoints", text).flag(flag).status(503));
    }
    nodes
}

/// Tells of policies once, where they say the same at several endpoints.
fn once(endpoints: &mut [Node]) {
    let mut told: Vec<Node> = Vec::new();
    for policies in
        endpoints.iter_mut().flat_map(|it| &mut it.steps).filter(|it| it.step == "policies")
    {
        match told.contains(policies) {
            false => told.push(policies.clone()),
            true => {
                policies.steps.clear();
                policies.text.push_str(" (as above)");
            }
        }
    }
}

fn known(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

fn name(endpoint: &Endpoint) -> String {
    let addresses: Vec<String> = endpoint.addresses.iter().map(ToString::to_string).collect();
    match (&endpoint.workload, &endpoint.name) {
        (Some(uid), _) => {
            let pod = uid.rsplit_once("//").map_or(uid.as_str(), |(_, of)| of);
            format!("{pod} at {}", addresses.join(" and "))
        }
        (None, Some(name)) => format!("the name {name}"),
        (None, None) => addresses.join(" and "),
    }
}

/// Why an endpoint gets nothing of this.
fn left_out(
    way: &Way<'_>,
    backend: Backend<'_>,
    of: &Endpoint,
    target: u16,
    nearest: Option<u8>,
) -> Option<String> {
    let Backend { service, port, subset } = backend;
    let client = &way.asked.client;
    if let Some(name) = subset {
        let has = service.subset(client, name).is_some_and(|it| it.has(&of.subsets));
        if !has {
            return Some(format!("it has not the labels of the subset {name}"));
        }
    }
    if !of.ready {
        return Some(match of.terminating {
            true => "it is being deleted; it is taken only where none is ready".to_owned(),
            false => "it is not ready".to_owned(),
        });
    }
    if service.balancing.local_only && of.node != client.node {
        return Some("it is on another node (internalTrafficPolicy: Local)".to_owned());
    }
    let destination = match subset {
        None => service.destination(client, port),
        Some(name) => service.subset(client, name).and_then(|it| it.on(port)),
    };
    let ejected = destination.and_then(|it| it.ejected());
    let is_ejected = |address: &std::net::IpAddr| {
        let at = SocketAddr::new(*address, target);
        ejected.as_ref().is_some_and(|it| it.endpoints().any(|out| out == at))
    };
    if of.addresses.iter().any(is_ejected) {
        return Some("outlier detection has ejected it on this node".to_owned());
    }
    match nearest {
        Some(nearest) if distance(service, client, of) > nearest => {
            Some("others are nearer (trafficDistribution)".to_owned())
        }
        _ => None,
    }
}

/// How near the nearest endpoint is that may be taken, where nearness counts.
fn nearest(way: &Way<'_>, backend: Backend<'_>) -> Option<u8> {
    let service = backend.service;
    if service.balancing.preference == Preference::None {
        return None;
    }
    let taken = service.endpoints.iter().filter(|it| {
        let target = it.target_port(backend.port);
        target.is_some_and(|target| left_out(way, backend, it, target, None).is_none())
    });
    taken.map(|it| distance(service, &way.asked.client, it)).min()
}

fn distance(service: &Service, client: &Workload, endpoint: &Endpoint) -> u8 {
    crate::balance::distance(service.balancing.preference, client, endpoint)
}

fn endpoint(
    way: &Way<'_>,
    asking: &Asking<'_>,
    backend: Backend<'_>,
    (to, uid): (SocketAddr, Option<&Str>),
    sent: Sent<'_>,
    text: String,
) -> Node {
    let workload = match uid {
        Some(uid) => way.world.workload(uid),
        None => way.world.workload_at(to.ip()),
    };
    let node = Node::holds("endpoint", text);
    let Backend { service, port, subset } = backend;
    let captured = workload.filter(|workload| workload.is_captured());
    let namespace = &asking.client.key.namespace;
    let encryption = gate::encryption(service, (port, subset), namespace, captured.is_some());
    let encryption = match encryption {
        Ok(origin) => origin.map(|origin| origin.settings().by.to_string()),
        Err(why) => {
            let refused = Node::refuses("identity", why).flag(Reason::Unencrypted.flag());
            return node.with([refused.status(503)]);
        }
    };
    match captured {
        Some(workload) => node.with([
            identity(asking.client, workload, to),
            policies(way.world, workload, to.port(), judged(asking, workload, to, sent), sent),
        ]),
        None => {
            let text = match encryption {
                Some(by) => format!("TLS to the application, as {by} says; no agent is there"),
                None => "plain TCP: no agent is there, so the client's node judges".to_owned(),
            };
            let judged = judged_here(way, asking, backend, (to, workload), sent);
            let own = judged.map(|judged| of_judged(judged, sent));
            node.with(std::iter::once(Node::notes("identity", text)).chain(own))
        }
    }
}

fn judged(asking: &Asking<'_>, workload: &Arc<Workload>, to: SocketAddr, sent: Sent<'_>) -> Judged {
    match sent {
        Sent::Bytes => asking.judge_bytes(workload, to, None),
        Sent::Request { forwarded, .. } => asking.judge(workload, to, forwarded),
    }
}

/// What the client's half decides itself of a destination without an agent.
fn judged_here(
    way: &Way<'_>,
    asking: &Asking<'_>,
    backend: Backend<'_>,
    (to, workload): (SocketAddr, Option<&Arc<Workload>>),
    sent: Sent<'_>,
) -> Option<Judged> {
    let addressed = way.world.service(asking.service?)?;
    let rule = match sent {
        Sent::Request { rule, .. } => rule,
        Sent::Bytes => None,
    };
    let gate = Gate::for_uncaptured(
        way.world,
        &gate::Way {
            addressed,
            port: asking.dialled.port(),
            route: rule.map(|(route, _)| &route.key),
            delegate: rule.and_then(|(_, rule)| rule.delegate.as_ref()),
            backend: (backend.service, backend.port),
            workload: workload.map(|it| &**it),
            destination: to,
        },
    );
    match sent {
        Sent::Request { forwarded, before, .. } => {
            Some(asking.judge_here(&gate, to, forwarded, before))
        }
        Sent::Bytes => Some(asking.judge_bytes_here(&gate, to)),
    }
}

fn identity(client: &Workload, workload: &Workload, to: SocketAddr) -> Node {
    if !client.is_captured() {
        return Node::notes(
            "identity",
            "the client proves nothing: its connection is in the clear",
        );
    }
    let text = match !client.node.is_empty() && client.node == workload.node {
        true => format!(
            "within the agent of node {} if it may (same_node), else by HBONE to {}:{}; {} and {} are known to it",
            client.node,
            to.ip(),
            ports::HBONE,
            client.identity,
            workload.identity
        ),
        false => format!(
            "HBONE to {}:{} over mutual TLS: the client proves {}, the endpoint must prove {}",
            to.ip(),
            ports::HBONE,
            client.identity,
            workload.identity
        ),
    };
    Node::holds("identity", text)
}

/// What is decided at a workload, with everything that had a say.
fn policies(
    world: &World,
    workload: &Arc<Workload>,
    port: u16,
    judged: Judged,
    sent: Sent<'_>,
) -> Node {
    let present = world.workload(&workload.uid).unwrap_or(workload);
    let mode = match present.peer_authentication.mode_of(port) {
        Mode::Strict => "STRICT: only mutual TLS is taken",
        Mode::Permissive => "PERMISSIVE: plaintext is taken as well",
    };
    let mode = Node::notes("peer authentication", format!("port {port} is {mode}"));
    let addressed = match &judged.addressed {
        Some(host) => format!("{host} was addressed, and leads here"),
        None => "the pod itself was addressed".to_owned(),
    };
    let mut node = of_judged(judged, sent);
    node.steps.splice(0..0, [Node::notes("addressed", addressed), mode]);
    node
}

fn of_judged(judged: Judged, sent: Sent<'_>) -> Node {
    let Judged { verdict, policies, status, .. } = judged;
    let mut node = match &verdict {
        Ok(permitted) => {
            let by = match &permitted.policy {
                Some(policy) => format!("permitted by AuthorizationPolicy {policy}"),
                None => "permitted: no ALLOW policy applies".to_owned(),
            };
            let beside = permitted.waypoint.as_ref();
            let beside = beside
                .map(|it| format!(", with the principal of the waypoint {it} beside the client's"));
            let providers = permitted.asks.iter().map(|name| {
                Node::notes(
                    "provider",
                    format!("{name} is asked first (CUSTOM), and may refuse or change it"),
                )
            });
            let notes = permitted.notes.iter().map(|note| Node::notes("policy", note.to_string()));
            Node::holds("policies", by + &beside.unwrap_or_default()).with(providers).with(notes)
        }
        Err(denial) => {
            let refused = Node::refuses("policies", denial.why.clone()).flag(Reason::Denied.flag());
            match sent {
                Sent::Request { .. } => refused.status(status),
                Sent::Bytes => refused,
            }
        }
    };
    for (whose, set) in policies.into_iter().filter(|(_, set)| !set.is_empty()) {
        node.steps.push(of_set(whose, set));
    }
    node
}

fn of_set(whose: Whose, set: Vec<Explained>) -> Node {
    let text = match whose {
        Whose::AddressedService => "of the addressed service's waypoint, which restricts",
        Whose::Waypoint => "of the waypoint and of what is bound to it",
        Whose::Workload => "of the workload, its namespace and the mesh",
    };
    let (matching, others): (Vec<_>, Vec<_>) = set.into_iter().partition(|it| it.matched.is_some());
    let more = others.len().saturating_sub(MOST_POLICIES);
    let shown = matching.into_iter().chain(others.into_iter().take(MOST_POLICIES)).map(of_policy);
    let mut node = Node::notes("set", text).with(shown);
    if more > 0 {
        node.steps.push(Node::passes_over("policy", format!("{more} more that do not match")));
    }
    node
}

fn of_policy(explained: Explained) -> Node {
    let Explained { policy, matched, without_http, missing } = explained;
    let action = match policy.action {
        Action::Custom => "CUSTOM",
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
        Action::Audit => "AUDIT",
        Action::Authenticate => "its tokens are verified",
    };
    let dry = if policy.dry_run { ", dry-run" } else { "" };
    if let Some(why) = &policy.broken {
        return Node::notes(
            "policy",
            format!("{policy} ({action}): it cannot be understood: {why}"),
        );
    }
    match matched {
        Some(rule) => {
            let less = match without_http {
                true => {
                    "; what it says of HTTP does not count, since these bytes are not parsed (give it ports)"
                }
                false => "",
            };
            Node::notes("policy", format!("{policy} ({action}{dry}): rule {rule} matches{less}"))
        }
        None => {
            let lacks = missing.into_iter().enumerate().flat_map(|(rule, lacks)| {
                let told = move |it| Node::passes_over("rule", format!("rule {rule}: {it}"));
                lacks.into_iter().map(told)
            });
            let text = format!("{policy} ({action}{dry}): no rule matches");
            Node::passes_over("policy", text).with(lacks)
        }
    }
}

/// A workload that was dialled by its address.
pub(super) fn workload(way: &Way<'_>, workload: &Arc<Workload>, to: SocketAddr) -> Node {
    let text = format!("Pod {} at {to} on node {}", workload.key, known(&workload.node));
    let node = Node::holds("endpoint", text);
    if !workload.is_captured() {
        return node.with([Node::notes("identity", "plain TCP: no agent is there")]);
    }
    let asking = Asking { service: None, ..way.asking(None, to.port()) };
    let request = way.asked.request.as_ref().map(|request| {
        let mut request = asking.copy(request);
        let canonical = asking.canonical(&mut request);
        canonical.map(|()| asking.forward(&request, None, [&[], &[]]))
    });
    match &request {
        None => {
            let judged = judged(&asking, workload, to, Sent::Bytes);
            let own = policies(way.world, workload, to.port(), judged, Sent::Bytes);
            node.with([identity(asking.client, workload, to), own])
        }
        Some(Err(answer)) => {
            let refused = Node::refuses("request", answer.why.clone()).flag(answer.flag);
            node.with([refused.status(answer.status.as_u16())])
        }
        Some(Ok(forwarded)) => {
            let sent = Sent::Request { forwarded, before: &forwarded.request, rule: None };
            let judged = judged(&asking, workload, to, sent);
            let own = policies(way.world, workload, to.port(), judged, sent);
            node.with([identity(asking.client, workload, to), own])
        }
    }
}

/// What comes in the clear from a client without an agent: the node's kernel chooses the endpoint of a Service, and routes and
/// waypoints of the client's side do not apply.
pub(super) fn from_outside(world: &World, asked: &Asked) -> Vec<Node> {
    let way = Way { world, asked };
    let dialled = asked.dialled;
    let mut steps = vec![way.dialled()];
    let address = dialled.ip().to_canonical();
    match world.owner_of(address, dialled.port(), &asked.client.key.namespace) {
        Some(Owner::Workload(of)) => steps.push(workload(&way, of, dialled)),
        Some(Owner::Service(service)) => {
            let text = "the client's node has no agent in the way: kube-proxy chooses the endpoint, and no route applies";
            steps.push(Node::notes("waypoint", text));
            for of in &service.endpoints {
                let known = of.workload.as_ref().and_then(|uid| world.workload(uid));
                let target = of.target_port(dialled.port());
                let (Some(known), Some(target), Some(address)) =
                    (known, target, of.addresses.first())
                else {
                    continue;
                };
                match of.ready {
                    true => steps.push(workload(&way, known, SocketAddr::new(*address, target))),
                    false => steps.push(Node::passes_over(
                        "endpoint",
                        format!("{}: it is not ready", name(of)),
                    )),
                }
            }
        }
        None => {
            steps.push(Node::notes("endpoint", "neither side is of the mesh, which has no say"))
        }
    }
    steps
}
