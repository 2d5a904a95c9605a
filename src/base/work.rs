//! Counts operations, for tests that bound them. Costs nothing outside tests.

#[cfg(test)]
use std::{cell::RefCell, collections::BTreeMap};

#[cfg(test)]
thread_local! {
    static DONE: RefCell<BTreeMap<&'static str, usize>> = const { RefCell::new(BTreeMap::new()) };
}

/// Counts one operation of this kind.
#[inline]
pub fn did(what: &'static str) {
    #[cfg(test)]
    DONE.with_borrow_mut(|done| *done.entry(what).or_default() += 1);
    _ = what;
}

/// The operations of this thread since the last call, by kind.
#[cfg(test)]
pub fn take() -> BTreeMap<&'static str, usize> {
    DONE.take()
}
