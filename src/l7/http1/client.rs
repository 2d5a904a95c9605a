//! The client's side: one connection to an application, which takes a request at a time. There is no task behind it: a request's own
//! future writes what the application takes, and reads what it says.
//!
//! An application may answer before it has read the request, and then close (413, 401): the rest of the request cannot be written any
//! more, and the answer waits to be read. So what cannot be written is thrown away, and reading decides.

use std::fmt::Display;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body::Body;

use super::body::ResponseStream;
use super::decode::Decoder;
use super::encode::{Decimal, Framing};
use super::error::Error;
use super::head::{self, Asks, ResponseHead};
use super::names::{self, Names};
use super::outgoing::Halves;
use super::reader::Reader;
use super::slot::Slot;
use super::writer::Writer;
use crate::sock::Duplex;
use crate::tunnel::Carrier;

/// A body that is sent.
pub(in crate::l7) trait Outgoing: Body<Data = Bytes, Error: Display> + Unpin {
    /// How the names of the head's fields were written, where they were written otherwise.
    fn names(&self) -> Option<&Names>;
}

/// Who hears what is said before the response.
pub(in crate::l7) trait Hears {
    /// An informational response has come.
    fn informed(&self, status: StatusCode, headers: &mut HeaderMap);

    /// Whether the client sends nothing more; who asks is woken when it does.
    fn has_left(&self, cx: &Context<'_>) -> bool;
}

/// A connection to an application.
pub(in crate::l7) struct Connection {
    slot: Slot,
    most_fields: u16,
}

/// What an application has answered.
pub(in crate::l7) struct Answered<B> {
    pub(in crate::l7) response: Response<()>,
    pub(in crate::l7) names: Option<Names>,
    /// `None`: there is none, or none any more.
    pub(in crate::l7) body: Option<ResponseStream>,
    /// The rest of the request, which is to be sent while the response is read.
    pub(in crate::l7) rest: Option<Rest<B>>,
    /// After a 101.
    pub(in crate::l7) upgraded: Option<Halves>,
}

/// Why there is no response.
pub(in crate::l7) enum Failed {
    /// The connection was closed before, so nothing was sent, and the request is where it was.
    Unsent,
    /// What the application has sent is no response, or it has closed the connection.
    Lost { error: Error, is_half_closed: bool },
    /// The request's body broke off.
    Request(String),
}

/// A request on its way.
struct Sending<B> {
    upload: Upload<B>,
    reader: Box<Reader>,
    asks: Asks,
    most_fields: u16,
    /// The application was told that nothing more comes, because the client has said so.
    is_half_closed: bool,
}

/// What is yet to be written of a request.
struct Upload<B> {
    writer: Box<Writer>,
    /// `None`: all of it was taken. Boxed, because few requests have one, and every future of a request would hold it.
    body: Option<Box<B>>,
    framing: Framing,
}

/// The rest of a request whose response has begun.
pub(in crate::l7) struct Rest<B> {
    upload: Upload<B>,
    /// Where the sending half goes in the end.
    slot: Slot,
}

impl Connection {
    pub(in crate::l7) fn new(stream: Carrier, most_fields: usize) -> Self {
        let (read, write) = stream.halves();
        let slot = Slot::new(Reader::new(read, Bytes::new()), Writer::new(write));
        Self { slot, most_fields: u16::try_from(most_fields).unwrap_or(u16::MAX) }
    }

    /// Whether it may take a request, as far as is known without looking.
    pub(in crate::l7) fn is_whole(&self) -> bool {
        self.slot.is_whole()
    }

    /// Whether the application has neither closed it nor said anything unasked.
    pub(in crate::l7) fn is_quiet(&self) -> bool {
        self.slot.is_quiet()
    }

    /// Tells the application that nothing more comes, once all is written.
    pub(in crate::l7) fn half_close(&self, cx: &mut Context<'_>) {
        self.slot.half_close(cx);
    }

    /// Sends a request, and as much of its body as the application takes before it answers.
    pub(in crate::l7) async fn send<B: Outgoing + Default>(
        &mut self,
        request: &mut Request<B>,
        hears: &impl Hears,
    ) -> Result<Answered<B>, Failed> {
        let mut sending = self.begin(request)?;
        let head = poll_fn(|cx| sending.poll(cx, hears)).await?;
        self.answered(sending, head)
    }

    fn begin<B: Outgoing + Default>(
        &mut self,
        request: &mut Request<B>,
    ) -> Result<Sending<B>, Failed> {
        let (reader, mut writer) = self.slot.take().ok_or(Failed::Unsent)?;
        let (head, body) = std::mem::take(request).into_parts();
        let framing = put_request(&mut writer, &head, &body);
        let body = (framing != Framing::None).then(|| Box::new(body));
        let upload = Upload { writer, body, framing };
        let (asks, most_fields) = (Asks::from(&head.method), self.most_fields);
        Ok(Sending { upload, reader, asks, most_fields, is_half_closed: false })
    }

    fn answered<B>(
        &mut self,
        sending: Sending<B>,
        head: ResponseHead,
    ) -> Result<Answered<B>, Failed> {
        let Sending { upload, reader, asks, most_fields, is_half_closed } = sending;
        let ResponseHead { response, names, keeps_alive } = head;
        let decoder = head::response_body(asks, &response, most_fields.into())
            .map_err(|error| Failed::Lost { error, is_half_closed })?;
        if is_half_closed {
            self.slot.half_closed();
        }
        let is_sent = upload.is_sent();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && is_sent {
            let upgraded = Some(Halves { reader, writer: upload.writer });
            return Ok(Answered { response, names, body: None, rest: None, upgraded });
        }
        let rest = if is_sent {
            self.slot.put_writer(upload.writer);
            None
        } else {
            Some(Rest { upload, slot: self.slot.clone() })
        };
        let goes_on = keeps_alive && !matches!(decoder, Some(Decoder::Close));
        let slot = (goes_on && !is_half_closed).then(|| self.slot.clone());
        let body = match (decoder, slot) {
            (Some(decoder), slot) => Some(ResponseStream::new(reader, decoder, slot)),
            (None, Some(slot)) => {
                slot.put_reader(reader);
                None
            }
            (None, None) => None,
        };
        Ok(Answered { response, names, body, rest, upgraded: None })
    }
}

impl<B: Outgoing> Sending<B> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        hears: &impl Hears,
    ) -> Poll<Result<ResponseHead, Failed>> {
        if let Poll::Ready(Err(why)) = self.upload.poll_send(cx) {
            return Poll::Ready(Err(Failed::Request(why)));
        }
        if self.upload.is_sent() && (self.is_half_closed || hears.has_left(cx)) {
            self.is_half_closed = true;
            _ = self.upload.writer.poll_finish(cx);
        }
        let (most_fields, is_half_closed) = (usize::from(self.most_fields), self.is_half_closed);
        let lost = |error| Poll::Ready(Err(Failed::Lost { error, is_half_closed }));
        loop {
            let head = self.reader.poll_head(cx, |bytes| head::response(bytes, most_fields));
            let mut head = match ready!(head) {
                Ok(Some(head)) => head,
                Ok(None) => return lost(Error::Closed),
                Err(error) => return lost(error),
            };
            let status = head.response.status();
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Ok(head));
            }
            hears.informed(status, head.response.headers_mut());
        }
    }
}

impl<B> Upload<B> {
    /// All that can be was written.
    fn is_sent(&self) -> bool {
        self.body.is_none() && (self.writer.is_over() || self.writer.is_flushed())
    }
}

impl<B: Outgoing> Upload<B> {
    /// Writes what is there. Ready when all was written, or nothing more can be, or with why the body broke off.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let written = ready!(self.poll_write(cx))?;
        if written.is_err() {
            self.writer.give_up();
            self.body = None;
        }
        Poll::Ready(Ok(()))
    }

    /// The inner result is the connection's.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<std::io::Result<()>, String>> {
        while let Some(body) = self.body.as_mut().filter(|_| !self.writer.is_over()) {
            if let Err(error) = ready!(self.writer.poll_room(cx)) {
                return Poll::Ready(Ok(Err(error)));
            }
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                let flushed = ready!(self.writer.poll_flush(cx));
                return if flushed.is_err() { Poll::Ready(Ok(flushed)) } else { Poll::Pending };
            };
            let frame = frame.transpose().map_err(|error| error.to_string())?;
            let is_last = frame.is_none() || body.is_end_stream();
            let trailers = match frame.map(http_body::Frame::into_data) {
                Some(Ok(data)) => {
                    let taken = self.framing.data(&mut self.writer, data);
                    taken.map_err(|error| error.to_string())?;
                    None
                }
                Some(Err(frame)) => frame.into_trailers().ok(),
                None => None,
            };
            if is_last || trailers.is_some() {
                self.body = None;
                let ended = self.framing.end(&mut self.writer, trailers.as_ref());
                ended.map_err(|error| error.to_string())?;
            }
        }
        self.writer.poll_flush(cx).map(Ok)
    }
}

impl<B: Outgoing> Rest<B> {
    /// Sends it while the response is read. The connection stays open: its end would tell the application that the client left.
    pub(in crate::l7) async fn send(mut self) -> Result<(), String> {
        poll_fn(|cx| self.upload.poll_send(cx)).await?;
        self.slot.put_writer(self.upload.writer);
        Ok(())
    }
}

/// Writes a head. Gives how the body is written.
fn put_request<B: Outgoing>(writer: &mut Writer, head: &Parts, body: &B) -> Framing {
    let length = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
    let framing = match length {
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::chunked(&head.headers, true),
    };
    let digits = Decimal::new(length.unwrap_or_default());
    let said = head.headers.get(CONTENT_LENGTH).map(|length| length.as_bytes());
    let holds = said.is_none() && framing == Framing::None || said == length.map(|_| digits.text());
    let left_out: &[HeaderName] =
        if holds { &[TRANSFER_ENCODING] } else { &[TRANSFER_ENCODING, CONTENT_LENGTH] };
    let also: Option<(HeaderName, &[u8])> = match framing {
        Framing::Chunked(_) => Some((TRANSFER_ENCODING, b"chunked")),
        Framing::Length(_) if !holds => Some((CONTENT_LENGTH, digits.text())),
        _ => None,
    };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let method = head.method.as_str();
    let more = method.len() + target.len() + 64;
    let out = writer.buffer(more + names::length(&head.headers));
    out.put_slice(method.as_bytes());
    out.put_slice(b" ");
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    names::put(out, &head.headers, body.names(), left_out, also);
    out.put_slice(b"\r\n");
    framing
}

/// Nobody hears.
#[cfg(test)]
impl Hears for () {
    fn informed(&self, _: StatusCode, _: &mut HeaderMap) {}

    fn has_left(&self, _: &Context<'_>) -> bool {
        false
    }
}
