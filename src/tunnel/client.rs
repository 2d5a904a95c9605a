//! The client's side of a tunnel.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use arc_swap::ArcSwapOption;
use h2::client::{Builder, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};

use super::alive::{self, Pulse};
use super::frames::Counted;
use super::slot::{Shared, Slot};
use super::stream::HboneStream;
use super::waiting::Part;
use super::window::{FIRST_CONNECTION, FIRST_STREAM, Windows};
use super::{ConnectRequest, MAX_FRAME, MAX_LOCAL_ERRORS, TunnelError};
use crate::base::Room;

/// The largest head of a response that is accepted, in bytes (ztunnel's 16 KiB): a response holds a status and baggage.
const MAX_HEADERS: u32 = 16 * 1024;
/// The most bytes of a stream that wait to be sent: two large chunks of the copy loop. Further bytes in transit are in
/// the kernel.
const SEND_BUFFER: usize = 512 * 1024;

/// One tunnel as a client; cheap to clone, streams share it. When the last clone and the last stream are gone, the
/// connection is closed.
#[derive(Clone)]
pub struct Tunnel {
    shared: Arc<Shared>,
}

/// Tells the streams of a tunnel that it was cut because its server's certificate is revoked.
pub struct Revoker(Weak<Shared>);

/// Marks the tunnel closed when the driver ends or is dropped.
struct Closed(Weak<Shared>);

impl Tunnel {
    /// Streams that can still be opened now.
    pub fn free_streams(&self) -> usize {
        match self.usable_sender() {
            Some(sender) => {
                self.limit(&sender).saturating_sub(self.shared.pulse.taken.load(Ordering::Acquire))
            }
            None => 0,
        }
    }

    /// Streams that are open, or being opened.
    pub fn active_streams(&self) -> usize {
        self.shared.pulse.taken.load(Ordering::Acquire)
    }

    /// The peer has not answered a ping for longer than a working network takes: open streams may still recover, but no
    /// new ones should be opened.
    pub fn is_suspect(&self) -> bool {
        self.shared.pulse.is_suspect()
    }

    /// False once the tunnel drains, the peer sent GOAWAY, or the connection has failed.
    pub fn is_usable(&self) -> bool {
        self.usable_sender().is_some()
    }

    /// Opens one stream; returns when the peer answered 200. Dropping the future cancels the request.
    pub async fn open(&self, request: &ConnectRequest) -> Result<HboneStream, TunnelError> {
        let message = request.to_http()?;
        let sender = self.usable_sender().ok_or(TunnelError::Closing)?;
        let slot = self.take_slot(&sender)?;
        let (response, send) = sender.ready().await?.send_request(message, false)?;
        // From here on, dropping cancels the request.
        let (head, receive) = response.await?.into_parts();
        if !head.status.is_success() {
            return Err(TunnelError::Status(head.status));
        }
        let (room, consumed) = (self.shared.room.clone(), self.shared.consumed.clone());
        Ok(HboneStream::new(receive, send, room, consumed, Some(Arc::new(slot))))
    }

    /// Drains: no new streams; the tunnel ends when the last one does.
    pub fn drain(&self) {
        self.shared.sender.store(None);
    }

    /// Does not keep the tunnel open.
    pub fn revoker(&self) -> Revoker {
        Revoker(Arc::downgrade(&self.shared))
    }

    fn usable_sender(&self) -> Option<SendRequest<Part>> {
        let mut sender = SendRequest::clone(self.shared.sender.load().as_ref()?);
        // A GOAWAY is in the connection's state long before its last stream ends.
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(_)) => None,
            Poll::Ready(Ok(())) | Poll::Pending => Some(sender),
        }
    }

    /// Our or the peer's SETTINGS_MAX_CONCURRENT_STREAMS, whichever is less.
    fn limit(&self, sender: &SendRequest<Part>) -> usize {
        self.shared.max_streams.min(sender.current_max_send_streams())
    }

    fn take_slot(&self, sender: &SendRequest<Part>) -> Result<Slot, TunnelError> {
        let limit = self.limit(sender);
        let pulse = &self.shared.pulse;
        pulse
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                (taken < limit).then_some(taken + 1)
            })
            .map(|before| {
                if before == 0 {
                    pulse.wake();
                }
                Slot(self.shared.clone())
            })
            .map_err(|_| TunnelError::Full)
    }
}

impl Revoker {
    /// No new streams, and streams that are reset from now on know the reason. The caller cuts them by dropping the
    /// driver.
    pub fn revoke(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.revoked.store(true, Ordering::Release);
            shared.sender.store(None);
        }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.sender.store(None);
        }
    }
}

/// HTTP/2 on an established TLS session; the second value drives the connection and must be spawned. It ends with the
/// connection: once a drained or released tunnel is idle, or when the connection failed. Dropping it cuts every stream.
///
/// `room`: the budget for the peer's bytes, and for ours that it does not take. While there are streams, the peer is
/// pinged ([`Pulse`]).
pub async fn handshake<S>(
    io: S,
    max_streams: usize,
    room: &Room,
) -> Result<(Tunnel, impl Future<Output = ()> + Send + use<S>), TunnelError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (io, exceeded) = Counted::new(io, 0);
    let (sender, mut connection) = Builder::new()
        .initial_window_size(FIRST_STREAM)
        .initial_connection_window_size(FIRST_CONNECTION)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buffer_size(SEND_BUFFER)
        // Until the peer's SETTINGS arrive.
        .initial_max_send_streams(max_streams)
        .max_concurrent_reset_streams(max_streams)
        .max_local_error_reset_streams(Some(MAX_LOCAL_ERRORS))
        .enable_push(false)
        .handshake::<Counted<S>, Part>(io)
        .await?;
    let pings = connection.ping_pong();
    let pulse = Arc::new(Pulse::default());
    let mut windows = Windows::new(room.clone());
    let shared = Arc::new(Shared {
        sender: ArcSwapOption::from_pointee(sender),
        max_streams,
        pulse: pulse.clone(),
        room: room.clone(),
        consumed: windows.consumed(),
        revoked: AtomicBool::new(false),
    });
    let closed = Closed(Arc::downgrade(&shared));
    let streams = pulse.clone();
    let connection = std::future::poll_fn(move |cx| {
        windows.adjust(streams.taken.load(Ordering::Acquire) > 0, &mut connection);
        Pin::new(&mut connection).poll(cx)
    });
    let driver = async move {
        let _closed = closed;
        let ended = tokio::select! {
            biased;
            ended = connection => ended.map_err(TunnelError::from),
            error = alive::watch(pings, pulse) => Err(error),
            () = exceeded.happened() => Err(TunnelError::Flood),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a tunnel has ended");
        }
    };
    Ok((Tunnel { shared }, driver))
}
