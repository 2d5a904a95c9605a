//! The body of an application's response.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};

use crate::l7::http1::body::ResponseStream;
use crate::l7::http1::names::Names;
use crate::l7::http1::outgoing::Halves;
use crate::l7::message::connection_error::ConnectionError;

type Next = Option<Result<Frame<Bytes>, ConnectionError>>;

/// As it comes from the connection.
pub(in crate::l7) enum UpstreamBody {
    Http1(Answer),
    Http2(Stream),
}

/// Of HTTP/1.
pub(in crate::l7) struct Answer {
    /// How the names of the head's fields were written, where they were written otherwise.
    pub(super) names: Option<Names>,
    /// `None`: there is no body.
    pub(super) stream: Option<ResponseStream>,
    /// After a 101.
    pub(super) upgraded: Option<Halves>,
}

/// Of HTTP/2.
pub(in crate::l7) struct Stream {
    stream: RecvStream,
    /// What the head says of its length.
    length: Option<u64>,
    has_data: bool,
}

impl Stream {
    /// `head`: the response's.
    pub(super) fn new(stream: RecvStream, head: &HeaderMap) -> Self {
        let length = head.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let length = length.or_else(|| stream.is_end_stream().then_some(0));
        Self { stream, length, has_data: true }
    }

    /// Room for as much again is given at once: what is read here is written to the client before more is read.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.has_data {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only where the stream is over.
                    _ = self.stream.flow_control().release_capacity(data.len());
                    self.length = self.length.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(broken(error)),
                None => self.has_data = false,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => broken(error),
        })
    }
}

/// An application that has said all may reset the stream, so that no more of the request is sent (RFC 9113, 8.1).
fn broken(error: h2::Error) -> Next {
    (error.reason() != Some(Reason::NO_ERROR)).then(|| Err(error.into()))
}

impl UpstreamBody {
    /// How the names of the head's fields were written, where they were written otherwise.
    pub(in crate::l7) fn names(&self) -> Option<&Names> {
        match self {
            Self::Http1(answer) => answer.names.as_ref(),
            Self::Http2(_) => None,
        }
    }

    /// The connection, after a 101.
    pub(in crate::l7) fn upgraded(&mut self) -> Option<Halves> {
        match self {
            Self::Http1(answer) => answer.upgraded.take(),
            Self::Http2(_) => None,
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ConnectionError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Next> {
        match self.get_mut() {
            Self::Http1(Answer { stream, .. }) => {
                let Some(stream) = stream else { return Poll::Ready(None) };
                let frame = ready!(Pin::new(stream).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(ConnectionError::from)))
            }
            Self::Http2(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(Answer { stream, .. }) => stream.as_ref().is_none_or(Body::is_end_stream),
            Self::Http2(Stream { stream, .. }) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(Answer { stream, .. }) => {
                stream.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
            }
            Self::Http2(Stream { length, .. }) => {
                length.map(SizeHint::with_exact).unwrap_or_default()
            }
        }
    }
}
