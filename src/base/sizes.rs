//! Size budgets of futures: the memory that each connection and request costs at rest.

/// Passes `future` on, and fails (in tests and debug builds) if its size exceeds `LIMIT` bytes. Every idle connection
/// holds the size of its future.
#[inline(always)]
pub fn within_budget<const LIMIT: usize, F: Future>(future: F) -> F {
    const {
        assert!(size_of::<F>() <= LIMIT, "a future outgrew its size budget");
    }
    future
}
