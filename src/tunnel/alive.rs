//! Signs of life of a tunnel's peer, as its client sees them. A network that drops everything says nothing: TCP finds
//! out after a quarter of an hour, and until then every new connection would go into the dead tunnel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::TunnelError;

/// How often a peer is asked while streams are open: 17 bytes.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long an answer takes at the most in a network that works, with a retransmission or two (0.2 s and more each):
/// after it, new streams go elsewhere, which costs a handshake if it was wrong.
const SUSPICION: Duration = Duration::from_secs(2);
/// How long an answer may take until every stream is cut (the server's): a ping waits behind the bytes of the streams,
/// and 4 MiB of them take 16 s at 2 Mbit/s.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What is known of the peer, and how many streams want to know it.
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

    /// The first stream after a while was opened.
    pub(super) fn wake(&self) {
        self.active.notify_one();
    }

    async fn until_active(&self) {
        while self.taken.load(Ordering::Acquire) == 0 {
            self.active.notified().await;
        }
    }
}

/// Ends when the peer does not answer. A connection that has ended is noticed by whoever drives it.
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
