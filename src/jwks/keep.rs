//! The keys of one address: fetched when they are wanted first, again before they expire, and when a request waits for newer ones.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::fetch::{Failed, Fetched};
use super::fresh::{LEAST, Validators};
use super::{Fetcher, named_by};
use crate::base::{Backoff, Seldom};
use crate::jwt::{KeyRing, KeySet, Keys, KeysUri, Known};

/// How long a fetch may take, unless a rule waits longer (Istio's default of JWTRule.timeout).
const TIMEOUT: Duration = Duration::from_secs(5);
/// Requests cause one fetch in this time at the most. It is less than a request waits, so that one with a key that an issuer has just
/// published passes even while others send unknown ones.
const AGAIN: Duration = Duration::from_secs(3);
/// The same after failures in a row.
const AFTER_FAILURE: Backoff = Backoff::new(AGAIN, Duration::from_secs(60));
/// The pauses between fetches that nobody waits for, after failures in a row.
const RETRY: Backoff =
    Backoff::new(Duration::from_secs(5), Duration::from_secs(300)).spread(0.5..=1.0);
/// Keys are fetched again when this part of the time has passed for which they are good, so that one failure costs nothing.
const AHEAD: std::ops::Range<f64> = 0.7..0.8;
/// Names of objects in a log line at the most.
const MAX_NAMES: usize = 3;

/// Fetches the keys of an address until no policy names it.
pub(super) async fn keep(fetcher: Arc<Fetcher>, ring: Arc<KeyRing>, set: Arc<KeySet>) {
    let mut kept = Kept::default();
    let trouble = Seldom::new();
    loop {
        let named = fetcher.named(&set.uri);
        if named.is_empty() {
            ring.remove(&set.uri);
            // Those who still wait need not.
            let now = Instant::now();
            return set.learn(Known { keys: None, begun: Some(now), next: now, failure: None });
        }
        let begun = Instant::now();
        let limit = set.longest_wait().max(TIMEOUT);
        let fetched = fetcher.fetch(&set.uri, &kept.validators, limit).await;
        fetcher.count(&fetched);
        if let Err(failed) = &fetched
            && trouble.is_due()
        {
            tell(&set, failed, &named, kept.keys.is_some());
        }
        let (known, refresh) = kept.after(begun, fetched);
        set.learn(known);
        until_due(&set, refresh).await;
    }
}

fn tell(set: &KeySet, failed: &Failed, named: &[String], has_keys: bool) {
    let effect = match has_keys {
        true => "the last good keys are used",
        false => "there are none, so that tokens of this issuer are answered with 401",
    };
    tracing::warn!(
        uri = %set.uri, error = %failed, named_by = %named.join(", "),
        "keys of an issuer cannot be fetched: {effect}; check jwksUri, and that the node reaches it without the mesh's mutual TLS"
    );
}

/// Until the time has come, or somebody waits for newer keys and may have them.
async fn until_due(set: &KeySet, refresh: Instant) {
    let asked = async {
        loop {
            set.wanted().await;
            sleep_until(set.known().next).await;
            if set.is_wanted() {
                return;
            }
        }
    };
    tokio::select! {
        () = sleep_until(refresh) => {}
        () = asked => {}
    }
}

/// What one fetch leaves for the next.
#[derive(Default)]
struct Kept {
    keys: Option<Keys>,
    validators: Validators,
    failures: u32,
}

impl Kept {
    /// What is known after a fetch, and when the next one is due.
    fn after(&mut self, begun: Instant, fetched: Result<Fetched, Failed>) -> (Known, Instant) {
        let ended = Instant::now();
        let (next, refresh, failure) = match fetched {
            Ok(fetched) => {
                self.failures = 0;
                self.validators = fetched.validators;
                if fetched.keys.is_some() {
                    self.keys = fetched.keys;
                }
                let part = AHEAD.start + (AHEAD.end - AHEAD.start) * fastrand::f64();
                let ahead = fetched.lifetime.mul_f64(part).max(LEAST.mul_f64(AHEAD.start));
                (AGAIN, ended + ahead, None)
            }
            Err(failed) => {
                self.failures = self.failures.saturating_add(1);
                let pause = AFTER_FAILURE.after(self.failures);
                (pause, ended + RETRY.after(self.failures), Some(failed.to_string().into()))
            }
        };
        let keys = self.keys.clone();
        (Known { keys, begun: Some(begun), next: begun + next, failure }, refresh)
    }
}

impl Fetcher {
    /// Some of the RequestAuthentications that name an address.
    fn named(&self, uri: &KeysUri) -> Vec<String> {
        let world = self.world.load();
        named_by(&world.mesh, uri).map(ToString::to_string).take(MAX_NAMES).collect()
    }

    fn count(&self, fetched: &Result<Fetched, Failed>) {
        match fetched {
            Ok(Fetched { keys: Some(_), .. }) => self.metrics.fetched.inc(),
            Ok(Fetched { keys: None, .. }) => self.metrics.unchanged.inc(),
            Err(Failed::Refused(..)) => self.metrics.refused.inc(),
            Err(_) => self.metrics.failed.inc(),
        };
    }
}
