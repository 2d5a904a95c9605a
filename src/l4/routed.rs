//! Connections to a service whose TCPRoute or TLSRoutes hold: the backend, and for TLS the name that selects the route.
//!
//! The backend's own policies judge at its endpoints, as if the client had dialled it: a route gives nobody a way that the
//! client does not have without it. Nor does it use the client's name where neither the client nor the route's author belongs
//! ([`Lent`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncRead;

use super::Proxy;
use super::outbound::{Begins, Outbound};
use crate::base::{Reason, Str};
use crate::model::{BackendRef, NameMatch, Resolution, Service, StreamRoute};
use crate::reach::{Failure, Lent};
use crate::route::{self, Streams};
use crate::sock::Rewind;
use crate::sock::hello::{self, Opening};
use crate::world::World;

impl Proxy {
    /// Carries the connection to the backend whose turn it is.
    pub(super) async fn carry_by_route(
        &self,
        mut outbound: Outbound,
        service: Arc<Service>,
        routes: Streams,
    ) {
        let front = match self.read_claim(&mut outbound, &service, &routes).await {
            Ok(front) => front,
            Err(failure) => return self.refuse_routed(&outbound, &service, failure),
        };
        let name = outbound.begins.claim().map(Str::as_str);
        let found = match routes {
            Streams::Tcp(route) => Ok(Some(route)),
            Streams::Named { rules, rest } => {
                Ok(name.and_then(|name| first_named(rules, name)).or(rest))
            }
            Streams::Tls(routes) => named(&routes, name.unwrap_or_default(), &service).map(Some),
        };
        let route = match found {
            Ok(Some(route)) => route,
            Ok(None) => {
                let whole = |stream| Rewind { front, stream };
                return self.carry_to_service(outbound, &service, whole).await;
            }
            Err(failure) => return self.refuse_routed(&outbound, &service, failure),
        };
        // Over one snapshot, which is let go before anything is awaited.
        let found = {
            let world = self.shared.world.load();
            outbound.lent = Lent::of(&world, outbound.client(), &service, (route.kind, &route.key));
            backend(&world, &route)
        };
        match found {
            Ok((backend, port, subset)) => {
                (outbound.port, outbound.subset, outbound.routed) = (port, subset, true);
                let whole = |stream| Rewind { front, stream };
                self.carry_to_service(outbound, &backend, whole).await;
            }
            Err(failure) => self.refuse_routed(&outbound, &service, failure),
        }
    }

    /// Reads the name of the server that the client claims, as far as the routes or the service need it, and gives what was read.
    async fn read_claim(
        &self,
        outbound: &mut Outbound,
        service: &Service,
        routes: &Streams,
    ) -> Result<Bytes, Failure> {
        let wait = self.shared.settings.connect_timeout;
        let is_needed =
            matches!(routes, Streams::Tls(_)) || service.resolution == Resolution::Dynamic;
        let stream = &mut outbound.accepted.stream;
        if is_needed {
            let (name, front) = Box::pin(read_hello(stream, wait)).await?;
            self.claims(outbound, service, name.into())?;
            return Ok(front);
        }
        if !matches!(routes, Streams::Named { .. }) {
            return Ok(Bytes::new());
        }
        // A client that waits for the server to speak gets no longer, and then names none.
        let (opening, front) = Box::pin(hello::read(stream, wait)).await;
        match opening {
            Ok(Opening::Tls(Some(name))) => self.claims(outbound, service, name.into())?,
            Ok(Opening::Tls(None) | Opening::Other) => outbound.begins = Begins::Nameless,
            Err(_) => outbound.begins = Begins::Unclear,
        }
        Ok(front)
    }
}

fn named(
    routes: &[Arc<StreamRoute>],
    name: &str,
    service: &Service,
) -> Result<Arc<StreamRoute>, Failure> {
    Streams::named(routes, name).cloned().ok_or_else(|| {
        let why = format!("no TLSRoute of {service} has a hostname that matches {name:?}");
        Failure { reason: Reason::NoRoute, why }
    })
}

/// The backend whose turn it is, its port, and the subset of its endpoints.
fn backend(
    world: &World,
    route: &StreamRoute,
) -> Result<(Arc<Service>, u16, Option<Str>), Failure> {
    let failure = |reason, why: &str| {
        let why = format!("{} {}: {why}", route.kind, route.key);
        Err(Failure { reason, why })
    };
    let backend = route::next_backend_of_stream(route);
    match backend.map(|backend| &backend.target) {
        None => failure(Reason::NoRoute, "no backend has a weight"),
        Some(BackendRef::Invalid { why, .. }) => failure(Reason::NoRoute, why),
        Some(BackendRef::Service { service: key, port }) => match world.service(key) {
            None => failure(Reason::NoRoute, &format!("Service {key} does not exist")),
            Some(service) => match route::waypoint_of(world, service) {
                Ok(_) => {
                    let subset = backend.and_then(|backend| backend.subset.clone());
                    Ok((service.clone(), *port, subset))
                }
                Err(why) => failure(Reason::WaypointUnusable, &why),
            },
        },
    }
}

/// The name of the server that the client asks for in TLS, and what was read of the client. Waits `wait` for it.
pub(super) async fn read_hello<S: AsyncRead + Unpin>(
    stream: &mut S,
    wait: Duration,
) -> Result<(String, Bytes), Failure> {
    let refused = |why: &str| Failure { reason: Reason::NoRoute, why: why.to_owned() };
    let (opening, front) = hello::read(stream, wait).await;
    match opening {
        Ok(Opening::Tls(Some(name))) => Ok((name, front)),
        Ok(Opening::Tls(None)) => Err(refused("the client names no server (TLS, SNI)")),
        Ok(Opening::Other) => {
            Err(refused("what the client sends is not TLS, which names the server"))
        }
        Err(unread) => {
            let reason = unread.reason(Reason::NoRoute);
            Err(Failure { reason, why: unread.to_string() })
        }
    }
}

/// The first rule that has the name.
fn first_named(
    rules: Vec<(Vec<NameMatch>, Arc<StreamRoute>)>,
    name: &str,
) -> Option<Arc<StreamRoute>> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let mut matching =
        rules.into_iter().filter(|(names, _)| names.iter().any(|it| it.matches(&name)));
    matching.next().map(|(_, route)| route)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_names_no_server_is_closed_in_time_and_with_a_reason() {
        // A record that promises more than comes; a message of the largest length, without an end.
        let long = [&[22, 3, 1, 64, 0, 1, 0, 255, 255, 3, 3][..], &[0; 16 * 1024]].concat();
        for (bytes, reason, words) in [
            (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], Reason::NoRoute, "is not TLS"),
            (b"", Reason::Timeout, "in time"),
            (&long[..11], Reason::Timeout, "in time"),
            (&long, Reason::NoRoute, "TLS"),
        ] {
            let (mut client, mut server) = duplex(64 * 1024);
            client.write_all(bytes).await.unwrap();
            let failure = read_hello(&mut server, Duration::from_secs(10)).await.unwrap_err();
            assert_eq!(failure.reason, reason, "{}", failure.why);
            assert!(failure.why.contains(words), "{}", failure.why);
        }
        let (client, mut server) = duplex(64);
        drop(client);
        let failure = read_hello(&mut server, Duration::from_secs(10)).await.unwrap_err();
        assert_eq!(failure.reason, Reason::PeerReset);
    }
}
