//! Where spans go.

use std::time::Duration;

use crate::base::Str;

/// An OpenTelemetry collector.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Provider {
    /// As the configuration calls it.
    pub name: Str,
    /// A host: a Service's name, a DNS name or an address.
    pub host: Str,
    pub port: u16,
    pub protocol: Protocol,
    /// Of one export.
    pub timeout: Duration,
    /// Sent with each export.
    pub headers: Vec<(Str, Str)>,
}

/// How OTLP is spoken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    Grpc,
    /// Protobuf in a POST to this path.
    Http {
        path: Str,
    },
}

impl Protocol {
    /// Where OTLP over HTTP is received, unless configured otherwise.
    pub const PATH: Str = arcstr::literal!("/v1/traces");
}

impl Provider {
    /// What the OpenTelemetry SDKs wait for an export (`OTEL_EXPORTER_OTLP_TIMEOUT`).
    pub const TIMEOUT: Duration = Duration::from_secs(10);
}
