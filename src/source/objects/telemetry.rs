//! Telemetry (Istio `telemetry.istio.io/v1`).

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::{AttachedTo, Resource, TargetRef, WorkloadSelector};
use crate::expression::{Expression, ExpressionError};

pub type Telemetry = Resource<TelemetrySpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TelemetrySpec {
    #[serde(default)]
    pub selector: Option<WorkloadSelector>,
    /// The older form with one target.
    #[serde(default)]
    pub target_ref: Option<TargetRef>,
    #[serde(default)]
    pub target_refs: Vec<TargetRef>,
    #[serde(default)]
    pub tracing: Vec<Tracing>,
    #[serde(default)]
    pub metrics: Vec<Metrics>,
    #[serde(default)]
    pub access_logging: Vec<AccessLogging>,
}

impl TelemetrySpec {
    pub fn attached_to(&self) -> AttachedTo<'_> {
        let (selector, target_ref) = (self.selector.as_ref(), self.target_ref.as_ref());
        AttachedTo { selector, target_ref, target_refs: &self.target_refs }
    }
}

/// `Tracing`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    #[serde(default, rename = "match")]
    pub of: Option<ModeMatch>,
    #[serde(default)]
    pub providers: Vec<ProviderRef>,
    /// 0 to 100.
    #[serde(default)]
    pub random_sampling_percentage: Option<f64>,
    #[serde(default)]
    pub disable_span_reporting: Option<bool>,
    #[serde(default)]
    pub custom_tags: Option<BTreeMap<String, CustomTag>>,
    #[serde(default)]
    pub use_request_id_for_trace_sampling: Option<bool>,
    #[serde(default)]
    pub enable_istio_tags: Option<bool>,
    #[serde(default)]
    pub disable_context_propagation: Option<bool>,
}

/// `Tracing.TracingSelector` and `AccessLogging.LogSelector`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeMatch {
    #[serde(default)]
    pub mode: WorkloadMode,
}

/// `WorkloadMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkloadMode {
    #[default]
    ClientAndServer,
    Client,
    Server,
}

impl WorkloadMode {
    pub fn is_client(self) -> bool {
        self != WorkloadMode::Server
    }

    pub fn is_server(self) -> bool {
        self != WorkloadMode::Client
    }
}

/// `ProviderRef`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderRef {
    pub name: String,
}

/// `Tracing.CustomTag`: one of these.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomTag {
    #[serde(default)]
    pub literal: Option<Text>,
    #[serde(default)]
    pub environment: Option<NamedValue>,
    #[serde(default)]
    pub header: Option<NamedValue>,
    /// Command operators, as in the format of an access log.
    #[serde(default)]
    pub formatter: Option<Text>,
}

/// A literal or a format.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    pub value: String,
}

/// An environment variable or a header.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedValue {
    pub name: String,
    #[serde(default)]
    pub default_value: Option<String>,
}

/// `Metrics`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metrics {
    #[serde(default)]
    pub providers: Vec<ProviderRef>,
    #[serde(default)]
    pub overrides: Vec<MetricsOverride>,
    #[serde(default)]
    pub reporting_interval: Option<String>,
}

/// `MetricsOverrides`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetricsOverride {
    #[serde(default, rename = "match")]
    pub of: Option<MetricMatch>,
    #[serde(default)]
    pub disabled: Option<bool>,
    #[serde(default)]
    pub tag_overrides: BTreeMap<String, TagOverride>,
}

/// `MetricSelector`: one metric of Istio's or another, in these modes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetricMatch {
    #[serde(default)]
    pub metric: Option<IstioMetric>,
    #[serde(default)]
    pub custom_metric: Option<String>,
    #[serde(default)]
    pub mode: WorkloadMode,
}

/// `MetricSelector.IstioMetric`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum IstioMetric {
    #[default]
    AllMetrics,
    RequestCount,
    RequestDuration,
    RequestSize,
    ResponseSize,
    TcpOpenedConnections,
    TcpClosedConnections,
    TcpSentBytes,
    TcpReceivedBytes,
    GrpcRequestMessages,
    GrpcResponseMessages,
}

/// `MetricsOverrides.TagOverride`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagOverride {
    #[serde(default)]
    pub operation: TagOperation,
    #[serde(default, deserialize_with = "weighed")]
    pub value: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TagOperation {
    #[default]
    Upsert,
    Remove,
}

/// `AccessLogging`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLogging {
    #[serde(default, rename = "match")]
    pub of: Option<ModeMatch>,
    #[serde(default)]
    pub providers: Vec<ProviderRef>,
    #[serde(default)]
    pub disabled: Option<bool>,
    #[serde(default)]
    pub filter: Option<LogFilter>,
}

/// `AccessLogging.Filter`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogFilter {
    /// CEL.
    #[serde(default, deserialize_with = "weighed_text")]
    pub expression: String,
}

/// A text in CEL: its regular expressions are counted as the object's. Whatever else is wrong with it is told where it is translated.
fn weighed<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    let has_some = text.as_ref().filter(|text| text.contains("matches"));
    match has_some.map(|text| Expression::parse(text)) {
        Some(Err(error @ ExpressionError::Budget(_))) => Err(D::Error::custom(error)),
        _ => Ok(text),
    }
}

fn weighed_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    weighed(from).map(Option::unwrap_or_default)
}
