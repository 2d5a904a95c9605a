//! XTelemetryPolicy (Gateway API v1.7.0, `gateway.networking.x-k8s.io/v1alpha1`, GEP-4768): how the requests of a Gateway are traced.

use serde::Deserialize;

use super::{Resource, TargetRef};
use crate::filter::BackendObject;

pub type XTelemetryPolicy = Resource<TelemetryPolicySpec>;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TelemetryPolicySpec {
    pub target_refs: Vec<TargetRef>,
    #[serde(default)]
    pub tracing: Option<GatewayTracing>,
}

/// `TracingConfig`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayTracing {
    #[serde(default)]
    pub mode: PolicyMode,
    #[serde(default)]
    pub provider: Option<TracingProvider>,
    #[serde(default)]
    pub sampling_rate: Option<Fraction>,
    #[serde(default)]
    pub parent_based_sampling: Option<ParentBasedSampling>,
    #[serde(default)]
    pub service_name: Option<String>,
    #[serde(default)]
    pub span_name: Option<String>,
    #[serde(default)]
    pub attributes: Vec<SpanAttribute>,
}

/// `TracingMode` and `ParentBasedSamplingMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PolicyMode {
    Enabled,
    Disabled,
    #[default]
    ImplementationDefault,
}

/// `TracingProvider`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracingProvider {
    pub backend_ref: BackendObject,
    #[serde(default)]
    pub headers: Vec<ExportHeader>,
}

/// `HTTPHeader`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportHeader {
    pub name: String,
    pub value: String,
}

/// `Fraction`: of a hundred, unless it says otherwise.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fraction {
    pub numerator: u32,
    #[serde(default = "hundred")]
    pub denominator: u32,
}

fn hundred() -> u32 {
    100
}

/// `ParentBasedSampling`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentBasedSampling {
    #[serde(default)]
    pub mode: PolicyMode,
    #[serde(default)]
    pub sampling_rate: Option<Fraction>,
}

/// `Attribute`: one of the three, by `sourceType`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SpanAttribute {
    pub name: String,
    pub source_type: AttributeSource,
    #[serde(default)]
    pub header_name: Option<String>,
    #[serde(default)]
    pub literal_value: Option<String>,
    #[serde(default)]
    pub attribute_key: Option<String>,
}

/// `AttributeSourceType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum AttributeSource {
    Header,
    Literal,
    Attribute,
}
