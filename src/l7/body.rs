//! Bodies that pass through: counted, never collected, and the end of a response ends its record.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::exchange::Exchange;
use crate::base::Reason;

/// Bytes of a request's body that have passed so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Uploaded(Arc<AtomicU64>);

impl Uploaded {
    pub(super) fn bytes(&self) -> usize {
        usize::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }
}

/// The body of a request on its way up.
#[derive(Debug, Default)]
pub(super) struct RequestBody {
    /// `None`: there is no body.
    incoming: Option<Incoming>,
    uploaded: Option<Uploaded>,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            return Self::default();
        }
        Self { incoming: Some(incoming), uploaded: Some(Uploaded::default()) }
    }

    /// The counter, when there is a body to count.
    pub(super) fn uploaded(&self) -> Option<Uploaded> {
        self.uploaded.clone()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        if let (Some(Ok(frame)), Some(uploaded)) = (&frame, &self.uploaded)
            && let Some(data) = frame.data_ref()
        {
            uploaded.0.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The body of a response on its way down, with the exchange that ends when it does.
pub(super) struct ResponseBody {
    content: Content,
    exchange: Option<Box<Exchange>>,
}

enum Content {
    /// An answer of our own.
    Own(Bytes),
    Streamed(Incoming),
}

impl ResponseBody {
    pub(super) fn own(text: Bytes, mut exchange: Box<Exchange>) -> Self {
        exchange.record.response_bytes(text.len());
        // Nothing more can fail here: what is left is the server's to write.
        exchange.finish();
        Self { content: Content::Own(text), exchange: Some(exchange) }
    }

    /// Nothing, and nothing to record: somebody else holds the exchange.
    pub(super) fn none() -> Self {
        Self { content: Content::Own(Bytes::new()), exchange: None }
    }

    pub(super) fn streamed(incoming: Incoming, mut exchange: Box<Exchange>) -> Self {
        if incoming.is_end_stream() {
            exchange.finish();
        }
        Self { content: Content::Streamed(incoming), exchange: Some(exchange) }
    }

    /// Takes note of what passes; the exchange ends with the last frame or the first error.
    fn observe(&mut self, frame: &Option<Result<Frame<Bytes>, hyper::Error>>) {
        let Some(exchange) = &mut self.exchange else { return };
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    exchange.record.response_bytes(data.len());
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
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match &mut self.content {
            Content::Own(text) if text.is_empty() => None,
            Content::Own(text) => Some(Ok(Frame::data(std::mem::take(text)))),
            Content::Streamed(incoming) => ready!(Pin::new(incoming).poll_frame(cx)),
        };
        if matches!(self.content, Content::Streamed(_)) {
            self.observe(&frame);
            // The server does not ask again once the length is complete.
            if self.is_end_stream() {
                self.observe(&None);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
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

/// `grpc-status` of trailers, or of a response that has nothing but headers.
pub(super) fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
