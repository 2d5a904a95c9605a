//! Size budgets on futures: what each connection and request costs in memory at rest.

/// Passes `future` on, and fails (in tests and debug builds) when its size exceeds `LIMIT` bytes.
/// A future that grows past its budget is memory that every idle connection holds.
#[inline(always)]
pub fn within_budget<const LIMIT: usize, F: Future>(future: F) -> F {
    const {
        assert!(size_of::<F>() <= LIMIT, "a future outgrew its size budget");
    }
    future
}
