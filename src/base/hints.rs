//! Which values may be filed under a key, found by the key's hash alone.

use std::hash::{BuildHasher, Hasher};
use std::ops::ControlFlow;

use super::fast::Seeded;

/// Values by the hashes of their keys, without the keys. A look-up reads one cache line mostly, compares no text, and once in
/// 2^64 shows a value of another key: for whoever compares in any case.
///
/// Keys are literals of objects, whose authors do not know the seed; what clients bring is looked up only.
#[derive(Clone, Debug)]
pub struct Hints<T> {
    seed: Seeded,
    /// None, or a power of two, at least four times as many as values: most searches for what is not there end at the first.
    slots: Box<[Slot<T>]>,
    filed: usize,
}

/// What is filed, and looked up. Those of one table are all of one kind.
#[derive(Clone, Copy, Debug)]
pub enum Key<'a> {
    Bytes(&'a [u8]),
    Texts(&'a str, &'a str),
    Number(u64),
    Numbers(u128, u128),
}

/// Of a hash of zero: none.
#[derive(Clone, Copy, Debug, Default)]
struct Slot<T> {
    hash: u64,
    value: T,
}

/// Slots of a table with one value.
const FEWEST: usize = 4;

impl<T> Default for Hints<T> {
    fn default() -> Self {
        Self { seed: Seeded::default(), slots: Box::default(), filed: 0 }
    }
}

impl<T: Copy + Default> Hints<T> {
    pub fn is_empty(&self) -> bool {
        self.filed == 0
    }

    /// Files one more value under a key.
    pub fn file(&mut self, key: Key<'_>, value: T) {
        if self.slots.len() < 4 * (self.filed + 1) {
            let size = (2 * self.slots.len()).max(FEWEST);
            let before = std::mem::replace(&mut self.slots, vec![Slot::default(); size].into());
            before.into_iter().filter(|slot| slot.hash != 0).for_each(|slot| self.place(slot));
        }
        self.place(Slot { hash: self.hash(key), value });
        self.filed += 1;
    }

    fn place(&mut self, slot: Slot<T>) {
        let mut at = self.start(slot.hash);
        while self.slots[at].hash != 0 {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = slot;
    }

    /// Shows what may be filed under the key, in no particular order, until `see` breaks off.
    #[inline]
    pub fn find(&self, key: Key<'_>, mut see: impl FnMut(T) -> ControlFlow<()>) -> ControlFlow<()> {
        if self.slots.is_empty() {
            return ControlFlow::Continue(());
        }
        let hash = self.hash(key);
        let mut at = self.start(hash);
        while let Some(slot) = self.slots.get(at)
            && slot.hash != 0
        {
            if slot.hash == hash {
                see(slot.value)?;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        ControlFlow::Continue(())
    }

    #[inline(always)]
    fn start(&self, hash: u64) -> usize {
        // Any bits of the hash do.
        hash as usize & self.slots.len().wrapping_sub(1)
    }

    #[inline(always)]
    fn hash(&self, key: Key<'_>) -> u64 {
        let mut hasher = self.seed.build_hasher();
        match key {
            Key::Bytes(bytes) => hasher.write(bytes),
            Key::Texts(first, second) => {
                hasher.write(first.as_bytes());
                hasher.write(second.as_bytes());
            }
            Key::Number(number) => hasher.write_u64(number),
            Key::Numbers(first, second) => {
                hasher.write_u128(first);
                hasher.write_u128(second);
            }
        }
        hasher.finish().max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(hints: &Hints<u32>, key: Key<'_>) -> Vec<u32> {
        let mut found = Vec::new();
        let _ = hints.find(key, |value| {
            found.push(value);
            ControlFlow::Continue(())
        });
        // In no particular order.
        found.sort_unstable();
        found
    }

    #[test]
    fn an_empty_one_has_nothing() {
        let hints = Hints::default();
        assert!(hints.is_empty());
        assert!(found(&hints, Key::Bytes(b"")).is_empty());
    }

    #[test]
    fn a_search_ends_where_it_is_broken_off() {
        let mut hints = Hints::default();
        (0..3).for_each(|value| hints.file(Key::Bytes(b"a"), value));
        assert_eq!(found(&hints, Key::Bytes(b"a")), [0, 1, 2]);
        let mut seen = 0;
        let ended = hints.find(Key::Bytes(b"a"), |_: u32| {
            seen += 1;
            ControlFlow::Break(())
        });
        assert_eq!((ended, seen), (ControlFlow::Break(()), 1));
    }

    proptest! {
        /// All that is filed under a key is found, and nothing else: a false hit has the probability 2^-64.
        #[test]
        fn what_is_filed_is_found(keys in proptest::collection::vec("[ab]{0,20}", 0..60), other in "[ab]{0,20}") {
            let mut texts = Hints::default();
            let mut pairs = Hints::default();
            let mut numbers = Hints::default();
            let number = |key: &str| key.bytes().fold(1u128, |sum, byte| sum << 5 | u128::from(byte & 31));
            for (key, value) in keys.iter().zip(0u32..) {
                texts.file(Key::Bytes(key.as_bytes()), value);
                pairs.file(Key::Texts(key, "b"), value);
                numbers.file(Key::Numbers(number(key), 7), value);
            }
            for key in keys.iter().chain([&other]) {
                let expected: Vec<u32> = keys.iter().zip(0u32..).filter(|(it, _)| *it == key).map(|(_, at)| at).collect();
                prop_assert_eq!(found(&texts, Key::Bytes(key.as_bytes())), expected.clone());
                prop_assert_eq!(found(&pairs, Key::Texts(key, "b")), expected.clone());
                prop_assert_eq!(found(&numbers, Key::Numbers(number(key), 7)), expected);
                prop_assert!(found(&pairs, Key::Texts(key, "a")).is_empty());
                prop_assert!(found(&numbers, Key::Numbers(number(key), 8)).is_empty());
            }
        }
    }

    /// However alike literals are, no search becomes long. By chance one of some 80 slots does in one of a million tables.
    #[test]
    fn literals_that_are_alike_do_not_crowd() {
        let kinds: [fn(u32) -> String; 4] = [
            |number| format!("{number}"),
            |number| format!("/items/{number}/reviews"),
            |number| format!("{number:0>200}"),
            |number| "x".repeat(number as usize % 2_000) + &number.to_string(),
        ];
        for kind in kinds {
            let mut hints = Hints::default();
            (0..4_000).for_each(|number| hints.file(Key::Bytes(kind(number).as_bytes()), number));
            let runs = hints.slots.split(|slot| slot.hash == 0).map(<[_]>::len);
            let longest = runs.max().unwrap_or_default();
            assert!(longest < 120, "{longest} slots in a row for {}", kind(0));
        }
    }
}
