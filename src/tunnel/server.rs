//! The server's side of a tunnel.

use std::time::Duration;

use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::carrier::Carrier;
use super::frames::{Counted, PREFACE};
use super::headers::BAGGAGE;
use super::joined::{self, Joined};
use super::local::LocalStream;
use super::stream::HboneStream;
use super::waiting::Part;
use super::window::{Consumed, FIRST_CONNECTION, FIRST_STREAM, Windows};
use super::{ConnectRequest, MAX_FRAME, MAX_LOCAL_ERRORS, TunnelError};
use crate::base::{Burst, Room};
use crate::telemetry::ConnectionRecord;

/// The largest head of a request that is accepted, in bytes (ztunnel's).
const MAX_HEADERS: u32 = 64 * 1024;
/// The most concurrent streams that a peer may open on one connection (ztunnel's; Go's clients assume 100, Envoy's
/// default is 100, hyper's 200).
const MAX_STREAMS: u32 = 200;
/// Streams that a peer opened and reset before we accepted them ("rapid reset", CVE-2023-44487): as many as it may have
/// open at once, because a client that exits may reset all of them together. h2's default of 20 would cut every other
/// connection of a tunnel whose client resets 21 while the agent is busy.
const MAX_PENDING_RESETS: usize = MAX_STREAMS as usize;
/// Streams that we reset and remember, so that frames that the peer had sent before it knew are ignored: all that it
/// may have. A frame for a forgotten stream ends the connection.
const MAX_RESETS: usize = MAX_STREAMS as usize;
/// The most bytes of a stream that wait to be sent (ztunnel's, and h2's default).
const SEND_BUFFER: usize = 400 * 1024;
/// The interval of pings to a peer, and the timeout of an answer (ztunnel's): a pod whose network namespace is gone
/// sends nothing any more.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// The timeout of the HTTP/2 preface after the TLS handshake; pings begin only then.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a rejected peer may take to read the reason.
const FAREWELL: Duration = Duration::from_secs(1);

/// The server's side of one valid CONNECT that is not answered yet. If it is dropped without an answer, it resets the
/// stream.
pub struct Incoming {
    pub request: ConnectRequest,
    asker: Asker,
}

/// The recipient of the answer.
enum Asker {
    Peer {
        receive: RecvStream,
        answer: SendResponse<Part>,
        room: Room,
        consumed: Consumed,
    },
    /// A workload of this node, and its budget.
    Local(oneshot::Sender<Result<Carrier, StatusCode>>, Room),
}

/// An [`Incoming`] from a workload of this node.
pub struct LocalIncoming(oneshot::Sender<Result<Carrier, StatusCode>>);

impl LocalIncoming {
    /// 200, and the connection to the `application` itself for the client's side; the server's side keeps the record
    /// and the ability to cut.
    pub fn join(
        self,
        application: TcpStream,
        record: ConnectionRecord,
    ) -> Result<Joined, TunnelError> {
        let (stream, joined) = joined::join(application, record);
        self.0.send(Ok(Carrier::Joined(stream))).map_err(|_| TunnelError::Closing)?;
        Ok(joined)
    }
}

impl Incoming {
    /// From a workload of this node, whose `room` is the budget for bytes that wait between the two; the receiver gets
    /// the answer that a peer would get.
    pub fn local(
        request: ConnectRequest,
        room: Room,
    ) -> (Self, oneshot::Receiver<Result<Carrier, StatusCode>>) {
        let (asker, answer) = oneshot::channel();
        (Self { request, asker: Asker::Local(asker, room) }, answer)
    }

    /// Whether it comes from a workload of this node, without a tunnel.
    pub fn is_local(&self) -> bool {
        matches!(self.asker, Asker::Local(..))
    }

    /// The stream from a workload of this node, or the value unchanged.
    #[expect(
        clippy::result_large_err,
        reason = "the other case is as usual as this one, and no error"
    )]
    pub fn into_local(self) -> Result<LocalIncoming, Self> {
        match self.asker {
            Asker::Local(asker, _) => Ok(LocalIncoming(asker)),
            asker => Err(Self { request: self.request, asker }),
        }
    }

    /// 200; `baggage` describes the destination.
    pub fn accept(self, baggage: Option<&str>) -> Result<Carrier, TunnelError> {
        let (receive, mut answer, room, consumed) = match self.asker {
            Asker::Peer { receive, answer, room, consumed } => (receive, answer, room, consumed),
            Asker::Local(asker, room) => {
                let (client, server) = LocalStream::pair(&room);
                asker.send(Ok(Carrier::Local(client))).map_err(|_| TunnelError::Closing)?;
                return Ok(Carrier::Local(server));
            }
        };
        let mut response = Response::builder().status(StatusCode::OK);
        if let Some(baggage) = baggage {
            response = response.header(BAGGAGE, baggage);
        }
        let send = answer.send_response(response.body(())?, false)?;
        Ok(Carrier::Hbone(HboneStream::new(receive, send, room, consumed, None)))
    }

    /// Any other status, and the end of this stream.
    pub fn refuse(self, status: StatusCode) {
        match self.asker {
            Asker::Peer { mut answer, .. } => refuse(&mut answer, status),
            // A peer that has left needs no answer.
            Asker::Local(asker, _) => _ = asker.send(Err(status)),
        }
    }
}

/// Serves HTTP/2 on an accepted TLS session: `handler` is called once per valid CONNECT and must not block (it spawns).
/// Other requests get a 400. `room`: the budget for the peer's bytes, and for ours that it does not take. When `drain`
/// fires, the server sends GOAWAY and ends with the last stream. Dropping the future cuts every stream.
pub async fn serve<S>(
    io: S,
    drain: CancellationToken,
    room: &Room,
    mut handler: impl FnMut(Incoming) + Send,
) -> Result<(), TunnelError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (io, exceeded) = Counted::new(io, PREFACE);
    let handshake = Builder::new()
        .initial_window_size(FIRST_STREAM)
        .initial_connection_window_size(FIRST_CONNECTION)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_concurrent_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(Some(MAX_LOCAL_ERRORS))
        .handshake::<Counted<S>, Part>(io);
    let mut connection =
        timeout(PREFACE_TIMEOUT, handshake).await.map_err(|_| TunnelError::Unresponsive)??;
    let pings = connection.ping_pong();
    let result = tokio::select! {
        result = accept_all(&mut connection, drain, room, &mut handler) => result,
        error = watch(pings) => Err(error),
        () = exceeded.happened() => Err(TunnelError::Flood),
    };
    if matches!(result, Err(TunnelError::Flood)) {
        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        let farewell = std::future::poll_fn(|cx| connection.poll_closed(cx));
        // If the peer does not read the reason, the connection is closed without it.
        _ = timeout(FAREWELL, farewell).await;
    }
    result
}

/// Accepting also drives the connection.
async fn accept_all<S>(
    connection: &mut Connection<Counted<S>, Part>,
    drain: CancellationToken,
    room: &Room,
    handler: &mut (impl FnMut(Incoming) + Send),
) -> Result<(), TunnelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut windows = Windows::new(room.clone());
    let mut burst = Burst::default();
    let mut draining = false;
    loop {
        let accepted = tokio::select! {
            accepted = accept(connection, &mut windows) => accepted,
            () = drain.cancelled(), if !draining => {
                draining = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(accepted) = accepted else { return Ok(()) };
        let (request, mut answer) = accepted?;
        match understand(request) {
            Some((request, receive)) => {
                windows.adjust(true, connection);
                let (room, consumed) = (room.clone(), windows.consumed());
                let asker = Asker::Peer { receive, answer, room, consumed };
                handler(Incoming { request, asker });
                burst.taken().await;
            }
            None => refuse(&mut answer, StatusCode::BAD_REQUEST),
        }
    }
}

/// The next stream; the windows grow meanwhile.
async fn accept<S>(
    connection: &mut Connection<Counted<S>, Part>,
    windows: &mut Windows,
) -> Option<Result<(Request<RecvStream>, SendResponse<Part>), h2::Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    std::future::poll_fn(|cx| {
        let active = windows.are_first() && connection.has_streams();
        windows.adjust(active, connection);
        connection.poll_accept(cx)
    })
    .await
}

/// A plain CONNECT to an address or a host name; extended CONNECT (RFC 8441) is rejected.
fn understand(request: Request<RecvStream>) -> Option<(ConnectRequest, RecvStream)> {
    let (head, receive) = request.into_parts();
    Some((ConnectRequest::from_http(&head)?, receive))
}

/// A peer that is gone needs no answer, so a failure to send it is not an error.
fn refuse(answer: &mut SendResponse<Part>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    if let Err(error) = answer.send_response(response, true) {
        tracing::debug!(%error, %status, "cannot send a rejection into a tunnel");
    }
}

/// Ends if the peer does not answer. The accept loop notices a closed connection itself.
async fn watch(pings: Option<PingPong>) -> TunnelError {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        sleep(PING_INTERVAL).await;
        match timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return TunnelError::Unresponsive,
        }
    }
}
