//! Asks providers of external authorization about a request: for the destination's half, whose workload calls the provider, and
//! for the client's half where no destination judges.
//!
//! All providers must permit. A check goes through the mesh like any request: with the calling workload's identity, over
//! connections that rest between requests, those of each client by themselves, and paid from that client's share. When nobody
//! can say anything, the request is refused, unless the provider's definition says `failOpen`.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::BodyExt;

use super::circuit::Call;
use super::context::Context;
use crate::balance::{Ended, Picked};
use crate::base::{Identity, Reason, Str};
use crate::ext_authz;
use crate::ext_authz::grpc_check::{self, Ends, Shown};
use crate::ext_authz::http_check;
use crate::ext_authz::{About, Changes, MOST_OF_AN_ANSWER, Mutations, SeenBody, Verdict};
use crate::gate::{self, Ask, Views};
use crate::l7::budget::sizes::units;
use crate::l7::budget::{Kind, Share};
use crate::l7::exchange::Exchange;
use crate::l7::exchange::answer::Answer;
use crate::l7::message::body::{Ahead, RequestBody, grpc_status};
use crate::l7::message::{headers, sent};
use crate::l7::upstream::{Key, Lease, UpstreamBody, UpstreamError};
use crate::l7::version::Version;
use crate::model::{AppProtocol, CheckProtocol, ExtAuthz, ProviderService, Service};
use crate::reach::{self, Attempts, Downstream};
use crate::world::World;

/// Checks that may lead to each other: an authorizer may have authorizers of its own, and those that guard each other in a circle
/// would be asked without end.
const MOST_CHECKS: u8 = 4;
/// How long a client may take for the part of a body that a provider is to see.
const BODY_LIMIT: Duration = Duration::from_secs(60);

/// Who asks, on whose behalf.
pub(in crate::l7) struct Authorizer<'a> {
    pub(in crate::l7) context: &'a Context,
    /// The local workload that calls.
    pub(in crate::l7) from: Downstream<'a>,
    /// The client whose request it is.
    pub(in crate::l7) client: Option<&'a Identity>,
    pub(in crate::l7) client_address: SocketAddr,
    /// Whom the request is for, as far as that is known.
    pub(in crate::l7) server: Option<&'a Identity>,
    pub(in crate::l7) server_address: SocketAddr,
    pub(in crate::l7) share: &'a Arc<Share>,
    /// How many checks led to the request.
    pub(in crate::l7) checks: u8,
}

/// A service that is asked.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) service: &'a ProviderService,
    pub(super) port: u16,
    /// Whatever its port is said to speak.
    pub(super) is_http2: bool,
}

impl<'a> Asked<'a> {
    fn of(provider: &'a ExtAuthz) -> Self {
        let is_http2 = matches!(provider.protocol, CheckProtocol::Grpc { .. });
        Self { service: &provider.service, port: provider.port, is_http2 }
    }
}

/// A request as it was sent, where that is another one than arrived.
pub(in crate::l7) type AsSent<'a> = Option<(&'a Uri, &'a HeaderMap)>;

/// Nobody can say anything.
pub(super) struct Failed {
    pub(super) why: String,
    /// Nobody was reached.
    away: bool,
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, away: false }
    }
}

impl Authorizer<'_> {
    /// Asks all of them about what the client sent. Gives what they make of the request.
    pub(in crate::l7) async fn ask(
        &self,
        asks: &[Ask],
        request: &mut Request<RequestBody>,
        sent: AsSent<'_>,
        mut exchange: Option<&mut Exchange>,
    ) -> Result<Mutations, Answer> {
        if !asks.is_empty()
            && let Err(why) = self.may_ask_further()
        {
            // Whatever the definition says of failures: a client could make this one up.
            return Err(Answer::unasked(StatusCode::FORBIDDEN, why));
        }
        let seen = self.read_body(asks, request).await?;
        let mut mutations = Mutations::default();
        for Ask { provider, as_sent } in asks {
            let (uri, headers) = match sent.filter(|_| *as_sent) {
                Some(sent) => sent,
                None => (request.uri(), request.headers()),
            };
            let part = shown(provider, seen.as_ref())?;
            let body = part.as_ref().map(|(bytes, partial)| SeenBody { bytes, partial: *partial });
            let about =
                About { method: request.method(), target: sent::target(uri), headers, body };
            mutations.add(self.one(provider, &about, exchange.as_deref_mut()).await?);
        }
        Ok(mutations)
    }

    /// Those who guard each other in a circle would be asked without end.
    pub(super) fn may_ask_further(&self) -> Result<(), String> {
        if self.checks < MOST_CHECKS {
            return Ok(());
        }
        Err(format!(
            "{MOST_CHECKS} checks led to this one: authorizers guard each other in a circle; leave them out of the CUSTOM \
             policies that match them"
        ))
    }

    /// Asks one.
    async fn one(
        &self,
        provider: &Arc<ExtAuthz>,
        about: &About<'_>,
        exchange: Option<&mut Exchange>,
    ) -> Result<Changes, Answer> {
        let metrics = self.context.dependencies.telemetry.authorizer();
        match self.check(provider, about).await {
            Ok(Verdict::Allow(changes)) => {
                metrics.allowed.inc();
                Ok(changes)
            }
            Ok(Verdict::Deny(refusal)) => {
                metrics.denied.inc();
                let why = format!("provider {} denies ({})", provider.name, refusal.status);
                Err(Answer::of_provider(refusal, why))
            }
            Err(failed) => {
                let why = format!("provider {} failed: {}", provider.name, failed.why);
                if provider.fail_open {
                    metrics.failed_open.inc();
                    if let Some(exchange) = exchange {
                        let why = format!("{why}; failOpen lets the request pass");
                        exchange.has_waited(Some((Reason::Unauthorized, why)));
                    }
                    return Ok(ext_authz::without_answer(provider, about.headers));
                }
                metrics.failed.inc();
                let status = StatusCode::from_u16(provider.status_on_error);
                Err(Answer::unasked(status.unwrap_or(StatusCode::FORBIDDEN), why))
            }
        }
    }

    async fn check(&self, provider: &Arc<ExtAuthz>, about: &About<'_>) -> Result<Verdict, Failed> {
        if self.is_for(Asked::of(provider)) {
            let why =
                "it would be asked about being asked, because a CUSTOM policy guards it itself";
            return Err(why.to_owned().into());
        }
        let reached = AtomicBool::new(false);
        let calling = self.call(provider, about, &reached);
        self.within(&provider.name, provider.timeout, &reached, calling).await
    }

    /// A call within its time, where the circuit of the service with this name has a place for it.
    pub(super) async fn within<T>(
        &self,
        name: &Str,
        timeout: Duration,
        reached: &AtomicBool,
        calling: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Failed> {
        let call = self.context.authorizers.of(name).enter()?;
        let called = tokio::time::timeout(timeout, calling).await;
        let answered = called.unwrap_or_else(|_| {
            // One whose host drops packets is away as much as one whose host refuses connections.
            let away = !reached.load(Ordering::Relaxed);
            Err(Failed { why: format!("it did not answer within {timeout:?}"), away })
        });
        note_reached(&call, answered.as_ref().err());
        answered
    }

    /// Whether the request goes to the service that is asked itself. It could only be answered by asking again.
    pub(super) fn is_for(&self, asked: Asked<'_>) -> bool {
        let world = self.context.dependencies.world.load();
        let Some(service) = service_of(&world, asked.service).filter(|_| self.server.is_some())
        else {
            return false;
        };
        let port = self.server_address.port();
        world
            .ways_of(&service.key, self.from.client, port)
            .any(|served| served.service_port == asked.port)
    }

    /// `reached` tells of a connection.
    async fn call(
        &self,
        provider: &ExtAuthz,
        about: &About<'_>,
        reached: &AtomicBool,
    ) -> Result<Verdict, Failed> {
        let check = match &provider.protocol {
            CheckProtocol::Http(definition) => http_check::check(definition, about)?,
            CheckProtocol::Grpc { include_headers } => {
                let as_bytes = provider.body.is_some_and(|body| body.as_bytes);
                let shown = Shown { headers: include_headers, as_bytes };
                let host = match &provider.service {
                    ProviderService::Host { hostname, .. } => hostname,
                    ProviderService::Service(key) => &key.name,
                };
                grpc_check::check(about, self.ends(), host, shown)
            }
        };
        let (mut response, lease) =
            self.send(Asked::of(provider), check.map(RequestBody::own), reached).await?;
        let read = read(response.body_mut()).await;
        if read.is_ok() {
            lease.give_back();
        }
        let status = response.status();
        let CheckProtocol::Http(definition) = &provider.protocol else {
            let (body, trailers) = read?;
            if status != StatusCode::OK {
                return Err(format!("it answers {status}").into());
            }
            let status = grpc_status(&trailers).or_else(|| grpc_status(response.headers()));
            return Ok(grpc_check::verdict(about.headers, status, &body)?);
        };
        let body = match read {
            Ok((body, _)) => body,
            // The head says whether the request may pass.
            Err(why) => {
                tracing::debug!(provider = %provider.name, "the body of an answer is not used: {why}");
                Bytes::new()
            }
        };
        let headers = response.headers();
        Ok(http_check::verdict(definition, about.headers, status, headers, body)?)
    }

    fn ends(&self) -> Ends<'_> {
        Ends {
            client: self.client,
            client_address: self.client_address,
            server: self.server,
            server_address: self.server_address,
        }
    }

    /// Sends a check to an endpoint of the service.
    pub(super) async fn send(
        &self,
        asked: Asked<'_>,
        mut check: Request<RequestBody>,
        reached: &AtomicBool,
    ) -> Result<(Response<UpstreamBody>, Lease), Failed> {
        let world = self.context.dependencies.world.snapshot();
        let service = service_of(&world, asked.service)
            .ok_or_else(|| format!("there is no service {}", asked.service))?;
        let resolved = self.context.reach.resolve(&self.from, service).await;
        let service = resolved.map_err(|failure| Failed { why: failure.why, away: true })?;
        let dialled = SocketAddr::new(self.from.address.ip(), asked.port);
        let (mut attempts, mut last) = (Attempts::default(), None);
        while let Some(mut picked) =
            attempts.next(&world, self.from.caller(), (&service, asked.port), dialled)
        {
            self.may_go(&world, &service, asked.port, &picked, &check)?;
            let attempt = self.attempt(&service, asked, &picked, &mut check, reached);
            let failed = match attempt.await {
                Ok(got) => {
                    picked.ended(Ended::Answered(got.0.status()));
                    return Ok(got);
                }
                Err(failed) => failed,
            };
            let (failed, ended) = failed;
            let goes_on = attempts.failed(&mut picked, ended);
            last = Some(failed);
            if !goes_on {
                break;
            }
        }
        Err(last.unwrap_or_else(|| Failed {
            why: format!("{service} has no ready endpoint on port {}", asked.port),
            away: true,
        }))
    }

    /// What stands against a check at an endpoint, where nobody there judges.
    fn may_go(
        &self,
        world: &World,
        service: &Service,
        port: u16,
        to: &Picked,
        check: &Request<RequestBody>,
    ) -> Result<(), Failed> {
        let (namespace, tunnelled) = (&self.from.client.key.namespace, to.captured().is_some());
        match gate::encryption(service, (port, None), namespace, tunnelled) {
            Err(why) => return Err(why.into()),
            Ok(Some(wanted)) => {
                let by = &wanted.settings().by;
                let why = format!("{by} wants TLS to the provider, which is not asked under TLS");
                return Err(why.into());
            }
            Ok(None) => {}
        }
        let way = reach::direct(service, port, to);
        let asked = sent::policy_request(check.method(), check.uri(), check.headers());
        match reach::judge(world, &self.from, &way, Some(Views::same(&asked))) {
            Ok(Some(permit)) if !permit.asks.is_empty() => {
                Err("a CUSTOM policy guards the provider itself".to_owned().into())
            }
            Ok(_) => Ok(()),
            Err(denial) => Err(denial.why.into()),
        }
    }

    async fn attempt(
        &self,
        service: &Service,
        asked: Asked<'_>,
        to: &Picked,
        check: &mut Request<RequestBody>,
        reached: &AtomicBool,
    ) -> Result<(Response<UpstreamBody>, Lease), (Failed, Ended)> {
        let said = service.port(asked.port).map(|port| port.protocol).unwrap_or_default();
        let version = match (asked.is_http2, said) {
            (true, _) | (_, AppProtocol::Http2) => Version::Http2,
            _ => Version::Http1,
        };
        let shelf = self.context.upstreams.shelf(self.key(service, to, version));
        let dial = || async {
            let addressed = Some(&service.hostname);
            let stream = self.context.reach.connect(&self.from, to, addressed, None).await?;
            self.context.connect(self.share, version, stream, to.address).await
        };
        let mut lease = shelf.lease(dial).await.map_err(|error| {
            let away = !matches!(error, UpstreamError::Overflow(_));
            (Failed { why: error.to_string(), away }, error.ended())
        })?;
        reached.store(true, Ordering::Relaxed);
        check.headers_mut().remove(headers::CHECKS);
        if to.captured().is_some() {
            check.headers_mut().insert(headers::CHECKS, u16::from(self.checks + 1).into());
        }
        let sent = {
            let sending = pin!(lease.sender.send(check));
            sending.await
        };
        match sent {
            Ok(response) => Ok((response, lease)),
            Err(failed) => {
                let ended = match (failed.unsent, lease.reused) {
                    (false, _) => Ended::Broken,
                    (true, true) => Ended::Stale,
                    (true, false) => Ended::Unreached,
                };
                let why = format!("{}: {}", to.address, failed.error);
                Err((Failed { why, away: failed.unsent && !lease.reused }, ended))
            }
        }
    }

    /// Connections are the client's own, so that no client waits for the room of another.
    fn key(&self, service: &Service, to: &Picked, version: Version) -> Key {
        Key {
            client_uid: self.from.client.uid.clone(),
            client: self.client.unwrap_or(&self.from.client.identity).clone(),
            client_address: self.client_address.ip(),
            service: service.key.clone(),
            endpoint: to.address,
            server: to.captured().map(|server| server.identity.clone()),
            tls: None,
            version,
        }
    }

    /// Reads as much of the body as somebody is to see.
    async fn read_body(
        &self,
        asks: &[Ask],
        request: &mut Request<RequestBody>,
    ) -> Result<Option<Ahead>, Answer> {
        let wanted = asks.iter().filter_map(|ask| ask.provider.body).map(|body| body.max_bytes);
        let Some(most) = wanted.max() else { return Ok(None) };
        let most = most as usize;
        if request.body().is_empty() {
            return Ok(Some(Ahead { bytes: Bytes::new(), whole: true }));
        }
        let length = request.body().size_hint().upper().and_then(|it| usize::try_from(it).ok());
        // What is kept for the application, and the copies for providers.
        let room = units(length.map_or(most, |length| length.min(most)).saturating_mul(3));
        let room = self.share.reserve(Kind::Bytes, room);
        let room = room.map_err(|full| Answer::overflow(self.share.why(full)))?;
        request.headers_mut().remove(EXPECT);
        let read = tokio::time::timeout(BODY_LIMIT, request.body_mut().read_ahead(most, room));
        match read.await {
            Ok(Ok(ahead)) => Ok(Some(ahead)),
            Ok(Err(error)) => Err(Answer::unreachable(Reason::PeerReset, error.to_string())),
            Err(_) => {
                let why = "the client did not send the part of the body that is to be authorized";
                Err(Answer::unreachable(Reason::Timeout, why))
            }
        }
    }
}

fn service_of<'a>(world: &'a World, asked: &ProviderService) -> Option<&'a Arc<Service>> {
    match asked {
        ProviderService::Host { namespace, hostname } => world
            .services_named(hostname, namespace.as_deref())
            .find(|it| namespace.as_ref().is_none_or(|own| it.key.namespace == *own)),
        ProviderService::Service(key) => world.service(key),
    }
}

fn note_reached(call: &Call, failed: Option<&Failed>) {
    match failed {
        Some(failed) if failed.away => call.reached_nobody(),
        _ => call.reached(),
    }
}

/// What a provider gets to see of the body, and whether there is more.
fn shown(provider: &ExtAuthz, seen: Option<&Ahead>) -> Result<Option<(Bytes, bool)>, Answer> {
    let (Some(body), Some(seen)) = (provider.body, seen) else { return Ok(None) };
    let most = body.max_bytes as usize;
    if seen.whole && seen.bytes.len() <= most {
        return Ok(Some((seen.bytes.clone(), false)));
    }
    if !body.allow_partial {
        let name = &provider.name;
        let why = format!("provider {name} may see {most} bytes of a body, and this one is longer");
        return Err(Answer::too_long(why));
    }
    Ok(Some((seen.bytes.slice(..most.min(seen.bytes.len())), true)))
}

/// The body of a provider's answer, if it is not too long, and its trailers.
pub(super) async fn read(body: &mut UpstreamBody) -> Result<(Bytes, HeaderMap), String> {
    let (mut read, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("its answer broke off: {error}"))?;
        if let Some(data) = frame.data_ref() {
            if read.len() + data.len() > MOST_OF_AN_ANSWER {
                return Err(format!("its answer is longer than {MOST_OF_AN_ANSWER} bytes"));
            }
            read.extend_from_slice(data);
        }
        trailers.extend(frame.into_trailers().unwrap_or_default());
    }
    Ok((read.freeze(), trailers))
}
