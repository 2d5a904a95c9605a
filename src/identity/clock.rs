//! Wall-clock time as a seam: certificates are valid by the wall clock, and tests move it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// The wall clock. It may jump; only validity is judged by it, never how long something took.
pub trait Clock: Debug + Send + Sync {
    fn now(&self) -> SystemTime;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// The same clock for the TLS library's checks of validity.
#[derive(Debug)]
pub(super) struct TlsClock(pub(super) Arc<dyn Clock>);

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        unix_time(self.0.now())
    }
}

/// `None` for a clock before 1970: then nothing can be verified, and the handshake fails.
pub(super) fn unix_time(time: SystemTime) -> Option<UnixTime> {
    time.duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
}
