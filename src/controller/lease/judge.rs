//! Is the Lease free? Decided from what this replica has seen of it, by its own clock.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use tokio::time::Instant;

use super::LEASE_DURATION;

/// The last content, and since when it has been the same.
#[derive(Default)]
pub(super) struct Observed(Option<(LeaseSpec, Instant)>);

/// Whether this replica may take the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseState {
    /// Without a holder, ours, or of a holder that has not renewed it for its duration.
    Free,
    Held,
}

impl Observed {
    /// Each change of the Lease counts as a renewal at the moment when it is seen here.
    pub(super) fn judge(&mut self, spec: Option<&LeaseSpec>, me: &str, now: Instant) -> LeaseState {
        let Some(spec) = spec else { return LeaseState::Free };
        let since = match &self.0 {
            Some((seen, since)) if seen == spec => *since,
            _ => {
                self.0 = Some((spec.clone(), now));
                now
            }
        };
        match spec.holder_identity.as_deref() {
            None | Some("") => LeaseState::Free,
            Some(holder) if holder == me => LeaseState::Free,
            Some(_) if now.duration_since(since) >= duration(spec) => LeaseState::Free,
            Some(_) => LeaseState::Held,
        }
    }
}

/// The holder's own duration: it may run another version than this one.
fn duration(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|it| u64::try_from(it).ok());
    seconds.filter(|it| *it > 0).map_or(LEASE_DURATION, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn held(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    fn judge(observed: &mut Observed, spec: &LeaseSpec) -> LeaseState {
        observed.judge(Some(spec), "me", Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_free_when_it_was_not_renewed_for_its_duration() {
        let mut observed = Observed::default();
        // Long past by its own timestamp, which is the holder's clock and proves nothing.
        assert_eq!(judge(&mut observed, &held("other", 1)), LeaseState::Held);
        tokio::time::advance(Duration::from_secs(14)).await;
        assert_eq!(judge(&mut observed, &held("other", 1)), LeaseState::Held);
        assert_eq!(judge(&mut observed, &held("other", 2)), LeaseState::Held, "renewed");
        tokio::time::advance(Duration::from_secs(14)).await;
        assert_eq!(judge(&mut observed, &held("other", 2)), LeaseState::Held);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(judge(&mut observed, &held("other", 2)), LeaseState::Free);
    }

    #[tokio::test(start_paused = true)]
    async fn the_holders_duration_counts() {
        let mut observed = Observed::default();
        let spec = LeaseSpec { lease_duration_seconds: Some(60), ..held("other", 1) };
        assert_eq!(judge(&mut observed, &spec), LeaseState::Held);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(judge(&mut observed, &spec), LeaseState::Held);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(judge(&mut observed, &spec), LeaseState::Free);
        let nonsense = LeaseSpec { lease_duration_seconds: Some(-1), ..held("other", 2) };
        assert_eq!(judge(&mut observed, &nonsense), LeaseState::Held);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_holds_is_free_at_once() {
        let mut observed = Observed::default();
        assert_eq!(observed.judge(None, "me", Instant::now()), LeaseState::Free);
        assert_eq!(judge(&mut observed, &held("", 1)), LeaseState::Free);
        assert_eq!(judge(&mut observed, &held("me", 1)), LeaseState::Free);
        let released = LeaseSpec { holder_identity: None, ..held("other", 1) };
        assert_eq!(judge(&mut observed, &released), LeaseState::Free);
    }
}
