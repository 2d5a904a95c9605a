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

use super::body::{self, ResponseBody};
use super::budget::{
    HTTP1_BUFFER, HTTP2_CONNECTION_WINDOW, HTTP2_SEND_BUFFER, HTTP2_STREAM_WINDOW, HTTP2_STREAMS,
};
use super::detect::Version;
use super::seat::{Order, Seat};
use super::watched;
use super::worker::{Context, Executor};
use crate::sock::Rewind;
use crate::tunnel::Carrier;

/// How long an HTTP/2 peer may say nothing before it is asked whether it is there, and how long it may take to answer:
/// gRPC's servers ask after two hours, proxies after about a minute. Over HTTP/1 TCP asks.
const PING_AFTER: Duration = Duration::from_secs(60);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// Serves requests.
pub(super) trait Handler: Send + Sync + 'static {
    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send;
}

/// Serves one connection to its end. When the worker drains or wants the connection's place, the client is asked to leave
/// after what is in flight. Times are kept by the worker's rounds ([`seats`](super::seats)), not by hyper.
pub(super) async fn serve<H: Handler>(
    context: &Arc<Context>,
    stream: Rewind<Carrier>,
    version: Version,
    seat: &Arc<Seat>,
    handler: Arc<H>,
) -> hyper::Result<()> {
    let drain = &context.drain;
    let service = service_fn(move |request| {
        let handler = handler.clone();
        async move {
            let mut response = handler.handle(request).await;
            body::hold_place(&mut response);
            Ok::<_, Infallible>(response)
        }
    });
    match version {
        Version::Http1 => {
            let io = TokioIo::new(watched::Http1::new(stream, seat.clone()));
            let connection = http1_settings().serve_connection(io, service).with_upgrades();
            let wind_down = |connection: Pin<&mut http1::UpgradeableConnection<_, _>>| {
                connection.graceful_shutdown();
            };
            drive(pin!(connection), wind_down, drain, seat).await
        }
        Version::Http2 => {
            let (io, exceeded) = watched::Http2::new(stream, seat.clone());
            let connection = http2_settings(context).serve_connection(TokioIo::new(io), service);
            let connection = pin!(connection);
            let wind_down = |connection: Pin<&mut http2::Connection<_, _, _>>| {
                connection.graceful_shutdown();
            };
            tokio::select! {
                biased;
                result = drive(connection, wind_down, drain, seat) => result,
                () = exceeded.happened() => {
                    let namespace = &context.namespace;
                    tracing::debug!(%namespace, "a client sent too many frames that carry nothing, or a head of too many fields");
                    Ok(())
                }
            }
        }
    }
}

async fn drive<C>(
    mut connection: Pin<&mut C>,
    wind_down: impl FnOnce(Pin<&mut C>),
    drain: &CancellationToken,
    seat: &Seat,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    tokio::select! {
        // First of all: what has arrived is not idle any more.
        biased;
        result = connection.as_mut() => return result,
        () = drain.cancelled() => {}
        () = seat.told(Order::Leave) => {}
    }
    wind_down(connection.as_mut());
    tokio::select! {
        biased;
        result = connection => result,
        () = seat.told(Order::End) => Ok(()),
    }
}

/// Half-close is allowed: `printf … | nc` ends its sending before it reads. Pipelined requests are answered one
/// after the other.
fn http1_settings() -> http1::Builder {
    let mut settings = http1::Builder::new();
    settings
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
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_WITHIN)
        .auto_date_header(false);
    settings
}
