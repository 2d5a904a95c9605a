//! One HTTP connection to an application: set up, and sending requests on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version as HttpVersion};
use tokio::time::Instant;

use super::body::Answer;
use super::taken::Taken;
use super::{UpstreamBody, UpstreamError, http2};
use crate::l7::budget::buffers::Buffers;
use crate::l7::budget::sizes::HTTP2_STREAMS;
use crate::l7::http1::client::{Answered, Connection, Failed, Hears};
use crate::l7::http1::downstream::{Attempt, Downstream};
use crate::l7::http1::error::Error;
use crate::l7::message::body::{Expectation, RequestBody, Withheld};
use crate::l7::message::connection_error::ConnectionError;
use crate::l7::message::head_copy::HeadCopy;
use crate::l7::message::{framing, headers};
use crate::l7::tasks::Tasks;
use crate::l7::version::Version;
use crate::traffic::PerConnection;
use crate::tunnel::Carrier;

/// How long a connection takes requests. A busy one would otherwise last for ever, and with it the tunnel that carries
/// it, the certificate that the tunnel was made with, and an endpoint that may not be the best any more.
const LIFETIME: Duration = Duration::from_secs(600);

/// The sending end of a connection, or of one stream of it.
pub(in crate::l7) struct Sender {
    kind: Kind,
    tasks: Arc<Tasks>,
    buffers: Arc<Buffers>,
    made: Instant,
    /// The other end is in this process.
    local: bool,
    /// The application has not asked for the body of its last request, so that nothing can follow it.
    withheld: Option<Withheld>,
}

enum Kind {
    Http1(Connection),
    /// With how many streams the application takes at once.
    Http2(SendRequest<Bytes>, Arc<Taken>),
    /// The same, for one stream.
    Stream(SendRequest<Bytes>, Arc<Taken>),
}

/// A request that got no response.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(in crate::l7) struct SendError {
    pub(in crate::l7) error: ConnectionError,
    /// Certainly nothing of it was sent, or the application did not look at it, and it was put back.
    pub(in crate::l7) unsent: bool,
    /// The application says that it has not looked at it, whether it was put back or not.
    pub(in crate::l7) refused: bool,
}

impl Sender {
    /// Sets up HTTP on a stream to `address`, under what the policy of its destination says of connections. Over HTTP/2
    /// the connection is driven by a task of the worker, which ends with it.
    pub(in crate::l7) async fn connect(
        tasks: &Arc<Tasks>,
        most_fields: usize,
        buffers: Buffers,
        version: Version,
        stream: Carrier,
        address: SocketAddr,
        limits: PerConnection,
    ) -> Result<Self, UpstreamError> {
        // An agent at the other end has checked the application's response, and may have added the coding of a body without a
        // length.
        let most_fields = most_fields + usize::from(stream.leads_to_an_agent());
        let buffers = Arc::new(buffers);
        buffers.limit(limits);
        let local = stream.is_local();
        let kind = match version {
            Version::Http1 => Ok(Kind::Http1(Connection::new(stream, most_fields))),
            Version::Http2 => {
                let connected = http2::connect(tasks, stream, &buffers, limits.pings).await;
                connected.map(|(requests, taken)| Kind::Http2(requests, taken))
            }
        };
        let kind = kind.map_err(|error| UpstreamError::Handshake { address, error })?;
        let (tasks, made) = (tasks.clone(), Instant::now());
        Ok(Self { kind, tasks, buffers, made, local, withheld: None })
    }

    /// The other end is in this process.
    pub(in crate::l7) fn is_local(&self) -> bool {
        self.local
    }

    /// How long it may rest.
    pub(super) fn rest(&self) -> Option<Duration> {
        self.buffers.rest()
    }

    /// Counts a request that it takes.
    pub(super) fn count(&self) {
        self.buffers.count();
    }

    fn is_closed(&self) -> bool {
        match &self.kind {
            Kind::Http1(connection) => !connection.is_whole(),
            Kind::Http2(_, taken) | Kind::Stream(_, taken) => taken.has_ended(),
        }
    }

    /// Tells the application that nothing more comes, as far as HTTP/1 can.
    pub(in crate::l7) fn half_close(&self, cx: &mut Context<'_>) {
        if let Kind::Http1(connection) = &self.kind {
            connection.half_close(cx);
        }
    }

    /// Whether the application has neither closed it nor said anything unasked. Over HTTP/2 its task knows.
    pub(super) fn is_quiet(&self) -> bool {
        match &self.kind {
            Kind::Http1(connection) => connection.is_quiet(),
            Kind::Http2(..) | Kind::Stream(..) => true,
        }
    }

    /// Finishes what it has, and takes nothing more.
    pub(super) fn is_retired(&self) -> bool {
        self.is_closed()
            || self.has_refused()
            || self.is_withheld()
            || self.buffers.is_used_up()
            || self.made.elapsed() >= self.lifetime()
    }

    fn lifetime(&self) -> Duration {
        self.buffers.lifetime().map_or(LIFETIME, |lifetime| lifetime.min(LIFETIME))
    }

    /// The application has refused a request here: others go to another connection, which may be to another of its processes.
    fn has_refused(&self) -> bool {
        match &self.kind {
            Kind::Http1(_) => false,
            Kind::Http2(_, taken) | Kind::Stream(_, taken) => taken.has_refused(),
        }
    }

    /// The body of the last request was not asked for.
    fn is_withheld(&self) -> bool {
        self.withheld.is_some()
    }

    /// Of no use to anybody: closed, or retired and without a stream.
    pub(super) fn is_finished(&self) -> bool {
        self.is_closed() || self.is_retired() && self.streams() == 0
    }

    /// Takes a request right now.
    pub(super) fn is_ready(&self) -> bool {
        let open = match &self.kind {
            Kind::Http1(connection) => connection.is_whole(),
            Kind::Http2(_, taken) => {
                let most = self.buffers.most_streams().unwrap_or(usize::MAX);
                self.streams() < taken.most().min(HTTP2_STREAMS as usize).min(most)
            }
            Kind::Stream(..) => self.streams() < HTTP2_STREAMS as usize,
        };
        open && !self.is_retired()
    }

    /// Streams in use: the senders that were shared out.
    pub(super) fn streams(&self) -> usize {
        self.buffers.streams()
    }

    /// How many streams the application takes, where it has not said so yet.
    pub(super) fn untold(&self) -> Option<Arc<Taken>> {
        match &self.kind {
            Kind::Http2(_, taken) if !taken.is_told() => Some(taken.clone()),
            _ => None,
        }
    }

    /// A sender for one stream of an HTTP/2 connection.
    pub(super) fn share(&self) -> Result<Sender, UpstreamError> {
        let Kind::Http2(sender, taken) = &self.kind else {
            return Err(UpstreamError::Overflow("it takes one request at a time".to_owned()));
        };
        self.buffers.open().map_err(UpstreamError::Overflow)?;
        let kind = Kind::Stream(sender.clone(), taken.clone());
        let buffers = self.buffers.clone();
        self.count();
        let tasks = self.tasks.clone();
        let (made, local) = (self.made, self.local);
        Ok(Sender { kind, tasks, buffers, made, local, withheld: None })
    }

    /// Sends a request in canonical form, and passes on what the application says before its response. The request is taken; one
    /// of which nothing was sent is put back, in canonical form again. It is lent and not moved, because a future holds what it
    /// is given for as long as it lasts.
    pub(in crate::l7) async fn send(
        &mut self,
        request: &mut Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let expectation = request.body().expectation();
        match &mut self.kind {
            Kind::Http1(connection) => {
                let heard = Heard::of(request, expectation);
                let answered = match connection.send(request, &heard).await {
                    Ok(answered) => answered,
                    Err(failed) => {
                        let unsent = matches!(failed, Failed::Unsent);
                        return Err(SendError { unsent, ..heard.failed(failed).await });
                    }
                };
                self.withheld = heard.expectation.and_then(|it| it.withheld());
                let Answered { response, names, body: stream, rest, upgraded } = answered;
                if let Some(rest) = rest {
                    let buffers = self.buffers.clone();
                    self.tasks.drive("request over HTTP/1", async move {
                        let _held = buffers;
                        if let Err(why) = rest.send().await {
                            tracing::debug!(
                                "a request broke off after its response had begun: {why}"
                            );
                        }
                    });
                }
                let body = UpstreamBody::Http1(Answer { names, stream, upgraded });
                Ok(response.map(|()| body))
            }
            Kind::Http2(sender, taken) | Kind::Stream(sender, taken) => {
                // h2 hears no 100.
                expectation.inspect(Expectation::is_met);
                // A body may have begun to flow; only a route that retries keeps it. Boxed, because the future of every request in
                // flight would be larger by it.
                let copy = request.body().is_empty().then(|| Box::new(HeadCopy::of(request)));
                to_http2(request, taken.is_encrypted());
                let sent = http2::send(sender, &self.tasks, request).await;
                sent.map_err(|http2::Failed { error, unsent }| {
                    // A connection that takes nothing more refuses no request: it was not asked.
                    let refused = !unsent && error.is_refused();
                    if unsent {
                        // It leaves, and others need not find that out.
                        taken.end();
                        from_http2(request);
                    }
                    let copy = copy.filter(|_| refused);
                    let copy = copy.map(|head| head.with(RequestBody::default()));
                    if refused {
                        taken.refuse();
                    }
                    let unsent = put_back(request, copy) || unsent;
                    SendError { error, unsent, refused }
                })
            }
        }
    }
}

/// Whether there is a request that was not sent, which is put back.
fn put_back(request: &mut Request<RequestBody>, unsent: Option<Request<RequestBody>>) -> bool {
    let is_unsent = unsent.is_some();
    if let Some(unsent) = unsent {
        *request = unsent;
    }
    is_unsent
}

/// Hears what the application says before its response: 100 asks for the body, and the others go to the client.
struct Heard {
    expectation: Option<Expectation>,
    attempt: Option<Attempt>,
    downstream: Option<Downstream>,
}

impl Heard {
    fn of(request: &Request<RequestBody>, expectation: Option<Expectation>) -> Self {
        let downstream = request.body().came().downstream.clone();
        let attempt = downstream.as_ref().and_then(Downstream::listen);
        if attempt.is_some() {
            expectation.as_ref().inspect(|it| it.begin());
        }
        Self { expectation, attempt, downstream }
    }

    /// Why there is no response. Where the application ended the connection because the client has left, there is nobody to answer.
    async fn failed(&self, failed: Failed) -> SendError {
        let error = match failed {
            Failed::Unsent => ConnectionError::Http1(Error::Closed),
            Failed::Request(why) => ConnectionError::Request(why),
            Failed::Lost { error, is_half_closed } => {
                if let Some(downstream) = self.downstream.as_ref().filter(|_| is_half_closed)
                    && !error.breaks_rules()
                {
                    downstream.give_up();
                    std::future::pending::<()>().await;
                }
                ConnectionError::Http1(error)
            }
        };
        SendError { error, unsent: false, refused: false }
    }
}

impl Hears for Heard {
    fn informed(&self, status: StatusCode, headers: &mut HeaderMap) {
        if status == StatusCode::CONTINUE {
            self.expectation.as_ref().inspect(|it| it.is_met());
        } else if let (Some(downstream), Some(attempt)) = (&self.downstream, self.attempt) {
            // It has no body.
            headers::strip_hop_by_hop(headers);
            framing::remove(headers, &[CONTENT_LENGTH]);
            downstream.inform(attempt, status, headers);
        }
    }

    fn has_left(&self, cx: &Context<'_>) -> bool {
        self.downstream.as_ref().is_some_and(|it| it.has_left(cx))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if matches!(self.kind, Kind::Stream(..)) {
            self.buffers.close();
        }
    }
}

/// HTTP/2 has the host in the target (RFC 9113, 8.3.1). A host that cannot stand there stays a header.
fn to_http2(request: &mut Request<RequestBody>, is_encrypted: bool) {
    *request.version_mut() = HttpVersion::HTTP_2;
    let host = request.headers().get(HOST);
    let Some(authority) = host.and_then(|host| Authority::try_from(host.as_bytes()).ok()) else {
        return;
    };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if is_encrypted { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        request.headers_mut().remove(HOST);
    }
}

/// What was canonical once can be made so again.
fn from_http2(request: &mut Request<RequestBody>) {
    if crate::l7::message::headers::canonical(request, None).is_err() {
        tracing::warn!("a request that was not sent cannot be brought into canonical form again");
    }
}
