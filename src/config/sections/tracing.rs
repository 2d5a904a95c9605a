//! `[tracing]`: where spans go, and which requests have some.

use std::ops::RangeInclusive;

use crate::base::Str;
use crate::config::check;

/// All of them, in thousandths.
const PER_MILLE: RangeInclusive<usize> = 0..=1_000;

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Otlp {
    /// `opentelemetry.proto.collector.trace.v1.TraceService`.
    Grpc,
    /// Protobuf in a POST to `/v1/traces`.
    Http,
}

section! {
    /// `[tracing]`
    pub struct TracingSettings in "tracing." {
        /// The OpenTelemetry collector that gets the spans of requests and of connections without a waypoint: host and port.
        /// The host is a Service's name as in `otel-collector.observability.svc.cluster.local`, a DNS name or an address; it
        /// is reached from the node, in plaintext. Empty: nothing is traced, and headers of traces pass as they come.
        collector: Str = "", text("host and port, or empty", check::host_and_port_or_empty),
            because "A mesh has no collector unless somebody runs one.";

        /// How the collector is addressed: `grpc` or `http` (protobuf in a POST to /v1/traces).
        protocol: Otlp = Otlp::Grpc, choice(&[("grpc", Otlp::Grpc), ("http", Otlp::Http)]),
            because "Port 4317, which collectors open for gRPC, is the one that Istio's documentation configures.";

        /// Which share of the traces that begin here is recorded, in thousandths; 1000 is all. A decision that comes
        /// with a request (traceparent, b3) holds instead.
        per_mille: usize = 10, number(PER_MILLE),
            because "Istio's 1 %.";
    }
}
