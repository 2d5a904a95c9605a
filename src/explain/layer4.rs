//! Services without a waypoint, and routes of connections (TCPRoute, TLSRoute, `tcp` and `tls` of VirtualServices).

use std::sync::Arc;

use super::Way;
use super::destination::{self, Backend, Sent};
use super::tree::Node;
use crate::base::Reason;
use crate::filter::BackendRef;
use crate::model::{AppProtocol, Binding, Service, StreamRoute};
use crate::route::Streams;

/// Why no waypoint takes it.
pub(super) fn without_waypoint(way: &Way<'_>, service: &Service, port: u16) -> Node {
    let protocol = service.port(port).map(|port| port.protocol);
    let text = match (&service.waypoint, protocol) {
        (Binding::None, _) => format!(
            "{service} is bound to no waypoint (istio.io/use-waypoint on it or its namespace): layer 4 alone"
        ),
        (Binding::Waypoint(waypoint), Some(AppProtocol::Tcp)) => format!(
            "port {port} of {service} speaks TCP by its appProtocol or name, so Gateway {waypoint} does not parse it"
        ),
        (Binding::Waypoint(waypoint), _) => {
            format!(
                "Gateway {waypoint} does not take traffic that is addressed to Services (istio.io/waypoint-for)"
            )
        }
        (Binding::Unusable { waypoint, why }, _) => {
            format!("Gateway {waypoint} cannot be used: {why}")
        }
    };
    let node = Node::notes("waypoint", text);
    let routes = way.world.routes_of(&service.key);
    match routes.is_empty() {
        true => node,
        false => {
            let without_effect = routes.iter().map(|route| {
                let text = format!("{} {} has no effect without a waypoint", route.kind, route.key);
                Node::passes_over("route", text)
            });
            node.with(without_effect)
        }
    }
}

/// The endpoints of a service, for bytes.
pub(super) fn bytes(
    way: &Way<'_>,
    service: &Arc<Service>,
    port: u16,
    subset: Option<&str>,
) -> Node {
    let asking = way.asking(Some(&service.key), port);
    let backend = Backend { service, port, subset };
    let of_subset = subset.map(|name| format!(", subset {name}")).unwrap_or_default();
    let text = format!("{service}, port {port}{of_subset}");
    let mut node = Node::holds("backend", text);
    if way.asked.request.is_some() {
        let text = "this is judged as bytes: no worker parses it at the client's node";
        node.steps.push(Node::notes("request", text));
    }
    // Without a waypoint the destination may still judge requests, by policies of the workload.
    let request = way.asked.request.as_ref().map(|request| {
        let mut request = asking.copy(request);
        asking.canonical(&mut request).map(|()| asking.forward(&request, None, [&[], &[]]))
    });
    let sent = match &request {
        Some(Ok(forwarded)) => Sent::Request { forwarded, before: &forwarded.request, rule: None },
        _ => Sent::Bytes,
    };
    node.steps.extend(destination::endpoints(way, &asking, backend, sent));
    node
}

/// The routes of connections that hold.
pub(super) fn routed(way: &Way<'_>, service: &Arc<Service>, routes: &Streams) -> Vec<Node> {
    let chosen = match routes {
        Streams::Tcp(route) => Ok(Some(route)),
        Streams::Tls(all) => match &way.asked.server_name {
            None => Err("which TLSRoute holds depends on the server that the client asks for: say --sni".to_owned()),
            Some(name) => match Streams::named(all, name) {
                Some(route) => Ok(Some(route)),
                None => {
                    let flag = Reason::NoRoute.flag();
                    let text = format!("no TLSRoute of {service} is for the server {name:?}");
                    return vec![Node::refuses("route", text).flag(flag)];
                }
            },
        },
        Streams::Named { .. } => {
            Err("a VirtualService leads connections by the server's name (tls), or as its tcp rules say".to_owned())
        }
    };
    match chosen {
        Err(text) => vec![Node::notes("route", text)],
        Ok(None) => vec![bytes(way, service, way.asked.dialled.port(), None)],
        Ok(Some(route)) => vec![
            Node::holds("route", format!("{:?} {} leads the connection", route.kind, route.key))
                .with(backends(way, route)),
        ],
    }
}

fn backends(way: &Way<'_>, route: &StreamRoute) -> Vec<Node> {
    let all: u32 = route.backends.iter().map(|it| it.weight).sum();
    let nodes = route.backends.iter().map(|backend| match &backend.target {
        _ if backend.weight == 0 => Node::passes_over("backend", "it has the weight 0"),
        BackendRef::Invalid { why, .. } => {
            Node::refuses("backend", why.to_string()).flag(Reason::NoRoute.flag())
        }
        BackendRef::Service { service, port } => match way.world.service(service) {
            None => Node::refuses("backend", format!("Service {service} does not exist")),
            Some(found) => {
                let mut node = bytes(way, found, *port, backend.subset.as_deref());
                node.text = format!("{} ({} of {all})", node.text, backend.weight);
                node
            }
        },
    });
    nodes.collect()
}

/// A wildcard whose server the client names.
pub(super) fn named(way: &Way<'_>, service: &Service) -> Node {
    match &way.asked.server_name {
        Some(name) => Node::notes(
            "route",
            format!("{service} is a wildcard: the address of {name} is looked up and judged then"),
        ),
        None => Node::notes(
            "route",
            format!(
                "{service} is a wildcard: the server's name in TLS says which is meant; say --sni"
            ),
        ),
    }
}
