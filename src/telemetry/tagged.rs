//! Series whose labels a Telemetry changes. They are apart from the others, whose look-up stays as cheap as it is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use papaya::Equivalent;

use super::budget::{Budget, Charged};
use super::clamp::{OTHER, fits};
use super::exposition::{Pairs, WriteLabels};
use super::labels::{Labels, OwnedLabels};
use super::series::{Counts, Fold, Series, SeriesLabels, SeriesMap, Shown};
use super::tags::{TagChange, TagGroup};
use crate::base::Str;

/// The series of some metrics: with the usual labels, and with others.
pub(super) struct Labelled<V> {
    plain: SeriesMap<OwnedLabels, V>,
    tagged: SeriesMap<TagSet, V>,
}

/// The labels of a sample, and how they change: by a group's changes, with values of its rules.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) labels: Labels<'a>,
    pub(super) changed: Option<(&'a TagGroup, &'a [Str])>,
}

impl<V: Counts> Labelled<V> {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self { plain: SeriesMap::new(budget), tagged: SeriesMap::new(budget) }
    }

    /// The series of a sample. Without room it is one of those of two namespaces, with the usual labels.
    pub(super) fn get(&self, Wanted { labels, changed }: &Wanted<'_>) -> Arc<Series<V>> {
        let Some((group, values)) = changed else { return self.plain.get(labels) };
        if let Some(plain) = as_plain(labels, group, values) {
            let charged = Some(labels.charged());
            return self.plain.get(&Labels { charged, ..plain.borrow() });
        }
        let tagged = Tagged::new(labels, group, values);
        self.tagged.find(&tagged).unwrap_or_else(|| self.plain.folded(labels))
    }

    pub(super) fn sweep(&self) {
        self.plain.sweep();
        self.tagged.sweep();
    }

    pub(super) fn all(&self) -> Vec<Shown<dyn WriteLabels, V>> {
        let plain = self.plain.all().into_iter();
        let plain = plain.map(|(labels, series)| (labels as Arc<dyn WriteLabels>, series));
        let tagged = self.tagged.all().into_iter();
        plain
            .chain(tagged.map(|(labels, series)| (labels as Arc<dyn WriteLabels>, series)))
            .collect()
    }
}

/// The changed labels as those of a usual series, where one can have them: a set of labels is one series, since scrapers reject
/// two.
fn as_plain(labels: &Labels<'_>, group: &TagGroup, values: &[Str]) -> Option<OwnedLabels> {
    let mut plain: Option<OwnedLabels> = None;
    for (name, change) in &group.changes {
        let value = change.value(values)?;
        if !plain.get_or_insert_with(|| labels.own()).set(name, value) {
            return None;
        }
    }
    plain
}

impl TagChange {
    /// `None` if the label is removed.
    fn value<'a>(&self, values: &'a [Str]) -> Option<&'a Str> {
        match self {
            TagChange::Remove => None,
            TagChange::Set(place) => values.get(*place),
        }
    }
}

/// Labels as pairs, in the usual order; those that were added follow by name.
struct Tagged<'a> {
    pairs: Vec<(&'a str, Cow<'a, str>)>,
    charged: Charged<'a>,
}

/// [`Tagged`] as the key of a series.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct TagSet(Vec<(Str, Str)>);

impl<'a> Tagged<'a> {
    fn new(labels: &'a Labels<'a>, group: &'a TagGroup, values: &'a [Str]) -> Self {
        let mut added: BTreeMap<&str, &Str> = BTreeMap::new();
        for (name, change) in &group.changes {
            if let Some(value) = change.value(values) {
                added.insert(name, value);
            }
        }
        let mut pairs = Vec::with_capacity(32);
        labels.each(|key, value| match added.remove(key) {
            Some(value) => pairs.push((key, Cow::Borrowed(value.as_str()))),
            None if group.changes.contains_key(key) => {}
            None => pairs.push((key, value)),
        });
        pairs.extend(added.into_iter().map(|(name, value)| (name, Cow::Borrowed(value.as_str()))));
        Self { pairs, charged: labels.charged() }
    }
}

impl SeriesLabels for Tagged<'_> {
    type Owned = TagSet;

    fn own(&self) -> TagSet {
        TagSet(
            self.pairs.iter().map(|(key, value)| (Str::from(*key), Str::from(&**value))).collect(),
        )
    }

    fn charged(&self) -> Charged<'_> {
        self.charged
    }

    fn fit(&self) -> bool {
        self.pairs.iter().all(|(_, value)| fits(value))
    }

    fn folded(&self, _: Fold) -> TagSet {
        TagSet(self.pairs.iter().map(|(key, _)| (Str::from(*key), OTHER.into())).collect())
    }
}

/// As the derived one of [`TagSet`].
impl Hash for Tagged<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.pairs.len());
        for (key, value) in &self.pairs {
            (*key, &**value).hash(state);
        }
    }
}

impl Equivalent<Arc<TagSet>> for Tagged<'_> {
    fn equivalent(&self, key: &Arc<TagSet>) -> bool {
        let TagSet(key) = &**key;
        let mut pairs = self.pairs.iter().zip(key);
        self.pairs.len() == key.len() && pairs.all(|(own, key)| own.0 == key.0 && own.1 == *key.1)
    }
}

impl WriteLabels for TagSet {
    fn write(&self, pairs: &mut Pairs<'_>) {
        self.0.iter().for_each(|(key, value)| pairs.put(key, value));
    }

    /// It has the labels of some metrics only.
    fn hides_zero(&self) -> bool {
        true
    }
}
