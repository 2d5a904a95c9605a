//! Informational responses (RFC 9110, 15.2) such as 103, on their way to a client of HTTP/1.1.
//!
//! hyper's server sends none but `100 Continue`, so they are written to the connection beside it, where it has nothing left to
//! write: whoever flushes a connection has given away all before. A response is held back until what was told before it is
//! written, so that hyper never has both. Over HTTP/2 hyper lets nobody write to a stream but itself; there they are left
//! out, as they are for HTTP/1.0.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;

use super::{framing, headers};

/// What may wait to be written, in bytes: room for some sets of links. An application that sends more at once than its
/// client takes is heard in part.
const MOST: usize = 16 * 1024;

/// The informational responses of one downstream connection of HTTP/1.1.
#[derive(Clone, Debug, Default)]
pub(in crate::l7) struct Interim(Arc<Shared>);

/// A request that is told nothing takes no lock.
#[derive(Debug, Default)]
struct Shared {
    /// Something waits to be written. Changed under the lock of `bytes`.
    waits: AtomicBool,
    /// The request whose application may tell something. Another connection may still be about an earlier one.
    request: AtomicU64,
    bytes: Mutex<Vec<u8>>,
    /// Whoever tells something wakes the task that waits for the response: it is the one that writes.
    waker: AtomicWaker,
}

/// Where the application of one request tells what it has to say before its response.
pub(in crate::l7) struct Ear {
    interim: Interim,
    request: u64,
}

/// While somebody listens.
pub(in crate::l7) struct Listening(Option<Interim>);

/// What is being written now.
#[derive(Default)]
pub(in crate::l7) struct Writing(Bytes);

impl Interim {
    /// Listens for one more attempt of a request; who listened before hears nothing more.
    pub(in crate::l7) fn listen(&self) -> (Listening, Ear) {
        let request = self.0.request.fetch_add(1, Ordering::SeqCst) + 1;
        (Listening(Some(self.clone())), Ear { interim: self.clone(), request })
    }

    /// Nobody listens any more, and what was not begun to be written is dropped.
    fn close(&self) {
        let shared = &self.0;
        shared.request.fetch_add(1, Ordering::SeqCst);
        // Whoever tells says so before it looks at the request, so it is either found here or finds that nobody listens.
        if shared.waits.load(Ordering::SeqCst) {
            let mut bytes = shared.bytes.lock();
            *bytes = Vec::new();
            shared.waits.store(false, Ordering::Release);
        }
        drop(shared.waker.take());
    }

    fn poll_written(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.waker.register(cx.waker());
        if self.waits() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Something was told that is not written yet.
    fn waits(&self) -> bool {
        self.0.waits.load(Ordering::Acquire)
    }

    /// Writes what waits. To be called when hyper has nothing left to write.
    pub(in crate::l7) fn poll_write(
        &self,
        writing: &mut Writing,
        io: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.waits() {
            return writing.poll_finish(io, cx);
        }
        let shared = &self.0;
        if writing.0.is_empty() {
            writing.0 = std::mem::take(&mut *shared.bytes.lock()).into();
        }
        ready!(writing.poll_finish(io, cx))?;
        let bytes = shared.bytes.lock();
        if bytes.is_empty() {
            shared.waits.store(false, Ordering::Release);
        }
        shared.waker.wake();
        Poll::Ready(Ok(()))
    }
}

impl Listening {
    /// There is no client that could be told.
    pub(in crate::l7) fn nobody() -> Self {
        Self(None)
    }

    /// Waits for the response, and until all that was told before it is written. `heard` is called with each answer of `response`,
    /// and says whether that is to be waited for without end.
    pub(in crate::l7) async fn to<T>(
        self,
        mut response: Pin<&mut impl Future<Output = T>>,
        heard: impl Fn(Option<&T>) -> bool,
    ) -> T {
        // Boxed: that a response has to wait is rare, and every request in flight would be larger by one.
        let mut early: Option<Box<T>> = None;
        let mut is_over = false;
        poll_fn(|cx| {
            if is_over {
                return Poll::Pending;
            }
            let polled = self.poll(response.as_mut(), &mut early, cx);
            let came = match &polled {
                Poll::Ready(came) => Some(came),
                Poll::Pending => None,
            };
            is_over = heard(came);
            if is_over { Poll::Pending } else { polled }
        })
        .await
    }

    fn poll<T>(
        &self,
        response: Pin<&mut impl Future<Output = T>>,
        early: &mut Option<Box<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<T> {
        let Some(interim) = &self.0 else { return response.poll(cx) };
        if early.is_none() {
            // First, so that nothing that is told from here on is missed.
            interim.0.waker.register(cx.waker());
            let response = ready!(response.poll(cx));
            if !interim.waits() {
                return Poll::Ready(response);
            }
            *early = Some(Box::new(response));
        }
        ready!(interim.poll_written(cx));
        // It is there: this is asked for once.
        early.take().map_or(Poll::Pending, |response| Poll::Ready(*response))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(interim) = &self.0 {
            interim.close();
        }
    }
}

impl Writing {
    /// Writes the rest of what was begun: before anything else.
    pub(in crate::l7) fn poll_finish(
        &mut self,
        mut io: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.0.is_empty() {
            match ready!(io.as_mut().poll_write(cx, &self.0))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.0.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Ear {
    /// Passes an informational response on. A 101 is none of them.
    pub(in crate::l7) fn tell(&self, status: StatusCode, headers: &HeaderMap) {
        let text = encode(status, headers);
        let shared = &self.interim.0;
        let mut bytes = shared.bytes.lock();
        let waited = shared.waits.swap(true, Ordering::SeqCst);
        let is_heard = shared.request.load(Ordering::SeqCst) == self.request;
        if !is_heard || bytes.len() + text.len() > MOST {
            shared.waits.store(waited, Ordering::Release);
            return;
        }
        bytes.extend(text);
        shared.waker.wake();
    }
}

/// As it is written over HTTP/1.1: without what concerns the connection it came by, and without a length, since it has no body.
fn encode(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut headers = headers.clone();
    headers::strip_hop_by_hop(&mut headers);
    framing::remove(&mut headers, &[http::header::CONTENT_LENGTH]);
    let mut text = Vec::with_capacity(128);
    text.extend(b"HTTP/1.1 ");
    text.extend(status.as_str().as_bytes());
    text.push(b' ');
    text.extend(status.canonical_reason().unwrap_or("Informational").as_bytes());
    for (name, value) in &headers {
        text.extend(b"\r\n");
        text.extend(name.as_str().as_bytes());
        text.extend(b": ");
        text.extend(value.as_bytes());
    }
    text.extend(b"\r\n\r\n");
    text
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http::HeaderValue;
    use http::header::{CONNECTION, CONTENT_LENGTH, LINK};

    use super::*;

    fn link() -> HeaderMap {
        HeaderMap::from_iter([(LINK, HeaderValue::from_static("</a>"))])
    }

    async fn write(interim: &Interim, writing: &mut Writing, io: &mut tokio::io::DuplexStream) {
        std::future::poll_fn(|cx| interim.poll_write(writing, Pin::new(io), cx)).await.unwrap();
    }

    #[test]
    fn is_written_as_http1() {
        let mut headers = link();
        headers.insert(CONNECTION, HeaderValue::from_static("x-hop"));
        headers.insert("x-hop", HeaderValue::from_static("1"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("9"));
        let text = encode(StatusCode::EARLY_HINTS, &headers);
        assert_eq!(text, b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    }

    #[tokio::test]
    async fn only_the_request_that_runs_is_heard() {
        let (interim, mut writing) = (Interim::default(), Writing::default());
        let (mut io, mut client) = tokio::io::duplex(4096);
        let (_first, ear) = interim.listen();
        let (listening, second) = interim.listen();
        ear.tell(StatusCode::PROCESSING, &HeaderMap::new());
        assert!(!interim.waits());
        second.tell(StatusCode::EARLY_HINTS, &link());
        let mut response = std::future::ready("response");
        let mut response = std::pin::pin!(listening.to(Pin::new(&mut response), |_| false));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(response.as_mut().poll(&mut cx).is_pending(), "what was told comes first");
        write(&interim, &mut writing, &mut io).await;
        assert_eq!(response.as_mut().poll(&mut cx), Poll::Ready("response"));
        second.tell(StatusCode::PROCESSING, &HeaderMap::new());
        interim.close();
        second.tell(StatusCode::PROCESSING, &HeaderMap::new());
        write(&interim, &mut writing, &mut io).await;
        drop(io);
        let mut read = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut client, &mut read).await.unwrap();
        assert_eq!(read, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    }

    #[test]
    fn what_waits_is_bounded() {
        let interim = Interim::default();
        let (_listening, ear) = interim.listen();
        (0..10_000).for_each(|_| ear.tell(StatusCode::EARLY_HINTS, &link()));
        assert!(interim.0.bytes.lock().len() <= MOST);
    }
}
