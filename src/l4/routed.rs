//! Connections to a service whose TCPRoute or TLSRoutes hold: the backend, and for TLS the name that selects the route.
//!
//! The backend's own policies judge at its endpoints, as if the client had dialled it: a route gives nobody a way that the
//! client does not have without it. Nor does it use the client's name where neither the client nor the route's author belongs
//! ([`Lent`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Proxy;
use super::outbound::Outbound;
use crate::base::{Reason, Str};
use crate::model::{BackendRef, NameMatch, Resolution, Service, StreamRoute};
use crate::reach::{Failure, Lent};
use crate::route::{self, Streams};
use crate::sock::Rewind;
use crate::world::World;

/// How much of a client's first message of TLS is read, in bytes. With post-quantum key shares it has about two thousand; a record
/// of TLS holds at most 16 KiB.
const LONGEST_HELLO: usize = 16 * 1024;
/// Read at once.
const CHUNK: usize = 2 * 1024;

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
        let name = outbound.claim.as_deref();
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
        let (claim, front) = match routes {
            _ if is_needed => {
                let (name, front) = Box::pin(read_hello(stream, wait)).await?;
                (Some(name), front)
            }
            Streams::Named { .. } => Box::pin(peek_hello(stream, wait)).await,
            Streams::Tcp(_) | Streams::Tls(_) => (None, Bytes::new()),
        };
        if let Some(claim) = claim {
            self.claims(outbound, service, claim.into())?;
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

/// Reads until the client's first message of TLS is complete: the name of the server that it wants, and what was read. Waits
/// `wait` for all of it.
pub(super) async fn read_hello<S: AsyncRead + Unpin>(
    stream: &mut S,
    wait: Duration,
) -> Result<(String, Bytes), Failure> {
    let refused = |why: &str| Failure { reason: Reason::NoRoute, why: why.to_owned() };
    let reading = async {
        let mut read = BytesMut::new();
        let mut acceptor = Acceptor::default();
        loop {
            let known = read.len();
            read.reserve(CHUNK);
            match stream.read_buf(&mut read).await {
                Ok(0) => {
                    let why = "the client closed before it named a server (TLS, SNI)".to_owned();
                    return Err(Failure { reason: Reason::PeerReset, why });
                }
                Ok(_) => {}
                Err(error) => {
                    return Err(Failure { reason: Reason::PeerReset, why: error.to_string() });
                }
            }
            if let Some(name) = hello(&mut acceptor, &read[known..])? {
                return Ok((name, read.freeze()));
            }
            if read.len() >= LONGEST_HELLO {
                return Err(refused("the first message of TLS is longer than 16 KiB"));
            }
        }
    };
    let why = "the client sent no complete first message of TLS in time, which names the server";
    tokio::time::timeout(wait, reading)
        .await
        .unwrap_or_else(|_| Err(Failure { reason: Reason::Timeout, why: why.to_owned() }))
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

/// The name of the server, if the client begins with TLS and names one, and what was read. A client that waits for the server to
/// speak gets no longer than `wait`.
async fn peek_hello<S: AsyncRead + Unpin>(
    stream: &mut S,
    wait: Duration,
) -> (Option<String>, Bytes) {
    let mut read = BytesMut::new();
    let mut acceptor = Acceptor::default();
    let reading = async {
        while read.len() < LONGEST_HELLO {
            let known = read.len();
            read.reserve(CHUNK);
            stream.read_buf(&mut read).await.ok().filter(|count| *count > 0)?;
            match hello(&mut acceptor, &read[known..]) {
                Ok(None) => {}
                Ok(name) => return name,
                Err(_) => return None,
            }
        }
        None
    };
    let name = tokio::time::timeout(wait, reading).await.ok().flatten();
    (name, read.freeze())
}

/// The server's name, once the message is complete.
pub(super) fn hello(acceptor: &mut Acceptor, mut bytes: &[u8]) -> Result<Option<String>, Failure> {
    let refused = |why: String| Failure { reason: Reason::NoRoute, why };
    while !bytes.is_empty() {
        let taken = acceptor.read_tls(&mut bytes);
        taken.map_err(|error| refused(format!("the first message of TLS: {error}")))?;
        let accepted = acceptor.accept().map_err(|(error, _)| {
            refused(format!("what the client sends is not TLS, which names the server: {error}"))
        })?;
        if let Some(accepted) = accepted {
            let name = accepted.client_hello().server_name().map(str::to_owned);
            let missing = || refused("the client names no server (TLS, SNI)".to_owned());
            return name.ok_or_else(missing).map(Some);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    /// What a client sends first to a server of this name.
    fn first_message(name: &'static str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut message = Vec::new();
        client.write_tls(&mut message).unwrap();
        message
    }

    /// Cut into pieces of `size` bytes.
    async fn read(bytes: &[u8], size: usize) -> Result<(String, Bytes), Failure> {
        let (mut client, mut server) = duplex(64 * 1024);
        let sending = async {
            for piece in bytes.chunks(size) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client
        };
        let reading = read_hello(&mut server, Duration::from_secs(10));
        // The client stays.
        tokio::join!(sending, reading).1
    }

    #[tokio::test(start_paused = true)]
    async fn the_name_is_found_whole_or_in_pieces_and_nothing_is_lost() {
        let message = first_message("cart.example.org");
        for size in [1, 7, 100, message.len()] {
            let (name, front) = read(&message, size).await.unwrap();
            assert_eq!((name.as_str(), &front[..]), ("cart.example.org", &message[..]));
        }
        let with_more = [&message[..], b"early data"].concat();
        let (_, front) = read(&with_more, with_more.len()).await.unwrap();
        assert_eq!(front, with_more, "what follows is kept too");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_tls_is_kept_whole() {
        let message = first_message("cart.example.org");
        for (bytes, name) in [
            (&message[..], Some("cart.example.org")),
            (b"GET / HTTP/1.1\r\n", None),
            (b"", None),
            (&message[..40], None),
        ] {
            let (mut client, mut server) = duplex(64 * 1024);
            client.write_all(bytes).await.unwrap();
            let (found, front) = peek_hello(&mut server, Duration::from_secs(10)).await;
            assert_eq!((found.as_deref(), &front[..]), (name, bytes));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_names_no_server_is_closed_in_time_and_with_a_reason() {
        let message = first_message("cart.example.org");
        // A record that promises more than comes; a message of the largest length, without an end.
        let long = [&[22, 3, 1, 64, 0, 1, 0, 255, 255, 3, 3][..], &[0; 16 * 1024]].concat();
        for (bytes, reason, words) in [
            (&first_message("192.0.2.1")[..], Reason::NoRoute, "names no server"),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Reason::NoRoute, "is not TLS"),
            (b"", Reason::Timeout, "in time"),
            (&message[..message.len() - 1], Reason::Timeout, "in time"),
            (&long, Reason::NoRoute, "TLS"),
        ] {
            let failure = read(bytes, 4096).await.unwrap_err();
            assert_eq!(failure.reason, reason, "{}", failure.why);
            assert!(failure.why.contains(words), "{}", failure.why);
        }
        let (client, mut server) = duplex(64);
        drop(client);
        let failure = read_hello(&mut server, Duration::from_secs(10)).await.unwrap_err();
        assert_eq!(failure.reason, Reason::PeerReset);
    }
}
