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
    /// The namespace whose service of that name is meant, where one is given.
    pub namespace: Option<Str>,
    pub port: u16,
    pub protocol: Protocol,
    /// Of one export.
    pub timeout: Duration,
    /// The namespace of the policy that names it, where that is a tenant's: the agent connects to endpoints of Services alone, and
    /// only where a tenant may have it connect to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Str>,
    /// Sent with each export. Dumps have their names only, since values are keys.
    #[serde(serialize_with = "names")]
    pub headers: Vec<(Str, Str)>,
}

fn names<S: serde::Serializer>(headers: &[(Str, Str)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(headers.iter().map(|(name, _)| name))
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
