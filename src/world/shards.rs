//! Maps that are cheap to copy with a few changes.
//!
//! A world has tens of thousands of entries, and the next one differs in a few of them. The entries are spread over
//! shards that both share; a change copies one shard.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

/// With thirty thousand entries a shard has some hundred, which are copied in microseconds; incrementing the shards'
/// reference counts is just as fast.
const PARTS: usize = 256;

#[derive(Clone)]
pub(super) struct Shards<K, V> {
    hasher: RandomState,
    parts: Vec<Arc<HashMap<K, V>>>,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), parts: vec![Arc::default(); PARTS] }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.parts.get(self.place(key))?.get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        let place = self.place(&key);
        if let Some(part) = self.parts.get_mut(place) {
            Arc::make_mut(part).insert(key, value);
        }
    }

    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let place = self.place(key);
        if let Some(part) = self.parts.get_mut(place).filter(|part| part.contains_key(key)) {
            Arc::make_mut(part).remove(key);
        }
    }

    /// Changes the value of `key`, or of a new default one.
    pub(super) fn change(&mut self, key: &K, change: impl FnOnce(&mut V))
    where
        V: Default,
    {
        let place = self.place(key);
        if let Some(part) = self.parts.get_mut(place) {
            change(Arc::make_mut(part).entry(key.clone()).or_default());
        }
    }

    fn place<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        // Any bits do: the maps use their own hash keys.
        usize::try_from(self.hasher.hash_one(key)).map_or(0, |hash| hash % PARTS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn a_copy_does_not_change_what_it_was_made_of(
            steps in prop::collection::vec((0u16..60, prop::option::of(any::<u8>())), 0..60),
        ) {
            let mut worlds = vec![(Shards::default(), HashMap::new())];
            for (key, value) in steps {
                let (mut shards, mut plain) = worlds.last().unwrap().clone();
                match value {
                    Some(value) => {
                        shards.insert(key, value);
                        plain.insert(key, value);
                    }
                    None => {
                        shards.remove(&key);
                        plain.remove(&key);
                    }
                }
                worlds.push((shards, plain));
            }
            for (shards, plain) in &worlds {
                for key in 0..60 {
                    prop_assert_eq!(shards.get(&key), plain.get(&key));
                }
            }
        }
    }
}
