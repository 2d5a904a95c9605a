//! One request from its arrival to the end of its response: the record, what is held as long as it runs, and the body of the
//! response, which ends it.

pub(in crate::l7) mod answer;
pub(in crate::l7) mod arrived;
pub(in crate::l7) mod chain;
mod holds;
pub(in crate::l7) mod keys;
mod outgoing;
pub(in crate::l7) mod traced;
pub(in crate::l7) mod upgrade;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use holds::Holds;

use crate::balance::{Ended, InUse};
use crate::base::Reason;
use crate::filter::{self, Charges, Held, Passing};
use crate::l7::budget::admission::Admission;
use crate::l7::http1::downstream::Downstream;
use crate::l7::http1::outgoing::TakeOver;
use crate::l7::message::body::{self, BodyError, Broken, Expectation, RequestBody, Uploaded};
use crate::l7::message::connection_error::ConnectionError;
use crate::l7::message::held::{self, Chunk};
use crate::l7::message::lasting::Cut;
use crate::l7::message::messages::Messages;
use crate::l7::message::{deadline, framing, headers};
use crate::l7::upstream::{Lease, UpstreamBody};
use crate::telemetry::RequestRecord;

/// Recorded once, when dropped. An exchange that is dropped before it was finished was given up by the client.
pub(in crate::l7) struct Exchange {
    pub(in crate::l7) record: RequestRecord,
    started: Instant,
    uploaded: Option<Uploaded>,
    /// Of the response to a gRPC request.
    messages: Option<Messages>,
    /// The client waits to be asked for the body.
    expectation: Option<Expectation>,
    finished: bool,
    /// A filter has made it wait, so the mesh may be another one by now.
    pub(in crate::l7) waited: bool,
    /// What the next one is told of its trace.
    told: Told,
    /// How often an endpoint was tried.
    pub(in crate::l7) attempts: u32,
    /// What the client's half has said of that.
    pub(in crate::l7) attempt: Option<HeaderValue>,
    /// When the response must be at its end.
    pub(in crate::l7) due: Option<Instant>,
    /// Why it must be then.
    due_to: Reason,
    /// The client has given it less time than its route. What is too slow for the client says nothing about an endpoint: it could
    /// have endpoints ejected otherwise.
    pub(in crate::l7) is_in_a_hurry: bool,
    /// The upstream connection, which others may use after this request.
    lease: Option<Lease>,
    /// The endpoint counts as busy.
    in_use: InUse,
    place: Option<Admission>,
    /// Its places in the limits of policies.
    holds: Holds,
    /// What providers of external authorization, and limits, add to the response.
    pub(in crate::l7) added: Option<Box<HeaderMap>>,
    /// What limits take once there is a response.
    charges: Option<Box<Charges>>,
    /// How often it had been sent when they were noted.
    sent_before: u32,
}

/// What the next one is told of a request's trace.
enum Told {
    /// Of the span that is recorded. Without one, the headers pass as they came.
    OfItsSpan,
    /// It is not recorded, and nobody has told the next one so.
    Unrecorded,
    /// The headers of a trace are removed.
    Nothing,
}

impl Exchange {
    pub(in crate::l7) fn new(
        record: RequestRecord,
        body: &RequestBody,
        place: Option<Admission>,
    ) -> Box<Self> {
        let messages = record.is_grpc().then(Messages::default);
        Box::new(Self {
            record,
            messages,
            started: Instant::now(),
            uploaded: body.uploaded(),
            expectation: body.expectation(),
            finished: false,
            waited: false,
            told: Told::OfItsSpan,
            attempts: 0,
            attempt: None,
            due: None,
            due_to: Reason::Timeout,
            is_in_a_hurry: false,
            lease: None,
            in_use: InUse::default(),
            place,
            holds: Holds::default(),
            added: None,
            charges: None,
            sent_before: 0,
        })
    }

    /// A filter has made it wait, and says this of it.
    pub(in crate::l7) fn has_waited(&mut self, mark: Option<(Reason, String)>) {
        self.waited = true;
        if let Some((reason, why)) = mark {
            self.record.mark(reason, why);
        }
    }

    /// A filter lets the request pass, with this.
    pub(in crate::l7) fn passes(&mut self, passing: Passing) {
        let Passing { notes, charges, headers } = passing;
        // Beside what policies have said of it.
        notes.into_iter().for_each(|note| self.record.note(note));
        if let Some(charges) = charges {
            self.charges.get_or_insert_default().append(charges);
            self.sent_before = self.attempts;
        }
        if !headers.is_empty() {
            // Beside what other limits tell in the same fields.
            let added = self.added.get_or_insert_default();
            headers.iter().for_each(|(name, value)| _ = added.append(name, value.clone()));
        }
    }

    /// The request is tried again: what limits said of the attempt before is over.
    pub(in crate::l7) fn forget_limits(&mut self) {
        self.charges = None;
        if let Some(added) = &mut self.added {
            filter::LIMIT_HEADERS.iter().for_each(|name| _ = added.remove(*name));
        }
    }

    /// The application has answered: limits take what it says. Before anything else is done with the response, so that nothing that
    /// is wrong with it makes it free.
    pub(in crate::l7) fn settle(&mut self, response: &HeaderMap) {
        if let Some(charges) = self.charges.take() {
            charges.settle(response);
        }
    }

    /// The client breaks off a request that the application has. What that costs nobody will say.
    pub(in crate::l7) fn abandon(&mut self) {
        if let Some(charges) = self.charges.take()
            && self.attempts > self.sent_before
        {
            charges.abandon();
        }
    }

    /// Keeps a place in a limit until its end.
    pub(in crate::l7) fn hold(&mut self, held: Held) {
        if held.is_timed()
            && let Some(uploaded) = &self.uploaded
        {
            uploaded.time();
        }
        self.holds.add(held);
    }

    /// A call was answered, and counts as in progress until the response has ended.
    pub(in crate::l7) fn called(&mut self, call: Held, ended: Ended) {
        call.ended(ended.has_failed());
        self.holds.call(call);
    }

    /// The request is sent again: the endpoint that answered has it no longer in progress.
    pub(in crate::l7) fn calls_again(&mut self) {
        self.holds.release_call();
    }

    /// Gives back its places in limits: what follows is another attempt.
    pub(in crate::l7) fn release(&mut self) {
        self.holds.release_places();
    }

    /// All attempts have ended; what the last one tells about the service.
    pub(in crate::l7) fn tried(&self, ended: Ended) {
        self.holds.ended(self.heard(ended));
    }

    /// What an attempt tells about its endpoint and its service: nothing where the client sends slowly, or gives itself less time
    /// than its route does. Otherwise a client could have an endpoint ejected, or a circuit opened, for all others of its node. An
    /// application that hears of a deadline may answer so itself.
    pub(in crate::l7) fn heard(&self, ended: Ended) -> Ended {
        match ended {
            Ended::TimedOut if self.is_uploading() => Ended::GivenUp,
            _ if self.is_in_a_hurry => in_a_hurry(ended),
            _ => ended,
        }
    }

    /// The application answered over this connection.
    pub(in crate::l7) fn answered(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        lease: Lease,
        in_use: InUse,
    ) {
        self.record.response(status);
        self.record.response_headers(headers);
        self.record.upstream_time(self.elapsed());
        self.grpc_status(headers);
        self.holds.answered(self.uploaded.as_ref());
        self.lease = Some(lease);
        self.in_use = in_use;
    }

    /// Nobody has asked for the request's body. The client may send it or not after the response, so nothing can follow it
    /// (RFC 9110, 10.1.1).
    pub(in crate::l7) fn withholds_body(&self) -> bool {
        self.expectation.as_ref().is_some_and(Expectation::is_open)
    }

    /// The client has not sent all of its request, or the application has not taken it.
    pub(in crate::l7) fn is_uploading(&self) -> bool {
        self.uploaded.as_ref().is_some_and(|uploaded| !uploaded.has_ended())
    }

    /// What is wrong with the request's body, as far as it was read.
    pub(in crate::l7) fn broken_body(&self) -> Option<Broken> {
        self.uploaded.as_ref()?.broken()
    }

    pub(in crate::l7) fn grpc_status(&mut self, headers: &HeaderMap) {
        if let Some(status) = body::grpc_status(headers) {
            self.record.grpc_status(status);
        }
    }

    /// Reserves what a head of the response, or its trailers, take until they have been sent; or says why it cannot.
    pub(in crate::l7) fn reserve(&mut self, fields: &HeaderMap) -> Result<(), String> {
        let Some(Admission::Granted(permit)) = &mut self.place else { return Ok(()) };
        let grown = permit.grow(headers::size_of(fields));
        grown.map_err(|full| permit.share().why(full))
    }

    /// The request's place, for what is sent last to hold.
    pub(in crate::l7) fn place(&mut self) -> Option<Admission> {
        self.place.take_if(|place| place.waits_in_frames())
    }

    /// All of the response has passed.
    pub(in crate::l7) fn finish(&mut self) {
        self.finished = true;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    /// The response will not come to its end.
    pub(in crate::l7) fn fail(&mut self, reason: Reason, why: String) {
        self.finished = true;
        self.record.fail(reason, why);
    }

    /// When a request that may take this long must be at its end.
    pub(in crate::l7) fn deadline(&self, limit: Duration) -> Instant {
        self.started + limit
    }

    /// Its response must be at its end by the earlier of both: of the timeouts that hold, and of the time for one stream.
    pub(in crate::l7) fn lasts_until(&mut self, timeout: Option<Instant>, stream: Option<Instant>) {
        (self.due, self.due_to) = match (timeout, stream) {
            (timeout, Some(stream)) if timeout.is_none_or(|timeout| stream < timeout) => {
                (Some(stream), Reason::StreamDuration)
            }
            (timeout, _) => (timeout, Reason::Timeout),
        };
    }

    /// Why an attempt has taken too long.
    pub(in crate::l7) fn overdue(&self) -> Reason {
        if deadline::is_over(self.due) { self.due_to } else { Reason::Timeout }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// What an attempt tells whose client has given it less time than its route.
pub(in crate::l7) fn in_a_hurry(ended: Ended) -> Ended {
    match ended {
        Ended::TimedOut => Ended::GivenUp,
        Ended::Answered(StatusCode::GATEWAY_TIMEOUT) => {
            Ended::Answered(StatusCode::TOO_MANY_REQUESTS)
        }
        _ => ended,
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(uploaded) = &self.uploaded {
            self.record.request_bytes(uploaded.bytes());
        }
        if let Some(messages) = &self.messages {
            let sent = self.uploaded.as_ref().map_or(0, Uploaded::messages);
            self.record.messages(sent, messages.count());
        }
        if !self.finished {
            self.abandon();
            let why = "the client left before the response had ended".to_owned();
            self.record.fail(Reason::PeerReset, why);
        }
    }
}

/// The body of a response on its way down, with the exchange that ends when it does.
pub(in crate::l7) struct ResponseBody {
    content: Content,
    exchange: Option<Box<Exchange>>,
    /// When it has to be at its end.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Tells when it must not go on, once somebody waits for it.
    cut: Option<Cut>,
    /// Somebody has had to wait for more.
    waited: bool,
    /// Its last frame was read.
    ended: bool,
    /// The connection of the client that waits for it, over HTTP/1.
    downstream: Option<Downstream>,
    /// Who goes on with that after a 101.
    take_over: Option<TakeOver>,
}

enum Content {
    /// An answer of our own.
    Own(Bytes),
    Streamed(UpstreamBody),
}

/// Has a head that is all of its response hold the request's place until it has been sent.
pub(in crate::l7) fn hold_place(response: &mut Response<ResponseBody>) {
    if response.body().is_end_stream()
        && let Some(place) = response.body_mut().place()
    {
        held::hold(response.headers_mut(), place);
    }
}

/// Streams a response down. Its version is left to the server: that of the downstream connection. How names were written, and the
/// reason phrase, go with the body.
pub(in crate::l7) fn relay(
    response: Response<UpstreamBody>,
    exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let (mut head, body) = response.into_parts();
    framing::settle_length(&mut head.headers, Some(head.status));
    headers::strip_hop_by_hop(&mut head.headers);
    if exchange.withholds_body() {
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    head.version = http::Version::default();
    Response::from_parts(head, ResponseBody::streamed(body, exchange))
}

impl ResponseBody {
    pub(in crate::l7) fn own(text: Bytes, mut exchange: Box<Exchange>) -> Self {
        exchange.record.response_bytes(text.len());
        // Nothing more can fail here: what is left is the server's to write.
        exchange.finish();
        Self::new(Content::Own(text), Some(exchange))
    }

    /// Nothing, and nothing to record: who goes on with the client's connection holds the exchange.
    pub(in crate::l7) fn switching(take_over: TakeOver) -> Self {
        let none = Self::new(Content::Own(Bytes::new()), None);
        Self { take_over: Some(take_over), ..none }
    }

    pub(in crate::l7) fn streamed(incoming: UpstreamBody, mut exchange: Box<Exchange>) -> Self {
        if incoming.is_end_stream() {
            exchange.finish();
        }
        Self::new(Content::Streamed(incoming), Some(exchange))
    }

    fn new(content: Content, exchange: Option<Box<Exchange>>) -> Self {
        Self {
            content,
            exchange,
            deadline: None,
            cut: None,
            waited: false,
            ended: false,
            downstream: None,
            take_over: None,
        }
    }

    /// A client waits for it at the other end of this connection.
    pub(in crate::l7) fn awaited(self, downstream: Downstream) -> Self {
        Self { downstream: Some(downstream), ..self }
    }

    /// The request's place, when the response waits in frames that can hold it.
    fn place(&mut self) -> Option<Admission> {
        self.exchange.as_mut()?.place()
    }

    /// Reserves what the trailers take, or ends here.
    fn reserve(&mut self, trailers: &HeaderMap) -> Result<(), BodyError> {
        let Some(exchange) = &mut self.exchange else { return Ok(()) };
        let Err(why) = exchange.reserve(trailers) else { return Ok(()) };
        exchange.fail(Reason::Overflow, why.clone());
        self.exchange = None;
        Err(BodyError::NoRoom(why))
    }

    /// Breaks off when it is not at its end by then.
    pub(in crate::l7) fn until(mut self, deadline: Option<Instant>) -> Self {
        self.deadline =
            deadline.filter(|_| !self.is_end_stream()).map(|it| Box::pin(sleep_until(it)));
        self
    }

    /// Breaks off when a response without a length must not go on.
    pub(in crate::l7) fn unless(mut self, cut: impl FnOnce() -> Option<Cut>) -> Self {
        let is_stream = !self.is_end_stream() && self.size_hint().exact().is_none();
        self.cut = if is_stream { cut() } else { None };
        self
    }

    /// Whether it must not go on; then nothing more is said of it.
    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(cut) = &mut self.cut else { return false };
        let Poll::Ready((reason, why)) = cut.as_mut().poll(cx) else { return false };
        self.cut = None;
        if let Some(mut exchange) = self.exchange.take() {
            exchange.fail(reason, why);
        }
        true
    }

    /// Whether the deadline has passed; then nothing more is said of it.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let late =
            self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        if late {
            self.deadline = None;
            if let Some(mut exchange) = self.exchange.take() {
                let why = "the route's timeout passed before the response had ended".to_owned();
                let reason = exchange.due_to;
                exchange.fail(reason, why);
            }
        }
        late
    }

    /// There is no more yet. Whether it may go on is asked from now on.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, BodyError>>> {
        self.waited = true;
        if self.downstream.as_ref().is_some_and(|it| it.has_left(cx))
            && let Some(lease) = self.exchange.as_ref().and_then(|it| it.lease.as_ref())
        {
            lease.sender.half_close(cx);
        }
        if self.is_cut(cx) { Poll::Ready(Some(Err(BodyError::Cut))) } else { Poll::Pending }
    }

    /// Takes note of what passes; the exchange ends with the last frame or the first error.
    fn observe(&mut self, frame: &Option<Result<Frame<Bytes>, ConnectionError>>) {
        let Some(exchange) = &mut self.exchange else { return };
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    exchange.record.response_bytes(data.len());
                    if let Some(messages) = &mut exchange.messages {
                        messages.pass(data);
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    exchange.grpc_status(trailers);
                }
            }
            Some(Err(error)) => {
                exchange.fail(Reason::PeerReset, format!("the response broke off: {error}"));
                self.exchange = None;
            }
            None => {
                exchange.finish();
                self.exchange = None;
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Chunk;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, BodyError>>> {
        if self.is_late(cx) {
            return Poll::Ready(Some(Err(BodyError::Late)));
        }
        if self.waited && self.is_cut(cx) {
            return Poll::Ready(Some(Err(BodyError::Cut)));
        }
        let is_own = matches!(self.content, Content::Own(_));
        let frame = match &mut self.content {
            Content::Own(text) if text.is_empty() => None,
            Content::Own(text) => Some(Ok(Frame::data(std::mem::take(text)))),
            Content::Streamed(incoming) => match Pin::new(incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return self.wait(cx),
            },
        };
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && let Err(error) = self.reserve(trailers)
        {
            return Poll::Ready(Some(Err(error)));
        }
        // The server does not ask again once the length is complete, or after trailers.
        self.ended = match &frame {
            Some(Ok(frame)) => frame.is_trailers() || self.is_end_stream(),
            _ => true,
        };
        let place = if self.ended { self.place() } else { None };
        if !is_own {
            self.observe(&frame);
            if self.ended {
                self.observe(&None);
            }
        }
        Poll::Ready(last(frame, place))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
            || match &self.content {
                Content::Own(text) => text.is_empty(),
                Content::Streamed(incoming) => incoming.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(text) => SizeHint::with_exact(text.len() as u64),
            Content::Streamed(incoming) => incoming.size_hint(),
        }
    }
}

/// The frame with what its end takes along. An end that comes by itself is an empty frame then, as which it is sent anyway.
fn last(
    frame: Option<Result<Frame<Bytes>, ConnectionError>>,
    place: Option<Admission>,
) -> Option<Result<Frame<Chunk>, BodyError>> {
    let frame = match (frame, &place) {
        (None, None) => return None,
        (None, Some(_)) => Frame::data(Bytes::new()),
        (Some(Err(error)), _) => return Some(Err(error.into())),
        (Some(Ok(frame)), _) => frame,
    };
    let frame = match frame.into_data() {
        Ok(data) => Frame::data(Chunk::new(data, place)),
        Err(frame) => match (frame.into_trailers(), place) {
            (Ok(mut trailers), Some(place)) => {
                held::hold(&mut trailers, place);
                Frame::trailers(trailers)
            }
            (Ok(trailers), None) => Frame::trailers(trailers),
            // There is no other kind.
            (Err(_), place) => Frame::data(Chunk::new(Bytes::new(), place)),
        },
    };
    Some(Ok(frame))
}
