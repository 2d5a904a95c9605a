//! Rules of Telemetry objects for the access log and the metrics of requests and connections. Records follow them.

use std::sync::Arc;

use super::access::Values;
use super::metric_set::MetricSet;
use super::{AccessFormat, MAX_FIELD, RecordSink, TagRules};
use crate::base::Str;
use crate::expression::Expression;
use crate::trace::Attribute;

/// The rules for one side of a call.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Rules {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Arc<AccessRules>>,
    /// The metrics that are not recorded.
    #[serde(skip_serializing_if = "MetricSet::is_empty")]
    pub disabled: MetricSet,
    /// Changes to the labels of the metrics of requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_tags: Option<Arc<TagRules>>,
    /// The same for connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_tags: Option<Arc<TagRules>>,
    /// Added to spans.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub span_tags: Vec<SpanTag>,
}

/// The access log.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct AccessRules {
    /// Nothing is logged.
    pub disabled: bool,
    /// Only these are logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Arc<Expression>>,
    /// Instead of the format of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Arc<AccessFormat>>,
    /// Collectors that get them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<Arc<RecordSink>>,
    /// The agent's log does not show them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub only_exports: bool,
}

/// A tag of spans whose value is a format of the access log.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SpanTag {
    pub name: Str,
    pub format: Arc<AccessFormat>,
}

impl SpanTag {
    /// The value is not longer than what the access log shows of a field.
    pub(super) fn attribute(&self, values: &dyn Values) -> Option<Attribute> {
        let value = self.format.value(values, MAX_FIELD);
        (!value.is_empty()).then(|| Attribute::text(&self.name, &value))
    }
}
