//! The server's side of HTTP: how a downstream connection is served, whichever half it came to.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use super::body::ResponseBody;
use super::budget::{
    HTTP1_BUFFER, HTTP2_CONNECTION_WINDOW, HTTP2_SEND_BUFFER, HTTP2_STREAM_WINDOW, HTTP2_STREAMS,
};
use super::detect::Version;
use super::worker::{Context, Executor};
use crate::sock::Rewind;
use crate::tunnel::Carrier;

/// How long a connection may wait for its next request, or a client take to send a whole head: Envoy's and Istio's
/// idle timeout of HTTP connections. hyper has one clock for both; a shorter one would close the connections that
/// clients keep for later.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Serves requests.
pub(super) trait Handler: Send + Sync + 'static {
    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send;
}

/// Serves one connection to its end. When the worker drains, the client is asked to leave after what is in flight.
pub(super) async fn serve<H: Handler>(
    context: &Arc<Context>,
    stream: Rewind<Carrier>,
    version: Version,
    handler: Arc<H>,
) -> hyper::Result<()> {
    let io = TokioIo::new(stream);
    let service = service_fn(move |request| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(handler.handle(request).await) }
    });
    match version {
        Version::Http1 => {
            let connection = http1_settings().serve_connection(io, service).with_upgrades();
            let wind_down = |connection: Pin<&mut http1::UpgradeableConnection<_, _>>| {
                connection.graceful_shutdown();
            };
            drive(pin!(connection), wind_down, &context.drain).await
        }
        Version::Http2 => {
            let connection = http2_settings(context).serve_connection(io, service);
            let wind_down = |connection: Pin<&mut http2::Connection<_, _, _>>| {
                connection.graceful_shutdown();
            };
            drive(pin!(connection), wind_down, &context.drain).await
        }
    }
}

async fn drive<C>(
    mut connection: Pin<&mut C>,
    wind_down: impl FnOnce(Pin<&mut C>),
    drain: &CancellationToken,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    tokio::select! {
        result = connection.as_mut() => return result,
        () = drain.cancelled() => wind_down(connection.as_mut()),
    }
    connection.await
}

/// Half-close is allowed: `printf … | nc` ends its sending before it reads. Pipelined requests are answered one
/// after the other.
fn http1_settings() -> http1::Builder {
    let mut settings = http1::Builder::new();
    settings
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .half_close(true)
        .pipeline_flush(false)
        .max_buf_size(HTTP1_BUFFER)
        // The application's own date passes; a proxy adds none.
        .auto_date_header(false);
    settings
}

fn http2_settings(context: &Arc<Context>) -> http2::Builder<Executor> {
    let mut settings = http2::Builder::new(Executor::Streams(context.clone()));
    settings
        .timer(TokioTimer::new())
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_send_buf_size(HTTP2_SEND_BUFFER)
        .max_header_list_size(HTTP1_BUFFER as u32)
        .auto_date_header(false);
    settings
}
