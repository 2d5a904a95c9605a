//! Rules of Telemetry objects for the access log and the metrics of requests. A record follows them.

use std::sync::Arc;

use super::AccessFormat;
use crate::expression::Expression;

/// The rules for the requests of one side.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct RequestRules {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Arc<AccessRules>>,
    #[serde(skip_serializing_if = "MetricRules::is_empty")]
    pub metrics: MetricRules,
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
}

/// The metrics that are not recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MetricRules {
    pub count: bool,
    pub duration: bool,
    pub request_size: bool,
    pub response_size: bool,
    pub request_messages: bool,
    pub response_messages: bool,
}

impl RequestRules {
    /// Nothing differs from the default.
    pub fn is_empty(&self) -> bool {
        self.access.is_none() && self.metrics.is_empty()
    }
}

impl MetricRules {
    /// All of them are disabled.
    pub const NONE: Self = Self {
        count: true,
        duration: true,
        request_size: true,
        response_size: true,
        request_messages: true,
        response_messages: true,
    };

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
