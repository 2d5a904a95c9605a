//! `[observe]`: what an agent remembers of connections and requests.

use std::ops::RangeInclusive;

/// 0 turns the memory off.
const FLOWS: RangeInclusive<usize> = 0..=1_000_000;
const PAIRS: RangeInclusive<usize> = 0..=100_000;

section! {
    /// `[observe]`
    pub struct ObserveSettings in "observe." {
        /// How many recent connections and requests the agent remembers, for `isthmus observe`; 0 remembers none, and new ones can
        /// still be followed.
        flows: usize = 4_096, number(FLOWS),
            because "Some 0.7 KiB each, 2.5 KiB at the worst; enough to see what just happened.";

        /// For how many pairs of workloads and what they call (by port, method, route and verdict) the agent counts the last
        /// hour, for `isthmus observe --summary` and `isthmus top`; beyond it, the least recently seen ones go. 0 counts none.
        pairs: usize = 2_048, number(PAIRS),
            because "Some 1 KiB each, 3 KiB at the worst; a node with 100 pods that call 10 services each by two methods.";
    }
}
