//! HTTP/2 to applications, on h2 itself. hyper's client has a channel, a task and a second future for every request; here a request is
//! a stream, and the task that waits for its response sends its body too.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response};
use http_body::Body;
use tokio::time::{sleep, timeout};

use super::body::{Stream, UpstreamBody};
use super::taken::Taken;
use super::upload::Upload;
use crate::l7::budget::buffers::Buffers;
use crate::l7::budget::sizes::{HTTP2_CONNECTION_WINDOW, HTTP2_SEND_BUFFER, HTTP2_STREAM_WINDOW};
use crate::l7::message::body::RequestBody;
use crate::l7::message::connection_error::ConnectionError;
use crate::l7::message::framing::LONGEST_HEAD;
use crate::l7::message::watched;
use crate::l7::tasks::Tasks;
use crate::traffic::Pings;
use crate::tunnel::Carrier;

/// A request that got no response.
pub(super) struct Failed {
    pub(super) error: ConnectionError,
    /// Nothing of it was sent, and it is where it was.
    pub(super) unsent: bool,
}

/// Tells the senders of a connection that it has ended, however it ends.
struct Ends(Arc<Taken>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Sets up a connection, which a task of the worker drives until it ends: when its last sender and its last stream are gone.
pub(super) async fn connect(
    tasks: &Arc<Tasks>,
    stream: Carrier,
    buffers: &Arc<Buffers>,
    pings: Option<Pings>,
) -> Result<(SendRequest<Bytes>, Arc<Taken>), ConnectionError> {
    let is_encrypted = matches!(stream, Carrier::Tls(_));
    let (io, exceeded, settings) = watched::Application::new(stream, buffers.clone());
    let (requests, mut connection) = builder().handshake::<_, Bytes>(io).await?;
    let taken = Arc::new(Taken::new(connection.max_concurrent_send_streams(), is_encrypted));
    let (known, ends) = (taken.clone(), Ends(taken.clone()));
    tasks.drive("upstream HTTP/2 connection", async move {
        let _ends = ends;
        let alive = alive(connection.ping_pong(), pings);
        let ended = async {
            let mut settings = pin!(settings.notified());
            poll_fn(|cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                let is_told = known.is_told() || settings.as_mut().poll(cx).is_ready();
                known.note(connection.max_concurrent_send_streams(), is_told || polled.is_ready());
                polled
            })
            .await
        };
        tokio::select! {
            biased;
            ended = ended => super::note_end(ended),
            () = exceeded.happened() => {
                tracing::debug!("an application sent too many frames that carry nothing, or a head of too many fields");
            }
            () = alive => tracing::debug!("an application did not answer a PING in time"),
        }
    });
    Ok((requests, taken))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_send_buffer_size(HTTP2_SEND_BUFFER)
        // One request may go ahead of what the application says that it takes.
        .initial_max_send_streams(1)
        .max_header_list_size(LONGEST_HEAD as u32);
    builder
}

/// Ends when a PING is not answered in time, by the application or by the agent before it.
async fn alive(ping_pong: Option<PingPong>, pings: Option<Pings>) {
    let (Some(mut ping_pong), Some(Pings { interval, timeout: patience })) = (ping_pong, pings)
    else {
        return std::future::pending().await;
    };
    loop {
        sleep(interval).await;
        if !matches!(timeout(patience, ping_pong.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}

/// Sends a request, and its body as far as the application takes it before it answers; a task of the worker sends the rest.
pub(super) async fn send(
    requests: &mut SendRequest<Bytes>,
    tasks: &Tasks,
    request: &mut Request<RequestBody>,
) -> Result<Response<UpstreamBody>, Failed> {
    if let Err(error) = poll_fn(|cx| requests.poll_ready(cx)).await {
        return Err(Failed { error: error.into(), unsent: true });
    }
    settle_length(request);
    let lost = |error: ConnectionError| Failed { error, unsent: false };
    let (response, mut upload) = {
        let (head, body) = std::mem::take(request).into_parts();
        let is_whole = body.is_end_stream();
        let sent = requests.send_request(Request::from_parts(head, ()), is_whole);
        let (response, stream) = sent.map_err(|error| lost(error.into()))?;
        (response, (!is_whole).then(|| Box::pin(Upload::new(stream, body))))
    };
    let mut response = pin!(response);
    let answered = poll_fn(|cx| {
        let sent = upload.as_mut().map_or(Poll::Pending, |upload| upload.as_mut().poll(cx));
        if sent.is_ready() {
            upload = None;
        }
        match (response.as_mut().poll(cx), sent) {
            (Poll::Ready(answered), _) => Poll::Ready(answered.map_err(ConnectionError::from)),
            (Poll::Pending, Poll::Ready(Err(why))) => {
                Poll::Ready(Err(ConnectionError::Request(why)))
            }
            _ => Poll::Pending,
        }
    })
    .await
    .map_err(lost)?;
    if let Some(upload) = upload {
        tasks.drive("request over HTTP/2", async move {
            if let Err(why) = upload.await {
                tracing::debug!("a request broke off after its response had begun: {why}");
            }
        });
    }
    let (head, stream) = answered.into_parts();
    let body = UpstreamBody::Http2(Stream::new(stream, &head.headers));
    Ok(Response::from_parts(head, body))
}

/// Tells a length that is known. One of nothing is told where the method gives a body a meaning (RFC 9110, 8.6).
fn settle_length(request: &mut Request<RequestBody>) {
    let Some(length) = request.body().size_hint().exact() else { return };
    let without = [Method::GET, Method::HEAD, Method::DELETE, Method::CONNECT];
    if length > 0 || !without.contains(request.method()) {
        request.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
}
