//! A set of small numbers. An empty one takes no memory beyond itself.

/// Numbers, each as one bit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bits(Box<[u64]>);

impl Bits {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, number: u32) -> bool {
        let word = usize::try_from(number / u64::BITS).ok().and_then(|at| self.0.get(at));
        word.is_some_and(|word| word >> (number % u64::BITS) & 1 == 1)
    }

    /// The numbers, the least first.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let words = (0u32..).zip(self.0.iter());
        words.flat_map(|(at, word)| {
            let set = (0..u64::BITS).filter(move |bit| word >> bit & 1 == 1);
            set.map(move |bit| at * u64::BITS + bit)
        })
    }
}

impl FromIterator<u32> for Bits {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let mut words: Vec<u64> = Vec::new();
        for number in numbers {
            let at = (number / u64::BITS) as usize;
            if at >= words.len() {
                words.resize(at + 1, 0);
            }
            words[at] |= 1 << (number % u64::BITS);
        }
        Self(words.into())
    }
}

impl serde::Serialize for Bits {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(numbers in prop::collection::btree_set(0u32..300, 0..20), asked in 0u32..400) {
            let bits: Bits = numbers.iter().copied().collect();
            prop_assert_eq!(bits.contains(asked), numbers.contains(&asked));
            prop_assert_eq!(bits.iter().collect::<BTreeSet<_>>(), numbers.clone());
            prop_assert_eq!(bits.is_empty(), numbers.is_empty());
        }
    }
}
