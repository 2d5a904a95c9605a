//! Weighted backends, exact and without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::{Backend, HttpRule, StreamRoute};

/// The index of the backend of the next request; `None` if the rule has none or all weights are zero.
pub fn next_backend(rule: &HttpRule) -> Option<usize> {
    next_of(&rule.backends, &rule.turn)
}

/// The backend of the next connection; `None` as above.
pub fn next_backend_of_stream(route: &StreamRoute) -> Option<&Backend> {
    route.backends.get(next_of(&route.backends, &route.turn)?)
}

/// Each request takes the next number. A backend of weight `w` out of `total` takes request `n` when
/// `(n + 1) * w / total` steps over a whole number; the remaining requests are renumbered and split among the other
/// backends in the same way. So over any `total / gcd` requests in a row every backend gets exactly its share, evenly spread, on each node.
fn next_of(backends: &[Backend], turn: &AtomicU64) -> Option<usize> {
    let mut total: u128 = backends.iter().map(|backend| u128::from(backend.weight)).sum();
    if total == 0 {
        return None;
    }
    // A single backend needs no number: all threads share the counter.
    let takes_all = |weight: u32| u128::from(weight) == total;
    if let Some(only) = backends.iter().position(|backend| takes_all(backend.weight)) {
        return Some(only);
    }
    let mut number = u128::from(turn.fetch_add(1, Ordering::Relaxed));
    for (index, backend) in backends.iter().enumerate() {
        let weight = u128::from(backend.weight);
        let before = number * weight / total;
        let after = (number + 1) * weight / total;
        if after > before {
            return Some(index);
        }
        number -= after;
        total -= weight;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::base::ObjectKey;
    use crate::filter::BackendRef;

    fn rule(weights: &[u32], turn: u64) -> HttpRule {
        let backend = |(index, weight): (usize, &u32)| Backend {
            weight: *weight,
            target: BackendRef::Service { service: ObjectKey::new("ns", "s"), port: index as u16 },
            subset: None,
            filters: Vec::new(),
        };
        HttpRule {
            backends: weights.iter().enumerate().map(backend).collect(),
            turn: Arc::new(AtomicU64::new(turn)),
            ..HttpRule::default()
        }
    }

    fn count(rule: &HttpRule, requests: u32) -> HashMap<usize, u32> {
        let mut counts = HashMap::new();
        for index in (0..requests).filter_map(|_| next_backend(rule)) {
            *counts.entry(index).or_default() += 1;
        }
        counts
    }

    #[test]
    fn ninety_ten_is_exact_over_any_hundred() {
        for start in [0, 1, 7, 99, 12_345] {
            let counts = count(&rule(&[90, 10], start), 100);
            assert_eq!(counts, HashMap::from([(0, 90), (1, 10)]), "from {start}");
        }
    }

    #[test]
    fn evenly_spread() {
        let rule = rule(&[50, 30, 20], 0);
        let turns: Vec<usize> = (0..1000).filter_map(|_| next_backend(&rule)).collect();
        for start in 0..990 {
            let mut counts = [0; 3];
            turns[start..start + 10].iter().for_each(|index| counts[*index] += 1);
            assert_eq!(counts, [5, 3, 2], "from {start}");
        }
    }

    #[test]
    fn the_largest_weights_are_exact() {
        let rule = rule(&[1_000_000, 1, 999_999, 0], u64::MAX - 4_000_000);
        let counts = count(&rule, 2_000_000);
        assert_eq!(counts, HashMap::from([(0, 1_000_000), (1, 1), (2, 999_999)]));
    }

    #[test]
    fn nothing_to_choose() {
        assert!(next_backend(&rule(&[], 0)).is_none());
        assert!(next_backend(&rule(&[0, 0], 0)).is_none());
    }

    proptest! {
        #[test]
        fn every_window_has_the_exact_shares(
            weights in proptest::collection::vec(0u32..20, 1..6),
            start in 0u64..1_000_000,
        ) {
            let total: u32 = weights.iter().sum();
            let counts = count(&rule(&weights, start), total);
            for (index, weight) in weights.iter().enumerate() {
                prop_assert_eq!(counts.get(&index).copied().unwrap_or(0), *weight);
            }
        }
    }
}
