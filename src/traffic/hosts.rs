//! The endpoints of one destination, as this node has seen them: ejection, probing, slow start and latency.
//!
//! The state machine of one endpoint, where the policy has outlier detection:
//!
//! ```text
//! serving --- failures in a row ---> ejected --- its time passes ---> probing --- a request takes the place ---> probed
//!    ^                                  ^                                ^                                         |
//!    |                                  +---------- that fails ----------|-----------------------------------------+
//!    |                                                                   +---------- that says nothing ------------+
//!    +--- that succeeds: serving again, with slow start where the policy has warmup -------------------------------+
//! ```
//!
//! A request that probes an endpoint is waited for as long as the policy's interval. After that another one may probe it as well, so
//! that no request that lasts, and no client that lets it last, keeps an endpoint away from the others. The first of them that says
//! something decides.
//!
//! The state is atomics, a map that is copied when endpoints come and go, and a list of those that are ejected. A request to a
//! destination of which nothing is ejected reads one number.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::time::Instant;

use super::host::{Counts, Host, Phase};
use super::series::Series;
use super::{Balancer, Heard, OutlierDetection, Policy, millis};
use crate::base::{FastMap, Str};

/// Endpoints that are known by name only come as resolvers name them. Of more than so many, those that are not named any more are
/// forgotten.
const MOST_HOSTS: usize = 1024;

type Map = FastMap<SocketAddr, Arc<Host>>;

/// What was seen of the endpoints of one destination.
#[derive(Debug)]
pub(super) struct Hosts {
    /// Times are milliseconds after it.
    epoch: Instant,
    series: Arc<Series>,
    all: ArcSwap<Map>,
    ejected: ArcSwapOption<Ejected>,
    /// Endpoints that are ejected, probing or probed.
    out: AtomicU32,
    /// Endpoints that come are new ones: the first that were seen are not.
    is_known: AtomicBool,
    /// When the last one that is known to warm up is warm; 0: none warms up.
    warm_at: AtomicU64,
    /// When the first request that probes an endpoint is not waited for any longer; `u64::MAX`: there is none.
    probed_until: AtomicU64,
}

/// The endpoints that are ejected at present.
#[derive(Clone, Debug)]
pub struct Ejected {
    list: Vec<Out>,
    soonest: u64,
}

/// An endpoint, and when it may be probed.
#[derive(Clone, Debug)]
struct Out {
    endpoint: SocketAddr,
    host: Arc<Host>,
    until: u64,
}

impl Ejected {
    pub fn endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        self.list.iter().map(|out| out.endpoint)
    }

    fn of(list: Vec<Out>) -> Option<Arc<Self>> {
        let soonest = list.iter().map(|out| out.until).min()?;
        Some(Arc::new(Self { list, soonest }))
    }
}

/// One endpoint, for dumps.
#[derive(Debug, serde::Serialize)]
pub(super) struct Shown {
    endpoint: SocketAddr,
    /// `ejected`, `probing`, `warming` or `serving`.
    state: &'static str,
    /// Until when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<u64>,
    /// Ejections in a row.
    #[serde(skip_serializing_if = "is_zero")]
    times: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<u64>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Hosts {
    /// `None` for a policy that needs to know nothing of single endpoints.
    pub(super) fn of(policy: &Policy, series: Arc<Series>) -> Option<Self> {
        let is_wanted = policy.outliers.is_some()
            || policy.warmup.is_some()
            || policy.balancer == Some(Balancer::PeakEwma);
        is_wanted.then(|| Self {
            epoch: Instant::now(),
            series,
            all: ArcSwap::default(),
            ejected: ArcSwapOption::default(),
            out: AtomicU32::new(0),
            is_known: AtomicBool::new(false),
            warm_at: AtomicU64::new(0),
            probed_until: AtomicU64::new(u64::MAX),
        })
    }

    /// Milliseconds since the destination is known.
    pub(super) fn now(&self) -> u64 {
        millis(self.epoch.elapsed())
    }

    /// The records of these endpoints, in their order.
    pub(super) fn records(&self, policy: &Policy, endpoints: &[SocketAddr]) -> Vec<Arc<Host>> {
        let known = self.all.load();
        if endpoints.iter().any(|endpoint| !known.contains_key(endpoint)) {
            let listed: Vec<_> = endpoints.iter().map(|endpoint| (*endpoint, true)).collect();
            self.change(policy, &listed, known.len() < MOST_HOSTS);
        }
        let known = self.all.load();
        let of = |endpoint| known.get(endpoint).cloned().unwrap_or_default();
        endpoints.iter().map(of).collect()
    }

    /// These are the endpoints, each with whether it is ready; what is known of others is forgotten.
    pub(super) fn follow(&self, policy: &Policy, listed: &[(SocketAddr, bool)]) {
        self.change(policy, listed, false);
    }

    fn change(&self, policy: &Policy, listed: &[(SocketAddr, bool)], keeps_others: bool) {
        let is_known = self.is_known.swap(true, Ordering::AcqRel);
        let now = self.now();
        let mut gone = Vec::new();
        self.all.rcu(|before| {
            let mut after = if keeps_others { Map::clone(before) } else { Map::default() };
            for (endpoint, _) in listed {
                let host = before.get(endpoint).cloned().unwrap_or_default();
                after.insert(*endpoint, host);
            }
            let leaving = before.iter().filter(|(endpoint, _)| !after.contains_key(endpoint));
            gone = leaving.map(|(_, host)| host.clone()).collect();
            after
        });
        let all = self.all.load();
        for (endpoint, ready) in listed {
            let Some(host) = all.get(endpoint) else { continue };
            let was_ready = host.ready.swap(*ready, Ordering::Relaxed);
            if *ready && !was_ready && is_known {
                self.warm_up(policy, host, now);
            }
        }
        let are_some_gone = !gone.is_empty();
        for host in gone {
            if !matches!(host.set(Phase::Gone), Phase::Serving | Phase::Gone) {
                self.out.fetch_sub(1, Ordering::AcqRel);
            }
        }
        if are_some_gone {
            self.forget_gone();
        }
    }

    fn forget_gone(&self) {
        let mut dropped = 0;
        self.ejected.rcu(|ejected| {
            let list = ejected.iter().flat_map(|it| &it.list);
            let left: Vec<_> = list.filter(|it| it.host.phase() != Phase::Gone).cloned().collect();
            let before = ejected.as_ref().map_or(0, |it| it.list.len());
            dropped = before - left.len();
            if dropped == 0 { ejected.clone() } else { Ejected::of(left) }
        });
        self.series.returned(dropped);
    }

    fn warm_up(&self, policy: &Policy, host: &Host, now: u64) {
        let Some(warmup) = &policy.warmup else { return };
        // 0 stands for none.
        let now = now.max(1);
        host.warming.store(now, Ordering::Relaxed);
        self.warm_at.fetch_max(now.saturating_add(millis(warmup.duration)), Ordering::Relaxed);
    }

    /// The time, if some endpoint may be warming up.
    pub(super) fn warming(&self) -> Option<u64> {
        let warm_at = self.warm_at.load(Ordering::Relaxed);
        if warm_at == 0 {
            return None;
        }
        let now = self.now();
        if now < warm_at {
            return Some(now);
        }
        // Unless one more has come meanwhile.
        _ = self.warm_at.compare_exchange(warm_at, 0, Ordering::Relaxed, Ordering::Relaxed);
        None
    }

    /// Whether some endpoint does not serve as usual. Those whose ejection has ended are probed from now on.
    pub(super) fn are_some_out(&self, name: &Str) -> bool {
        if self.out.load(Ordering::Acquire) == 0 {
            return false;
        }
        self.current(name);
        self.wait_no_longer();
        true
    }

    /// Lets other requests probe the endpoints whose probe lasts too long.
    fn wait_no_longer(&self) {
        let soonest = self.probed_until.load(Ordering::Relaxed);
        if soonest == u64::MAX || self.now() < soonest {
            return;
        }
        let now = self.now();
        self.probed_until.store(u64::MAX, Ordering::Relaxed);
        for host in self.all.load().values().filter(|host| host.phase() == Phase::Probed) {
            let until = host.probed_until.load(Ordering::Relaxed);
            if until > now {
                self.probed_until.fetch_min(until, Ordering::Relaxed);
            } else {
                host.turn(Phase::Probed, Phase::Probing);
            }
        }
    }

    /// The endpoints that are ejected.
    pub(super) fn current(&self, name: &Str) -> Option<Arc<Ejected>> {
        let ejected = self.ejected.load();
        let soonest = ejected.as_ref()?.soonest;
        let now = self.now();
        if now < soonest {
            return ejected.clone();
        }
        self.probe(name, now);
        self.ejected.load_full()
    }

    fn probe(&self, name: &Str, now: u64) {
        let mut due = Vec::new();
        self.ejected.rcu(|ejected| {
            let list = ejected.iter().flat_map(|it| it.list.iter().cloned());
            let (back, left): (Vec<_>, Vec<_>) = list.partition(|out| out.until <= now);
            due = back;
            Ejected::of(left)
        });
        self.series.returned(due.len());
        for Out { endpoint, host, .. } in due {
            if host.turn(Phase::Ejected, Phase::Probing) {
                tracing::info!(%endpoint, destination = %name, "the ejection of an endpoint has ended; one request probes it");
            }
        }
    }

    /// What an attempt tells about its endpoint, of `pool`.
    pub(super) fn heard(
        &self,
        (name, policy): (&Str, &Policy),
        (endpoint, host): (SocketAddr, &Arc<Host>),
        heard: Heard,
        pool: u32,
    ) {
        let Some(outliers) = &policy.outliers else { return };
        let counts = Counts::of(outliers, heard);
        // What began before an ejection says nothing new.
        if matches!(host.phase(), Phase::Serving | Phase::Gone) && host.count(outliers, &counts) {
            self.eject((name, outliers), (endpoint, host), pool);
        }
    }

    /// What the request tells that probes an endpoint.
    pub(super) fn probed(
        &self,
        (name, policy): (&Str, &Policy),
        (endpoint, host): (SocketAddr, &Arc<Host>),
        heard: Heard,
        pool: u32,
    ) {
        let Some(outliers) = &policy.outliers else { return };
        if !host.is_half_open() {
            // Another one has decided.
            return;
        }
        let fails = Counts::of(outliers, heard).fails(outliers);
        if fails && self.eject((name, outliers), (endpoint, host), pool) {
            return;
        }
        let now = self.now();
        host.forgive(now);
        self.warm_up(policy, host, now);
        if host.decide(Phase::Serving) {
            self.out.fetch_sub(1, Ordering::AcqRel);
            tracing::info!(%endpoint, destination = %name, "an endpoint that was ejected serves again");
        }
    }

    /// Whether it is ejected: not if enough others are.
    fn eject(
        &self,
        (name, outliers): (&Str, &OutlierDetection),
        (endpoint, host): (SocketAddr, &Arc<Host>),
        pool: u32,
    ) -> bool {
        // Whose time has passed leaves the list first.
        self.current(name);
        let most = outliers.most_ejected(pool) as usize;
        let times = host.next_time(outliers, self.now());
        let interval = millis(outliers.interval).max(1);
        let ends = self.now() + millis(outliers.ejection(times));
        let until = ends.div_ceil(interval) * interval;
        let (mut is_new, mut is_full) = (false, false);
        self.ejected.rcu(|ejected| {
            let list = ejected.as_ref().map_or(&[][..], |it| &it.list);
            is_new = !list.iter().any(|out| out.endpoint == endpoint);
            is_full = list.len() >= most;
            if !is_new || is_full {
                return ejected.clone();
            }
            let out = Out { endpoint, host: host.clone(), until };
            Ejected::of(list.iter().cloned().chain([out]).collect())
        });
        if !is_new {
            return true;
        }
        if is_full {
            self.series.overflowed();
            return false;
        }
        host.set_times(times);
        if host.turn(Phase::Serving, Phase::Ejected) {
            self.out.fetch_add(1, Ordering::AcqRel);
        } else if !host.decide(Phase::Ejected) {
            // It is gone.
            self.series.ejected();
            self.forget_gone();
            return true;
        }
        self.series.ejected();
        let seconds = Duration::from_millis(until.saturating_sub(self.now())).as_secs_f32();
        tracing::warn!(
            %endpoint, destination = %name, seconds, times,
            "ejected an endpoint that failed several times in a row, or when it was probed; check its application's log"
        );
        true
    }

    /// Takes the place of the request that probes an endpoint. `None`: another request has it, or it is ejected.
    pub(super) fn begin(&self, policy: &Policy, host: &Host) -> Option<bool> {
        if host.phase() != Phase::Probing {
            return Some(false);
        }
        let interval = policy.outliers.as_ref().map_or(0, |outliers| millis(outliers.interval));
        let until = self.now().saturating_add(interval.max(1));
        host.probed_until.store(until, Ordering::Relaxed);
        let begins = host.turn(Phase::Probing, Phase::Probed);
        if begins {
            self.probed_until.fetch_min(until, Ordering::Relaxed);
        }
        begins.then_some(true)
    }

    /// Those of which there is something to say.
    pub(super) fn shown(&self, policy: &Policy) -> Vec<Shown> {
        let now = self.now();
        let ejected = self.ejected.load();
        let until = |endpoint: &SocketAddr| {
            let list = ejected.as_ref().map_or(&[][..], |it| &it.list);
            list.iter().find(|out| out.endpoint == *endpoint).map(|out| out.until)
        };
        let seconds = |until: u64| Some(until.saturating_sub(now).div_ceil(1000));
        let show = |(endpoint, host): (&SocketAddr, &Arc<Host>)| {
            let warm_at = policy.warmup.as_ref().map(|it| millis(it.duration)).unwrap_or_default()
                + host.warming.load(Ordering::Relaxed);
            let is_warming = host.warming.load(Ordering::Relaxed) > 0 && warm_at > now;
            let (state, seconds_left) = match host.phase() {
                Phase::Ejected => ("ejected", until(endpoint).and_then(seconds)),
                Phase::Probing | Phase::Probed => ("probing", None),
                _ if is_warming => ("warming", seconds(warm_at)),
                _ => ("serving", None),
            };
            let latency_ms = host.latency.estimate(now).map(|micros| (micros / 1e3).ceil() as u64);
            let is_usual = state == "serving" && latency_ms.is_none();
            let times = if state == "serving" { 0 } else { host.times() };
            let endpoint = *endpoint;
            (!is_usual).then_some(Shown { endpoint, state, seconds_left, times, latency_ms })
        };
        let mut shown: Vec<Shown> = self.all.load().iter().filter_map(show).collect();
        shown.sort_unstable_by_key(|it| it.endpoint);
        shown
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let left = self.ejected.load().as_ref().map_or(0, |ejected| ejected.list.len());
        self.series.returned(left);
    }
}
