//! Bodies on their way in: they take the connection's receiving half along and read from it, so that whoever does not read holds its
//! sender back, and give it back at their end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::decode::{Decoder, Piece};
use super::downstream::{Downstream, Returned};
use super::error::Error;
use super::reader::Reader;
use super::slot::Slot;

type Next = Option<Result<Frame<Bytes>, Error>>;

/// The body of a request.
pub(in crate::l7) struct RequestStream {
    reader: Option<Box<Reader>>,
    decoder: Decoder,
    downstream: Downstream,
    /// The client waits to be asked for it.
    is_awaited: bool,
}

impl RequestStream {
    pub(super) fn new(
        reader: Box<Reader>,
        decoder: Decoder,
        downstream: Downstream,
        is_awaited: bool,
    ) -> Self {
        Self { reader: Some(reader), decoder, downstream, is_awaited }
    }

    fn give_back(&mut self, is_broken: bool) {
        let Some(reader) = self.reader.take() else { return };
        let rest = std::mem::replace(&mut self.decoder, Decoder::Length(0));
        let rest = (!rest.is_over()).then_some(rest);
        let reader = (!is_broken).then_some(reader);
        self.downstream.give_back(Returned { reader, rest });
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        self.give_back(false);
    }
}

/// The body of a response.
pub(in crate::l7) struct ResponseStream {
    reader: Option<Box<Reader>>,
    decoder: Decoder,
    /// Where the half goes at the end, if the connection may be used again.
    slot: Option<Slot>,
}

impl ResponseStream {
    pub(super) fn new(reader: Box<Reader>, decoder: Decoder, slot: Option<Slot>) -> Self {
        Self { reader: Some(reader), decoder, slot }
    }

    fn end(&mut self) {
        let reader = self.reader.take();
        if let (Some(reader), Some(slot)) = (reader, self.slot.take()) {
            slot.put_reader(reader);
        }
    }
}

/// The next piece of a body.
fn poll_piece(
    decoder: &mut Decoder,
    reader: &mut Reader,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Piece, Error>>> {
    loop {
        match decoder.next(reader.left()) {
            Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
            Ok(None) if decoder.is_over() => return Poll::Ready(None),
            Ok(None) => {}
            Err(error) => return Poll::Ready(Some(Err(error))),
        }
        match ready!(reader.poll_more(cx, decoder.wanted())) {
            Ok(true) => {}
            Ok(false) => return Poll::Ready(decoder.end().err().map(Err)),
            Err(error) => return Poll::Ready(Some(Err(error.into()))),
        }
    }
}

fn frame(piece: Option<Result<Piece, Error>>) -> Next {
    let frame = |piece| match piece {
        Piece::Data(data) => Frame::data(data),
        Piece::Trailers(trailers) => Frame::trailers(trailers),
    };
    piece.map(|piece| piece.map(frame))
}

fn hint(decoder: &Decoder) -> SizeHint {
    decoder.left().map(SizeHint::with_exact).unwrap_or_default()
}

impl Body for RequestStream {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Next> {
        let this = &mut *self;
        let Some(reader) = &mut this.reader else { return Poll::Ready(None) };
        if this.downstream.has_ended(cx) {
            this.reader = None;
            return Poll::Ready(Some(Err(Error::Closed)));
        }
        if std::mem::take(&mut this.is_awaited) {
            this.downstream.ask_for_body();
        }
        let piece = ready!(poll_piece(&mut this.decoder, reader, cx));
        match &piece {
            Some(Err(Error::Io(_))) => this.give_back(true),
            Some(Ok(_)) if !this.decoder.is_over() => {}
            // After an error as well: its client hears why it is refused.
            _ => this.give_back(false),
        }
        Poll::Ready(frame(piece))
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        hint(&self.decoder)
    }
}

impl Body for ResponseStream {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Next> {
        let this = &mut *self;
        let Some(reader) = &mut this.reader else { return Poll::Ready(None) };
        let piece = ready!(poll_piece(&mut this.decoder, reader, cx));
        match &piece {
            Some(Err(_)) => this.reader = None,
            Some(Ok(_)) if !this.decoder.is_over() => {}
            _ => this.end(),
        }
        Poll::Ready(frame(piece))
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        hint(&self.decoder)
    }
}
