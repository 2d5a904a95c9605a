//! Outlier detection: endpoints that fail several times in a row are ejected for a while, as in Envoy.
//!
//! The state is atomics and two maps that are copied when they change, which happens with the first failure of an endpoint and
//! with an ejection. A request to a destination without failures reads two pointers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::time::Instant;

use super::{Heard, OutlierDetection, totals};
use crate::base::Str;

/// Endpoints whose failures are known. Before one more is added, those that have not failed for long are forgotten.
const MOST_HOSTS: usize = 1024;
/// After this time without a failure nothing is worth keeping: no ejection lasts longer by default.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// What was seen of the endpoints of one destination.
#[derive(Debug)]
pub(super) struct Ejections {
    /// Times below are milliseconds after it.
    epoch: Instant,
    /// Endpoints that have failed.
    hosts: ArcSwap<HashMap<SocketAddr, Arc<Host>>>,
    ejected: ArcSwapOption<Ejected>,
}

/// One endpoint that has failed.
#[derive(Debug, Default)]
struct Host {
    errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_failures: AtomicU32,
    /// Ejections in a row, and when the last one ended.
    times: AtomicU32,
    returned: AtomicU64,
    /// The last failure.
    failed: AtomicU64,
}

/// The endpoints that are ejected at present, each with the time of its return.
#[derive(Clone, Debug)]
pub struct Ejected {
    list: Vec<(SocketAddr, u64)>,
    soonest: u64,
}

impl Ejected {
    pub fn contains(&self, endpoint: SocketAddr) -> bool {
        self.list.iter().any(|(ejected, _)| *ejected == endpoint)
    }

    pub fn endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        self.list.iter().map(|(endpoint, _)| *endpoint)
    }

    fn of(list: Vec<(SocketAddr, u64)>) -> Option<Arc<Self>> {
        let soonest = list.iter().map(|(_, until)| *until).min()?;
        Some(Arc::new(Self { list, soonest }))
    }
}

impl Default for Ejections {
    fn default() -> Self {
        Self { epoch: Instant::now(), hosts: ArcSwap::default(), ejected: ArcSwapOption::default() }
    }
}

impl Ejections {
    pub(super) fn heard(
        &self,
        name: &Str,
        outliers: &OutlierDetection,
        endpoint: SocketAddr,
        heard: Heard,
        pool: u32,
    ) {
        let counts = Counts::of(outliers, heard);
        let host = match self.hosts.load().get(&endpoint) {
            Some(host) => host.clone(),
            // It never failed, and does not now.
            None if !counts.fails() => return,
            None => self.host(endpoint),
        };
        if counts.fails() {
            host.failed.store(self.now(), Ordering::Relaxed);
        }
        let thresholds = [
            (&host.errors, counts.error, outliers.consecutive_errors),
            (&host.gateway_errors, counts.gateway_error, outliers.consecutive_gateway_errors),
            (
                &host.local_failures,
                counts.local_failure,
                outliers.consecutive_local_failures.unwrap_or(0),
            ),
        ];
        let mut reached = false;
        for (count, counted, threshold) in thresholds {
            reached |= counted.is_some_and(|failed| count_one(count, failed, threshold));
        }
        if reached {
            self.eject(name, outliers, (endpoint, &host), pool);
        }
    }

    /// The endpoints that are ejected. Those whose time has come return first.
    pub(super) fn current(&self, name: &Str) -> Option<Arc<Ejected>> {
        let ejected = self.ejected.load();
        let ejected = ejected.as_ref()?;
        let now = self.now();
        if now < ejected.soonest {
            return Some(ejected.clone());
        }
        self.take_back(name, now);
        self.ejected.load_full()
    }

    fn take_back(&self, name: &Str, now: u64) {
        let mut due = Vec::new();
        self.ejected.rcu(|ejected| {
            let list = ejected.iter().flat_map(|it| it.list.iter().copied());
            let (back, left): (Vec<_>, Vec<_>) = list.partition(|(_, until)| *until <= now);
            due = back;
            Ejected::of(left)
        });
        totals::returned(due.len());
        let hosts = self.hosts.load();
        for (endpoint, until) in due {
            tracing::info!(%endpoint, destination = %name, "an ejected endpoint returns");
            if let Some(host) = hosts.get(&endpoint) {
                host.returned.store(until, Ordering::Relaxed);
                host.forgive();
            }
        }
    }

    /// The record of an endpoint that fails for the first time.
    fn host(&self, endpoint: SocketAddr) -> Arc<Host> {
        let added = Arc::new(Host::default());
        let now = self.now();
        let hosts = self.hosts.rcu(|hosts| {
            let mut hosts = HashMap::clone(hosts);
            if hosts.len() >= MOST_HOSTS {
                let forgotten = millis(FORGOTTEN_AFTER);
                hosts.retain(|_, host| host.failed.load(Ordering::Relaxed) + forgotten > now);
            }
            // Another thread may have added it meanwhile.
            hosts.entry(endpoint).or_insert_with(|| added.clone());
            hosts
        });
        hosts
            .get(&endpoint)
            .cloned()
            .unwrap_or_else(|| self.hosts.load().get(&endpoint).cloned().unwrap_or(added))
    }

    fn eject(
        &self,
        name: &Str,
        outliers: &OutlierDetection,
        (endpoint, host): (SocketAddr, &Host),
        pool: u32,
    ) {
        let most = outliers.most_ejected(pool) as usize;
        let times = host.next_time(outliers, self.now());
        let interval = millis(outliers.interval).max(1);
        let ends = self.now() + millis(outliers.ejection(times));
        let until = ends.div_ceil(interval) * interval;
        let (mut is_new, mut is_full) = (false, false);
        self.ejected.rcu(|ejected| {
            let list = ejected.as_ref().map_or(&[][..], |it| &it.list);
            is_new = !list.iter().any(|(known, _)| *known == endpoint);
            is_full = list.len() >= most;
            if !is_new || is_full {
                return ejected.clone();
            }
            Ejected::of(list.iter().copied().chain([(endpoint, until)]).collect())
        });
        if !is_new {
            return;
        }
        if is_full {
            totals::overflowed();
            return;
        }
        host.times.store(times, Ordering::Relaxed);
        totals::ejected();
        let seconds = Duration::from_millis(until.saturating_sub(self.now())).as_secs_f32();
        tracing::warn!(
            %endpoint, destination = %name, seconds, times,
            "ejected an endpoint that failed several times in a row; check its application's log"
        );
    }

    fn now(&self) -> u64 {
        millis(self.epoch.elapsed())
    }
}

impl Drop for Ejections {
    fn drop(&mut self) {
        let left = self.ejected.load().as_ref().map_or(0, |ejected| ejected.list.len());
        totals::returned(left);
    }
}

impl Host {
    /// A few errors more must not eject it again at once.
    fn forgive(&self) {
        for count in [&self.errors, &self.gateway_errors, &self.local_failures] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Which ejection in a row the next one is: each interval without one makes up for one.
    fn next_time(&self, outliers: &OutlierDetection, now: u64) -> u32 {
        let quiet = now.saturating_sub(self.returned.load(Ordering::Relaxed));
        let made_up = quiet / millis(outliers.interval).max(1);
        let made_up = u32::try_from(made_up).unwrap_or(u32::MAX);
        self.times.load(Ordering::Relaxed).saturating_sub(made_up).saturating_add(1)
    }
}

/// Whether a result counts as a failure; `None` where it says nothing.
struct Counts {
    error: Option<bool>,
    gateway_error: Option<bool>,
    local_failure: Option<bool>,
}

impl Counts {
    fn of(outliers: &OutlierDetection, heard: Heard) -> Self {
        let split = outliers.consecutive_local_failures.is_some();
        let of_both = |failed| Self {
            error: (!split).then_some(failed),
            gateway_error: (!split).then_some(failed),
            local_failure: split.then_some(failed),
        };
        match heard {
            Heard::Failed => of_both(true),
            Heard::Accepted => of_both(false),
            Heard::Status(status) => {
                let is_error = match &outliers.codes[..] {
                    [] => (500..600).contains(&status),
                    codes => codes.contains(&status),
                };
                Self {
                    error: Some(is_error),
                    gateway_error: Some(is_error && matches!(status, 502..=504)),
                    // It was reached.
                    local_failure: split.then_some(false),
                }
            }
        }
    }

    fn fails(&self) -> bool {
        [self.error, self.gateway_error, self.local_failure].contains(&Some(true))
    }
}

/// Whether the count reaches the threshold with this one. It then starts again.
fn count_one(count: &AtomicU32, failed: bool, threshold: u32) -> bool {
    if !failed {
        count.store(0, Ordering::Relaxed);
        return false;
    }
    let reached = threshold > 0 && count.fetch_add(1, Ordering::Relaxed) + 1 == threshold;
    if reached {
        count.store(0, Ordering::Relaxed);
    }
    reached
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}
