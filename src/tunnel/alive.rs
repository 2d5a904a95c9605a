//! Liveness of a tunnel's peer, as its client sees it. A network that drops everything gives no signal: TCP notices
//! after a quarter of an hour, and until then every new connection would go into the dead tunnel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::TunnelError;

/// The interval of pings while streams are open: 17 bytes.
const INTERVAL: Duration = Duration::from_secs(5);
/// The longest time until an answer in a working network, with one or two retransmissions (0.2 s and more each). After
/// it, new streams go elsewhere; if that was wrong, it costs a handshake.
const SUSPICION: Duration = Duration::from_secs(2);
/// The time without an answer after which every stream is cut (the server's): a ping queues behind the bytes of the
/// streams, and 4 MiB of them take 16 s at 2 Mbit/s.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What is known of the peer, and the number of streams that depend on it.
#[derive(Default)]
pub(super) struct Pulse {
    /// Streams that are open, or being opened.
    pub(super) taken: AtomicUsize,
    suspect: AtomicBool,
    active: Notify,
}

impl Pulse {
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// The first stream after an idle period was opened.
    pub(super) fn wake(&self) {
        self.active.notify_one();
    }

    async fn until_active(&self) {
        while self.taken.load(Ordering::Acquire) == 0 {
            self.active.notified().await;
        }
    }
}

/// Ends if the peer does not answer. The driver of the connection notices a closed connection itself.
pub(super) async fn watch(pings: Option<PingPong>, pulse: Arc<Pulse>) -> TunnelError {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        pulse.until_active().await;
        let answer = pings.ping(Ping::opaque());
        tokio::pin!(answer);
        let answered = match timeout(SUSPICION, &mut answer).await {
            Err(_) => {
                pulse.suspect.store(true, Ordering::Relaxed);
                timeout(TIMEOUT - SUSPICION, &mut answer).await
            }
            answered => answered,
        };
        match answered {
            Ok(Ok(_)) => pulse.suspect.store(false, Ordering::Relaxed),
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return TunnelError::Unresponsive,
        }
        sleep(INTERVAL).await;
    }
}
