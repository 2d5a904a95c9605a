//! What a client sends, over either version.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::BodyError;
use crate::l7::http1::body::RequestStream;

/// A body as it comes from the client's connection.
pub(super) enum Incoming {
    Http1(RequestStream),
    Http2(hyper::body::Incoming),
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(match self.get_mut() {
            Self::Http1(stream) => {
                ready!(Pin::new(stream).poll_frame(cx)).map(|it| it.map_err(BodyError::from))
            }
            Self::Http2(stream) => {
                ready!(Pin::new(stream).poll_frame(cx)).map(|it| it.map_err(BodyError::from))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(stream) => stream.is_end_stream(),
            Self::Http2(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(stream) => stream.size_hint(),
            Self::Http2(stream) => stream.size_hint(),
        }
    }
}
