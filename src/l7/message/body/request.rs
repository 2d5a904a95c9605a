//! Bodies of requests: read once from the client, and where a route may send them again, kept as far as they are short.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use super::BodyError;
use super::copied::{Copied, Tee};
use super::expected::{Expectation, Waiting};
use super::forbidden::Forbidden;
use super::incoming::Incoming;
use super::part::Part;
use super::uploaded::{Broken, Uploaded};
use crate::ext_authz::Mutations;
use crate::l7::budget::Reserved;
use crate::l7::budget::seat::Receiving;
use crate::l7::budget::sizes::REPLAY_BUFFER;
use crate::l7::http1;
use crate::l7::http1::downstream::Downstream;
use crate::l7::http1::names::Names;
use crate::l7::message::messages::Messages;
use crate::l7::message::{headers, held};

/// The body of a request on its way up.
#[derive(Default)]
pub(in crate::l7) struct RequestBody {
    source: Source,
    came: Came,
}

/// How a request came over HTTP/1, which goes with its body on every way that it takes.
#[derive(Clone, Default)]
pub(in crate::l7) struct Came {
    /// How the names of its fields were written, where they were written otherwise.
    pub(in crate::l7) names: Option<Names>,
    /// What is known of the client's connection.
    pub(in crate::l7) downstream: Option<Downstream>,
}

#[derive(Default)]
enum Source {
    /// There is no body.
    #[default]
    None,
    Client(Reading),
    Kept(Turn),
    Copied(Copied),
    /// An agent's own.
    Own(Option<Bytes>),
}

/// What was read ahead of a body.
pub(in crate::l7) struct Ahead {
    pub(in crate::l7) bytes: Bytes,
    /// There is no more.
    pub(in crate::l7) whole: bool,
}

/// What was read ahead and has not been passed on, with the room for it.
struct HeldBack {
    data: BytesMut,
    trailers: Option<HeaderMap>,
    /// Each time that more was read ahead.
    rooms: Vec<Reserved>,
}

impl HeldBack {
    fn is_held(&self) -> bool {
        !self.data.is_empty() || self.trailers.is_some()
    }
}

/// What the client sends.
struct Reading {
    incoming: Incoming,
    /// What was read ahead of whoever is to get it. Boxed, because few have it.
    ahead: Option<Box<HeldBack>>,
    /// Nothing more comes.
    ended: bool,
    uploaded: Uploaded,
    copies: Vec<Tee>,
    /// The copies had a moment to catch up.
    waited: bool,
    /// What the client may send ahead; given back when nothing more can come.
    receiving: Option<Receiving>,
    /// The client waits to be asked for it.
    expected: Option<Waiting>,
    forbidden: Option<Box<Forbidden>>,
    /// Of gRPC.
    messages: Option<Messages>,
}

/// A body that may be sent again, held by whoever may do so.
#[derive(Clone)]
pub(in crate::l7) struct Replay(Arc<Mutex<Kept>>);

struct Kept {
    reading: Reading,
    parts: Vec<Part>,
    bytes: usize,
    ended: bool,
    /// It cannot be sent again.
    lost: bool,
    /// The attempt that reads on; one before it may be on its way out.
    turn: u32,
}

/// One attempt's way through a body.
struct Turn {
    kept: Replay,
    turn: u32,
    /// How many parts this attempt has read.
    read: usize,
}

type Next = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl RequestBody {
    /// Of a request over HTTP/1.
    pub(in crate::l7) fn http1(incoming: http1::server::Incoming) -> Self {
        let http1::server::Incoming { names, downstream, stream } = incoming;
        let source = stream.map_or(Source::None, |it| Source::read(Incoming::Http1(it)));
        Self { source, came: Came { names, downstream: Some(downstream) } }
    }

    /// Of a request over HTTP/2.
    pub(in crate::l7) fn http2(incoming: hyper::body::Incoming) -> Self {
        if incoming.is_end_stream() {
            return Self::default();
        }
        Source::read(Incoming::Http2(incoming)).into()
    }

    /// How the request came.
    pub(in crate::l7) fn came(&self) -> &Came {
        &self.came
    }

    /// The same, of a request that came so.
    pub(in crate::l7) fn of(self, came: Came) -> Self {
        Self { came, ..self }
    }

    /// The whole body of a request of an agent's own.
    pub(in crate::l7) fn own(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::default() } else { Source::Own(Some(bytes)).into() }
    }

    /// Reads ahead until there are more than so many bytes or the body has ended, and gives the data that is there by then; those
    /// who read the body later get all of it. A client that waits to be asked for the body is asked. `room` is held until what is
    /// read has been passed on.
    pub(in crate::l7) async fn read_ahead(
        &mut self,
        most: usize,
        room: Reserved,
    ) -> Result<Ahead, BodyError> {
        let mut room = Some(room);
        poll_fn(|cx| match &mut self.source {
            Source::Client(reading) => {
                ready!(reading.poll_ahead(cx, most, &mut room))?;
                Poll::Ready(Ok(reading.seen()))
            }
            Source::Kept(turn) => {
                let mut kept = turn.kept.0.lock();
                ready!(kept.reading.poll_ahead(cx, most, &mut room))?;
                let before = data(&kept.parts);
                let Ahead { bytes, whole } = kept.reading.seen();
                let bytes = match before.is_empty() {
                    true => bytes,
                    false => [&before[..], &bytes].concat().into(),
                };
                Poll::Ready(Ok(Ahead { bytes, whole }))
            }
            Source::None | Source::Copied(_) | Source::Own(_) => {
                Poll::Ready(Ok(Ahead { bytes: Bytes::new(), whole: true }))
            }
        })
        .await
    }

    /// It is not read before the expectation is met.
    pub(in crate::l7) fn wait(&mut self) {
        if let Source::Client(reading) = &mut self.source {
            reading.expected = Some(Waiting::new(Expectation::default()));
        }
    }

    /// Fields of these names are taken out of its trailers.
    pub(in crate::l7) fn forbid_in_trailers(&mut self, names: Vec<HeaderName>) {
        self.forbid(|forbidden| forbidden.name(names));
    }

    /// So are fields that are providers' to set.
    pub(in crate::l7) fn leave_to_providers(&mut self, mutations: &Arc<Mutations>) {
        self.forbid(|forbidden| forbidden.leave_to(mutations.clone()));
    }

    fn forbid(&mut self, change: impl FnOnce(&mut Forbidden)) {
        match &mut self.source {
            Source::Client(reading) => change(reading.forbidden.get_or_insert_default()),
            Source::Kept(turn) => {
                change(turn.kept.0.lock().reading.forbidden.get_or_insert_default());
            }
            Source::None | Source::Copied(_) | Source::Own(_) => {}
        }
    }

    /// What the client expects, when it waits to be asked for its body.
    pub(in crate::l7) fn expectation(&self) -> Option<Expectation> {
        let of = |reading: &Reading| Some(reading.expected.as_ref()?.expectation().clone());
        match &self.source {
            Source::Client(reading) => of(reading),
            Source::Kept(turn) => of(&turn.kept.0.lock().reading),
            Source::None | Source::Copied(_) | Source::Own(_) => None,
        }
    }

    /// Its messages are gRPC's, and counted.
    pub(in crate::l7) fn count_messages(&mut self) {
        if let Source::Client(reading) = &mut self.source {
            reading.messages = Some(Messages::default());
        }
    }

    /// Holds the body's part of the connection's receive window.
    pub(in crate::l7) fn receiving(&mut self, receiving: Receiving) {
        if let Source::Client(reading) = &mut self.source {
            reading.receiving = Some(receiving);
        }
    }

    /// The counter, when there is a body to count.
    pub(in crate::l7) fn uploaded(&self) -> Option<Uploaded> {
        match &self.source {
            Source::Client(reading) => Some(reading.uploaded.clone()),
            _ => None,
        }
    }

    pub(in crate::l7) fn is_empty(&self) -> bool {
        matches!(self.source, Source::None)
    }

    /// The body of a copy of the request, filled as this one is read.
    pub(in crate::l7) fn copy(&mut self) -> RequestBody {
        let Source::Client(reading) = &mut self.source else { return RequestBody::default() };
        let (tee, copied) = Tee::new(reading.size_hint());
        reading.copies.push(tee);
        Source::Copied(copied).into()
    }

    /// Keeps what is read from now on, so that it can be had again. There is nothing to keep without a body.
    pub(in crate::l7) fn keep(&mut self) -> Option<Replay> {
        let Source::Client(reading) = std::mem::take(&mut self.source) else { return None };
        let kept =
            Kept { reading, parts: Vec::new(), bytes: 0, ended: false, lost: false, turn: 0 };
        let replay = Replay(Arc::new(Mutex::new(kept)));
        self.source = Source::Kept(Turn { kept: replay.clone(), turn: 0, read: 0 });
        Some(replay)
    }
}

impl Source {
    fn read(incoming: Incoming) -> Self {
        let (uploaded, copies) = (Uploaded::default(), Vec::new());
        Self::Client(Reading {
            incoming,
            ahead: None,
            ended: false,
            uploaded,
            copies,
            waited: false,
            receiving: None,
            expected: None,
            forbidden: None,
            messages: None,
        })
    }
}

impl From<Source> for RequestBody {
    fn from(source: Source) -> Self {
        Self { source, came: Came::default() }
    }
}

impl http1::client::Outgoing for RequestBody {
    fn names(&self) -> Option<&Names> {
        self.came.names.as_ref()
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RequestBody")
    }
}

impl Replay {
    /// All of it was read and is kept, so that several attempts may have it at once.
    pub(in crate::l7) fn is_whole(&self) -> bool {
        self.0.lock().is_whole()
    }

    /// It was too long to be kept.
    pub(in crate::l7) fn is_lost(&self) -> bool {
        self.0.lock().lost
    }

    /// The whole body once more; the one before is not read any further than what is kept. `None` when it was too long to be kept.
    pub(in crate::l7) fn again(&self) -> Option<RequestBody> {
        let mut kept = self.0.lock();
        if kept.lost {
            return None;
        }
        kept.turn += 1;
        Some(Source::Kept(Turn { kept: self.clone(), turn: kept.turn, read: 0 }).into())
    }
}

impl Reading {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Next {
        if let Some(waiting) = &mut self.expected {
            if !ready!(waiting.poll(cx)) {
                return Poll::Ready(Some(Err(BodyError::Withheld)));
            }
            self.expected = None;
        }
        // A copy is not waited for; it only gets the chance to be as fast as the original.
        if !self.waited && self.copies.iter().any(Tee::lags) {
            self.waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.waited = false;
        let frame = match self.take_ahead() {
            Some(part) => Some(Ok(part.into())),
            None => ready!(self.poll_incoming(cx)),
        };
        if let Some(Ok(frame)) = &frame
            && !self.copies.is_empty()
        {
            self.copies.retain(|copy| Part::of(frame).is_some_and(|part| copy.pass(part)));
        }
        if frame.is_none() || self.is_end_stream() {
            self.copies.drain(..).for_each(Tee::end);
            self.uploaded.0.end();
            self.receiving = None;
            self.ahead = None;
        }
        Poll::Ready(frame)
    }

    fn held(&self) -> &[u8] {
        self.ahead.as_ref().map_or(&[], |ahead| &ahead.data)
    }

    fn take_ahead(&mut self) -> Option<Part> {
        let ahead = self.ahead.as_mut()?;
        if !ahead.data.is_empty() {
            return Some(Part::Data(std::mem::take(&mut ahead.data).freeze()));
        }
        let mut trailers = ahead.trailers.take()?;
        // They were read before anybody knew what providers say.
        self.forbidden.as_ref().inspect(|forbidden| forbidden.strip(&mut trailers));
        Some(Part::Trailers(trailers))
    }

    /// Reads ahead, see [`RequestBody::read_ahead`].
    fn poll_ahead(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        room: &mut Option<Reserved>,
    ) -> Poll<Result<(), BodyError>> {
        // The server asks for it as it is read.
        if let Some(waiting) = self.expected.take() {
            waiting.expectation().is_met();
        }
        if self.ahead.is_none() {
            let (data, trailers, rooms) = (BytesMut::new(), None, Vec::new());
            self.ahead = Some(Box::new(HeldBack { data, trailers, rooms }));
        }
        if let Some(ahead) = &mut self.ahead {
            ahead.rooms.extend(room.take());
        }
        while !self.ended && self.held().len() <= most {
            let frame = ready!(self.poll_incoming(cx));
            let Some(ahead) = &mut self.ahead else { break };
            match frame {
                // In one piece: a client may send a byte in each frame.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => ahead.data.extend_from_slice(&data),
                    Err(frame) => ahead.trailers = frame.into_trailers().ok(),
                },
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    fn seen(&self) -> Ahead {
        Ahead { bytes: Bytes::copy_from_slice(self.held()), whole: self.ended }
    }

    fn is_end_stream(&self) -> bool {
        let held = self.ahead.as_ref().is_some_and(|ahead| ahead.is_held());
        !held && (self.ended || self.incoming.is_end_stream())
    }

    /// What was read ahead, and what the client sends yet.
    fn size_hint(&self) -> SizeHint {
        let rest = if self.ended { SizeHint::with_exact(0) } else { self.incoming.size_hint() };
        longer(rest, self.held().len())
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Next {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if let Some(Err(error)) = &frame
            && let Some(broken) = Broken::of(error)
        {
            _ = self.uploaded.0.broken.set(broken);
        }
        if let Some(Ok(some)) = &mut frame
            && let Some(trailers) = some.trailers_mut()
            && let Err(error) = self.pass_trailers(trailers)
        {
            frame = Some(Err(error));
        }
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.uploaded.0.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            if let Some(messages) = &mut self.messages {
                messages.pass(data);
                self.uploaded.0.messages.store(messages.count(), Ordering::Relaxed);
            }
        }
        self.ended |= frame.is_none() || self.incoming.is_end_stream();
        Poll::Ready(frame)
    }

    /// They hold what they take until they have been sent.
    fn pass_trailers(&self, trailers: &mut HeaderMap) -> Result<(), BodyError> {
        headers::strip_trailers(trailers);
        if let Some(forbidden) = &self.forbidden {
            forbidden.strip(trailers);
        }
        let Some(receiving) = &self.receiving else { return Ok(()) };
        let reserved = receiving.trailers(headers::size_of(trailers));
        if let Some(reserved) = reserved.map_err(|full| BodyError::NoRoom(receiving.why(full)))? {
            held::hold(trailers, reserved);
        }
        Ok(())
    }
}

impl Kept {
    fn is_whole(&self) -> bool {
        !self.lost && (self.ended || self.reading.is_end_stream())
    }

    fn keep(&mut self, frame: &Option<Result<Frame<Bytes>, BodyError>>) {
        match frame {
            Some(Ok(frame)) => match Part::of(frame) {
                Some(part) if !self.lost && self.bytes + part.len() <= REPLAY_BUFFER => {
                    self.bytes += part.len();
                    self.parts.push(part);
                }
                _ => self.lose(),
            },
            // Another attempt may ask for it.
            Some(Err(BodyError::Withheld)) => {}
            Some(Err(_)) => self.lose(),
            None => self.ended = true,
        }
    }

    fn lose(&mut self) {
        self.lost = true;
        self.parts = Vec::new();
    }
}

impl Turn {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Next {
        let mut kept = self.kept.0.lock();
        // The attempt was given up, and its connection with it. Of what is kept as a whole several have a copy.
        if kept.turn != self.turn && !kept.is_whole() {
            return Poll::Ready(Some(Err(BodyError::Withheld)));
        }
        if let Some(part) = kept.parts.get(self.read) {
            self.read += 1;
            return Poll::Ready(Some(Ok(part.clone().into())));
        }
        if kept.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(kept.reading.poll_frame(cx));
        kept.keep(&frame);
        self.read += 1;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.kept.0.lock();
        self.read >= kept.parts.len() && (kept.ended || kept.reading.is_end_stream())
    }

    /// What is kept and was not read by this attempt, and what the client sends yet.
    fn size_hint(&self) -> SizeHint {
        let kept = self.kept.0.lock();
        let again: usize = kept.parts.iter().skip(self.read).map(Part::len).sum();
        longer(kept.reading.size_hint(), again)
    }
}

/// What is known of a body that has so many bytes before the rest.
fn longer(rest: SizeHint, before: usize) -> SizeHint {
    match rest.exact() {
        Some(rest) => SizeHint::with_exact(before as u64 + rest),
        None => {
            let mut hint = SizeHint::new();
            hint.set_lower(before as u64 + rest.lower());
            hint
        }
    }
}

/// The data among the parts.
fn data<'a>(parts: impl IntoIterator<Item = &'a Part>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        if let Part::Data(data) = part {
            bytes.extend_from_slice(data);
        }
    }
    bytes
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next {
        match &mut self.source {
            Source::None => Poll::Ready(None),
            Source::Client(reading) => reading.poll_frame(cx),
            Source::Kept(turn) => turn.poll_frame(cx),
            Source::Copied(copied) => copied.poll_frame(cx),
            Source::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::None => true,
            Source::Client(reading) => reading.is_end_stream(),
            Source::Kept(turn) => turn.is_end_stream(),
            Source::Copied(copied) => copied.is_end_stream(),
            Source::Own(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::None => SizeHint::with_exact(0),
            Source::Client(reading) => reading.size_hint(),
            Source::Kept(turn) => turn.size_hint(),
            Source::Copied(copied) => copied.size_hint(),
            Source::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}
