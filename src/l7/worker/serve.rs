//! How a downstream connection is served, whichever half it came to: what it speaks, its part of the byte budget, and the
//! server's side of HTTP.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use crate::base::{Reason, Str, within_budget};
use crate::l7::budget::Reserved;
use crate::l7::budget::seat::{Order, Seat};
use crate::l7::budget::sizes::{HTTP2_CONNECTION_WINDOW, HTTP2_SEND_BUFFER, HTTP2_STREAM_WINDOW};
use crate::l7::exchange::{self, ResponseBody};
use crate::l7::http1::server;
use crate::l7::message::body::{BodyError, RequestBody};
use crate::l7::message::framing::LONGEST_HEAD;
use crate::l7::message::refused::Refused;
use crate::l7::message::{detect, watched};
use crate::l7::tasks::Executor;
use crate::l7::version::Version;
use crate::model::AppProtocol;
use crate::policy::unjudged;
use crate::sock::Rewind;
use crate::sock::hello::{self, Unread};
use crate::tunnel::Carrier;

/// How long an HTTP/2 peer may say nothing before it is asked whether it is there, and how long it may take to answer:
/// gRPC's servers ask after two hours, proxies after about a minute. Over HTTP/1 TCP asks.
const PING_AFTER: Duration = Duration::from_secs(60);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// What the future of a request in flight may take, in bytes: twice what it does take, to notice when that grows.
const REQUEST_BUDGET: usize = 6 * 1024;

/// What a connection carries.
pub(in crate::l7) enum Carries {
    /// With what the connection may buffer.
    Http(Version, Rewind<Carrier>, Reserved),
    Bytes(Rewind<Carrier>),
}

/// Why a connection is not served.
pub(in crate::l7) type Refusal = (Reason, String);

/// Finds out what a connection carries; `None` when it was asked to leave before it said anything, by which it loses nothing.
/// `said`: what its port is said to speak. `wait`: how long it may stay silent.
pub(in crate::l7) async fn begin(
    context: &Context,
    seat: &Seat,
    stream: Carrier,
    said: AppProtocol,
    wait: Duration,
) -> Option<Result<Carries, Refusal>> {
    let detecting = async { detect::detect(adopt(stream)?, said, wait).await };
    let detected = tokio::select! {
        detected = detecting => detected,
        () = context.drain.cancelled() => return None,
        () = seat.told(Order::Leave) => return None,
    };
    Some(match detected {
        Ok((Some(version), stream)) => match context.buffers(seat.share(), version) {
            Ok(buffers) => {
                seat.head_begins();
                Ok(Carries::Http(version, stream, buffers))
            }
            Err(why) => Err((Reason::Overflow, why)),
        },
        Ok((None, stream)) => Ok(Carries::Bytes(stream)),
        Err(error) => {
            let why = format!("the client broke off before it said anything: {error}");
            Err((Reason::PeerReset, why))
        }
    })
}

/// The server that a connection which is not HTTP asks for in TLS, as policies compare it. Why it is refused where that cannot be
/// known: it might ask for any.
pub(in crate::l7) async fn server_name(
    context: &Context,
    stream: &mut Rewind<Carrier>,
) -> Result<Str, Refusal> {
    let (opening, read) = hello::read(stream, context.dependencies.connect_timeout).await;
    stream.put_back(read);
    let refused = |unread: Unread| (unread.reason(Reason::Denied), unjudged(&unread));
    opening.map(|it| it.server_name()).map_err(refused)
}

/// Takes the stream from the runtime of layer 4 to the worker's own, so that its events wake nobody else.
fn adopt(stream: Carrier) -> std::io::Result<Carrier> {
    Ok(match stream {
        Carrier::Tcp(stream) => Carrier::Tcp(TcpStream::from_std(stream.into_std()?)?),
        // Its events come from its tunnel, which stays where it is.
        Carrier::Hbone(stream) => Carrier::Hbone(stream),
        // Its events come from its other end.
        Carrier::Local(stream) => Carrier::Local(stream),
        // They are no clients'.
        Carrier::Joined(stream) => Carrier::Joined(stream),
        Carrier::Paced(paced) => Carrier::Paced(Box::new(paced.try_map(adopt)?)),
        Carrier::Tls(stream) => Carrier::Tls(stream),
    })
}

/// Serves requests.
pub(in crate::l7) trait Handler: Send + Sync + 'static {
    fn handle(
        self: Arc<Self>,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send;

    /// Writes down what the parser has refused.
    fn refused(&self, refused: Refused);

    /// How many fields the head of a request may have.
    fn most_fields(&self) -> usize;
}

/// Serves one connection to its end. When the worker drains or wants the connection's place, the client is asked to leave
/// after what is in flight. Times are kept by the worker's rounds ([`seats`](crate::l7::budget::seats)), not by hyper.
pub(in crate::l7) async fn serve<H: Handler>(
    context: &Arc<Context>,
    stream: Rewind<Carrier>,
    version: Version,
    seat: &Arc<Seat>,
    handler: Arc<H>,
) {
    let ended = match version {
        Version::Http1 => serve_http1(context, stream, seat, &handler).await,
        Version::Http2 => serve_http2(context, stream, seat, &handler).await,
    };
    match ended {
        Ok(()) => {}
        Err(Ended::Refused(refused)) => handler.refused(refused),
        Err(Ended::Broken(error)) => {
            tracing::debug!(namespace = %context.namespace(), %error, "a client's connection ended early");
        }
    }
}

async fn answer<H: Handler>(
    handler: Arc<H>,
    seat: &Seat,
    request: Request<RequestBody>,
) -> Response<ResponseBody> {
    seat.share().turn().await;
    let mut response = within_budget::<REQUEST_BUDGET, _>(handler.handle(request)).await;
    exchange::hold_place(&mut response);
    response
}

/// How a connection ends that was not closed in order.
enum Ended {
    Refused(Refused),
    Broken(BodyError),
}

async fn serve_http1<H: Handler>(
    context: &Arc<Context>,
    stream: Rewind<Carrier>,
    seat: &Arc<Seat>,
    handler: &Arc<H>,
) -> Result<(), Ended> {
    let service = |request: Request<server::Incoming>| {
        let downstream = request.body().downstream.clone();
        let request = request.map(RequestBody::http1);
        let handler = handler.clone();
        async move { answer(handler, seat, request).await.map(|body| body.awaited(downstream)) }
    };
    let most_fields = handler.most_fields();
    let served = server::serve(stream, seat, &context.drain, most_fields, service);
    served.await.map_err(|ended| match ended {
        server::Ended::Refused(error, head) => {
            let most_fields = context.dependencies.settings.max_headers;
            Ended::Refused(Refused::http1(&error, most_fields, &head))
        }
        server::Ended::Broken(error) => Ended::Broken(error.into()),
    })
}

async fn serve_http2<H: Handler>(
    context: &Arc<Context>,
    stream: Rewind<Carrier>,
    seat: &Arc<Seat>,
    handler: &Arc<H>,
) -> Result<(), Ended> {
    let (io, exceeded, streams) = watched::Http2::new(stream, seat.clone());
    let taken = AtomicUsize::new(0);
    let service = service_fn(|request: Request<Incoming>| {
        let request = request.map(RequestBody::http2);
        taken.fetch_add(1, Ordering::Relaxed);
        let (handler, seat) = (handler.clone(), seat.clone());
        // Boxed at once, because it is large, and hyper and what runs it move it several times.
        Box::pin(async move { Ok::<_, Infallible>(answer(handler, &seat, request).await) })
    });
    let connection = http2_settings(context).serve_connection(TokioIo::new(io), service);
    let connection = pin!(connection);
    let wind_down = |connection: Pin<&mut http2::Connection<_, _, _>>| {
        connection.graceful_shutdown();
    };
    // Streams that hyper has seen and given to nobody were answered by h2.
    let mut told = 0;
    let tell_refused = || {
        let known = taken.load(Ordering::Relaxed) + told;
        let refused = streams.seen().map_or(0, |streams| streams.saturating_sub(known));
        told += refused;
        let answered = streams.answered(refused);
        (0..refused).for_each(|number| handler.refused(Refused::stream(number < answered)));
    };
    tokio::select! {
        biased;
        result = drive(connection, wind_down, tell_refused, &context.drain, seat) => result.map_err(|error| {
            Refused::http2(&error).map_or(Ended::Broken(error.into()), Ended::Refused)
        }),
        () = exceeded.happened() => {
            let why = "the client sent too many frames that carry nothing, or a head of too many fields";
            Err(Ended::Refused(Refused::over_http2(why.to_owned())))
        }
    }
}

/// `between`: what is done whenever the connection waits, until it winds down.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    wind_down: impl FnOnce(Pin<&mut C>),
    mut between: impl FnMut(),
    drain: &CancellationToken,
    seat: &Seat,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let driven = poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        if polled.is_pending() {
            between();
        }
        polled
    });
    tokio::select! {
        // First of all: what has arrived is not idle any more.
        biased;
        result = driven => return result,
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

fn http2_settings(context: &Arc<Context>) -> http2::Builder<Executor> {
    let mut settings = http2::Builder::new(Executor(context.tasks.clone()));
    let limits = &context.dependencies.settings;
    // A client that waits for a stream is better off than one that is answered 503 beyond its share.
    let share = limits.max_requests * limits.tenant_share / 100 * limits.client_share / 100;
    let streams = limits.max_http2_streams.min(share.max(1));
    settings
        .timer(TokioTimer::new())
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_concurrent_streams(u32::try_from(streams).unwrap_or(u32::MAX))
        .max_send_buf_size(HTTP2_SEND_BUFFER)
        .max_header_list_size(LONGEST_HEAD as u32)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_WITHIN)
        .auto_date_header(false);
    settings
}
