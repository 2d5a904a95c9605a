//! A share of the requests, exact over short runs.

use std::sync::atomic::{AtomicU64, Ordering};

/// The range of the offset at which a share begins to be counted: wide enough that two agents seldom start alike, far from
/// overflow.
const TURN_RANGE: u64 = 1 << 32;

/// `numerator` of each `denominator` requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Share {
    pub numerator: u32,
    /// Never 0.
    pub denominator: u32,
}

impl Share {
    pub const ALL: Share = Share { numerator: 1, denominator: 1 };

    /// Whether the next request belongs to the share: over any `denominator` requests in a row exactly
    /// `numerator` do, evenly spread.
    pub fn takes(self, turn: &AtomicU64) -> bool {
        if self.numerator == 0 || self.numerator >= self.denominator {
            return self.numerator > 0;
        }
        let number = u128::from(turn.fetch_add(1, Ordering::Relaxed));
        let (numerator, denominator) = (u128::from(self.numerator), u128::from(self.denominator));
        (number + 1) * numerator / denominator > number * numerator / denominator
    }
}

/// A random start of the count.
pub fn turn() -> AtomicU64 {
    AtomicU64::new(fastrand::u64(..TURN_RANGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_share_is_taken() {
        for (numerator, denominator) in [(0, 100), (20, 100), (1, 3), (100, 100), (35, 100)] {
            let share = Share { numerator, denominator };
            let turn = AtomicU64::new(12_345);
            let taken = (0..3 * denominator).filter(|_| share.takes(&turn)).count();
            assert_eq!(taken as u32, 3 * numerator, "{share:?}");
        }
    }
}
