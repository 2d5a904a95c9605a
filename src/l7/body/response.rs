//! Bodies of responses.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::BodyError;
use crate::base::Reason;
use crate::l7::exchange::Exchange;

/// The body of a response on its way down, with the exchange that ends when it does.
pub(in crate::l7) struct ResponseBody {
    content: Content,
    exchange: Option<Box<Exchange>>,
    /// When it has to be at its end.
    deadline: Option<Pin<Box<Sleep>>>,
}

enum Content {
    /// An answer of our own.
    Own(Bytes),
    Streamed(Incoming),
}

impl ResponseBody {
    pub(in crate::l7) fn own(text: Bytes, mut exchange: Box<Exchange>) -> Self {
        exchange.record.response_bytes(text.len());
        // Nothing more can fail here: what is left is the server's to write.
        exchange.finish();
        Self { content: Content::Own(text), exchange: Some(exchange), deadline: None }
    }

    /// Nothing, and nothing to record: somebody else holds the exchange.
    pub(in crate::l7) fn none() -> Self {
        Self { content: Content::Own(Bytes::new()), exchange: None, deadline: None }
    }

    pub(in crate::l7) fn streamed(incoming: Incoming, mut exchange: Box<Exchange>) -> Self {
        if incoming.is_end_stream() {
            exchange.finish();
        }
        Self { content: Content::Streamed(incoming), exchange: Some(exchange), deadline: None }
    }

    /// Breaks off when it is not at its end by then.
    pub(in crate::l7) fn until(mut self, deadline: Option<Instant>) -> Self {
        self.deadline =
            deadline.filter(|_| !self.is_end_stream()).map(|it| Box::pin(sleep_until(it)));
        self
    }

    /// Whether the deadline has passed; then nothing more is said of it.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let late =
            self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        if late {
            self.deadline = None;
            if let Some(mut exchange) = self.exchange.take() {
                let why = "the route's timeout passed before the response had ended".to_owned();
                exchange.fail(Reason::Timeout, why);
            }
        }
        late
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
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_late(cx) {
            return Poll::Ready(Some(Err(BodyError::Late)));
        }
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
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
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
