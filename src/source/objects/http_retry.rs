//! Istio's `HTTPRetry`, which VirtualServices and the MeshConfig share.

use serde::Deserialize;
use serde_json::{Map, Value};

/// How requests are retried. What the fields mean is read in one place, whoever has them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRetry {
    /// 0, which disables retries, if absent.
    #[serde(default)]
    pub attempts: Option<i32>,
    #[serde(default)]
    pub per_try_timeout: Option<String>,
    /// Envoy's names of failures, and statuses, with commas between.
    #[serde(default)]
    pub retry_on: Option<String>,
    #[serde(default)]
    pub backoff: Option<String>,
    #[serde(default)]
    pub retry_remote_localities: Option<bool>,
    #[serde(default)]
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Fields that it does not have.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}
