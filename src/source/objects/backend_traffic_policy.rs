//! Gateway API's XBackendTrafficPolicy (`gateway.networking.x-k8s.io/v1alpha1`; GEP-3388).

use serde::Deserialize;
use serde_json::Value;

use super::{Resource, TargetRef};

pub type XBackendTrafficPolicy = Resource<BackendTrafficPolicySpec>;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendTrafficPolicySpec {
    /// Services of the policy's namespace.
    pub target_refs: Vec<TargetRef>,
    #[serde(default)]
    pub retry_constraint: Option<RetryConstraint>,
    /// Only that it is there.
    #[serde(default)]
    pub session_persistence: Option<Value>,
}

/// How many requests may be sent again. The API server fills in what is absent; a directory has no API server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryConstraint {
    #[serde(default)]
    pub budget: Option<BudgetDetails>,
    #[serde(default)]
    pub min_retry_rate: Option<RequestRate>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BudgetDetails {
    #[serde(default)]
    pub percent: Option<u32>,
    #[serde(default)]
    pub interval: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestRate {
    #[serde(default)]
    pub count: Option<u32>,
    #[serde(default)]
    pub interval: Option<String>,
}
