//! The tunnels of one key.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::alert::Alert;
use super::probe::Probe;
use super::{PoolError, open_error};
use crate::tunnel::{ConnectRequest, HboneStream, Tunnel, TunnelError};

/// Readers take no lock; one caller dials at a time.
#[derive(Default)]
pub(super) struct Entry {
    tunnels: ArcSwap<Vec<Arc<Pooled>>>,
    pub(super) dialling: tokio::sync::Mutex<()>,
    pub(super) probe: Probe,
    failure: Mutex<Option<(Instant, PoolError)>>,
}

struct Pooled {
    tunnel: Tunnel,
    /// The generation of the certificate that dialled it.
    generation: u64,
    alert: Alert,
    idle_since: Mutex<Option<Instant>>,
}

impl Entry {
    /// A stream in an existing tunnel; `None` if all are full, closing or of an older certificate.
    pub(super) async fn open_existing(
        &self,
        generation: u64,
        request: &ConnectRequest,
    ) -> Option<Result<HboneStream, PoolError>> {
        for pooled in self.tunnels.load_full().iter() {
            if pooled.generation != generation {
                pooled.tunnel.drain();
                self.remove(pooled);
                continue;
            }
            if !pooled.tunnel.is_usable() {
                self.remove(pooled);
                match self.refusal(pooled, request) {
                    Some(refusal) => return Some(Err(refusal)),
                    None => continue,
                }
            }
            if pooled.tunnel.is_suspect() || pooled.tunnel.free_streams() == 0 {
                continue;
            }
            match pooled.tunnel.open(request).await {
                Ok(stream) => return Some(Ok(stream)),
                Err(TunnelError::Full) => {}
                // The server did not process the request: another tunnel may take it.
                Err(TunnelError::Closing) => self.remove(pooled),
                Err(error) => {
                    let refusal = self.refusal(pooled, request);
                    return Some(Err(
                        refusal.unwrap_or_else(|| open_error(&request.authority, &error))
                    ));
                }
            }
        }
        None
    }

    /// The alert with which the server closed the tunnel. It would send the same again, so all waiting callers get it.
    fn refusal(&self, pooled: &Pooled, request: &ConnectRequest) -> Option<PoolError> {
        let (reason, said) = pooled.alert.get()?;
        let why = format!("tunnel to {}: the server broke it off: {said}", request.authority);
        let refusal = PoolError { reason: *reason, why };
        self.failed(refusal.clone());
        Some(refusal)
    }

    /// Whether a tunnel of this generation has a free stream.
    pub(super) fn has_room(&self, generation: u64) -> bool {
        self.tunnels.load().iter().any(|pooled| {
            pooled.generation == generation
                && pooled.tunnel.is_usable()
                && !pooled.tunnel.is_suspect()
                && pooled.tunnel.free_streams() > 0
        })
    }

    pub(super) fn add(&self, tunnel: Tunnel, alert: Alert, generation: u64) {
        let pooled = Arc::new(Pooled { tunnel, generation, alert, idle_since: Mutex::new(None) });
        *self.failure.lock() = None;
        self.tunnels.rcu(|tunnels| {
            let mut tunnels = Vec::clone(tunnels);
            tunnels.push(pooled.clone());
            tunnels
        });
    }

    pub(super) fn failed(&self, error: PoolError) {
        *self.failure.lock() = Some((Instant::now(), error));
    }

    /// The failure of a dial that ended after `asked`, which also answers this caller.
    pub(super) fn failure_since(&self, asked: Instant) -> Option<PoolError> {
        let failure = self.failure.lock();
        failure.as_ref().filter(|(at, _)| *at >= asked).map(|(_, error)| error.clone())
    }

    pub(super) fn len(&self) -> usize {
        self.tunnels.load().len()
    }

    pub(super) fn streams(&self) -> usize {
        self.tunnels.load().iter().map(|pooled| pooled.tunnel.active_streams()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tunnels.load().is_empty() && !self.probe.is_recent()
    }

    pub(super) fn drain(&self) {
        self.tunnels.load().iter().for_each(|pooled| pooled.tunnel.drain());
    }

    /// Drains the tunnels of other certificates than that of `generation`.
    pub(super) fn drain_outdated(&self, generation: u64) {
        for pooled in self.tunnels.load_full().iter().filter(|it| it.generation != generation) {
            pooled.tunnel.drain();
            self.remove(pooled);
        }
    }

    /// Drops closed tunnels and drains those that had no stream for `idle_timeout`.
    pub(super) fn sweep(&self, idle_timeout: Duration) {
        let now = Instant::now();
        for pooled in self.tunnels.load_full().iter() {
            if !pooled.tunnel.is_usable() {
                self.remove(pooled);
            } else if pooled.is_idle_for(idle_timeout, now) {
                pooled.tunnel.drain();
                self.remove(pooled);
            }
        }
    }

    fn remove(&self, gone: &Arc<Pooled>) {
        self.tunnels.rcu(|tunnels| {
            tunnels.iter().filter(|pooled| !Arc::ptr_eq(pooled, gone)).cloned().collect::<Vec<_>>()
        });
    }
}

impl Pooled {
    fn is_idle_for(&self, timeout: Duration, now: Instant) -> bool {
        let mut since = self.idle_since.lock();
        if self.tunnel.active_streams() > 0 {
            *since = None;
            return false;
        }
        now.duration_since(*since.get_or_insert(now)) >= timeout
    }
}
