//! Many selectors, asked which of them select a set of labels: without an index, every pod would be held against every
//! selector of its namespace.

use std::collections::{BTreeMap, HashMap};

use crate::source::objects::{Service, selects};

type Labels = BTreeMap<String, String>;

/// So few are compared one by one.
const FEW: usize = 2;

/// Selectors with what they stand for. None of them is empty: what that would mean differs from kind to kind.
#[derive(Debug)]
pub(super) struct Selectors<T> {
    all: Vec<(Labels, T)>,
    /// By one pair of each selector, label then value: the places in `all`. It is the rarest of its pairs, so that a
    /// pair which all selectors share does not lead to all of them.
    anchors: HashMap<String, HashMap<String, Vec<usize>>>,
}

impl<T> Default for Selectors<T> {
    fn default() -> Self {
        Self { all: Vec::new(), anchors: HashMap::new() }
    }
}

/// The index follows from the rest.
impl<T: PartialEq> PartialEq for Selectors<T> {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl<T> FromIterator<(Labels, T)> for Selectors<T> {
    fn from_iter<I: IntoIterator<Item = (Labels, T)>>(selectors: I) -> Self {
        let all: Vec<_> = selectors.into_iter().filter(|(labels, _)| !labels.is_empty()).collect();
        let mut anchors: HashMap<String, HashMap<String, Vec<usize>>> = HashMap::new();
        if all.len() > FEW {
            let mut frequency: HashMap<(&String, &String), usize> = HashMap::new();
            for pair in all.iter().flat_map(|(labels, _)| labels) {
                *frequency.entry(pair).or_default() += 1;
            }
            for (at, (labels, _)) in all.iter().enumerate() {
                let rarest = labels.iter().min_by_key(|pair| frequency.get(pair).copied());
                let Some((label, value)) = rarest else { continue };
                let of_label = anchors.entry(label.clone()).or_default();
                of_label.entry(value.clone()).or_default().push(at);
            }
        }
        Self { all, anchors }
    }
}

impl<T> Selectors<T> {
    /// What selects these labels, in the order of the selectors.
    pub(super) fn selecting(&self, labels: Option<&Labels>) -> Vec<&T> {
        let Some(labels) = labels else { return Vec::new() };
        let fits = |it: &&(Labels, T)| selects(&it.0, Some(labels));
        if self.all.len() <= FEW {
            return self.all.iter().filter(fits).map(|(_, of)| of).collect();
        }
        let candidates = labels.iter().filter_map(|(label, value)| {
            let of_label = self.anchors.get(label)?;
            of_label.get(value)
        });
        let mut found: Vec<usize> = candidates.flatten().copied().collect();
        found.sort_unstable();
        let found = found.into_iter().filter_map(|at| self.all.get(at));
        found.filter(fits).map(|(_, of)| of).collect()
    }
}

/// The selector of a Service, when there is one that selects at all.
pub(super) fn selector(service: &Service) -> Option<&Labels> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_index_finds_what_comparing_finds(
            selectors in prop::collection::vec(prop::collection::btree_map("[a-c]", "[x-z]", 0..3), 0..9),
            labels in prop::collection::btree_map("[a-c]", "[x-z]", 0..4),
        ) {
            let numbered = selectors.iter().cloned().zip(0..);
            let index: Selectors<usize> = numbered.collect();
            let found: Vec<usize> = index.selecting(Some(&labels)).into_iter().copied().collect();
            let compared = selectors.iter().enumerate().filter(|(_, selector)| {
                !selector.is_empty() && selects(selector, Some(&labels))
            });
            prop_assert_eq!(found, compared.map(|(at, _)| at).collect::<Vec<_>>());
        }
    }
}
