//! Records of the access log as OTLP's messages.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::{
    LogRecord as Record, ResourceLogs, ScopeLogs, SeverityNumber,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::encode::{attributes, nanoseconds, scope};
use super::signal::Signal;
use crate::base::Str;
use crate::telemetry::{ExportMetrics, LogRecord, Telemetry};
use crate::trace::Attribute;

impl Signal for LogRecord {
    type Request = ExportLogsServiceRequest;
    type Answer = ExportLogsServiceResponse;
    const NAME: &'static str = "records of the access log";
    const METHOD: &'static str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

    fn tenant(&self) -> &Str {
        &self.tenant
    }

    fn request(batch: &[Arc<Self>]) -> ExportLogsServiceRequest {
        let mut resources: Vec<(&[Attribute], Vec<Record>)> = Vec::new();
        for record in batch {
            let written = written(record);
            match resources.iter_mut().find(|(resource, _)| *resource == record.resource) {
                Some((_, records)) => records.push(written),
                None => resources.push((&record.resource, vec![written])),
            }
        }
        let resource_logs = resources.into_iter().map(|(resource, log_records)| ResourceLogs {
            resource: Some(Resource { attributes: attributes(resource), ..Resource::default() }),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        });
        ExportLogsServiceRequest { resource_logs: resource_logs.collect() }
    }

    fn rejected(answer: &ExportLogsServiceResponse) -> i64 {
        answer.partial_success.as_ref().map_or(0, |part| part.rejected_log_records)
    }

    fn metrics(telemetry: &Telemetry) -> &ExportMetrics {
        telemetry.record_metrics()
    }
}

fn written(record: &LogRecord) -> Record {
    let severity = if record.failed { SeverityNumber::Warn } else { SeverityNumber::Info };
    let body = (!record.body.is_empty())
        .then(|| AnyValue { value: Some(Any::StringValue(record.body.clone())) });
    let (trace, span) = record.trace.unzip();
    Record {
        time_unix_nano: nanoseconds(record.ended),
        observed_time_unix_nano: nanoseconds(record.ended),
        severity_number: severity.into(),
        severity_text: if record.failed { "WARN" } else { "INFO" }.to_owned(),
        body,
        attributes: attributes(&record.attributes),
        trace_id: trace.map(|trace| trace.0.to_be_bytes().to_vec()).unwrap_or_default(),
        span_id: span.map(|span| span.0.to_be_bytes().to_vec()).unwrap_or_default(),
        ..Record::default()
    }
}
