//! A limit that all pods of a service share (`rateLimit.shared`).
//!
//! Each node that holds pods of the service has a *part* of the limit: a bucket with the node's share of rate and burst,
//! by the number of pods. A request takes a token of the part; nobody is asked and nothing is awaited. What other nodes do
//! not use is moved here by the exchange (the room `quota`) as *moved tokens*, which a request takes when the part is
//! empty. Every token comes out of some part, so the parts together bound what passes, whatever becomes of the exchange.

mod digest;
mod moved;
mod part;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::buckets::Rate;
use crate::base::ObjectKey;
pub use digest::digest;
pub use moved::Lacking;
pub use part::{Part, Pods, Spread};

/// Tokens are counted in thousandths: a node's share of a small limit is less than one.
pub const UNIT: u64 = 1000;

/// The parts of one limit on this node, one for each service that it holds for.
#[derive(Debug, Default)]
pub struct Parts {
    all: ArcSwap<HashMap<ObjectKey, Arc<Part>>>,
    has_keys: bool,
}

impl Parts {
    /// Those of a limit with keys, or without.
    pub fn new(has_keys: bool) -> Self {
        Self { all: ArcSwap::default(), has_keys }
    }

    /// The part of a service; made at its first use. There are as many as services with the limit.
    pub fn of(&self, service: &ObjectKey) -> Arc<Part> {
        if let Some(part) = self.all.load().get(service) {
            return part.clone();
        }
        let made = Arc::new(Part::of(&service.namespace, self.has_keys));
        self.all.rcu(|parts| match parts.contains_key(service) {
            true => parts.clone(),
            false => {
                let mut more = HashMap::clone(parts);
                more.insert(service.clone(), made.clone());
                Arc::new(more)
            }
        });
        self.all.load().get(service).cloned().unwrap_or(made)
    }

    /// Forgets the parts of services that the limit no longer holds for.
    pub fn retain(&self, holds_for: impl Fn(&ObjectKey) -> bool) {
        if self.all.load().keys().all(&holds_for) {
            return;
        }
        self.all.rcu(|parts| {
            let kept = parts.iter().filter(|(service, _)| holds_for(service));
            Arc::new(kept.map(|(key, part)| (key.clone(), part.clone())).collect())
        });
    }
}

/// A node's share of a limit, in thousandths of tokens. It admits at least a request of `cost` at a time, so that a limit
/// with a burst below the number of nodes admits anything while nodes cannot talk.
pub fn rate_of_part(rate: Rate, pods: Pods, cost: u64) -> Rate {
    let (here, all) = pods.counts();
    Rate {
        tokens: rate.tokens.saturating_mul(UNIT).saturating_mul(here),
        interval: rate.interval.saturating_mul(u32::try_from(all).unwrap_or(u32::MAX)),
        burst: burst_of_part(rate, pods).max(cost.max(1).saturating_mul(UNIT)),
    }
}

/// A node's share of the burst, in thousandths, without what is rounded up.
pub fn burst_of_part(rate: Rate, pods: Pods) -> u64 {
    let (here, all) = pods.counts();
    let burst = u128::from(rate.burst) * u128::from(UNIT) * u128::from(here) / u128::from(all);
    u64::try_from(burst).unwrap_or(u64::MAX)
}

/// By which nodes call the bucket of a key to each other.
pub fn id_of(key: &impl Hash) -> u64 {
    digest(key)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn parts_are_made_once_and_forgotten_with_their_service() {
        let parts = Parts::default();
        let [one, other] = ["shop/web", "shop/db"].map(|it| {
            let (namespace, name) = it.split_once('/').unwrap();
            ObjectKey::new(namespace, name)
        });
        let first = parts.of(&one);
        assert!(Arc::ptr_eq(&first, &parts.of(&one)) && !Arc::ptr_eq(&first, &parts.of(&other)));
        parts.retain(|service| *service == other);
        assert!(!Arc::ptr_eq(&first, &parts.of(&one)));
    }

    #[test]
    fn shares_add_up_to_the_limit_and_admit_one_request_at_least() {
        let rate = Rate { tokens: 100, interval: Duration::from_secs(1), burst: 50 };
        let of = |here, all| rate_of_part(rate, Pods { here, all }, 1);
        let (three, one) = (of(3, 4), of(1, 4));
        let each_second = |rate: Rate| rate.tokens as f64 / rate.interval.as_secs_f64();
        assert_eq!(each_second(three) + each_second(one), 100_000.0);
        assert_eq!((three.burst, one.burst), (37_500, 12_500));
        assert_eq!(of(1, 200).burst, 1000, "a whole request");
        assert_eq!(rate_of_part(rate, Pods { here: 1, all: 200 }, 7).burst, 7000, "of its cost");
        assert_eq!(of(0, 0).burst, 50_000, "a pod that is no endpoint yet");
        let most =
            Rate { tokens: 1_000_000, interval: Duration::from_secs(86_400), burst: 1_000_000 };
        let huge = rate_of_part(most, Pods { here: 100_000, all: 200_000 }, 1);
        assert_eq!(huge.burst, 500_000_000);
    }
}
