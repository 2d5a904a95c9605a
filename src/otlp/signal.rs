//! What is exported: spans, or records of the access log.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;

use super::encode;
use crate::base::Str;
use crate::telemetry::{ExportMetrics, Telemetry};
use crate::trace::Finished;

/// One kind of what is exported.
pub(super) trait Signal: Send + Sync + 'static {
    type Request: Message + Clone + Default + 'static;
    type Answer: Message + Default + 'static;
    /// For messages to operators.
    const NAME: &'static str;
    /// The method of gRPC that takes a batch.
    const METHOD: &'static str;

    /// The namespace that has a share of a queue.
    fn tenant(&self) -> &Str;
    fn request(batch: &[Arc<Self>]) -> Self::Request;
    /// How many the collector has not accepted.
    fn rejected(answer: &Self::Answer) -> i64;
    fn metrics(telemetry: &Telemetry) -> &ExportMetrics;
}

impl Signal for Finished {
    type Request = ExportTraceServiceRequest;
    type Answer = ExportTraceServiceResponse;
    const NAME: &'static str = "spans";
    const METHOD: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    fn tenant(&self) -> &Str {
        &self.tenant
    }

    fn request(batch: &[Arc<Self>]) -> ExportTraceServiceRequest {
        encode::request(batch)
    }

    fn rejected(answer: &ExportTraceServiceResponse) -> i64 {
        answer.partial_success.as_ref().map_or(0, |part| part.rejected_spans)
    }

    fn metrics(telemetry: &Telemetry) -> &ExportMetrics {
        telemetry.span_metrics()
    }
}
