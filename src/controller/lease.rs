//! Leader election with a Lease (coordination.k8s.io), as client-go's `leaderelection` does it: the holder renews, and
//! a replica that has seen no renewal for the Lease's duration takes it.
//!
//! Each replica measures time by its own monotonic clock, from what it has seen itself; the timestamps in the Lease are
//! for people, so clocks may differ. A holder that cannot renew stops leading after [`RENEW_DEADLINE`], and has
//! [`LEASE_DURATION`] less that to stop before another replica begins. All writes carry the version that was read, so
//! if two replicas take the Lease at once, one write is rejected.

mod judge;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::cluster::{RequestError, is_conflict};
use super::{Context, FIELD_MANAGER};
use crate::base::Seldom;
use judge::{LeaseState, Observed};

/// How long an unrenewed Lease keeps other replicas out (client-go's defaults, as those below).
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// The time without a renewal after which the holder stops leading.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// The interval of renewals and checks.
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// The time that the leader's work may take to stop; with [`RENEW_DEADLINE`] less than [`LEASE_DURATION`].
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// The timeout of one request to the API server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(RENEW_DEADLINE.as_secs() + STOP_WITHIN.as_secs() < LEASE_DURATION.as_secs());

/// Whether this replica leads now; cheap to clone.
#[derive(Clone, Default)]
pub struct Leadership(Arc<AtomicBool>);

impl Leadership {
    #[cfg(test)]
    pub(super) fn of(held: bool) -> Self {
        Self(Arc::new(AtomicBool::new(held)))
    }

    pub fn is_held(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One replica's part in the election.
pub(super) struct Election {
    leases: Api<Lease>,
    name: &'static str,
    /// Unlike that of every other replica, including an earlier one of the same name.
    me: String,
    leadership: Leadership,
    trouble: Seldom,
}

/// The Lease as this replica wrote it last.
struct Held {
    lease: Lease,
    /// When the last successful write began.
    renewed: Instant,
}

impl Election {
    pub(super) fn new(context: &Context, name: &'static str, leadership: Leadership) -> Self {
        Self {
            leases: Api::namespaced(context.client.clone(), &context.settings.namespace),
            name,
            me: format!("{}_{:016x}", context.replica, fastrand::u64(..)),
            leadership,
            trouble: Seldom::new(),
        }
    }

    /// Leads whenever it can, until cancelled. `work` is called at the beginning of each term with a token that is
    /// cancelled at its end; work that has not stopped [`STOP_WITHIN`] after that is dropped.
    pub(super) async fn run<F>(
        self,
        cancel: CancellationToken,
        work: impl Fn(CancellationToken) -> F,
    ) where
        F: Future<Output = ()>,
    {
        while let Some(mut held) = cancel.run_until_cancelled(self.acquire()).await {
            tracing::info!(lease = self.name, holder = self.me, "this replica leads");
            self.leadership.0.store(true, Ordering::Relaxed);
            let term = cancel.child_token();
            let mut working = Box::pin(work(term.clone()));
            let mut done = false;
            {
                let mut keeping = Box::pin(self.keep(&mut held));
                loop {
                    tokio::select! {
                        () = &mut working, if !done => done = true,
                        () = &mut keeping => break,
                        () = cancel.cancelled() => break,
                    }
                }
            }
            term.cancel();
            if !done && timeout(STOP_WITHIN, working).await.is_err() {
                tracing::warn!("the leader's work did not stop in time and was dropped");
            }
            self.leadership.0.store(false, Ordering::Relaxed);
            if cancel.is_cancelled() {
                self.release(held).await;
            } else {
                tracing::warn!(lease = self.name, "this replica no longer leads");
            }
        }
    }

    /// Waits until this replica holds the Lease.
    async fn acquire(&self) -> Held {
        let mut observed = Observed::default();
        loop {
            match self.try_acquire(&mut observed).await {
                Ok(Some(held)) => return held,
                Ok(None) => {}
                Err(why) => self.complain(&why),
            }
            sleep(RETRY_PERIOD.mul_f64(1.0 + 0.2 * fastrand::f64())).await;
        }
    }

    /// One check of the Lease; takes it if no replica holds it. `None`: another replica holds it, or was faster.
    async fn try_acquire(&self, observed: &mut Observed) -> Result<Option<Held>, RequestError> {
        let current = self.bounded(self.leases.get_opt(self.name)).await?;
        let begun = Instant::now();
        let spec = current.as_ref().and_then(|lease| lease.spec.as_ref());
        if observed.judge(spec, &self.me, begun) == LeaseState::Held {
            return Ok(None);
        }
        let parameters = parameters();
        let taken = match current {
            None => {
                let mut lease = Lease {
                    metadata: ObjectMeta { name: Some(self.name.into()), ..Default::default() },
                    spec: None,
                };
                lease.spec = Some(self.taken(None));
                self.settled(self.leases.create(&parameters, &lease)).await?
            }
            Some(mut lease) => {
                lease.spec = Some(self.taken(lease.spec.as_ref()));
                self.settled(self.leases.replace(self.name, &parameters, &lease)).await?
            }
        };
        Ok(taken.map(|lease| Held { lease, renewed: begun }))
    }

    /// Renews; returns when the Lease is lost.
    async fn keep(&self, held: &mut Held) {
        loop {
            sleep(RETRY_PERIOD).await;
            let left = RENEW_DEADLINE.saturating_sub(held.renewed.elapsed());
            match timeout(left, self.renew(held)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return,
                Ok(Err(why)) => self.complain(&why),
                Err(_) => return,
            }
        }
    }

    /// `false`: another replica has it.
    async fn renew(&self, held: &mut Held) -> Result<bool, RequestError> {
        let begun = Instant::now();
        let mut lease = held.lease.clone();
        if let Some(spec) = lease.spec.as_mut() {
            spec.renew_time = Some(now());
        }
        let parameters = parameters();
        let replaced = self.leases.replace(self.name, &parameters, &lease);
        if let Some(lease) = self.settled(replaced).await? {
            *held = Held { lease, renewed: begun };
            return Ok(true);
        }
        // Another replica wrote to it, or a person who added a label.
        let current = self.bounded(self.leases.get_opt(self.name)).await?;
        let holder = current.as_ref().and_then(|it| it.spec.as_ref()?.holder_identity.as_deref());
        if holder != Some(self.me.as_str()) {
            return Ok(false);
        }
        if let Some(lease) = current {
            held.lease = lease;
        }
        Err(RequestError::Changed)
    }

    /// Lets the next replica take it at once.
    async fn release(&self, held: Held) {
        let mut lease = held.lease;
        if let Some(spec) = lease.spec.as_mut() {
            spec.holder_identity = None;
            spec.renew_time = Some(now());
            spec.lease_duration_seconds = Some(1);
        }
        let parameters = parameters();
        let released = self.leases.replace(self.name, &parameters, &lease);
        match self.settled(released).await {
            Ok(_) => tracing::info!(lease = self.name, "released the lease"),
            Err(why) => {
                let why = why.to_string();
                tracing::warn!(why, "cannot release the lease; it will expire");
            }
        }
    }

    /// The Lease's content with this replica as its holder from now on.
    fn taken(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let transitions = before.and_then(|spec| spec.lease_transitions);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(i32::try_from(LEASE_DURATION.as_secs()).unwrap_or(15)),
            acquire_time: Some(now()),
            renew_time: Some(now()),
            lease_transitions: Some(transitions.map_or(0, |count| count.saturating_add(1))),
            ..LeaseSpec::default()
        }
    }

    /// `None` for a write that conflicted with another one.
    async fn settled(
        &self,
        write: impl Future<Output = kube::Result<Lease>>,
    ) -> Result<Option<Lease>, RequestError> {
        match timeout(REQUEST_TIMEOUT, write).await {
            Ok(Ok(lease)) => Ok(Some(lease)),
            Ok(Err(error)) if is_conflict(&error) => Ok(None),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(RequestError::Unanswered(REQUEST_TIMEOUT)),
        }
    }

    async fn bounded<T>(
        &self,
        read: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, RequestError> {
        match timeout(REQUEST_TIMEOUT, read).await {
            Ok(read) => Ok(read?),
            Err(_) => Err(RequestError::Unanswered(REQUEST_TIMEOUT)),
        }
    }

    fn complain(&self, why: &RequestError) {
        if self.trouble.is_due() {
            tracing::warn!(
                lease = self.name,
                why = why.to_string(),
                "cannot read or write the lease; check the API server and the controller's RBAC"
            );
        }
    }
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}
