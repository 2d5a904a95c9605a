//! Series whose labels a Telemetry changes. They are apart from the others, whose look-up stays as cheap as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use papaya::Equivalent;

use super::budget::{Budget, SERIES_BYTES};
use super::exposition::{Pairs, WriteLabels};
use super::labels::{Labels, OwnedLabels};
use super::series::{Counts, Series, SeriesLabels, SeriesMap, Shown};
use super::tags::{TagChange, TagGroup};
use crate::base::Str;

/// The longest labels of a series, in bytes. The rest of what a series may take is for its counters.
const MOST: usize = SERIES_BYTES - 1024;

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
        let text = written(labels, group, values);
        let tagged = (labels.fit() && text.len() <= MOST).then(|| {
            let own = || TagSet(text.as_str().into());
            self.tagged.within_budget(&Written(&text), labels.charged(), own)
        });
        tagged.flatten().unwrap_or_else(|| self.plain.folded(labels))
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

/// The labels as the scraper sees them, in the usual order; those that were added follow by name. The same labels are the same text.
fn written(labels: &Labels<'_>, group: &TagGroup, values: &[Str]) -> String {
    let mut set: BTreeMap<&str, &Str> = BTreeMap::new();
    for (name, change) in &group.changes {
        if let Some(value) = change.value(values) {
            set.insert(name, value);
        }
    }
    let mut text = String::with_capacity(1024);
    let mut pairs = Pairs::new(&mut text);
    labels.each(|key, value| match set.remove(key) {
        Some(value) => pairs.put(key, value),
        None if group.changes.contains_key(key) => {}
        None => pairs.put(key, &value),
    });
    set.into_iter().for_each(|(name, value)| pairs.put(name, value));
    text
}

/// The labels of a series as text, which takes less memory than a list of so many.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct TagSet(Box<str>);

/// [`TagSet`] where it is looked up.
#[derive(Hash)]
struct Written<'a>(&'a str);

impl Equivalent<Arc<TagSet>> for Written<'_> {
    fn equivalent(&self, key: &Arc<TagSet>) -> bool {
        *self.0 == *key.0
    }
}

impl WriteLabels for TagSet {
    fn write(&self, pairs: &mut Pairs<'_>) {
        pairs.put_written(&self.0);
    }

    /// It has the labels of some metrics only.
    fn hides_zero(&self) -> bool {
        true
    }
}
