//! Changes to the labels of metrics (a Telemetry's `tagOverrides`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::clamp::cut;
use super::metric_set::{Metric, MetricSet};
use crate::base::Str;
use crate::expression::{Expression, Facts};

/// The value of a label whose expression has none, as in Istio.
const UNKNOWN: Str = arcstr::literal!("unknown");

/// The changes to the metrics of requests, or to those of connections.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct TagRules {
    /// Metrics that have the same changes, and so the same series.
    pub(super) groups: Vec<TagGroup>,
    /// The expressions, each of which is evaluated once for a record.
    pub(super) values: Vec<Arc<Expression>>,
}

/// The changes that some metrics have.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(super) struct TagGroup {
    pub(super) metrics: MetricSet,
    pub(super) changes: BTreeMap<Str, TagChange>,
}

/// What becomes of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TagChange {
    Remove,
    /// To the value of this expression, by its place.
    Set(usize),
}

/// The changes of one metric by label; `None` removes the label.
pub type TagChanges = BTreeMap<Str, Option<Arc<Expression>>>;

impl TagRules {
    /// `None` if no label changes.
    pub fn of<'a>(metrics: impl Iterator<Item = (Metric, &'a TagChanges)>) -> Option<Arc<Self>> {
        let mut rules = Self::default();
        for (metric, changes) in metrics.filter(|(_, changes)| !changes.is_empty()) {
            let changes = changes
                .iter()
                .map(|(name, value)| (name.clone(), rules.change(value.as_ref())))
                .collect();
            match rules.groups.iter_mut().find(|group| group.changes == changes) {
                Some(group) => group.metrics = group.metrics.with(metric),
                None => {
                    let metrics = MetricSet::NONE.with(metric);
                    rules.groups.push(TagGroup { metrics, changes });
                }
            }
        }
        (!rules.groups.is_empty()).then(|| Arc::new(rules))
    }

    fn change(&mut self, value: Option<&Arc<Expression>>) -> TagChange {
        let Some(value) = value else { return TagChange::Remove };
        let known = self.values.iter().position(|known| known == value);
        TagChange::Set(known.unwrap_or_else(|| {
            self.values.push(value.clone());
            self.values.len() - 1
        }))
    }

    /// The values of the expressions. `facts` has those of the expression at a place.
    pub(super) fn evaluate<F: Facts>(&self, facts: impl Fn(usize) -> F) -> Vec<Str> {
        let values = self.values.iter().enumerate();
        let value = values.map(|(place, expression)| expression.text(&facts(place)));
        value.map(|value| value.map_or(UNKNOWN, |value| cut(&value).into())).collect()
    }
}
