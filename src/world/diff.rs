//! What was added and removed between two states, compared by pointer: sources share what did not change.

use std::sync::Arc;

/// One list compared with its predecessor.
pub(super) struct Diff<'a, T> {
    pub(super) gone: Vec<&'a Arc<T>>,
    pub(super) come: Vec<&'a Arc<T>>,
}

impl<'a, T> Diff<'a, T> {
    /// Both in the order of `key`. In another order more than the changes is reported, as added and removed at once;
    /// never less.
    /// less.
    pub(super) fn between<K: Ord>(
        old: &'a [Arc<T>],
        new: &'a [Arc<T>],
        key: impl Fn(&'a T) -> K,
    ) -> Self {
        let mut diff = Diff { gone: Vec::new(), come: Vec::new() };
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (Some(one), Some(other)) if Arc::ptr_eq(one, other) => {
                    old.next();
                    new.next();
                }
                (Some(one), Some(other)) if key(one) <= key(other) => diff.gone.extend(old.next()),
                (_, Some(_)) => diff.come.extend(new.next()),
                (Some(_), None) => diff.gone.extend(old.next()),
                (None, None) => return diff,
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.come.is_empty()
    }
}

/// Whether both hold the very same objects.
pub(super) fn are_shared<T>(old: &[Arc<T>], new: &[Arc<T>]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(one, other)| Arc::ptr_eq(one, other))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_told_leads_from_one_to_the_other(
            old in prop::collection::vec(0u8..40, 0..20),
            new in prop::collection::vec(0u8..40, 0..20),
            sorted in any::<bool>(),
        ) {
            let all: Vec<Arc<u8>> = (0..40).map(Arc::new).collect();
            let take = |mut numbers: Vec<u8>| -> Vec<Arc<u8>> {
                if sorted {
                    numbers.sort_unstable();
                }
                numbers.into_iter().map(|number| all[usize::from(number)].clone()).collect()
            };
            let (old, new) = (take(old), take(new));
            let diff = Diff::between(&old, &new, |number| *number);
            let mut led: Vec<u8> = old.iter().map(|it| **it).collect();
            for gone in &diff.gone {
                led.swap_remove(led.iter().position(|it| *it == ***gone).unwrap());
            }
            led.extend(diff.come.iter().map(|it| ***it));
            let mut there: Vec<u8> = new.iter().map(|it| **it).collect();
            led.sort_unstable();
            there.sort_unstable();
            prop_assert_eq!(led, there);
            prop_assert!(!diff.is_empty() || are_shared(&old, &new));
        }
    }
}
