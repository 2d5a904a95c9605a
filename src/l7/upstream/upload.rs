//! The body of a request on its way to an application, over HTTP/2.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::l7::message::body::{BodyError, RequestBody};

/// Sends it as far as the application's windows let it, which holds the client back. Its result is why the client's body broke off;
/// what the application does to the stream is told with its response.
pub(super) struct Upload {
    stream: SendStream<Bytes>,
    body: RequestBody,
    /// Read, and waiting for room; with whether it is the last.
    waiting: Option<(Bytes, bool)>,
}

impl Upload {
    pub(super) fn new(stream: SendStream<Bytes>, body: RequestBody) -> Self {
        Self { stream, body, waiting: None }
    }

    /// Whether there is room for something, or nothing can be sent any more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(false),
            }
        }
        Poll::Ready(true)
    }

    /// The next frame of the body. `None`: all is sent, or the stream is over.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<()>, String>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.stream.send_reset(reason(&error));
                return Poll::Ready(Err(error.to_string()));
            }
            None => {
                _ = self.stream.send_data(Bytes::new(), true);
                return Poll::Ready(Ok(None));
            }
        };
        match frame.into_data() {
            Ok(data) => {
                let is_last = self.body.is_end_stream();
                if data.is_empty() {
                    let sent = self.stream.send_data(data, is_last);
                    return Poll::Ready(Ok(sent.ok().filter(|()| !is_last)));
                }
                // As little as can be waited for: h2 asks for the rest when it has the data. More would be taken from the connection's
                // window, and from other streams, while this one may wait for its own.
                self.stream.reserve_capacity(1);
                self.waiting = Some((data, is_last));
                Poll::Ready(Ok(Some(())))
            }
            Err(frame) => {
                self.stream.reserve_capacity(0);
                // There is no other kind.
                let trailers = frame.into_trailers().unwrap_or_default();
                _ = self.stream.send_trailers(trailers);
                Poll::Ready(Ok(None))
            }
        }
    }
}

impl Future for Upload {
    type Output = Result<(), String>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            // Asks to be woken by a reset, too.
            if this.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if this.waiting.is_some() && !ready!(this.poll_room(cx)) {
                return Poll::Ready(Ok(()));
            }
            if let Some((data, is_last)) = this.waiting.take()
                && (this.stream.send_data(data, is_last).is_err() || is_last)
            {
                return Poll::Ready(Ok(()));
            }
            if ready!(this.poll_read(cx))?.is_none() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Why the stream is reset: for what the client has reset its own, where that was over HTTP/2.
fn reason(error: &BodyError) -> Reason {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(reason) = error.downcast_ref::<h2::Error>().and_then(h2::Error::reason) {
            return reason;
        }
        next = error.source();
    }
    Reason::INTERNAL_ERROR
}
