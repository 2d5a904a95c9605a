//! How much was done, for tests that promise how much that is. Costs nothing outside of them.

#[cfg(test)]
use std::{cell::RefCell, collections::BTreeMap};

#[cfg(test)]
thread_local! {
    static DONE: RefCell<BTreeMap<&'static str, usize>> = const { RefCell::new(BTreeMap::new()) };
}

/// Counts one piece of work of this kind.
#[inline]
pub fn did(what: &'static str) {
    #[cfg(test)]
    DONE.with_borrow_mut(|done| *done.entry(what).or_default() += 1);
    _ = what;
}

/// What this thread did since it was last asked, by kind.
#[cfg(test)]
pub fn take() -> BTreeMap<&'static str, usize> {
    DONE.take()
}
