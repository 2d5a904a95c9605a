//! One HTTP connection to an application: set up, and sending requests on it.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{Request, Response, StatusCode, Uri, Version as HttpVersion};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::hearing::{End, Hearing};
use super::taken::Taken;
use super::{UpstreamBody, UpstreamError, http2, note_end};
use crate::l7::budget::buffers::Buffers;
use crate::l7::budget::sizes::{HTTP1_BUFFER, HTTP2_STREAMS};
use crate::l7::message::body::{Expectation, RequestBody, Withheld};
use crate::l7::message::connection_error::ConnectionError;
use crate::l7::message::downstream::Downstream;
use crate::l7::message::framing::{HYPER_HEADERS, LONGEST_HEAD};
use crate::l7::message::head_copy::HeadCopy;
use crate::l7::message::interim::Listening;
use crate::l7::message::leaving::Leaving;
use crate::l7::message::refused;
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
    Http1(http1::SendRequest<RequestBody>, Arc<End>),
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
    /// Sets up HTTP on a stream to `address`, under what the policy of its destination says of connections. The connection is driven by a task of the worker, which ends with it.
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
            Version::Http1 => Kind::http1(tasks, most_fields, stream).await,
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
            Kind::Http1(sender, _) => sender.is_closed(),
            Kind::Http2(_, taken) | Kind::Stream(_, taken) => taken.has_ended(),
        }
    }

    /// Tells the application that nothing more comes, as far as HTTP/1 can.
    pub(in crate::l7) fn half_close(&self) {
        if let Kind::Http1(_, end) = &self.kind {
            end.want();
        }
    }

    fn is_half_closed(&self) -> bool {
        matches!(&self.kind, Kind::Http1(_, end) if end.is_wanted())
    }

    /// Finishes what it has, and takes nothing more.
    pub(super) fn is_retired(&self) -> bool {
        self.is_half_closed()
            || self.is_closed()
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
            Kind::Http1(..) => false,
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
            Kind::Http1(sender, _) => sender.is_ready(),
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
            Kind::Http1(sender, end) => {
                to_http1(request);
                let (listening, leaving) = listen(request, expectation.clone());
                let mut response = pin!(sender.try_send_request(std::mem::take(request)));
                let heard = |sent: Option<&Sent>| hears(end, leaving.as_ref(), sent);
                let sent = listening.to(response.as_mut(), heard).await;
                self.withheld = expectation.filter(|_| sent.is_ok()).and_then(|it| it.withheld());
                sent.map(|response| response.map(UpstreamBody::Http1)).map_err(|mut failed| {
                    let unsent = put_back(request, failed.take_message().map(from_http1));
                    SendError { error: failed.into_error().into(), unsent, refused: false }
                })
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

/// What a request became, as hyper tells it.
type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// Passes the end of the client's direction on while there is no response. Whether the application has ended the connection for it:
/// then there is nobody to answer, and the client's connection is given up.
fn hears(end: &End, leaving: Option<&Leaving>, sent: Option<&Sent>) -> bool {
    let Some(leaving) = leaving.filter(|it| it.has_left()) else { return false };
    match sent {
        None => end.want(),
        Some(Err(failed)) if end.is_wanted() && !refused::breaks_rules(failed.error()) => {
            leaving.give_up();
            return true;
        }
        Some(_) => {}
    }
    false
}

/// Whether there is a request that was not sent, which is put back.
fn put_back(request: &mut Request<RequestBody>, unsent: Option<Request<RequestBody>>) -> bool {
    let is_unsent = unsent.is_some();
    if let Some(unsent) = unsent {
        *request = unsent;
    }
    is_unsent
}

/// Listens to what the application says before its response, where somebody can be told: 100 asks for the body, and the
/// others go to the client. Gives also what is known of a client that leaves.
fn listen(
    request: &mut Request<RequestBody>,
    expectation: Option<Expectation>,
) -> (Listening, Option<Leaving>) {
    let downstream = request.extensions().get::<Downstream>().cloned();
    let Some(Downstream { interim, leaving }) = downstream else {
        return (Listening::nobody(), None);
    };
    let Some(interim) = interim else { return (Listening::nobody(), Some(leaving)) };
    if let Some(expectation) = &expectation {
        expectation.begin();
    }
    let (listening, ear) = interim.listen();
    hyper::ext::on_informational(request, move |response| match response.status() {
        StatusCode::CONTINUE => {
            expectation.as_ref().inspect(|it| it.is_met());
        }
        status => ear.tell(status, response.headers()),
    });
    (listening, Some(leaving))
}

impl Drop for Sender {
    fn drop(&mut self) {
        if matches!(self.kind, Kind::Stream(..)) {
            self.buffers.close();
        }
    }
}

impl Kind {
    async fn http1(
        tasks: &Arc<Tasks>,
        most_fields: usize,
        stream: Carrier,
    ) -> Result<Self, ConnectionError> {
        let end = Arc::new(End::default());
        let io = TokioIo::new(Hearing::new(stream, end.clone()));
        let (sender, connection) = http1_settings(most_fields).handshake(io).await?;
        tasks.drive("upstream HTTP/1.1 connection", async move {
            note_end(connection.with_upgrades().await);
        });
        Ok(Kind::Http1(sender, end))
    }
}

/// Names are written as the other side wrote them. What old servers send is mended as RFC 9112 asks a proxy: 5.1 for spaces
/// before a colon, 5.2 for folded lines.
fn http1_settings(most_fields: usize) -> http1::Builder {
    let mut settings = http1::Builder::new();
    if most_fields != HYPER_HEADERS {
        settings.max_headers(most_fields);
    }
    settings.max_buf_size(HTTP1_BUFFER).max_header_size(LONGEST_HEAD).preserve_header_case(true);
    settings
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true);
    settings
}

/// hyper takes a GET whose body has no known length for one without a body, unless the head says otherwise.
fn to_http1(request: &mut Request<RequestBody>) {
    *request.version_mut() = HttpVersion::HTTP_11;
    let body = request.body();
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

fn from_http1(mut request: Request<RequestBody>) -> Request<RequestBody> {
    request.headers_mut().remove(TRANSFER_ENCODING);
    request
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
